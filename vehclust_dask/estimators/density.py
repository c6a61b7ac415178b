"""DBSCAN for every eps and HDBSCAN, exactly, from the nearest rows of every row and one tree."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from vehclust_dask.blocks import forget, reduce_tiles, take_rows
from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import check_choice, check_count, rows_in
from vehclust_dask.estimators.neighbours import (
    METRICS,
    Known,
    Lists,
    distinct_lists,
    own_unit,
    squared,
)
from vehclust_dask.kernels.condensed import Condensed
from vehclust_dask.kernels.copies import Copies
from vehclust_dask.kernels.crossing import Side, Ways, chain, crossing
from vehclust_dask.kernels.density import Cell, Cuts, eps_range
from vehclust_dask.kernels.forest import Edges, Forest, Graph, forest, joined, spanning
from vehclust_dask.kernels.linkage import linkage_of
from vehclust_dask.kernels.tiles import Frame, unit_rows
from vehclust_dask.records import Blocks, Group
from vehclust_dask.tasks import Keep, one_thread

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

SELECTIONS = ("eom", "leaf")
#: Values of eps in a grid that names none.
N_EPS = 40


def graph_of(copies: Copies, lists: Lists) -> Graph:
    """Return lists of distinct rows as a graph of distinct rows, numbered from 0."""
    near = copies.pile[lists.rows].astype(np.int32)
    return Graph(near, lists.sq_dist, copies.counts)


@dataclass(frozen=True, eq=False)
class CrossingPass:
    """The tile reduction that finds the lightest edges between components of a forest.

    Parameters
    ----------
    frame : Frame
    kept : ndarray of shape (n_rows,), bool
        Rows that take part.
    pile : ndarray of shape (n_rows,), int32
        Number of each row among the distinct ones, which edges are named by.
    place : ndarray of shape (n_distinct,), int32
    core, reach : ndarray of shape (n_distinct,), float64
        As in `kernels.crossing.Side`.
    heights : ndarray, float64
        As in `kernels.crossing.Ways`.
    group : str
        Names this pass in the worker's cache.
    """

    frame: Frame
    kept: NDArray[np.bool_]
    pile: I32
    place: I32
    core: F64
    reach: F64
    heights: F64
    group: str = field(default_factory=lambda: f"crossing-{uuid.uuid4().hex[:12]}")

    def side(self, X: F32, group: Group) -> Side:
        """Return a group made ready, kept for its next tile."""
        return CACHE.of(self.group, group.number, lambda: self._side(X, group), _side_bytes)

    def _side(self, X: F32, group: Group) -> Side:
        chosen = np.flatnonzero(self.kept[group.row0 : group.row0 + group.n_rows])
        piles = self.pile[group.row0 + chosen]
        ready = self.frame.ready(X[chosen], piles)
        return Side.of(ready, self.place[piles], self.core[piles], self.reach[piles])

    def within(self, X: F32, group: Group) -> Edges:
        """Find the lightest edges inside a group."""
        side = self.side(X, group)
        return self._crossing(side, side, Edges.none())

    def hint(self, summary: Edges, group: Group) -> Edges:
        """Return what is found so far."""
        return summary

    def between(
        self, left: tuple[F32, Group, Edges], right: tuple[F32, Group, Edges]
    ) -> tuple[Edges, Edges]:
        """Find the lightest edges between two groups; the first of them is told."""
        known = left[2].plus(right[2]).lightest(self.place)
        found = self._crossing(self.side(*left[:2]), self.side(*right[:2]), known)
        return found, Edges.none()

    def _crossing(self, a: Side, b: Side, known: Edges) -> Edges:
        if not len(a.part) or not len(b.part):
            return Edges.none()
        scale = self.frame.sq_scale
        return crossing(a, b, self.heights, known, self.place, scale).lightest(self.place)

    def merge(self, left: Edges, right: Edges) -> Edges:
        """Keep the lightest."""
        return left.plus(right).lightest(self.place)

    def finish(self, summary: Edges, group: Group) -> Edges:
        """Return the edges."""
        return summary


def _side_bytes(side: Side) -> int:
    return side.nbytes


class Local(NamedTuple):
    """What lists tell of a spanning tree.

    Attributes
    ----------
    core, reach : ndarray of shape (n_distinct,), float64
        As in `kernels.crossing.Side`.
    found : Forest
    """

    core: F64
    reach: F64
    found: Forest

    @classmethod
    def of(cls, graph: Graph, min_samples: int) -> Local:
        """Span the rows as far as their lists go: ``min_samples - 1`` rows each, or all there are."""
        core = graph.cores(min_samples)
        reach = np.maximum(core, graph.bounds())
        return cls(core, reach, forest(graph, core, bound=reach))


def connect(
    blocks: Blocks, known: Known, local: Local, *, name: str, keep: Keep[Edges] | None = None
) -> Edges:
    """Return the spanning tree of mutual reachability of the distinct rows, by weight.

    What the lists leave apart is connected by a pass over pairs of rows in different components;
    where they leave nothing apart there is none.

    Parameters
    ----------
    blocks : Blocks
    known : Known
        The rows' frame and copies.
    local : Local
    name : str
        Of the step, as the dashboard shows it.
    keep : Keep or None
        Where the pass keeps what it has found, to go on from.
    """
    core, reach, found = local
    if found.n_parts == 1:
        return found.certain.in_order()
    bridges = _bridges(blocks, known, core, found.parts, name)
    ways = Ways.of(found.likely.plus(bridges), found.parts)
    place = ways.place[found.parts]
    copies = known.copies
    kept = np.zeros(len(copies.pile), np.bool_)
    kept[copies.first[reach <= ways.highest()]] = True
    one = CrossingPass(
        known.frame, kept, copies.pile.astype(np.int32), place, core, reach, ways.heights
    )
    try:
        parts: list[Edges] = reduce_tiles(blocks, one, name=f"{name}-crossing", keep=keep)
    finally:
        forget(blocks, one.group)
    return spanning(found, joined([bridges, *parts]))


def _bridges(blocks: Blocks, known: Known, core: F64, parts: I32, name: str) -> Edges:
    """Join all components by edges between the densest row of each."""
    order = np.lexsort((core, parts))
    _, first = np.unique(parts[order], return_index=True)
    densest = order[first]
    rows = take_rows(blocks, known.copies.first[densest].astype(np.int64), name=f"{name}-bridges")
    exact = unit_rows(rows) if known.frame.unit else rows
    ends, sq = chain(np.ascontiguousarray(exact), core[densest])
    return Edges.of(densest[ends[:, 0]], densest[ends[:, 1]], sq)


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """All that density says of some rows: every DBSCAN and the tree of HDBSCAN.

    Attributes
    ----------
    copies : Copies
    graph : Graph
    tree : Edges
        Spanning tree of the distinct rows for the largest ``min_samples``, by weight.
    min_samples : int
    metric : str
    """

    copies: Copies
    graph: Graph
    tree: Edges
    min_samples: int
    metric: str

    def cuts(self, min_samples: int) -> Cuts:
        """Return what every DBSCAN of this ``min_samples`` is cut from."""
        return Cuts.of(self.graph, self.tree, self.min_samples, min_samples)

    def labels(self, cuts: Cuts, eps: float) -> I32:
        """Return the labels of all rows, numbered by their first core row; -1 is noise."""
        labels = cuts.labels(self.graph, float(squared(eps, self.metric)))
        rows: I32 = labels[self.copies.pile]
        return rows

    def linkage(self, cuts: Cuts) -> F64:
        """Return the single-linkage tree of mutual reachability of all rows, as scipy writes it."""
        copies = self.copies
        again = np.flatnonzero(np.arange(len(copies.pile)) != copies.first[copies.pile])
        equal = np.column_stack([copies.first[copies.pile[again]], again])
        between = copies.first[np.column_stack([cuts.edges.a, cuts.edges.b])]
        sq = np.concatenate([cuts.core[copies.pile[again]], cuts.edges.sq])
        return linkage_of(np.concatenate([equal, between]), own_unit(sq, self.metric))

    def grid(self, min_samples: Iterable[int], eps: Iterable[float] | None = None) -> pd.DataFrame:
        """Return what every setting of DBSCAN gives.

        Parameters
        ----------
        min_samples : iterable of int
        eps : iterable of float, or None
            In the metric's own unit. None: `N_EPS` values between which everything happens.

        Returns
        -------
        DataFrame
            min_samples, eps, clusters, noise, largest (shares of all rows), sizable, balance,
            balanced, recommended: see `kernels.density.Cell` and `best_setting`.
        """
        cuts = {q: self.cuts(q) for q in sorted(set(min_samples))}
        values = self._eps(cuts) if eps is None else sorted(set(eps))
        rows = []
        for q, one in cuts.items():
            for value in values:
                labels = one.labels(self.graph, float(squared(value, self.metric)))
                cell = Cell.of(labels, self.graph.counts)
                rows.append(
                    {
                        "min_samples": q,
                        "eps": value,
                        **cell._asdict(),
                        "balanced": cell.balanced,
                    }
                )
        table = pd.DataFrame(rows)
        table["recommended"] = table.index == _best(table)
        table["recommended"] &= table["balanced"]
        return table

    def _eps(self, cuts: dict[int, Cuts]) -> list[float]:
        first, *_, last = [*cuts.values()] * 2
        sq = eps_range(first, last, self.graph.counts, N_EPS)
        # Three digits: what a person would type.
        shown = sorted({float(f"{v:.3g}") for v in own_unit(sq, self.metric)})
        return shown

    def core_distances(self, min_samples: int) -> F64:
        """Return the core distance of every row, in the metric's own unit."""
        core: F64 = own_unit(self.graph.cores(min_samples), self.metric)[self.copies.pile]
        return core


def _best(grid: pd.DataFrame) -> int:
    """Return the row of the best setting.

    A balanced one with many effective clusters and little noise; where there is none, the one that
    leaves the most rows both out of the noise and out of the largest cluster.
    """
    balanced = 1 + grid["balance"] * (1 - grid["noise"])
    other = 1 - np.maximum(grid["noise"], grid["largest"])
    worth = np.where(grid["balanced"], balanced, other)
    return int(grid.index[int(worth.argmax())])


def best_setting(grid: pd.DataFrame, min_samples: int) -> dict[str, Any]:
    """Return the best setting of one ``min_samples``, which need not be a balanced one."""
    part = grid[grid["min_samples"] == min_samples]
    (row,) = part.loc[[_best(part)]].to_dict("records")
    return {str(word): value for word, value in row.items()}


def grow_hierarchy(
    blocks: Blocks, min_samples: int, metric: str, *, name: str = "density"
) -> Hierarchy:
    """Find neighbours and grow the tree; O(n**2 n_features) time, O(n min_samples) memory."""
    n = blocks.grid.n_rows
    check_samples("min_samples", min_samples, n)
    known = Known.of(blocks, metric)
    m = min(min_samples - 1, len(known.copies.first) - 1)
    graph = graph_of(known.copies, distinct_lists(blocks, known, m, name=f"{name}-neighbours"))
    with one_thread():
        local = Local.of(graph, min_samples)
    tree = connect(blocks, known, local, name=name)
    return Hierarchy(known.copies, graph, tree, min_samples, metric)


def check_samples(word: str, value: Any, n: int) -> None:
    """Refuse a number of rows that is none, or that is above all there are."""
    check_count(word, value)
    if value > n:
        raise BadInput(f"{word}={value} but there are {n} rows (n_samples={n}); lower it")


class DensityTree(BaseEstimator):
    """The tree that holds every DBSCAN up to a ``min_samples``, any eps, and every HDBSCAN.

    Parameters
    ----------
    min_samples : int, default 32
        The largest that will be asked for; a row counts itself.
    metric : {'euclidean', 'cosine'}, default 'euclidean'

    Attributes
    ----------
    hierarchy_ : Hierarchy

    Notes
    -----
    O(n**2) time once; after that every (eps, min_samples) takes milliseconds.
    """

    def __init__(self, min_samples: int = 32, *, metric: str = "euclidean") -> None:
        self.min_samples = min_samples
        self.metric = metric

    def fit(self, X: Any, y: Any = None) -> Self:
        """Grow the tree.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        check_choice("metric", self.metric, METRICS)
        self.hierarchy_ = grow_hierarchy(blocks, self.min_samples, self.metric)
        return self

    def dbscan(self, eps: float, min_samples: int) -> I32:
        """Return the labels of DBSCAN, int32 of shape (n_samples,); see `DBSCAN`."""
        check_is_fitted(self)
        _check_eps(eps)
        return self.hierarchy_.labels(self.hierarchy_.cuts(self._within(min_samples)), float(eps))

    def grid(
        self, min_samples: Iterable[int] = (5, 10, 20, 32), eps: Iterable[float] | None = None
    ) -> pd.DataFrame:
        """Return what every setting of DBSCAN gives; see `Hierarchy.grid`."""
        check_is_fitted(self)
        wanted = [self._within(q) for q in min_samples]
        values = None if eps is None else list(eps)
        for value in values or ():
            _check_eps(value)
        return self.hierarchy_.grid(wanted, values)

    def linkage(self, min_samples: int) -> F64:
        """Return the single-linkage tree of mutual reachability, as scipy writes a linkage."""
        check_is_fitted(self)
        return self.hierarchy_.linkage(self.hierarchy_.cuts(self._within(min_samples)))

    def core_distances(self, min_samples: int) -> F64:
        """Return the core distances, float64 of shape (n_samples,), in the metric's own unit."""
        check_is_fitted(self)
        return self.hierarchy_.core_distances(self._within(min_samples))

    def _within(self, min_samples: Any) -> int:
        check_count("min_samples", min_samples)
        if min_samples > self.min_samples:
            raise BadInput(
                f"min_samples={min_samples} but the tree was grown for {self.min_samples} at most; "
                f"lower it, or fit DensityTree({min_samples})"
            )
        return int(min_samples)


def _check_eps(eps: Any) -> None:
    if not isinstance(eps, Real) or isinstance(eps, bool) or not float(eps) > 0:
        raise BadInput(f"eps={eps!r}: give a distance above 0")


class DBSCAN(ClusterMixin, BaseEstimator):
    """Exact DBSCAN of all rows.

    Parameters
    ----------
    eps : float, default 0.5
        Distance within which rows are neighbours, it included, in the metric's own unit.
    min_samples : int, default 5
        Rows within eps that make a row a core row, itself included.
    metric : {'euclidean', 'cosine'}, default 'euclidean'

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Numbered by their first core row; a border row that several clusters reach goes to the one
        with the smallest number; -1 is noise.
    core_sample_indices_ : ndarray, int64
    components_ : ndarray of shape (n_core_samples, n_features), float32
        The core rows.
    tree_ : Hierarchy
        Every other eps, and every smaller ``min_samples``, is cut from it in no time.

    Notes
    -----
    Ester, Kriegel, Sander, Xu, A density-based algorithm for discovering clusters (1996), by way of
    the spanning tree of mutual reachability. O(n**2) time, O(n min_samples) memory.
    """

    def __init__(
        self, eps: float = 0.5, *, min_samples: int = 5, metric: str = "euclidean"
    ) -> None:
        self.eps = eps
        self.min_samples = min_samples
        self.metric = metric

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the clusters.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        _check_eps(self.eps)
        check_choice("metric", self.metric, METRICS)
        check_count("min_samples", self.min_samples)
        n = blocks.grid.n_rows
        if self.min_samples > n:
            self.labels_ = np.full(n, -1, np.int32)
            core = np.zeros(n, np.bool_)
        else:
            self.tree_ = grow_hierarchy(blocks, int(self.min_samples), self.metric)
            cuts = self.tree_.cuts(int(self.min_samples))
            self.labels_ = self.tree_.labels(cuts, float(self.eps))
            core = (cuts.core <= squared(self.eps, self.metric))[self.tree_.copies.pile]
        self.core_sample_indices_ = np.flatnonzero(core)
        self.components_ = take_rows(blocks, self.core_sample_indices_, name="dbscan-cores")
        return self


class HDBSCAN(ClusterMixin, BaseEstimator):
    """Exact HDBSCAN of all rows.

    Parameters
    ----------
    min_cluster_size : int, default 5
        Rows that a cluster has at least.
    min_samples : int or None
        As for `DBSCAN`; None: ``min_cluster_size``.
    metric : {'euclidean', 'cosine'}, default 'euclidean'
    cluster_selection_method : {'eom', 'leaf'}, default 'eom'
        The clusters that last the longest, or those that never come apart.

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,), int32
        Numbered by their first row; -1 is noise.
    probabilities_ : ndarray of shape (n_samples,), float64
    outlier_scores_ : ndarray of shape (n_samples,), float64
        GLOSH, 0 to 1.
    condensed_ : Condensed
    single_linkage_ : ndarray of shape (n_samples - 1, 4), float64

    Notes
    -----
    O(n**2) time, O(n min_samples) memory.
    """

    def __init__(
        self,
        min_cluster_size: int = 5,
        min_samples: int | None = None,
        *,
        metric: str = "euclidean",
        cluster_selection_method: str = "eom",
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.metric = metric
        self.cluster_selection_method = cluster_selection_method

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the clusters.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        n = blocks.grid.n_rows
        check_choice("metric", self.metric, METRICS)
        check_choice("cluster_selection_method", self.cluster_selection_method, SELECTIONS)
        check_samples("min_cluster_size", self.min_cluster_size, n)
        if self.min_cluster_size < 2:
            raise BadInput(f"min_cluster_size={self.min_cluster_size}: give at least 2")
        q = self.min_cluster_size if self.min_samples is None else self.min_samples
        hierarchy = grow_hierarchy(blocks, q, self.metric)
        self.single_linkage_ = hierarchy.linkage(hierarchy.cuts(int(q)))
        found = Selected.of(
            self.single_linkage_, int(self.min_cluster_size), self.cluster_selection_method
        )
        self.condensed_ = found.condensed
        self.labels_ = found.labels
        self.probabilities_ = found.probabilities
        self.outlier_scores_ = found.outlier_scores
        return self


@dataclass(frozen=True, eq=False)
class Selected:
    """The clusters chosen of a condensed tree.

    Attributes
    ----------
    condensed : Condensed
    chosen : ndarray of shape (n_clusters,), bool
    labels : ndarray of shape (n_rows,), int32
        Numbered by their first row; -1 is noise.
    probabilities, outlier_scores : ndarray of shape (n_rows,), float64
    """

    condensed: Condensed
    chosen: NDArray[np.bool_]
    labels: I32
    probabilities: F64
    outlier_scores: F64

    @classmethod
    def of(cls, linkage: F64, min_cluster_size: int, method: str) -> Selected:
        """Condense a tree and choose its clusters."""
        condensed = Condensed.of(linkage, min_cluster_size)
        chosen = condensed.choose(method)
        cluster = condensed.row_clusters(chosen)
        return cls(
            condensed,
            chosen,
            by_first_row(cluster),
            condensed.probabilities(cluster),
            condensed.outlier_scores(),
        )


def by_first_row(cluster: I32) -> I32:
    """Return clusters numbered by their first row; -1 stays."""
    names, first, inverse = np.unique(cluster, return_index=True, return_inverse=True)
    first = np.where(names < 0, -1, first)
    rank = np.empty(len(names), np.int32)
    rank[np.argsort(first)] = np.arange(len(names)) - int((names < 0).any())
    labels: I32 = rank[inverse]
    return labels
