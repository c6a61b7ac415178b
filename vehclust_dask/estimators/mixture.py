"""Gaussian mixtures over blocks, and a sweep over the number of components in shared passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import by_rows, check_count, rows_in
from vehclust_dask.estimators.em import (
    MixtureState,
    aic,
    bic,
    em,
    hard_mixtures,
    log_likelihoods,
)
from vehclust_dask.estimators.kmeans import INITS, SAMPLE_TOL, _seed_of
from vehclust_dask.estimators.lloyd import LloydState, RowRange, lloyd
from vehclust_dask.estimators.starts import best_of_sample, parallel_start
from vehclust_dask.kernels.mixture import (
    KINDS,
    PRECISIONS,
    Mixture,
    given_mixture,
    membership,
    responsibilities,
)
from vehclust_dask.records import Blocks

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Seedings on the sample for the first start of a mixture; every further start has one of its own.
SEEDINGS = 10
#: Where k-means ends before a mixture begins: scikit-learn's defaults.
KMEANS_TOL, KMEANS_PASSES = 1e-4, 300

OnState = Callable[[LloydState | MixtureState], None]


class TopTwo(NamedTuple):
    """The two likeliest components of every row.

    Attributes
    ----------
    labels : ndarray or Dask array of shape (n_samples, 2), int32
        -1 where there is no second.
    resp : ndarray or Dask array of shape (n_samples, 2), float64
    """

    labels: Any
    resp: Any


@dataclass(frozen=True, eq=False)
class Given:
    """Parts of a start that a person gives; None is taken from k-means."""

    weights: F64 | None
    means: F64 | None
    precisions: F64 | None

    @classmethod
    def of(cls, model: GaussianMixture, n_features: int) -> Given:
        """Check what is given.

        Raises
        ------
        BadInput
        """
        k, d = int(model.n_components), n_features
        shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
        weights = _given("weights_init", model.weights_init, (k,))
        if weights is not None and ((weights < 0).any() or abs(weights.sum() - 1) > 1e-6):
            raise BadInput(
                f"weights_init sums to {weights.sum():g}, its smallest is {weights.min():g}: "
                "give shares of at least 0 that sum to 1"
            )
        precisions = _given("precisions_init", model.precisions_init, shapes[model.covariance_type])
        if precisions is not None and model.covariance_type in ("full", "tied"):
            turned = np.swapaxes(precisions, -1, -2)
            if not np.allclose(precisions, turned):
                raise BadInput("precisions_init is not symmetric: give inverses of covariances")
        return cls(weights, _given("means_init", model.means_init, (k, d)), precisions)

    @property
    def complete(self) -> bool:
        """Say whether nothing is left for k-means."""
        return not any(part is None for part in (self.weights, self.means, self.precisions))

    def into(self, start: Mixture | None, kind: str) -> Mixture:
        """Put the parts that are given into a start.

        Raises
        ------
        BadInput
            If precisions are not positive definite.
        """
        if start is not None:
            weights = start.weights if self.weights is None else self.weights
            means = start.means if self.means is None else self.means
            if self.precisions is None:
                return replace(start, weights=weights, means=means)
        else:
            assert self.weights is not None
            assert self.means is not None
            weights, means = self.weights, self.means
        assert self.precisions is not None
        try:
            return given_mixture(kind, weights, means, self.precisions)
        except np.linalg.LinAlgError:
            raise BadInput(
                "precisions_init is not positive definite: give inverses of covariances"
            ) from None


def _given(name: str, value: Any, shape: tuple[int, ...]) -> F64 | None:
    if value is None:
        return None
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise BadInput(f"{name} has shape {array.shape}: {shape} is needed")
    if not np.isfinite(array).all():
        raise BadInput(f"{name} holds NaN or infinity: give finite numbers")
    return array


class GaussianMixture(DensityMixin, BaseEstimator):
    """A mixture of Gaussians by expectation and maximisation over blocks.

    Parameters
    ----------
    n_components : int, default 1
    covariance_type : {'full', 'tied', 'diag', 'spherical'}, default 'full'
    tol : float, default 1e-3
        scikit-learn's: the mean log-likelihood must gain less.
    reg_covar : float, default 1e-6
        Added to every variance.
    max_iter : int, default 100
    n_init : int, default 1
        Starts; all go to their end in shared passes and the likeliest is kept.
    init : {'best-of-sample', 'k-means||'}, default 'best-of-sample'
        Where the k-means before each start begins (see `KMeans`). Its clusters are the start.
    weights_init, means_init, precisions_init : array-like or None
        Parts of the start, with scikit-learn's shapes; with all three there is no k-means and one
        start.
    precision : {'float64', 'float32'}, default 'float64'
        'float64' gives scikit-learn's parameters from the same start. 'float32' makes the products
        of the fit in float32, added up in float64: faster, the mean log-likelihood is within 1e-3.
        It concerns the fit of 'full' and 'tied'; predictions are always in float64.
    sample_size : int, default 10000
        Rows that k-means starts on.
    random_state : int, RandomState or None, default 0

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray, float64
        As in scikit-learn.
    converged_ : bool
    n_iter_ : int
        Steps of the start that was kept.
    lower_bound_ : float
        Mean log-likelihood before its last step.
    log_likelihood_ : float
        Of all rows, with the final parameters.
    n_samples_ : int
    n_features_in_ : int

    Notes
    -----
    Rows are read as float32, like everywhere in this package. A component whose density at a row is
    below 1e-16 of the mixture's (1e-8 in 'float32') does not count that row (see `kernels.mixture`).
    """

    weights_: F64
    means_: F64
    covariances_: F64
    precisions_cholesky_: F64
    n_features_in_: int

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init: str = "best-of-sample",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        precision: str = "float64",
        sample_size: int = 10_000,
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.precision = precision
        self.sample_size = sample_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Estimate the parameters from all rows.

        Parameters
        ----------
        X : array-like, Dask array or Blocks of shape (n_samples, n_features)
        y : ignored
        """
        blocks = rows_in(self, X, reset=True)
        state = self.fit_mixture(blocks)
        _take_model(self, state, log_likelihoods(blocks, state.mixtures, "mixture"), blocks)
        return self

    def fit_mixture(
        self,
        X: Any,
        *,
        name: str = "mixture",
        state: LloydState | MixtureState | None = None,
        on_state: OnState | None = None,
    ) -> MixtureState:
        """Find the parameters alone: what a job does before it writes labels.

        Parameters
        ----------
        X : as in `fit`
        name : str
            Of the step, as the dashboard shows it.
        state : LloydState, MixtureState or None
            Where an interrupted call stood, in k-means or after it: what its ``on_state`` was given
            last.
        on_state : callable or None
            Called with the state after every pass.

        Returns
        -------
        MixtureState
            Of the likeliest start alone.
        """
        blocks = rows_in(self, X, reset=True)
        ks = _checked(self, [self.n_components], blocks.grid.n_rows)
        given = Given.of(self, blocks.n_features)
        found = _fit(self, ks, blocks, given, name, state, on_state)
        return _likeliest(found, ks)

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Estimate the parameters and return the likeliest component of every row."""
        return self.fit(X).predict(X)

    def predict(self, X: Any) -> Any:
        """Return the likeliest component of every row, int32 of shape (n_samples,); ties: lowest index."""
        return self._by_rows(X, lambda rows: membership(rows, self.mixture_).labels, 0, np.int32)

    def predict_proba(self, X: Any) -> Any:
        """Return the responsibilities, float64 of shape (n_samples, n_components)."""
        k = len(self._fitted().weights)
        return self._by_rows(X, lambda rows: responsibilities(rows, self.mixture_)[0].T, k)

    def score_samples(self, X: Any) -> Any:
        """Return the log-likelihood of every row, float64 of shape (n_samples,)."""
        return self._by_rows(X, lambda rows: responsibilities(rows, self.mixture_)[1], 0)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of these rows."""
        mixture = self._fitted()
        blocks = rows_in(self, X, reset=False)
        return float(log_likelihoods(blocks, [mixture], "score")[0]) / blocks.grid.n_rows

    def top_two(self, X: Any) -> TopTwo:
        """Return the two likeliest components of every row and their responsibilities."""

        def labels(rows: F32) -> NDArray[np.int32]:
            found = membership(rows, self.mixture_)
            return np.stack([found.labels, found.second], axis=1)

        def resp(rows: F32) -> F64:
            found = membership(rows, self.mixture_)
            return np.stack([found.resp, found.second_resp], axis=1)

        return TopTwo(self._by_rows(X, labels, 2, np.int32), self._by_rows(X, resp, 2))

    def bic(self, X: Any = None) -> float:
        """Return Schwarz's criterion of these rows, or without X of those of the fit; lower is better."""
        total, n = self._total(X)
        return bic(total, n, self.mixture_)

    def aic(self, X: Any = None) -> float:
        """Return Akaike's criterion of these rows, or without X of those of the fit; lower is better."""
        total, _ = self._total(X)
        return aic(total, self.mixture_)

    @property
    def mixture_(self) -> Mixture:
        """Return all parameters as one record."""
        return Mixture(
            self.covariance_type,
            self.weights_,
            self.means_,
            self.covariances_,
            self.precisions_cholesky_,
        )

    @property
    def precisions_(self) -> F64:
        """Return the inverses of the covariances."""
        factors = self.precisions_cholesky_
        if self.covariance_type in ("full", "tied"):
            product: F64 = factors @ np.swapaxes(factors, -1, -2)
            return product
        return np.square(factors)

    def _fitted(self) -> Mixture:
        check_is_fitted(self, "weights_")
        return self.mixture_

    def _by_rows(
        self, X: Any, function: Callable[[F32], NDArray[Any]], width: int, dtype: Any = np.float64
    ) -> Any:
        self._fitted()
        return by_rows(X, rows_in(self, X, reset=False), function, width, dtype)

    def _total(self, X: Any) -> tuple[float, int]:
        mixture = self._fitted()
        if X is None:
            return self.log_likelihood_, self.n_samples_
        blocks = rows_in(self, X, reset=False)
        return float(log_likelihoods(blocks, [mixture], "score")[0]), blocks.grid.n_rows


class GaussianMixtureSweep(BaseEstimator):
    """Gaussian mixtures for many numbers of components, every pass over the rows shared by all.

    Parameters
    ----------
    n_components : iterable of int, default range(2, 11)
    covariance_type, tol, reg_covar, max_iter, n_init, init : as in `GaussianMixture`
    precision, sample_size, random_state : as in `GaussianMixture`

    Attributes
    ----------
    models_ : dict of int to GaussianMixture
        A fitted model per number of components, equal to fitting each alone.
    """

    def __init__(
        self,
        n_components: Iterable[int] = range(2, 11),
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init: str = "best-of-sample",
        precision: str = "float64",
        sample_size: int = 10_000,
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init = init
        self.precision = precision
        self.sample_size = sample_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Estimate the parameters for every number of components."""
        blocks = rows_in(self, X, reset=True)
        state = self.fit_mixtures(blocks)
        totals = log_likelihoods(blocks, state.mixtures, "mixture")
        self.models_ = {}
        for i, mixture in enumerate(state.mixtures):
            k = len(mixture.weights)
            model = GaussianMixture(
                k, **{p: v for p, v in self.get_params().items() if p != "n_components"}
            )
            model.n_features_in_ = blocks.n_features
            _take_model(model, state, totals, blocks, i)
            self.models_[k] = model
        return self

    def fit_mixtures(
        self,
        X: Any,
        *,
        name: str = "mixture",
        state: LloydState | MixtureState | None = None,
        on_state: OnState | None = None,
    ) -> MixtureState:
        """Find the parameters alone, numbers of components ascending (see `GaussianMixture.fit_mixture`)."""
        blocks = rows_in(self, X, reset=True)
        if isinstance(self.n_components, str) or not isinstance(self.n_components, Iterable):
            raise BadInput(
                f"n_components={self.n_components!r}: a sweep takes several, such as range(2, 11)"
            )
        ks = _checked(self, list(self.n_components), blocks.grid.n_rows)
        found = _fit(self, ks, blocks, Given(None, None, None), name, state, on_state)
        return _likeliest(found, ks)


def _checked(model: Any, asked: list[Any], n_rows: int) -> list[int]:
    """Check the parameters; return the numbers of components, ascending."""
    for k in asked:
        check_count("n_components", k)
    ks = sorted({int(k) for k in asked})
    if not ks:
        raise BadInput("n_components is empty: give at least one number of components")
    if n_rows < ks[-1]:
        raise BadInput(
            f"n_components={ks[-1]} but there are {n_rows} rows (n_samples={n_rows}); "
            f"lower it to {n_rows} or less"
        )
    for name in ("n_init", "max_iter", "sample_size"):
        check_count(name, getattr(model, name))
    for name in ("tol", "reg_covar"):
        value = getattr(model, name)
        if not isinstance(value, Real) or not 0 <= float(value) < np.inf:
            raise BadInput(f"{name}={value!r}: give a number of at least 0")
    words = (("covariance_type", KINDS), ("precision", PRECISIONS), ("init", INITS))
    for name, allowed in words:
        value = getattr(model, name)
        if value not in allowed:
            raise BadInput(f"{name}={value!r}: allowed are {', '.join(allowed)}")
    return ks


def _fit(
    model: Any,
    ks: list[int],
    blocks: Blocks,
    given: Given,
    name: str,
    state: LloydState | MixtureState | None,
    on_state: OnState | None,
) -> MixtureState:
    """Start and iterate all mixtures; those of one number of components lie side by side."""
    if not isinstance(state, MixtureState):
        state = _start(model, ks, blocks, given, name, state, on_state)
        if on_state is not None:
            on_state(state)
    return em(
        blocks,
        state,
        tol=model.tol,
        max_iter=model.max_iter,
        reg_covar=model.reg_covar,
        precision=model.precision,
        name=name,
        on_state=on_state,
    )


def _start(
    model: Any,
    ks: list[int],
    blocks: Blocks,
    given: Given,
    name: str,
    state: LloydState | None,
    on_state: OnState | None,
) -> MixtureState:
    """Take k-means to its end from every start; its clusters are the mixtures to begin with."""
    kind = model.covariance_type
    rows = RowRange.of(blocks, name)
    if given.complete:
        return MixtureState([given.into(None, kind)])
    if state is None:
        state = LloydState(_centers(model, ks, blocks, name))
    state = lloyd(
        blocks,
        state,
        rows,
        tol=KMEANS_TOL,
        max_iter=KMEANS_PASSES,
        name=f"{name}-kmeans",
        on_state=on_state,
    )
    starts = hard_mixtures(blocks, state.centers, kind, model.reg_covar, name)
    return MixtureState([given.into(one, kind) for one in starts])


def _centers(model: Any, ks: list[int], blocks: Blocks, name: str) -> list[F64]:
    """Return where k-means begins: ``n_init`` starts for each number of components in turn."""
    seed = _seed_of(model.random_state)
    by_start = []
    for i in range(model.n_init):
        mine = seed if i == 0 else int(np.random.default_rng([seed, i]).integers(2**31))
        seedings = SEEDINGS if i == 0 else 1
        if model.init == "best-of-sample":
            by_start.append(
                best_of_sample(
                    blocks,
                    ks,
                    n_init=seedings,
                    size=model.sample_size,
                    tol=SAMPLE_TOL,
                    seed=mine,
                    name=name,
                )
            )
        else:
            by_start.append(
                [
                    parallel_start(blocks, k, n_init=seedings, seed=mine, name=f"{name}-{k}")
                    for k in ks
                ]
            )
    return [starts[j] for j in range(len(ks)) for starts in by_start]


def _likeliest(state: MixtureState, ks: list[int]) -> MixtureState:
    """Keep the start of the largest lower bound for each number of components; ties: the first."""
    each = len(state.mixtures) // len(ks)
    bounds = np.array(state.lower_bound).reshape(len(ks), each)
    kept = [j * each + int(i) for j, i in enumerate(bounds.argmax(axis=1))]
    return MixtureState(
        [state.mixtures[i] for i in kept],
        [state.lower_bound[i] for i in kept],
        [state.done[i] for i in kept],
        [state.converged[i] for i in kept],
        [state.n_iter[i] for i in kept],
    )


def _take_model(
    model: GaussianMixture, state: MixtureState, totals: F64, blocks: Blocks, i: int = 0
) -> None:
    mixture = state.mixtures[i]
    model.weights_, model.means_ = mixture.weights, mixture.means
    model.covariances_, model.precisions_cholesky_ = mixture.covariances, mixture.factors
    model.converged_, model.n_iter_ = state.converged[i], state.n_iter[i]
    model.lower_bound_ = state.lower_bound[i]
    model.log_likelihood_, model.n_samples_ = float(totals[i]), blocks.grid.n_rows
