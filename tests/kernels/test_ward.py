"""Ward's tree against scipy's, its lists and bounds against all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, linkage
from scipy.spatial.distance import cdist

from tests.strategies import F32, F64
from vehclust_dask.kernels.linkage import cut_linkage, linkage_of
from vehclust_dask.kernels.rescan import rescan
from vehclust_dask.kernels.tiles import Frame
from vehclust_dask.kernels.ward import WardState, local_phase


def start(X: F64, m: int, weights: F64 | None = None) -> WardState:
    D = cdist(X, X, "sqeuclidean")
    np.fill_diagonal(D, np.inf)
    near = np.argsort(D, axis=1, kind="stable")[:, :m]
    w = np.ones(len(X)) if weights is None else weights
    return WardState.start(X.copy(), w, near.astype(np.int32), np.take_along_axis(D, near, axis=1))


def grown(state: WardState, *, check: bool = False) -> F64:
    frame = Frame.of(np.zeros(state.centers.shape[1]), float(np.abs(state.centers).max()))
    uncertain = np.zeros(len(state.node), np.bool_)
    while state.n_clusters > 1:
        before = state.n_clusters
        local_phase(state, uncertain)
        if check:
            assert_lists_hold(state)
        if state.n_clusters > 1:
            slots = np.flatnonzero(uncertain)
            assert len(slots) > 0
            rescan(state, slots, frame)
            assert (state.cost[slots].min(axis=1) <= state.bound[slots]).all()
            if check:
                assert_lists_hold(state)
        assert state.n_clusters < before or uncertain.any()
    return linkage_of(state.merged, np.sqrt(state.at))


def assert_lists_hold(state: WardState) -> None:
    """Check that no cluster outside a list costs less than the bound, and what lists say of others."""
    standing = np.flatnonzero(state.node >= 0)
    w = state.weights[standing]
    D = cdist(state.centers[standing], state.centers[standing], "sqeuclidean")
    D *= 2 * w[:, None] * w / (w[:, None] + w)
    np.fill_diagonal(D, np.inf)
    of_slot = {int(s): i for i, s in enumerate(standing)}
    for i, a in enumerate(standing):
        outside = np.ones(len(standing), np.bool_)
        outside[i] = False
        for node, cost in zip(state.near[a][: state.filled[a]], state.cost[a], strict=False):
            old = state.parent[node] >= 0
            while state.parent[node] >= 0:
                node = state.parent[node]
            j = of_slot[int(state.slot[node])]
            outside[j] = False
            assert old or np.isclose(cost, D[i, j], rtol=1e-9)
        assert (D[i][outside] >= state.bound[a] * (1 - 1e-9)).all()


def kinds(n: int, d: int) -> dict[str, F32]:
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((n, d))
    middles = rng.standard_normal((12, d)) * 4
    blobs = middles[rng.integers(0, 12, n)] + plain * rng.uniform(0.1, 1, (n, 1))
    return {
        "structureless": plain.astype(np.float32),
        "clustered": blobs.astype(np.float32),
        "hard": (plain * rng.lognormal(0, 1, (n, 1))).astype(np.float32),
        "far": (blobs + 1e4).astype(np.float32),
        "flat": (plain * 10.0 ** -np.arange(d)).astype(np.float32),
    }


@pytest.mark.parametrize("kind", ["structureless", "clustered", "hard", "far", "flat"])
@pytest.mark.parametrize(("n", "d", "m"), [(2000, 12, 32), (1500, 5, 4), (400, 20, 1)])
def test_tree__is_scipys(kind: str, n: int, d: int, m: int) -> None:
    X = kinds(n, d)[kind].astype(np.float64)
    wanted = linkage(X, "ward")
    Z = grown(start(X - X.mean(axis=0).astype(np.float32), m))
    assert is_valid_linkage(Z)
    np.testing.assert_allclose(Z[:, 2], wanted[:, 2], rtol=1e-12)
    np.testing.assert_array_equal(Z[:, [0, 1, 3]], wanted[:, [0, 1, 3]])


@given(st.integers(0, 2**32 - 1), st.integers(2, 50), st.integers(1, 6), st.integers(1, 9))
def test_tree__of_any_lists_is_scipys(seed: int, n: int, d: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * rng.lognormal(0, rng.choice([0, 1.5]), (n, 1))
    Z = grown(start(X, min(m, n - 1)), check=True)
    np.testing.assert_allclose(Z, linkage(X, "ward"), rtol=1e-10)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 5))
def test_tree__weights_are_equal_rows(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4))
    weights = rng.integers(1, 6, n)
    Z = grown(start(X, min(m, n - 1), weights.astype(np.float64)), check=True)
    repeated = linkage(X.repeat(weights, axis=0), "ward")
    np.testing.assert_allclose(Z[:, 2], repeated[-(n - 1) :, 2], rtol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_tree__of_tied_rows_ends_and_is_valid(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    X = np.unique(rng.integers(0, 4, (n, 3)), axis=0).astype(np.float64)
    if len(X) < 2:
        return
    Z = grown(start(X, min(3, len(X) - 1)), check=True)
    assert is_valid_linkage(Z)
    assert (np.diff(Z[:, 2]) >= 0).all()
    total = np.square(X - X.mean(axis=0)).sum()
    np.testing.assert_allclose(np.square(Z[:, 2]).sum() / 2, total)


def test_rescan__float64_decides_where_float32_cannot() -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((150, 20)) * 1e-6
    X[:, 0] += np.repeat([-5.0, 5.0], 75)
    wanted = linkage(X, "ward")
    np.testing.assert_allclose(grown(start(X, 2), check=True)[:, 2], wanted[:, 2], rtol=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.data())
def test_cut_linkage__is_scipys_partition(seed: int, n: int, data: st.DataObject) -> None:
    X = np.random.default_rng(seed).standard_normal((n, 2))
    Z = linkage(X, "ward")
    k = data.draw(st.integers(1, n))
    labels = cut_linkage(Z, n - k)
    theirs = fcluster(Z, k, "maxclust")
    assert len(np.unique(labels)) == k
    np.testing.assert_array_equal(labels[:, None] == labels, theirs[:, None] == theirs)
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(k)]
    assert first == sorted(first)
