"""From merges to a tree as scipy writes it, and from the tree to labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F64, I32
from vehclust_dask.kernels.jit import njit


def linkage_of(merged: NDArray[Any], heights: F64) -> F64:
    """Return the linkage matrix of merges in any order that puts parts before wholes.

    Parameters
    ----------
    merged : ndarray of shape (n - 1, 2), int
        A row of either cluster of each merge.
    heights : ndarray of shape (n - 1,), float64
        Never below those of the merges a merge rests on.

    Returns
    -------
    ndarray of shape (n - 1, 4), float64
        As scipy.cluster.hierarchy.linkage: two clusters, the lower number first, height, rows.
    """
    order = np.argsort(heights, kind="stable")
    Z = np.empty((len(heights), 4))
    Z[:, 2] = heights[order]
    _number(np.ascontiguousarray(merged[order], dtype=np.int64), Z)
    return Z


@njit
def _top(parent: Any, i: int) -> int:
    top = i
    while parent[top] != top:
        top = parent[top]
    while parent[i] != top:
        above = parent[i]
        parent[i] = top
        i = above
    return top


@njit
def _number(merged: Any, Z: Any) -> None:
    n = merged.shape[0] + 1
    parent = np.arange(2 * n - 1)
    rows = np.ones(2 * n - 1)
    for k in range(n - 1):
        a, b = _top(parent, merged[k, 0]), _top(parent, merged[k, 1])
        Z[k, 0], Z[k, 1] = min(a, b), max(a, b)
        rows[n + k] = rows[a] + rows[b]
        Z[k, 3] = rows[n + k]
        parent[a] = parent[b] = n + k


def cut_linkage(Z: F64, n_merges: int) -> I32:
    """Return labels after the first merges, int32 of shape (n,), numbered by their first row."""
    labels = np.empty(len(Z) + 1, np.int32)
    _cut(Z, n_merges, labels)
    return labels


@njit
def _cut(Z: Any, n_merges: int, labels: Any) -> None:
    n = labels.shape[0]
    parent = np.arange(2 * n - 1)
    for k in range(n_merges):
        parent[np.int64(Z[k, 0])] = n + k
        parent[np.int64(Z[k, 1])] = n + k
    names = np.full(2 * n - 1, -1, np.int32)
    used = 0
    for i in range(n):
        top = _top(parent, i)
        if names[top] < 0:
            names[top] = used
            used += 1
        labels[i] = names[top]
