"""Silhouettes in closed form and the sums that tiles make, against all pairs and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import silhouette_samples

from tests.strategies import F32, F64, float_rows
from vehclust_dask.kernels import silhouette
from vehclust_dask.kernels.silhouette import (
    ClusterMeans,
    between_sums,
    distance_rows,
    silhouettes,
    squared_silhouettes,
    within_sums,
)
from vehclust_dask.kernels.tiles import Frame


def sq_distances(X: F32) -> F64:
    exact = X.astype(np.float64)
    found: F64 = np.square(exact[:, None] - exact[None]).sum(axis=2)
    return found


def means_of(X: F32, lines: NDArray[np.int32], k: int) -> ClusterMeans:
    exact, counts = X.astype(np.float64), np.bincount(lines[lines >= 0], minlength=k)
    means, within = np.full((k, X.shape[1]), 7.5), np.zeros(k)
    for c in np.flatnonzero(counts):
        means[c] = exact[lines == c].mean(axis=0)
        within[c] = np.square(exact[lines == c] - means[c]).sum()
    return ClusterMeans(means, within, counts, np.array([0, k]), floor=1e-24)


def framed(X: F32, unit: bool = False) -> Frame:
    mean = X.mean(axis=0, dtype=np.float64)
    return Frame.of(mean, float(np.abs(X).max()) + float(np.abs(mean).max()), unit)


@given(float_rows(min_rows=4, max_rows=90), st.integers(2, 6), st.data())
def test_squared__are_scikit_learns_of_the_squared_distances(
    X: F32, k: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    if data.draw(st.booleans()):
        X = X[rng.integers(0, len(X), len(X))]
    lines = rng.integers(-1, k, len(X)).astype(np.int32)
    kept = lines >= 0
    assume(2 <= len(np.unique(lines[kept])) < kept.sum())
    found = squared_silhouettes(X, lines[:, None], means_of(X, lines, k))[:, 0]
    D = sq_distances(X[kept])
    np.testing.assert_allclose(
        found[kept], silhouette_samples(D, lines[kept], metric="precomputed"), atol=1e-8
    )
    assert np.isnan(found[~kept]).all()


def test_squared__worked_by_hand() -> None:
    X = np.array([[0.0], [2.0], [5.0], [9.0]], np.float32)
    lines = np.array([0, 0, 1, -1], np.int32)
    found = squared_silhouettes(X, lines[:, None], means_of(X, lines, 2))[:, 0]
    np.testing.assert_allclose(found, [(25 - 4) / 25, (9 - 4) / 9, 0.0, np.nan], rtol=1e-14)


@pytest.mark.parametrize("far", [0.0, 1e3])
def test_squared__of_points_without_spread(far: float) -> None:
    X = np.full((9, 3), far + 0.1, np.float32)
    lines = np.array([0, 1, 2] * 3, np.int32)
    assert not squared_silhouettes(X, lines[:, None], means_of(X, lines, 3)).any()
    X[lines == 2] += 4
    found = squared_silhouettes(X, lines[:, None], means_of(X, lines, 3))[:, 0]
    wanted = silhouette_samples(sq_distances(X), lines, metric="precomputed")
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("sides", [(3, 5), (64, 64), (32, 48)])
@pytest.mark.parametrize("unit", [False, True])
def test_sums__of_any_tiles_are_those_of_all_pairs(
    sides: tuple[int, int], unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vehclust_dask.kernels.tiles", "vehclust_dask.kernels.silhouette"):
        monkeypatch.setattr(f"{name}.TILE_SIDE", sides[0])
        monkeypatch.setattr(f"{name}.TILE_WIDTH", sides[1])
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 6)).astype(np.float32)
    X[100:110] = X[:10]
    X[120:130] = X[:10] * np.float32(1 + 1e-6)
    lines = rng.integers(-1, [3, 4], (150, 2)).astype(np.int32)
    lines[:, 1] += np.where(lines[:, 1] < 0, 0, 3)
    frame = framed(X, unit)
    a, b = (distance_rows(frame, X[s], lines[s]) for s in (slice(67), slice(67, None)))
    of_a, of_b = between_sums(a, b, frame, 7)
    found = np.hstack([within_sums(a, frame, 7) + of_a, within_sums(b, frame, 7) + of_b])
    exact = X.astype(np.float64)
    if unit:
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    D = np.square(exact[:, None] - exact[None]).sum(axis=2)
    D = D if unit else np.sqrt(D)
    wanted = np.array([D[(lines == c).any(axis=1)].sum(axis=0) for c in range(7)])
    factor = frame.sq_scale if unit else frame.scale
    np.testing.assert_allclose(found, wanted * factor, rtol=2e-6)


@pytest.mark.parametrize("step", [1.0, 2.0**-70, 2.0**60])
def test_sums__near_pairs_are_measured_again(step: float) -> None:
    # Two clouds far apart: float32 products of their rows leave little of a distance inside one.
    rng = np.random.default_rng(1)
    X = rng.standard_normal((80, 40)) * 1e-4
    X[40:] += 3.0
    rows = (X * step).astype(np.float32)
    lines = np.repeat(np.int32([0, 1]), 40)[:, None]
    frame = framed(rows)
    found = within_sums(distance_rows(frame, rows, lines), frame, 2)
    D = np.sqrt(sq_distances((rows / np.float32(step)).astype(np.float32))) * step * frame.scale
    wanted = np.array([D[:40].sum(axis=0), D[40:].sum(axis=0)])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_silhouettes__one_cluster_has_none_and_empty_ones_do_not_count() -> None:
    sums = np.array([[1.0, 1.0, 8.0], [0.0, 0.0, 0.0], [9.0, 9.0, 0.0]])
    counts, lines = np.array([2, 0, 1]), np.array([[0], [0], [2]], np.int32)
    found = silhouettes(sums, counts, np.array([0, 3]), lines)[:, 0]
    np.testing.assert_allclose(found, [8 / 9, 8 / 9, 0.0])
    alone = silhouettes(
        sums[:1], counts[:1], np.array([0, 1]), np.array([[0], [0], [-1]], np.int32)
    )
    assert np.isnan(alone).all()


def test_scores__are_means_over_rows_that_are_no_noise() -> None:
    values, lines = (
        np.array([[0.5, 0.1], [np.nan, 0.3], [0.7, np.nan]]),
        np.array([[0, 2], [-1, 3], [1, -1]], np.int32),
    )
    counts, offsets = np.array([1, 1, 1, 1]), np.array([0, 2, 4])
    sums = silhouette.sums_by_line(values, lines, 4)
    np.testing.assert_array_equal(sums, [0.5, 0.7, 0.1, 0.3])
    np.testing.assert_allclose(silhouette.scores_of(sums, counts, offsets), [0.6, 0.2])
