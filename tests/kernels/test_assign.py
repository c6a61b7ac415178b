"""Labels against float64 distances of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import F32, F64, RowsAndCenters, rows_and_centers
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.distances import score_error, sq_distance, sq_norms
from vehclust_dask.kernels.kmeans import BlockState, half_gaps, lloyd_pass, quantum_scale
from vehclust_dask.kernels.segments import TILE_ROWS, Segments


def all_pairs(X: F32, C: F64) -> F64:
    """Return the squared distances of all rows to all centers."""
    distances: F64 = np.square(X.astype(np.float64)[:, None] - C[None]).sum(axis=2)
    return distances


def by_loop(X: F32, C: F64) -> F64:
    """Return the same, summed in the kernel's order."""
    return np.array([[sq_distance(x, c) for c in C] for x in X])


def blobs(rng: np.random.Generator, n: int, d: int, far: float = 0.0) -> F32:
    middles = rng.standard_normal((8, d)) * 4 + far
    rows: F32 = (middles[rng.integers(0, 8, n)] + rng.standard_normal((n, d))).astype(np.float32)
    return rows


@given(rows_and_centers())
def test_assign__labels_are_the_nearest_and_ties_go_to_the_lowest(drawn: RowsAndCenters) -> None:
    found = assign(drawn.X, Segments.of(drawn.parts))
    for s, C in enumerate(drawn.parts):
        D = all_pairs(drawn.X, C)
        np.testing.assert_array_equal(found.labels[:, s], D.argmin(axis=1))
        np.testing.assert_array_equal(found.sq_dist[:, s], D.min(axis=1))


@given(rows_and_centers())
def test_assign__second_is_the_nearest_of_the_others(drawn: RowsAndCenters) -> None:
    found = assign(drawn.X, Segments.of(drawn.parts))
    for s, C in enumerate(drawn.parts):
        D = all_pairs(drawn.X, C)
        if len(C) == 1:
            assert (found.second[:, s] == -1).all()
            assert np.isinf(found.margin[:, s]).all()
            continue
        first = D.argmin(axis=1)
        rest = D.copy()
        rest[np.arange(len(D)), first] = np.inf
        np.testing.assert_array_equal(found.second[:, s], rest.argmin(axis=1))
        margin = np.sqrt(rest.min(axis=1)) - np.sqrt(D.min(axis=1))
        np.testing.assert_array_equal(found.margin[:, s], margin)


def test_assign__equal_distances_that_float32_tells_apart_go_to_the_lowest() -> None:
    rng = np.random.default_rng(0)
    middle = rng.integers(20_000, 40_000, 5).astype(np.float64)
    step = np.array([3.0, 0, 0, 0, 0])
    beside = rng.integers(-50, 51, (400, 5)) * np.array([0, 1, 1, 1, 1])
    X = (middle + beside).astype(np.float32)
    for C in (np.stack([middle - step, middle + step]), np.stack([middle + step, middle - step])):
        found = assign(X, Segments.of([C]))
        assert not found.labels.any()
        assert (found.second == 1).all()
        assert not found.margin.any()


@given(rows_and_centers())
def test_lloyd_pass__labels_sums_and_counts_are_those_of_all_pairs(drawn: RowsAndCenters) -> None:
    X, segments = drawn.X, Segments.of(drawn.parts)
    scale = quantum_scale(float(np.abs(X).max()), len(X))
    state = BlockState.fresh(X, segments)
    found = lloyd_pass(X, segments, half_gaps(segments), scale, state)
    quanta = np.rint(X.astype(np.float64) * scale).astype(np.int64)
    for s, C in enumerate(drawn.parts):
        labels = all_pairs(X, C).argmin(axis=1)
        np.testing.assert_array_equal(state.labels[s], labels)
        sums = np.zeros(C.shape, np.int64)
        np.add.at(sums, labels, quanta)
        np.testing.assert_array_equal(found.sums[segments.part(s)], sums)
        np.testing.assert_array_equal(
            found.counts[segments.part(s)], np.bincount(labels, minlength=len(C))
        )
    assert found.changed.tolist() == [len(X)] * len(drawn.parts)


@pytest.mark.parametrize("far", [0.0, 100.0, 3e4])
@pytest.mark.parametrize("d", [5, 64, 200])
def test_labels__are_those_of_float64_where_float32_cannot_tell(far: float, d: int) -> None:
    rng = np.random.default_rng(d)
    X = blobs(rng, 300, d, far)
    # Centers so close to each other that their float32 scores are mostly noise.
    C = X[:6].astype(np.float64).repeat(2, axis=0)
    C[1::2] += rng.standard_normal(C[1::2].shape) * 1e-7
    segments = Segments.of([C])
    wanted = by_loop(X, C).argmin(axis=1)
    state = BlockState.fresh(X, segments)
    lloyd_pass(X, segments, half_gaps(segments), quantum_scale(1e5, len(X)), state)
    np.testing.assert_array_equal(assign(X, segments).labels[:, 0], wanted)
    np.testing.assert_array_equal(state.labels[0], wanted)


def test_labels__do_not_depend_on_the_tile_a_row_is_in() -> None:
    rng = np.random.default_rng(1)
    X = blobs(rng, 2 * TILE_ROWS + 77, 16)
    segments = Segments.of([X[:9].astype(np.float64), X[20:50].astype(np.float64)])
    whole = assign(X, segments)
    for start in (1, 300, TILE_ROWS - 1, TILE_ROWS + 200):
        part = assign(X[start:], segments)
        for a, b in zip(whole, part, strict=True):
            np.testing.assert_array_equal(a[start:], b)


def test_assign__reads_rows_that_must_not_be_written() -> None:
    X = blobs(np.random.default_rng(2), 50, 4)
    C = X[:3].astype(np.float64)
    wanted = assign(X, Segments.of([C])).labels
    X.flags.writeable = False
    np.testing.assert_array_equal(assign(X, Segments.of([C])).labels, wanted)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([1e-20, 1e-3, 1.0, 1e6, 1e17])
)
def test_score_error__bounds_the_error_of_float32_products(seed: int, d: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((20, d)) * size).astype(np.float32)
    C = rng.standard_normal((7, d)) * size
    half = (0.5 * np.square(C).sum(axis=1)).astype(np.float32)
    scores = half[:, None] - C.astype(np.float32) @ X.T
    exact = 0.5 * np.square(C).sum(axis=1)[:, None] - C @ X.T.astype(np.float64)
    longest = float(np.sqrt(np.square(C).sum(axis=1).max()))
    error = score_error(d, np.sqrt(sq_norms(X)), longest)
    assert (np.abs(scores - exact) <= error).all()


@given(rows_and_centers(max_rows=5))
def test_half_gaps__never_exceed_half_the_distance_of_two_centers(drawn: RowsAndCenters) -> None:
    segments = Segments.of(drawn.parts)
    gaps = half_gaps(segments)
    for s, C in enumerate(drawn.parts):
        if len(C) == 1:
            assert np.isinf(gaps[segments.part(s)]).all()
            continue
        D = np.square(C[:, None] - C[None]).sum(axis=2)
        np.fill_diagonal(D, np.inf)
        assert (gaps[segments.part(s)].astype(np.float64) <= 0.5 * np.sqrt(D.min(axis=1))).all()


def test_half_gaps__is_near_the_true_value() -> None:
    C = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    np.testing.assert_allclose(half_gaps(Segments.of([C])), [2.5, 0.5, 0.5], rtol=1e-5)


@given(
    st.floats(0, float(np.finfo(np.float32).max), width=32),
    st.integers(1, 10**12),
)
def test_quantum_scale__sums_stay_within_64_bits(largest: float, n: int) -> None:
    scale = quantum_scale(largest, n)
    assert int(np.rint(largest * scale)) * n < 2**63
    assert np.log2(scale) == int(np.log2(scale))


@given(st.floats(float(np.finfo(np.float32).tiny), 2.0**126, width=32), st.integers(1, 10**9))
def test_quantum_scale__keeps_the_digits_it_promises(largest: float, n: int) -> None:
    assert 1 / quantum_scale(largest, n) <= 2.0**-30 * largest
