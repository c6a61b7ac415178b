"""Moments of rows, mergeable: all that PCA, scaling and total variance need, from one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vehclust_dask.kernels.columns import TILE_COLUMNS
from vehclust_dask.kernels.distances import F32, F64, TINY32
from vehclust_dask.kernels.jit import njit

#: Columns of a panel of a product, and of a tile that is mirrored (a divisor of it).
PANEL, MIRROR = 640, 64


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean, range and second moments of rows.

    Attributes
    ----------
    n : int
    mean : ndarray of shape (n_features,), float64
    minimum, maximum : ndarray of shape (n_features,), float32
    scatter : ndarray of shape (n_features, n_features), float64
        Sum of the outer products of the centered rows; for ``triangular`` its Cholesky-like factor
        R (upper triangular, ``R.T @ R`` is the scatter).
    triangular : bool
    """

    n: int
    mean: F64
    minimum: F32
    maximum: F32
    scatter: F64
    triangular: bool = False

    def variance(self) -> F64:
        """Return the variance of every column, divided by n; not below zero."""
        if self.triangular:
            squares = np.einsum("ij,ij->j", self.scatter, self.scatter)
        else:
            squares = np.diagonal(self.scatter)
        spread: F64 = np.maximum(squares, 0.0) / self.n
        spread[self.minimum == self.maximum] = 0.0
        return spread


def unit_rows(X: F32) -> F32:
    """Divide every row by its length, in float64; a zero row stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
    norms[norms == 0] = 1.0
    return (X / norms[:, None]).astype(np.float32)


@njit
def _sum_columns(X: Any, total: Any, low: Any, high: Any) -> None:
    for first in range(0, X.shape[1], TILE_COLUMNS):
        last = min(first + TILE_COLUMNS, X.shape[1])
        for i in range(X.shape[0]):
            for j in range(first, last):
                x = X[i, j]
                total[j] += np.float64(x)
                low[j] = x if x < low[j] else low[j]
                high[j] = x if x > high[j] else high[j]


@njit
def _center_columns(X: Any, center: Any, out: Any, left: Any) -> None:
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            t = X[i, j] - center[j]
            out[i, j] = t
            left[j] += np.float64(t)


@njit
def _add_gram(scatter: Any, gram: Any, left: Any, step: Any) -> None:
    """Add a block's product to a scatter, with what its own mean and the step between means ask for.

    The product is known on and above the diagonal of panels; what lies below mirrors it, tile by
    tile so that neither reading nor writing jumps through memory.
    """
    d = scatter.shape[0]
    for top in range(0, d, MIRROR):
        bottom = min(top + MIRROR, d)
        for first in range(top, d, MIRROR):
            last = min(first + MIRROR, d)
            for i in range(top, bottom):
                for j in range(first, last):
                    own = np.float64(gram[i, j]) - left[i] * left[j]
                    scatter[i, j] = step[i] * step[j] + scatter[i, j] + own
            for i in range(first, last):
                for j in range(top, min(bottom, i)):
                    scatter[i, j] = scatter[j, i]


def _gram_of(centered: F32) -> F32:
    """Return the product of rows with themselves on and above the diagonal of panels.

    Panels off the diagonal are plain products, which run a tenth faster than the symmetric kind.
    """
    d = centered.shape[1]
    gram = np.empty((d, d), np.float32)
    for a in range(0, d, PANEL):
        left = centered[:, a : a + PANEL]
        for b in range(a, d, PANEL):
            right = centered[:, b : b + PANEL]
            np.matmul(left.T, right, out=gram[a : a + PANEL, b : b + PANEL])
    return gram


@dataclass(frozen=True, eq=False)
class _Gram:
    """A block before its scatter is made: the product about a float32 center, and what is left of it."""

    n: int
    mean: F64
    minimum: F32
    maximum: F32
    gram: F32
    left: F64

    @classmethod
    def of(cls, X: F32) -> _Gram:
        n, d = X.shape
        total, left = np.zeros(d), np.zeros(d)
        low, high = np.full(d, np.inf, np.float32), np.full(d, -np.inf, np.float32)
        _sum_columns(X, total, low, high)
        mean = total / n
        centered = np.empty((n, d), np.float32)
        _center_columns(X, mean.astype(np.float32), centered, left)
        return cls(n, mean, low, high, _gram_of(centered), left)


def moments_of(X: F32) -> Moments:
    """Return the moments of a block.

    The product is made in float32 about a center close to the mean (the error of a variance is then
    relative to the variance, not to the square of the mean) and corrected in float64.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    """
    d = X.shape[1]
    nothing = np.zeros(d, np.float32)
    empty = Moments(0, np.zeros(d), nothing + np.inf, nothing - np.inf, np.zeros((d, d)))
    return add_rows(empty, X)


def add_rows(moments: Moments, X: F32) -> Moments:
    """Return the moments of earlier rows and a block; the earlier scatter is written over.

    Making the block's scatter first and merging it then would go six times through n_features**2
    numbers, which takes longer than the product where a block has fewer rows than columns.
    """
    b = _Gram.of(X)
    n = moments.n + b.n
    step = b.mean - moments.mean
    _add_gram(moments.scatter, b.gram, b.left / np.sqrt(b.n), np.sqrt(moments.n * (b.n / n)) * step)
    return Moments(
        n,
        moments.mean + step * (b.n / n),
        np.minimum(moments.minimum, b.minimum),
        np.maximum(moments.maximum, b.maximum),
        moments.scatter,
    )


def triangle_of(X: F32) -> Moments:
    """Return the moments of a block with the scatter as a triangle: QR of the centered rows in float64.

    Twice as many digits of small variances survive as in a product of the block with itself.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    R = _square_r(X.astype(np.float64) - mean)
    return Moments(X.shape[0], mean, X.min(axis=0), X.max(axis=0), R, triangular=True)


def _square_r(A: F64) -> F64:
    """Return R of the QR decomposition with as many rows as columns."""
    R: F64 = np.asarray(np.linalg.qr(A, mode="r"))
    missing = A.shape[1] - R.shape[0]
    return np.vstack([R, np.zeros((missing, A.shape[1]))]) if missing > 0 else R


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Merge the moments of two sets of rows.

    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm (1979), eq. 2.1; in the
    triangular form the step between the means is one more row of the stacked factors.
    """
    n = a.n + b.n
    step = b.mean - a.mean
    mean = a.mean + step * (b.n / n)
    away = np.sqrt(a.n * (b.n / n)) * step
    if a.triangular:
        scatter = _square_r(np.vstack([a.scatter, b.scatter, away]))
    else:
        scatter = np.multiply.outer(away, away)
        scatter += a.scatter
        scatter += b.scatter
    low, high = np.minimum(a.minimum, b.minimum), np.maximum(a.maximum, b.maximum)
    return Moments(n, mean, low, high, scatter, a.triangular)


@dataclass(frozen=True)
class MomentsPass:
    """The reduction that gathers moments.

    Parameters
    ----------
    triangular : bool
    unit : bool
        Divide every row by its length first.
    """

    triangular: bool = False
    unit: bool = False
    fan_in: int = 2

    def fold(self, summary: Moments | None, X: F32, span: Any) -> Moments:
        """Add a block; the scatter of the summary is written over."""
        rows = unit_rows(X) if self.unit else X
        if not self.triangular:
            return moments_of(rows) if summary is None else add_rows(summary, rows)
        moments = triangle_of(rows)
        return moments if summary is None else merge_moments(summary, moments)

    def merge(self, left: Moments, right: Moments) -> Moments:
        """Merge the moments of two groups of blocks."""
        return merge_moments(left, right)


def column_factors(moments: Moments, scale: str) -> tuple[F64, F64]:
    """Return shift and factor of every column, ``(x - shift) * factor``.

    Parameters
    ----------
    moments : Moments
    scale : {'none', 'l2', 'standard', 'minmax'}
        'l2' belongs to rows: columns are left as they are.

    Notes
    -----
    A constant column has no scale: its factor is 1, as in scikit-learn. Constant means that the
    spread cannot be told from the rounding of its mean, or is less than float32 can hold (its
    square, in the product form): the factor itself would overflow.
    """
    d = len(moments.mean)
    if scale in ("none", "l2"):
        return np.zeros(d), np.ones(d)
    if scale == "minmax":
        low = moments.minimum.astype(np.float64)
        spread = moments.maximum.astype(np.float64) - low
        spread[spread < TINY32] = 1.0
        return low, 1.0 / spread
    variance = moments.variance()
    rounding = moments.n * np.finfo(np.float64).eps
    constant = variance <= rounding * variance + (rounding * moments.mean) ** 2
    constant |= variance < (TINY32**2 if moments.triangular else TINY32)
    return moments.mean.copy(), 1.0 / np.sqrt(np.where(constant, 1.0, variance))
