"""Centers, labels and stops against scikit-learn's Lloyd from the same explicit start."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as Reference

from tests.strategies import F32, F64
from vehclust_dask.estimators import KMeans
from vehclust_dask.records import ArrayBlocks


def blobs(seed: int, n: int = 1200, d: int = 6, k: int = 7, spread: float = 1.0) -> F32:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((k, d)) * 4
    rows: F32 = (middles[rng.integers(0, k, n)] + rng.standard_normal((n, d)) * spread).astype(
        np.float32
    )
    return rows


def reference(X: F32, start: F64, **params: Any) -> Reference:
    """Run scikit-learn in float64: in float32 its own labels are off where centers are close."""
    model = Reference(len(start), init=start, n_init=1, algorithm="lloyd", **params)
    return model.fit(X.astype(np.float64))


def assert_same_fit(found: KMeans, wanted: Reference) -> None:
    np.testing.assert_array_equal(found.labels_, wanted.labels_)
    assert found.n_iter_ == wanted.n_iter_
    np.testing.assert_allclose(found.cluster_centers_, wanted.cluster_centers_, rtol=0, atol=1e-6)
    assert found.inertia_ == pytest.approx(wanted.inertia_, rel=1e-6)


@pytest.mark.parametrize("tol", [0.0, 1e-4, 1e-1])
@pytest.mark.parametrize("k", [1, 2, 7, 25])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fit__is_scikit_learns_from_the_same_start(seed: int, k: int, tol: float) -> None:
    X = blobs(seed, spread=2.0)
    start = X[np.random.default_rng(seed).choice(len(X), k, replace=False)].astype(np.float64)
    wanted = reference(X, start, tol=tol, max_iter=500)
    found = KMeans(k, init=start, tol=tol, max_iter=500).fit(ArrayBlocks.of(X, block_rows=256))
    assert_same_fit(found, wanted)
    assert found.converged_


@pytest.mark.parametrize("max_iter", [1, 2, 5])
def test_fit__stopped_early_is_scikit_learns(max_iter: int) -> None:
    X = blobs(3, spread=3.0)
    start = X[:9].astype(np.float64)
    wanted = reference(X, start, tol=0, max_iter=max_iter)
    found = KMeans(9, init=start, tol=0, max_iter=max_iter).fit(X)
    assert_same_fit(found, wanted)
    assert found.n_iter_ == max_iter
    assert not found.converged_


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([0.0, 1e-4]))
@settings(max_examples=40)
def test_fit__is_scikit_learns_on_any_small_set(seed: int, k: int, tol: float) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((int(rng.integers(12, 60)), int(rng.integers(1, 4)))).astype(np.float32)
    start = X[:k].astype(np.float64)
    assert_same_fit(KMeans(k, init=start, tol=tol).fit(X), reference(X, start, tol=tol))


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_fit__empty_clusters_take_far_rows_as_in_scikit_learn(lost: int) -> None:
    X = blobs(4, n=600)
    start = np.vstack([X[:4].astype(np.float64), np.full((lost, X.shape[1]), 1e3)])
    start[4:] += np.arange(lost)[:, None] * 100
    wanted = reference(X, start, tol=0, max_iter=300)
    found = KMeans(4 + lost, init=start, tol=0).fit(ArrayBlocks.of(X, block_rows=64))
    assert np.bincount(found.labels_, minlength=4 + lost).min() > 0
    # scikit-learn takes the same rows, in no stated order: compare clusters, not their numbers.
    ours = {frozenset(np.flatnonzero(found.labels_ == j)) for j in range(4 + lost)}
    theirs = {frozenset(np.flatnonzero(wanted.labels_ == j)) for j in range(4 + lost)}
    assert ours == theirs
    assert found.inertia_ == pytest.approx(wanted.inertia_, rel=1e-9)
    assert found.n_iter_ == wanted.n_iter_


def test_fit__a_row_given_to_an_empty_cluster_leaves_its_own() -> None:
    X = blobs(4, n=600)
    start = np.vstack([X[:4].astype(np.float64), np.full((1, X.shape[1]), 1e3)])
    wanted = reference(X, start, tol=0, max_iter=1)
    found = KMeans(5, init=start, tol=0, max_iter=1).fit(ArrayBlocks.of(X, block_rows=64))
    np.testing.assert_allclose(found.cluster_centers_, wanted.cluster_centers_, rtol=0, atol=1e-9)


def test_fit__more_clusters_than_distinct_rows_comes_to_rest() -> None:
    X = np.repeat(np.array([[0.0, 0.0], [5.0, 5.0]], np.float32), 10, axis=0)
    for model in (KMeans(4), KMeans(4, init=X[:4].astype(np.float64), tol=0)):
        model.fit(X)
        assert model.inertia_ == 0.0
        assert model.converged_
        assert np.isfinite(model.cluster_centers_).all()


@pytest.mark.parametrize("far", [1e3, 1e5])
def test_fit__far_from_the_origin_finds_the_same_clusters(far: float) -> None:
    # Whole multiples of float32's spacing there: moving the rows loses nothing.
    X = np.round(blobs(5) * 64) / 64
    start = X[:7].astype(np.float64)
    near = KMeans(7, init=start, tol=0).fit(X)
    away = KMeans(7, init=start + far, tol=0).fit((X + np.float32(far)).astype(np.float32))
    np.testing.assert_array_equal(near.labels_, away.labels_)
    np.testing.assert_allclose(away.cluster_centers_ - far, near.cluster_centers_, atol=1e-6)
    assert away.inertia_ == pytest.approx(near.inertia_, rel=1e-6)


@pytest.mark.parametrize("init", ["best-of-sample", "given"])
def test_fit__of_another_block_grid_gives_the_same_bytes(init: str) -> None:
    X = blobs(6, spread=2.5)
    params: dict[str, Any] = {"tol": 0, "sample_size": 300}
    if init == "given":
        params["init"] = X[:8].astype(np.float64)
    models = [
        KMeans(8, **params).fit(ArrayBlocks.of(X, block_rows=rows)) for rows in (1, 37, 512, 4096)
    ]
    for model in models[1:]:
        assert model.cluster_centers_.tobytes() == models[0].cluster_centers_.tobytes()
        assert model.labels_.tobytes() == models[0].labels_.tobytes()
        assert model.n_iter_ == models[0].n_iter_


@pytest.mark.parametrize("init", ["best-of-sample", "k-means||"])
def test_fit__of_a_dask_array_gives_the_same_bytes(init: str) -> None:
    X = np.tile(blobs(7, spread=2.0), (60, 1))
    lazy = da.from_array(X, chunks=(10_000, 4))
    params: dict[str, Any] = {"init": init, "sample_size": 2000, "max_iter": 6, "n_init": 2}
    wanted, found = KMeans(5, **params).fit(X), KMeans(5, **params).fit(lazy)
    assert found.cluster_centers_.tobytes() == wanted.cluster_centers_.tobytes()
    assert found.inertia_ == pytest.approx(wanted.inertia_, rel=1e-12)
    labels = found.predict(lazy)
    assert isinstance(labels, da.Array)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels.compute(), wanted.labels_)
    distances = found.transform(lazy)
    assert distances.shape == (len(X), 5)
    np.testing.assert_allclose(distances[:99].compute(), wanted.transform(X[:99]), rtol=1e-9)
    assert found.score(lazy) == pytest.approx(-wanted.inertia_, rel=1e-12)


@pytest.mark.parametrize("init", ["best-of-sample", "k-means||"])
def test_init__is_near_the_best_of_many(init: str) -> None:
    X = blobs(8, n=5000, k=15, spread=1.5)
    best = Reference(15, n_init=20, random_state=0).fit(X).inertia_
    found = KMeans(15, init=init, sample_size=1500).fit(ArrayBlocks.of(X, block_rows=512))
    assert found.inertia_ <= 1.01 * best


def test_init__same_seed_same_bytes_and_another_seed_another_sample() -> None:
    X = np.random.default_rng(9).standard_normal((3000, 5)).astype(np.float32)
    for init in ("best-of-sample", "k-means||"):
        fits = [
            KMeans(12, init=init, sample_size=200, random_state=seed, max_iter=3).fit(X)
            for seed in (5, 5, 6)
        ]
        assert fits[0].cluster_centers_.tobytes() == fits[1].cluster_centers_.tobytes()
        assert fits[0].cluster_centers_.tobytes() != fits[2].cluster_centers_.tobytes()


def test_init__parallel_start_needs_distinct_rows() -> None:
    X = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    with pytest.raises(ValueError, match="hold only 3 distinct values; lower n_clusters to 3"):
        KMeans(5, init="k-means||").fit(X)


def test_predict__labels_transform_and_score_agree() -> None:
    X = blobs(10, n=400)
    model = KMeans(6).fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_array_equal(model.fit_predict(X), model.labels_)
    distances = model.transform(X)
    exact = X.astype(np.float64)[:, None] - model.cluster_centers_
    np.testing.assert_allclose(distances, np.linalg.norm(exact, axis=2), rtol=1e-9)
    assert model.inertia_ == pytest.approx(np.square(distances.min(axis=1)).sum())
    assert model.score(X) == pytest.approx(-model.inertia_)
    assert list(model.get_feature_names_out()) == [f"kmeans{i}" for i in range(6)]


def test_labels__belong_to_the_final_centers_after_an_early_stop() -> None:
    X = blobs(11, spread=3.0)
    model = KMeans(9, init=X[:9].astype(np.float64), max_iter=2, tol=0).fit(X)
    D = np.square(X.astype(np.float64)[:, None] - model.cluster_centers_).sum(axis=2)
    np.testing.assert_array_equal(model.labels_, D.argmin(axis=1))
    assert model.inertia_ == pytest.approx(D.min(axis=1).sum(), rel=1e-12)
