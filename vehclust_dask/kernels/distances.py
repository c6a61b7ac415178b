"""Distances between rows and centers: float32 products propose, float64 differences decide.

A float32 dot product of d terms is off by at most about d * u * |x| * |c| (u = 2**-24; Higham,
Accuracy and Stability of Numerical Algorithms, 3.1). Wherever two centers lie closer together than
that, the row is measured again in float64, so that a label is a function of the row and the centers
alone: neither of the BLAS, nor of the block the row was in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.lanes import sq_difference_lanes

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

#: Unit roundoff of float32.
U32 = 2.0**-24
#: Below the smallest normal float32 nothing is certain: digits go missing, or the number vanishes.
TINY32 = float(np.finfo(np.float32).tiny)
#: Scores up to this size cannot overflow on their way.
LARGEST_SCORE = 1e38


@njit
def sq_distance(x: Any, c: Any) -> float:
    """Return the squared Euclidean distance of two vectors, in float64.

    Eight running sums: a fixed order that the processor works on side by side.
    """
    n = x.shape[0]
    whole = n - n % 8
    a0, a1, a2, a3, a4, a5, a6, a7 = sq_difference_lanes(x, c, whole)
    for j in range(whole, n):
        t0 = np.float64(x[j]) - c[j]
        a0 += t0 * t0
    return ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))


@njit
def sq_norms(X: Any) -> Any:
    """Return the squared length of every row, float64 of shape (n_samples,)."""
    n, d = X.shape
    out = np.empty(n, np.float64)
    for i in range(n):
        total = 0.0
        for j in range(d):
            total += np.float64(X[i, j]) * X[i, j]
        out[i] = total
    return out


def score_error(n_features: int, norms: F64, longest: float) -> F32:
    """Bound the error of a float32 score |c|**2 / 2 - <x, c> for every row.

    Parameters
    ----------
    n_features : int
    norms : ndarray of shape (n_samples,), float64
        Lengths of the rows.
    longest : float
        Length of the longest center.

    Returns
    -------
    ndarray of shape (n_samples,), float32
        Rounded upwards; inf where a score may overflow, so that nothing but float64 decides.
    """
    bound = 1.01 * U32 * longest * ((n_features + 6) * norms + 1.5 * longest)
    bound = bound * (1 + 2 * U32) + (n_features + 6) * TINY32
    return np.where(longest * np.maximum(norms, longest) < LARGEST_SCORE, bound, np.inf).astype(
        np.float32
    )


@njit
def scan_scores(
    P: Any, half: Any, first: int, last: int, best: Any, second: Any, which: Any
) -> None:
    """Find the smallest and the second smallest score of every row among centers first..last.

    Parameters
    ----------
    P : ndarray of shape (n_centers, n_rows), float32
        Products <c, x>: centers down, rows across, so that the inner loop runs over rows in step.
    half : ndarray of shape (n_centers,), float32
        Half the squared length of each center.
    first, last : int
        The centers looked at: ``first <= j < last``.
    best, second : ndarray of shape (n_rows,), float32
        Written: smallest and second smallest score (inf where there is one center only).
    which : ndarray of shape (n_rows,), int32
        Written: position of the best center, counted from ``first``.
    """
    n = P.shape[1]
    inf = np.float32(np.inf)
    for r in range(n):
        best[r] = half[first] - P[first, r]
        second[r] = inf
        which[r] = 0
    for j in range(first + 1, last):
        h = half[j]
        position = np.int32(j - first)
        for r in range(n):
            v = h - P[j, r]
            b = best[r]
            closer = v < b
            other = b if closer else v
            s = second[r]
            second[r] = other if other < s else s
            best[r] = v if closer else b
            which[r] = position if closer else which[r]


@njit
def settle_ties(
    X: Any,
    C: Any,
    P: Any,
    half: Any,
    first: int,
    last: int,
    best: Any,
    second: Any,
    error: Any,
    which: Any,
) -> int:
    """Decide in float64 every row whose two best scores are closer than their error; ties: lowest index.

    Returns the number of rows measured again. ``which`` is corrected in place.
    """
    again = 0
    for r in range(P.shape[1]):
        limit = best[r] + np.float32(2) * error[r]
        # Asked this way round, a score that is no number, by overflow, is measured again.
        if second[r] > limit:
            continue
        again += 1
        nearest = np.inf
        for j in range(first, last):
            if not half[j] - P[j, r] > limit:
                distance = sq_distance(X[r], C[j])
                if distance < nearest:
                    nearest = distance
                    which[r] = j - first
    return again
