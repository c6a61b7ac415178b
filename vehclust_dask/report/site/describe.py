"""What can be said of clusters: what they are mixed up with, in which order they stand, how they split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

#: A value is worth telling where it is this many times as frequent as among all rows, ...
LEAST_LIFT = 1.5
#: ... and this share of the cluster.
LEAST_SHARE = 0.2
#: Columns of more values than this name single things, not kinds.
MOST_VALUES = 200


@dataclass(frozen=True)
class Confounder:
    """A value of a known column that a cluster holds more of than others do.

    Attributes
    ----------
    column, value : str
    share : float
        Of the cluster's rows whose value is known.
    lift : float
        That share divided by the value's share of all rows.
    """

    column: str
    value: str
    share: float
    lift: float


def known_columns(samples: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return the columns that clusters may be mixed up with: truth, and folders of the paths.

    Returns
    -------
    dict of str to ndarray of object
        Values as text, empty where unknown; columns of one value or of too many are left out.
    """
    found: dict[str, NDArray[Any]] = {}
    for name in samples.columns:
        if str(name).startswith("truth_"):
            found[str(name).removeprefix("truth_")] = samples[name].fillna("").to_numpy(object)
    if "path" in samples:
        parts = samples["path"].str.split("/", expand=True)
        for i in range(parts.shape[1] - 1):
            found[f"folder {i + 1}"] = parts[i].fillna("").to_numpy(object)
    return {
        name: values
        for name, values in found.items()
        if 1 < len(set(values.tolist()) - {""}) <= MOST_VALUES
    }


def counts_by_cluster(labels: I64, k: int, values: NDArray[Any]) -> tuple[I64, list[str]]:
    """Return how often each cluster holds each known value: shape (k, n_values), and the values."""
    codes, names = pd.factorize(pd.Series(values).replace("", None), sort=True)
    known = (codes >= 0) & (labels >= 0)
    table = np.zeros((k, len(names)), np.int64)
    np.add.at(table, (labels[known], codes[known]), 1)
    return table, [str(name) for name in names]


def confounders(
    labels: I64, k: int, columns: dict[str, NDArray[Any]], most: int = 4
) -> list[list[Confounder]]:
    """Return what each cluster holds strikingly much of, the largest lift first."""
    found: list[list[Confounder]] = [[] for _ in range(k)]
    for column, values in columns.items():
        table, names = counts_by_cluster(labels, k, values)
        base = table.sum(axis=0) / max(1, table.sum())
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        lift = share / np.maximum(base, 1e-12)
        striking = (lift >= LEAST_LIFT) & (share >= LEAST_SHARE)
        for cluster, value in zip(*np.nonzero(striking), strict=True):
            one = Confounder(
                column, names[value], float(share[cluster, value]), float(lift[cluster, value])
            )
            found[cluster].append(one)
    return [
        sorted(several, key=lambda c: (-c.share * np.log(c.lift), c.column, c.value))[:most]
        for several in found
    ]


def look_alike_order(centers: F64) -> list[int]:
    """Return clusters so that those with near centers stand together: leaves of their Ward tree."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

    if len(centers) < 3:
        return list(range(len(centers)))
    tree = linkage(centers, "ward")
    if len(centers) <= _ORDERED:
        tree = optimal_leaf_ordering(tree, centers)
    return [int(leaf) for leaf in leaves_list(tree)]


#: Optimal ordering takes time in proportion to the cube.
_ORDERED = 400


def nearest_centers(centers: F64) -> tuple[I64, F64]:
    """Return the nearest other cluster of every cluster, and how far its center is."""
    if len(centers) < 2:
        return np.full(len(centers), -1), np.full(len(centers), np.nan)
    from scipy.spatial.distance import cdist

    distance = cdist(centers, centers)
    np.fill_diagonal(distance, np.inf)
    at = distance.argmin(axis=1)
    return at.astype(np.int64), distance[np.arange(len(centers)), at]


def flow(before: I64, after: I64) -> list[tuple[int, int, int]]:
    """Return how many rows go from which cluster to which: (from, to, rows), noise left out."""
    both = (before >= 0) & (after >= 0)
    wide = int(after.max(initial=0)) + 1
    counts = np.bincount(before[both] * wide + after[both])
    pairs = np.flatnonzero(counts)
    return [(int(p // wide), int(p % wide), int(counts[p])) for p in pairs]


@dataclass(frozen=True)
class Vote:
    """What one index says of the number of clusters.

    Attributes
    ----------
    index : str
    best : int or None
        Where it is best strictly inside the range; None where it has no optimum inside.
    """

    index: str
    best: int | None


def votes(ks: Sequence[int], scores: pd.DataFrame) -> list[Vote]:
    """Return what each index says; an optimum at an end of the range is none."""
    found = []
    for column, larger in _INDICES.items():
        if column not in scores or scores[column].isna().all() or len(ks) < 3:
            continue
        values = scores[column].to_numpy(float)
        at = int(np.nanargmax(values if larger else -values))
        found.append(Vote(column, int(ks[at]) if 0 < at < len(ks) - 1 else None))
    return found


#: Indices that may have an optimum, and whether larger is better. Inertia always falls.
_INDICES = {
    "calinski_harabasz": True,
    "davies_bouldin": False,
    "silhouette": True,
    "silhouette_sq": True,
    "bic": False,
}
