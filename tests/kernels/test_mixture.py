"""The pass of a mixture: against densities written down plainly, scikit-learn's step, and any cut."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as Reference

from tests.strategies import F32, F64, cuts
from vehclust_dask.kernels.mixture import (
    KINDS,
    NEGLIGIBLE,
    Mixture,
    MixtureSums,
    factors_of,
    given_mixture,
    hard_sums,
    membership,
    mixture_sums,
    next_mixture,
    responsibilities,
)


def some_mixture(seed: int, kind: str, k: int, d: int, apart: float = 2.0) -> Mixture:
    """Return a mixture of ordinary parameters."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((k, 2 * d + 2, d)) / math.sqrt(2 * d + 2)
    full = np.einsum("kij,kil->kjl", A, A) * rng.uniform(0.5, 2.0, (k, 1, 1)) + 0.05 * np.eye(d)
    diag = np.diagonal(full, 0, 1, 2).copy()
    covariances = {"full": full, "tied": full[0], "diag": diag, "spherical": diag[:, 0].copy()}[
        kind
    ]
    weights = rng.dirichlet(np.full(k, 5.0))
    means = rng.standard_normal((k, d)) * apart
    return Mixture(kind, weights, means, covariances, factors_of(covariances, kind))


def square_covariances(mixture: Mixture) -> F64:
    """Return a matrix per component, whatever the kind."""
    k, d = mixture.means.shape
    if mixture.kind == "full":
        return mixture.covariances
    if mixture.kind == "tied":
        return np.repeat(mixture.covariances[None], k, axis=0)
    scales = np.broadcast_to(mixture.covariances.reshape(k, -1), (k, d))
    return np.stack([np.diag(row) for row in scales])


def rows_of(mixture: Mixture, seed: int, n: int) -> F32:
    rng = np.random.default_rng([seed, 1])
    squares = square_covariances(mixture)
    kinds = rng.choice(len(squares), n, p=mixture.weights)
    rows = [rng.multivariate_normal(mixture.means[c], squares[c]) for c in kinds]
    return np.array(rows, dtype=np.float32)


def plain_sums(X: F32, mixture: Mixture) -> MixtureSums:
    """Return the sums as they are defined, pair by pair."""
    squares = square_covariances(mixture)
    D = X.astype(np.float64)[None] - mixture.means[:, None]
    logs = np.stack(
        [
            np.log(w) + multivariate_normal(mean, cov).logpdf(X.astype(np.float64)).reshape(-1)
            for w, mean, cov in zip(mixture.weights, mixture.means, squares, strict=True)
        ]
    )
    totals = np.logaddexp.reduce(logs, axis=0)
    resp = np.exp(logs - totals)
    if mixture.kind == "tied":
        about = X - mixture.weights @ mixture.means
        scatter = about.T @ about
    elif mixture.kind == "full":
        scatter = np.einsum("kn,kni,knj->kij", resp, D, D)
    else:
        scatter = np.einsum("kn,kni->ki", resp, np.square(D))
    shifts = np.einsum("kn,kni->ki", resp, D)
    return MixtureSums(len(X), float(totals.sum()), resp.sum(axis=1), shifts, scatter)


def assert_close(found: MixtureSums, wanted: MixtureSums, rtol: float) -> None:
    assert found.n == wanted.n
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=rtol)
    for name in ("mass", "shifts", "scatter"):
        a, b = getattr(found, name), getattr(wanted, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 5), d=st.sampled_from([1, 2, 7, 17, 33]))
@settings(max_examples=15)
def test_sums__are_those_of_the_definition(kind: str, seed: int, k: int, d: int) -> None:
    mixture = some_mixture(seed, kind, k, d)
    X = rows_of(mixture, seed, 60)
    wanted = plain_sums(X, mixture)
    assert_close(mixture_sums(X, mixture), wanted, 1e-11)
    assert_close(mixture_sums(X, mixture, "float32"), wanted, 1e-4)


def test_sums__of_one_row_and_two_components_by_hand() -> None:
    mixture = given_mixture(
        "full", np.array([0.5, 0.5]), np.array([[0.0], [2.0]]), np.ones((2, 1, 1))
    )
    found = mixture_sums(np.zeros((1, 1), np.float32), mixture)
    near, far = 1.0, math.exp(-2.0)
    share = far / (near + far)
    np.testing.assert_allclose(found.mass, [1 - share, share], rtol=1e-15)
    np.testing.assert_allclose(found.shifts[:, 0], [0.0, -2 * share], rtol=1e-15)
    np.testing.assert_allclose(found.scatter[:, 0, 0], [0.0, 4 * share], rtol=1e-15)
    density = (near + far) / 2 / math.sqrt(2 * math.pi)
    assert found.log_likelihood == pytest.approx(math.log(density), rel=1e-15)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=10)
def test_plus__any_cut_gives_the_whole(kind: str, precision: str, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    mixture = some_mixture(seed, kind, 3, 19)
    X = rows_of(mixture, seed, 40)
    ends = data.draw(cuts(len(X)))
    parts = [mixture_sums(X[a:b], mixture, precision) for a, b in itertools.pairwise(ends)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.plus(part)
    whole = mixture_sums(X, mixture, precision)
    assert_close(merged, whole, 1e-12 if precision == "float64" else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_plus__is_associative(kind: str) -> None:
    mixture = some_mixture(1, kind, 4, 6)
    a, b, c = (mixture_sums(rows_of(mixture, seed, 30), mixture) for seed in (1, 2, 3))
    assert_close(a.plus(b).plus(c), a.plus(b.plus(c)), 1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_sums__of_many_tiles_are_those_of_the_definition(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vehclust_dask.kernels.mixture.TILE_ROWS", 128)
    monkeypatch.setattr("vehclust_dask.kernels.mixture.CHUNK_ROWS", 64)
    mixture = some_mixture(2, kind, 4, 18, apart=1.0)
    X = rows_of(mixture, 2, 700)
    assert_close(mixture_sums(X, mixture), plain_sums(X, mixture), 1e-11)


def test_sums__leave_out_only_what_is_negligible() -> None:
    # Every shade of distance, so that some pairs lie on either side of what is left out.
    for seed, apart in enumerate([0.5, 1.0, 2.0, 4.0, 20.0]):
        mixture = some_mixture(seed, "full", 6, 24, apart)
        X = rows_of(mixture, seed, 400)
        whole = plain_sums(X, mixture)
        assert_close(mixture_sums(X, mixture), whole, 1e-12)
        loose = mixture_sums(X, mixture, "float32")
        np.testing.assert_allclose(loose.mass, whole.mass, rtol=1e-4)
    assert NEGLIGIBLE["float64"] <= 1e-12


@pytest.mark.parametrize("far", [1e3, 1e5])
@pytest.mark.parametrize("kind", KINDS)
def test_sums__far_from_the_origin_lose_nothing(kind: str, far: float) -> None:
    mixture = some_mixture(3, kind, 3, 20)
    X = np.round(rows_of(mixture, 3, 200) * 64) / 64
    away = Mixture(kind, mixture.weights, mixture.means + far, mixture.covariances, mixture.factors)
    moved = (X + np.float32(far)).astype(np.float32)
    near = mixture_sums(X, mixture)
    assert_close(mixture_sums(moved, away), near, 1e-7)
    assert_close(mixture_sums(moved, away, "float32"), near, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_responsibilities__are_scikit_learns(kind: str) -> None:
    mixture = some_mixture(4, kind, 5, 17)
    X = rows_of(mixture, 4, 300)
    model = Reference(5, covariance_type=kind)
    model.weights_, model.means_ = mixture.weights, mixture.means
    model.precisions_cholesky_, model.covariances_ = mixture.factors, mixture.covariances
    resp, log_likelihood = responsibilities(X, mixture)
    np.testing.assert_allclose(resp.T, model.predict_proba(X.astype(np.float64)), atol=1e-12)
    np.testing.assert_allclose(
        log_likelihood, model.score_samples(X.astype(np.float64)), rtol=1e-12
    )
    assert mixture.n_parameters == model._n_parameters()


@pytest.mark.parametrize("kind", KINDS)
def test_next__is_scikit_learns_step(kind: str) -> None:
    mixture = some_mixture(5, kind, 4, 9)
    X = rows_of(mixture, 5, 500)
    wanted = one_step(X, mixture, reg=1e-3)
    found = next_mixture(mixture, mixture_sums(X, mixture), 1e-3)
    np.testing.assert_allclose(found.weights, wanted.weights_, rtol=1e-11)
    np.testing.assert_allclose(found.means, wanted.means_, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.covariances, wanted.covariances_, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.factors, wanted.precisions_cholesky_, rtol=1e-8, atol=1e-10)


def one_step(X: F32, mixture: Mixture, reg: float) -> Any:
    model = Reference(len(mixture.means), covariance_type=mixture.kind, reg_covar=reg)
    model.weights_, model.means_ = mixture.weights, mixture.means
    model.precisions_cholesky_ = mixture.factors
    rows = X.astype(np.float64)
    _, log_resp = model._e_step(rows)
    model._m_step(rows, log_resp)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_hard_sums__give_means_and_spreads_of_groups(kind: str) -> None:
    mixture = some_mixture(6, kind, 3, 5)
    X = rows_of(mixture, 6, 200)
    labels = np.random.default_rng(6).integers(0, 3, len(X)).astype(np.int32)
    found = next_mixture(mixture, hard_sums(X, labels, mixture), 0.0)
    groups = [X[labels == c].astype(np.float64) for c in range(3)]
    np.testing.assert_allclose(found.means, [g.mean(axis=0) for g in groups], rtol=1e-10)
    covs = np.stack([np.cov(g.T, bias=True) for g in groups])
    sizes = np.array([len(g) for g in groups])
    wanted = {
        "full": covs,
        "tied": np.einsum("k,kij->ij", sizes / len(X), covs),
        "diag": np.diagonal(covs, 0, 1, 2),
        "spherical": np.diagonal(covs, 0, 1, 2).mean(axis=1),
    }[kind]
    np.testing.assert_allclose(found.covariances, wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.weights, sizes / len(X), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_given__is_the_mixture_of_these_precisions(kind: str) -> None:
    mixture = some_mixture(7, kind, 3, 6)
    square = kind in ("full", "tied")
    precisions = np.linalg.inv(mixture.covariances) if square else 1 / mixture.covariances
    found = given_mixture(kind, mixture.weights, mixture.means, precisions)
    np.testing.assert_allclose(found.covariances, mixture.covariances, rtol=1e-10)
    if square:
        rebuilt = found.factors @ np.swapaxes(found.factors, -1, -2)
        np.testing.assert_allclose(rebuilt, precisions, rtol=1e-10)
        assert (np.tril(found.factors, -1) == 0).all()
    X = rows_of(mixture, 7, 50)
    assert_close(mixture_sums(X, found), mixture_sums(X, mixture), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_factors__refuse_what_has_no_width(kind: str) -> None:
    shape = {"full": (2, 3, 3), "tied": (3, 3), "diag": (2, 3), "spherical": (2,)}[kind]
    with pytest.raises(np.linalg.LinAlgError):
        factors_of(np.zeros(shape), kind)
    with pytest.raises(np.linalg.LinAlgError):
        given_mixture(kind, np.full(2, 0.5), np.zeros((2, 3)), np.zeros(shape))


def test_sums__of_a_component_without_rows_stay_finite() -> None:
    mixture = some_mixture(8, "full", 2, 20)
    X = rows_of(mixture, 8, 100)
    lost = Mixture(
        "full",
        np.array([0.5, 0.3, 0.2]),
        np.vstack([mixture.means, np.full((1, 20), 1e4)]),
        np.concatenate([mixture.covariances, np.eye(20)[None]]),
        np.concatenate([mixture.factors, np.eye(20)[None]]),
    )
    found = mixture_sums(X, lost)
    assert found.mass[2] == 0.0
    after = next_mixture(lost, found, 1e-6)
    assert np.isfinite(after.factors).all()
    wanted = one_step(X, lost, 1e-6)
    np.testing.assert_allclose(after.weights[:2], wanted.weights_[:2], rtol=1e-12)
    np.testing.assert_allclose(after.means, wanted.means_, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_membership__names_the_two_likeliest(kind: str, k: int) -> None:
    mixture = some_mixture(9, kind, k, 7, apart=0.7)
    X = rows_of(mixture, 9, 200)
    resp, log_likelihood = responsibilities(X, mixture)
    found = membership(X, mixture)
    each = np.arange(len(X))
    np.testing.assert_array_equal(found.labels, resp.argmax(axis=0))
    np.testing.assert_array_equal(found.resp, resp.max(axis=0))
    np.testing.assert_array_equal(found.log_likelihood, log_likelihood)
    own = mixture.means[found.labels]
    np.testing.assert_allclose(found.sq_dist, np.square(X - own).sum(axis=1), rtol=1e-12)
    if k == 1:
        assert (found.second == -1).all()
        assert (found.second_resp == 0).all()
        return
    resp[found.labels, each] = -1
    np.testing.assert_array_equal(found.second, resp.argmax(axis=0))
    np.testing.assert_array_equal(found.second_resp, resp.max(axis=0))


def test_membership__tells_far_components_apart_and_breaks_ties_downwards() -> None:
    means = np.array([[0.0], [1e4], [1e4], [2e4]])
    mixture = given_mixture("spherical", np.full(4, 0.25), means, np.ones(4))
    found = membership(np.array([[1e4], [1.5e4 + 1], [1.0]], np.float32), mixture)
    assert found.labels.tolist() == [1, 3, 0]
    assert found.second.tolist() == [2, 1, 1]
    assert found.resp.tolist() == [0.5, 1.0, 1.0]
    assert found.second_resp.tolist() == [0.5, 0.0, 0.0]
