"""Local outlier factors by hand and against the definition; groups of near copies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tests.kernels.test_neighbours import all_pairs, nearest_of
from tests.strategies import F32, F64, float_rows, rows_and_centers
from vehclust_dask.kernels.copies import Copies, hash_rows
from vehclust_dask.kernels.outliers import local_outlier_factor, near_groups


def by_definition(D: F64, order: F64, k: int) -> F64:
    """Return the factors of Breunig et al., written as the paper does."""
    near = order[:, :k].astype(int)
    k_distance = D[np.arange(len(D)), near[:, -1]]
    density = np.array(
        [
            1 / (np.mean([max(D[p, o], k_distance[o]) for o in near[p]]) + 1e-10)
            for p in range(len(D))
        ]
    )
    return np.array([density[near[p]].mean() / density[p] for p in range(len(D))])


@given(float_rows(min_rows=3, max_rows=40), st.booleans(), st.data())
def test_lof__is_that_of_the_paper(X: F32, unit: bool, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, len(X) - 1))
    k = data.draw(st.integers(1, m))
    D = all_pairs(X)
    order, sq = nearest_of(D, m)
    found = local_outlier_factor(order.astype(np.int32), sq, k, unit=unit)
    distance = D / 2 if unit else np.sqrt(D)
    np.testing.assert_allclose(found, by_definition(distance, order, k), rtol=1e-9)


def test_lof__by_hand() -> None:
    # On a line at 0, 1, 2 and 10 with one neighbour each, the lower one of two equally near.
    rows = np.array([[1], [0], [1], [2]], np.int32)
    sq = np.array([[1.0], [1.0], [1.0], [64.0]])
    np.testing.assert_allclose(local_outlier_factor(rows, sq, 1), [1, 1, 1, 8], rtol=1e-8)


def test_lof__longer_lists_change_nothing() -> None:
    X = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    order, sq = nearest_of(all_pairs(X), 30)
    whole = local_outlier_factor(order.astype(np.int32), sq, 7)
    short = local_outlier_factor(order[:, :7].astype(np.int32), np.ascontiguousarray(sq[:, :7]), 7)
    np.testing.assert_array_equal(whole, short)


@given(rows_and_centers(max_rows=40), st.data())
def test_groups__are_the_connected_components(drawn: object, data: st.DataObject) -> None:
    X: F32 = drawn.X  # type: ignore[attr-defined]
    copies = Copies.find(hash_rows(X))
    first, n = copies.first, len(X)
    D = all_pairs(X[first])
    order, sq = nearest_of(D, max(0, len(first) - 1))
    finite = D[np.isfinite(D)]
    limit = float(data.draw(st.sampled_from(sorted({0.0, *finite.tolist()}))))
    found = near_groups(*copies, first[order].astype(np.int32), sq, limit)
    near = np.argwhere(all_pairs(X) <= limit)
    graph = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    for i in range(n):
        (members,) = np.nonzero(part == part[i])
        assert found[i] == (-1 if len(members) == 1 else members[0])


def test_groups__copies_are_groups_at_distance_zero() -> None:
    X = np.array([[3.0], [1.0], [3.0], [2.0], [1.0], [3.0]], np.float32)
    copies = Copies.find(hash_rows(X))
    order, sq = nearest_of(all_pairs(X[copies.first]), 2)
    lists = copies.first[order].astype(np.int32), sq
    assert near_groups(*copies, *lists, 0.0).tolist() == [0, 1, 0, -1, 1, 0]
    assert near_groups(*copies, *lists, 1.0).tolist() == [0] * 6
