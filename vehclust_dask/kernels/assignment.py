"""The nearest and the second nearest center of every row, decided in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vehclust_dask.kernels.distances import F32, F64, I32, I64, score_error, sq_distance, sq_norms
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.segments import TILE_ROWS, Products, Segments


class Assignment(NamedTuple):
    """Nearest and second nearest center of every row.

    Attributes
    ----------
    labels, second : ndarray of shape (n_rows, n_segments), int32
        Counted inside the segment; ``second`` is -1 where there is one center only.
    sq_dist : ndarray of shape (n_rows, n_segments), float64
        Squared distance to the nearest center.
    margin : ndarray of shape (n_rows, n_segments), float64
        Distance to the second nearest center less the distance to the nearest; inf for one center.
    """

    labels: I32
    second: I32
    sq_dist: F64
    margin: F64


@njit
def _scan_two(
    P: Any,
    half: Any,
    first: int,
    last: int,
    low: Any,
    high: Any,
    third: Any,
    which: Any,
    runner: Any,
) -> None:
    """Find the three smallest scores of every row and the positions of the first two."""
    n = P.shape[1]
    inf = np.float32(np.inf)
    for r in range(n):
        low[r] = half[first] - P[first, r]
        high[r] = inf
        third[r] = inf
        which[r] = 0
        runner[r] = -1
    for j in range(first + 1, last):
        h = half[j]
        position = np.int32(j - first)
        for r in range(n):
            v = h - P[j, r]
            a, b, c = low[r], high[r], third[r]
            first_now = v < a
            second_now = v < b
            third[r] = b if second_now else (v if v < c else c)
            high[r] = a if first_now else (v if second_now else b)
            runner[r] = which[r] if first_now else (position if second_now else runner[r])
            low[r] = v if first_now else a
            which[r] = position if first_now else which[r]


@njit
def _two_nearest(
    X: Any, C: Any, P: Any, half: Any, first: int, last: int, error: Any, high: Any, third: Any,
    labels: Any, runners: Any, sq_dist: Any, margin: Any,
) -> None:  # fmt: skip
    """Measure in float64 every center that may be the nearest or the second; ties: lowest index."""
    for r in range(P.shape[1]):
        j1, j2 = labels[r], runners[r]
        d1 = sq_distance(X[r], C[first + j1])
        d2 = np.inf if j2 < 0 else sq_distance(X[r], C[first + j2])
        limit = high[r] + np.float32(2) * error[r]
        if not third[r] > limit:
            d1 = d2 = np.inf
            j1 = j2 = -1
            for j in range(first, last):
                if not half[j] - P[j, r] > limit:
                    distance = sq_distance(X[r], C[j])
                    if distance < d1:
                        d2, j2 = d1, j1
                        d1, j1 = distance, j - first
                    elif distance < d2:
                        d2, j2 = distance, j - first
        elif d2 < d1 or (d2 == d1 and j2 < j1):
            d1, d2 = d2, d1
            j1, j2 = j2, j1
        labels[r] = j1
        runners[r] = j2
        sq_dist[r] = d1
        margin[r] = np.sqrt(d2) - np.sqrt(d1)


def assign(X: F32, segments: Segments) -> Assignment:
    """Find the nearest and the second nearest center of every row in every segment, in float64.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    segments : Segments
    """
    products = Products.of(segments)
    n, n_segments = X.shape[0], segments.n_segments
    labels = np.empty((n_segments, n), np.int32)
    second = np.empty((n_segments, n), np.int32)
    sq_dist, margin = np.empty((n_segments, n)), np.empty((n_segments, n))
    room = products.room(min(TILE_ROWS, n))
    for start in range(0, n, TILE_ROWS):
        rows = slice(start, min(start + TILE_ROWS, n))
        tile = X[rows]
        P = products.with_rows(tile, room)
        error = score_error(X.shape[1], np.sqrt(sq_norms(tile)), products.longest)
        low, high, third = (np.empty(len(tile), np.float32) for _ in range(3))
        for s in range(n_segments):
            first, last = int(segments.offsets[s]), int(segments.offsets[s + 1])
            names = labels[s, rows], second[s, rows]
            _scan_two(P, products.half, first, last, low, high, third, *names)
            _two_nearest(
                tile, segments.centers, P, products.half, first, last, error, high, third,
                *names, sq_dist[s, rows], margin[s, rows],
            )  # fmt: skip
    return Assignment(labels.T, second.T, sq_dist.T, margin.T)


class Farthest(NamedTuple):
    """The rows that lie farthest from their own center, farthest first, ties by row.

    Attributes
    ----------
    sq_dist : ndarray of shape (m,), float64
    rows : ndarray of shape (m,), int64
        Row numbers in the whole matrix.
    labels : ndarray of shape (m,), int32
    X : ndarray of shape (m, n_features), float32
    """

    sq_dist: F64
    rows: I64
    labels: I32
    X: F32

    def keep(self, m: int) -> Farthest:
        """Keep the m farthest."""
        order = np.lexsort((self.rows, -self.sq_dist))[:m]
        return Farthest(self.sq_dist[order], self.rows[order], self.labels[order], self.X[order])

    def merge(self, other: Farthest, m: int) -> Farthest:
        """Return the m farthest of both."""
        return Farthest(
            np.concatenate([self.sq_dist, other.sq_dist]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.X, other.X]),
        ).keep(m)


def farthest_rows(X: F32, row0: int, centers: F64, m: int) -> Farthest:
    """Return the m rows of a block that lie farthest from their nearest center."""
    found = assign(X, Segments.of([centers]))
    rows = np.arange(row0, row0 + len(X), dtype=np.int64)
    return Farthest(found.sq_dist[:, 0], rows, found.labels[:, 0], X).keep(m)
