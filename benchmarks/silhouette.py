"""Exact silhouettes of all rows: one clustering, and four of them in one pass over all pairs.

    python -m benchmarks.silhouette --keep work/bench
    python -m benchmarks.silhouette --keep work/bench --rows 416314 --rounds 1

The second command measures the whole case, by ours alone. Errors are those of 64 rows, against float64
differences.
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
from benchmarks.pairs import Comparison, Options, Quality, Side, Table, column_goal, ratio_goal

COMPONENTS, PASSES = 150, 3
#: Clusters of the four clusterings.
CLUSTERS = (30, 10, 20, 50)
#: Above so many rows scikit-learn is left out; so many rows are judged.
LARGE, JUDGED = 50_000, 64
OURS, SKLEARN = "vehclust", "scikit-learn"


def ours(options: Options) -> Callable[[], np.ndarray]:
    from vehclust_dask.estimators import silhouette_samples
    from vehclust_dask.kernels.warm import warm_silhouettes, warm_tiles

    warm_silhouettes()
    warm_tiles()
    return lambda: silhouette_samples(FileBlocks.of(options["file"]), _labels(options))


def sklearn_silhouettes(options: Options) -> Callable[[], np.ndarray]:
    from sklearn.metrics import silhouette_samples

    def work() -> np.ndarray:
        X = np.load(options["file"])
        return np.column_stack([silhouette_samples(X, column) for column in _labels(options).T])

    return work


def _labels(options: Options) -> np.ndarray:
    labels: np.ndarray = np.load(options["labels"])[:, : options["clusterings"]]
    return labels


def judge(options: Options, values: np.ndarray) -> Quality:
    X, labels = np.load(options["file"], mmap_mode="r"), _labels(options)
    wrong = 0.0
    for i in np.linspace(0, len(X) - 1, JUDGED).astype(int):
        distances = np.sqrt(np.square(X - X[i].astype(np.float64)).sum(axis=1))
        for s in range(labels.shape[1]):
            exact = silhouette_of(distances, labels[:, s], int(labels[i, s]))
            wrong = max(wrong, abs(float(values[i, s]) - exact))
    return {"mean": float(values[:, 0].mean()), "largest error": wrong}


def silhouette_of(distances: np.ndarray, labels: np.ndarray, own: int) -> float:
    """Return the silhouette of a row from its distances to all rows, itself among them."""
    sums, counts = np.bincount(labels, weights=distances), np.bincount(labels)
    if counts[own] == 1:
        return 0.0
    with np.errstate(invalid="ignore"):
        means = sums / counts
    a, means[own] = sums[own] / (counts[own] - 1), np.inf
    b = np.nanmin(means)
    return float((b - a) / max(a, b))


def table(*sides: Side) -> Table:
    compared = (ratio_goal("cpu", SKLEARN, 0.2),) if len(sides) > 1 else ()
    return Table(sides, judge, goals=(*compared, column_goal("largest error", 1e-5)))


TABLES = {
    "silhouette": table(Side(OURS, ours), Side(SKLEARN, sklearn_silhouettes)),
    "large": table(Side(OURS, ours)),
}


def make_labels(files: Files, reduced: Path) -> Path:
    """Write the labels of four clusterings, a column each."""

    def make(out: Path) -> None:
        from vehclust_dask.estimators import KMeans

        columns = []
        for k in CLUSTERS:
            start = np.load(files.start(reduced, k))
            fitted = KMeans(k, init=start, max_iter=PASSES).fit(FileBlocks.of(str(reduced)))
            columns.append(assigned(str(reduced), [fitted.cluster_centers_])[1])
        with open(out, "wb") as file:
            np.save(file, np.column_stack(columns))

    file = reduced.with_name(f"{reduced.stem}-labels-of-four.npy")
    make_once(file, make)
    return file


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    made = files.features("osnet", asked.rows)
    reduced = files.reduced(made, COMPONENTS)
    labels = make_labels(files, reduced)
    for n in (1, len(CLUSTERS)):
        ks = ", ".join(str(k) for k in CLUSTERS[:n])
        options = {"file": str(reduced), "labels": str(labels), "clusterings": n}
        title = f"silhouettes, k = {ks}, {COMPONENTS} components of {made.title}"
        yield Comparison("large" if asked.rows > LARGE else "silhouette", title, options)


def run(argv: list[str] | None = None) -> Any:
    return main("silhouette", TABLES, plan, arguments(__doc__, rows=20_000), argv)


if __name__ == "__main__":
    run()
