"""The figures of Ward's trees and of density methods, from their steps."""

from __future__ import annotations

from pathlib import Path

from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.density import CONDENSED, DISTANCES, GRID, REACHABILITY
from vehclust_dask.job.spec import StudySpec
from vehclust_dask.job.trees import LINKAGE
from vehclust_dask.store.folders import open_arrays, read_array, read_table

#: Branches of a drawn tree.
TOP = 30


def draw_trees(
    folder: Path, study: StudySpec, clusterings: list[Clustered], synthetic: bool
) -> None:
    """Draw the top of every tree, what every DBSCAN gives, HDBSCAN's valleys and clusters.

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
        if spec.method == "ward":
            _draw_top(folder, study, parts[0], synthetic)
        if spec.method == "dbscan":
            _draw_grid(folder, study.name, parts[0], spec.metric, synthetic)
        if spec.method == "hdbscan":
            for one in parts:
                _draw_valleys(folder, study.name, one, spec.metric, synthetic)
                _draw_condensed(folder, study.name, one, spec.metric, synthetic)


def _draw_top(folder: Path, study: StudySpec, one: Clustered, synthetic: bool) -> None:
    from vehclust_dask.report.figure import write_figure
    from vehclust_dask.report.trees import Dendrogram

    (step,) = [step for step in one.earlier if step.kind == "ward"]
    linkage = read_array(step.folder / LINKAGE)
    k = _shown_cut(study, one)
    title = f"{study.name} / {one.name}"
    display = Dendrogram(linkage, TOP, k, "height of the merge", title, synthetic)
    write_figure(display, folder, f"dendrogram-{study.name}-{one.name}")


def _shown_cut(study: StudySpec, one: Clustered) -> int:
    """Return the cut that is marked: the featured one, else the largest that can be seen."""
    if study.featured is not None and study.featured[0] == one.name and study.featured[1]:
        return study.featured[1]
    return max((k for k in one.ks if k <= TOP // 2), default=one.ks[0])


def _draw_grid(folder: Path, study: str, one: Clustered, metric: str, synthetic: bool) -> None:
    from vehclust_dask.report.density import DensityMap, KDistance
    from vehclust_dask.report.figure import Display, write_figure

    (step,) = [step for step in one.earlier if step.kind == "density-grid"]
    title, stem = f"{study} / {one.part}", f"{study}-{one.part}"
    grid = read_table(step.folder / GRID)
    distances = read_table(step.folder / DISTANCES)
    figures: dict[str, Display] = {
        "dbscan-map": DensityMap(grid, metric, f"{title}: every DBSCAN", synthetic),
        "core-distances": KDistance(distances, metric, f"{title}: core distances", synthetic),
    }
    for word, display in figures.items():
        write_figure(display, folder, f"{word}-{stem}")


def _draw_valleys(folder: Path, study: str, one: Clustered, metric: str, synthetic: bool) -> None:
    from vehclust_dask.report.figure import write_figure
    from vehclust_dask.report.reachability import Reachability

    with open_arrays(one.step.folder / REACHABILITY) as stored:
        order, height = stored["order"], stored["height"]
    labels = one.column("labels", one.ks[0])
    title = f"{study} / {one.name}: reachability"
    display = Reachability(order, height, labels, metric, title, synthetic)
    write_figure(display, folder, f"reachability-{study}-{one.name}")


def _draw_condensed(folder: Path, study: str, one: Clustered, metric: str, synthetic: bool) -> None:
    from vehclust_dask.report.figure import write_figure
    from vehclust_dask.report.icicles import CondensedTree

    stored = read_table(one.step.folder / CONDENSED)
    if len(stored) < 2:
        return
    chosen = stored[stored["chosen"]].sort_values("label")["cluster"]
    names = {"cluster": "child", "birth": "lambda_val", "end": "lambda_end", "size": "child_size"}
    display = CondensedTree(
        stored.iloc[1:].rename(columns=names),
        chosen.tolist(),
        n_samples=int(stored["size"].iloc[0]),
        metric=metric,
        title=f"{study} / {one.name}: clusters by density",
        synthetic=synthetic,
    )
    write_figure(display, folder, f"condensed-{study}-{one.name}")
