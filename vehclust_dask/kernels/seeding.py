"""Where k-means begins on rows in memory: greedy k-means++."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F32, F64, sq_norms


def seed_plusplus(X: F32, k: int, rngs: list[np.random.Generator]) -> list[F64]:
    """Draw k rows, each far from those before it; of some draws the one that helps most is taken.

    Arthur and Vassilvitskii, k-means++: the advantages of careful seeding (2007), section 2.2, with
    the 2 + log(k) draws per center of their own experiments. Distances are float32 products of
    centered rows: they steer chances and decide no label. All starts share one product per center.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
    k : int
        At most n_samples.
    rngs : list of Generator
        One per start.

    Returns
    -------
    list of ndarray of shape (k, n_features), float64
        Rows of X for every start, all distinct where X holds k distinct rows.
    """
    n, starts, draws = len(X), len(rngs), 2 + int(np.log(k))
    rows = X - X.mean(axis=0, dtype=np.float64).astype(np.float32)
    norms = sq_norms(rows).astype(np.float32)
    chosen = np.empty((starts, k), np.int64)
    chosen[:, 0] = [rng.integers(n) for rng in rngs]
    nearest = _distances(rows, norms, chosen[:, 0])
    nearest[np.arange(starts), chosen[:, 0]] = 0.0
    for step in range(1, k):
        drawn = np.stack([_draw(nearest[s], draws, rngs[s]) for s in range(starts)])
        closer = _distances(rows, norms, drawn.ravel()).reshape(starts, draws, n)
        np.minimum(closer, nearest[:, None], out=closer)
        best = closer.sum(axis=2, dtype=np.float64).argmin(axis=1)
        at = np.arange(starts)
        chosen[:, step] = drawn[at, best]
        nearest = closer[at, best]
        nearest[at, chosen[:, step]] = 0.0
    return [X[picked].astype(np.float64) for picked in chosen]


def _draw(nearest: F32, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw rows with chances proportional to their distances; any rows where all are zero."""
    reach = np.cumsum(nearest, dtype=np.float64)
    if reach[-1] <= 0:
        return rng.integers(len(nearest), size=draws)
    at = np.searchsorted(reach, rng.random(draws) * reach[-1], side="right")
    return np.minimum(at, len(nearest) - 1).astype(np.int64)


def _distances(rows: F32, norms: F32, chosen: NDArray[np.int64]) -> F32:
    """Return squared distances of some rows to all rows, shape (len(chosen), n_samples)."""
    D: F32 = np.matmul(rows[chosen] * np.float32(-2), rows.T)
    D += norms
    D += norms[chosen, None]
    np.maximum(D, np.float32(0), out=D)
    return D
