"""Exact Ward on all rows: the whole tree, beside fastcluster's and scikit-learn's.

    python -m benchmarks.ward --rows 5000 10000 20000 --keep work/bench
    python -m benchmarks.ward --data FEATURES.pickle

Rows are 150 standardised components. Every side ends with the heights of all merges and the labels
of the cut into 30 clusters. Heights are compared with ours one by one, in order. fastcluster's
linkage_vector keeps the rows alone; scikit-learn's keeps all distances, 8 bytes a pair, three times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import exponents
from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files
from benchmarks.pairs import Comparison, Options, Quality, Side, Table, column_goal

COMPONENTS, CLUSTERS = 150, 30
OURS, FASTCLUSTER, SKLEARN = "vehclust", "fastcluster linkage_vector", "scikit-learn"
#: Heights closer than this (relative) count as equal.
EQUAL = 1e-9
#: Heights of all merges, and labels of one cut.
Answer = tuple[np.ndarray, np.ndarray]


def ours(options: Options) -> Callable[[], Answer]:
    from vehclust_dask.estimators import Ward
    from vehclust_dask.kernels.warm import warm_kernels, warm_tiles

    warm_kernels()
    warm_tiles()

    def work() -> Answer:
        model = Ward(CLUSTERS).fit(FileBlocks.of(options["file"]))
        return model.linkage_[:, 2], model.labels_

    return work


def fastcluster_vector(options: Options) -> Callable[[], Answer]:
    import fastcluster
    from scipy.cluster.hierarchy import fcluster

    def work() -> Answer:
        tree = fastcluster.linkage_vector(np.load(options["file"]).astype(np.float64), "ward")
        return tree[:, 2], fcluster(tree, CLUSTERS, "maxclust")

    return work


def sklearn_ward(options: Options) -> Callable[[], Answer]:
    from sklearn.cluster import AgglomerativeClustering

    def work() -> Answer:
        model = AgglomerativeClustering(CLUSTERS, compute_full_tree=True, compute_distances=True)
        model.fit(np.load(options["file"]).astype(np.float64))
        return model.distances_, model.labels_

    return work


def judge(options: Options, answer: Answer) -> Quality:
    """Compare heights and labels with ours, which the first side leaves in a file."""
    from sklearn.metrics import adjusted_rand_score

    heights, labels = np.sort(answer[0]), answer[1]
    file = Path(options["scratch"]) / f"tree-{options['rows']}.npz"
    if "ours" not in options:
        np.savez(file, heights=heights, labels=labels)
        return {"height, relative difference": 0.0, "ARI to ours": 1.0}
    with np.load(file) as mine:
        off = np.abs(heights - mine["heights"]) / np.maximum(mine["heights"], heights[-1] * 1e-12)
        agreement = adjusted_rand_score(mine["labels"], labels)
    return {"height, relative difference": float(off.max()), "ARI to ours": float(agreement)}


TABLES = {
    "ward": Table(
        (
            Side(OURS, ours),
            Side(FASTCLUSTER, fastcluster_vector, needs="fastcluster", at_most=60_000),
            Side(SKLEARN, sklearn_ward, at_most=25_000),
        ),
        judge,
        goals=(column_goal("height, relative difference", EQUAL, side=FASTCLUSTER),),
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    for rows in files.sizes(asked.rows):
        made = files.features("osnet", rows)
        options = {
            "file": str(files.reduced(made, asked.components)),
            "rows": rows,
            "scratch": str(files.scratch("ward")),
        }
        title = f"Ward, the whole tree, {asked.components} components of {made.title}"
        yield Comparison("ward", title, options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=[5_000, 10_000, 20_000], rounds=1)
    parser.add_argument("--components", type=int, default=COMPONENTS, help="default: %(default)s")
    return exponents.told(main("ward", TABLES, plan, parser, argv))


if __name__ == "__main__":
    run()
