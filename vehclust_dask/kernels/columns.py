"""What a column holds: range, mean, spread, zeros; gathered while rows pass by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F32, F64, I64
from vehclust_dask.kernels.jit import njit

#: Columns whose sums are gathered side by side.
TILE_COLUMNS = 512


@dataclass(frozen=True, eq=False)
class ColumnStats:
    """Statistics of every column over its finite rows; a row with any other value counts as bad.

    Attributes
    ----------
    n : int
        Finite rows.
    minimum, maximum : ndarray of shape (n_features,), float32
    mean, m2 : ndarray of shape (n_features,), float64
        Mean and sum of squared deviations.
    zeros : ndarray of shape (n_features,), int64
    bad_rows : ndarray, int64
        Global numbers of rows that hold NaN or infinity, ascending.
    """

    n: int
    minimum: F32
    maximum: F32
    mean: F64
    m2: F64
    zeros: I64
    bad_rows: I64

    @property
    def std(self) -> F64:
        """Return the standard deviation of every column, divided by n."""
        spread: F64 = np.sqrt(np.maximum(self.m2, 0.0) / max(self.n, 1))
        return spread

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Say which columns hold one value only."""
        same: NDArray[np.bool_] = self.minimum == self.maximum
        return same

    @property
    def largest(self) -> float:
        """Return the largest absolute value of all columns."""
        return float(max(np.abs(self.minimum).max(), np.abs(self.maximum).max()))


@njit
def _finite_rows(X: Any, good: Any) -> int:
    n_good = 0
    for i in range(X.shape[0]):
        total = np.float32(0)
        for j in range(X.shape[1]):
            # Zero times a finite value is zero; infinity and NaN make NaN.
            total += X[i, j] * np.float32(0)
        good[i] = total == 0
        n_good += good[i]
    return n_good


@njit
def _add_rows(
    X: Any, good: Any, center: Any, low: Any, high: Any, total: Any, squares: Any, zeros: Any
) -> None:
    """Gather ranges, zeros, and sums and squares of the distances to a center, of the good rows.

    Columns go by tiles, so that what is added up stays in the processor's nearest cache.
    """
    d = X.shape[1]
    for first in range(0, d, TILE_COLUMNS):
        last = min(first + TILE_COLUMNS, d)
        for i in range(X.shape[0]):
            if not good[i]:
                continue
            for j in range(first, last):
                x = X[i, j]
                low[j] = x if x < low[j] else low[j]
                high[j] = x if x > high[j] else high[j]
                zeros[j] += x == 0
                t = np.float64(x) - center[j]
                total[j] += t
                squares[j] += t * t


def column_stats(X: F32, row0: int = 0) -> ColumnStats:
    """Return the statistics of a block whose first row has the number ``row0``.

    Sums are taken about the first good row: one pass, and what is lost to rounding is relative to
    the spread of a column, not to how far it lies from zero.
    """
    n_rows = len(X)
    good = np.ones(n_rows, np.bool_)
    with np.errstate(invalid="ignore"):
        stats = _stats_of(X, good, n_rows, 0)
    if np.isfinite(stats.mean).all() and np.isfinite(stats.m2).all():
        return stats
    # Some value is infinite or no number: which rows hold one?
    n = _finite_rows(X, good)
    found = _stats_of(X, good, n, int(good.argmax()))
    return replace(found, bad_rows=row0 + np.flatnonzero(~good).astype(np.int64))


def _stats_of(X: F32, good: NDArray[np.bool_], n: int, first: int) -> ColumnStats:
    """Return the statistics of the ``n`` good rows of a block, of which ``first`` is one."""
    d = X.shape[1]
    center = X[first].astype(np.float64) if n else np.zeros(d)
    low, high = np.full(d, np.inf, np.float32), np.full(d, -np.inf, np.float32)
    total, squares, zeros = np.zeros(d), np.zeros(d), np.zeros(d, np.int64)
    _add_rows(X, good, center, low, high, total, squares, zeros)
    count = max(n, 1)
    m2 = np.maximum(squares - total * (total / count), 0.0)
    return ColumnStats(n, low, high, center + total / count, m2, zeros, np.empty(0, np.int64))


def merge_columns(a: ColumnStats, b: ColumnStats) -> ColumnStats:
    """Merge the statistics of earlier rows ``a`` and later rows ``b``."""
    n = a.n + b.n
    step = b.mean - a.mean
    share = b.n / max(n, 1)
    return ColumnStats(
        n,
        np.minimum(a.minimum, b.minimum),
        np.maximum(a.maximum, b.maximum),
        a.mean + step * share,
        a.m2 + b.m2 + step * step * (a.n * share),
        a.zeros + b.zeros,
        np.concatenate([a.bad_rows, b.bad_rows]),
    )


@dataclass(frozen=True)
class ColumnPass:
    """The reduction that gathers column statistics."""

    fan_in: int = 8

    def fold(self, summary: ColumnStats | None, X: F32, span: Any) -> ColumnStats:
        """Add a block."""
        stats = column_stats(X, span.row0)
        return stats if summary is None else merge_columns(summary, stats)

    def merge(self, left: ColumnStats, right: ColumnStats) -> ColumnStats:
        """Merge the statistics of two groups of blocks."""
        return merge_columns(left, right)
