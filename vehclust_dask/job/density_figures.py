"""The figures of density methods, from their steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.density import DISTANCES, GRID, REACHABILITY
from vehclust_dask.job.spec import StudySpec


def draw_density(
    folder: Path, study: StudySpec, clusterings: list[Clustered], synthetic: bool
) -> None:
    """Draw what every DBSCAN gives and how far core distances reach, and HDBSCAN's valleys.

    Parameters
    ----------
    folder : Path
    study : StudySpec
    clusterings : list of Clustered
        Of the study.
    synthetic : bool
    """
    for spec in study.cluster:
        parts = [one for one in clusterings if one.part == spec.name]
        if spec.method == "dbscan":
            _draw_grid(folder, study.name, parts[0], spec.metric, synthetic)
        if spec.method == "hdbscan":
            for one in parts:
                _draw_valleys(folder, study.name, one, spec.metric, synthetic)


def _draw_grid(folder: Path, study: str, one: Clustered, metric: str, synthetic: bool) -> None:
    from vehclust_dask.report.density import DensityMap, KDistance
    from vehclust_dask.report.figure import Display, write_figure

    (step,) = [step for step in one.earlier if step.kind == "density-grid"]
    title, stem = f"{study} / {one.part}", f"{study}-{one.part}"
    grid = pd.read_parquet(step.folder / GRID)
    distances = pd.read_parquet(step.folder / DISTANCES)
    figures: dict[str, Display] = {
        "dbscan-map": DensityMap(grid, metric, f"{title}: every DBSCAN", synthetic),
        "core-distances": KDistance(distances, metric, f"{title}: core distances", synthetic),
    }
    for word, display in figures.items():
        write_figure(display, folder, f"{word}-{stem}")


def _draw_valleys(folder: Path, study: str, one: Clustered, metric: str, synthetic: bool) -> None:
    from vehclust_dask.report.density import Reachability
    from vehclust_dask.report.figure import write_figure

    with np.load(one.step.folder / REACHABILITY, allow_pickle=False) as stored:
        order, height = stored["order"], stored["height"]
    labels = one.column("labels", one.ks[0])
    title = f"{study} / {one.name}: reachability"
    display = Reachability(order, height, labels, metric, title, synthetic)
    write_figure(display, folder, f"reachability-{study}-{one.name}")
