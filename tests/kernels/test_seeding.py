"""Starts by greedy k-means++."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import kmeans_plusplus

from tests.strategies import F32, F64, float_rows
from vehclust_dask.kernels.seeding import seed_plusplus


def rngs(n: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(n)]


def inertia(X: F32, C: F64) -> float:
    return float(np.square(X[:, None] - C[None]).sum(axis=2).min(axis=1).sum())


@given(float_rows(min_rows=8), st.integers(1, 8), st.integers(0, 999))
def test_seed_plusplus__draws_distinct_rows(X: F32, k: int, seed: int) -> None:
    rows = {row.tobytes() for row in X.astype(np.float64)}
    for start in seed_plusplus(X, k, rngs(3, seed)):
        assert start.shape == (k, X.shape[1])
        chosen = {row.tobytes() for row in start}
        assert chosen <= rows
        assert len(chosen) == min(k, len(rows))


def test_seed_plusplus__gives_rows_where_there_are_too_few_distinct_ones() -> None:
    X = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    for start in seed_plusplus(X, 4, rngs(4)):
        assert len(np.unique(start, axis=0)) == 2


def test_seed_plusplus__is_as_good_as_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((30, 6))[rng.integers(0, 30, 1500)] * 5).astype(np.float32)
    X += rng.standard_normal(X.shape).astype(np.float32)
    ours = [inertia(X, start) for start in seed_plusplus(X, 30, rngs(10))]
    theirs = [inertia(X, kmeans_plusplus(X, 30, random_state=i)[0]) for i in range(10)]
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def test_seed_plusplus__same_generators_give_the_same_start() -> None:
    X = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    first, second = seed_plusplus(X, 5, rngs(2)), seed_plusplus(X, 5, rngs(2))
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()
