"""Clusters of Ward's method against all others: float32 tiles propose, float64 decides.

The cost of a pair is its squared distance times 2 s t / (s + t), so the tile's lower bound of the
distance gives a lower bound of the cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F32, F64, I32, U32
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.neighbours import insert, sort_entries
from vehclust_dask.kernels.tiles import SLACK, TILE_WIDTH, Frame, Shortlists, shorten, tiles
from vehclust_dask.kernels.ward import WardState, merge_cost

#: Clusters are compared with so many others at a time.
CHUNK = 1 << 14
#: And so many of them side by side.
QUERIES = 1 << 12


@njit
def _scan_costs(
    P: Any,
    norms_q: Any,
    norms_x: Any,
    weights_q: Any,
    weights_x: Any,
    q0: int,
    x0: int,
    lists: Any,
    keep: int,
    mask: Any,
    words: Any,
) -> None:
    """Add to the rows' lists the columns of a tile whose lower bound of the cost is small."""
    width = P.shape[1]
    bound, at, filled, limits = lists.bound, lists.at, lists.filled, lists.limit
    room = bound.shape[1]
    scratch = np.empty(room, np.float32)
    costs = np.empty(width, np.float32)
    n_words = (width + 7) // 8
    shave = np.float32(8 * U32)
    for j in range(width, 8 * n_words):
        mask[j] = False
    for r in range(P.shape[0]):
        i = q0 + r
        norm, s, limit = norms_q[r], weights_q[r], limits[i]
        twice = np.float32(2) * s
        for j in range(width):
            t = weights_x[j]
            v = ((P[r, j] + norms_x[j]) + norm) * (twice * t / (s + t))
            v -= np.abs(v) * shave
            costs[j] = v
            mask[j] = v < limit
        for w in range(n_words):
            if words[w] == 0:
                continue
            for j in range(8 * w, 8 * w + 8):
                if mask[j] and costs[j] < limits[i]:
                    e = filled[i]
                    bound[i, e] = costs[j]
                    at[i, e] = x0 + j
                    filled[i] = e + 1
                    if e + 1 == room:
                        shorten(lists, i, keep, scratch)


@njit
def _take_lists(state: Any, slots: Any, standing: Any, lists: Any, keep: int, scale: float) -> None:
    """Measure the short lists in float64 and make them the clusters' lists, with their bounds."""
    m = state.near.shape[1]
    room = lists.bound.shape[1]
    scratch = np.empty(room, np.float32)
    costs, nodes = np.empty(room), np.empty(room, np.int32)
    for q in range(slots.shape[0]):
        a = slots[q]
        if lists.filled[q] > keep:
            shorten(lists, q, keep, scratch)
        found = 0
        for e in range(lists.filled[q]):
            b = standing[lists.at[q, e]]
            if b != a:
                nodes[found] = state.node[b]
                costs[found] = merge_cost(
                    state.weights[a], state.weights[b], state.centers[a], state.centers[b]
                )
                found += 1
        sort_entries(costs, nodes, found)
        bound = np.float64(lists.dropped[q]) / scale
        if found > m:
            bound = min(bound, costs[m])
        state.filled[a] = min(found, m)
        state.bound[a] = bound
        for e in range(state.filled[a]):
            state.near[a, e] = nodes[e]
            state.cost[a, e] = costs[e]
        if state.filled[a] == 0 or costs[0] > bound:
            _measure_all(state, a, standing)


@njit
def _measure_all(state: Any, a: int, standing: Any) -> None:
    """Compare a cluster with all others in float64: what float32 cannot tell apart, this can."""
    m = state.near.shape[1]
    costs, nodes = np.empty(m + 1), np.empty(m + 1, np.int32)
    found = 0
    for p in range(standing.shape[0]):
        b = standing[p]
        if b != a:
            cost = merge_cost(
                state.weights[a], state.weights[b], state.centers[a], state.centers[b]
            )
            found = insert(costs, nodes, found, cost, state.node[b])
    state.bound[a] = costs[m] if found > m else np.inf
    state.filled[a] = min(found, m)
    for e in range(state.filled[a]):
        state.near[a, e] = nodes[e]
        state.cost[a, e] = costs[e]


def rescan(state: WardState, slots: NDArray[np.integer[Any]], frame: Frame) -> None:
    """Compare clusters with all that stand: new lists and bounds, each nearest cluster certain.

    O(len(slots) * n_clusters * n_features) time.

    Parameters
    ----------
    state : WardState
    slots : ndarray of shape (n_slots,), int
    frame : Frame
        Whose scale brings every center to values of at most one.
    """
    standing = np.flatnonzero(state.node >= 0).astype(np.int32)
    keep = state.near.shape[1] + SLACK
    for first in range(0, len(slots), QUERIES):
        chosen = slots[first : first + QUERIES].astype(np.int32)
        lists = Shortlists.fresh(len(chosen), keep)
        for start in range(0, len(standing), CHUNK):
            _scan_chunk(state, chosen, standing[start : start + CHUNK], start, lists, keep, frame)
        _take_lists(state, chosen, standing, lists, keep, frame.sq_scale)


def _scan_chunk(
    state: WardState,
    chosen: I32,
    others: I32,
    start: int,
    lists: Shortlists,
    keep: int,
    frame: Frame,
) -> None:
    queries = frame.ready(state.centers[chosen], chosen)
    columns = frame.ready(state.centers[others], others)
    weights_q, weights_x = _as32(state.weights[chosen]), _as32(state.weights[others])
    mask = np.zeros(TILE_WIDTH, np.bool_)
    words = mask.view(np.uint64)
    for r, c, P in tiles(queries.tile, columns.tile):
        _scan_costs(
            P, queries.norms[r], columns.norms[c], weights_q[r], weights_x[c],
            r.start, start + c.start, lists, keep, mask, words,
        )  # fmt: skip


def _as32(values: F64) -> F32:
    return values.astype(np.float32)
