"""HDBSCAN's tree: which clusters a hierarchy holds, how long they last, and which are chosen.

Campello, Moulavi, Zimek, Sander, Hierarchical density estimates for data clustering, visualization,
and outlier detection (2015): condensed tree and stability (section 4), GLOSH (section 5). Density
is lambda = 1 / distance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F64, I32, I64
from vehclust_dask.kernels.jit import njit

Bools = NDArray[np.bool_]


class Condensed(NamedTuple):
    """A condensed tree; cluster 0 holds all rows, parents come before their children.

    Attributes
    ----------
    row_parent : ndarray of shape (n_rows,), int32
        The cluster each row fell out of.
    row_lambda : ndarray of shape (n_rows,), float64
        The density at which it did.
    parent : ndarray of shape (n_clusters,), int32
        -1 for the first.
    birth : ndarray of shape (n_clusters,), float64
        The density at which the cluster came apart from its sibling.
    size : ndarray of shape (n_clusters,), int64
        Rows at birth.
    """

    row_parent: I32
    row_lambda: F64
    parent: I32
    birth: F64
    size: I64

    @classmethod
    def of(cls, linkage: F64, min_cluster_size: int) -> Condensed:
        """Condense a single-linkage tree: a split counts where both sides have ``min_cluster_size`` rows.

        Rows that are equal in density without end (height 0) are no two clusters.

        Parameters
        ----------
        linkage : ndarray of shape (n_rows - 1, 4), float64
            As scipy writes it.
        min_cluster_size : int
            At least 2.
        """
        n = len(linkage) + 1
        most = 2 * (n // min_cluster_size) + 2
        row_parent, row_lambda = np.zeros(n, np.int32), np.zeros(n)
        parent, birth = np.full(most, -1, np.int32), np.zeros(most)
        size = np.full(most, n, np.int64)
        used = _condense(linkage, min_cluster_size, row_parent, row_lambda, parent, birth, size)
        return cls(row_parent, row_lambda, parent[:used], birth[:used], size[:used])

    @property
    def n_clusters(self) -> int:
        """Return the number of clusters, that of all rows included."""
        return len(self.parent)

    def stability(self) -> F64:
        """Return every cluster's stability: how long its rows stay in it, in density."""
        with np.errstate(invalid="ignore"):
            stay = self.row_lambda - self.birth[self.row_parent]
            born = self.size[1:] * (self.birth[1:] - self.birth[self.parent[1:]])
        out: F64 = np.zeros(self.n_clusters)
        out += np.bincount(self.row_parent, weights=stay, minlength=self.n_clusters)
        np.add.at(out, self.parent[1:], born)
        return out

    def ends(self) -> F64:
        """Return the largest density at which a row or a part left each cluster itself."""
        out = np.zeros(self.n_clusters)
        np.maximum.at(out, self.row_parent, self.row_lambda)
        np.maximum.at(out, self.parent[1:], self.birth[1:])
        return out

    def leaves(self) -> Bools:
        """Return which clusters never come apart."""
        chosen = np.ones(self.n_clusters, np.bool_)
        chosen[self.parent[1:]] = False
        chosen[0] = False
        return chosen

    def excess_of_mass(self) -> Bools:
        """Return the clusters, none inside another, whose stabilities add up to the most.

        All rows together are never chosen; a cluster wins over its parts when they tie.
        """
        best, chosen = self.stability(), np.ones(self.n_clusters, np.bool_)
        parts = np.zeros(self.n_clusters)
        for c in range(self.n_clusters - 1, 0, -1):
            if parts[c] > best[c]:
                chosen[c], best[c] = False, parts[c]
            parts[self.parent[c]] += best[c]
        chosen[0] = False
        inside = np.zeros(self.n_clusters, np.bool_)
        for c in range(1, self.n_clusters):
            up = self.parent[c]
            inside[c] = inside[up] or chosen[up]
        return chosen & ~inside

    def choose(self, method: str) -> Bools:
        """Return the chosen clusters, by ``eom`` or ``leaf``."""
        return self.leaves() if method == "leaf" else self.excess_of_mass()

    def row_clusters(self, chosen: Bools) -> I32:
        """Return the chosen cluster of each row, -1 for none."""
        up = np.full(self.n_clusters, -1, np.int32)
        for c in range(self.n_clusters):
            up[c] = c if chosen[c] else (up[self.parent[c]] if c else -1)
        return up[self.row_parent]

    def probabilities(self, cluster: I32) -> F64:
        """Return how deep in its cluster each row lies, 0 to 1; 0 for noise.

        Parameters
        ----------
        cluster : ndarray of shape (n_rows,), int32
            From `row_clusters`.
        """
        deepest = self.ends()
        out = np.zeros(len(cluster))
        there = cluster >= 0
        most, own = deepest[cluster[there]], self.row_lambda[there]
        with np.errstate(invalid="ignore", divide="ignore"):
            depth = np.minimum(own, most) / most
        out[there] = np.where(np.isfinite(own) & (most > 0), depth, 1.0)
        return out

    def outlier_scores(self) -> F64:
        """Return GLOSH for every row, 0 to 1: how far below the densest of its cluster it fell out."""
        deepest = self.ends()
        for c in range(self.n_clusters - 1, 0, -1):
            up = self.parent[c]
            deepest[up] = max(deepest[up], deepest[c])
        most, own = deepest[self.row_parent], self.row_lambda
        with np.errstate(invalid="ignore", divide="ignore"):
            score = np.where(np.isfinite(most), (most - own) / most, 1.0)
        return np.where(np.isfinite(own) & (most > 0), score, 0.0)


@njit
def _condense(
    Z: Any,
    fewest: int,
    row_parent: Any,
    row_lambda: Any,
    parent: Any,
    birth: Any,
    size: Any,
) -> int:
    n = Z.shape[0] + 1
    owner = np.zeros(2 * n - 1, np.int32)
    # The density at which a branch fell out of its cluster; below zero while it has not.
    fell = np.full(2 * n - 1, -1.0)
    used = 1
    for k in range(n - 2, -1, -1):
        node = n + k
        height = Z[k, 2]
        density = 1.0 / height if height > 0 else np.inf
        apart = height > 0
        for side in range(2):
            child = np.int64(Z[k, side])
            apart = apart and (1 if child < n else Z[child - n, 3]) >= fewest
        for side in range(2):
            child = np.int64(Z[k, side])
            rows = 1 if child < n else np.int64(Z[child - n, 3])
            owner[child] = owner[node]
            if fell[node] >= 0:
                fell[child] = fell[node]
            elif apart:
                parent[used], birth[used], size[used] = owner[node], density, rows
                owner[child] = used
                used += 1
            elif rows < fewest or height == 0:
                fell[child] = density
    for i in range(n):
        row_parent[i] = owner[i]
        row_lambda[i] = max(fell[i], 0.0)
    return used


def reachability(linkage: F64) -> tuple[I32, F64]:
    """Return rows in the order of the tree's leaves, and the height between each and the one before.

    What OPTICS plots, for mutual reachability: valleys are clusters. The side of a merge that holds
    the lower numbered part comes first.

    Parameters
    ----------
    linkage : ndarray of shape (n_rows - 1, 4), float64

    Returns
    -------
    order : ndarray of shape (n_rows,), int32
    height : ndarray of shape (n_rows,), float64
        Infinite for the first.
    """
    n = len(linkage) + 1
    order, height = np.zeros(n, np.int32), np.full(n, np.inf)
    _leaves(linkage, order, height)
    return order, height


@njit
def _leaves(Z: Any, order: Any, height: Any) -> None:
    n = Z.shape[0] + 1
    start = np.zeros(2 * n - 1, np.int64)
    for k in range(n - 2, -1, -1):
        a, b = np.int64(Z[k, 0]), np.int64(Z[k, 1])
        at = start[n + k]
        start[a] = at
        start[b] = at + (1 if a < n else np.int64(Z[a - n, 3]))
        height[start[b]] = Z[k, 2]
    for i in range(n):
        order[start[i]] = i
