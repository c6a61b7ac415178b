"""The nearest rows of every row, exactly: float32 tiles propose, float64 differences decide.

A group of rows is first compared with itself; the distance of the m-th row found there is a ceiling
for everything that follows. Against another group only pairs whose lower bound lies at or below the
ceiling are kept. Every kept pair is measured in float64 by direct difference of the rows as they
are, and lists are ordered by (distance, row). The result is therefore a function of the rows alone:
not of groups, tiles, the order of merges or the BLAS.

A list is certain where its last distance lies below the smallest bound that was ever given up for
want of room. The few others are searched again (`Query`), with their last distance as a ceiling and
no room to run out of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vehclust_dask.kernels.distances import F32, F64, I32, I64, TINY32, sq_distance
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.tiles import (
    ABOVE,
    SLACK,
    TILE_WIDTH,
    Shortlists,
    TileRows,
    limit_above,
    scan,
    shorten,
    tiles,
)


class Candidates(NamedTuple):
    """Measured neighbours of a group of rows, each list ordered by (distance, row).

    Attributes
    ----------
    offsets : ndarray of shape (n_rows + 1,), int64
        List ``i`` lies at ``offsets[i]:offsets[i + 1]``; no list is longer than asked for.
    rows : ndarray, int32
        Row numbers.
    sq_dist : ndarray, float64
    missing : ndarray of shape (n_rows,), float32
        A lower bound, in the tile's units, of every distance that was given up for want of room.
    """

    offsets: I64
    rows: I32
    sq_dist: F64
    missing: F32

    @property
    def n_rows(self) -> int:
        """Return the number of lists."""
        return len(self.offsets) - 1

    def ceiling(self, m: int) -> F64:
        """Return the distance that no m-th neighbour exceeds: infinity for lists not yet full."""
        last = self.offsets[1:] - 1
        full = np.diff(self.offsets) >= m
        out = np.full(self.n_rows, np.inf)
        out[full] = self.sq_dist[last[full]]
        return out

    def uncertain(self, m: int, sq_scale: float) -> I64:
        """Return the lists whose m entries are not certainly the nearest ones."""
        return np.flatnonzero(
            ~(self.ceiling(m) * sq_scale < self.missing) & ~np.isinf(self.missing)
        )

    def matrix(self, m: int) -> tuple[I32, F64]:
        """Return the lists as rows and distances of shape (n_rows, m); all must be full."""
        shape = (self.n_rows, m)
        return self.rows.reshape(shape), self.sq_dist.reshape(shape)


@njit
def sort_entries(sq: Any, rows: Any, n: int) -> None:
    """Order the first n entries by (distance, row) in place (Shell's sort, Ciura's gaps)."""
    for gap in (301, 132, 57, 23, 10, 4, 1):
        for i in range(gap, n):
            s, r = sq[i], rows[i]
            j = i
            while j >= gap and (sq[j - gap] > s or (sq[j - gap] == s and rows[j - gap] > r)):
                sq[j] = sq[j - gap]
                rows[j] = rows[j - gap]
                j -= gap
            sq[j] = s
            rows[j] = r


@njit
def _decide(
    lists: Any,
    exact: Any,
    others: Any,
    other_rows: Any,
    ceiling: Any,
    keep: int,
    sq: Any,
    rows: Any,
    count: Any,
) -> None:
    """Measure the short lists in float64; write the first entries of each, in order."""
    m = sq.shape[1]
    room = lists.bound.shape[1]
    scratch = np.empty(room, np.float32)
    all_sq = np.empty(room, np.float64)
    all_rows = np.empty(room, np.int32)
    for i in range(exact.shape[0]):
        if lists.filled[i] > keep:
            shorten(lists, i, keep, scratch)
        n = 0
        for e in range(lists.filled[i]):
            j = lists.at[i, e]
            distance = sq_distance(exact[i], others[j])
            if distance <= ceiling[i]:
                all_sq[n] = distance
                all_rows[n] = other_rows[j]
                n += 1
        sort_entries(all_sq, all_rows, n)
        count[i] = min(n, m)
        for e in range(count[i]):
            sq[i, e] = all_sq[e]
            rows[i, e] = all_rows[e]


def _measured(
    lists: Shortlists, mine: TileRows, other: TileRows, ceiling: F64, m: int
) -> Candidates:
    n = len(mine.rows)
    sq, rows, count = np.empty((n, m)), np.empty((n, m), np.int32), np.zeros(n, np.int64)
    _decide(lists, mine.exact, other.exact, other.rows, ceiling, m + SLACK, sq, rows, count)
    return _packed(sq, rows, count, lists.dropped)


def _packed(sq: F64, rows: I32, count: I64, missing: F32) -> Candidates:
    taken = np.arange(sq.shape[1]) < count[:, None]
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    return Candidates(offsets, rows[taken], sq[taken], missing)


def within(group: TileRows, m: int) -> Candidates:
    """Return the m nearest rows of every row of a group, among its own rows; a row is not its own."""
    lists = Shortlists.fresh(len(group.rows), m + SLACK)
    scan(group, group, lists, lists, m + SLACK)
    return _measured(lists, group, group, np.full(len(group.rows), np.inf), m)


def between(
    a: TileRows, b: TileRows, ceiling_a: F64, ceiling_b: F64, m: int, sq_scale: float
) -> tuple[Candidates, Candidates]:
    """Return for the rows of either group those of the other that lie within their ceilings.

    Parameters
    ----------
    a, b : TileRows
    ceiling_a, ceiling_b : ndarray of shape (n_rows,), float64
        Squared distances beyond which nothing is of interest.
    m : int
        No more than so many are returned for a row.
    sq_scale : float
        Of the frame both were made ready in.
    """
    keep = m + SLACK
    A = Shortlists.fresh(len(a.rows), keep, limit_above(ceiling_a, sq_scale))
    B = Shortlists.fresh(len(b.rows), keep, limit_above(ceiling_b, sq_scale))
    scan(a, b, A, B, keep)
    return _measured(A, a, b, ceiling_a, m), _measured(B, b, a, ceiling_b, m)


@njit
def _merge_lists(
    sq_a: Any,
    rows_a: Any,
    at_a: Any,
    sq_b: Any,
    rows_b: Any,
    at_b: Any,
    at: Any,
    sq: Any,
    rows: Any,
) -> None:
    for i in range(at.shape[0] - 1):
        p, q = at_a[i], at_b[i]
        for e in range(at[i], at[i + 1]):
            first = q >= at_b[i + 1]
            if not first and p < at_a[i + 1]:
                tied = sq_a[p] == sq_b[q] and rows_a[p] < rows_b[q]
                first = sq_a[p] < sq_b[q] or tied
            if first:
                sq[e], rows[e] = sq_a[p], rows_a[p]
                p += 1
            else:
                sq[e], rows[e] = sq_b[q], rows_b[q]
                q += 1


def merge(a: Candidates, b: Candidates, m: int) -> Candidates:
    """Merge the lists that the same rows have among different others; exact, in any order."""
    count = np.minimum(np.diff(a.offsets) + np.diff(b.offsets), m)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    sq, rows = np.empty(offsets[-1]), np.empty(offsets[-1], np.int32)
    _merge_lists(a.sq_dist, a.rows, a.offsets, b.sq_dist, b.rows, b.offsets, offsets, sq, rows)
    return Candidates(offsets, rows, sq, np.minimum(a.missing, b.missing))


@njit
def insert(sq: Any, rows: Any, n: int, distance: float, row: int) -> int:
    """Put an entry in its place among the first n; return how many there are then."""
    m = sq.shape[0]
    if n == m and (sq[m - 1] < distance or (sq[m - 1] == distance and rows[m - 1] < row)):
        return n
    e = n if n < m else m - 1
    while e > 0 and (sq[e - 1] > distance or (sq[e - 1] == distance and rows[e - 1] > row)):
        sq[e] = sq[e - 1]
        rows[e] = rows[e - 1]
        e -= 1
    sq[e] = distance
    rows[e] = row
    return min(n + 1, m)


@njit
def _search_tile(
    P: Any,
    norms: Any,
    norms_x: Any,
    q0: int,
    x0: int,
    exact: Any,
    exact_x: Any,
    own: Any,
    rows_x: Any,
    sq_scale: float,
    limit: Any,
    sq: Any,
    rows: Any,
    count: Any,
    mask: Any,
    words: Any,
) -> None:
    """Measure every pair of a tile whose bound is below the row's limit; keep the nearest, in order."""
    width = P.shape[1]
    m = sq.shape[1]
    n_words = (width + 7) // 8
    for j in range(width, 8 * n_words):
        mask[j] = False
    for r in range(P.shape[0]):
        i = q0 + r
        for j in range(width):
            mask[j] = (P[r, j] + norms_x[j]) + norms[r] < limit[i]
        for w in range(n_words):
            if words[w] == 0:
                continue
            for j in range(8 * w, 8 * w + 8):
                if not mask[j] or rows_x[x0 + j] == own[i]:
                    continue
                if (P[r, j] + norms_x[j]) + norms[r] < limit[i]:
                    distance = sq_distance(exact[i], exact_x[x0 + j])
                    count[i] = insert(sq[i], rows[i], count[i], distance, rows_x[x0 + j])
                    if count[i] == m:
                        above = np.float32(sq[i, m - 1] * (sq_scale * ABOVE) + TINY32)
                        limit[i] = min(limit[i], above)


class Running(NamedTuple):
    """The nearest rows of queries so far, changed in place as more rows are searched.

    Attributes
    ----------
    sq : ndarray of shape (n_queries, m), float64
    rows : ndarray of shape (n_queries, m), int32
    filled : ndarray of shape (n_queries,), int64
        Entries of each list, which are in order of (distance, row).
    limit : ndarray of shape (n_queries,), float32
        Bounds at or above it are of no interest, in the tile's units.
    """

    sq: F64
    rows: I32
    filled: I64
    limit: F32

    @classmethod
    def fresh(cls, ceiling: F64, m: int, sq_scale: float) -> Running:
        """Return empty lists; squared distances beyond the ceilings are of no interest."""
        n = len(ceiling)
        limit = limit_above(ceiling, sq_scale)
        return cls(np.empty((n, m)), np.empty((n, m), np.int32), np.zeros(n, np.int64), limit)

    def take(self, at: I64) -> Running:
        """Return a copy of some queries' lists."""
        return Running(self.sq[at], self.rows[at], self.filled[at], self.limit[at])

    def put(self, at: I64, other: Running) -> None:
        """Write the lists of some queries back."""
        self.sq[at], self.rows[at] = other.sq, other.rows
        self.filled[at], self.limit[at] = other.filled, other.limit


def search_on(queries: TileRows, group: TileRows, running: Running, sq_scale: float) -> None:
    """Search a group for rows nearer to the queries than those in their lists, in place.

    Row numbers say which row of the group a query is, and so is left out; -1 for none.
    """
    mask = np.zeros(TILE_WIDTH, np.bool_)
    words = mask.view(np.uint64)
    for r, c, P in tiles(queries.tile, group.tile):
        _search_tile(
            P, queries.norms[r], group.norms[c], r.start, c.start, queries.exact, group.exact,
            queries.rows, group.rows, sq_scale, running.limit, running.sq, running.rows,
            running.filled, mask, words,
        )  # fmt: skip


def search(queries: TileRows, group: TileRows, ceiling: F64, m: int, sq_scale: float) -> Candidates:
    """Return the m rows of a group nearest to each query, within its ceiling; certain as they are.

    Parameters
    ----------
    queries : TileRows
        As for `search_on`.
    group : TileRows
    ceiling : ndarray of shape (n_queries,), float64
    m : int
    sq_scale : float
    """
    running = Running.fresh(ceiling, m, sq_scale)
    search_on(queries, group, running, sq_scale)
    missing = np.full(len(ceiling), np.inf, np.float32)
    return _below(_packed(running.sq, running.rows, running.filled, missing), ceiling)


def _below(found: Candidates, ceiling: F64) -> Candidates:
    """Drop entries beyond the ceilings, which a rounded limit let through."""
    count = np.diff(found.offsets)
    of = np.repeat(np.arange(found.n_rows), count)
    taken = found.sq_dist <= ceiling[of]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of[taken], minlength=found.n_rows))])
    return Candidates(
        offsets.astype(np.int64), found.rows[taken], found.sq_dist[taken], found.missing
    )
