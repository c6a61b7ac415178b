"""What estimators refuse, and in which words."""

from __future__ import annotations

import re
from typing import Any

import dask.array as da
import numpy as np
import pytest

from tests.strategies import F32
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import (
    PCA,
    GaussianMixture,
    GaussianMixtureSweep,
    KMeans,
    KMeansSweep,
    MiniBatchKMeans,
)
from vehclust_dask.records import ArrayBlocks

ROWS = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
EVERY: list[Any] = [
    PCA(),
    PCA(solver="qr"),
    KMeans(2),
    KMeansSweep([2, 3]),
    MiniBatchKMeans(2),
    GaussianMixture(2),
    GaussianMixtureSweep([2, 3]),
]


def broken(value: float) -> F32:
    X = ROWS.copy()
    X[17, 3] = value
    return X


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("wrap", [np.asarray, da.from_array, ArrayBlocks.of])
def test_fit__refuses_what_is_not_finite(estimator: Any, value: float, wrap: Any) -> None:
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        estimator.fit(wrap(broken(value)))


@pytest.mark.parametrize("estimator", [KMeans(2), KMeansSweep([2, 3])], ids=repr)
def test_kmeans__says_which_row_is_not_finite(estimator: Any) -> None:
    with pytest.raises(BadInput, match=r"row 17 .*NaN or infinity"):
        estimator.fit(ArrayBlocks.of(broken(np.nan), block_rows=4))


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_fit__refuses_values_beyond_float32(estimator: Any) -> None:
    X = ROWS.astype(np.float64)
    X[3, 3] = 1e39
    with pytest.raises(BadInput, match=r"1e\+39: it does not fit into float32"):
        estimator.fit(X)


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_fit__refuses_no_rows(estimator: Any) -> None:
    for X in (ROWS[:0], da.from_array(ROWS)[:0], ArrayBlocks.of(ROWS[:0])):
        with pytest.raises(ValueError, match=r"0 sample|0 rows"):
            estimator.fit(X)


@pytest.mark.parametrize("estimator", [PCA(2), KMeans(2), MiniBatchKMeans(2)], ids=repr)
def test_transform__refuses_another_width(estimator: Any) -> None:
    estimator.fit(ROWS)
    for X in (ROWS[:, :4], da.from_array(ROWS[:, :4]), ArrayBlocks.of(ROWS[:, :4])):
        with pytest.raises(ValueError, match=r"X has 4 features, but .* is expecting 5 features"):
            estimator.transform(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_clusters": 0}, "n_clusters=0: give a whole number of at least 1"),
        ({"n_clusters": 2.5}, "n_clusters=2.5: give a whole number of at least 1"),
        ({"n_clusters": "3"}, "n_clusters='3': give a whole number of at least 1"),
        ({"n_clusters": [3]}, "n_clusters=[3]: give a whole number of at least 1"),
        ({"n_clusters": None}, "n_clusters=None: give a whole number of at least 1"),
        ({"n_clusters": 41}, "n_clusters=41 but there are 40 rows"),
        ({"n_init": 0}, "n_init=0: give"),
        ({"n_init": 2.5}, "n_init=2.5: give"),
        ({"max_iter": "7"}, "max_iter='7': give"),
        ({"tol": -0.1}, "tol=-0.1: give"),
        ({"tol": None}, "tol=None: give"),
        ({"tol": float("nan")}, "tol=nan: give"),
        ({"init": "random"}, "init='random': allowed are best-of-sample, k-means||"),
        ({"init": np.zeros((2, 5))}, "init has shape (2, 5): (3, 5) is needed"),
        ({"init": np.full((3, 5), np.nan)}, "init holds NaN"),
    ],
)
def test_kmeans__refuses_parameters_in_one_sentence(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        KMeans(**({"n_clusters": 3} | params)).fit(ROWS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_clusters": 3}, "n_clusters=3: a sweep takes several"),
        ({"n_clusters": "2..5"}, "n_clusters='2..5': a sweep takes several"),
        ({"n_clusters": []}, "n_clusters is empty"),
        ({"n_clusters": [2, "3"]}, "n_clusters='3': give a whole number"),
        ({"n_clusters": [2, 3], "init": ROWS[:2]}, "init holds no centers for n_clusters=3"),
    ],
)
def test_sweep__refuses_parameters_in_one_sentence(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        KMeansSweep(**params).fit(ROWS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
        ({"n_clusters": 41}, "n_clusters=41 but there are 40 rows"),
    ],
)
def test_minibatch__refuses_parameters_in_one_sentence(
    params: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        MiniBatchKMeans(**params).fit(ROWS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "n_components=0: give a whole number of at least 1"),
        ({"n_components": 2.5}, "n_components=2.5: give a whole number"),
        ({"n_components": 41}, "n_components=41 but there are 40 rows"),
        ({"covariance_type": "round"}, "covariance_type='round': allowed are full, tied, diag"),
        ({"precision": "float16"}, "precision='float16': allowed are float64, float32"),
        ({"init": "random"}, "init='random': allowed are best-of-sample, k-means||"),
        ({"tol": -1}, "tol=-1: give a number of at least 0"),
        ({"reg_covar": None}, "reg_covar=None: give a number of at least 0"),
        ({"n_init": 0}, "n_init=0: give"),
        ({"max_iter": 0}, "max_iter=0: give"),
        ({"means_init": np.zeros((2, 5))}, "means_init has shape (2, 5): (3, 5) is needed"),
        ({"means_init": np.full((3, 5), np.nan)}, "means_init holds NaN"),
        ({"weights_init": [0.5, 0.6, 0.1]}, "weights_init sums to 1.2"),
        ({"weights_init": [-0.5, 0.5, 1.0]}, "its smallest is -0.5: give shares of at least 0"),
        ({"precisions_init": np.eye(5)}, "precisions_init has shape (5, 5): (3, 5, 5) is needed"),
        (
            {"covariance_type": "tied", "precisions_init": np.triu(np.ones((5, 5)))},
            "precisions_init is not symmetric",
        ),
        (
            {"covariance_type": "tied", "precisions_init": -np.eye(5)},
            "precisions_init is not positive definite",
        ),
        (
            {"covariance_type": "spherical", "precisions_init": np.zeros(3)},
            "precisions_init is not positive definite",
        ),
    ],
)
def test_mixture__refuses_parameters_in_one_sentence(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        GaussianMixture(**({"n_components": 3} | params)).fit(ROWS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (3, "n_components=3: a sweep takes several"),
        ("2..5", "n_components='2..5': a sweep takes several"),
        ([], "n_components is empty"),
        ([2, "3"], "n_components='3': give a whole number"),
    ],
)
def test_mixture_sweep__refuses_parameters_in_one_sentence(asked: Any, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        GaussianMixtureSweep(asked).fit(ROWS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 6}, "n_components=6 but the descriptor has 5 features; lower it to 5"),
        ({"n_components": 0}, "n_components=0: give a count of at least 1"),
        ({"n_components": 1.5}, "n_components=1.5: give a count of at least 1, a share"),
        ({"n_components": True}, "n_components=True: give a count"),
        ({"n_components": "all"}, "n_components='all': give a count"),
        ({"max_components": 0}, "max_components=0: give a count of at least 1, or None"),
        ({"scale": "robust"}, "scale='robust': allowed are none, standard, minmax, l2"),
        ({"solver": "full"}, "solver='full': allowed are gram, qr"),
    ],
)
def test_pca__refuses_parameters_in_one_sentence(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        PCA(**params).fit(ROWS)


def test_pca__refuses_more_components_than_rows() -> None:
    with pytest.raises(BadInput, match="n_components=5 but the descriptor has 3 rows"):
        PCA(5).fit(ROWS[:3])
    assert PCA(5, max_components=9).fit(ROWS[:3]).n_components_ == 3
