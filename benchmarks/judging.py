"""What centers are worth: labels and inertia by one exact pass, the same for every side."""

from __future__ import annotations

import numpy as np

from benchmarks.files import FileBlocks

#: Inertias closer than this (relative) count as equal: centers stop a tolerance short of rest.
EQUAL = 1e-6


def assigned(file: str, centers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the inertia of every clustering and the labels of the last one.

    Parameters
    ----------
    file : str
        npy file of rows.
    centers : list of ndarray of shape (k, n_features)

    Returns
    -------
    inertia : ndarray of shape (n_clusterings,), float64
    labels : ndarray of shape (n_samples,), int32
    """
    from vehclust_dask.kernels.assignment import assign
    from vehclust_dask.kernels.segments import Segments

    blocks = FileBlocks.of(file)
    segments = Segments.of([np.asarray(C, dtype=np.float64) for C in centers])
    found = (assign(blocks.read(i), segments) for i in range(blocks.grid.n_blocks))
    inertia, labels = np.zeros(len(centers)), []
    for one in found:
        inertia += one.sq_dist.sum(axis=0)
        labels.append(one.labels[:, -1].copy())
    return inertia, np.concatenate(labels)


def against(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Compare two lists of inertias, one per k: ours as a share of theirs."""
    excess = np.asarray(ours) / np.asarray(theirs) - 1
    return {
        "share of k, ours at most": float((excess <= EQUAL).mean()),
        "share of k, ours below": float((excess < 0).mean()),
        "ours / it - 1, median": float(np.median(excess)),
        "ours / it - 1, worst": float(excess.max()),
    }
