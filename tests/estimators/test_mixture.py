"""Gaussian mixtures against scikit-learn's from the same explicit start, on any grid, on any rows."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from tests.strategies import F32, F64
from vehclust_dask.estimators import GaussianMixture, GaussianMixtureSweep, KMeans
from vehclust_dask.estimators.em import MixtureState
from vehclust_dask.estimators.lloyd import LloydState
from vehclust_dask.kernels.mixture import KINDS
from vehclust_dask.records import ArrayBlocks

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def blobs(seed: int, n: int = 1500, d: int = 6, k: int = 4, spread: float = 1.5) -> F32:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((k, d)) * 2
    shapes = rng.standard_normal((k, d, d)) / np.sqrt(d) + np.eye(d) / 2
    labels = rng.integers(0, k, n)
    noise = np.einsum("nij,nj->ni", shapes[labels], rng.standard_normal((n, d)))
    rows: F32 = (middles[labels] + spread * noise).astype(np.float32)
    return rows


def start_of(X: F32, k: int, kind: str, seed: int = 0) -> dict[str, F64]:
    """Return a start that says everything: rows as means, the spread of all rows."""
    rng = np.random.default_rng(seed)
    spread = np.atleast_2d(np.cov(X.T.astype(np.float64)))
    precision = np.linalg.inv(spread + 1e-3 * np.eye(X.shape[1]))
    precision = (precision + precision.T) / 2
    diag = np.diagonal(precision).copy()
    precisions = {
        "full": np.repeat(precision[None], k, axis=0),
        "tied": precision,
        "diag": np.repeat(diag[None], k, axis=0),
        "spherical": np.full(k, diag.mean()),
    }[kind]
    return {
        "weights_init": np.full(k, 1 / k),
        "means_init": X[rng.choice(len(X), k, replace=False)].astype(np.float64),
        "precisions_init": precisions,
    }


def reference(X: F32, k: int, **params: Any) -> Reference:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Reference(k, **params).fit(X.astype(np.float64))


def assert_same_fit(found: GaussianMixture, wanted: Reference, rtol: float = 1e-6) -> None:
    assert found.n_iter_ == wanted.n_iter_
    assert found.converged_ == wanted.converged_
    assert found.lower_bound_ == pytest.approx(wanted.lower_bound_, rel=rtol)
    for name in PARAMETERS:
        a, b = getattr(found, name), getattr(wanted, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "tol", "max_iter"), [(1, 1e-3, 100), (4, 1e-3, 100), (7, 0.0, 40)])
def test_fit__is_scikit_learns_from_the_same_start(
    kind: str, k: int, tol: float, max_iter: int
) -> None:
    X = blobs(1, d=18)
    params = {"tol": tol, "max_iter": max_iter, "covariance_type": kind, **start_of(X, k, kind)}
    wanted = reference(X, k, **params)
    found = GaussianMixture(k, **params).fit(ArrayBlocks.of(X, block_rows=256))
    assert_same_fit(found, wanted)
    rows = X.astype(np.float64)
    np.testing.assert_array_equal(found.predict(X), wanted.predict(rows))
    np.testing.assert_allclose(found.predict_proba(X), wanted.predict_proba(rows), atol=1e-6)
    np.testing.assert_allclose(found.score_samples(X), wanted.score_samples(rows), rtol=1e-6)
    assert found.score(X) == pytest.approx(wanted.score(rows), rel=1e-6)
    assert found.bic(X) == pytest.approx(wanted.bic(rows), rel=1e-6)
    assert found.aic(X) == pytest.approx(wanted.aic(rows), rel=1e-6)
    assert found.bic() == pytest.approx(found.bic(X), rel=1e-12)
    assert found.aic() == pytest.approx(found.aic(X), rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(KINDS))
@settings(max_examples=25)
def test_fit__is_scikit_learns_on_any_small_set(seed: int, k: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((int(rng.integers(30, 90)), int(rng.integers(1, 4)))).astype(np.float32)
    start = start_of(X, k, kind, seed)
    params = {"covariance_type": kind, "reg_covar": 1e-2, "max_iter": 15, **start}
    assert_same_fit(GaussianMixture(k, **params).fit(X), reference(X, k, **params), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_parts", [["means_init"], ["weights_init", "precisions_init"]])
def test_fit__parts_of_a_start_replace_those_of_kmeans(kind: str, given_parts: list[str]) -> None:
    X = blobs(2)
    centers = KMeans(3).fit(X)
    whole = start_of(X, 3, kind)
    parts = {name: whole[name] for name in given_parts}
    found = GaussianMixture(3, covariance_type=kind, max_iter=5, **parts).fit(X)
    model = Reference(3, covariance_type=kind, **parts)
    resp = (centers.labels_[:, None] == np.arange(3)).astype(np.float64)
    model._check_parameters(X, xp=np)
    model._initialize(X.astype(np.float64), resp)
    for _ in range(found.n_iter_):
        bound, log_resp = model._e_step(X.astype(np.float64))
        model._m_step(X.astype(np.float64), log_resp)
    assert found.lower_bound_ == pytest.approx(bound, rel=1e-8)
    np.testing.assert_allclose(found.means_, model.means_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.covariances_, model.covariances_, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_fit__fast_is_near_the_exact_one(kind: str) -> None:
    X = blobs(3, n=4000, d=40, k=5)
    start = start_of(X, 5, kind)
    fits = [
        GaussianMixture(5, covariance_type=kind, precision=p, tol=0, max_iter=12, **start).fit(X)
        for p in ("float64", "float32")
    ]
    assert abs(fits[0].score(X) - fits[1].score(X)) < 1e-3
    assert fits[0].lower_bound_ == pytest.approx(fits[1].lower_bound_, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_fit__of_another_grid_or_a_dask_array_is_the_same_within_rounding(kind: str) -> None:
    X = np.tile(blobs(4), (50, 1))
    params: dict[str, Any] = {"covariance_type": kind, "max_iter": 4, "sample_size": 1000}
    whole = GaussianMixture(4, **params).fit(X)
    lazy = da.from_array(X, chunks=(10_000, 4))
    for rows in (ArrayBlocks.of(X, block_rows=7777), lazy):
        found = GaussianMixture(4, **params).fit(rows)
        for name in ("weights_", "means_", "covariances_"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-7)
    labels, resp = found.top_two(lazy)
    assert isinstance(labels, da.Array)
    np.testing.assert_array_equal(labels[:, 0].compute(), found.predict(X))
    assert resp.shape == (len(X), 2)
    np.testing.assert_array_equal(
        found.predict_proba(lazy)[:50].compute(), found.predict_proba(X[:50])
    )
    assert found.score(lazy) == pytest.approx(found.score(X), rel=1e-12)


@pytest.mark.parametrize("init", ["best-of-sample", "k-means||"])
def test_init__finds_what_scikit_learns_best_of_many_finds(init: str) -> None:
    X = blobs(5, n=3000, spread=0.6)
    best = Reference(4, n_init=5, random_state=0).fit(X.astype(np.float64))
    found = GaussianMixture(4, init=init, n_init=2).fit(X)
    assert found.converged_
    assert found.score(X) >= best.score(X.astype(np.float64)) - 1e-3


def test_init__of_several_keeps_the_likeliest() -> None:
    X = blobs(6, n=2000, k=9, d=3)
    params: dict[str, Any] = {"sample_size": 300, "max_iter": 8, "covariance_type": "diag"}
    bounds = []

    def keep(state: LloydState | MixtureState) -> None:
        if isinstance(state, MixtureState):
            bounds[:] = state.lower_bound

    model = GaussianMixture(9, n_init=4, **params)
    kept = model.fit_mixture(X, on_state=keep)
    assert len(bounds) == 4
    assert len(set(bounds)) > 1
    assert kept.lower_bound == [max(bounds)]
    assert GaussianMixture(9, n_init=1, **params).fit(X).lower_bound_ == bounds[0]


def test_sweep__gives_the_models_of_each_alone() -> None:
    X = blobs(7)
    params: dict[str, Any] = {"n_init": 2, "max_iter": 30}
    sweep = GaussianMixtureSweep([5, 2, 3], **params).fit(X)
    assert list(sweep.models_) == [2, 3, 5]
    for k, model in sweep.models_.items():
        alone = GaussianMixture(k, **params).fit(X)
        assert alone.means_.tobytes() == model.means_.tobytes()
        assert alone.covariances_.tobytes() == model.covariances_.tobytes()
        assert (alone.n_iter_, alone.bic()) == (model.n_iter_, model.bic())
        assert model.n_components == k
        np.testing.assert_array_equal(alone.predict(X), model.predict(X))


def test_bic__is_lowest_where_the_rows_were_made() -> None:
    rng = np.random.default_rng(8)
    middles = np.array([[0, 0], [9, 0], [0, 9]])
    X = (middles[rng.integers(0, 3, 900)] + rng.standard_normal((900, 2))).astype(np.float32)
    models = GaussianMixtureSweep(range(1, 6), covariance_type="spherical").fit(X).models_
    assert min(models, key=lambda k: models[k].bic()) == 3


@pytest.mark.parametrize("stop", [0, 1, 4, 7, 12])
def test_fit_mixture__goes_on_from_any_state_with_the_same_bytes(stop: int) -> None:
    X = blobs(9, spread=3.0)
    model = GaussianMixtureSweep([3, 5], n_init=2, tol=0, max_iter=6, sample_size=200)
    states: list[Any] = []

    class Stopped(Exception):
        pass

    def stopping(state: LloydState | MixtureState) -> None:
        if len(states) == stop:
            raise Stopped
        states.append(state)

    whole = model.fit_mixtures(X)
    with pytest.raises(Stopped):
        model.fit_mixtures(X, on_state=stopping)
    again = model.fit_mixtures(X, state=states[-1] if states else None)
    for a, b in zip(whole.mixtures, again.mixtures, strict=True):
        assert a.means.tobytes() == b.means.tobytes()
        assert a.covariances.tobytes() == b.covariances.tobytes()
    assert whole.n_iter == again.n_iter
    assert whole.lower_bound == again.lower_bound


def test_top_two__agrees_with_the_responsibilities() -> None:
    X = blobs(10)
    model = GaussianMixture(4).fit(X)
    labels, resp = model.top_two(X)
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(labels[:, 0], model.fit_predict(X))
    np.testing.assert_array_equal(np.sort(proba, axis=1)[:, :-3:-1], resp)
    np.testing.assert_array_equal(np.take_along_axis(proba, labels, axis=1), resp)
    assert labels.dtype == np.int32


@pytest.mark.parametrize("far", [1e3, 1e5])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_fit__far_from_the_origin_finds_the_same(far: float, precision: str) -> None:
    X = np.round(blobs(11, d=20) * 64) / 64
    near = GaussianMixture(4, precision=precision, max_iter=10).fit(X)
    away = GaussianMixture(4, precision=precision, max_iter=10).fit(X + np.float32(far))
    rtol = 1e-6 if precision == "float64" else 1e-3
    np.testing.assert_allclose(away.means_ - far, near.means_, rtol=0, atol=20 * rtol)
    np.testing.assert_allclose(away.covariances_, near.covariances_, rtol=0, atol=20 * rtol)


@pytest.mark.parametrize("kind", ["full", "tied", "diag"])
def test_fit__refuses_rows_without_spread_in_one_sentence(kind: str) -> None:
    X = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    with pytest.raises(ValueError, match=r"no spread in some direction .* raise reg_covar=0"):
        GaussianMixture(3, covariance_type=kind, reg_covar=0).fit(X)
    fitted = GaussianMixture(3, covariance_type=kind).fit(X)
    assert fitted.converged_
    assert sorted(np.bincount(fitted.predict(X))) == [10, 10, 10]


def test_fit__refuses_rows_too_large_for_float32_products() -> None:
    X = (blobs(12) * 1e25).astype(np.float32)
    start = start_of(blobs(12), 2, "full")
    with pytest.raises(
        ValueError, match=r"precision='float32': the rows are too large .* or take 'float64'"
    ):
        GaussianMixture(2, precision="float32", **start).fit(X)
    assert np.isfinite(GaussianMixture(2, max_iter=3, **start).fit(X).means_).all()


def test_fit__of_one_row_is_that_row() -> None:
    model = GaussianMixture(1).fit(np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(model.means_, [[1.0, 2.0]])
    np.testing.assert_allclose(model.covariances_[0], 1e-6 * np.eye(2), atol=1e-20)
    labels, resp = model.top_two(np.array([[1.0, 2.0]]))
    assert labels.tolist() == [[0, -1]]
    assert resp.tolist() == [[1.0, 0.0]]
