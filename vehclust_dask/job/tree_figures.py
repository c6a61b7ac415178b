"""The figures of Ward's trees and of density methods, from their steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.density import CONDENSED, DISTANCES, GRID, REACHABILITY, grid_step
from vehclust_dask.job.spec import StudySpec
from vehclust_dask.job.trees import LINKAGE, tree_step
from vehclust_dask.store.folders import open_arrays, read_array, read_table

if TYPE_CHECKING:
    import pandas as pd

    from vehclust_dask.report.figure import Display

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
    from vehclust_dask.report.figure import write_figure

    for (word, name), display in tree_displays(study, clusterings, synthetic).items():
        write_figure(display, folder, f"{word}-{study.name}-{name}")


def tree_displays(
    study: StudySpec, clusterings: list[Clustered], synthetic: bool
) -> dict[tuple[str, str], Display]:
    """Return the figures of a study's trees.

    Parameters
    ----------
    study : StudySpec
    clusterings : list of Clustered
        Of the study; those of other methods have no such figures.
    synthetic : bool

    Returns
    -------
    dict of (str, str) to Display
        By what it shows (``dendrogram``, ``dbscan-map``, ``core-distances``, ``reachability``,
        ``condensed``) and the name of the clustering, or of the part of the job that gives several.
    """
    found: dict[tuple[str, str], Display] = {}
    for spec in study.cluster:
        parts = [one for one in clusterings if one.part == spec.name]
        if spec.method == "ward" and parts:
            found["dendrogram", parts[0].name] = _top(study, parts[0], synthetic)
        if spec.method == "dbscan" and parts:
            step = grid_step(spec, parts[0].step)
            grid, distances = read_table(step.folder / GRID), read_table(step.folder / DISTANCES)
            found |= _grid(study.name, spec.name, spec.metric, grid, distances, synthetic)
        if spec.method == "hdbscan":
            for one in parts:
                found["reachability", one.name] = _valleys(study.name, one, spec.metric, synthetic)
                condensed = _condensed(study.name, one, spec.metric, synthetic)
                if condensed is not None:
                    found["condensed", one.name] = condensed
    return found


def _top(study: StudySpec, one: Clustered, synthetic: bool) -> Display:
    from vehclust_dask.report.trees import Dendrogram

    linkage = read_array(tree_step(one.step).folder / LINKAGE)
    k = _shown_cut(study, one)
    title = f"{study.name} / {one.name}"
    return Dendrogram(linkage, TOP, k, "height of the merge", title, synthetic)


def _shown_cut(study: StudySpec, one: Clustered) -> int:
    """Return the cut that is marked: the featured one, else the largest that can be seen."""
    if study.featured is not None and study.featured[0] == one.name and study.featured[1]:
        return study.featured[1]
    return max((k for k in one.ks if k <= TOP // 2), default=one.ks[0])


def _grid(
    study: str,
    part: str,
    metric: str,
    grid: pd.DataFrame,
    distances: pd.DataFrame,
    synthetic: bool,
) -> dict[tuple[str, str], Display]:
    from vehclust_dask.report.density import DensityMap, KDistance

    title = f"{study} / {part}"
    return {
        ("dbscan-map", part): DensityMap(grid, metric, f"{title}: every DBSCAN", synthetic),
        ("core-distances", part): KDistance(
            distances, metric, f"{title}: core distances", synthetic
        ),
    }


def _valleys(study: str, one: Clustered, metric: str, synthetic: bool) -> Display:
    from vehclust_dask.report.reachability import Reachability

    with open_arrays(one.step.folder / REACHABILITY) as stored:
        order, height = stored["order"], stored["height"]
    labels = one.column("labels", one.ks[0])
    title = f"{study} / {one.name}: reachability"
    return Reachability(order, height, labels, metric, title, synthetic)


def _condensed(study: str, one: Clustered, metric: str, synthetic: bool) -> Display | None:
    """Return the tree that HDBSCAN chose from, None where nothing came apart."""
    from vehclust_dask.report.icicles import CondensedTree

    stored = read_table(one.step.folder / CONDENSED)
    if len(stored) < 2:
        return None
    chosen = stored[stored["chosen"]].sort_values("label")["cluster"]
    names = {"cluster": "child", "birth": "lambda_val", "end": "lambda_end", "size": "child_size"}
    return CondensedTree(
        stored.iloc[1:].rename(columns=names),
        chosen.tolist(),
        n_samples=int(stored["size"].iloc[0]),
        metric=metric,
        title=f"{study} / {one.name}: clusters by density",
        synthetic=synthetic,
    )
