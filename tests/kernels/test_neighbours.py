"""Nearest rows against float64 distances of all pairs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.strategies import F32, F64, cuts, float_rows, rows_and_centers
from vehclust_dask.kernels.copies import Copies, hash_rows, spread
from vehclust_dask.kernels.distances import sq_distance, sq_norms
from vehclust_dask.kernels.neighbours import (
    Candidates,
    between,
    insert,
    merge,
    search,
    sort_entries,
    within,
)
from vehclust_dask.kernels.tiles import (
    SLACK,
    TILE_SIDE,
    Frame,
    Shortlists,
    TileRows,
    kth_smallest,
    limit_above,
    scan,
    shorten,
    unit_rows,
)

I32 = NDArray[np.int32]


def all_pairs(X: NDArray[Any]) -> F64:
    """Return the squared distances of all rows, summed in the kernel's order; infinity to itself."""
    D = np.array([[sq_distance(x, y) for y in X] for x in X]).reshape(len(X), len(X))
    np.fill_diagonal(D, np.inf)
    return D


def nearest_of(D: F64, m: int) -> tuple[NDArray[np.int64], F64]:
    order = np.argsort(D, axis=1, kind="stable")[:, :m]
    return order, np.take_along_axis(D, order, axis=1)


def frame_of(X: F32, unit: bool = False) -> Frame:
    rows = unit_rows(X) if unit else X
    mean = rows.mean(axis=0, dtype=np.float64)
    return Frame.of(mean, float(np.abs(rows).max() + np.abs(mean).max()), unit)


def groups_of(X: F32, ends: list[int], frame: Frame) -> list[TileRows]:
    return [
        frame.ready(X[a:b], np.arange(a, b, dtype=np.int32)) for a, b in itertools.pairwise(ends)
    ]


def by_groups(X: F32, ends: list[int], m: int, unit: bool = False) -> tuple[I32, F64]:
    """Find lists by groups, search the uncertain ones again."""
    frame = frame_of(X, unit)
    groups = groups_of(X, ends, frame)
    states = [within(group, m) for group in groups]
    for i in range(len(groups)):
        for j in range(i + 1, len(groups)):
            ceilings = states[i].ceiling(m), states[j].ceiling(m)
            pair = between(groups[i], groups[j], *ceilings, m, frame.sq_scale)
            states[i], states[j] = merge(states[i], pair[0], m), merge(states[j], pair[1], m)
    rows = np.concatenate([state.matrix(m)[0] for state in states])
    sq = np.concatenate([state.matrix(m)[1] for state in states])
    starts = np.asarray(ends[:-1])
    again = np.concatenate(
        [at + s.uncertain(m, frame.sq_scale) for at, s in zip(starts, states, strict=True)]
    )
    if len(again):
        queries = frame.ready(X[again], again.astype(np.int32))
        parts = [search(queries, g, sq[again, m - 1], m, frame.sq_scale) for g in groups]
        found = parts[0]
        for part in parts[1:]:
            found = merge(found, part, m)
        rows[again], sq[again] = found.matrix(m)
    return rows, sq


@given(st.data())
def test_lists__of_any_groups_are_those_of_all_pairs(data: st.DataObject) -> None:
    X = data.draw(rows_and_centers(max_rows=90).map(lambda drawn: drawn.X))
    if len(X) == 1:
        return
    m = data.draw(st.integers(1, len(X) - 1))
    rows, sq = by_groups(X, data.draw(cuts(len(X))), m)
    wanted_rows, wanted_sq = nearest_of(all_pairs(X), m)
    np.testing.assert_array_equal(sq, wanted_sq)
    np.testing.assert_array_equal(rows, wanted_rows)


@pytest.mark.parametrize("seed", range(30))
def test_lists__of_many_ties_are_those_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 91)), int(rng.integers(1, 5))
    X = rng.integers(-1, 2, (n, d)).astype(np.float32)
    m = int(rng.integers(1, min(20, n - 1)))
    rows, sq = by_groups(X, [0, n // 3, n], m)
    wanted_rows, wanted_sq = nearest_of(all_pairs(X), m)
    np.testing.assert_array_equal(sq, wanted_sq)
    np.testing.assert_array_equal(rows, wanted_rows)


def test_shorten__never_raises_what_was_dropped() -> None:
    keep = 16
    lists = Shortlists.fresh(1, keep, np.array([0.25], np.float32))
    lists.dropped[0] = 0.25
    lists.bound[0, :17] = np.linspace(0.1, 0.2, 17)
    lists.at[0, :17] = np.arange(17)
    lists.filled[0] = 17
    shorten(lists, 0, keep, np.empty(2 * keep, np.float32))
    assert lists.filled[0] >= keep
    assert lists.dropped[0] <= 0.25
    assert lists.limit[0] <= 0.25


@given(st.data())
def test_lists__of_unit_rows_are_those_of_all_pairs(data: st.DataObject) -> None:
    X = data.draw(float_rows(max_rows=90, min_rows=2))
    m = data.draw(st.integers(1, len(X) - 1))
    rows, sq = by_groups(X, data.draw(cuts(len(X))), m, unit=True)
    wanted_rows, wanted_sq = nearest_of(all_pairs(unit_rows(X)), m)
    np.testing.assert_array_equal(sq, wanted_sq)
    np.testing.assert_array_equal(rows, wanted_rows)


@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize("m", [5, 256])
def test_lists__of_many_rows_are_certain_or_searched_again(far: float, m: int) -> None:
    rng = np.random.default_rng(0)
    n = TILE_SIDE + 700
    X = (rng.standard_normal((9, 20))[rng.integers(0, 9, n)] * 3 + far).astype(np.float32)
    X += rng.standard_normal((n, 20)).astype(np.float32)
    # A heap of rows that float32 products cannot tell apart.
    X[:80] = X[0] + rng.standard_normal((80, 20)).astype(np.float32) * 1e-4
    wanted_rows, wanted_sq = nearest_of(all_pairs(X), m)
    for ends in ([0, n], [0, 300, 301, n]):
        rows, sq = by_groups(X, ends, m)
        np.testing.assert_array_equal(sq, wanted_sq)
        np.testing.assert_array_equal(rows, wanted_rows)


def test_uncertain__names_lists_whose_float32_bounds_tell_nothing() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((300, 30)).astype(np.float32) * 1e-5
    X[:, 0] += np.repeat(np.float32([-9, 9]), 150)
    frame = frame_of(X)
    found = within(frame.ready(X, np.arange(300, dtype=np.int32)), 5)
    assert len(found.uncertain(5, frame.sq_scale)) > 250
    plain = frame_of(X[:150])
    alone = within(plain.ready(X[:150], np.arange(150, dtype=np.int32)), 5)
    assert len(alone.uncertain(5, plain.sq_scale)) == 0


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e17])
)
def test_scan__bounds_lie_below_every_distance(seed: int, d: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((24, d)) * size + rng.choice([0, 1, 100]) * size).astype(np.float32)
    X[12:] = X[:12] * np.float32(1 + 1e-6)
    frame = frame_of(X)
    group = frame.ready(X, np.arange(24, dtype=np.int32))
    assert np.abs(group.tile).max() <= 1
    lists = Shortlists.fresh(24, 24)
    scan(group, group, lists, lists, 24)
    D = all_pairs(X) * frame.sq_scale
    assert (lists.filled == 23).all()
    assert (
        lists.bound[:, :23] <= np.take_along_axis(D, lists.at[:, :23].astype(int), axis=1)
    ).all()


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=80), st.data())
def test_shorten__gives_up_nothing_below_the_limit(
    values: list[float], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, len(values)))
    if data.draw(st.booleans()):
        values = [float(round(v)) for v in values]
    lists = Shortlists.fresh(1, len(values))
    lists.bound[0, : len(values)] = values
    lists.at[0, : len(values)] = np.arange(len(values))
    lists.filled[0] = len(values)
    shorten(lists, 0, keep, np.empty(len(values), np.float32))
    n = lists.filled[0]
    kept, limit = lists.at[0, :n], lists.limit[0]
    assert keep <= n <= max(keep, keep + keep // 4)
    assert len(set(kept.tolist())) == n
    np.testing.assert_array_equal(lists.bound[0, :n], np.float32(values)[kept])
    rest = np.delete(np.float32(values), kept)
    assert (rest >= limit).all()
    assert (lists.bound[0, :n] <= limit).all()
    assert lists.dropped[0] == limit


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=60), st.data())
def test_kth_smallest__is_that_of_sorted_values(values: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values) - 1))
    assert kth_smallest(np.array(values, np.float32), len(values), k) == sorted(values)[k]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=400, unique=True))
def test_sort_and_insert__order_by_distance_and_row(entries: list[tuple[int, int]]) -> None:
    sq = np.array([float(s) for s, _ in entries])
    rows = np.array([r for _, r in entries], np.int32)
    m = max(1, len(entries) // 2)
    few_sq, few_rows, n = np.empty(m), np.empty(m, np.int32), 0
    for s, r in entries:
        n = insert(few_sq, few_rows, n, float(s), r)
    sort_entries(sq, rows, len(entries))
    wanted = sorted(entries)
    assert list(zip(sq.tolist(), rows.tolist(), strict=True)) == wanted
    assert list(zip(few_sq[:n].tolist(), few_rows[:n].tolist(), strict=True)) == wanted[:m]


@given(st.floats(0, 1e30), st.floats(1e-100, 1e7))
def test_limit_above__lies_above(sq: float, scale: float) -> None:
    assert float(limit_above(sq, scale)) > sq * scale


@given(st.data())
def test_merge__is_associative_and_keeps_the_first(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, m = 6, data.draw(st.integers(1, 7))
    numbers = rng.permutation(40).astype(np.int32)
    full: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    parts = []
    for p in range(3):
        lists = []
        for i in range(n):
            size = rng.integers(0, m + 1)
            chosen = sorted((float(rng.integers(0, 4)), int(r)) for r in numbers[10 * p :][:size])
            lists.append(chosen)
            full[i] += chosen
        flat = [entry for chosen in lists for entry in chosen]
        offsets = np.cumsum([0, *(len(chosen) for chosen in lists)])
        rows, sq = np.array([r for _, r in flat], np.int32), np.array([s for s, _ in flat])
        parts.append(Candidates(offsets, rows, sq, rng.random(n).astype(np.float32)))
    a, b, c = parts
    left, right = merge(merge(a, b, m), c, m), merge(a, merge(b, c, m), m)
    for x, y in zip(left, right, strict=True):
        np.testing.assert_array_equal(x, y)
    for i in range(n):
        at = slice(left.offsets[i], left.offsets[i + 1])
        found = list(zip(left.sq_dist[at].tolist(), left.rows[at].tolist(), strict=True))
        assert found == sorted(full[i])[:m]


@given(st.data())
def test_spread__lists_of_distinct_rows_become_those_of_all(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, kinds = data.draw(st.integers(2, 60)), data.draw(st.integers(1, 20))
    X = rng.integers(0, 3, (kinds, 2)).astype(np.float32)[rng.integers(0, kinds, n)]
    copies = Copies.find(hash_rows(X))
    distinct, first = np.unique(X, axis=0, return_index=True)
    np.testing.assert_array_equal(copies.first, np.sort(first))
    np.testing.assert_array_equal(X[copies.first][copies.pile], X)
    m = data.draw(st.integers(1, n - 1))
    width = min(m, len(distinct) - 1)
    D = all_pairs(X[copies.first])
    near, sq = nearest_of(D, width)
    rows, sq = spread(copies, copies.first[near].astype(np.int32), sq, m)
    wanted_rows, wanted_sq = nearest_of(all_pairs(X), m)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(sq, wanted_sq)


def test_hash_rows__tells_rows_apart_and_zeros_not() -> None:
    X = np.array([[0.0, 1], [1, 0], [-0.0, 1], [0, 0], [np.float32(1e-45), 0]], np.float32)
    hashes = hash_rows(X)
    assert len(np.unique(hashes, axis=0)) == 4
    np.testing.assert_array_equal(hashes[0], hashes[2])


def test_unit_rows__have_length_one_at_any_size() -> None:
    X = np.float32([[3e38, 3e38], [1e-45, 0], [3, 4], [0, 0]])
    np.testing.assert_allclose(sq_norms(unit_rows(X)), [1, 1, 1, 0], rtol=1e-15)
    np.testing.assert_allclose(unit_rows(X)[2], [0.6, 0.8], rtol=1e-15)


def test_slack__is_what_the_room_of_a_list_allows() -> None:
    assert Shortlists.fresh(3, 4 + SLACK).bound.shape == (3, 2 * (4 + SLACK))
