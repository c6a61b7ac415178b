"""Statistics of columns against numpy in float64."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import F32, cuts, float_rows
from vehclust_dask.kernels.columns import ColumnPass, ColumnStats, column_stats, merge_columns
from vehclust_dask.records import Span


@st.composite
def rows_with_holes(draw: st.DrawFn) -> F32:
    """Draw rows of which some hold NaN or infinity, sometimes all of them, and zeros."""
    X = draw(float_rows())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X[rng.random(X.shape) < 0.1] = 0.0
    bad = rng.random(len(X)) < draw(st.sampled_from([0.0, 0.1, 1.0]))
    columns = rng.integers(0, X.shape[1], len(X))
    X[bad, columns[bad]] = rng.choice([np.nan, np.inf, -np.inf], int(bad.sum()))
    return X


def gathered(X: F32, ends: list[int], row0: int) -> ColumnStats:
    pieces = [column_stats(X[a:b], row0 + a) for a, b in itertools.pairwise(ends)]
    return reduce(merge_columns, pieces)


@given(rows_with_holes(), st.integers(0, 10**10), st.data())
def test_merge_columns__pieces_equal_numpy_on_the_finite_rows(
    X: F32, row0: int, data: st.DataObject
) -> None:
    found = gathered(X, data.draw(cuts(len(X))), row0)
    finite = np.isfinite(X).all(axis=1)
    assert found.n == finite.sum()
    assert found.bad_rows.tolist() == (row0 + np.flatnonzero(~finite)).tolist()
    if not finite.any():
        return
    good = X[finite].astype(np.float64)
    np.testing.assert_array_equal(found.minimum, good.min(axis=0))
    np.testing.assert_array_equal(found.maximum, good.max(axis=0))
    np.testing.assert_array_equal(found.zeros, (good == 0).sum(axis=0))
    size = np.abs(good).max()
    np.testing.assert_allclose(found.mean, good.mean(axis=0), rtol=1e-12, atol=1e-13 * size)
    np.testing.assert_allclose(found.std, good.std(axis=0), rtol=1e-10, atol=1e-12 * size)
    np.testing.assert_array_equal(found.constant, np.ptp(good, axis=0) == 0)
    assert found.largest == size


def test_column_stats__far_from_the_origin_keeps_the_spread() -> None:
    X = (2.0**20 + np.random.default_rng(0).integers(-8, 9, (5000, 3)) / 8).astype(np.float32)
    found = gathered(X, [0, 17, 2000, 5000], 0)
    np.testing.assert_allclose(found.std, X.astype(np.float64).std(axis=0), rtol=1e-9)


def test_column_stats__largest_value_of_float32_is_finite() -> None:
    top = np.finfo(np.float32).max
    X = np.array([[top, -top], [-top, top]], np.float32)
    found = column_stats(X)
    assert found.bad_rows.size == 0
    assert found.largest == top
    assert found.mean.tolist() == [0.0, 0.0]


def test_column_pass__numbers_rows_by_the_span() -> None:
    X = np.zeros((3, 2), np.float32)
    X[1, 0] = np.nan
    one = ColumnPass()
    first = one.fold(None, X, Span(0, 0, 0, 3, 0))
    both = one.fold(first, X, Span(1, 0, 3, 6, 3))
    apart = one.merge(first, one.fold(None, X, Span(1, 0, 3, 6, 3)))
    assert both.bad_rows.tolist() == apart.bad_rows.tolist() == [1, 4]
    assert both.zeros.tolist() == apart.zeros.tolist() == [4, 4]
