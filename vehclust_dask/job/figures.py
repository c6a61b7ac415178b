"""Something to look at: the figures of a run, made from its tables and a few columns of its rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows
from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.dataset import Dataset, Say
from vehclust_dask.job.outlier_judging import judge_outliers
from vehclust_dask.job.outliers import Outliers
from vehclust_dask.job.reduction import Reduced, variance_curve
from vehclust_dask.job.silhouettes import Silhouette
from vehclust_dask.job.spec import ReportSpec, StudySpec
from vehclust_dask.job.tree_figures import draw_trees
from vehclust_dask.records import Blocks, Span
from vehclust_dask.store.steps import Step
from vehclust_dask.store.views import RowsView

#: Clusters that sheets are drawn for at most; density methods may find thousands.
MOST_SHEETS = 200


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What a study came to.

    Attributes
    ----------
    spec : StudySpec
    view : RowsView
    reduced : Reduced
    clusterings : list of Clustered
    scores : list of DataFrame
        Of every clustering, a row per number of clusters.
    featured : tuple of str and int, or None
        Name and number of clusters of the featured clustering.
    outliers : Outliers or None
    neighbours : tuple of Step
        Of the lists of nearest rows, one per metric.
    silhouettes : sequence of Silhouette
    """

    spec: StudySpec
    view: RowsView
    reduced: Reduced
    clusterings: list[Clustered]
    scores: list[pd.DataFrame]
    featured: tuple[str, int] | None
    outliers: Outliers | None = None
    neighbours: tuple[Step, ...] = ()
    silhouettes: Sequence[Silhouette] = ()

    def clustering(self, name: str) -> Clustered:
        """Return a clustering by its name."""
        return next(c for c in self.clusterings if c.name == name)


def draw_figures(
    folder: Path,
    results: list[StudyResult],
    scores: pd.DataFrame,
    dataset: Dataset,
    report: ReportSpec,
    say: Say,
) -> None:
    """Draw curves, sheets and animations of a run.

    Parameters
    ----------
    folder : Path
    results : list of StudyResult
    scores : DataFrame
    dataset : Dataset
    report : ReportSpec
    say : callable
    """
    began = time.perf_counter()
    _curves(folder, results, scores, dataset.synthetic)
    kept = dataset.samples
    if dataset.dropped:
        kept = kept.drop(index=list(dataset.dropped))
    paths = kept["path"].tolist() if "path" in kept else None
    for result in results:
        draw_trees(folder, result.spec, result.clusterings, dataset.synthetic)
        _animation(folder, result, paths, dataset.synthetic)
        if result.outliers is not None:
            _outliers(folder, result.outliers, dataset)
        if dataset.photos is not None and paths is not None and report.sheets != "none":
            _sheets(folder, result, dataset, paths, report, say)
    files = sum(1 for file in folder.rglob("*") if file.is_file())
    say(f"figures: {files} files, {time.perf_counter() - began:.1f} s")


def _curves(
    folder: Path, results: list[StudyResult], scores: pd.DataFrame, synthetic: bool
) -> None:
    from vehclust_dask.report.curves import ExplainedVariance, ScoresAgainstK, write_figure

    curves, chosen = {}, {}
    for result in results:
        pca = result.reduced.pca
        curve = None if pca is None else variance_curve(pca, result.spec.reduce.engine)
        if pca is None or curve is None:
            continue
        curves[result.spec.name] = curve
        chosen[result.spec.name] = pca.n_components_
    if curves:
        write_figure(
            ExplainedVariance(curves, chosen, synthetic=synthetic), folder, "explained-variance"
        )
    for study, part in scores.groupby("study", sort=False):
        display = ScoresAgainstK(part, synthetic=synthetic)
        write_figure(display, folder, f"scores-{study}")


def _animation(folder: Path, result: StudyResult, paths: list[str] | None, synthetic: bool) -> None:
    """Draw the first two columns over k, for the clustering with the most numbers of clusters."""
    from vehclust_dask.report.animation import animate_over_k
    from vehclust_dask.report.chosen import photo_order

    sweeps = [c for c in result.clusterings if len(c.ks) > 1]
    rows = result.reduced.rows
    if not sweeps or rows.n_features < 2:
        return
    sweep = max(sweeps, key=lambda c: len(c.ks))
    xy = np.concatenate(
        map_rows(rows.grid, two_columns, rows, name=f"plane-{result.spec.name}", on=rows)
    )
    labels = sweep.whole("labels")
    pca = result.reduced.pca
    shares = (
        (float(pca.explained_variance_ratio_[0]), float(pca.explained_variance_ratio_[1]))
        if pca is not None
        else (0.0, 0.0)
    )
    animate_over_k(
        xy,
        {k: labels[:, s] for s, k in enumerate(sweep.ks)},
        folder / f"over-k-{result.spec.name}.gif",
        explained=shares,
        synthetic=synthetic,
        centers={k: sweep.centers[s][:, :2] for s, k in enumerate(sweep.ks)},
        title=f"{result.spec.name}/{sweep.name}",
        order=None if paths is None else photo_order(paths),
    )


def two_columns(i: int, span: Span, rows: Blocks) -> NDArray[np.float32]:
    """Return the first two columns of a block."""
    return np.ascontiguousarray(rows.read(i)[:, :2])


def _outliers(folder: Path, found: Outliers, dataset: Dataset) -> None:
    """Draw the distribution of every score, and how well it finds what is known to be wrong."""
    from vehclust_dask.report.curves import write_figure
    from vehclust_dask.report.outliers import OutlierPrecision, ScoreHistograms

    title = f"{found.study}: outlier scores"
    shown = ScoreHistograms(
        found.scores, dict(found.spec.rules), title=title, synthetic=dataset.synthetic
    )
    write_figure(shown, folder, f"outliers-{found.study}")
    judged = judge_outliers(found, dataset.samples).dropna(subset=["question"])
    if len(judged):
        title = f"{found.study}: what outlier scores find"
        display = OutlierPrecision(judged, title=title, synthetic=dataset.synthetic)
        write_figure(display, folder, f"outlier-precision-{found.study}")


def _sheets(
    folder: Path,
    result: StudyResult,
    dataset: Dataset,
    paths: list[str],
    report: ReportSpec,
    say: Say,
) -> None:
    """Draw a contact sheet per cluster and the wall of all clusters."""
    from vehclust_dask.report.chosen import photo_order
    from vehclust_dask.report.sheets import overview_sheet, write_sheets

    order = photo_order(paths)
    for clustered, k in _with_sheets(result, report):
        if not 0 < k <= MOST_SHEETS:
            say(f"{result.spec.name}/{clustered.name}: no sheets for {k} clusters")
            continue
        out = folder / "sheets" / result.spec.name / f"{clustered.name}-k{k}"
        shared: dict[str, Any] = {
            "n_clusters": k,
            "title": f"{result.spec.name} / {clustered.name} / k = {k}",
            "synthetic": dataset.synthetic,
            "sq_dist": clustered.column("sq_dist", k),
            "order": order,
        }
        labels = clustered.column("labels", k)
        assert dataset.photos is not None, "sheets are asked for with photos only"
        overview_sheet(out, dataset.photos, paths, labels, **shared)
        write_sheets(
            out,
            dataset.photos,
            paths,
            labels,
            photos_per_sheet=report.photos_per_sheet,
            **shared,
        )


def _with_sheets(result: StudyResult, report: ReportSpec) -> list[tuple[Clustered, int]]:
    if report.sheets == "all":
        return [(c, k) for c in result.clusterings for k in c.ks]
    if result.featured is None:
        return []
    return [(result.clustering(result.featured[0]), result.featured[1])]
