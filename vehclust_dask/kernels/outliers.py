"""How far a row stands out from its nearest rows, and which rows nearly repeat each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from vehclust_dask.kernels.distances import F64, I32, I64
from vehclust_dask.kernels.jit import njit

#: Keeps the density of a row finite whose nearest rows are all copies of it; scikit-learn's value.
TINY_REACH = 1e-10


@njit
def _distance(sq: float, unit: bool) -> float:
    return sq / 2 if unit else np.sqrt(sq)


@njit
def _densities(rows: Any, sq_dist: Any, k: int, unit: bool, out: Any) -> None:
    for i in range(rows.shape[0]):
        total = 0.0
        for e in range(k):
            reach = _distance(sq_dist[rows[i, e], k - 1], unit)
            total += max(_distance(sq_dist[i, e], unit), reach)
        out[i] = 1 / (total / k + TINY_REACH)


@njit
def _factors(rows: Any, density: Any, k: int, out: Any) -> None:
    for i in range(rows.shape[0]):
        total = 0.0
        for e in range(k):
            total += density[rows[i, e]]
        out[i] = total / k / density[i]


def local_outlier_factor(rows: I32, sq_dist: F64, k: int, *, unit: bool = False) -> F64:
    """Return how much sparser than its neighbours' each row's neighbourhood is; about 1 inside a cluster.

    Breunig, Kriegel, Ng and Sander (2000), definitions 5 to 7, with exactly k neighbours: of rows
    equally far away the lists hold the lowest ones.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, m), int32
        Nearest rows of every row, the nearest first; m >= k.
    sq_dist : ndarray of shape (n_rows, m), float64
    k : int
        How many of them count.
    unit : bool
        The squared distances are those of rows of length one: distances are then cosine's.

    Returns
    -------
    ndarray of shape (n_rows,), float64
    """
    density, factor = np.empty(len(rows)), np.empty(len(rows))
    _densities(rows, sq_dist, k, unit, density)
    _factors(rows, density, k, factor)
    return factor


@njit
def _root(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit
def _join_near(
    first: Any, pile: Any, rows: Any, sq_dist: Any, sq_limit: float, parent: Any
) -> None:
    for u in range(rows.shape[0]):
        for e in range(rows.shape[1]):
            if sq_dist[u, e] > sq_limit:
                break
            a, b = _root(parent, first[u]), _root(parent, first[pile[rows[u, e]]])
            # The lowest row of a group is its root, so the order of the pairs leaves no trace.
            parent[max(a, b)] = min(a, b)
    for i in range(parent.shape[0]):
        parent[i] = _root(parent, i)


def near_groups(first: I64, pile: I64, rows: I32, sq_dist: F64, sq_limit: float) -> I64:
    """Return the groups of rows that are linked by pairs at most a distance apart, copies included.

    Parameters
    ----------
    first : ndarray of shape (n_distinct,), int64
        The first row of each pile of equal rows, as of `kernels.copies.Copies`.
    pile : ndarray of shape (n_rows,), int64
    rows : ndarray of shape (n_distinct, m), int32
        Nearest distinct rows of every distinct row; pairs in no list are not seen.
    sq_dist : ndarray of shape (n_distinct, m), float64
    sq_limit : float
        Squared distance up to which two rows are a pair.

    Returns
    -------
    ndarray of shape (n_rows,), int64
        The lowest row of the group of each row; -1 for a row that is alone.
    """
    group = first[pile]
    _join_near(first, pile, rows, sq_dist, sq_limit, group)
    alone = np.bincount(group, minlength=len(group))[group] == 1
    group[alone] = -1
    return group


def ranks(values: F64) -> I32:
    """Return 1 for the largest value, 2 for the next, of equal ones the lower row first; 0 for NaN."""
    order = np.argsort(-values, kind="stable")
    rank = np.empty(len(values), np.int32)
    rank[order] = np.arange(1, len(values) + 1, dtype=np.int32)
    rank[np.isnan(values)] = 0
    return rank
