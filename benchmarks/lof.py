"""Local outlier factors of all rows, beside scikit-learn's.

    python -m benchmarks.lof --rows 5000 10000 20000 --keep work/bench
    python -m benchmarks.lof --data FEATURES.pickle

Rows are 150 standardised components; 20 neighbours. Factors are compared row by row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import exponents
from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files
from benchmarks.pairs import Comparison, Options, Quality, Side, Table, column_goal, ratio_goal

COMPONENTS, M = 150, 20
OURS, SKLEARN = "vehclust", "scikit-learn"


def ours(options: Options) -> Callable[[], np.ndarray]:
    from vehclust_dask.estimators import LocalOutlierFactor
    from vehclust_dask.kernels.warm import warm_kernels, warm_tiles

    warm_kernels()
    warm_tiles()
    model = LocalOutlierFactor(M)
    return lambda: model.fit(FileBlocks.of(options["file"])).negative_outlier_factor_


def sklearn_lof(options: Options) -> Callable[[], np.ndarray]:
    from sklearn.neighbors import LocalOutlierFactor

    def work() -> np.ndarray:
        X = np.load(options["file"]).astype(np.float64)
        return LocalOutlierFactor(M, n_jobs=1).fit(X).negative_outlier_factor_

    return work


def judge(options: Options, factors: np.ndarray) -> Quality:
    """Compare with our factors, which the first side leaves in a file."""
    if "ours" not in options:
        np.save(options["factors"], factors)
    mine = np.load(options["factors"])
    return {
        "factor, relative difference": float(np.abs(factors / mine - 1).max()),
        "rows above 1.5": int((factors < -1.5).sum()),
    }


TABLES = {
    "lof": Table(
        (Side(OURS, ours), Side(SKLEARN, sklearn_lof, at_most=60_000)),
        judge,
        goals=(
            ratio_goal("cpu", SKLEARN, 0.5),
            column_goal("factor, relative difference", 1e-6, side=SKLEARN),
        ),
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    for rows in files.sizes(asked.rows):
        made = files.features("osnet", rows)
        options = {
            "file": str(files.reduced(made, asked.components)),
            "rows": rows,
            "factors": str(files.scratch("lof") / f"factors-{rows}.npy"),
        }
        title = (
            f"local outlier factors, {M} neighbours, {asked.components} components of {made.title}"
        )
        yield Comparison("lof", title, options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=[5_000, 10_000, 20_000], rounds=1)
    parser.add_argument("--components", type=int, default=COMPONENTS, help="default: %(default)s")
    return exponents.told(main("lof", TABLES, plan, parser, argv))


if __name__ == "__main__":
    run()
