"""The 32 nearest rows of every row, beside faiss' exhaustive index.

    python -m benchmarks.neighbours --rows 20000 60000 416314 --keep work/bench
    python -m benchmarks.neighbours --data FEATURES.pickle

Rows are 150 standardised components. faiss measures in float32 and orders what it measured; ours
decides in float64. `lists equal to ours` is the share of rows whose nearest rows are the same set.
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
from benchmarks.pairs import Comparison, Options, Quality, Side, Table, ratio_goal

COMPONENTS, M = 150, 32
OURS, FAISS = "vehclust", "faiss IndexFlatL2"


def ours(options: Options) -> Callable[[], np.ndarray]:
    from vehclust_dask.estimators import Neighbours
    from vehclust_dask.kernels.warm import warm_kernels, warm_tiles

    warm_kernels()
    warm_tiles()
    return lambda: Neighbours(M).fit(FileBlocks.of(options["file"])).indices_


def faiss_flat(options: Options) -> Callable[[], np.ndarray]:
    import faiss

    def work() -> np.ndarray:
        X = np.load(options["file"])
        index = faiss.IndexFlatL2(X.shape[1])
        index.add(X)
        return index.search(X, M + 1)[1]

    return work


def others(lists: np.ndarray) -> np.ndarray:
    """Return lists of M without the row itself, which need not be the first where rows are equal."""
    if lists.shape[1] == M:
        return lists
    itself = lists == np.arange(len(lists))[:, None]
    # Where a row is not in its own list for want of room, the last entry goes.
    itself[~itself.any(axis=1), -1] = True
    return lists[~itself].reshape(len(lists), M)


def judge(options: Options, lists: np.ndarray) -> Quality:
    """Compare with our lists, which the first side leaves in a file."""
    mine = np.sort(others(lists), axis=1)
    file = Path(options["scratch"]) / f"lists-{options['rows']}.npy"
    told = options.get("ours")
    if told is None:
        np.save(file, mine)
        return {"lists": str(file)}
    same = (mine == np.load(told["lists"])).all(axis=1)
    return {"lists": told["lists"], "lists equal to ours": float(same.mean())}


def columns(judged: dict[str, Quality]) -> dict[str, dict[str, float]]:
    return {
        side: {"lists equal to ours": quality.get("lists equal to ours", 1.0)}
        for side, quality in judged.items()
    }


TABLES = {
    "neighbours": Table(
        (Side(OURS, ours), Side(FAISS, faiss_flat, needs="faiss", told_kernel=True)),
        judge,
        columns,
        goals=(ratio_goal("cpu", FAISS, 1.0),),
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    for rows in files.sizes(asked.rows):
        made = files.features("osnet", rows)
        options = {
            "file": str(files.reduced(made, asked.components)),
            "rows": rows,
            "scratch": str(files.scratch("neighbours")),
        }
        title = f"the {M} nearest rows, {asked.components} components of {made.title}"
        yield Comparison("neighbours", title, options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=[20_000, 60_000])
    parser.add_argument("--components", type=int, default=COMPONENTS, help="default: %(default)s")
    return exponents.told(main("neighbours", TABLES, plan, parser, argv))


if __name__ == "__main__":
    run()
