"""Exact k-means over blocks, and a whole sweep over k in shared passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from vehclust_dask.blocks import reduce_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import by_rows, check_count, rows_in
from vehclust_dask.estimators.lloyd import LloydState, RowRange, lloyd
from vehclust_dask.estimators.starts import best_of_sample, given_start, parallel_start
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import ArrayBlocks, Blocks, Span

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

INITS = ("best-of-sample", "k-means||")
#: On the sample the iteration need not come to rest: it goes on over all rows.
SAMPLE_TOL = 1e-3
#: Passes over all rows that a quick sweep takes.
QUICK_PASSES = 2


@dataclass(frozen=True, eq=False)
class InertiaPass:
    """Sum of squared distances to the nearest center, per clustering."""

    segments: Segments
    fan_in: int = 8

    def fold(self, summary: F64 | None, X: F32, span: Span) -> F64:
        """Add a block."""
        mine: F64 = assign(X, self.segments).sq_dist.sum(axis=0)
        return mine if summary is None else summary + mine

    def merge(self, left: F64, right: F64) -> F64:
        """Add the sums."""
        return left + right


def last_pass(blocks: Blocks, segments: Segments) -> tuple[F64, NDArray[np.int32] | None]:
    """Measure rows with the final centers.

    Returns
    -------
    inertia : ndarray of shape (n_segments,), float64
    labels : ndarray of shape (n_samples, n_segments), int32, or None
        None where the rows are not an array in memory: their labels need not fit there either.
    """
    if not isinstance(blocks, ArrayBlocks):
        return reduce_rows(blocks, InertiaPass(segments), name="inertia"), None
    found = [assign(blocks.read(i), segments) for i in range(blocks.grid.n_blocks)]
    inertia = sum((f.sq_dist.sum(axis=0) for f in found), start=np.zeros(segments.n_segments))
    return inertia, np.concatenate([f.labels for f in found])


class _CenterModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """What every clustering by centers can do with rows, once fitted."""

    cluster_centers_: F64
    n_features_in_: int

    def predict(self, X: Any) -> Any:
        """Return the nearest center of every row, int32 of shape (n_samples,); ties: lowest index."""
        check_is_fitted(self)
        blocks = rows_in(self, X, reset=False)
        segments = Segments.of([self.cluster_centers_])
        return by_rows(X, blocks, lambda rows: assign(rows, segments).labels[:, 0], 0, np.int32)

    def transform(self, X: Any) -> Any:
        """Return the distance of every row to every center, float64 of shape (n_samples, n_clusters)."""
        check_is_fitted(self)
        blocks = rows_in(self, X, reset=False)
        return by_rows(X, blocks, self._distances, len(self.cluster_centers_), np.float64)

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the inertia of these rows."""
        check_is_fitted(self)
        blocks = rows_in(self, X, reset=False)
        one = InertiaPass(Segments.of([self.cluster_centers_]))
        return -float(reduce_rows(blocks, one, name="score")[0])

    def _distances(self, X: F32) -> F64:
        C = self.cluster_centers_
        rows = X.astype(np.float64)
        middle = C.mean(axis=0)
        rows, C = rows - middle, C - middle
        sq = np.square(rows).sum(axis=1)[:, None] - 2 * rows @ C.T + np.square(C).sum(axis=1)
        distances: F64 = np.sqrt(np.maximum(sq, 0.0))
        return distances

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)


class KMeans(_CenterModel):
    """Exact k-means (Lloyd) over blocks, with float64 decisions and exact sums.

    Parameters
    ----------
    n_clusters : int, default 8
    init : {'best-of-sample', 'k-means||'} or ndarray of shape (n_clusters, n_features)
        'best-of-sample': the winner of a race of ``n_init`` k-means on ``sample_size`` rows drawn
        from all blocks, improved by moving single centers; then all rows. 'k-means||': draws over
        all rows, weighted.
    n_init : int, default 10
        Starts that are compared on the sample (or on the weighted candidates).
    max_iter : int, default 300
    tol : float, default 1e-4
        scikit-learn's: relative to the mean variance of a column.
    sample_size : int, default 20000
    random_state : int, RandomState or None, default 0

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features_in_), float64
    labels_ : ndarray of shape (n_samples,), int32
        Nearest final center; for blocks on storage there is none: use `predict`.
    inertia_ : float
        Sum of squared distances to the nearest final center.
    n_iter_ : int
    converged_ : bool
        False where ``max_iter`` ended the fit.

    Notes
    -----
    The result does not depend on blocks, workers or the order of tasks: labels are decided in
    float64 and sums are exact integers (see `kernels.kmeans`).
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "best-of-sample",
        n_init: int = 10,
        max_iter: int = 300,
        tol: float = 1e-4,
        sample_size: int = 20_000,
        random_state: Any = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.sample_size = sample_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster all rows.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        sweep = _sweep_of(self, [self.n_clusters], [self.init])
        _take_model(self, sweep._fit_blocks(blocks).models_[int(self.n_clusters)])
        return self

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Cluster all rows and return their labels."""
        return self.fit(X).labels_


class KMeansSweep(BaseEstimator):
    """k-means for many numbers of clusters, every pass over the rows shared by all of them.

    Parameters
    ----------
    n_clusters : iterable of int, default range(2, 51)
    init, n_init, max_iter, tol, sample_size, random_state : as in `KMeans`
        ``init`` may also map a number of clusters to its starting centers.
    quick : bool, default False
        An approximation by this name: the best start settles on a sample of up to 65,536 rows of
        all blocks and is then moved by two passes over all rows, whatever ``max_iter``; ``init``
        must be 'best-of-sample'. Labels and inertia are those of all rows.

    Attributes
    ----------
    models_ : dict of int to KMeans
        A fitted model per number of clusters, equal to fitting each alone.
    """

    def __init__(
        self,
        n_clusters: Iterable[int] = range(2, 51),
        *,
        init: Any = "best-of-sample",
        n_init: int = 10,
        max_iter: int = 300,
        tol: float = 1e-4,
        sample_size: int = 20_000,
        random_state: Any = 0,
        quick: bool = False,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.sample_size = sample_size
        self.random_state = random_state
        self.quick = quick

    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster all rows for every number of clusters."""
        return self._fit_blocks(rows_in(self, X, reset=True))

    def fit_centers(
        self,
        X: Any,
        *,
        name: str = "kmeans",
        state: LloydState | None = None,
        on_state: Callable[[LloydState], None] | None = None,
    ) -> LloydState:
        """Find the centers alone, without labels and inertia: what a job does before it writes labels.

        Parameters
        ----------
        X : as in `fit`
        name : str
            Of the step, as the dashboard shows it.
        state : LloydState or None
            Where an interrupted call stood: what its ``on_state`` was given last.
        on_state : callable or None
            Called with the state after every pass.
        """
        blocks = rows_in(self, X, reset=True)
        ks = self._ks(blocks.grid.n_rows)
        rows = RowRange.of(blocks, name)
        if state is None:
            state = LloydState(self._starts(blocks, ks, name))
            if on_state is not None:
                on_state(state)
        return lloyd(
            blocks,
            state,
            rows,
            tol=self.tol,
            max_iter=min(QUICK_PASSES, self.max_iter) if self.quick else self.max_iter,
            name=name,
            on_state=on_state,
        )

    def _fit_blocks(self, blocks: Blocks) -> Self:
        self.n_features_in_ = blocks.n_features
        ks = self._ks(blocks.grid.n_rows)
        state = self.fit_centers(blocks)
        segments = Segments.of(state.centers)
        inertia, labels = last_pass(blocks, segments)
        self.models_ = {}
        for s, k in enumerate(ks):
            own = KMeans(k).get_params().keys() - {"n_clusters"}
            model = KMeans(k, **{p: v for p, v in self.get_params().items() if p in own})
            model.n_features_in_ = blocks.n_features
            model.cluster_centers_ = state.centers[s]
            model.inertia_ = float(inertia[s])
            model.n_iter_, model.converged_ = state.n_iter[s], state.converged[s]
            if labels is not None:
                model.labels_ = np.ascontiguousarray(labels[:, s])
            self.models_[k] = model
        return self

    def _ks(self, n_rows: int) -> list[int]:
        """Check the parameters; return the numbers of clusters, ascending."""
        if isinstance(self.n_clusters, str) or not isinstance(self.n_clusters, Iterable):
            raise BadInput(
                f"n_clusters={self.n_clusters!r}: a sweep takes several, such as range(2, 51)"
            )
        asked = list(self.n_clusters)
        for k in asked:
            check_count("n_clusters", k)
        ks = sorted({int(k) for k in asked})
        if not ks:
            raise BadInput("n_clusters is empty: give at least one number of clusters")
        if n_rows < ks[-1]:
            raise BadInput(
                f"n_clusters={ks[-1]} but there are {n_rows} rows (n_samples={n_rows}); "
                f"lower it to {n_rows} or less"
            )
        for name in ("n_init", "max_iter", "sample_size"):
            check_count(name, getattr(self, name))
        if not isinstance(self.tol, Real) or not self.tol >= 0:
            raise BadInput(f"tol={self.tol!r}: give a number of at least 0")
        if self.quick and not (isinstance(self.init, str) and self.init == INITS[0]):
            raise BadInput(f"quick=True starts from a sample: init must be '{INITS[0]}'")
        return ks

    def _starts(self, blocks: Blocks, ks: list[int], name: str) -> list[F64]:
        if not isinstance(self.init, str):
            chosen = self.init if isinstance(self.init, Mapping) else {ks[0]: self.init}
            absent = [k for k in ks if k not in chosen]
            if absent:
                raise BadInput(
                    f"init holds no centers for n_clusters={absent[0]}: give them for every k"
                )
            return [given_start(chosen[k], k, blocks.n_features) for k in ks]
        seed = _seed_of(self.random_state)
        if self.init == "best-of-sample":
            return best_of_sample(
                blocks,
                ks,
                n_init=self.n_init,
                size=self.sample_size,
                tol=max(self.tol, SAMPLE_TOL),
                seed=seed,
                name=name,
                settle=self.quick,
            )
        if self.init == "k-means||":
            return [
                parallel_start(blocks, k, n_init=self.n_init, seed=seed, name=f"{name}-{k}")
                for k in ks
            ]
        raise BadInput(f"init={self.init!r}: allowed are {', '.join(INITS)} or an array of centers")


def _seed_of(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _sweep_of(model: KMeans, ks: list[int], inits: list[Any]) -> KMeansSweep:
    params = model.get_params() | {"n_clusters": ks, "init": inits[0]}
    return KMeansSweep(**params)


def _take_model(model: KMeans, fitted: KMeans) -> None:
    for name, value in vars(fitted).items():
        if name.endswith("_") and not name.startswith("_"):
            setattr(model, name, value)
