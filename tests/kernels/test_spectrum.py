"""Leading eigenpairs against all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask.kernels.spectrum import leading_eigenpairs


def symmetric(n: int, rank: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rank, n)) * np.geomspace(1, 1e-3, n)
    return X.T @ X


@given(st.integers(1, 24), st.integers(1, 30), st.integers(0, 1000), st.data())
def test_leading_eigenpairs__are_those_of_numpy(
    n: int, rank: int, seed: int, data: st.DataObject
) -> None:
    A = symmetric(n, rank, seed)
    count = data.draw(st.integers(1, n))
    values, vectors = leading_eigenpairs(A.copy(), count)
    size = np.linalg.eigvalsh(A)[-1]
    np.testing.assert_allclose(values, np.linalg.eigvalsh(A)[::-1], atol=1e-13 * size)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(count), atol=1e-12)
    np.testing.assert_allclose(A @ vectors.T, vectors.T * values[:count], atol=1e-12 * size)


@pytest.mark.parametrize("count", [1, 40, 149, 150, 300])
def test_leading_eigenpairs__with_constant_columns(count: int) -> None:
    A = symmetric(300, 900, 1)
    A[[3, 77]] = 0
    A[:, [3, 77]] = 0
    values, vectors = leading_eigenpairs(A.copy(), count)
    assert values.shape == (300,)
    assert vectors.shape == (count, 300)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(count), atol=1e-12)
    np.testing.assert_allclose(A @ vectors.T, vectors.T * values[:count], atol=1e-12 * values[0])
