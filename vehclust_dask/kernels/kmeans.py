"""One pass of Lloyd's algorithm over one block, for one clustering or for many at once.

Many clusterings of the same rows (a sweep over k, several starts) are *segments* of one tall matrix
of centers. A pass reads the block once, multiplies it once, and splits the products by segment.

Two things make a pass cheap without changing any label:

- bounds (Hamerly 2010): a row whose center is certainly still the nearest is not measured;
- sums of changed rows only. Sums are kept as 64-bit integers, values rounded to a fixed quantum
  (2**-33 of the largest value or finer below a billion rows), so adding and taking away is exact:
  the sum of a cluster is a function of its rows, not of the order or the history of additions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import (
    F32,
    F64,
    I32,
    I64,
    TINY32,
    scan_scores,
    score_error,
    settle_ties,
    sq_distance,
    sq_norms,
)
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.segments import TILE_ROWS, Products, Segments

I16 = NDArray[np.int16]

#: Above this share of uncertain rows a segment is measured on all rows of the block.
DENSE_SHARE = 0.2
#: From so many centers on it pays to measure the own distance before all others.
TIGHTEN_FROM = 96
#: Bounds are kept in float32; each update widens them by this much, far above its rounding.
WIDEN = np.float32(1e-6)


def quantum_scale(largest: float, n_samples: int) -> float:
    """Return the power of two that turns values into integers whose sums cannot overflow.

    Parameters
    ----------
    largest : float
        An upper bound of the absolute values.
    n_samples : int
        Rows that may be added up.
    """
    _, exponent = math.frexp(max(largest, float(np.finfo(np.float32).tiny)))
    headroom = int(n_samples).bit_length()
    return float(2.0 ** np.clip(62 - headroom - exponent, -1000, 1000))


@dataclass
class BlockState:
    """What a block remembers between passes; without it a pass gives the same answer, more slowly.

    Attributes
    ----------
    labels : ndarray of shape (n_segments, n_rows), int32 (int16 where kept without bounds)
        Center of each row in each clustering, counted inside the segment; -1 before the first pass.
    upper, lower : ndarray of shape (n_segments, n_rows), float32
        Bounds of the distance to the own center and to the second nearest.
    centers : ndarray of shape (n_centers, n_features), float64
        The centers that the bounds speak of.
    offsets : ndarray of shape (n_segments + 1,), int64
        Where the centers of each clustering begin.
    sums : ndarray of shape (n_centers, n_features), int64
    counts : ndarray of shape (n_centers,), int64
    norms : ndarray of shape (n_rows,), float64
        Lengths of the rows.
    """

    labels: I32 | I16
    upper: F32
    lower: F32
    centers: F64
    offsets: I64
    sums: I64
    counts: I64
    norms: F64

    @classmethod
    def fresh(cls, X: F32, segments: Segments) -> BlockState:
        """Return the state of a block that has not been seen."""
        shape = (segments.n_segments, X.shape[0])
        return cls(
            labels=np.full(shape, -1, np.int32),
            upper=np.full(shape, np.inf, np.float32),
            lower=np.zeros(shape, np.float32),
            centers=segments.centers,
            offsets=segments.offsets,
            sums=np.zeros(segments.centers.shape, np.int64),
            counts=np.zeros(len(segments.centers), np.int64),
            norms=np.sqrt(sq_norms(X)),
        )

    def without_bounds(self) -> BlockState:
        """Return labels and sums alone, a sixth of the size: the next pass measures every row again."""
        none = np.empty((len(self.labels), 0), np.float32)
        short = int(np.diff(self.offsets).max()) <= np.iinfo(np.int16).max
        labels: I32 | I16 = self.labels.astype(np.int16) if short else self.labels
        return replace(self, labels=labels, upper=none, lower=none)

    def with_bounds(self) -> BlockState:
        """Return the state with bounds that say nothing where it was kept without."""
        if self.upper.shape == self.labels.shape:
            return self
        shape = self.labels.shape
        upper, lower = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
        return replace(self, labels=self.labels.astype(np.int32), upper=upper, lower=lower)

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        arrays = (self.labels, self.upper, self.lower, self.centers, self.sums, self.norms)
        return sum(a.nbytes for a in arrays)


@njit
def _move_bounds(
    labels: Any, upper: Any, lower: Any, moved: Any, half_gap: Any, unsure: Any
) -> int:
    """Follow the centers' moves; list the rows whose nearest center is no longer certain."""
    first = second = np.float32(0.0)
    at = -1
    for j in range(moved.shape[0]):
        if moved[j] > first:
            second = first
            first = moved[j]
            at = j
        elif moved[j] > second:
            second = moved[j]
    n_unsure = 0
    for r in range(labels.shape[0]):
        own = labels[r]
        if own < 0:
            unsure[n_unsure] = r
            n_unsure += 1
            continue
        u = (upper[r] + moved[own]) * (np.float32(1) + WIDEN)
        low = (lower[r] - (second if own == at else first)) * (np.float32(1) - WIDEN)
        upper[r] = u
        lower[r] = low
        if not (u < low or u < half_gap[own]):
            unsure[n_unsure] = r
            n_unsure += 1
    return n_unsure


@njit
def _tighten(
    X: Any, C: Any, labels: Any, upper: Any, lower: Any, half_gap: Any, unsure: Any, n_unsure: int
) -> int:
    """Measure the distance to the own center; keep in ``unsure`` the rows that need all centers."""
    left = 0
    for i in range(n_unsure):
        r = unsure[i]
        own = labels[r]
        if own >= 0:
            u = np.float32(np.sqrt(sq_distance(X[r], C[own]))) * (np.float32(1) + WIDEN)
            upper[r] = u
            if u < lower[r] or u < half_gap[own]:
                continue
        unsure[left] = r
        left += 1
    return left


@njit
def _take_scores(
    rows: Any,
    norms: Any,
    error: Any,
    best: Any,
    second: Any,
    which: Any,
    labels: Any,
    upper: Any,
    lower: Any,
) -> int:
    """Write labels and bounds of measured rows; return how many rows changed their center."""
    changed = 0
    for i in range(rows.shape[0]):
        r = rows[i]
        if labels[r] != which[i]:
            changed += 1
        labels[r] = which[i]
        if not np.isfinite(error[i]):
            upper[r] = np.inf
            lower[r] = 0
            continue
        sq = norms[r] * norms[r]
        slack = 2.0 * error[i] + 1e-6 * sq
        upper[r] = np.float32(np.sqrt(max(sq + 2.0 * best[i] + slack, 0.0))) * (1 + WIDEN)
        lower[r] = np.float32(np.sqrt(max(sq + 2.0 * second[i] - slack, 0.0))) * (1 - WIDEN)
    return changed


@njit
def add_changes(
    X: Any, before: Any, after: Any, offsets: Any, scale: float, sums: Any, counts: Any
) -> None:
    """Move the rows that changed their center from one integer sum to the other, exactly."""
    n, d = X.shape
    quanta = np.empty(d, np.int64)
    for r in range(n):
        ready = False
        for s in range(after.shape[0]):
            old, new = before[s, r], after[s, r]
            if old == new:
                continue
            if not ready:
                for j in range(d):
                    quanta[j] = np.int64(np.rint(np.float64(X[r, j]) * scale))
                ready = True
            to = sums[offsets[s] + new]
            for j in range(d):
                to[j] += quanta[j]
            counts[offsets[s] + new] += 1
            if old >= 0:
                source = sums[offsets[s] + old]
                for j in range(d):
                    source[j] -= quanta[j]
                counts[offsets[s] + old] -= 1


class Nearest(NamedTuple):
    """Scores of a tile, one row per segment: best, second best, position of the best, error bound."""

    best: F32
    second: F32
    which: I32
    error: F32


def nearest_of_tile(X: F32, error: F32, products: Products, room: F32) -> Nearest:
    """Find each row's nearest center in every segment.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
        At most some thousand rows: n_centers * n_rows products are held at once.
    error : ndarray of shape (n_rows,), float32
        From `score_error`.
    products : Products
    room : ndarray of shape (>= n_centers * n_rows,), float32
        Working memory for the products.
    """
    P = products.with_rows(X, room)
    offsets = products.offsets
    shape = (len(offsets) - 1, X.shape[0])
    best, second = np.empty(shape, np.float32), np.empty(shape, np.float32)
    which = np.empty(shape, np.int32)
    for s in range(shape[0]):
        first, last = int(offsets[s]), int(offsets[s + 1])
        scan_scores(P, products.half, first, last, best[s], second[s], which[s])
        settle_ties(
            X, products.centers, P, products.half, first, last, best[s], second[s], error, which[s]
        )
    return Nearest(best, second, which, error)


def half_gaps(segments: Segments) -> F32:
    """Return half the distance from each center to the nearest other one of its segment, rounded down."""
    out = np.full(len(segments.centers), np.inf, np.float32)
    for s in range(segments.n_segments):
        part = segments.part(s)
        C = segments.centers[part]
        if len(C) < 2:
            continue
        C = C - C.mean(axis=0)
        sq = np.einsum("ij,ij->i", C, C)
        D = sq[:, None] + sq[None, :] - 2 * (C @ C.T)
        np.fill_diagonal(D, np.inf)
        gap = np.sqrt(np.maximum(D.min(axis=1) - 1e-9 * sq.max(), 0.0))
        out[part] = np.maximum(0.5 * gap * (1 - 1e-6) - TINY32, 0.0).astype(np.float32)
    return out


class PassResult(NamedTuple):
    """What one pass says of one block: integer sums, counts, changed labels per segment, rows measured."""

    sums: I64
    counts: I64
    changed: I64
    measured: int


def lloyd_pass(
    X: F32, segments: Segments, gaps: F32, scale: float, state: BlockState
) -> PassResult:
    """Assign every row to its nearest center in every segment and add the rows up by cluster.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    segments : Segments
        The centers of this pass.
    gaps : ndarray of shape (n_centers,), float32
        From `half_gaps`.
    scale : float
        From `quantum_scale`.
    state : BlockState
        Of the same segments; brought up to date.

    Returns
    -------
    PassResult
        Its arrays belong to the state.
    """
    moved = np.sqrt(np.square(segments.centers - state.centers).sum(axis=1))
    moved32 = (moved * (1 + 1e-6)).astype(np.float32)
    before = state.labels.copy()
    changed = np.zeros(segments.n_segments, np.int64)
    unsure = np.empty(X.shape[0], np.int64)
    dense: list[int] = []
    measured = 0
    for s in range(segments.n_segments):
        part = segments.part(s)
        row = (state.labels[s], state.upper[s], state.lower[s])
        n_unsure = _move_bounds(*row, moved32[part], gaps[part], unsure)
        if n_unsure <= X.shape[0] * DENSE_SHARE:
            if part.stop - part.start >= TIGHTEN_FROM:
                n_unsure = _tighten(X, segments.centers[part], *row, gaps[part], unsure, n_unsure)
            rows = unsure[:n_unsure].copy()
            changed[s] = _measure(X, rows, segments.pick([s]), state, [s])[0]
            measured += len(rows)
        else:
            dense.append(s)
    if dense:
        rows = np.arange(X.shape[0])
        changed[dense] = _measure(X, rows, segments.pick(dense), state, dense)
        measured += len(rows) * len(dense)
    state.centers = segments.centers
    add_changes(X, before, state.labels, segments.offsets, scale, state.sums, state.counts)
    return PassResult(state.sums, state.counts, changed, measured)


def _measure(X: F32, rows: I64, segments: Segments, state: BlockState, owners: list[int]) -> I64:
    """Measure some rows against all centers of some segments; return the changed rows of each."""
    changed = np.zeros(len(owners), np.int64)
    if not len(rows):
        return changed
    products = Products.of(segments)
    whole = len(rows) == X.shape[0]
    room = products.room(min(TILE_ROWS, len(rows)))
    gathered = np.empty((0 if whole else min(TILE_ROWS, len(rows)), X.shape[1]), np.float32)
    error = score_error(X.shape[1], state.norms if whole else state.norms[rows], products.longest)
    for start in range(0, len(rows), TILE_ROWS):
        chosen = rows[start : start + TILE_ROWS]
        if whole:
            tile = X[start : start + TILE_ROWS]
        else:
            # "clip" lets numpy write into the given memory without a copy between.
            tile = np.take(X, chosen, axis=0, out=gathered[: len(chosen)], mode="clip")
        found = nearest_of_tile(tile, error[start : start + TILE_ROWS], products, room)
        for i, s in enumerate(owners):
            changed[i] += _take_scores(
                chosen,
                state.norms,
                found.error,
                found.best[i],
                found.second[i],
                found.which[i],
                state.labels[s],
                state.upper[s],
                state.lower[s],
            )
    return changed


def integers_to_centers(sums: I64, counts: I64, scale: float, old: F64) -> NDArray[np.float64]:
    """Divide integer sums by counts; an empty cluster keeps its old center."""
    centers: F64 = sums.astype(np.float64) / (scale * np.maximum(counts, 1))[:, None]
    empty = counts == 0
    centers[empty] = old[empty]
    return centers
