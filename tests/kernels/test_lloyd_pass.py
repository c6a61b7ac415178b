"""Passes that go on from what a block remembers, against passes that remember nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import F32, F64, RowsAndCenters, cuts, float_rows, rows_and_centers
from vehclust_dask.kernels.assignment import assign, farthest_rows
from vehclust_dask.kernels.kmeans import (
    BlockState,
    PassResult,
    half_gaps,
    integers_to_centers,
    lloyd_pass,
    quantum_scale,
)
from vehclust_dask.kernels.segments import Segments


def one_pass(
    X: F32, segments: Segments, scale: float, state: BlockState | None = None
) -> PassResult:
    state = BlockState.fresh(X, segments) if state is None else state
    return lloyd_pass(X, segments, half_gaps(segments), scale, state)


def moved(segments: Segments, found: PassResult, scale: float) -> Segments:
    new = integers_to_centers(found.sums, found.counts, scale, segments.centers)
    return Segments(new, segments.offsets)


def assert_kept_equals_fresh(
    X: F32, segments: Segments, walk: list[Segments] | None, n: int, *, full_every: int = 3
) -> int:
    """Run passes with a kept state beside fresh ones; return the rows the kept one measured."""
    scale = quantum_scale(float(np.abs(X).max()), len(X))
    kept = BlockState.fresh(X, segments)
    measured = 0
    for i in range(n):
        segments = segments if walk is None else walk[i]
        forgetful = BlockState.fresh(X, segments)
        found, wanted = one_pass(X, segments, scale, kept), one_pass(X, segments, scale, forgetful)
        np.testing.assert_array_equal(kept.labels, forgetful.labels)
        np.testing.assert_array_equal(found.sums, wanted.sums)
        np.testing.assert_array_equal(found.counts, wanted.counts)
        measured += found.measured
        segments = moved(segments, found, scale)
        if i % full_every == full_every - 1:
            # What a full worker keeps: the next pass measures all rows and says the same.
            kept = kept.without_bounds().with_bounds()
    return measured


@given(rows_and_centers())
def test_lloyd_pass__bounds_change_no_label_on_the_way_to_rest(drawn: RowsAndCenters) -> None:
    assert_kept_equals_fresh(drawn.X, Segments.of(drawn.parts), None, 8)


@given(
    float_rows(min_rows=13),
    st.sampled_from([1.0, 1.0, 1e-42, 1e25]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-8, 1e-4, 1e-2, 1.0]),
)
def test_lloyd_pass__bounds_change_no_label_when_centers_wander(
    X: F32, size: float, seed: int, stride: float
) -> None:
    X = (X.astype(np.float64) * size).astype(np.float32)
    rng = np.random.default_rng(seed)
    first = Segments.of([X[:k].astype(np.float64) for k in (1, 2, 7, 12)])
    walk = [first]
    for _ in range(7):
        # Now and then a center jumps onto another one, or all stand still.
        step = rng.standard_normal(first.centers.shape) * stride * X.std(dtype=np.float64)
        C = walk[-1].centers + step * (rng.random() < 0.8)
        if rng.random() < 0.3:
            C[-1] = C[-2]
        walk.append(Segments(C, first.offsets))
    assert_kept_equals_fresh(X, first, walk, len(walk))


def test_lloyd_pass__measures_few_rows_once_clusters_are_found() -> None:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((10, 12)) * 10
    X = (middles[rng.integers(0, 10, 3000)] + rng.standard_normal((3000, 12))).astype(np.float32)
    starts = Segments.of([middles + 0.5 * rng.standard_normal(middles.shape)])
    assert assert_kept_equals_fresh(X, starts, None, 10, full_every=99) < 2 * len(X)


@given(float_rows(min_rows=4), st.data())
def test_lloyd_pass__sums_do_not_depend_on_cuts_or_order(X: F32, data: st.DataObject) -> None:
    segments = Segments.of([X[:2].astype(np.float64), X[:4].astype(np.float64)])
    scale = quantum_scale(float(np.abs(X).max()), len(X))
    whole = one_pass(X, segments, scale)
    ends = data.draw(cuts(len(X)))
    shuffled = X[np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(X))]
    for rows in (X, shuffled):
        pieces = [one_pass(rows[a:b], segments, scale) for a, b in itertools.pairwise(ends)]
        np.testing.assert_array_equal(sum(p.sums for p in pieces), whole.sums)
        np.testing.assert_array_equal(sum(p.counts for p in pieces), whole.counts)


@given(float_rows(min_rows=3))
def test_integers_to_centers__gives_the_means(X: F32) -> None:
    scale = quantum_scale(float(np.abs(X).max()), len(X))
    segments = Segments.of([X[:3].astype(np.float64)])
    labels = assign(X, segments).labels[:, 0]
    new = moved(segments, one_pass(X, segments, scale), scale).centers
    for j in np.unique(labels):
        mean = X[labels == j].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(new[j], mean, rtol=1e-9, atol=1e-9 * float(np.abs(X).max()))


def test_integers_to_centers__leaves_an_empty_cluster_where_it_was() -> None:
    sums = np.array([[8, 16], [0, 0]])
    old = np.array([[9.0, 9.0], [5.0, 7.0]])
    new = integers_to_centers(sums, np.array([2, 0]), 4.0, old)
    assert new.tolist() == [[1.0, 2.0], [5.0, 7.0]]


@given(rows_and_centers(max_segments=1), st.integers(1, 5), st.data())
def test_farthest_rows__merged_equal_the_whole(
    drawn: RowsAndCenters, m: int, data: st.DataObject
) -> None:
    X, C = drawn.X, drawn.parts[0]
    distances = np.square(X.astype(np.float64)[:, None] - C[None]).sum(axis=2)
    nearest = distances.min(axis=1)
    wanted = sorted(range(len(X)), key=lambda r: (-nearest[r], r))[:m]
    ends = data.draw(cuts(len(X)))
    found = farthest_rows(X[: ends[1]], 0, C, m)
    for a, b in itertools.pairwise(ends[1:]):
        found = found.merge(farthest_rows(X[a:b], a, C, m), m)
    assert found.rows.tolist() == wanted
    np.testing.assert_array_equal(found.sq_dist, nearest[wanted])
    np.testing.assert_array_equal(found.X, X[wanted])
    np.testing.assert_array_equal(found.labels, distances[wanted].argmin(axis=1))


def test_block_state__says_how_much_it_holds() -> None:
    X = np.ones((100, 5), np.float32)
    state = BlockState.fresh(X, Segments.of([np.zeros((3, 5))]))
    held = sum(v.nbytes for v in vars(state).values())
    assert held == pytest.approx(state.nbytes, rel=0.05)


def test_segments__picks_and_parts_agree() -> None:
    parts: list[F64] = [np.full((k, 2), float(k)) for k in (1, 3, 2)]
    segments = Segments.of(parts)
    assert segments.n_segments == 3
    np.testing.assert_array_equal(segments.pick([2, 0]).centers, np.vstack([parts[2], parts[0]]))
    assert segments.pick([2, 0]).offsets.tolist() == [0, 2, 3]
