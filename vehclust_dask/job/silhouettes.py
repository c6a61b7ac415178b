"""Exact silhouettes in a job, of the clusterings that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.estimators.silhouette import (
    AT_ONCE,
    MOST_CLUSTERS,
    Lines,
    Sums,
    row_silhouettes,
)
from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.neighbourhood import ROUNDS
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.study import StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.store.folders import read_table, write_table
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.rounds import Rounds
from vehclust_dask.store.steps import Step

F64 = NDArray[np.float64]

#: Files of the steps.
VALUES, BY_CLUSTER = "silhouette.zarr", "clusters.parquet"


@dataclass(frozen=True, eq=False)
class Silhouette:
    """The exact silhouettes of one clustering.

    Attributes
    ----------
    clustering : str
    k : int
    values : Matrix
        float32 of shape (n_rows, n_clusterings of the pass); NaN for noise.
    at : int
        Column.
    mean : float
    by_cluster : ndarray of shape (k,), float64
        Mean of each cluster's rows.
    step : Step
    """

    clustering: str
    k: int
    values: Matrix
    at: int
    mean: float
    by_cluster: F64
    step: Step


def find_silhouettes(
    study: StudySpec,
    clusterings: list[Clustered],
    featured: tuple[str, int] | None,
    reduced: Reduced,
    work: Work,
) -> list[Silhouette]:
    """Compute the exact silhouettes a study asks for, up to four clusterings in a pass over all pairs.

    A clustering of fewer than two clusters, or of more than `MOST_CLUSTERS`, has none, and it is
    said.
    """
    found: list[Silhouette] = []
    for batch in _batches(_asked(study, clusterings, featured, work)):
        found += _pass(study, batch, reduced, work)
    return found


def _asked(
    study: StudySpec, clusterings: list[Clustered], featured: tuple[str, int] | None, work: Work
) -> list[tuple[Clustered, int]]:
    asked = []
    for one in clusterings:
        for k in one.ks:
            wanted = any(
                word == "all"
                or (word == "featured" and (one.name, k) == featured)
                or (word in (one.part, one.name) and number in (None, k))
                for word, number in study.silhouette
            )
            if wanted and not 2 <= k <= MOST_CLUSTERS:
                work.say(f"{study.name}/{one.name}: no silhouettes of {k:,} clusters")
            elif wanted:
                asked.append((one, k))
    return asked


def _batches(asked: list[tuple[Clustered, int]]) -> list[list[tuple[Clustered, int]]]:
    """Put clusterings together while a pass can hold their sums."""
    batches: list[list[tuple[Clustered, int]]] = []
    for one, k in asked:
        held = sum(number for _, number in batches[-1]) if batches else MOST_CLUSTERS
        if held + k > MOST_CLUSTERS or len(batches[-1]) == AT_ONCE:
            batches.append([])
        batches[-1].append((one, k))
    return batches


def _pass(
    study: StudySpec, batch: list[tuple[Clustered, int]], reduced: Reduced, work: Work
) -> list[Silhouette]:
    rows = reduced.rows
    params = {"clusterings": [[one.step.digest, one.ks.index(k)] for one, k in batch]}
    step = work.step("silhouette", params, rows.digest)
    ks = tuple(k for _, k in batch)

    def compute(folder: Path) -> dict[str, Any]:
        labels = np.column_stack([one.column("labels", k) for one, k in batch])
        keep = Rounds(str(folder / ROUNDS), Sums)
        values = row_silhouettes(
            rows, Lines.of(labels, ks), "euclidean", name=f"silhouette-{study.name}", keep=keep
        )
        matrix = _write(folder, values, step, reduced)
        tables = [_by_cluster(labels[:, s], values[:, s], k, s) for s, k in enumerate(ks)]
        write_table(pd.concat(tables), folder / BY_CLUSTER)
        keep.clear()
        means = [_mean(values[:, s]) for s in range(len(ks))]
        return {"ks": list(ks), "mean": means, "matrices": {"values": matrix.to_json(folder)}}

    names = ", ".join(one.label_column(k) for one, k in batch)
    work.ensure(step, f"{study.name}: silhouettes of {names}", compute)
    facts = step.manifest()
    matrix = Matrix.from_json(facts["matrices"]["values"], step.folder)
    table = read_table(step.folder / BY_CLUSTER)
    found = []
    for s, (one, k) in enumerate(batch):
        by_cluster = table.loc[table["clustering"] == s, "silhouette"].to_numpy()
        mean = facts["mean"][s]
        found.append(
            Silhouette(one.name, k, matrix, s, np.nan if mean is None else mean, by_cluster, step)
        )
    return found


def _mean(values: F64) -> float | None:
    """Return the mean of all rows but noise; None where there is nothing else."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _write(folder: Path, values: F64, step: Step, reduced: Reduced) -> Matrix:
    grid = reduced.rows.grid
    matrix = create_matrix(
        folder / VALUES,
        "values",
        grid,
        values.shape[1],
        "float32",
        digest=f"{step.digest}-values",
        attributes=step.provenance(),
    )
    matrix.write_rows(values)
    return matrix


def _by_cluster(labels: NDArray[Any], values: F64, k: int, at: int) -> pd.DataFrame:
    there = labels >= 0
    counts = np.bincount(labels[there], minlength=k)
    sums = np.bincount(labels[there], weights=values[there], minlength=k)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return pd.DataFrame({"clustering": at, "cluster": np.arange(k), "silhouette": mean})


def with_silhouettes(
    scores: pd.DataFrame, clustering: str, found: Sequence[Silhouette]
) -> pd.DataFrame:
    """Add the mean silhouettes to a clustering's scores; NaN where none were asked for."""
    means = {one.k: one.mean for one in found if one.clustering == clustering}
    return scores.assign(silhouette=scores["k"].map(means).astype(np.float64)) if found else scores


def with_cluster_means(
    sizes: pd.DataFrame, clustering: str, found: Sequence[Silhouette]
) -> pd.DataFrame:
    """Add the mean silhouette of every cluster to a clustering's table of clusters."""
    mine = [one for one in found if one.clustering == clustering]
    if not mine:
        return sizes
    sizes = sizes.assign(silhouette=np.nan)
    for one in mine:
        sizes.loc[sizes["k"] == one.k, "silhouette"] = one.by_cluster
    return sizes
