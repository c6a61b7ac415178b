"""Rows among the means of their clusters, for methods that give labels and no centers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows, reduce_rows
from vehclust_dask.estimators.lloyd import LloydState, RowRange
from vehclust_dask.job.clustering import CENTERS, save_state
from vehclust_dask.job.scoring import MeansPass
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.distances import sq_norms
from vehclust_dask.kernels.kmeans import integers_to_centers, quantum_scale
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import Blocks, Span
from vehclust_dask.store.matrices import Matrix

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def place_labels(
    folder: Path, rows: Blocks, ks: tuple[int, ...], out: dict[str, Matrix], name: str
) -> dict[str, Any]:
    """Write where rows with given labels lie among the means of all clusters; return a step's facts.

    Parameters
    ----------
    folder : Path
        Of the step; the means are written there.
    rows : Blocks
    ks : tuple of int
        Clusters of each column of labels, at least one each.
    out : dict of str to Matrix
        ``labels``, written already; ``second``, ``sq_dist`` and ``margin`` to be written.
    name : str
        Of the step, as the dashboard shows it.
    """
    centers = _means(rows, out["labels"], ks, name)
    rest = [True] * len(ks)
    save_state(folder / CENTERS, LloydState(centers, rest, rest))
    segments = Segments.of(centers)
    parts = map_rows(rows.grid, place_block, rows, segments, out, name=f"{name}-place", on=rows)
    for matrix in out.values():
        matrix.check_whole()
    return {
        "ks": list(ks),
        "n_iter": [0] * len(ks),
        "converged": [True] * len(ks),
        "inertia": [float(v) for v in sum(parts, start=np.zeros(len(ks)))],
        "matrices": {what: m.to_json(folder) for what, m in out.items()},
    }


def _means(rows: Blocks, labels: Matrix, ks: tuple[int, ...], name: str) -> list[F64]:
    """Return the means of the clusters of every cut, from exact sums."""
    offsets = np.cumsum([0, *ks]).astype(np.int64)
    extent = RowRange.of(rows, name)
    scale = quantum_scale(extent.largest, extent.n)
    one = MeansPass(labels, offsets, scale, rows.n_features)
    sums, counts = reduce_rows(rows, one, name=f"{name}-means", exact=True)
    means = integers_to_centers(sums, counts, scale, np.zeros(sums.shape))
    return [means[a:b] for a, b in itertools.pairwise(offsets.tolist())]


def place_block(
    i: int, span: Span, rows: Blocks, segments: Segments, out: dict[str, Matrix]
) -> F64:
    """Write where the rows of one block lie among the centers of their cuts; return its inertias.

    A row need not lie nearest to the mean of its own cluster: its margin is then below zero, and the
    nearest mean is that of its second cluster. Noise has no margin; its second is the nearest.
    """
    X = rows.read(i)
    found = assign(X, segments)
    labels = out["labels"].load(i).astype(np.int32)
    second, sq_dist, margin = found.second.copy(), found.sq_dist.copy(), found.margin.copy()
    for s in range(segments.n_segments):
        noise = labels[:, s] < 0
        second[noise, s], margin[noise, s] = found.labels[noise, s], np.nan
        other = np.flatnonzero((labels[:, s] != found.labels[:, s]) & ~noise)
        own = segments.centers[segments.part(s)][labels[other, s]]
        sq_dist[other, s] = sq_norms(X[other].astype(np.float64) - own)
        second[other, s] = found.labels[other, s]
        margin[other, s] = np.sqrt(found.sq_dist[other, s]) - np.sqrt(sq_dist[other, s])
    for what, values in (("second", second), ("sq_dist", sq_dist), ("margin", margin)):
        out[what].write(i, values.astype(out[what].dtype))
    inertia: F64 = np.where(labels < 0, 0.0, sq_dist).sum(axis=0)
    return inertia
