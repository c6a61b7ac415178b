"""Scores against scikit-learn and against counting."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from tests.strategies import F32, F64, cuts, float_rows
from vehclust_dask.kernels.scores import (
    Spread,
    calinski_harabasz,
    davies_bouldin,
    spread_of,
)


def means_of(X: F32, labels: NDArray[np.int32], k: int) -> F64:
    means = np.full((k, X.shape[1]), 7.5)
    for j in range(k):
        if (labels == j).any():
            means[j] = X[labels == j].mean(axis=0, dtype=np.float64)
    return means


def spread_in_pieces(X: F32, labels: NDArray[np.int32], means: F64, ends: list[int]) -> Spread:
    offsets = np.array([0, len(means)])
    pieces = [
        spread_of(X[a:b], np.ascontiguousarray(labels[a:b, None]), offsets, means)
        for a, b in pairwise(ends)
    ]
    return reduce(Spread.plus, pieces)


@given(float_rows(min_rows=4), st.integers(2, 6), st.data())
def test_scores__equal_scikit_learns(X: F32, k: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    # Some clusters may stay empty: they must not count.
    labels = rng.integers(0, k, len(X)).astype(np.int32)
    used = len(np.unique(labels))
    assume(2 <= used < len(X))
    means = means_of(X, labels, k)
    spread = spread_in_pieces(X, labels, means, data.draw(cuts(len(X))))
    exact = X.astype(np.float64)
    ch = calinski_harabasz(spread.counts, means, spread.sq_distance)
    db = davies_bouldin(spread.counts, means, spread.distance)
    assert ch == pytest.approx(calinski_harabasz_score(exact, labels), rel=1e-6, abs=1e-9)
    assert db == pytest.approx(davies_bouldin_score(exact, labels), rel=1e-6)


def test_scores__leave_noise_out() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3)).astype(np.float32)
    labels = rng.integers(-1, 3, 200).astype(np.int32)
    kept = labels >= 0
    means = means_of(X, labels, 3)
    spread = spread_in_pieces(X, labels, means, [0, 200])
    exact = X[kept].astype(np.float64)
    assert spread.counts.sum() == kept.sum()
    wanted = calinski_harabasz_score(exact, labels[kept]), davies_bouldin_score(exact, labels[kept])
    found = (
        calinski_harabasz(spread.counts, means, spread.sq_distance),
        davies_bouldin(spread.counts, means, spread.distance),
    )
    assert found == pytest.approx(wanted, rel=1e-9)


def test_spread_of__several_clusterings_are_apart() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)).astype(np.float32)
    both = rng.integers(0, [2, 5], (50, 2)).astype(np.int32)
    means = [means_of(X, both[:, 0], 2), means_of(X, both[:, 1], 5)]
    found = spread_of(X, both, np.array([0, 2, 7]), np.concatenate(means))
    for s, (a, b) in enumerate([(0, 2), (2, 7)]):
        alone = spread_in_pieces(X, both[:, s], means[s], [0, 50])
        np.testing.assert_array_equal(found.counts[a:b], alone.counts)
        np.testing.assert_array_equal(found.distance[a:b], alone.distance)
        np.testing.assert_array_equal(found.sq_distance[a:b], alone.sq_distance)


def test_scores__that_have_no_meaning_are_nan() -> None:
    one = np.array([5, 0]), np.zeros((2, 3)), np.ones(2)
    assert np.isnan(calinski_harabasz(*one))
    assert np.isnan(davies_bouldin(*one))
    all_alone = np.ones(4, np.int64), np.eye(4), np.zeros(4)
    assert np.isnan(calinski_harabasz(*all_alone))


def test_scores__of_points_without_spread_are_scikit_learns() -> None:
    X = np.array([[0.0], [0.0], [3.0], [3.0]], np.float32)
    labels = np.array([0, 0, 1, 1], np.int32)
    means = means_of(X, labels, 2)
    spread = spread_in_pieces(X, labels, means, [0, 4])
    assert calinski_harabasz(spread.counts, means, spread.sq_distance) == calinski_harabasz_score(
        X, labels
    )
    assert davies_bouldin(spread.counts, means, spread.distance) == davies_bouldin_score(X, labels)
