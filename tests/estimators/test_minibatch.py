"""Batches against exact k-means."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from tests.strategies import F32
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import KMeans, MiniBatchKMeans
from vehclust_dask.estimators.minibatch import BatchPlan, run_batches
from vehclust_dask.records import ArrayBlocks


@pytest.fixture(scope="module")
def rows() -> F32:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((12, 8)) * 4
    values: F32 = (
        middles[rng.integers(0, 12, 20_000)] + rng.standard_normal((20_000, 8)) * 1.5
    ).astype(np.float32)
    return values


@pytest.fixture(scope="module")
def exact(rows: F32) -> KMeans:
    return KMeans(12, sample_size=2000).fit(rows)


def test_fit__is_near_exact_kmeans(rows: F32, exact: KMeans) -> None:
    found = MiniBatchKMeans(12, batch_size=512, sample_size=500).fit(rows)
    assert exact.inertia_ <= found.inertia_ * (1 + 1e-6)
    assert found.inertia_ <= 1.05 * exact.inertia_
    assert found.n_steps_ >= 10
    assert 1 <= found.n_iter_ <= 100
    np.testing.assert_array_equal(found.predict(rows), found.labels_)


def test_fit__improves_on_a_poor_start(rows: F32, exact: KMeans) -> None:
    start = rows[:12].astype(np.float64)
    plan = BatchPlan(512, max_iter=5, max_no_improvement=50, window_bytes=1 << 28, seed=0)
    centers, n_iter, n_steps = run_batches(ArrayBlocks.of(rows, 1024), start, plan)
    before = -KMeans(12, init=start, max_iter=1).fit(rows[:12]).score(rows)
    after = KMeans(12, init=centers, max_iter=1, tol=0).fit(rows).inertia_
    assert after < before
    # A window holds every block here: batches of 512 of 20,000 rows, the last one smaller.
    assert n_steps <= n_iter * 40
    assert n_iter <= 5


def test_fit__rows_sorted_by_cluster_do_no_harm(rows: F32, exact: KMeans) -> None:
    alike = rows[np.argsort(exact.labels_, kind="stable")]
    blocks = ArrayBlocks.of(alike, block_rows=256)
    few = 4 * 8 * 256 * 8
    found = MiniBatchKMeans(12, batch_size=512, sample_size=500, window_bytes=few).fit(blocks)
    assert found.inertia_ <= 1.05 * exact.inertia_


def test_fit__same_seed_same_bytes(rows: F32) -> None:
    fits = [
        MiniBatchKMeans(5, batch_size=256, sample_size=300, random_state=seed).fit(rows)
        for seed in (1, 1, 2)
    ]
    assert fits[0].cluster_centers_.tobytes() == fits[1].cluster_centers_.tobytes()
    assert fits[0].labels_.tobytes() == fits[1].labels_.tobytes()
    assert fits[0].n_steps_ == fits[1].n_steps_
    assert fits[0].cluster_centers_.tobytes() != fits[2].cluster_centers_.tobytes()


def test_fit__of_a_dask_array_gives_the_same_bytes(rows: F32) -> None:
    X = np.tile(rows, (4, 1))
    params = {"batch_size": 512, "sample_size": 300, "max_iter": 2}
    wanted = MiniBatchKMeans(4, **params).fit(X)
    found = MiniBatchKMeans(4, **params).fit(da.from_array(X, chunks=(30_000, 8)))
    assert found.cluster_centers_.tobytes() == wanted.cluster_centers_.tobytes()
    assert found.inertia_ == pytest.approx(wanted.inertia_, rel=1e-12)


def test_run_batches__a_center_is_the_mean_of_the_rows_it_was_given() -> None:
    X = np.array([[0.0], [2.0], [10.0], [14.0]], np.float32)
    plan = BatchPlan(4, max_iter=1, max_no_improvement=9, window_bytes=1 << 20, seed=0)
    start = np.array([[-1.0], [20.0], [500.0]])
    centers, n_iter, n_steps = run_batches(ArrayBlocks.of(X), start, plan)
    # A cluster without rows stays where it was.
    np.testing.assert_allclose(centers, [[1.0], [12.0], [500.0]])
    assert (n_iter, n_steps) == (1, 1)


def test_run_batches__sees_every_row_once_in_a_pass() -> None:
    X = np.arange(1000, dtype=np.float32)[:, None]
    plan = BatchPlan(64, max_iter=1, max_no_improvement=99, window_bytes=4 * 100 * 3, seed=0)
    centers, _, n_steps = run_batches(ArrayBlocks.of(X, block_rows=100), np.zeros((1, 1)), plan)
    # Three blocks at a time: 300 rows are five batches, the last window of 100 rows two.
    assert n_steps == 3 * 5 + 2
    np.testing.assert_allclose(centers, [[499.5]])


def test_run_batches__refuses_rows_outside_the_sample_that_are_not_finite(rows: F32) -> None:
    X = rows[:3000].copy()
    X[1234, 5] = np.nan
    with pytest.raises(BadInput, match="NaN or infinity"):
        MiniBatchKMeans(3, sample_size=3, batch_size=500).fit(ArrayBlocks.of(X, 500))
