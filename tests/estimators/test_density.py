"""DBSCAN and HDBSCAN against scikit-learn's and hdbscan's."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from sklearn import cluster as theirs_of
from sklearn.metrics import adjusted_rand_score

from tests.strategies import F32
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import DBSCAN, HDBSCAN, DensityTree
from vehclust_dask.estimators.density import METRICS, SELECTIONS
from vehclust_dask.records import ArrayBlocks


def clustered(n: int, d: int = 12, k: int = 10, *, seed: int = 0, far: float = 0.0) -> F32:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((k, d)) * 4 + far
    spread = rng.uniform(0.5, 1.5, (n, 1))
    X: F32 = (middles[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d))).astype(
        np.float32
    )
    return X


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("far", [0.0, 100.0])
def test_dbscan__is_scikit_learns_over_a_grid(metric: str, far: float) -> None:
    X = clustered(1000, far=far if metric == "euclidean" else 3.0)
    X = np.concatenate([X, X[:40], X[:40], X[:5]])
    tree = DensityTree(20, metric=metric).fit(ArrayBlocks.of(X, 300))
    seen = set()
    for min_samples in (1, 2, 5, 10, 20):
        core = tree.core_distances(max(min_samples, 5))
        for eps in np.quantile(core[core > 0], [0.02, 0.2, 0.5, 0.9]) * (1 + 1e-9):
            theirs = theirs_of.DBSCAN(
                eps=eps, min_samples=min_samples, metric=metric, algorithm="brute"
            )
            theirs.fit(X.astype(np.float64))
            labels = tree.dbscan(float(eps), min_samples)
            np.testing.assert_array_equal(labels, theirs.labels_)
            seen.add(int(labels.max()) + 1)
    assert len(seen) > 6, "the grid has more than one kind of answer"


def test_dbscan__cores_and_components() -> None:
    X = clustered(500, 4)
    ours = DBSCAN(1.0, min_samples=4).fit(X)
    theirs = theirs_of.DBSCAN(eps=1.0, min_samples=4).fit(X)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_array_equal(ours.core_sample_indices_, theirs.core_sample_indices_)
    np.testing.assert_array_equal(ours.components_, theirs.components_)


def test_dbscan__more_samples_than_rows_is_all_noise() -> None:
    model = DBSCAN(1.0, min_samples=9).fit(clustered(8, 3))
    assert (model.labels_ == -1).all()
    assert len(model.core_sample_indices_) == 0


def test_dbscan__all_rows_equal() -> None:
    X = np.ones((9, 3), np.float32)
    assert DBSCAN(0.1, min_samples=9).fit(X).labels_.tolist() == [0] * 9
    assert HDBSCAN(3).fit(X).labels_.tolist() == [-1] * 9


@pytest.mark.parametrize("method", SELECTIONS)
@pytest.mark.parametrize(("size", "samples"), [(5, 5), (15, 10), (30, 31)])
def test_hdbscan__is_hdbscans(method: str, size: int, samples: int) -> None:
    hdbscan = pytest.importorskip("hdbscan")
    X = clustered(1500, seed=size)
    ours = HDBSCAN(size, samples, cluster_selection_method=method).fit(ArrayBlocks.of(X, 400))
    # That package does not count a row among its own samples.
    theirs = hdbscan.HDBSCAN(
        size, min_samples=samples - 1, cluster_selection_method=method, algorithm="generic"
    ).fit(X.astype(np.float64))
    np.testing.assert_allclose(
        ours.single_linkage_[:, 2], theirs.single_linkage_tree_.to_numpy()[:, 2], rtol=1e-12
    )
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1.0
    np.testing.assert_allclose(ours.probabilities_, theirs.probabilities_, atol=1e-9)
    np.testing.assert_allclose(ours.outlier_scores_, theirs.outlier_scores_, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", SELECTIONS)
def test_hdbscan__is_scikit_learns(metric: str, method: str) -> None:
    X = clustered(900, far=3.0)
    ours = HDBSCAN(15, metric=metric, cluster_selection_method=method).fit(X)
    theirs = theirs_of.HDBSCAN(
        15, metric=metric, cluster_selection_method=method, algorithm="brute", copy=True
    ).fit(X.astype(np.float64))
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1.0
    np.testing.assert_allclose(ours.probabilities_, theirs.probabilities_, atol=1e-9)


def test_fit__is_the_same_for_any_blocks_and_order_of_rows() -> None:
    X = np.concatenate([clustered(700), clustered(700)[:60]])
    whole = DensityTree(8).fit(X).linkage(5)
    blocks = DensityTree(8).fit(ArrayBlocks.of(X, 90)).linkage(5)
    np.testing.assert_array_equal(whole, blocks)
    lazy = DensityTree(8).fit(da.from_array(X, chunks=(200, -1))).linkage(5)
    np.testing.assert_array_equal(whole, lazy)
    order = np.random.default_rng(0).permutation(len(X))
    turned = DensityTree(8).fit(X[order])
    np.testing.assert_array_equal(turned.linkage(5)[:, 2], whole[:, 2])


def test_grid__says_what_each_setting_gives() -> None:
    X = clustered(800, k=4)
    tree = DensityTree(10).fit(X)
    grid = tree.grid([3, 10])
    for row in grid.iloc[::7].itertuples():
        labels = tree.dbscan(row.eps, row.min_samples)
        assert row.clusters == labels.max() + 1
        assert row.noise == pytest.approx((labels < 0).mean())
        sizes = np.bincount(labels[labels >= 0])
        assert row.largest == pytest.approx(sizes.max() / len(X) if len(sizes) else 0)
    best = grid[grid["recommended"]]
    assert len(best) >= 1
    labels = tree.dbscan(best["eps"].iloc[0], best["min_samples"].iloc[0])
    assert (np.bincount(labels + 1)[1:] > 80).sum() == 4


def test_grid__one_cloud_has_no_recommended_setting() -> None:
    X = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)
    assert not DensityTree(10).fit(X).grid([3, 10])["recommended"].any()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (DBSCAN(0.0), "eps=0.0: give a distance above 0"),
        (DBSCAN(metric="manhatten"), "metric='manhatten': "),
        (DBSCAN(min_samples=0), "min_samples=0: give a whole number of at least 1"),
        (HDBSCAN(1), "min_cluster_size=1: give at least 2"),
        (HDBSCAN(40), r"min_cluster_size=40 but there are 30 rows \(n_samples=30\); lower it"),
        (HDBSCAN(5, 31), "min_samples=31 but there are 30 rows"),
        (HDBSCAN(5, cluster_selection_method="leef"), "cluster_selection_method='leef': .*leaf"),
        (DensityTree(31), "min_samples=31 but there are 30 rows"),
    ],
)
def test_fit__refuses_in_one_sentence(model: DBSCAN | HDBSCAN | DensityTree, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        model.fit(clustered(30, 3))


def test_dbscan__of_a_tree_that_does_not_hold_it_is_refused() -> None:
    tree = DensityTree(6).fit(clustered(30, 3))
    with pytest.raises(BadInput, match="min_samples=7 but the tree was grown for 6 at most"):
        tree.dbscan(1.0, 7)
    with pytest.raises(BadInput, match="zero in every feature"):
        DBSCAN(metric="cosine").fit(np.zeros((5, 3)) + np.eye(5, 3))
