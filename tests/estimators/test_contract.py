"""scikit-learn's own checks of an estimator, and what its tools ask of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from vehclust_dask.estimators import (
    DBSCAN,
    HDBSCAN,
    PCA,
    DensityTree,
    GaussianMixture,
    GaussianMixtureSweep,
    KMeans,
    KMeansSweep,
    LocalOutlierFactor,
    MiniBatchKMeans,
    Neighbours,
    Ward,
)


def excused(estimator: Any) -> dict[str, str]:
    """Return the checks an estimator may fail, and why."""
    if isinstance(estimator, Ward):
        return {
            "check_sample_weight_equivalence_on_dense_data": (
                "a row of weight zero has no place in a tree and is refused"
            )
        }
    if not isinstance(estimator, PCA):
        return {}
    return {
        "check_methods_sample_order_invariance": (
            "rows are projected by a float32 product of the whole block, whose last bit depends on "
            "the place of the row in it; the check allows 1e-9"
        )
    }


@parametrize_with_checks(
    [
        PCA(),
        PCA(solver="qr"),
        KMeans(),
        MiniBatchKMeans(),
        GaussianMixture(),
        Neighbours(3),
        LocalOutlierFactor(3),
        Ward(),
        DBSCAN(),
        HDBSCAN(),
        DensityTree(3),
    ],
    expected_failed_checks=excused,
)
def test_contract(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        PCA(3, max_components=5, scale="l2", solver="qr"),
        KMeans(3, init="k-means||", n_init=2, max_iter=7, tol=0.1, sample_size=9, random_state=4),
        KMeansSweep(range(3, 6), init={3: np.eye(3)}, n_init=2, max_iter=7, tol=0.1),
        Neighbours(3, metric="cosine"),
        LocalOutlierFactor(3, metric="cosine", contamination=0.1),
        Ward(3, n_neighbors=5),
        DBSCAN(0.3, min_samples=7, metric="cosine"),
        HDBSCAN(7, 3, metric="cosine", cluster_selection_method="leaf"),
        DensityTree(9, metric="cosine"),
        MiniBatchKMeans(3, batch_size=7, max_iter=2, window_bytes=1 << 20, random_state=None),
        GaussianMixture(3, covariance_type="tied", means_init=np.eye(3), precision="float32"),
        GaussianMixtureSweep(range(3, 6), tol=0.1, reg_covar=0.5, max_iter=7, n_init=2),
    ],
)
def test_clone__keeps_every_parameter(estimator: Any) -> None:
    params = estimator.get_params()
    copied = clone(estimator)
    assert type(copied) is type(estimator)
    assert copied.get_params().keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_equal(copied.get_params()[name], value)
    fresh = type(estimator)().set_params(**params)
    for name, value in params.items():
        assert fresh.get_params()[name] is value
    assert repr(estimator).startswith(type(estimator).__name__)


def test_pipeline__reduces_and_clusters() -> None:
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((5, 8)) * 9)[rng.integers(0, 5, 300)] + rng.standard_normal((300, 8))
    pipeline = make_pipeline(PCA(3, scale="standard"), KMeans(5))
    labels = pipeline.fit_predict(X)
    np.testing.assert_array_equal(pipeline.predict(X), labels)
    assert len(np.unique(labels)) == 5
    names = list(pipeline[:1].get_feature_names_out())
    assert names == ["pca0", "pca1", "pca2"]


def test_feature_names__are_checked() -> None:
    import pandas as pd

    X = pd.DataFrame(np.random.default_rng(0).standard_normal((30, 3)), columns=["a", "b", "c"])
    model = KMeans(2).fit(X)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename(columns={"a": "z"}))
