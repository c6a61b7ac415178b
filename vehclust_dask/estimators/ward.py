"""Exact Ward clustering of all rows, from one neighbour pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from vehclust_dask.blocks import reduce_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import check_count, rows_in
from vehclust_dask.estimators.neighbours import Known, Lists, distinct_lists
from vehclust_dask.kernels.copies import Copies
from vehclust_dask.kernels.linkage import cut_linkage, linkage_of
from vehclust_dask.kernels.rescan import rescan
from vehclust_dask.kernels.tiles import Frame
from vehclust_dask.kernels.ward import WardState, local_phase
from vehclust_dask.records import Blocks, Span
from vehclust_dask.tasks import one_thread

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]


def start_ward(blocks: Blocks, known: Known, lists: Lists, weights: F64 | None = None) -> WardState:
    """Read the distinct rows and return the state before the first merge.

    Parameters
    ----------
    blocks : Blocks
    known : Known
        The rows' frame and copies.
    lists : Lists
        Nearest distinct rows of every distinct row, named by their numbers in the whole.
    weights : ndarray of shape (n_rows,), float64, or None
        A pile of equal rows weighs what its rows weigh together. None: 1 each.
    """
    copies = known.copies
    # A float32 center: taking it away from float32 rows is exact, or as good as.
    center = known.frame.center.astype(np.float32).astype(np.float64)
    rows = np.empty((len(copies.first), blocks.n_features))
    kept = known.kept
    at = 0
    for i, span in enumerate(blocks.grid.spans()):
        X = blocks.read(i)
        part = X if kept is None else X[kept[span.row0 : span.row0 + span.n_rows]]
        np.subtract(part, center, out=rows[at : at + len(part)])
        at += len(part)
    near = copies.pile[lists.rows].astype(np.int32)
    piled = np.bincount(copies.pile, weights=weights, minlength=len(rows)).astype(np.float64)
    return WardState.start(rows, piled, near, lists.sq_dist)


def grow_tree(state: WardState, on_state: Callable[[WardState], None] | None = None) -> None:
    """Merge until one cluster stands, in place.

    Parameters
    ----------
    state : WardState
    on_state : callable or None
        Called with the state between the phases: going on from a copy of it gives the same tree.
    """
    largest = float(np.abs(state.centers).max(initial=0.0))
    frame = Frame.of(np.zeros(state.centers.shape[1]), largest)
    uncertain = np.zeros(len(state.node), np.bool_)
    with one_thread():
        while state.n_clusters > 1:
            local_phase(state, uncertain)
            if state.n_clusters > 1:
                rescan(state, np.flatnonzero(uncertain), frame)
            if on_state is not None:
                on_state(state)


def whole_linkage(state: WardState, copies: Copies) -> F64:
    """Return the linkage matrix of all rows: copies merge first, at height 0."""
    piles = np.flatnonzero(np.arange(len(copies.pile)) != copies.first[copies.pile])
    equal = np.column_stack([copies.first[copies.pile[piles]], piles])
    merged = np.concatenate([equal, copies.first[state.merged]])
    return linkage_of(merged, np.sqrt(np.concatenate([np.zeros(len(piles)), state.at])))


@dataclass(frozen=True, eq=False)
class MeansPass:
    """The reduction that adds up the rows of each label."""

    labels: I32
    weights: F64 | None
    k: int
    fan_in: int = 8

    def fold(self, summary: F64 | None, X: F32, span: Span) -> F64:
        """Add a block; the last column counts."""
        rows = slice(span.row0, span.row0 + span.n_rows)
        weights = np.ones(span.n_rows) if self.weights is None else self.weights[rows]
        mine = np.empty((self.k, X.shape[1] + 1))
        for j in range(X.shape[1]):
            column = weights * X[:, j]
            mine[:, j] = np.bincount(self.labels[rows], weights=column, minlength=self.k)
        mine[:, -1] = np.bincount(self.labels[rows], weights=weights, minlength=self.k)
        return mine if summary is None else summary + mine

    def merge(self, left: F64, right: F64) -> F64:
        """Add the sums."""
        return left + right


class Ward(ClusterMixin, BaseEstimator):
    """Exact Ward clustering: the whole tree of all rows.

    Parameters
    ----------
    n_clusters : int, default 2
        Where `labels_` cuts the tree.
    n_neighbors : int, default 32
        Length of the lists the tree grows from: it changes the time it takes, not the tree.

    Attributes
    ----------
    linkage_ : ndarray of shape (n_samples - 1, 4), float64
        As scipy.cluster.hierarchy.linkage(X, 'ward') writes it. Where costs are tied, one of the
        trees that are equally right.
    labels_ : ndarray of shape (n_samples,), int32
        Numbered by their first row.
    n_rescans_ : int
        How often clusters had to be compared with all others.

    Notes
    -----
    O(n_samples * (n_features + n_neighbors)) memory in this process, rows in float64 included.
    """

    def __init__(self, n_clusters: int = 2, *, n_neighbors: int = 32) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Grow the tree.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,) or None
            Positive; a row of weight w stands for w equal rows.
        """
        blocks = rows_in(self, X, reset=True)
        n = blocks.grid.n_rows
        check_count("n_clusters", self.n_clusters)
        check_count("n_neighbors", self.n_neighbors)
        if n < 2:
            raise BadInput(f"there is {n} row (n_samples={n}): a tree needs at least 2")
        self._check_clusters(int(self.n_clusters), n)
        weights = _weights_of(sample_weight, n)
        known = Known.of(blocks, "euclidean")
        m = min(int(self.n_neighbors), len(known.copies.first) - 1)
        lists = distinct_lists(blocks, known, m, name="neighbours")
        state = start_ward(blocks, known, lists, weights)
        del lists
        seen: list[int] = []
        grow_tree(state, lambda now: seen.append(now.n_clusters))
        self.linkage_ = whole_linkage(state, known.copies)
        self.n_rescans_ = sum(left > 1 for left in seen)
        self._blocks, self._weights = blocks, weights
        self.labels_ = self.cut(n_clusters=self.n_clusters)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> I32:
        """Grow the tree and return the labels."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def cut(self, *, n_clusters: int | None = None, height: float | None = None) -> I32:
        """Return the labels of a cut, int32 of shape (n_samples,), numbered by their first row.

        Parameters
        ----------
        n_clusters : int or None
        height : float or None
            Merges up to this height, it included, are made. Give one of the two.
        """
        check_is_fitted(self, "linkage_")
        n = len(self.linkage_) + 1
        if (n_clusters is None) == (height is None):
            raise BadInput("cut takes either n_clusters or height: give one of them")
        if height is not None:
            if not isinstance(height, Real) or not height >= 0:
                raise BadInput(f"height={height!r}: give a number of at least 0")
            made = int(np.searchsorted(self.linkage_[:, 2], float(height), side="right"))
            return cut_linkage(self.linkage_, made)
        check_count("n_clusters", n_clusters)
        assert n_clusters is not None
        self._check_clusters(int(n_clusters), n)
        return cut_linkage(self.linkage_, n - int(n_clusters))

    def centers(self, n_clusters: int) -> F64:
        """Return the means of the clusters of a cut, float64 of shape (n_clusters, n_features)."""
        labels = self.cut(n_clusters=n_clusters)
        one = MeansPass(labels, self._weights, int(n_clusters))
        sums = reduce_rows(self._blocks, one, name="ward-centers")
        centers: F64 = sums[:, :-1] / sums[:, -1:]
        return centers

    def _check_clusters(self, k: int, n: int) -> None:
        if k > n:
            raise BadInput(
                f"n_clusters={k} but there are {n} rows (n_samples={n}); lower it to {n} or less"
            )


def _weights_of(sample_weight: Any, n: int) -> F64 | None:
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,):
        raise BadInput(f"sample_weight has shape {weights.shape}: one per row is needed, ({n},)")
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise BadInput(
            "sample_weight holds a weight that is zero, negative or not finite: leave such rows out"
        )
    return weights
