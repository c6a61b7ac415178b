"""k-means for k = 2..50 to the same stop: ours in shared passes, scikit-learn's one by one.

    python -m benchmarks.sweep --rows 416314 --rounds 1 --keep work/bench

Each side chooses its own starts, within the time. An inertia of ours counts as at most theirs up to
1e-6 of it: two fits that come to the same optimum stop a little short of it at different places.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files
from benchmarks.judging import against, assigned
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

COMPONENTS, MAX_ITER, TOL = 150, 100, 1e-4
KS = range(2, 51)
OURS, LLOYD = "vehclust", "scikit-learn lloyd, each k"
Centers = list[np.ndarray]


def ours(options: Options) -> Callable[[], Centers]:
    from vehclust_dask.estimators import KMeansSweep
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()

    def work() -> Centers:
        sweep = KMeansSweep(options["ks"], max_iter=MAX_ITER, tol=TOL)
        sweep.fit(FileBlocks.of(options["file"]))
        return [sweep.models_[k].cluster_centers_ for k in options["ks"]]

    return work


def sklearn_lloyd(options: Options) -> Callable[[], Centers]:
    from sklearn.cluster import KMeans

    def work() -> Centers:
        X = np.load(options["file"])
        fits = (
            KMeans(k, n_init=1, max_iter=MAX_ITER, tol=TOL, algorithm="lloyd", random_state=k)
            for k in options["ks"]
        )
        return [fit.fit(X).cluster_centers_ for fit in fits]

    return work


def judge(options: Options, centers: Centers) -> Quality:
    """Measure the inertia of every k."""
    inertia, _ = assigned(options["file"], centers)
    return {"inertia": inertia.tolist(), "ks": list(options["ks"])}


def columns(judged: dict[str, Quality]) -> Columns:
    """Set ours beside every other side, k by k."""
    mine = next(iter(judged.values()))
    found: Columns = {}
    for side, quality in judged.items():
        found[side] = {"inertia, largest k": quality["inertia"][-1]}
        if quality is not mine:
            found[side] |= against(mine["inertia"], quality["inertia"])
    return found


TABLES = {
    "sweep": Table(
        (Side(OURS, ours), Side(LLOYD, sklearn_lloyd)),
        judge,
        columns,
        goals=(
            ratio_goal("cpu", LLOYD, 0.3),
            column_goal("share of k, ours at most", 0.9, side=LLOYD, at_least=True),
        ),
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    made = files.features("osnet", asked.rows)
    ks = list(range(KS.start, asked.last + 1))
    options = {"file": str(files.reduced(made, COMPONENTS)), "ks": ks}
    title = f"k = {ks[0]}..{ks[-1]}, {COMPONENTS} components of {made.title}, own starts"
    yield Comparison("sweep", title, options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=416_314)
    parser.add_argument("--last", type=int, default=KS[-1], help="largest k; default: %(default)s")
    return main("sweep", TABLES, plan, parser, argv)


if __name__ == "__main__":
    run()
