"""k-means, one k, the same start and the same stop for every side.

    python -m benchmarks.kmeans --rows 416314 --keep work/bench

Rows are 150 standardised components. Every side ends with labels and inertia; inertia and labels
are then measured anew, for all sides in the same way, from the centers.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files
from benchmarks.judging import EQUAL, assigned
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

COMPONENTS, CLUSTERS, MAX_ITER, TOL = 150, 30, 100, 1e-4
OURS, LLOYD = "vehclust", "scikit-learn lloyd"
#: Centers and the number of iterations.
Answer = tuple[np.ndarray, int]


def ours(options: Options) -> Callable[[], Answer]:
    from vehclust_dask.estimators import KMeans
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()

    def work() -> Answer:
        start = np.load(options["start"])
        model = KMeans(len(start), init=start, max_iter=MAX_ITER, tol=TOL)
        model.fit(FileBlocks.of(options["file"]))
        return model.cluster_centers_, model.n_iter_

    return work


def _fitted(kind: Any, options: Options, algorithm: str) -> Answer:
    start = np.load(options["start"])
    model = kind(
        len(start), init=start, n_init=1, max_iter=MAX_ITER, tol=TOL, algorithm=algorithm
    ).fit(np.load(options["file"]))
    return model.cluster_centers_, model.n_iter_


def sklearn_lloyd(options: Options) -> Callable[[], Answer]:
    from sklearn.cluster import KMeans

    return lambda: _fitted(KMeans, options, "lloyd")


def sklearn_elkan(options: Options) -> Callable[[], Answer]:
    from sklearn.cluster import KMeans

    return lambda: _fitted(KMeans, options, "elkan")


def sklearnex_lloyd(options: Options) -> Callable[[], Answer]:
    from daal4py import daalinit
    from sklearnex.cluster import KMeans

    # Its threads are not OpenMP's.
    daalinit(1)
    return lambda: _fitted(KMeans, options, "lloyd")


def faiss_kmeans(options: Options) -> Callable[[], Answer]:
    import faiss

    def work() -> Answer:
        X, start = np.load(options["file"]), np.load(options["start"])
        # It has no stop of its own: as many iterations as ours took; every row, no sample.
        n_iter = options["ours"]["iterations"]
        model = faiss.Kmeans(
            X.shape[1],
            len(start),
            niter=n_iter,
            max_points_per_centroid=len(X),
            min_points_per_centroid=1,
        )
        model.train(X, init_centroids=start)
        model.assign(X)
        return model.centroids, n_iter

    return work


def dask_ml_kmeans(options: Options) -> Callable[[], Answer]:
    import dask
    from dask_ml.cluster import KMeans

    from vehclust_dask.estimators.daskml import as_dask

    def work() -> Answer:
        start = np.load(options["start"])
        with dask.config.set(scheduler="synchronous"):
            X = as_dask(FileBlocks.of(options["file"])).persist()
            # Its tol is absolute: scikit-learn's, times the mean variance of a column.
            tol = TOL * float(X.var(axis=0).mean().compute())
            model = KMeans(len(start), init=start, max_iter=MAX_ITER, tol=tol).fit(X)
            model.labels_.compute()
        return model.cluster_centers_, int(model.n_iter_)

    return work


def judge(options: Options, answer: Answer) -> Quality:
    """Measure the centers; labels go to a file, to be compared with another side's."""
    centers, n_iter = answer
    inertia, labels = assigned(options["file"], [centers])
    sizes = np.bincount(labels, minlength=len(centers))
    file = (
        Path(options["scratch"])
        / f"labels-{hashlib.sha256(centers.tobytes()).hexdigest()[:12]}.npy"
    )
    np.save(file, labels)
    return {
        "inertia": float(inertia[0]),
        "iterations": int(n_iter),
        "smallest": int(sizes.min()),
        "labels": str(file),
    }


def columns(judged: dict[str, Quality]) -> Columns:
    """Set every side beside scikit-learn's Lloyd."""
    from sklearn.metrics import adjusted_rand_score

    theirs = judged.get(LLOYD)
    found: Columns = {}
    for side, quality in judged.items():
        found[side] = {"iterations": quality["iterations"], "inertia": quality["inertia"]}
        if theirs is None:
            continue
        found[side]["inertia / lloyd's - 1"] = quality["inertia"] / theirs["inertia"] - 1
        found[side]["ARI to lloyd"] = adjusted_rand_score(
            np.load(theirs["labels"]), np.load(quality["labels"])
        )
    return found


TABLES = {
    "kmeans": Table(
        (
            Side(OURS, ours),
            Side(LLOYD, sklearn_lloyd),
            Side("scikit-learn elkan", sklearn_elkan),
            Side("scikit-learn-intelex lloyd", sklearnex_lloyd, needs="sklearnex"),
            Side("faiss Kmeans, all rows", faiss_kmeans, needs="faiss", told_kernel=True),
            Side("faiss, BLAS as it comes", faiss_kmeans, needs="faiss", slow=True),
            Side("dask-ml KMeans", dask_ml_kmeans, slow=True),
        ),
        judge,
        columns,
        goals=(
            ratio_goal("cpu", LLOYD, 0.6),
            column_goal("inertia / lloyd's - 1", EQUAL),
            column_goal("ARI to lloyd", 0.999, at_least=True),
        ),
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    made = files.features("osnet", asked.rows)
    reduced = files.reduced(made, COMPONENTS)
    options = {
        "file": str(reduced),
        "start": str(files.start(reduced, CLUSTERS)),
        "scratch": str(files.scratch("kmeans")),
    }
    title = f"k-means, k = {CLUSTERS}, {COMPONENTS} components of {made.title}, same start and stop"
    yield Comparison("kmeans", title, options)


def run(argv: list[str] | None = None) -> Any:
    return main("kmeans", TABLES, plan, arguments(__doc__, rows=416_314), argv)


if __name__ == "__main__":
    run()
