"""Nearest rows of estimators against float64 distances of all pairs and scikit-learn."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from tests.strategies import F32, float_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import Neighbours
from vehclust_dask.records import ArrayBlocks


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 128)


def clustered(n: int, d: int, seed: int = 0, far: float = 0.0) -> F32:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((8, d)) * 3 + far
    rows: F32 = (middles[rng.integers(0, 8, n)] + rng.standard_normal((n, d))).astype(np.float32)
    return rows


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("far", [0.0, 1e4])
def test_fit__any_block_size_gives_the_brute_lists(
    metric: str, far: float, small_groups: None
) -> None:
    X = clustered(700, 24, far=far)
    exact = X.astype(np.float64)
    if metric == "cosine":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    brute = NearestNeighbors(n_neighbors=7, algorithm="kd_tree").fit(exact)
    distances, indices = brute.kneighbors()
    fitted = [Neighbours(7, metric=metric).fit(ArrayBlocks.of(X, rows)) for rows in (700, 128, 30)]
    for model in fitted:
        np.testing.assert_array_equal(model.indices_, indices)
        np.testing.assert_allclose(model.sq_distances_, distances**2, rtol=1e-6, atol=1e-15)
        assert model.sq_distances_.tobytes() == fitted[0].sq_distances_.tobytes()
        wanted = distances**2 / 2 if metric == "cosine" else distances
        np.testing.assert_allclose(model.distances_, wanted, rtol=1e-6, atol=1e-15)


def test_fit__256_neighbours_are_the_brute_ones(small_groups: None) -> None:
    X = clustered(600, 10)
    distances, indices = NearestNeighbors(n_neighbors=256).fit(X.astype(np.float64)).kneighbors()
    model = Neighbours(256).fit(ArrayBlocks.of(X, 100))
    np.testing.assert_array_equal(model.indices_, indices)
    np.testing.assert_allclose(model.distances_, distances, rtol=1e-9)


@given(float_rows(min_rows=3, max_rows=120), st.integers(0, 2**32 - 1), st.data())
def test_fit__another_order_of_rows_is_the_same_lists(
    X: F32, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    if data.draw(st.booleans()):
        X = X[rng.integers(0, len(X), len(X))]
    m = data.draw(st.integers(1, len(X) - 1))
    order = rng.permutation(len(X))
    there = Neighbours(m).fit(ArrayBlocks.of(X, 50))
    here = Neighbours(m).fit(ArrayBlocks.of(X[order], 17))
    np.testing.assert_array_equal(here.sq_distances_, there.sq_distances_[order])
    exact = X[order].astype(np.float64)
    of_rows = np.square(exact[:, None] - exact[here.indices_]).sum(axis=2)
    np.testing.assert_allclose(of_rows, here.sq_distances_, rtol=1e-12, atol=1e-300)
    assert (np.diff(here.sq_distances_, axis=1) >= 0).all()
    assert all(len(set(row)) == m for row in here.indices_.tolist())
    assert not (here.indices_ == np.arange(len(X))[:, None]).any()


def test_fit__piles_of_equal_rows(small_groups: None) -> None:
    rng = np.random.default_rng(0)
    X = clustered(600, 12)
    X[rng.choice(600, 400, replace=False)] = X[5]
    X[-2:] = X[7]
    model = Neighbours(9).fit(ArrayBlocks.of(X, 100))
    assert model.n_distinct_ == len(np.unique(X, axis=0))
    D = np.square(X.astype(np.float64)[:, None] - X).sum(axis=2)
    np.fill_diagonal(D, np.inf)
    np.testing.assert_array_equal(model.indices_, np.argsort(D, axis=1, kind="stable")[:, :9])
    all_equal = Neighbours(3).fit(np.ones((6, 2)))
    assert all_equal.n_distinct_ == 1
    assert not all_equal.sq_distances_.any()
    np.testing.assert_array_equal(all_equal.indices_[:2], [[1, 2, 3], [0, 2, 3]])


def test_kneighbors__are_the_fitted_rows_nearest_to_new_ones() -> None:
    X, new = clustered(500, 10), clustered(60, 10, seed=1)
    wanted = NearestNeighbors(n_neighbors=4).fit(X.astype(np.float64)).kneighbors(new)
    model = Neighbours(4).fit(ArrayBlocks.of(X, 90))
    distances, indices = model.kneighbors(new)
    np.testing.assert_array_equal(indices, wanted[1])
    np.testing.assert_allclose(distances, wanted[0], rtol=1e-6)
    assert model.kneighbors(new, 500)[1].shape == (60, 500)
    with pytest.raises(BadInput, match="n_neighbors=500"):
        model.kneighbors(new, 501)


def test_fit__of_a_dask_array_is_that_of_the_numpy_array() -> None:
    X = clustered(300, 8)
    wanted = Neighbours(5).fit(X)
    found = Neighbours(5).fit(da.from_array(X, chunks=(70, 4)))
    np.testing.assert_array_equal(found.indices_, wanted.indices_)
    assert found.sq_distances_.tobytes() == wanted.sq_distances_.tobytes()


@pytest.mark.parametrize(
    ("model", "X", "message"),
    [
        (Neighbours(5), np.ones((5, 2)), r"n_neighbors=5 but there are 5 rows .* has 4 others"),
        (Neighbours(0), np.ones((5, 2)), "n_neighbors=0"),
        (
            Neighbours(1),
            np.ones((1, 2)),
            r"there is 1 row .* it has no neighbours; give at least 2",
        ),
        (Neighbours(2, metric="cosin"), np.ones((5, 2)), "did you mean 'cosine'"),
        (Neighbours(2, metric="cosine"), np.eye(5)[:, :4], "row 4 is zero in every feature"),
    ],
)
def test_fit__refuses_in_words(model: Neighbours, X: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        model.fit(X)


def test_fit__refuses_rows_that_are_not_finite_in_blocks() -> None:
    X = np.ones((40, 2), np.float32)
    X[33, 1] = np.nan
    with pytest.raises(BadInput, match="row 33 holds NaN"):
        Neighbours(2).fit(ArrayBlocks.of(X, 10))
