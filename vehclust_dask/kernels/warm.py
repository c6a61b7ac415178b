"""Compile every kernel once, so that workers find them compiled."""

from __future__ import annotations

import numpy as np

from vehclust_dask.kernels.agreement import adjusted_mutual_information, contingency_table
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.columns import column_stats
from vehclust_dask.kernels.condensed import Condensed, reachability
from vehclust_dask.kernels.copies import Copies, hash_rows, spread
from vehclust_dask.kernels.crossing import Side, Ways, chain, crossing
from vehclust_dask.kernels.density import Cuts
from vehclust_dask.kernels.distances import F32, F64
from vehclust_dask.kernels.forest import Edges, Graph, forest, spanning
from vehclust_dask.kernels.kmeans import BlockState, half_gaps, lloyd_pass, quantum_scale
from vehclust_dask.kernels.linkage import cut_linkage, linkage_of
from vehclust_dask.kernels.mixture import KINDS, PRECISIONS, given_mixture, membership, mixture_sums
from vehclust_dask.kernels.moments import moments_of
from vehclust_dask.kernels.neighbours import between, merge, search, within
from vehclust_dask.kernels.outliers import local_outlier_factor, near_groups
from vehclust_dask.kernels.rescan import rescan
from vehclust_dask.kernels.scores import davies_bouldin, nearest_means, spread_of
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.kernels.silhouette import (
    ClusterMeans,
    between_sums,
    distance_rows,
    silhouettes,
    squared_silhouettes,
    within_sums,
)
from vehclust_dask.kernels.tiles import Frame
from vehclust_dask.kernels.ward import WardState, local_phase


def warm_kernels() -> None:
    """Call each kernel of k-means and scores with the types that blocks have."""
    X = _rows()
    column_stats(X)
    moments_of(X)
    segments = Segments.of([X[:2].astype(np.float64), X[2:5].astype(np.float64)])
    state = BlockState.fresh(X, segments)
    scale = quantum_scale(8.0, len(X))
    for centers in (segments, Segments(segments.centers + 1e-4, segments.offsets)):
        lloyd_pass(X, centers, half_gaps(centers), scale, state)
    labels = assign(X, segments).labels
    adjusted_mutual_information(contingency_table(labels[:, 0], labels[:, 1]))
    means = segments.centers
    spread = spread_of(X, np.ascontiguousarray(labels), segments.offsets, means)
    lines = labels + segments.offsets[:-1].astype(np.int32)
    known = ClusterMeans(means, spread.sq_distance, spread.counts, segments.offsets)
    squared_silhouettes(X, lines, known)
    nearest_means(means)
    davies_bouldin(np.ones(len(means), np.int64), means, np.ones(len(means)))


def _rows() -> F32:
    X: F32 = np.random.default_rng(0).standard_normal((64, 9)).astype(np.float32)
    X.flags.writeable = False
    return X


def warm_mixtures() -> None:
    """Do a step of a mixture of each kind; apart, since few jobs ask for mixtures."""
    # Wide enough that components are left out.
    k, rows = 2, np.tile(_rows(), (1, 2))
    rows.flags.writeable = False
    d = rows.shape[1]
    eye = np.eye(d)
    precisions = {"full": np.stack([eye] * k), "tied": eye, "diag": np.ones((k, d))}
    for kind in KINDS:
        given = precisions.get(kind, np.ones(k))
        mixture = given_mixture(kind, np.full(k, 1 / k), rows[:k].astype(np.float64), given)
        for precision in PRECISIONS:
            mixture_sums(rows, mixture, precision)
        membership(rows, mixture)


def warm_tiles() -> None:
    """Call each kernel that works on neighbours; apart: it takes as long as all others together."""
    X = _rows()
    _warm_neighbours(X)
    _warm_ward(X.astype(np.float64))
    _warm_density(X)


def warm_silhouettes() -> None:
    """Call each kernel of silhouettes; apart, since few jobs ask for them."""
    X = _rows()
    half = len(X) // 2
    lines = (np.arange(len(X), dtype=np.int32) % 3)[:, None]
    for unit in (False, True):
        frame = Frame.of(np.zeros(X.shape[1]), 8.0, unit)
        left, right = (
            distance_rows(frame, X[s], lines[s]) for s in (slice(half), slice(half, None))
        )
        sums = within_sums(left, frame, 3) + between_sums(left, right, frame, 3)[0]
    silhouettes(sums, np.bincount(lines[:, 0]), np.array([0, 3]), left.lines)


def _warm_neighbours(X: F32) -> None:
    half = len(X) // 2
    for unit in (False, True):
        frame = Frame.of(np.zeros(X.shape[1]), 8.0, unit)
        left = frame.ready(X[:half], np.arange(half, dtype=np.int32))
        right = frame.ready(X[half:], np.arange(half, len(X), dtype=np.int32))
        mine = within(left, 3)
        ceiling = mine.ceiling(3)
        merge(mine, between(left, right, ceiling, ceiling, 3, frame.sq_scale)[0], 3)
        search(left, right, ceiling, 3, frame.sq_scale)
        copies = Copies.find(hash_rows(left.exact))
    lists = spread(copies, *mine.matrix(3), 3)
    local_outlier_factor(*lists, 3)
    near_groups(*copies, *mine.matrix(3), 0.0)


def _warm_ward(rows: F64) -> None:
    near = np.full((len(rows), 1), len(rows) - 1, np.int32)
    near[-1] = 0
    state = WardState.start(rows, np.ones(len(rows)), near, np.zeros(near.shape))
    uncertain = np.zeros(len(rows), np.bool_)
    while state.n_clusters > 1:
        local_phase(state, uncertain)
        rescan(state, np.flatnonzero(uncertain), Frame.of(np.zeros(rows.shape[1]), 8.0))
    cut_linkage(linkage_of(state.merged, state.at), 3)


def _warm_density(X: F32) -> None:
    """Span two pairs of rows that lists leave apart, and cut what comes of it."""
    near = np.array([[1], [0], [3], [2]], np.int32)
    graph = Graph(near, np.ones((4, 1)), np.ones(4, np.int64))
    core = graph.cores(2)
    known = forest(graph, core, bound=core)
    for unit in (False, True):
        frame = Frame.of(np.zeros(X.shape[1]), 8.0, unit)
        ready = frame.ready(X[:4], np.arange(4, dtype=np.int32))
        ends, sq = chain(ready.exact[1:3], core[1:3])
        bridge = Edges.of(ends[:, 0] + 1, ends[:, 1] + 1, sq)
        ways = Ways.of(bridge, known.parts)
        side = Side.of(ready, ways.place[known.parts], core, core)
        found = crossing(side, side, ways.heights, bridge, side.part, frame.sq_scale)
    tree = spanning(known, bridge.plus(found))
    Cuts.of(graph, tree, 2, 1).labels(graph, 1.0)
    linkage = linkage_of(np.column_stack([tree.a, tree.b]), tree.sq)
    Condensed.of(linkage, 2)
    reachability(linkage)
