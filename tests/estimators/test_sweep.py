"""A sweep against its members alone, and a sweep that was interrupted."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from tests.strategies import F32
from vehclust_dask.estimators import KMeans, KMeansSweep
from vehclust_dask.estimators.lloyd import LloydState
from vehclust_dask.estimators.starts import Course, improved
from vehclust_dask.records import ArrayBlocks


class StoppedError(Exception):
    """What a person does to a job."""


@pytest.fixture
def rows() -> F32:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((9, 5)) * 3
    values: F32 = (middles[rng.integers(0, 9, 1500)] + rng.standard_normal((1500, 5))).astype(
        np.float32
    )
    return values


@pytest.mark.parametrize("init", ["best-of-sample", "k-means||", "given"])
def test_sweep__models_are_those_of_kmeans_alone(rows: F32, init: Any) -> None:
    ks = [1, 2, 3, 5, 9]
    params: dict[str, Any] = {"n_init": 3, "sample_size": 500, "tol": 1e-4, "random_state": 3}
    params["init"] = {k: rows[:k].astype(np.float64) for k in ks} if init == "given" else init
    blocks = ArrayBlocks.of(rows, block_rows=256)
    sweep = KMeansSweep(ks, **params).fit(blocks)
    assert list(sweep.models_) == ks
    for k in ks:
        alone = KMeans(k, **params).fit(blocks)
        model = sweep.models_[k]
        assert model.cluster_centers_.tobytes() == alone.cluster_centers_.tobytes()
        assert model.labels_.tobytes() == alone.labels_.tobytes()
        assert model.n_iter_ == alone.n_iter_
        assert model.converged_ == alone.converged_
        assert model.inertia_ == pytest.approx(alone.inertia_, rel=1e-12)
        assert model.get_params()["n_clusters"] == k
        np.testing.assert_array_equal(model.predict(rows), model.labels_)


def test_sweep__takes_numbers_in_any_order_and_once(rows: F32) -> None:
    sweep = KMeansSweep([5, 2, np.int64(5), 3], sample_size=200).fit(rows)
    assert list(sweep.models_) == [2, 3, 5]
    assert all(type(k) is int for k in sweep.models_)


def test_sweep__keeps_bounds_when_some_members_stop(rows: F32) -> None:
    # The member that starts at rest stops first; the others must go on as if it had not been there.
    rest = KMeans(3, tol=0).fit(rows).cluster_centers_
    start = {2: rows[:2].astype(np.float64), 3: rest, 9: rows[:9].astype(np.float64)}
    sweep = KMeansSweep([2, 3, 9], init=start, tol=0).fit(ArrayBlocks.of(rows, block_rows=128))
    assert sweep.models_[3].n_iter_ <= 2 < sweep.models_[9].n_iter_
    for k, centers in start.items():
        alone = KMeans(k, init=centers, tol=0).fit(rows)
        assert sweep.models_[k].cluster_centers_.tobytes() == alone.cluster_centers_.tobytes()


@pytest.mark.parametrize("passes", [0, 1, 3, 6])
def test_fit_centers__interrupted_and_resumed_gives_the_same_bytes(rows: F32, passes: int) -> None:
    sweep = KMeansSweep([2, 4, 9], n_init=1, sample_size=40, tol=0, max_iter=25)
    blocks = ArrayBlocks.of(rows, block_rows=256)
    whole = sweep.fit_centers(blocks)
    written: list[bytes] = []

    def write_and_stop(state: LloydState) -> None:
        written.append(pickle.dumps(state))
        if len(written) == passes + 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        sweep.fit_centers(blocks, on_state=write_and_stop)
    state = pickle.loads(written[-1])
    assert max(state.n_iter) == passes
    seen: list[int] = []
    resumed = sweep.fit_centers(blocks, state=state, on_state=lambda s: seen.append(max(s.n_iter)))
    assert seen == list(range(passes + 1, max(whole.n_iter) + 1))
    assert resumed.n_iter == whole.n_iter
    assert resumed.converged == whole.converged
    for a, b in zip(resumed.centers, whole.centers, strict=True):
        assert a.tobytes() == b.tobytes()


def test_fit_centers__of_a_finished_state_does_nothing(rows: F32) -> None:
    sweep = KMeansSweep([2, 3], sample_size=100)
    whole = sweep.fit_centers(rows)
    again = sweep.fit_centers(rows, state=copy.deepcopy(whole))
    assert again.n_iter == whole.n_iter
    for a, b in zip(again.centers, whole.centers, strict=True):
        assert a.tobytes() == b.tobytes()


def test_fit_centers__says_which_members_stopped_at_the_limit(rows: F32) -> None:
    start = {1: rows[:1].astype(np.float64), 9: rows[:9].astype(np.float64)}
    state = KMeansSweep([1, 9], init=start, tol=0, max_iter=3).fit_centers(rows)
    assert state.converged == [True, False]
    assert state.n_iter == [2, 3]
    assert state.done == [True, True]


def test_quick__settles_on_a_sample_and_moves_over_all_rows(
    rows: F32, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vehclust_dask.estimators.starts.LARGE_ROWS", 600)
    blocks = ArrayBlocks.of(rows, block_rows=256)
    params: dict[str, Any] = {"n_init": 4, "sample_size": 200, "random_state": 1}
    quick = KMeansSweep([2, 5, 9], quick=True, **params).fit(blocks)
    whole = KMeansSweep([2, 5, 9], **params).fit(blocks)
    for k, model in quick.models_.items():
        assert model.n_iter_ <= 2
        assert model.labels_.shape == (len(rows),)
        C, mine = model.cluster_centers_.astype(np.float64), model.labels_
        assert model.inertia_ == pytest.approx(np.square(rows - C[mine]).sum(), rel=1e-9)
        assert model.inertia_ < 1.02 * whole.models_[k].inertia_
    # Without the passes over all rows the centers would be those of the sample alone.
    monkeypatch.setattr("vehclust_dask.estimators.kmeans.QUICK_PASSES", 1)
    once = KMeansSweep([9], quick=True, **params).fit(blocks)
    assert quick.models_[9].inertia_ < once.models_[9].inertia_


def test_improved__takes_a_center_from_where_two_share_a_cluster() -> None:
    rng = np.random.default_rng(5)
    middles = 10 * np.array([[0, 0], [1, 0], [0, 1], [3, 3]])
    rows = (np.repeat(middles, 200, axis=0) + rng.standard_normal((800, 2))).astype(np.float32)
    # Two centers in the last cluster and one between two others: Lloyd's iteration rests there.
    stuck = np.array([[0.0, 0], [6, 6], [29, 30], [31, 30]])
    resting = KMeans(4, init=stuck).fit(rows)
    best = improved(Course.of(rows, 1e-4), resting.cluster_centers_)
    inertia = KMeans(4, init=best).fit(rows).inertia_
    assert inertia < 0.2 * resting.inertia_
    assert KMeans(4, init=middles.astype(float)).fit(rows).inertia_ == pytest.approx(inertia)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 20])
def test_improved__never_makes_it_worse(k: int) -> None:
    rows = np.random.default_rng(k).standard_normal((60, 3)).astype(np.float32)
    rows[30:] = rows[:30]
    before = KMeans(k, init=rows[:k]).fit(rows)
    after = KMeans(
        k, init=improved(Course.of(rows, 1e-4), before.cluster_centers_), max_iter=1
    ).fit(rows)
    assert after.inertia_ <= before.inertia_ * (1 + 1e-12)


def test_quick__with_given_centers_is_refused(rows: F32) -> None:
    with pytest.raises(ValueError, match="quick=True starts from a sample"):
        KMeansSweep([2], init=rows[:2], quick=True).fit(rows)
