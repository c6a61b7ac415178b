"""How good a clustering is: indices from sums over clusters, and from tables of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vehclust_dask.kernels.distances import F32, F64, I32, I64, sq_distance
from vehclust_dask.kernels.jit import njit


@dataclass(frozen=True, eq=False)
class Spread:
    """Distances of rows to the mean of their cluster, added up by cluster.

    Attributes
    ----------
    counts : ndarray of shape (n_clusters,), int64
    distance, sq_distance : ndarray of shape (n_clusters,), float64
        Sums of Euclidean and of squared distances.
    """

    counts: I64
    distance: F64
    sq_distance: F64

    def plus(self, other: Spread) -> Spread:
        """Add the sums of other rows."""
        return Spread(
            self.counts + other.counts,
            self.distance + other.distance,
            self.sq_distance + other.sq_distance,
        )


@njit
def _add_spread(
    X: Any, labels: Any, offsets: Any, means: Any, counts: Any, distance: Any, squares: Any
) -> None:
    for r in range(X.shape[0]):
        for s in range(labels.shape[1]):
            own = labels[r, s]
            if own < 0:
                continue
            c = offsets[s] + own
            sq = sq_distance(X[r], means[c])
            counts[c] += 1
            distance[c] += np.sqrt(sq)
            squares[c] += sq


def spread_of(X: F32, labels: I32, offsets: I64, means: F64) -> Spread:
    """Return the spread of a block in several clusterings at once.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    labels : ndarray of shape (n_rows, n_clusterings), int32
        -1 is noise and counts nowhere.
    offsets : ndarray of shape (n_clusterings + 1,), int64
        Where the means of each clustering begin.
    means : ndarray of shape (n_clusters, n_features), float64
    """
    k = len(means)
    counts, distance, squares = np.zeros(k, np.int64), np.zeros(k), np.zeros(k)
    _add_spread(X, labels, offsets, means, counts, distance, squares)
    return Spread(counts, distance, squares)


def calinski_harabasz(counts: I64, means: F64, within: F64) -> float:
    """Return the ratio of the spread between to the spread within clusters.

    Calinski and Harabasz, A dendrite method for cluster analysis (1974). Empty clusters do not
    count; fewer than two clusters, or as many as rows, give NaN.

    Parameters
    ----------
    counts : ndarray of shape (n_clusters,), int64
    means : ndarray of shape (n_clusters, n_features), float64
        Means of the rows of each cluster.
    within : ndarray of shape (n_clusters,), float64
        Sum of squared distances to the mean.
    """
    used = counts > 0
    k, n = int(used.sum()), int(counts.sum())
    if k < 2 or k >= n:
        return float("nan")
    center = (counts[used, None] * means[used]).sum(axis=0) / n
    between = float((counts[used] * np.square(means[used] - center).sum(axis=1)).sum())
    total = float(within[used].sum())
    if total == 0.0:
        return 1.0
    return between * (n - k) / (total * (k - 1))


def davies_bouldin(counts: I64, means: F64, distance: F64) -> float:
    """Return the mean over clusters of the worst ratio of their spreads to the distance of their means.

    Davies and Bouldin, A cluster separation measure (1979). Empty clusters do not count.

    Parameters
    ----------
    counts, means : as in `calinski_harabasz`
    distance : ndarray of shape (n_clusters,), float64
        Sum of Euclidean distances to the mean.
    """
    used = counts > 0
    k = int(used.sum())
    if k < 2:
        return float("nan")
    radius = distance[used] / counts[used]
    worst, apart = np.empty(k), np.empty(k)
    _worst_ratios(means[used], radius, worst, apart)
    if np.allclose(radius, 0) or np.allclose(apart, 0):
        return 0.0
    return float(worst.mean())


@njit
def _worst_ratios(M: Any, radius: Any, worst: Any, apart: Any) -> None:
    """Write each cluster's worst ratio, and the largest distance of its mean; O(n_clusters) memory."""
    for i in range(M.shape[0]):
        worst[i] = apart[i] = 0.0
        for j in range(M.shape[0]):
            distance = np.sqrt(sq_distance(M[i], M[j]))
            apart[i] = max(apart[i], distance)
            if j != i and distance > 0:
                worst[i] = max(worst[i], (radius[i] + radius[j]) / distance)


def nearest_means(means: F64) -> tuple[I64, F64]:
    """Return the nearest other mean of each and its distance; -1 and infinity for one alone."""
    k = len(means)
    nearest, apart = np.full(k, -1), np.full(k, np.inf)
    _nearest_means(means, nearest, apart)
    return nearest, apart


@njit
def _nearest_means(M: Any, nearest: Any, apart: Any) -> None:
    for i in range(M.shape[0]):
        for j in range(M.shape[0]):
            distance = np.sqrt(sq_distance(M[i], M[j])) if j != i else np.inf
            if distance < apart[i]:
                apart[i], nearest[i] = distance, j
