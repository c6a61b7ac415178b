"""Exact Ward clustering from lists of neighbours, in O(n (d + m)) memory.

The cost of merging two clusters of weights s, t is D = 2 s t / (s + t) |a - b|**2, the square of
scipy's height. Ward is reducible: clusters that are each other's nearest may merge in any order
(Müllner, Modern hierarchical, agglomerative clustering algorithms, arXiv:1109.2378, section 2.2).

Every cluster has a list of some others with their costs and a *bound*: no cluster outside the list
costs less. Its nearest is certain where the list's smallest cost does not exceed the bound. The
local phase follows chains of certain nearest neighbours and merges what is reciprocal; it stops at
clusters whose nearest is uncertain, and these are compared with all others (`kernels.rescan`).

Merges elsewhere never break a bound: a merged cluster costs no less than the nearer of its parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vehclust_dask.kernels.distances import F64, I32, I64, sq_distance
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.neighbours import sort_entries


class WardState(NamedTuple):
    """Where a clustering of n rows stands; every array is changed in place.

    A cluster has a *slot*, that of one of its rows, and a *node*, its number in the tree: rows are
    0..n-1, the k-th merge makes n + k. Lists name nodes, so that an entry tells whether it is old.

    Attributes
    ----------
    centers : ndarray of shape (n, n_features), float64
        Mean of the cluster in each slot.
    weights : ndarray of shape (n,), float64
    node : ndarray of shape (n,), int32
        Of the cluster in the slot; -1 where the slot is empty.
    parent : ndarray of shape (2 n - 1,), int32
        A node above, -1 for a cluster that stands.
    slot : ndarray of shape (2 n - 1,), int32
    near : ndarray of shape (n, m), int32
        Nodes of the list.
    cost : ndarray of shape (n, m), float64
    filled : ndarray of shape (n,), int32
    bound : ndarray of shape (n,), float64
    level : ndarray of shape (n,), float64
        Cost at which the cluster was made.
    merged : ndarray of shape (n - 1, 2), int32
        Slots of the clusters of each merge.
    at : ndarray of shape (n - 1,), float64
        Cost of each merge, never below those of the merges it rests on.
    done : ndarray of shape (1,), int64
        Merges so far.
    """

    centers: F64
    weights: F64
    node: I32
    parent: I32
    slot: I32
    near: I32
    cost: F64
    filled: I32
    bound: F64
    level: F64
    merged: I32
    at: F64
    done: I64

    @classmethod
    def start(cls, centers: F64, weights: F64, near: I32, sq_dist: F64) -> WardState:
        """Return the state before the first merge.

        Parameters
        ----------
        centers : ndarray of shape (n, n_features), float64
            The rows, all different; taken over.
        weights : ndarray of shape (n,), float64
        near : ndarray of shape (n, m), int32
            The m nearest rows of each, the nearest first; taken over.
        sq_dist : ndarray of shape (n, m), float64
            Their squared distances.
        """
        n, m = near.shape
        bound = np.full(n, np.inf)
        if m < n - 1:
            lightest = weights.min(initial=np.inf)
            last = sq_dist[:, m - 1] if m else np.zeros(n)
            bound = 2 * weights * lightest / (weights + lightest) * last
        cost = np.empty((n, m))
        _first_costs(centers, weights, near, cost)
        return cls(
            centers,
            weights.copy(),
            np.arange(n, dtype=np.int32),
            np.full(2 * n - 1, -1, np.int32),
            np.concatenate([np.arange(n), np.zeros(n - 1)]).astype(np.int32),
            near,
            cost,
            np.full(n, m, np.int32),
            bound,
            np.zeros(n),
            np.empty((n - 1, 2), np.int32),
            np.empty(n - 1),
            np.zeros(1, np.int64),
        )

    @property
    def n_clusters(self) -> int:
        """Return how many clusters stand."""
        return len(self.node) - int(self.done[0])


@njit
def merge_cost(s: Any, t: Any, a: Any, b: Any) -> float:
    """Return the cost of merging clusters of weights s, t and centers a, b."""
    return (2.0 * s * t / (s + t)) * sq_distance(a, b)


@njit
def _first_costs(centers: Any, weights: Any, near: Any, cost: Any) -> None:
    for i in range(near.shape[0]):
        for e in range(near.shape[1]):
            j = near[i, e]
            cost[i, e] = merge_cost(weights[i], weights[j], centers[i], centers[j])


@njit
def _standing(parent: Any, node: int) -> int:
    """Return the standing cluster that a node is part of; shorten the way there."""
    top = node
    while parent[top] >= 0:
        top = parent[top]
    while node != top:
        above = parent[node]
        parent[node] = top
        node = above
    return top


@njit
def _refresh(state: Any, a: int, seen: Any, token: int) -> None:
    """Bring the list of slot a up to date: every standing cluster once, changed ones measured again."""
    left = 0
    for e in range(state.filled[a]):
        node, cost = state.near[a, e], state.cost[a, e]
        if state.parent[node] >= 0:
            node = _standing(state.parent, node)
            if seen[node] == token:
                continue
            b = state.slot[node]
            cost = merge_cost(
                state.weights[a], state.weights[b], state.centers[a], state.centers[b]
            )
        elif seen[node] == token:
            continue
        seen[node] = token
        state.near[a, left] = node
        state.cost[a, left] = cost
        left += 1
    state.filled[a] = left


@njit
def _nearest(state: Any, a: int, before: int) -> tuple[int, float]:
    """Return the slot nearest to slot a and its cost, or -1 where that is not certain.

    Of equally near ones the slot ``before``, so that a chain ends, else the lowest node.
    """
    best, best_node = np.inf, -1
    for e in range(state.filled[a]):
        cost, node = state.cost[a, e], state.near[a, e]
        if cost < best or (cost == best and node < best_node):
            best, best_node = cost, node
    if before >= 0:
        cost = merge_cost(
            state.weights[a], state.weights[before], state.centers[a], state.centers[before]
        )
        if cost <= best:
            best, best_node = cost, state.node[before]
    if best_node < 0 or best > state.bound[a]:
        return -1, best
    return state.slot[best_node], best


@njit
def _merge(
    state: Any, a: int, b: int, cost: float, lightest: float, seen: Any, token: int, room: Any
) -> None:
    """Merge slot b into slot a: the united list, measured again, and the bound of what is in neither."""
    n = state.node.shape[0]
    s, t = state.weights[a], state.weights[b]
    # Lance and Williams for a cluster of weight w outside both lists grows with w: take the lightest.
    bound = (s + lightest) * state.bound[a] + (t + lightest) * state.bound[b] - lightest * cost
    bound /= s + t + lightest
    costs, nodes = room
    seen[state.node[a]] = token
    seen[state.node[b]] = token
    for j in range(state.centers.shape[1]):
        state.centers[a, j] = (s * state.centers[a, j] + t * state.centers[b, j]) / (s + t)
    state.weights[a] = s + t
    found = 0
    for side in (a, b):
        for e in range(state.filled[side]):
            node = _standing(state.parent, state.near[side, e])
            if seen[node] == token:
                continue
            seen[node] = token
            c = state.slot[node]
            nodes[found] = node
            costs[found] = merge_cost(s + t, state.weights[c], state.centers[a], state.centers[c])
            found += 1
    sort_entries(costs, nodes, found)
    m = state.near.shape[1]
    if found > m:
        bound = min(bound, costs[m])
        found = m
    for e in range(found):
        state.near[a, e] = nodes[e]
        state.cost[a, e] = costs[e]
    state.filled[a] = found
    state.bound[a] = bound
    k = state.done[0]
    # A mean rounded in float64 may seem to merge a hair below its parts.
    level = max(cost, max(state.level[a], state.level[b]))
    state.merged[k, 0], state.merged[k, 1] = a, b
    state.at[k] = level
    state.level[a] = level
    for side in (a, b):
        state.parent[state.node[side]] = n + k
    state.node[a], state.node[b] = n + k, -1
    state.slot[n + k] = a
    state.done[0] = k + 1


@njit
def local_phase(state: Any, uncertain: Any) -> None:
    """Merge every pair of reciprocal nearest neighbours that the lists can tell.

    Parameters
    ----------
    state : WardState
    uncertain : ndarray of shape (n,), bool
        Written: slots whose nearest cluster the list does not tell; every standing cluster is then
        one of these, or its chain of nearest neighbours ends at one.
    """
    n, m = state.near.shape
    waiting = np.zeros(n, np.bool_)
    chain = np.empty(n + 1, np.int32)
    seen = np.full(2 * n - 1, -1, np.int64)
    room = (np.empty(2 * m + 1), np.empty(2 * m + 1, np.int32))
    uncertain[:] = False
    lightest = np.inf
    for a in range(n):
        if state.node[a] >= 0:
            lightest = min(lightest, state.weights[a])
    token = 0
    moved = True
    while moved and state.done[0] < n - 1:
        moved = False
        for start in range(n):
            if state.node[start] < 0 or waiting[start] or state.done[0] == n - 1:
                continue
            moved = True
            chain[0] = start
            length = 1
            while length > 0 and state.done[0] < n - 1:
                a = chain[length - 1]
                before = chain[length - 2] if length > 1 else -1
                token += 1
                _refresh(state, a, seen, token)
                b, cost = _nearest(state, a, before)
                if b < 0 or waiting[b]:
                    uncertain[a] = b < 0
                    for e in range(length):
                        waiting[chain[e]] = True
                    length = 0
                elif b == before:
                    token += 1
                    _merge(state, min(a, b), max(a, b), cost, lightest, seen, token, room)
                    length -= 2
                    if length == 0:
                        chain[0] = min(a, b)
                        length = 1
                else:
                    chain[length] = b
                    length += 1
