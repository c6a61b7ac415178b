"""Scores of clusterings: from the rows (inertia, CH, DB, sizes) and from what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.blocks import reduce_rows, solos
from vehclust_dask.estimators.lloyd import RowRange
from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.agreement import (
    adjusted_mutual_information,
    adjusted_rand,
    contingency_table,
    group_agreement,
    majority_accuracy,
)
from vehclust_dask.kernels.kmeans import add_changes, integers_to_centers, quantum_scale
from vehclust_dask.kernels.scores import (
    Spread,
    calinski_harabasz,
    davies_bouldin,
    nearest_means,
    spread_of,
)
from vehclust_dask.kernels.silhouette import ClusterMeans, squared_silhouettes
from vehclust_dask.records import Span
from vehclust_dask.store.folders import digest_of, read_table, write_table
from vehclust_dask.store.matrices import Matrix
from vehclust_dask.store.samples import TRUTH

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Files of the steps.
SCORES, CLUSTERS, AGREEMENT = "scores.parquet", "clusters.parquet", "agreement.parquet"


@dataclass(frozen=True, eq=False)
class MeansPass:
    """Exact integer sums and counts of the rows of every cluster of given labels."""

    labels: Matrix
    offsets: I64
    scale: float
    width: int
    fan_in: int = 8

    def fold(
        self, summary: tuple[I64, I64] | None, X: NDArray[np.float32], span: Span
    ) -> tuple[I64, I64]:
        """Add a block."""
        if summary is None:
            k = int(self.offsets[-1])
            summary = np.zeros((k, self.width), np.int64), np.zeros(k, np.int64)
        labels = self.labels.load(span.block)
        after = np.ascontiguousarray(labels.T, dtype=np.int32)
        before = np.full_like(after, -1)
        add_changes(X, before, after, self.offsets, self.scale, *summary)
        return summary

    def merge(self, left: tuple[I64, I64], right: tuple[I64, I64]) -> tuple[I64, I64]:
        """Add the sums."""
        return left[0] + right[0], left[1] + right[1]


@dataclass(frozen=True, eq=False)
class SpreadPass:
    """Distances of rows to the mean of their cluster, for all clusterings of a sweep."""

    labels: Matrix
    offsets: I64
    means: F64
    fan_in: int = 8

    def fold(self, summary: Spread | None, X: NDArray[np.float32], span: Span) -> Spread:
        """Add a block."""
        labels = self.labels.load(span.block).astype(np.int32)
        mine = spread_of(X, labels, self.offsets, self.means)
        return mine if summary is None else summary.plus(mine)

    def merge(self, left: Spread, right: Spread) -> Spread:
        """Add the sums."""
        return left.plus(right)


@dataclass(frozen=True, eq=False)
class SquaredPass:
    """The reduction that adds up silhouettes of squared distances, in closed form."""

    labels: Matrix
    known: ClusterMeans
    fan_in: int = 8

    def fold(self, summary: F64 | None, X: NDArray[np.float32], span: Span) -> F64:
        """Add a block: sums and counts of the rows that are in a cluster."""
        labels = self.labels.load(span.block).astype(np.int64)
        lines = np.where(labels < 0, -1, labels + self.known.offsets[:-1]).astype(np.int32)
        values = squared_silhouettes(X, lines, self.known)
        mine = np.stack([np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0)])
        return mine if summary is None else summary + mine

    def merge(self, left: F64, right: F64) -> F64:
        """Add the sums."""
        return left + right


def score_rows(clustered: Clustered, reduced: Reduced, work: Work) -> pd.DataFrame:
    """Return a row of scores per number of clusters, and keep the sizes of all clusters.

    Means are those of the labels, also where a fit ended before its centers had come to rest.

    Returns
    -------
    DataFrame
        k, inertia, calinski_harabasz, davies_bouldin, smallest, largest, empty, silhouette_sq:
        the mean silhouette of squared Euclidean distances, in closed form.
    """
    step = work.step("scores", {}, clustered.step.digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"scores-{clustered.study}-{clustered.name}"
        rows, labels = reduced.rows, clustered.matrices["labels"]
        offsets = np.cumsum([0, *clustered.ks]).astype(np.int64)
        extent = RowRange.of(rows, name)
        scale = quantum_scale(extent.largest, extent.n)
        sums, counts = reduce_rows(
            rows,
            MeansPass(labels, offsets, scale, rows.n_features),
            name=f"{name}-means",
            exact=True,
        )
        means = integers_to_centers(sums, counts, scale, np.concatenate(clustered.centers))
        spread = reduce_rows(rows, SpreadPass(labels, offsets, means), name=f"{name}-spread")
        known = ClusterMeans(means, spread.sq_distance, spread.counts, offsets)
        squared = reduce_rows(rows, SquaredPass(labels, known), name=f"{name}-silhouette-sq")
        table = _score_table(clustered, offsets, means, spread)
        with np.errstate(invalid="ignore", divide="ignore"):
            table["silhouette_sq"] = np.where(table["k"] > 1, squared[0] / squared[1], np.nan)
        write_table(table, folder / SCORES, index=None)
        clusters = _cluster_table(clustered, offsets, means, spread)
        write_table(clusters, folder / CLUSTERS, index=None)
        return {}

    work.ensure(step, f"{clustered.study}/{clustered.name}: scores", compute)
    return read_table(step.folder / SCORES)


def cluster_sizes(clustered: Clustered, work: Work) -> pd.DataFrame:
    """Return a row per cluster: k, cluster, size, mean distance, nearest cluster and its distance."""
    step = work.step("scores", {}, clustered.step.digest)
    return read_table(step.folder / CLUSTERS)


def _score_table(clustered: Clustered, offsets: I64, means: F64, spread: Spread) -> pd.DataFrame:
    rows = []
    for s, k in enumerate(clustered.ks):
        part = slice(int(offsets[s]), int(offsets[s + 1]))
        counts = spread.counts[part]
        rows_in = int(counts.sum())
        rows.append(
            {
                "k": k,
                "inertia": float(clustered.inertia[s]),
                "calinski_harabasz": calinski_harabasz(
                    counts, means[part], spread.sq_distance[part]
                ),
                "davies_bouldin": davies_bouldin(counts, means[part], spread.distance[part]),
                "smallest": int(counts[counts > 0].min(initial=rows_in)),
                "largest": int(counts.max(initial=0)),
                "empty": int((counts == 0).sum()),
            }
        )
    return pd.DataFrame(rows)


def _cluster_table(clustered: Clustered, offsets: I64, means: F64, spread: Spread) -> pd.DataFrame:
    frames = []
    for s, k in enumerate(clustered.ks):
        part = slice(int(offsets[s]), int(offsets[s + 1]))
        M, counts = means[part], spread.counts[part]
        nearest, apart = nearest_means(M)
        frames.append(
            pd.DataFrame(
                {
                    "k": k,
                    "cluster": np.arange(k),
                    "size": counts,
                    "mean_distance": spread.distance[part] / np.maximum(counts, 1),
                    "nearest_cluster": nearest,
                    "nearest_distance": apart,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the rows beside their descriptors, as numbers; -1 where it is not known.

    Attributes
    ----------
    group : ndarray of shape (n_rows,), int64, or None
        Vehicle of each row.
    truth : dict of str to ndarray of shape (n_rows,), int64
    """

    group: I64 | None
    truth: dict[str, I64]

    @classmethod
    def of(cls, samples: pd.DataFrame, dropped: tuple[int, ...]) -> Known:
        """Turn the values of the kept rows into numbers."""
        kept = samples.drop(index=list(dropped)) if dropped else samples
        group = None
        if "group" in kept:
            group = pd.factorize(kept["group"])[0].astype(np.int64)
        truth = {
            str(c).removeprefix(TRUTH): pd.factorize(kept[c])[0].astype(np.int64)
            for c in kept.columns
            if str(c).startswith(TRUTH)
        }
        return cls(group, truth)

    @property
    def digest(self) -> str:
        """Return what names these values."""
        named = [[name, digest_of(values.tolist())] for name, values in sorted(self.truth.items())]
        return digest_of([None if self.group is None else digest_of(self.group.tolist()), named])

    @property
    def empty(self) -> bool:
        """Say whether nothing is known."""
        return self.group is None and not self.truth


def judge_rows(clustered: Clustered, known: Known, work: Work) -> pd.DataFrame:
    """Return a row per number of clusters: agreement of groups, and accuracy, ARI, AMI per truth column."""
    if known.empty:
        return pd.DataFrame({"k": list(clustered.ks)})
    step = work.step("agreement", {"known": known.digest}, clustered.step.digest)

    def compute(folder: Path) -> dict[str, Any]:
        calls = [(s,) for s in range(len(clustered.ks))]
        name = f"agreement-{clustered.study}-{clustered.name}"
        found = solos(_judge_one, calls, clustered.matrices["labels"], known, name=name)
        table = pd.DataFrame(found)
        table.insert(0, "k", list(clustered.ks))
        write_table(table, folder / AGREEMENT, index=None)
        return {}

    work.ensure(step, f"{clustered.study}/{clustered.name}: agreement with what is known", compute)
    return read_table(step.folder / AGREEMENT)


def _judge_one(labels: Matrix, known: Known, s: int) -> dict[str, float]:
    """Compare one clustering with groups and truth, on the rows that are in a cluster."""
    mine = np.concatenate([labels.read(i)[:, s] for i in range(labels.grid.n_blocks)])
    out: dict[str, float] = {}
    clustered = mine >= 0
    if known.group is not None:
        told = (known.group >= 0) & clustered
        agreement, chance = group_agreement(known.group[told], mine[told])
        out |= {"group_agreement": agreement, "group_agreement_chance": chance}
    for column, values in known.truth.items():
        told = (values >= 0) & clustered
        if not told.any():
            continue
        table = contingency_table(values[told], mine[told])
        out[f"accuracy_{column}"] = majority_accuracy(table)
        out[f"ari_{column}"] = adjusted_rand(table)
        out[f"ami_{column}"] = adjusted_mutual_information(table)
    return out
