"""Outliers: rows in a sparser place than their neighbours, and rows that a few random cuts isolate."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.ensemble import IsolationForest

from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import check_choice, check_count, rows_in
from vehclust_dask.estimators.nearest import check_enough
from vehclust_dask.estimators.neighbours import METRICS, Known, Lists, distinct_lists
from vehclust_dask.kernels.copies import spread
from vehclust_dask.kernels.outliers import local_outlier_factor
from vehclust_dask.records import Blocks

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: The factor from which on a row is an outlier where no share is given.
AUTO_FACTOR = 1.5


class LocalOutlierFactor(OutlierMixin, BaseEstimator):
    """Exact local outlier factors of all rows.

    Parameters
    ----------
    n_neighbors : int, default 20
        Below the number of rows. Rows that have at least so many copies have copies alone for
        neighbours: their density is huge, and the factor of a row beside them with it.
    metric : {'euclidean', 'cosine'}, default 'euclidean'
    contamination : 'auto' or float, default 'auto'
        Rows are outliers from a factor of 1.5 on; or this share of them, above 0 and at most 0.5.

    Attributes
    ----------
    negative_outlier_factor_ : ndarray of shape (n_samples,), float64
        About -1 inside a cluster, the lower the more outlying.
    n_neighbors_ : int
    offset_ : float
        Rows below it are outliers.

    Notes
    -----
    Equal scikit-learn's up to rounding, also on repeated rows. There may be a difference where two
    distinct rows are equally far away at the end of a list: here the lower row is in it.
    O(n**2) time, O(n * n_neighbors) memory.
    """

    def __init__(
        self,
        n_neighbors: int = 20,
        *,
        metric: str = "euclidean",
        contamination: str | float = "auto",
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute the factor of every row.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        check_count("n_neighbors", self.n_neighbors)
        check_choice("metric", self.metric, METRICS)
        _check_contamination(self.contamination)
        check_enough(blocks, int(self.n_neighbors))
        known = Known.of(blocks, self.metric)
        self.n_neighbors_ = m = int(self.n_neighbors)
        width = min(m, len(known.copies.first) - 1)
        lists = distinct_lists(blocks, known, width, name="neighbours")
        if not known.copies.none:
            lists = Lists(*spread(known.copies, *lists, m))
        factor = local_outlier_factor(*lists, m, unit=self.metric == "cosine")
        self.negative_outlier_factor_ = -factor
        self.offset_ = -AUTO_FACTOR
        if self.contamination != "auto":
            share = 100 * float(self.contamination)
            self.offset_ = float(np.percentile(self.negative_outlier_factor_, share))
        return self

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Return -1 for every row that is an outlier, 1 for the others.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        self.fit(X)
        inside = self.negative_outlier_factor_ >= self.offset_
        return np.where(inside, 1, -1).astype(np.int64)


def _check_contamination(value: Any) -> None:
    if isinstance(value, str) and value == "auto":
        return
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) <= 0.5:
        raise BadInput(
            f"contamination={value!r}: give 'auto', or a share of the rows above 0 and at most 0.5"
        )


def fit_forest(
    blocks: Blocks, n_estimators: int, sample: int, max_samples: int, seed: int
) -> IsolationForest:
    """Grow scikit-learn's isolation forest on rows drawn without replacement.

    Parameters
    ----------
    blocks : Blocks
    n_estimators : int
        Trees.
    sample : int
        Rows drawn; all where there are no more.
    max_samples : int
        Rows of one tree, drawn from the sample.
    seed : int

    Returns
    -------
    IsolationForest
        A function of the rows and the seed alone.
    """
    chosen = sample_rows(blocks.grid.n_rows, sample, seed)
    parts = []
    for i, span in enumerate(blocks.grid.spans()):
        low, high = np.searchsorted(chosen, [span.row0, span.row0 + span.n_rows])
        if low < high:
            parts.append(blocks.read(i)[chosen[low:high] - span.row0])
    forest = IsolationForest(
        n_estimators=n_estimators, max_samples=min(max_samples, len(chosen)), random_state=seed
    )
    return forest.fit(np.concatenate(parts))


def sample_rows(n_rows: int, sample: int, seed: int) -> I64:
    """Draw row numbers without replacement; ascending."""
    if sample >= n_rows:
        return np.arange(n_rows)
    drawn = np.random.default_rng(seed).choice(n_rows, sample, replace=False)
    return np.sort(drawn).astype(np.int64)


def isolation(forest: IsolationForest, X: F32) -> F64:
    """Return how few cuts isolate each row of a block: above 0.5 is fewer than for most, at most 1."""
    score: F64 = -forest.score_samples(X)
    return score
