"""Exact silhouettes against scikit-learn's on float64 rows."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import silhouette_samples as scikit_learns

from tests.strategies import F32, F64, float_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import silhouette_samples, silhouette_score
from vehclust_dask.records import ArrayBlocks


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 128)


def clustered(n: int, d: int, far: float = 0.0, apart: float = 3.0) -> tuple[F32, NDArray[Any]]:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((8, d)) * apart + far
    labels = rng.integers(0, 8, n)
    rows: F32 = (middles[labels] + rng.standard_normal((n, d))).astype(np.float32)
    return rows, labels


def wanted_of(X: F32, labels: NDArray[Any], metric: str = "euclidean") -> F64:
    """Return scikit-learn's values from float64 distances; it takes noise for a cluster."""
    out, kept = np.full(len(X), np.nan), labels >= 0
    rows = X[kept].astype(np.float64)
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    D = np.square(rows[:, None] - rows[None]).sum(axis=2)
    D = D / 2 if metric == "cosine" else np.sqrt(D)
    out[kept] = scikit_learns(D, labels[kept], metric="precomputed")
    return out


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("far", [0.0, 1e3])
@pytest.mark.parametrize("apart", [0.3, 3.0, 100.0])
def test_samples__are_scikit_learns_for_any_block_size(
    metric: str, far: float, apart: float, small_groups: None
) -> None:
    X, labels = clustered(700, 24, far, apart)
    X[40:60] = X[:20]
    rng = np.random.default_rng(1)
    several = np.column_stack([labels, rng.integers(-1, 3, 700), rng.permutation(labels)])
    several[:2, 2] = 100, 101  # alone
    wanted = np.column_stack([wanted_of(X, column, metric) for column in several.T])
    for rows in (700, 128, 30):
        found = silhouette_samples(ArrayBlocks.of(X, rows), several, metric=metric)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)
        assert (found[:2, 2] == 0).all()
    one = silhouette_samples(X, several[:, 1], metric=metric)
    np.testing.assert_allclose(one, wanted[:, 1], rtol=0, atol=2e-6)
    scores = silhouette_score(X, several, metric=metric)
    np.testing.assert_allclose(scores, np.nanmean(wanted, axis=0), rtol=0, atol=1e-6)
    assert silhouette_score(X, labels, metric=metric) == pytest.approx(scores[0], abs=1e-6)


@given(float_rows(min_rows=4, max_rows=120), st.integers(2, 5), st.data())
def test_samples__of_rows_in_another_order_and_other_blocks(
    X: F32, k: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    if data.draw(st.booleans()):
        X = X[rng.integers(0, len(X), len(X))]
    labels = rng.integers(-1, k, len(X))
    kept = labels >= 0
    assume(2 <= len(np.unique(labels[kept])) < kept.sum())
    order = rng.permutation(len(X))
    there = silhouette_samples(ArrayBlocks.of(X, 50), labels)
    here = silhouette_samples(ArrayBlocks.of(X[order], 17), labels[order])
    np.testing.assert_allclose(here, there[order], rtol=0, atol=1e-5)
    np.testing.assert_allclose(there, wanted_of(X, labels), rtol=0, atol=1e-5)


def test_samples__of_piles_of_equal_rows(small_groups: None) -> None:
    X, labels = clustered(300, 5)
    X[:] = X[labels]
    assert len(np.unique(X, axis=0)) == 8
    # Equal rows in one cluster, in two clusters, and all rows equal.
    for rows, of in ((X, labels), (X, np.arange(300) % 2), (np.ones_like(X), labels)):
        found = silhouette_samples(ArrayBlocks.of(rows, 90), of)
        np.testing.assert_allclose(found, wanted_of(rows, of), rtol=0, atol=1e-6)


def test_samples__of_a_dask_array_are_those_of_the_numpy_array() -> None:
    X, labels = clustered(300, 8)
    wanted = silhouette_samples(X, labels)
    found = silhouette_samples(da.from_array(X, chunks=(70, 4)), labels)
    assert found.tobytes() == wanted.tobytes()


EYE = np.eye(6)


@pytest.mark.parametrize(
    ("X", "labels", "message"),
    [
        (EYE, np.zeros(6, int), "1 clusters of 6 rows: .* need 2"),
        (EYE, np.arange(6), "6 clusters of 6 rows: .* fewer than rows"),
        (EYE, np.full(6, -1), "0 clusters of 0 rows"),
        (EYE, np.array([0, 1, 0, 1, -2, 0]), "a label is -2: .* -1 for noise"),
        (EYE, np.zeros(5, int), r"labels have the shape \(5,\), but there are 6 rows"),
        (EYE, np.zeros((6, 5), int), "5 clusterings: give 1 to 4"),
        (EYE, np.zeros((6, 0), int), "0 clusterings: give 1 to 4"),
        (EYE, np.linspace(0, 1, 6), "labels are float64: give whole numbers"),
        (np.eye(2100)[:, :3], np.arange(2100) // 2, r"1050 clusters of 2100 rows .* 17\.6 MB"),
    ],
)
def test_samples__refuse_in_words(X: Any, labels: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        silhouette_samples(X, labels)


def test_samples__refuse_rows_and_metrics_in_words() -> None:
    labels = np.arange(6) % 2
    with pytest.raises(BadInput, match="did you mean 'cosine'"):
        silhouette_samples(EYE, labels, metric="cosin")
    with pytest.raises(BadInput, match="row 5 is zero in every feature"):
        silhouette_samples(EYE[:, :5], labels, metric="cosine")
    broken = EYE.astype(np.float32)
    broken[3, 1] = np.nan
    with pytest.raises(BadInput, match="row 3 holds NaN"):
        silhouette_samples(ArrayBlocks.of(broken, 2), labels)
