"""Compile every kernel once, so that workers find them compiled."""

from __future__ import annotations

import numpy as np

from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.columns import column_stats
from vehclust_dask.kernels.copies import Copies, hash_rows, spread
from vehclust_dask.kernels.distances import F32
from vehclust_dask.kernels.kmeans import BlockState, half_gaps, lloyd_pass, quantum_scale
from vehclust_dask.kernels.neighbours import between, merge, search, within
from vehclust_dask.kernels.scores import spread_of
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.kernels.tiles import Frame


def warm_kernels() -> None:
    """Call each kernel with the types that blocks have."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 9)).astype(np.float32)
    X.flags.writeable = False
    column_stats(X)
    segments = Segments.of([X[:2].astype(np.float64), X[2:5].astype(np.float64)])
    state = BlockState.fresh(X, segments)
    scale = quantum_scale(8.0, len(X))
    for centers in (segments, Segments(segments.centers + 1e-4, segments.offsets)):
        lloyd_pass(X, centers, half_gaps(centers), scale, state)
    labels = assign(X, segments).labels
    means = segments.centers
    spread_of(X, np.ascontiguousarray(labels), segments.offsets, means)
    _warm_neighbours(X)


def _warm_neighbours(X: F32) -> None:
    for unit in (False, True):
        frame = Frame.of(np.zeros(X.shape[1]), 8.0, unit)
        left = frame.ready(X[:32], np.arange(32, dtype=np.int32))
        right = frame.ready(X[32:], np.arange(32, 64, dtype=np.int32))
        mine = within(left, 3)
        ceiling = mine.ceiling(3)
        mine = merge(mine, between(left, right, ceiling, ceiling, 3, frame.sq_scale)[0], 3)
        search(left, right, ceiling, 3, frame.sq_scale)
        hashes = hash_rows(left.exact)
    spread(Copies.find(hashes), *mine.matrix(3), 3)
