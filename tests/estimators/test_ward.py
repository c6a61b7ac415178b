"""The Ward estimator against scipy and fastcluster."""

from __future__ import annotations

import copy
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from tests.strategies import F32
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import Ward
from vehclust_dask.estimators.neighbours import Known, distinct_lists
from vehclust_dask.estimators.ward import grow_tree, start_ward, whole_linkage
from vehclust_dask.kernels.ward import WardState
from vehclust_dask.records import ArrayBlocks


def clustered(n: int, d: int, seed: int = 0, far: float = 0.0) -> F32:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((8, d)) * 3 + far
    rows: F32 = (middles[rng.integers(0, 8, n)] + rng.standard_normal((n, d))).astype(np.float32)
    return rows


@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize("n_neighbors", [3, 32])
def test_fit__the_tree_is_scipys(far: float, n_neighbors: int) -> None:
    X = clustered(900, 16, far=far)
    model = Ward(5, n_neighbors=n_neighbors).fit(ArrayBlocks.of(X, 200))
    wanted = linkage(X.astype(np.float64), "ward")
    np.testing.assert_allclose(model.linkage_[:, 2], wanted[:, 2], rtol=1e-12)
    np.testing.assert_array_equal(model.linkage_[:, [0, 1, 3]], wanted[:, [0, 1, 3]])
    theirs = fcluster(wanted, 5, "maxclust")
    np.testing.assert_array_equal(
        model.labels_[:, None] == model.labels_, theirs[:, None] == theirs
    )
    height = float(model.linkage_[-20, 2])
    by_height = model.cut(height=height)
    theirs = fcluster(model.linkage_, height, "distance")
    np.testing.assert_array_equal(by_height[:, None] == by_height, theirs[:, None] == theirs)


def test_fit__the_tree_is_fastclusters() -> None:
    fastcluster = pytest.importorskip("fastcluster")
    X = clustered(3000, 24)
    wanted = fastcluster.linkage_vector(X.astype(np.float64), "ward")
    Z = Ward().fit(X).linkage_
    np.testing.assert_allclose(Z[:, 2], wanted[:, 2], rtol=1e-12)
    np.testing.assert_array_equal(Z[:, 3], wanted[:, 3])


def test_fit__equal_rows_merge_first() -> None:
    rng = np.random.default_rng(0)
    X = clustered(200, 6)[rng.integers(0, 200, 700)]
    Z = Ward().fit(ArrayBlocks.of(X, 90)).linkage_
    wanted = linkage(X.astype(np.float64), "ward")
    distinct = len(np.unique(X, axis=0))
    assert not Z[: 700 - distinct, 2].any()
    np.testing.assert_allclose(Z[-distinct + 1 :, 2], wanted[-distinct + 1 :, 2], rtol=1e-12)
    np.testing.assert_array_equal(Z[-distinct + 1 :, 3], wanted[-distinct + 1 :, 3])
    same = Ward(1).fit(np.ones((4, 2)))
    np.testing.assert_array_equal(same.linkage_, [[0, 1, 0, 2], [2, 4, 0, 3], [3, 5, 0, 4]])


def test_fit__weights_stand_for_equal_rows() -> None:
    X = clustered(300, 5)
    weights = np.random.default_rng(1).integers(1, 5, 300)
    model = Ward(4).fit(X, sample_weight=weights)
    repeated = linkage(X.repeat(weights, axis=0).astype(np.float64), "ward")
    np.testing.assert_allclose(model.linkage_[:, 2], repeated[-299:, 2], rtol=1e-12)
    sums = [np.average(X[model.labels_ == c], 0, weights[model.labels_ == c]) for c in range(4)]
    np.testing.assert_allclose(model.centers(4), sums, rtol=1e-6)


def test_fit__of_a_dask_array_and_another_order_of_rows() -> None:
    X = clustered(400, 7)
    Z = Ward().fit(X).linkage_
    lazy = Ward().fit(da.from_array(X, chunks=(90, 7))).linkage_
    assert lazy.tobytes() == Z.tobytes()
    order = np.random.default_rng(2).permutation(400)
    turned = Ward().fit(X[order])
    np.testing.assert_allclose(turned.linkage_[:, 2], Z[:, 2], rtol=1e-12)


def test_grow_tree__goes_on_from_any_state_it_has_told() -> None:
    X = clustered(500, 9)
    blocks = ArrayBlocks.of(X, 128)
    known = Known.of(blocks, "euclidean")
    lists = distinct_lists(blocks, known, 6, name="n")
    told: list[WardState] = []
    state = start_ward(blocks, known, lists)
    grow_tree(state, lambda now: told.append(copy.deepcopy(now)))
    whole = whole_linkage(state, known.copies)
    assert [s.n_clusters for s in told] == sorted((s.n_clusters for s in told), reverse=True)
    assert len(told) > 3
    for kept in told[:: len(told) // 3]:
        grow_tree(kept)
        assert whole_linkage(kept, known.copies).tobytes() == whole.tobytes()


def test_centers__are_the_means_of_the_cut() -> None:
    X = clustered(300, 5)
    model = Ward(3).fit(ArrayBlocks.of(X, 64))
    for k in (1, 3, 20):
        labels = model.cut(n_clusters=k)
        means = [X[labels == c].mean(axis=0, dtype=np.float64) for c in range(k)]
        np.testing.assert_allclose(model.centers(k), means, rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "X", "message"),
    [
        (Ward(6), np.eye(5), r"n_clusters=6 but there are 5 rows"),
        (Ward(0), np.eye(5), "n_clusters=0"),
        (Ward(n_neighbors=0), np.eye(5), "n_neighbors=0"),
        (Ward(1), np.ones((1, 2)), "at least 2"),
    ],
)
def test_fit__refuses_in_words(model: Ward, X: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        model.fit(X)


def test_cut_and_weights__refuse_in_words() -> None:
    model = Ward().fit(np.eye(5))
    with pytest.raises(BadInput, match="give one of them"):
        model.cut()
    with pytest.raises(BadInput, match="height=-1"):
        model.cut(height=-1)
    with pytest.raises(BadInput, match="n_clusters=6"):
        model.cut(n_clusters=6)
    with pytest.raises(BadInput, match="one per row"):
        Ward().fit(np.eye(5), sample_weight=[1, 2])
    with pytest.raises(BadInput, match="weight that is zero"):
        Ward().fit(np.eye(3), sample_weight=[1, 2, 0])
