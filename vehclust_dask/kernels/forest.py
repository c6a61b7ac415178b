"""Minimum spanning trees of mutual reachability, from lists of nearest rows and one pass over tiles.

The mutual reachability of two rows is max(core, core, distance), where a row's core distance is the
one within which it has ``min_samples`` rows, itself included. The spanning tree of these weights
holds every cut of DBSCAN* and the hierarchy of HDBSCAN (Campello, Moulavi, Sander 2013).

Lists come first. An edge that leaves a component of the forest and is not in the lists of its rows
weighs no less than the smallest max(core, last distance of the list) among them, the component's
*bound*. Edges of the lists are taken by weight (Kruskal); one that does not exceed the bound of
either side is certainly the lightest way out of that side, hence *certain*. A component whose bound
lies below the weights that have been reached can never be certain again by itself.

What certain edges leave apart is connected by a pass over all pairs of rows in different components
(`crossing`), where only pairs count that are closer than the way there through edges known already.
All weights are squared distances in float64; of equal ones the lower rows come first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F64, I32, I64
from vehclust_dask.kernels.jit import njit

#: So many edges are sorted at a time.
EDGES_AT_ONCE = 1 << 22
#: One of so many weights is looked at to cut them into stretches.
LOOKED_AT = 61


class Edges(NamedTuple):
    """Edges between rows, in any order.

    Attributes
    ----------
    a, b : ndarray of shape (n_edges,), int32
        The lower row first.
    sq : ndarray of shape (n_edges,), float64
        Squared weights.
    """

    a: I32
    b: I32
    sq: F64

    @classmethod
    def of(cls, a: NDArray[Any], b: NDArray[Any], sq: NDArray[Any]) -> Edges:
        """Return edges, each with its lower row first."""
        low, high = np.minimum(a, b), np.maximum(a, b)
        return cls(low.astype(np.int32), high.astype(np.int32), np.asarray(sq, np.float64))

    @classmethod
    def none(cls) -> Edges:
        """Return no edges."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))

    def take(self, chosen: NDArray[Any]) -> Edges:
        """Return some of the edges."""
        return Edges(self.a[chosen], self.b[chosen], self.sq[chosen])

    def plus(self, other: Edges) -> Edges:
        """Return these edges and others."""
        return joined([self, other])

    def in_order(self) -> Edges:
        """Return the edges by weight, of equal ones the lower rows first."""
        return self.take(np.lexsort((self.b, self.a, self.sq)))

    def lightest(self, parts: NDArray[Any]) -> Edges:
        """Return the lightest edge between every two parts that edges join, the lower rows first."""
        first, last = parts[self.a], parts[self.b]
        low, high = np.minimum(first, last), np.maximum(first, last)
        order = np.lexsort((self.b, self.a, self.sq, high, low))
        new = np.ones(len(order), np.bool_)
        new[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
        return self.take(order[new])


def joined(parts: list[Edges]) -> Edges:
    """Return the edges of all parts, in their order."""
    return Edges(
        np.concatenate([part.a for part in parts]),
        np.concatenate([part.b for part in parts]),
        np.concatenate([part.sq for part in parts]),
    )


class Graph(NamedTuple):
    """Distinct rows, how often each occurs, and the nearest of each.

    Attributes
    ----------
    near : ndarray of shape (n_rows, m), int32
        The m nearest rows, the nearest first, numbered from 0 among the distinct ones.
    sq_dist : ndarray of shape (n_rows, m), float64
    counts : ndarray of shape (n_rows,), int64
        Rows that are equal to each, itself included.
    """

    near: I32
    sq_dist: F64
    counts: I64

    @property
    def n_rows(self) -> int:
        """Return the number of distinct rows."""
        return len(self.near)

    def cores(self, min_samples: int) -> F64:
        """Return squared core distances: within them a row has ``min_samples`` rows, itself included.

        Infinite where the lists do not hold as many: ``m + 1`` are always there, unless there are
        fewer rows in all.
        """
        out = np.full(self.n_rows, np.inf)
        _cores(self.near, self.sq_dist, self.counts, min_samples, out)
        return out

    def bounds(self) -> F64:
        """Return what no row outside a list comes closer than, squared."""
        n, m = self.near.shape
        if m >= n - 1:
            return np.full(n, np.inf)
        return self.sq_dist[:, -1] if m else np.zeros(n)


@njit
def _cores(near: Any, sq_dist: Any, counts: Any, min_samples: int, out: Any) -> None:
    for i in range(near.shape[0]):
        have = counts[i]
        if have >= min_samples:
            out[i] = 0.0
        for e in range(near.shape[1]):
            if have >= min_samples:
                break
            have += counts[near[i, e]]
            out[i] = sq_dist[i, e]
        if have < min_samples:
            out[i] = np.inf


@njit
def find(parent: Any, i: int) -> int:
    """Return the root of a row's component; shorten the way there."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit
def _weight(core: Any, i: int, j: int, sq: float) -> float:
    return max(max(core[i], core[j]), sq)


@njit
def _weights_sample(near: Any, sq_dist: Any, core: Any, step: int, out: Any) -> int:
    n, m = near.shape
    found = 0
    for at in range(0, n * m, step):
        i, e = at // m, at % m
        out[found] = _weight(core, i, near[i, e], sq_dist[i, e])
        found += 1
    return found


@njit
def _listed_between(
    near: Any,
    sq_dist: Any,
    core: Any,
    width: int,
    low: float,
    high: float,
    parent: Any,
    a: Any,
    b: Any,
    sq: Any,
) -> int:
    """Gather edges of the lists with low < weight <= high between different components.

    Returns how many there are; what the arrays have no room for is counted only.
    """
    found: Any = 0
    for i in range(near.shape[0]):
        root = find(parent, i)
        for e in range(width):
            j = near[i, e]
            weight = _weight(core, i, j, sq_dist[i, e])
            if weight <= low or weight > high or find(parent, j) == root:
                continue
            if found < a.shape[0]:
                a[found] = min(i, j)
                b[found] = max(i, j)
                sq[found] = weight
            found += 1
    return found


@njit
def _kruskal(
    a: Any, b: Any, sq: Any, order: Any, trees: Any, parts: Any, bound: Any, taken: Any
) -> None:
    """Take edges by weight that join trees; say which are certain.

    Parameters
    ----------
    a, b, sq : ndarray
        Edges.
    order : ndarray, int64
        By weight.
    trees : ndarray of shape (n_rows,), int
        Union-find of all edges that were taken.
    parts : ndarray of shape (n_rows,), int
        Union-find of the certain ones.
    bound : ndarray of shape (n_rows,), float64
        Of the components by certain edges, at their roots.
    taken : ndarray of shape (n_edges,), int8
        Written: 0 left out, 1 taken, 2 certain.
    """
    for e in order:
        taken[e] = 0
        p, q = find(trees, a[e]), find(trees, b[e])
        if p == q:
            continue
        trees[max(p, q)] = min(p, q)
        taken[e] = 1
        p, q = find(parts, a[e]), find(parts, b[e])
        if sq[e] <= max(bound[p], bound[q]):
            taken[e] = 2
            low = min(p, q)
            bound[low] = min(bound[p], bound[q])
            parts[max(p, q)] = low


class Forest(NamedTuple):
    """The lightest edges among the known ones, and what they leave apart.

    Attributes
    ----------
    certain : Edges
        Of the spanning tree.
    likely : Edges
        That join components of certain edges; something lighter may do so.
    parts : ndarray of shape (n_rows,), int32
        Component of each row by certain edges alone, numbered by their first row.
    """

    certain: Edges
    likely: Edges
    parts: I32

    @property
    def n_parts(self) -> int:
        """Return the number of components."""
        return int(self.parts.max()) + 1


def forest(
    graph: Graph,
    core: F64,
    *,
    bound: F64 | None = None,
    more: Edges | None = None,
    width: int | None = None,
) -> Forest:
    """Span the rows with the lightest of the known edges; O(n m log n) time, O(n) memory beside.

    Parameters
    ----------
    graph : Graph
    core : ndarray of shape (n_rows,), float64
        Squared core distances.
    bound : ndarray of shape (n_rows,), float64, or None
        No unknown edge of a row weighs less than this, squared. None: all that matter are known.
    more : Edges or None
        Known edges beside those of the lists, as squared distances.
    width : int or None
        Entries of each list that are edges; None: all.
    """
    n, m = graph.near.shape
    width = m if width is None else min(width, m)
    extra = Edges.none() if more is None else more
    weights = np.maximum(np.maximum(core[extra.a], core[extra.b]), extra.sq)
    extra = Edges(extra.a, extra.b, weights)
    trees, parts = np.arange(n), np.arange(n)
    bounds = np.full(n, np.inf) if bound is None else bound.copy()
    kept: list[tuple[Edges, NDArray[np.int8]]] = []
    low = -np.inf
    for high in _stretches(graph, core, width):
        edges = _gather(graph, core, width, low, high, trees)
        edges = edges.plus(extra.take((extra.sq > low) & (extra.sq <= high)))
        taken = np.empty(len(edges.a), np.int8)
        _kruskal(*edges, np.argsort(edges.sq, kind="stable"), trees, parts, bounds, taken)
        kept.append((edges.take(taken > 0), taken[taken > 0]))
        low = high
    _, numbered = np.unique(_roots(parts), return_inverse=True)
    certain = [edges.take(taken == 2) for edges, taken in kept]
    likely = [edges.take(taken == 1) for edges, taken in kept]
    return Forest(joined(certain), joined(likely), numbered.astype(np.int32))


def spanning(known: Forest, between: Edges) -> Edges:
    """Return the whole tree by weight: certain edges, and the lightest others that join what they leave.

    Parameters
    ----------
    known : Forest
    between : Edges
        Between its components, ``known.likely`` not among them.
    """
    edges = known.likely.plus(between).in_order()
    n = known.n_parts
    taken = np.empty(len(edges.a), np.int8)
    a, b = known.parts[edges.a], known.parts[edges.b]
    order = np.arange(len(taken))
    _kruskal(a, b, edges.sq, order, np.arange(n), np.arange(n), np.zeros(n), taken)
    return known.certain.plus(edges.take(taken > 0)).in_order()


@njit
def _roots(parent: Any) -> Any:
    out = np.empty(parent.shape[0], np.int64)
    for i in range(parent.shape[0]):
        out[i] = find(parent, i)
    return out


def _stretches(graph: Graph, core: F64, width: int) -> list[float]:
    """Return upper ends of stretches of weights that hold about as many edges each, the last infinite."""
    n, m = graph.near.shape
    wanted = -(-n * width // EDGES_AT_ONCE)
    if wanted <= 1:
        return [np.inf]
    looked = np.empty(-(-n * m // LOOKED_AT))
    found = _weights_sample(graph.near, graph.sq_dist, core, LOOKED_AT, looked)
    ends = np.quantile(looked[:found], np.arange(1, wanted) / wanted, method="lower")
    return [*np.unique(ends[np.isfinite(ends)]).tolist(), np.inf]


def _gather(graph: Graph, core: F64, width: int, low: float, high: float, trees: I64) -> Edges:
    room = EDGES_AT_ONCE * 2
    while True:
        a, b = np.empty(room, np.int32), np.empty(room, np.int32)
        sq = np.empty(room)
        found = _listed_between(graph.near, graph.sq_dist, core, width, low, high, trees, a, b, sq)
        if found <= room:
            return Edges(a[:found], b[:found], sq[:found])
        room = found
