"""Every DBSCAN from one spanning tree: labels, core rows, and what each (eps, min_samples) gives.

A spanning tree for one ``min_samples`` and the lists of nearest rows hold the tree of every smaller
one (CORE-SG: Neto, Naldi, Sander, Campello, Efficient computation and visualization of multiple
density-based clustering hierarchies, 2022): outside the lists of the larger one the weights are the
distances themselves, whichever ``min_samples`` is asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vehclust_dask.kernels.distances import F64, I32, I64
from vehclust_dask.kernels.forest import Edges, Graph, find, forest
from vehclust_dask.kernels.jit import njit

#: A setting is balanced where so many clusters hold so large a share of the rows each, the largest
#: holds no more than this, and no more than this share is noise.
FEWEST, SMALL_SHARE, LARGEST_SHARE, NOISE_SHARE = 2, 0.01, 0.5, 0.5


class Cuts(NamedTuple):
    """What all DBSCANs of one ``min_samples`` are cut from.

    Attributes
    ----------
    edges : Edges
        Spanning tree of mutual reachability of the distinct rows, by weight.
    core : ndarray of shape (n_distinct,), float64
        Squared core distances.
    joins : ndarray of shape (n_distinct,), float64
        Squared eps from which on a row is no noise: within it lies a core row, or itself is one.
    """

    edges: Edges
    core: F64
    joins: F64

    @classmethod
    def of(cls, graph: Graph, tree: Edges, largest: int, min_samples: int) -> Cuts:
        """Return the cuts for a ``min_samples`` not above the ``largest``, which the tree is for."""
        core = graph.cores(min_samples)
        if min_samples == largest:
            spanning = tree
        else:
            spanning = forest(graph, core, more=tree, width=largest - 1).certain.in_order()
        joins = np.empty(graph.n_rows)
        _joins(graph.near, graph.sq_dist, core, joins)
        return cls(spanning, core, joins)

    def labels(self, graph: Graph, sq_eps: float) -> I32:
        """Return the labels of DBSCAN, int32 of shape (n_distinct,), numbered by their first core row.

        A border row that several clusters reach goes to the one with the smallest number; -1 is noise.
        """
        out = np.empty(graph.n_rows, np.int32)
        parent = np.arange(graph.n_rows)
        _label(*self.edges, self.core, graph.near, graph.sq_dist, sq_eps, parent, out)
        return out


@njit
def _joins(near: Any, sq_dist: Any, core: Any, joins: Any) -> None:
    for i in range(near.shape[0]):
        joins[i] = core[i]
        for e in range(near.shape[1]):
            if sq_dist[i, e] >= joins[i]:
                break
            joins[i] = min(joins[i], max(core[near[i, e]], sq_dist[i, e]))


@njit
def _label(
    a: Any, b: Any, sq: Any, core: Any, near: Any, sq_dist: Any, sq_eps: Any, parent: Any, out: Any
) -> None:
    for e in range(a.shape[0]):
        if sq[e] > sq_eps:
            break
        p, q = find(parent, a[e]), find(parent, b[e])
        parent[max(p, q)] = min(p, q)
    used = 0
    n = out.shape[0]
    # Roots are the lowest rows of their components, so that a number is given before it is asked for.
    for i in range(n):
        out[i] = -1
        if core[i] <= sq_eps:
            root = find(parent, i)
            if root == i:
                out[i] = used
                used += 1
            else:
                out[i] = out[root]
    for i in range(n):
        if core[i] <= sq_eps:
            continue
        for e in range(near.shape[1]):
            if sq_dist[i, e] > sq_eps:
                break
            j = near[i, e]
            if core[j] <= sq_eps and (out[i] < 0 or out[j] < out[i]):
                out[i] = out[j]


class Cell(NamedTuple):
    """What one setting of DBSCAN gives, in rows.

    Attributes
    ----------
    clusters : int
    noise, largest : float
        Shares of all rows: without a cluster, and in the largest one.
    sizable : int
        Clusters that hold `SMALL_SHARE` of the rows or more.
    balance : float
        Effective number of clusters, exp of the entropy of the sizes, without noise; 0 for none.
    """

    clusters: int
    noise: float
    largest: float
    sizable: int
    balance: float

    @classmethod
    def of(cls, labels: I32, counts: I64) -> Cell:
        """Look at the labels of distinct rows, each counted as often as it occurs."""
        total = float(counts.sum())
        sizes = np.bincount(labels + 1, weights=counts)[1:]
        if len(sizes) == 0:
            return cls(0, 1.0, 0.0, 0, 0.0)
        shares = sizes / sizes.sum()
        return cls(
            len(sizes),
            1.0 - float(sizes.sum()) / total,
            float(sizes.max()) / total,
            int((sizes >= SMALL_SHARE * total).sum()),
            float(np.exp(-(shares * np.log(shares)).sum())),
        )

    @property
    def balanced(self) -> bool:
        """Say whether the clusters are of a use: some sizable ones, none of them most of the rows."""
        return (
            self.sizable >= FEWEST and self.largest <= LARGEST_SHARE and self.noise <= NOISE_SHARE
        )


def eps_range(first: Cuts, last: Cuts, counts: I64, n: int) -> F64:
    """Return squared values of eps between which everything happens, equal steps on a log scale.

    From where 1 % of the rows have found a cluster at the smallest ``min_samples`` to where 99 %
    of the edges hold at the largest; fewer than ``n`` where that is one and the same.

    Parameters
    ----------
    first, last : Cuts
        Of the smallest and the largest ``min_samples``.
    counts : ndarray of shape (n_distinct,), int64
    n : int
    """
    order = np.argsort(first.joins)
    share = np.cumsum(counts[order]) / counts.sum()
    low = first.joins[order][np.searchsorted(share, 0.01)]
    weights = last.edges.sq[np.isfinite(last.edges.sq)]
    high = weights[int(0.99 * (len(weights) - 1))] if len(weights) else low
    if low == 0:
        positive = weights[weights > 0]
        low = positive[0] if len(positive) else 0.0
    if not 0 < low < high:
        return np.array([max(low, high)])
    return np.geomspace(low, high, n)
