"""The estimator of nearest rows: exact, or by cells where a person says so."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from vehclust_dask.blocks import reduce_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.cells import search_cells
from vehclust_dask.estimators.doors import check_choice, check_count, rows_in
from vehclust_dask.estimators.kmeans import _seed_of
from vehclust_dask.estimators.neighbours import (
    METRICS,
    Known,
    Lists,
    SearchPass,
    check_rows,
    distinct_lists,
    own_unit,
    query_chunks,
)
from vehclust_dask.kernels.copies import spread
from vehclust_dask.records import Blocks

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

METHODS = ("exact", "cells")


class Neighbours(BaseEstimator):
    """The exact nearest rows of every row.

    Parameters
    ----------
    n_neighbors : int, default 32
        Below the number of rows; a row is not its own neighbour.
    metric : {'euclidean', 'cosine'}, default 'euclidean'
    method : {'exact', 'cells'}, default 'exact'
        'cells' is an approximation by that name, for more rows than can be compared with each other:
        each searches the rows of the ``n_probe`` cells nearest to it (see `estimators.cells`).
    n_probe : int, default 8
        Cells that a row searches, its own included.
    n_cells : int or None
        None: about the square root of the number of rows that differ.
    random_state : int, RandomState or None, default 0
        Of the cells, and of the rows that recall is measured on; decides nothing of exact lists.

    Attributes
    ----------
    indices_ : ndarray of shape (n_samples, n_neighbors), int32
        Nearest rows, the nearest first; of equally near ones the lowest row first.
    sq_distances_ : ndarray of shape (n_samples, n_neighbors), float64
        Squared Euclidean distances, for cosine those of the rows brought to length one.
    n_distinct_ : int
        Rows that differ from all before them.
    recall_ : float
        Share of the exact nearest rows that the lists hold: 1 for 'exact'; for 'cells' measured on
        1,000 rows, drawn among those that differ.

    Notes
    -----
    Exact lists are a function of the rows alone, not of blocks, workers or the order of tasks (see
    `kernels.neighbours`). O(n**2) time, O(n * n_neighbors) memory; by cells O(n**1.5 * n_probe) time.
    """

    def __init__(
        self,
        n_neighbors: int = 32,
        *,
        metric: str = "euclidean",
        method: str = "exact",
        n_probe: int = 8,
        n_cells: int | None = None,
        random_state: Any = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.method = method
        self.n_probe = n_probe
        self.n_cells = n_cells
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the nearest rows of every row.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        self._check()
        check_enough(blocks, int(self.n_neighbors))
        known = Known.of(blocks, self.metric)
        m, self.n_distinct_ = int(self.n_neighbors), len(known.copies.first)
        lists = self._lists(blocks, known, min(m, self.n_distinct_ - 1))
        if not known.copies.none:
            lists = Lists(*spread(known.copies, lists.rows, lists.sq_dist, m))
        self.indices_, self.sq_distances_ = lists
        self._blocks, self._frame = blocks, known.frame
        return self

    def _check(self) -> None:
        for name in ("n_neighbors", "n_probe"):
            check_count(name, getattr(self, name))
        if self.n_cells is not None:
            check_count("n_cells", self.n_cells)
        for name, allowed in (("metric", METRICS), ("method", METHODS)):
            check_choice(name, getattr(self, name), allowed)

    def _lists(self, blocks: Blocks, known: Known, m: int) -> Lists:
        """Return the lists of distinct rows."""
        self.recall_ = 1.0
        if self.method == "exact" or m == 0:
            return distinct_lists(blocks, known, m, name="neighbours")
        found = search_cells(
            blocks,
            known,
            m,
            n_probe=int(self.n_probe),
            n_cells=None if self.n_cells is None else int(self.n_cells),
            seed=_seed_of(self.random_state),
            name="cells",
        )
        assert found.lists is not None, "without a shelf lists are returned"
        self.recall_ = found.recall
        return found.lists

    @property
    def distances_(self) -> F64:
        """Return the distances in the metric's own unit; cosine: 1 - <x, y> / (|x| |y|)."""
        check_is_fitted(self)
        distances: F64 = own_unit(self.sq_distances_, self.metric)
        return distances

    def kneighbors(self, X: Any, n_neighbors: int | None = None) -> tuple[F64, I32]:
        """Return distances and row numbers of the fitted rows nearest to new ones; always exact.

        Parameters
        ----------
        X : array-like or Blocks of shape (n_queries, n_features)
        n_neighbors : int or None
            None: as many as at `fit`.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors), float64
            In the metric's own unit.
        indices : ndarray of shape (n_queries, n_neighbors), int32
        """
        check_is_fitted(self)
        m = self.n_neighbors if n_neighbors is None else n_neighbors
        check_count("n_neighbors", m)
        check_enough(self._blocks, int(m) - 1)
        new = rows_in(self, X, reset=False)
        parts = [self._nearest(new.read(i), int(m)) for i in range(new.grid.n_blocks)]
        sq = np.concatenate([part.sq_dist for part in parts])
        distances: F64 = own_unit(sq, self.metric)
        return distances, np.concatenate([part.rows for part in parts])

    def _nearest(self, X: F32, m: int) -> Lists:
        check_rows(X, 0, self.metric == "cosine")
        parts = []
        for chunk in query_chunks(np.arange(len(X))):
            rows, ceiling = np.full(len(chunk), -1, np.int32), np.full(len(chunk), np.inf)
            search = SearchPass(self._frame, m, None, X[chunk], rows, ceiling)
            parts.append(reduce_rows(self._blocks, search, name="kneighbors").matrix(m))
        return Lists(
            np.concatenate([rows for rows, _ in parts]), np.concatenate([sq for _, sq in parts])
        )


def check_enough(blocks: Blocks, m: int) -> None:
    """Refuse to look for more neighbours than there are other rows."""
    n = blocks.grid.n_rows
    if n == 1 and m > 0:
        raise BadInput("there is 1 row (n_samples=1): it has no neighbours; give at least 2")
    if m >= n:
        raise BadInput(
            f"n_neighbors={m} but there are {n} rows (n_samples={n}): "
            f"a row has {n - 1} others; lower it to that or less"
        )
