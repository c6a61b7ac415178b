"""Moments of pieces against moments of the whole, and against numpy in float64."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler, normalize

from tests.strategies import F32, F64, cuts, float_rows
from vehclust_dask.kernels.moments import (
    Moments,
    MomentsPass,
    column_factors,
    merge_moments,
    moments_of,
    triangle_of,
    unit_rows,
)

SUBNORMAL = 5.3e-40


def gathered(X: F32, ends: list[int], triangular: bool) -> Moments:
    one = triangle_of if triangular else moments_of
    return reduce(merge_moments, [one(X[a:b]) for a, b in itertools.pairwise(ends)])


def scatter_of(moments: Moments) -> F64:
    return moments.scatter.T @ moments.scatter if moments.triangular else moments.scatter


@pytest.mark.parametrize("triangular", [False, True])
@given(data=st.data(), X=float_rows())
def test_merge_moments__pieces_equal_the_whole(
    triangular: bool, data: st.DataObject, X: F32
) -> None:
    merged = gathered(X, data.draw(cuts(len(X))), triangular)
    exact = X.astype(np.float64)
    centered = exact - exact.mean(axis=0)
    size = float(np.square(centered).sum()) + 1e-30
    assert merged.n == len(X)
    np.testing.assert_allclose(merged.mean, exact.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(merged.minimum, X.min(axis=0))
    np.testing.assert_array_equal(merged.maximum, X.max(axis=0))
    bound = (1e-13 if triangular else 1e-6) * size
    np.testing.assert_allclose(scatter_of(merged), centered.T @ centered, rtol=0, atol=bound)


@pytest.mark.parametrize("triangular", [False, True])
def test_merge_moments__is_associative(triangular: bool) -> None:
    X = np.random.default_rng(0).standard_normal((90, 6)).astype(np.float32) + 3
    one = triangle_of if triangular else moments_of
    a, b, c = one(X[:20]), one(X[20:30]), one(X[30:])
    left = merge_moments(merge_moments(a, b), c)
    right = merge_moments(a, merge_moments(b, c))
    np.testing.assert_allclose(scatter_of(left), scatter_of(right), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-14)


@pytest.mark.parametrize("triangular", [False, True])
def test_moments_pass__folds_like_a_merge(triangular: bool) -> None:
    X = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
    one = MomentsPass(triangular)
    folded = one.fold(one.fold(None, X[:40], None), X[40:], None)
    merged = one.merge(one.fold(None, X[:40], None), one.fold(None, X[40:], None))
    np.testing.assert_array_equal(folded.scatter, merged.scatter)
    np.testing.assert_allclose(merged.variance(), X.var(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("triangular", [False, True])
def test_variance__of_a_constant_column_is_zero(triangular: bool) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((500, 4)).astype(np.float32)
    X[:, 1], X[:, 2], X[:, 3] = 0.1, SUBNORMAL, 0.0
    merged = gathered(X, [0, 123, 124, 400, 500], triangular)
    assert merged.variance()[1:].tolist() == [0.0, 0.0, 0.0]
    assert merged.variance()[0] > 0.5
    for scale in ("standard", "minmax"):
        _, factor = column_factors(merged, scale)
        assert factor[1:].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("scale", ["standard", "minmax"])
@pytest.mark.parametrize("triangular", [False, True])
def test_column_factors__of_a_subnormal_column_stay_within_float32(
    triangular: bool, scale: str
) -> None:
    X = np.random.default_rng(1).standard_normal((100, 2)).astype(np.float32)
    X[:, 1] = np.where(X[:, 1] > 0, SUBNORMAL, 0.0)
    _, factor = column_factors(gathered(X, [0, 30, 100], triangular), scale)
    assert np.isfinite(factor.astype(np.float32)).all()
    assert np.isfinite(X * factor.astype(np.float32)).all()


def test_triangle__keeps_small_variances_where_the_gram_form_loses_them() -> None:
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    spread = np.array([1.0, 1e-1, 1e-2, 1e-3, 1e-5, 1e-6])
    X = ((rng.standard_normal((4000, 6)) * spread) @ basis).astype(np.float32)
    exact = X.astype(np.float64)
    wanted = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False) ** 2
    ends = [0, 1000, 1700, 4000]
    by_qr = np.linalg.svd(gathered(X, ends, True).scatter, compute_uv=False) ** 2
    by_gram = np.linalg.eigvalsh(gathered(X, ends, False).scatter)[::-1]
    np.testing.assert_allclose(by_qr, wanted, rtol=1e-8)
    assert abs(by_gram[-1] / wanted[-1] - 1) > 1e-2, "else the slow form would not be needed"


@pytest.mark.parametrize("triangular", [False, True])
def test_moments__far_from_the_origin_keep_the_variance(triangular: bool) -> None:
    rng = np.random.default_rng(3)
    # Whole multiples of float32's spacing there, so that the data itself is exact.
    X = (4096 + rng.integers(-64, 65, (3000, 5)) / 2048).astype(np.float32)
    merged = gathered(X, [0, 1, 800, 3000], triangular)
    wanted = X.astype(np.float64).var(axis=0)
    np.testing.assert_allclose(merged.variance(), wanted, rtol=1e-12 if triangular else 1e-6)


@given(float_rows(min_rows=2))
def test_column_factors__are_scikit_learns(X: F32) -> None:
    moments = triangle_of(X)
    exact = X.astype(np.float64)
    shift, factor = column_factors(moments, "standard")
    np.testing.assert_allclose(
        (exact - shift) * factor, StandardScaler().fit_transform(exact), rtol=1e-7, atol=1e-7
    )
    shift, factor = column_factors(moments, "minmax")
    np.testing.assert_allclose(
        (exact - shift) * factor, MinMaxScaler().fit_transform(exact), rtol=1e-9, atol=1e-9
    )
    for scale in ("none", "l2"):
        shift, factor = column_factors(moments, scale)
        assert not shift.any()
        assert (factor == 1).all()


@given(float_rows())
def test_unit_rows__are_scikit_learns(X: F32) -> None:
    X = np.vstack([X, np.zeros((1, X.shape[1]), np.float32)])
    np.testing.assert_allclose(unit_rows(X), normalize(X.astype(np.float64)), rtol=1e-6, atol=1e-7)
