"""DBSCAN and HDBSCAN on all rows, and every setting of DBSCAN at once, beside the peers.

    python -m benchmarks.density --rows 5000 10000 20000 --keep work/bench
    python -m benchmarks.density --data FEATURES.pickle --tables dbscan

Rows are 150 standardised components. DBSCAN's eps is the one that the grid finds best for
min_samples = 10 on these rows, so that no side has nothing to do. The grid is 40 values of eps by
four of min_samples, from one neighbour pass and one tree; it stands beside single fits of the
peers, which would need 160. Noise and clusters are compared with ours; where a border row belongs
depends on the order of rows in the peers, so partitions may differ by a few rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import exponents
from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files, make_once
from benchmarks.pairs import Comparison, Options, Quality, Side, Table, column_goal, ratio_goal

COMPONENTS, SAMPLES, CLUSTER_SIZE = 150, 10, 50
GRID = (5, 10, 20, 32)
OURS, WHOLE = "vehclust DBSCAN", "vehclust, whole grid"
SKLEARN, INTEL = "scikit-learn DBSCAN", "scikit-learn-intelex DBSCAN"
OUR_HDBSCAN, HDBSCAN, SKLEARN_HDBSCAN = "vehclust HDBSCAN", "hdbscan", "scikit-learn HDBSCAN"
Labels = np.ndarray


def warm() -> None:
    from vehclust_dask.kernels.warm import warm_kernels, warm_tiles

    warm_kernels()
    warm_tiles()


def ours_dbscan(options: Options) -> Callable[[], Labels]:
    from vehclust_dask.estimators import DBSCAN

    warm()
    model = DBSCAN(options["eps"], min_samples=SAMPLES)
    return lambda: model.fit(FileBlocks.of(options["file"])).labels_


def whole_grid(options: Options) -> Callable[[], Labels]:
    """Look at every setting, then take the labels of the one that the others are asked for."""
    from vehclust_dask.estimators import DensityTree

    warm()

    def work() -> Labels:
        tree = DensityTree(max(GRID)).fit(FileBlocks.of(options["file"]))
        tree.grid(GRID)
        return tree.dbscan(options["eps"], SAMPLES)

    return work


def sklearn_dbscan(options: Options) -> Callable[[], Labels]:
    from sklearn.cluster import DBSCAN

    model = DBSCAN(eps=options["eps"], min_samples=SAMPLES)
    return lambda: model.fit(np.load(options["file"])).labels_


def intel_dbscan(options: Options) -> Callable[[], Labels]:
    from daal4py import daalinit
    from sklearnex.cluster import DBSCAN

    # Its threads are not OpenMP's.
    daalinit(1)
    model = DBSCAN(eps=options["eps"], min_samples=SAMPLES)
    return lambda: model.fit(np.load(options["file"])).labels_


def ours_hdbscan(options: Options) -> Callable[[], Labels]:
    from vehclust_dask.estimators import HDBSCAN

    warm()
    model = HDBSCAN(CLUSTER_SIZE, SAMPLES)
    return lambda: model.fit(FileBlocks.of(options["file"])).labels_


def hdbscan_package(options: Options) -> Callable[[], Labels]:
    import hdbscan

    # It does not count the row itself.
    model = hdbscan.HDBSCAN(
        min_cluster_size=CLUSTER_SIZE,
        min_samples=SAMPLES - 1,
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
    )
    return lambda: model.fit(np.load(options["file"]).astype(np.float64)).labels_


def sklearn_hdbscan(options: Options) -> Callable[[], Labels]:
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(min_cluster_size=CLUSTER_SIZE, min_samples=SAMPLES, n_jobs=1, copy=True)
    return lambda: model.fit(np.load(options["file"]).astype(np.float64)).labels_


def judge(options: Options, labels: Labels) -> Quality:
    """Compare with our labels, which the first side leaves in a file."""
    from sklearn.metrics import adjusted_rand_score

    if "ours" not in options:
        np.save(options["labels"], labels)
    mine = np.load(options["labels"])
    return {
        "clusters": int(labels.max()) + 1,
        "noise": float((labels < 0).mean()),
        "noise differs": float(((labels < 0) != (mine < 0)).mean()),
        "ARI to ours": float(adjusted_rand_score(mine, labels)),
    }


TABLES = {
    "dbscan": Table(
        (
            Side(OURS, ours_dbscan),
            Side(WHOLE, whole_grid),
            Side(SKLEARN, sklearn_dbscan, at_most=60_000),
            Side(INTEL, intel_dbscan, needs="sklearnex", at_most=60_000),
        ),
        judge,
        goals=(
            ratio_goal("cpu", INTEL, 1.0),
            column_goal("noise differs", 1e-3, side=SKLEARN),
        ),
    ),
    "hdbscan": Table(
        (
            Side(OUR_HDBSCAN, ours_hdbscan),
            Side(HDBSCAN, hdbscan_package, needs="hdbscan", at_most=60_000),
            Side(SKLEARN_HDBSCAN, sklearn_hdbscan, at_most=25_000),
        ),
        judge,
        goals=(
            ratio_goal("cpu", HDBSCAN, 0.2),
            column_goal("ARI to ours", 0.999, side=HDBSCAN, at_least=True),
        ),
    ),
}


def make_setting(reduced: Path, out: Path) -> None:
    """Write the eps of the best setting of one ``min_samples``."""
    from vehclust_dask.estimators import DensityTree
    from vehclust_dask.estimators.density import best_setting

    tree = DensityTree(SAMPLES).fit(FileBlocks.of(str(reduced)))
    out.write_text(json.dumps(float(best_setting(tree.grid((SAMPLES,)), SAMPLES)["eps"])))


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    scratch = files.scratch("density")
    for rows in files.sizes(asked.rows):
        made = files.features("osnet", rows)
        reduced = files.reduced(made, asked.components)
        setting = reduced.with_name(f"{reduced.stem}-eps-{SAMPLES}.json")
        make_once(setting, lambda out, reduced=reduced: make_setting(reduced, out))
        options = {
            "file": str(reduced),
            "rows": rows,
            "eps": json.loads(setting.read_text()),
        }
        on = f"{asked.components} components of {made.title}"
        titles = {
            "dbscan": f"DBSCAN, eps {options['eps']:g}, min_samples {SAMPLES}, {on}",
            "hdbscan": f"HDBSCAN, min_cluster_size {CLUSTER_SIZE}, min_samples {SAMPLES}, {on}",
        }
        for table in asked.tables:
            labels = str(scratch / f"{table}-{rows}.npy")
            yield Comparison(table, titles[table], options | {"labels": labels})


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=[5_000, 10_000, 20_000], rounds=1)
    parser.add_argument("--components", type=int, default=COMPONENTS, help="default: %(default)s")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    return exponents.told(main("density", TABLES, plan, parser, argv))


if __name__ == "__main__":
    run()
