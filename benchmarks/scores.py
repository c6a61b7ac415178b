"""Calinski-Harabasz and Davies-Bouldin of one clustering of all rows.

    python -m benchmarks.scores --rows 416314 --keep work/bench

Ours makes the passes that a job makes: range of the rows, exact means of the labels, spread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files, make_once
from benchmarks.judging import assigned
from benchmarks.pairs import (
    Columns,
    Comparison,
    Options,
    Quality,
    Side,
    Table,
    column_goal,
    ratio_goal,
)

COMPONENTS, CLUSTERS, PASSES = 150, 30, 10
OURS, SKLEARN = "vehclust", "scikit-learn"
Scores = tuple[float, float]


def ours(options: Options) -> Callable[[], Scores]:
    from vehclust_dask.blocks import reduce_rows
    from vehclust_dask.estimators.lloyd import RowRange
    from vehclust_dask.job.scoring import MeansPass, SpreadPass
    from vehclust_dask.kernels.kmeans import integers_to_centers, quantum_scale
    from vehclust_dask.kernels.scores import calinski_harabasz, davies_bouldin
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()

    def work() -> Scores:
        rows = FileBlocks.of(options["file"])
        labels = FileBlocks.of(options["labels"], rows.grid)
        offsets = np.array([0, options["k"]], np.int64)
        extent = RowRange.of(rows, "scores")
        scale = quantum_scale(extent.largest, extent.n)
        one = MeansPass(labels, offsets, scale, rows.n_features)
        sums, counts = reduce_rows(rows, one, name="means")
        nowhere = np.zeros((options["k"], rows.n_features))
        means = integers_to_centers(sums, counts, scale, nowhere)
        spread = reduce_rows(rows, SpreadPass(labels, offsets, means), name="spread")
        return (
            calinski_harabasz(spread.counts, means, spread.sq_distance),
            davies_bouldin(spread.counts, means, spread.distance),
        )

    return work


def sklearn_scores(options: Options) -> Callable[[], Scores]:
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

    def work() -> Scores:
        X, labels = np.load(options["file"]), np.load(options["labels"])[:, 0]
        return float(calinski_harabasz_score(X, labels)), float(davies_bouldin_score(X, labels))

    return work


def judge(options: Options, scores: Scores) -> Quality:
    return {"CH": scores[0], "DB": scores[1]}


def columns(judged: dict[str, Quality]) -> Columns:
    """Add the difference to scikit-learn's, relative."""
    found: Columns = {side: dict(quality) for side, quality in judged.items()}
    for side, quality in found.items():
        for name in ("CH", "DB"):
            theirs = judged.get(SKLEARN, {}).get(name, float("nan"))
            quality[f"{name}, relative difference"] = abs(judged[side][name] / theirs - 1)
    return found


TABLES = {
    "scores": Table(
        (Side(OURS, ours), Side(SKLEARN, sklearn_scores)),
        judge,
        columns,
        goals=(
            ratio_goal("cpu", SKLEARN, 0.2),
            column_goal("CH, relative difference", 1e-4),
            column_goal("DB, relative difference", 1e-4),
        ),
    )
}


def make_labels(files: Files, reduced: Path) -> Path:
    """Write the labels of a clustering, a column as the store has them."""
    start = np.load(files.start(reduced, CLUSTERS))

    def make(out: Path) -> None:
        from vehclust_dask.estimators import KMeans

        fitted = KMeans(CLUSTERS, init=start, max_iter=PASSES).fit(FileBlocks.of(str(reduced)))
        _, labels = assigned(str(reduced), [fitted.cluster_centers_])
        with open(out, "wb") as file:
            np.save(file, labels.astype(np.int16)[:, None])

    file = reduced.with_name(f"{reduced.stem}-labels-{CLUSTERS}.npy")
    make_once(file, make)
    return file


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    made = files.features("osnet", asked.rows)
    reduced = files.reduced(made, COMPONENTS)
    labels = make_labels(files, reduced)
    options = {"file": str(reduced), "labels": str(labels), "k": CLUSTERS}
    title = f"CH and DB, k = {CLUSTERS}, {COMPONENTS} components of {made.title}"
    yield Comparison("scores", title, options)


def run(argv: list[str] | None = None) -> Any:
    return main("scores", TABLES, plan, arguments(__doc__, rows=416_314), argv)


if __name__ == "__main__":
    run()
