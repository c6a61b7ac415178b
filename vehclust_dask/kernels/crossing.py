"""The lightest edges between components of a forest, from float32 tiles and float64 decisions.

Components are joined by edges known already; the heaviest edge on the way from one to another is a
*ceiling*: an edge between them that weighs more is in no spanning tree. In the order of the leaves
of that way's own tree (`Ways`) the ceiling of two components is the largest of the heights between
them, so that the ceilings of all pairs need no table.

A pair of rows is measured where its lower bound lies at or below the ceiling of its components, or
below the lightest edge found between them so far. Rows whose lists reach further than the ceiling
take no part: all lighter edges of theirs are known. Of equal weights the lower rows win: the result
is a function of the rows, neither of tiles nor of what was found first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F64, I32, I64, TINY32, sq_distance
from vehclust_dask.kernels.forest import Edges, find, joined
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.tiles import ABOVE, TILE_SIDE, TILE_WIDTH, TileRows, tile_columns

#: A pair of rows that no edge has.
NO_ROW = np.iinfo(np.int32).max


class Ways(NamedTuple):
    """Components in an order in which the heaviest edges between neighbours tell all ceilings.

    Attributes
    ----------
    place : ndarray of shape (n_parts,), int32
        Place of each component in that order.
    heights : ndarray of shape (n_parts - 1,), float64
        Squared weight of the heaviest edge on the way from each place to the next.
    """

    place: I32
    heights: F64

    @classmethod
    def of(cls, edges: Edges, parts: I32) -> Ways:
        """Put components in order along the lightest of some edges, which join them all."""
        n = int(parts.max()) + 1
        order = np.lexsort((edges.b, edges.a, edges.sq))
        place, heights = np.empty(n, np.int32), np.empty(n - 1)
        _leaf_order(parts[edges.a], parts[edges.b], edges.sq, order, place, heights)
        return cls(place, heights)

    def highest(self) -> float:
        """Return the largest ceiling of any two components."""
        return float(self.heights.max(initial=-np.inf))


@njit
def _leaf_order(a: Any, b: Any, sq: Any, order: Any, place: Any, heights: Any) -> None:
    """Join components by weight; write them as chains that are put end to end."""
    n = place.shape[0]
    parent, last, follows = np.arange(n), np.arange(n), np.full(n, -1)
    gap = np.empty(n)
    for e in order:
        p, q = find(parent, a[e]), find(parent, b[e])
        if p == q:
            continue
        low, high = min(p, q), max(p, q)
        # Roots are the heads of their chains: the chain of the lower one comes first.
        parent[high] = low
        follows[last[low]] = high
        gap[last[low]] = sq[e]
        last[low] = last[high]
    at = find(parent, 0)
    for k in range(n):
        place[at] = k
        if k < n - 1:
            heights[k] = gap[at]
            at = follows[at]


def chain(exact: NDArray[Any], core: F64) -> tuple[I64, F64]:
    """Span a few rows with the lightest edges; O(n**2 n_features) time, O(n) memory (Prim).

    Parameters
    ----------
    exact : ndarray of shape (n, n_features), float32 or float64
    core : ndarray of shape (n,), float64

    Returns
    -------
    ends : ndarray of shape (n - 1, 2), int64
    sq : ndarray of shape (n - 1,), float64
    """
    n = len(exact)
    ends, sq = np.zeros((n - 1, 2), np.int64), np.empty(n - 1)
    _chain(exact, core, ends, sq)
    return ends, sq


@njit
def _chain(exact: Any, core: Any, ends: Any, sq: Any) -> None:
    n = exact.shape[0]
    nearest, weight = np.zeros(n, np.int64), np.full(n, np.inf)
    standing = np.ones(n, np.bool_)
    at: Any = 0
    for k in range(n - 1):
        standing[at] = False
        best = -1
        for i in range(n):
            if not standing[i]:
                continue
            w = max(max(core[i], core[at]), sq_distance(exact[i], exact[at]))
            if w < weight[i]:
                weight[i], nearest[i] = w, at
            if best < 0 or weight[i] < weight[best]:
                best = i
        ends[k, 0], ends[k, 1], sq[k] = nearest[best], best, weight[best]
        at = best


class Side(NamedTuple):
    """A group of rows made ready for the pass, ordered by component.

    Attributes
    ----------
    ready : TileRows
    part : ndarray of shape (n_rows,), int32
        Place of each row's component, ascending.
    core : ndarray of shape (n_rows,), float64
        Squared core distances.
    reach : ndarray of shape (n_rows,), float64
        What no unknown edge of the row weighs less than.
    """

    ready: TileRows
    part: I32
    core: F64
    reach: F64

    @classmethod
    def of(cls, ready: TileRows, part: I32, core: F64, reach: F64) -> Side:
        """Order rows by component."""
        order = np.argsort(part, kind="stable")
        rows = TileRows(
            ready.exact[order], ready.tile[order], ready.norms[order], ready.rows[order]
        )
        return cls(rows, part[order], core[order], reach[order])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the largest arrays."""
        return int(self.ready.tile.nbytes + self.ready.exact.nbytes)


@njit
def ceilings(own: int, heights: Any, others: Any, out: Any) -> None:
    """Write the ceiling of one component and each of some others, ascending; -inf for itself."""
    k = others.shape[0]
    first = np.searchsorted(others, own)
    highest = -np.inf
    at = own
    for j in range(first, k):
        while at < others[j]:
            highest = max(highest, heights[at])
            at += 1
        out[j] = highest
    highest = -np.inf
    at = own
    for j in range(first - 1, -1, -1):
        while at > others[j]:
            at -= 1
            highest = max(highest, heights[at])
        out[j] = highest


class Band(NamedTuple):
    """The lightest edges between the components of some rows and those of a group.

    Attributes
    ----------
    best : ndarray of shape (n_own, n_others), float64
        Squared weight, at first the ceiling.
    low, high : ndarray of the same shape, int32
        Its rows; `NO_ROW` where none was found.
    """

    best: F64
    low: I32
    high: I32


@njit
def _lighter(sq: float, low: int, high: int, best: float, best_low: int, best_high: int) -> bool:
    if sq != best:
        return sq < best
    return low < best_low or (low == best_low and high < best_high)


@njit
def _tile_limits(
    best: Any, own: int, ids: Any, reach: Any, c0: int, width: int, scale: float, limits: Any
) -> float:
    """Write for every column below which bound a pair counts; return the largest weight that does."""
    largest = -np.inf
    for j in range(width):
        weight = best[own, ids[c0 + j]]
        limits[j] = -np.inf
        if weight >= reach[c0 + j]:
            limits[j] = np.float32(weight * scale + TINY32)
            largest = max(largest, weight)
    return largest


@njit
def _scan_band(
    P: Any,
    norms_a: Any,
    norms_b: Any,
    r0: int,
    c0: int,
    diagonal: bool,
    a: Any,
    b: Any,
    own: Any,
    ids: Any,
    band: Any,
    sq_scale: float,
    limits: Any,
    mask: Any,
    words: Any,
) -> None:
    """Look at the pairs of a tile.

    Parameters
    ----------
    P : ndarray of shape (rows, columns), float32
    norms_a, norms_b : ndarray, float32
        Of these rows and columns.
    r0, c0 : int
        First row and column in their groups.
    diagonal : bool
        Whether rows and columns are the same: each pair is then taken once.
    a, b : tuple
        Exact rows, row numbers, cores, reaches of either group.
    own : ndarray of shape (rows,), int64
        Which component of the band each row belongs to.
    ids : ndarray of shape (n_columns of the group,), int64
        Which of the group's components each column belongs to.
    band : Band
    """
    exact_a, rows_a, core_a, reach_a = a
    exact_b, rows_b, core_b, reach_b = b
    best, best_low, best_high = band.best, band.low, band.high
    scale = sq_scale * ABOVE
    n, width = P.shape
    n_words = (width + 7) // 8
    for j in range(width, 8 * n_words):
        mask[j] = False
    current, largest = -1, -np.inf
    for r in range(n):
        i = r0 + r
        if own[r] != current:
            current = own[r]
            largest = _tile_limits(best, current, ids, reach_b, c0, width, scale, limits)
        if reach_a[i] > largest:
            continue
        products, norm = P[r], norms_a[r]
        for j in range(width):
            mask[j] = (products[j] + norms_b[j]) + norm <= limits[j]
        if diagonal:
            for j in range(r + 1):
                mask[j] = False
        for w in range(n_words):
            if words[w] == 0:
                continue
            for j in range(8 * w, 8 * w + 8):
                if not mask[j]:
                    continue
                c = c0 + j
                other = ids[c]
                found = best[current, other]
                if reach_a[i] > found or reach_b[c] > found:
                    continue
                if (products[j] + norms_b[j]) + norm > limits[j]:
                    continue
                sq = max(max(core_a[i], core_b[c]), sq_distance(exact_a[i], exact_b[c]))
                low, high = min(rows_a[i], rows_b[c]), max(rows_a[i], rows_b[c])
                if not _lighter(
                    sq, low, high, found, best_low[current, other], best_high[current, other]
                ):
                    continue
                best[current, other] = sq
                best_low[current, other] = low
                best_high[current, other] = high
                above = np.float32(sq * scale + TINY32)
                for k in range(j, width):
                    if ids[c0 + k] != other:
                        break
                    limits[k] = min(limits[k], above)
                for k in range(j - 1, -1, -1):
                    if ids[c0 + k] != other:
                        break
                    limits[k] = min(limits[k], above)


def crossing(a: Side, b: Side, heights: F64, known: Edges, places: I32, sq_scale: float) -> Edges:
    """Return the lightest edges between components among the pairs of two groups (of one: ``a is b``).

    Parameters
    ----------
    a, b : Side
    heights : ndarray of shape (n_parts - 1,), float64
        Of `Ways`.
    known : Edges
        Found before, one per two components at most: what weighs more is not looked for.
    places : ndarray, int32
        Place of the component of every row, as named by ``known`` and the sides.
    sq_scale : float
        Of the frame both were made ready in.

    Returns
    -------
    Edges
        The lightest between every two components that do not exceed the ceiling, ``known`` ones among
        them; one per two components and band of rows.
    """
    found = [Edges.none()]
    others, ids = np.unique(b.part, return_inverse=True)
    ids = ids.astype(np.int64)
    room = np.empty(TILE_SIDE * TILE_WIDTH, np.float32)
    mask = np.zeros(TILE_WIDTH, np.bool_)
    limits = np.empty(TILE_WIDTH, np.float32)
    of_a = a.ready.exact, a.ready.rows, a.core, a.reach
    of_b = b.ready.exact, b.ready.rows, b.core, b.reach
    for r0 in range(0, len(a.part), TILE_SIDE):
        r = slice(r0, min(r0 + TILE_SIDE, len(a.part)))
        mine, own = np.unique(a.part[r], return_inverse=True)
        band = _fresh_band(mine, others, heights, known, places)
        left = a.ready.tile[r] * np.float32(-2)
        for c in tile_columns(r0, len(left), len(b.part), mirrored=a is b):
            if len(mine) == 1 and b.part[c.start] == b.part[c.stop - 1] == mine[0]:
                continue
            if not _worthwhile(a, b, r, c, band.best, ids):
                continue
            shape = (len(left), c.stop - c.start)
            P = room[: shape[0] * shape[1]].reshape(shape)
            np.matmul(left, b.ready.tile[c].T, out=P)
            _scan_band(
                P, a.ready.norms[r], b.ready.norms[c], r0, c.start, a is b and r == c, of_a, of_b,
                own.astype(np.int64), ids, band, sq_scale, limits, mask, mask.view(np.uint64),
            )  # fmt: skip
        hit = band.low != NO_ROW
        found.append(Edges(band.low[hit], band.high[hit], band.best[hit]))
    return joined(found)


def _worthwhile(a: Side, b: Side, r: slice, c: slice, best: F64, ids: I64) -> bool:
    """Say whether the most far-reaching pair of a tile could matter."""
    largest = best[:, ids[c.start] : ids[c.stop - 1] + 1].max()
    return bool(max(a.reach[r].min(), b.reach[c].min()) <= largest)


def _fresh_band(mine: I32, others: I32, heights: F64, known: Edges, places: I32) -> Band:
    """Begin with the ceilings, and with the edges that are known between these components."""
    best = np.empty((len(mine), len(others)))
    for k, part in enumerate(mine):
        ceilings(part, heights, others, best[k])
    low, high = np.full(best.shape, NO_ROW, np.int32), np.full(best.shape, NO_ROW, np.int32)
    first, last = places[known.a], places[known.b]
    for one, two in ((first, last), (last, first)):
        at = np.minimum(np.searchsorted(mine, one), len(mine) - 1)
        to = np.minimum(np.searchsorted(others, two), len(others) - 1)
        here = (mine[at] == one) & (others[to] == two)
        here &= known.sq <= best[at, to]
        spot = at[here], to[here]
        best[spot], low[spot], high[spot] = known.sq[here], known.a[here], known.b[here]
    return Band(best, low, high)
