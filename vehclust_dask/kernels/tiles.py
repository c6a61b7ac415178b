"""Tiles: float32 products of two groups of rows, and the short lists that grow out of them.

A tile gives a *lower bound* of the squared distance of every pair. For rows x, y of d features that
were centered and rounded to float32,

    lb = (|x|**2 + |y|**2) * (1 - (d + 24) * u) - 2 <x, y>,    u = 2**-24,

lies below the true value: a float32 dot product is off by at most d * u * |x| * |y| (Higham,
Accuracy and Stability of Numerical Algorithms, 3.1), twice that is at most d * u * (|x|**2 + |y|**2);
centering in float32 moves a squared distance by 4 u of the same sum, the sums of the formula by 6 u.
The bound chooses candidates; float64 differences decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F32, F64, I32, TINY32, U32, sq_norms
from vehclust_dask.kernels.jit import njit

#: Rows and columns of a tile: its products stay in the processor's second cache.
TILE_SIDE, TILE_WIDTH = 512, 1024
#: A list keeps this many more than asked for, so that the bound of the rest clears the last one.
SLACK = 8
#: Limits are float32 numbers certainly above the float64 value they stand for.
ABOVE = 1.0 + 2.0**-21


class TileRows(NamedTuple):
    """A group of rows made ready for tiles.

    Attributes
    ----------
    exact : ndarray of shape (n_rows, n_features), float32 or float64
        What float64 decides on: the rows as they are, or rows of length one.
    tile : ndarray of shape (n_rows, n_features), float32
        Centered and scaled so that no value exceeds one.
    norms : ndarray of shape (n_rows,), float32
        Squared lengths of ``tile``, lowered by the error of the tile.
    rows : ndarray of shape (n_rows,), int32
        Row numbers.
    """

    exact: Any
    tile: F32
    norms: F32
    rows: I32

    def take(self, at: NDArray[np.int64]) -> TileRows:
        """Return some of the rows."""
        return TileRows(self.exact[at], self.tile[at], self.norms[at], self.rows[at])


@dataclass(frozen=True, eq=False)
class Frame:
    """Where rows are seen from: a center and a scale that keep float32 bounds tight.

    Neither changes a distance that is decided, only how many pairs must be measured in float64.

    Attributes
    ----------
    center : ndarray of shape (n_features,), float64
    scale : float
        A power of two.
    unit : bool
        Whether rows are first brought to length one, in float64 (cosine).
    """

    center: F64
    scale: float
    unit: bool = False

    @classmethod
    def of(cls, mean: F64, largest: float, unit: bool = False) -> Frame:
        """Return the frame for rows of this mean whose centered values do not exceed ``largest``."""
        _, exponent = np.frexp(max(largest, float(np.finfo(np.float32).smallest_subnormal)))
        return cls(mean, float(2.0 ** -int(exponent)), unit)

    @property
    def sq_scale(self) -> float:
        """Return what turns a squared distance into the tile's units."""
        return self.scale * self.scale

    def ready(self, X: NDArray[Any], rows: I32) -> TileRows:
        """Return rows made ready for tiles."""
        exact = unit_rows(X) if self.unit else X
        tile = np.empty(X.shape, np.float32)
        norms = np.empty(len(X), np.float32)
        _center(exact, self.center, self.scale, tile, norms)
        return TileRows(exact, tile, norms, rows)


def unit_rows(X: NDArray[Any]) -> F64:
    """Return rows brought to length one, float64; a row of zeros stays as it is."""
    exact = X.astype(np.float64)
    # The largest value first: the squares of tiny or huge rows would vanish or overflow.
    size = np.abs(exact).max(axis=1, initial=0.0)
    exact /= np.where(size > 0, size, 1.0)[:, None]
    lengths = np.sqrt(sq_norms(exact))
    exact /= np.where(lengths > 0, lengths, 1.0)[:, None]
    return exact


@njit
def _center(exact: Any, center: Any, scale: float, tile: Any, norms: Any) -> None:
    """Write centered rows and their squared lengths, lowered by their share of the tile's error."""
    n, d = exact.shape
    share = 1 - (d + 24) * U32
    for i in range(n):
        total = 0.0
        for j in range(d):
            t = np.float32((exact[i, j] - center[j]) * scale)
            tile[i, j] = t
            total += np.float64(t) * t
        norms[i] = np.float32(total * share - (d + 24) * TINY32)


def limit_above(sq_dist: Any, sq_scale: float) -> F32:
    """Return float32 limits, in the tile's units, above squared distances; infinity stays."""
    return (np.asarray(sq_dist) * (sq_scale * ABOVE) + TINY32).astype(np.float32)


class Shortlists(NamedTuple):
    """The smallest bounds of every row so far, in no order.

    Attributes
    ----------
    bound : ndarray of shape (n_rows, room), float32
    at : ndarray of shape (n_rows, room), int32
        Position of the other row in its group.
    filled : ndarray of shape (n_rows,), int32
        Entries in each list.
    limit : ndarray of shape (n_rows,), float32
        Only bounds below it are taken.
    dropped : ndarray of shape (n_rows,), float32
        Smallest bound that was given up for want of room: all that are missing and were below the
        first limit lie at or above it.
    """

    bound: F32
    at: I32
    filled: I32
    limit: F32
    dropped: F32

    @classmethod
    def fresh(cls, n_rows: int, keep: int, limit: F32 | None = None) -> Shortlists:
        """Return empty lists with room for twice ``keep`` entries each."""
        shape = (n_rows, 2 * keep)
        return cls(
            np.empty(shape, np.float32),
            np.empty(shape, np.int32),
            np.zeros(n_rows, np.int32),
            np.full(n_rows, np.inf, np.float32) if limit is None else limit.copy(),
            np.full(n_rows, np.inf, np.float32),
        )


@njit
def kth_smallest(a: Any, n: int, k: int) -> Any:
    """Return the k-th smallest (from 0) of a[:n], which is reordered (Hoare's selection)."""
    low, high = 0, n - 1
    while low < high:
        pivot = a[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while a[i] < pivot:
                i += 1
            while a[j] > pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return a[k]


@njit
def _cut(bounds: Any, n: int, keep: int) -> Any:
    """Return a value with at least ``keep`` and at most a quarter more of bounds[:n] below it, or -inf.

    Counting goes sixteen values at a time and never guesses a branch wrongly, which an exact
    selection does at every other value. Ties may leave no such value.
    """
    low = high = bounds[0]
    for e in range(1, n):
        low = bounds[e] if bounds[e] < low else low
        high = bounds[e] if bounds[e] > high else high
    n_low, n_high = 0, n
    for step in range(12):
        share = (keep + keep // 8 - n_low) / (n_high - n_low) if step % 3 else 0.5
        cut = low + (high - low) * np.float32(share)
        below: Any = 0
        for e in range(n):
            below += bounds[e] < cut
        if below < keep:
            low, n_low = cut, below
        elif below > keep + keep // 4:
            high, n_high = cut, below
        else:
            return cut
    return np.float32(-np.inf)


@njit
def shorten(lists: Any, i: int, keep: int, scratch: Any) -> None:
    """Keep at least ``keep`` of the smallest bounds of row i; the rest lies at or above its new limit."""
    n = lists.filled[i]
    bounds, at = lists.bound[i], lists.at[i]
    limit = _cut(bounds, n, keep)
    equal: Any = 0
    if limit == -np.inf:
        for e in range(n):
            scratch[e] = bounds[e]
        limit = kth_smallest(scratch, n, keep - 1)
        equal = keep
        for e in range(n):
            equal -= bounds[e] < limit
    left: Any = 0
    for e in range(n):
        v, j = bounds[e], at[e]
        bounds[left], at[left] = v, j
        tied = v == limit and equal > 0
        equal -= tied
        left += v < limit or tied
    lists.filled[i] = left
    # A value that cuts a list not quite full may lie above its limit: what was dropped stays dropped.
    lists.limit[i] = min(limit, lists.limit[i])
    lists.dropped[i] = min(limit, lists.dropped[i])


@njit
def scan_tile(
    P: Any,
    norms_a: Any,
    norms_b: Any,
    a0: int,
    b0: int,
    diagonal: bool,
    A: Any,
    B: Any,
    keep: int,
    mask: Any,
    words: Any,
) -> None:
    """Add the pairs of a tile to the lists of both sides.

    The first loop compares and does nothing else, so that the processor takes sixteen pairs at a
    time; eight answers are then looked at as one word, nearly always zero.

    Parameters
    ----------
    P : ndarray of shape (rows, columns), float32
        -2 <x, y>.
    norms_a, norms_b : ndarray, float32
        Of these rows and columns.
    a0, b0 : int
        First row and column in their groups.
    diagonal : bool
        Whether rows and columns are the same: each pair is then taken once.
    A, B : Shortlists
        Of the rows' and the columns' groups; the same object inside one group.
    keep : int
    mask, words : ndarray of shape (TILE_WIDTH,), bool, and the same memory as uint64
    """
    n, width = P.shape
    room = A.bound.shape[1]
    bound_a, at_a, filled_a, limit_a = A.bound, A.at, A.filled, A.limit
    bound_b, at_b, filled_b, limit_b = B.bound, B.at, B.filled, B.limit
    limits = limit_b[b0 : b0 + width]
    scratch = np.empty(room, np.float32)
    n_words = (width + 7) // 8
    for j in range(width, 8 * n_words):
        mask[j] = False
    for r in range(n):
        i = a0 + r
        products = P[r]
        norm = norms_a[r]
        limit = limit_a[i]
        for j in range(width):
            other = limits[j]
            mask[j] = (products[j] + norms_b[j]) + norm < (other if other > limit else limit)
        if diagonal:
            for j in range(r + 1):
                mask[j] = False
        for w in range(n_words):
            if words[w] == 0:
                continue
            for j in range(8 * w, 8 * w + 8):
                if not mask[j]:
                    continue
                # Written out twice: a call would pass on and count every array of the lists.
                v = (products[j] + norms_b[j]) + norm
                if v < limit_a[i]:
                    e = filled_a[i]
                    bound_a[i, e] = v
                    at_a[i, e] = b0 + j
                    filled_a[i] = e + 1
                    if e + 1 == room:
                        shorten(A, i, keep, scratch)
                if v < limits[j]:
                    e = filled_b[b0 + j]
                    bound_b[b0 + j, e] = v
                    at_b[b0 + j, e] = i
                    filled_b[b0 + j] = e + 1
                    if e + 1 == room:
                        shorten(B, b0 + j, keep, scratch)


def tiles(a: F32, b: F32, mirrored: bool = False) -> Iterator[tuple[slice, slice, F32]]:
    """Multiply two groups tile by tile: rows, columns and -2 <x, y> in memory that is used again.

    Parameters
    ----------
    a, b : ndarray of shape (n_rows, n_features), float32
    mirrored : bool
        Whether both are the same group: only columns from the tile's first row on are then visited.
    """
    room = np.empty(TILE_SIDE * TILE_WIDTH, np.float32)
    for i in range(0, len(a), TILE_SIDE):
        left = a[i : i + TILE_SIDE] * np.float32(-2)
        for columns in tile_columns(i, len(left), len(b), mirrored):
            shape = (len(left), columns.stop - columns.start)
            P = room[: shape[0] * shape[1]].reshape(shape)
            yield slice(i, i + len(left)), columns, np.matmul(left, b[columns].T, out=P)


def tile_columns(i: int, n: int, n_columns: int, mirrored: bool) -> Iterator[slice]:
    """Cut the columns of a band; of a mirrored one the square on the diagonal comes first."""
    start = 0
    if mirrored:
        yield slice(i, i + n)
        start = i + n
    for j in range(start, n_columns, TILE_WIDTH):
        yield slice(j, min(j + TILE_WIDTH, n_columns))


def scan(a: TileRows, b: TileRows, A: Shortlists, B: Shortlists, keep: int) -> None:
    """Scan all tiles of two groups (of one group, where ``a is b``), into the lists of both."""
    mask = np.zeros(TILE_WIDTH, np.bool_)
    words = mask.view(np.uint64)
    same = a is b
    for r, c, P in tiles(a.tile, b.tile, mirrored=same):
        diagonal = same and r == c
        norms = a.norms[r], b.norms[c]
        scan_tile(P, *norms, r.start, c.start, diagonal, A, B, keep, mask, words)
