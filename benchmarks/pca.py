"""PCA from the pickle to the answer: ours out of core, peers with the file in memory.

    python -m benchmarks.pca --rows 416314 --keep work/bench

Two tables: 150 components of a set of 512 columns, and 250 of one of 2560 (``--wide-rows``). With
``--data`` both are made of the real set. Quality: the largest relative error of a variance against
float64 throughout.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.command import arguments, main
from benchmarks.files import Files, SourceBlocks
from benchmarks.pairs import Comparison, Options, Side, Table, ratio_goal

LEADING = 20


def ours(options: Options) -> Callable[[], Any]:
    from vehclust_dask.estimators import PCA
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()
    # Formats are imported when the first file is opened.
    SourceBlocks.of(options["file"])

    def work() -> np.ndarray:
        return PCA(options["n"]).fit(SourceBlocks.of(options["file"])).explained_variance_

    return work


def _loaded(file: str) -> np.ndarray:
    with open(file, "rb") as stream:
        return pickle.load(stream)


def faiss_matrix(options: Options) -> Callable[[], Any]:
    import faiss

    def work() -> np.ndarray:
        X = _loaded(options["file"])
        pca = faiss.PCAMatrix(X.shape[1], options["n"])
        # All rows, as the others take.
        pca.max_points_per_d = len(X)
        pca.train(X)
        # It keeps the eigenvalues of the scatter.
        return faiss.vector_to_array(pca.eigenvalues)[: options["n"]] / (len(X) - 1)

    return work


def sklearn_covariance(options: Options) -> Callable[[], Any]:
    from sklearn.decomposition import PCA

    def work() -> np.ndarray:
        model = PCA(options["n"], svd_solver="covariance_eigh").fit(_loaded(options["file"]))
        return model.explained_variance_

    return work


def sklearn_incremental(options: Options) -> Callable[[], Any]:
    from sklearn.decomposition import IncrementalPCA

    def work() -> np.ndarray:
        model = IncrementalPCA(options["n"], batch_size=8192).fit(_loaded(options["file"]))
        return model.explained_variance_

    return work


def _dask_rows(file: str) -> Any:
    from vehclust_dask.estimators.daskml import as_dask

    return as_dask(SourceBlocks.of(file))


def dask_ml_full(options: Options) -> Callable[[], Any]:
    import dask
    from dask_ml.decomposition import PCA

    def work() -> np.ndarray:
        with dask.config.set(scheduler="synchronous"):
            model = PCA(options["n"], svd_solver="full").fit(_dask_rows(options["file"]))
        return np.asarray(model.explained_variance_)

    return work


def dask_ml_incremental(options: Options) -> Callable[[], Any]:
    import dask
    from dask_ml.decomposition import IncrementalPCA

    def work() -> np.ndarray:
        X = _dask_rows(options["file"])
        with dask.config.set(scheduler="synchronous"):
            model = IncrementalPCA(options["n"], batch_size=X.chunks[0][0], svd_solver="full").fit(
                X
            )
        return np.asarray(model.explained_variance_)

    return work


def judge(options: Options, variances: np.ndarray) -> dict[str, float]:
    """Return the largest relative errors of the variances."""
    exact = np.load(options["exact"])[: options["n"]]
    error = np.abs(np.asarray(variances, dtype=np.float64) - exact) / exact
    return {
        f"error, first {LEADING}": float(error[:LEADING].max()),
        "error, all kept": float(error.max()),
    }


FAISS, COVARIANCE = "faiss PCAMatrix", "scikit-learn covariance_eigh"
SIDES = (
    Side("vehclust", ours),
    Side(FAISS, faiss_matrix, needs="faiss", told_kernel=True),
    Side(COVARIANCE, sklearn_covariance),
    Side("faiss, BLAS as it comes", faiss_matrix, needs="faiss", slow=True),
    Side("scikit-learn IncrementalPCA", sklearn_incremental, slow=True),
    Side("dask-ml PCA full", dask_ml_full, slow=True),
    Side("dask-ml IncrementalPCA full", dask_ml_incremental, slow=True),
)
TABLES = {
    "narrow": Table(SIDES, judge, goals=(ratio_goal("cpu", FAISS, 1.2),)),
    "wide": Table(
        SIDES,
        judge,
        goals=(ratio_goal("cpu", COVARIANCE, 0.8), ratio_goal("peak_mb", COVARIANCE, 0.2)),
    ),
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    for table, demo_set, rows, n in (
        ("narrow", "osnet", asked.rows, 150),
        ("wide", "efficientnet-b7", min(asked.wide_rows, asked.rows), 250),
    ):
        made = files.features(demo_set, rows)
        exact = files.variances(made)
        options = {"file": str(made.file), "exact": str(exact), "n": n}
        yield Comparison(table, f"PCA to {n} components, {made.title}", options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=416_314)
    parser.add_argument("--wide-rows", type=int, default=100_000, help="default: %(default)s")
    return main("pca", TABLES, plan, parser, argv)


if __name__ == "__main__":
    run()
