"""The engine dask-ml on the rows of this house, beside our own estimators."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import numpy as np
import pytest

from tests.strategies import F32, F64
from vehclust_dask.blocks import as_blocks
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import PCA, KMeans, daskml
from vehclust_dask.records import ArrayBlocks

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _in_this_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def rows() -> F32:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((6, 10)) * np.linspace(6, 1, 10)
    values: F32 = (middles[rng.integers(0, 6, 3000)] + rng.standard_normal((3000, 10))).astype(
        np.float32
    )
    return values


def inertia(X: F32, centers: F64) -> float:
    D = np.square(X.astype(np.float64)[:, None] - centers).sum(axis=2)
    return float(D.min(axis=1).sum())


def test_as_dask__is_the_same_rows(rows: F32) -> None:
    lazy = daskml.as_dask(ArrayBlocks.of(rows, 700))
    assert lazy.chunks[0] == (700, 700, 700, 700, 200)
    np.testing.assert_array_equal(lazy.compute(), rows)
    assert daskml.as_dask(as_blocks(lazy)).shape == rows.shape


@pytest.mark.parametrize("scale", ["none", "standard"])
def test_incremental_pca__variances_are_near_ours(rows: F32, scale: str) -> None:
    blocks = ArrayBlocks.of(rows, 512)
    ours = PCA(4, scale=scale).fit(blocks)
    shift = ours.mean_ if scale == "standard" else np.zeros(10)
    found = daskml.incremental_pca(blocks, 4, shift, ours.factor_, seed=0)
    assert found.components.shape == (4, 10)
    np.testing.assert_allclose(found.variances, ours.explained_variance_, rtol=0.02)
    np.testing.assert_allclose(found.total_variance, ours.spectrum_.sum(), rtol=0.02)
    cosines = np.abs((found.components * ours.components_).sum(axis=1))
    assert cosines[:2].min() > 0.98


def test_incremental_pca__refuses_a_last_batch_too_small(rows: F32) -> None:
    blocks = ArrayBlocks.of(rows[:1027], 512)
    with pytest.raises(BadInput, match="the last batch has 3 rows, fewer than n_components=4"):
        daskml.incremental_pca(blocks, 4, np.zeros(10), np.ones(10), seed=0)


def test_kmeans__is_within_a_tenth_of_ours(rows: F32) -> None:
    blocks = ArrayBlocks.of(rows, 512)
    best = KMeans(6).fit(blocks).inertia_
    spread = float(rows.var(axis=0).mean())
    centers, n_iter = daskml.kmeans(blocks, 6, max_iter=50, tol=1e-4, spread=spread, seed=0)
    assert centers.shape == (6, 10)
    assert 1 <= n_iter <= 50
    assert best * (1 - 1e-6) <= inertia(rows, centers) <= 1.1 * best


def test_minibatch_kmeans__explains_most_of_the_variance(rows: F32) -> None:
    centers, n_steps = daskml.minibatch_kmeans(ArrayBlocks.of(rows, 512), 6, batch_size=256, seed=0)
    assert centers.shape == (6, 10)
    assert n_steps >= 1
    assert inertia(rows, centers) <= 0.5 * inertia(rows, rows.mean(axis=0, keepdims=True))
