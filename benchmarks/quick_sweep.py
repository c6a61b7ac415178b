"""A quick sweep over k = 2..50 against mini batches and faiss's default sample, k by k.

    python -m benchmarks.quick_sweep --rows 416314 --keep work/bench

Each side chooses its own starts, with its own defaults, and ends with labels of all rows for every
k. Inertia is that of all rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import sweep
from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files
from benchmarks.pairs import Comparison, Options, Side, Table, column_goal, ratio_goal

OURS, BATCHES = "vehclust, quick", "scikit-learn MiniBatchKMeans, each k"
FAISS = "faiss Kmeans, 256 rows a center, each k"


def ours(options: Options) -> Callable[[], sweep.Centers]:
    from vehclust_dask.estimators import KMeansSweep
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()

    def work() -> sweep.Centers:
        fitted = KMeansSweep(options["ks"], quick=True).fit(FileBlocks.of(options["file"]))
        return [fitted.models_[k].cluster_centers_ for k in options["ks"]]

    return work


def sklearn_batches(options: Options) -> Callable[[], sweep.Centers]:
    from sklearn.cluster import MiniBatchKMeans

    def work() -> sweep.Centers:
        X = np.load(options["file"])
        fits = (MiniBatchKMeans(k, random_state=k) for k in options["ks"])
        return [fit.fit(X).cluster_centers_ for fit in fits]

    return work


def faiss_sample(options: Options) -> Callable[[], sweep.Centers]:
    import faiss

    def work() -> sweep.Centers:
        X = np.load(options["file"])
        centers = []
        for k in options["ks"]:
            model = faiss.Kmeans(X.shape[1], k, seed=k)
            model.train(X)
            model.assign(X)
            centers.append(model.centroids)
        return centers

    return work


TABLES = {
    "quick": Table(
        (
            Side(OURS, ours),
            Side(BATCHES, sklearn_batches),
            Side(FAISS, faiss_sample, needs="faiss", told_kernel=True),
        ),
        sweep.judge,
        sweep.columns,
        goals=(
            ratio_goal("cpu", BATCHES, 0.5),
            column_goal("share of k, ours below", 1.0, side=BATCHES, at_least=True),
        ),
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    made = files.features("osnet", asked.rows)
    ks = list(range(sweep.KS.start, asked.last + 1))
    options = {"file": str(files.reduced(made, sweep.COMPONENTS)), "ks": ks}
    title = f"quick sweep, k = {ks[0]}..{ks[-1]}, {sweep.COMPONENTS} components of {made.title}"
    yield Comparison("quick", title, options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=416_314)
    parser.add_argument(
        "--last", type=int, default=sweep.KS[-1], help="largest k; default: %(default)s"
    )
    return main("quick_sweep", TABLES, plan, parser, argv)


if __name__ == "__main__":
    run()
