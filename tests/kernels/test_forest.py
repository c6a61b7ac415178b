"""Spanning trees of mutual reachability against a full matrix of distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import cdist, squareform

from tests.strategies import F32, F64
from vehclust_dask.kernels import forest as room
from vehclust_dask.kernels.condensed import reachability
from vehclust_dask.kernels.crossing import Side, Ways, chain, crossing
from vehclust_dask.kernels.distances import I64
from vehclust_dask.kernels.forest import Edges, Forest, Graph, forest, joined, spanning
from vehclust_dask.kernels.tiles import Frame


def lists_of(X: F32, m: int) -> tuple[Graph, F64]:
    sq = cdist(X.astype(np.float64), X.astype(np.float64), "sqeuclidean")
    far = sq.copy()
    np.fill_diagonal(far, np.inf)
    near = np.argsort(far, axis=1, kind="stable")[:, :m]
    lists = np.take_along_axis(sq, near, axis=1)
    return Graph(near.astype(np.int32), lists, np.ones(len(X), np.int64)), sq


def whole_weights(core: F64, sq: F64) -> F64:
    weights: F64 = np.maximum(np.maximum(core[:, None], core[None]), sq)
    return weights


def full_tree(weights: F64) -> F64:
    weights = weights.copy()
    np.fill_diagonal(weights, 0.0)
    heights: F64 = linkage(squareform(weights, checks=False), "single")[:, 2]
    return heights


def rows(seed: int, n: int, d: int, k: int, apart: float) -> F32:
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((k, d)) * apart
    spread = rng.uniform(0.5, 1.5, (n, 1))
    X: F32 = (middles[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d))).astype(
        np.float32
    )
    return X


def grown(X: F32, graph: Graph, min_samples: int, pieces: int) -> tuple[Edges, Forest]:
    """Grow the tree as an estimator does, from groups of rows."""
    core = graph.cores(min_samples)
    reach = np.maximum(core, graph.bounds())
    known = forest(graph, core, bound=reach)
    if known.n_parts == 1:
        return known.certain.in_order(), known
    order = np.lexsort((core, known.parts))
    densest = order[np.unique(known.parts[order], return_index=True)[1]]
    ends, sq = chain(X[densest], core[densest])
    bridges = Edges.of(densest[ends[:, 0]], densest[ends[:, 1]], sq)
    ways = Ways.of(known.likely.plus(bridges), known.parts)
    place = ways.place[known.parts]
    frame = Frame.of(X.mean(axis=0).astype(np.float64), 2 * float(np.abs(X).max()))
    sides = []
    for some in np.array_split(np.arange(len(X), dtype=np.int32), pieces):
        ready = frame.ready(X[some], some)
        sides.append(Side.of(ready, place[some], core[some], reach[some]))
    found = [bridges]
    for i, a in enumerate(sides):
        for b in sides[i:]:
            so_far = joined(found[1:]).lightest(place) if found[1:] else Edges.none()
            found.append(crossing(a, b, ways.heights, so_far, place, frame.sq_scale))
    return spanning(known, joined(found)), known


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(4, 250),
    d=st.integers(1, 20),
    k=st.integers(1, 12),
    m=st.integers(1, 12),
    apart=st.sampled_from([0.0, 2.0, 8.0]),
    pieces=st.integers(1, 4),
)
def test_spanning__is_the_tree_of_all_pairs(
    seed: int, n: int, d: int, k: int, m: int, apart: float, pieces: int
) -> None:
    X = rows(seed, n, d, k, apart)
    m = min(m, n - 1)
    graph, sq = lists_of(X, m)
    min_samples = 1 + seed % (m + 1)
    tree, _ = grown(X, graph, min_samples, pieces)
    assert len(tree.a) == n - 1
    wanted = full_tree(whole_weights(graph.cores(min_samples), sq))
    np.testing.assert_allclose(tree.sq, wanted, rtol=1e-9)


def test_spanning__where_lists_leave_much_apart() -> None:
    X = rows(1, 1500, 40, 20, 2.0)
    graph, sq = lists_of(X, 8)
    tree, known = grown(X, graph, 5, 3)
    assert known.n_parts == 20
    wanted = full_tree(whole_weights(graph.cores(5), sq))
    np.testing.assert_allclose(tree.sq, wanted, rtol=1e-9)


def test_crossing__ties_go_to_the_lower_rows() -> None:
    # Two columns of points on a lattice: many edges between them weigh the same.
    X = np.array([[x, y] for x in (0, 10) for y in range(20)], np.float32)
    graph, _ = lists_of(X, 2)
    for pieces in (1, 2, 5):
        tree, known = grown(X, graph, 2, pieces)
        assert known.n_parts > 1
        between = [(a, b) for a, b in zip(tree.a, tree.b, strict=True) if a < 20 <= b]
        assert between == [(0, 20)]


def test_forest__is_the_same_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows(3, 400, 6, 5, 3.0)
    graph, _ = lists_of(X, 10)
    core = graph.cores(4)
    once = forest(graph, core, bound=graph.bounds())
    monkeypatch.setattr(room, "EDGES_AT_ONCE", 50)
    often = forest(graph, core, bound=graph.bounds())
    for name in ("certain", "likely"):
        for a, b in zip(
            getattr(once, name).in_order(), getattr(often, name).in_order(), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(once.parts, often.parts)


def test_forest__a_smaller_min_samples_is_in_the_tree_of_a_larger() -> None:
    X = rows(4, 600, 5, 6, 3.0)
    graph, sq = lists_of(X, 12)
    tree, _ = grown(X, graph, 13, 2)
    for min_samples in (1, 2, 5, 12):
        core = graph.cores(min_samples)
        smaller = forest(graph, core, more=tree).certain
        wanted = full_tree(whole_weights(core, sq))
        np.testing.assert_allclose(np.sort(smaller.sq), wanted, rtol=1e-9)


def test_cores__count_equal_rows() -> None:
    near = np.array([[1, 2], [0, 2], [1, 0]], np.int32)
    sq = np.array([[1.0, 9.0], [1.0, 4.0], [4.0, 9.0]])
    graph = Graph(near, sq, np.array([3, 1, 2]))
    wanted = {1: [0, 0, 0], 2: [0, 1, 0], 3: [0, 1, 4], 4: [1, 1, 9], 6: [9, 4, 9]}
    for min_samples, core in wanted.items():
        np.testing.assert_array_equal(graph.cores(min_samples), core)
    assert np.isinf(graph.cores(7)).all()


def test_ways__the_ceiling_is_the_heaviest_edge_on_the_way() -> None:
    rng = np.random.default_rng(0)
    n = 30
    ends: list[tuple[int, int]] = [(int(rng.integers(0, i)), i) for i in range(1, n)]
    a, b = (np.array(side) for side in zip(*ends, strict=True))
    sq = rng.uniform(1, 9, n - 1)
    parts = np.arange(n, dtype=np.int32)
    ways = Ways.of(Edges.of(a, b, sq), parts)
    heaviest = np.full((n, n), np.inf)
    heaviest[a, b] = heaviest[b, a] = sq
    for k in range(n):
        heaviest = np.minimum(heaviest, np.maximum(heaviest[:, k : k + 1], heaviest[k]))
    at: I64 = np.argsort(ways.place)
    for i in range(n):
        for j in range(i + 1, n):
            assert ways.heights[i:j].max() == heaviest[at[i], at[j]]


def test_reachability__valleys_are_the_parts_of_every_cut() -> None:
    X = rows(5, 200, 3, 4, 5.0)
    Z = linkage(X.astype(np.float64), "single")
    order, height = reachability(Z)
    assert sorted(order.tolist()) == list(range(200))
    assert np.isinf(height[0])
    for k in (2, 3, 8):
        cut = Z[-(k - 1), 2]
        assert (height[1:] >= cut).sum() == k - 1
