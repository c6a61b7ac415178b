"""PCA and k-means: ours, scikit-learn's and dask-ml's on the same file, one thread each.

    python benchmarks/engines.py --rows 100000 --rounds 3

Each side starts from the file (npy, float32, page cache warm) and ends with its answer, in a process
of its own; ours and dask-ml's run out of core, scikit-learn's loads the file. k-means starts from the
same rows and stops by the same rule. The data are the demo's osnet set (synthetic).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pairs

COMPONENTS, CLUSTERS, MAX_ITER = 150, 30, 100


class FileBlocks:
    """Rows of an npy file, read block by block; kept for the next pass where there will be one."""

    def __init__(self, file: str, keep: bool = False) -> None:
        from vehclust_dask.records import RowGrid

        self.file, self.keep = file, keep
        shape = np.load(file, mmap_mode="r").shape
        self.grid = RowGrid.for_width((shape[0],), shape[1])
        self.n_features = int(shape[1])

    def read(self, i: int) -> np.ndarray:
        from vehclust_dask.cache import CACHE

        if not self.keep:
            return self._load(i)
        return CACHE.of(self.file, i, lambda: self._load(i), lambda X: X.nbytes)

    def _load(self, i: int) -> np.ndarray:
        span = self.grid.span(i)
        with open(self.file, "rb") as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            stream.seek(span.row0 * self.n_features * 4, 1)
            rows = np.fromfile(stream, np.float32, span.n_rows * self.n_features)
        return rows.reshape(span.n_rows, self.n_features)


def dask_rows(file: str) -> Any:
    import dask.array as da
    from dask import delayed

    blocks = FileBlocks(file)
    parts = [
        da.from_delayed(delayed(blocks.read)(i), (s.n_rows, blocks.n_features), dtype=np.float32)
        for i, s in enumerate(blocks.grid.spans())
    ]
    return da.concatenate(parts)


def pca_ours(file: str) -> float:
    from vehclust_dask.estimators import PCA

    return float(PCA(COMPONENTS).fit(FileBlocks(file)).explained_variance_.sum())


def pca_sklearn(file: str) -> float:
    from sklearn.decomposition import PCA

    model = PCA(COMPONENTS, svd_solver="covariance_eigh").fit(np.load(file))
    return float(model.explained_variance_.sum())


def pca_dask_ml(file: str) -> float:
    import dask
    from dask_ml.decomposition import IncrementalPCA

    X = dask_rows(file)
    with dask.config.set(scheduler="synchronous"):
        model = IncrementalPCA(COMPONENTS, batch_size=X.chunks[0][0], svd_solver="full").fit(X)
    return float(model.explained_variance_.sum())


def inertia_of(file: str, centers: np.ndarray) -> float:
    from vehclust_dask.kernels.assignment import assign
    from vehclust_dask.kernels.segments import Segments

    blocks = FileBlocks(file)
    segments = Segments.of([np.asarray(centers, dtype=np.float64)])
    return float(
        sum(assign(blocks.read(i), segments).sq_dist.sum() for i in range(blocks.grid.n_blocks))
    )


def kmeans_ours(file: str, start: np.ndarray) -> np.ndarray:
    from vehclust_dask.estimators import KMeans

    model = KMeans(CLUSTERS, init=start, max_iter=MAX_ITER).fit(FileBlocks(file, keep=True))
    return model.cluster_centers_


def kmeans_sklearn(file: str, start: np.ndarray) -> np.ndarray:
    from sklearn.cluster import KMeans

    model = KMeans(CLUSTERS, init=start, n_init=1, max_iter=MAX_ITER, algorithm="lloyd")
    return model.fit(np.load(file)).cluster_centers_


def kmeans_dask_ml(file: str, start: np.ndarray) -> np.ndarray:
    import dask
    from dask_ml.cluster import KMeans

    with dask.config.set(scheduler="synchronous"):
        X = dask_rows(file).persist()
        # Its tol is absolute: scikit-learn's, times the mean variance of a column.
        tol = 1e-4 * float(X.var(axis=0).mean().compute())
        return KMeans(CLUSTERS, init=start, max_iter=MAX_ITER, tol=tol).fit(X).cluster_centers_


PCA_SIDES = {"vehclust": pca_ours, "scikit-learn": pca_sklearn, "dask-ml": pca_dask_ml}
KMEANS_SIDES = {"vehclust": kmeans_ours, "scikit-learn": kmeans_sklearn, "dask-ml": kmeans_dask_ml}


def one_side(side: str, options: dict[str, Any]) -> None:
    from vehclust_dask.kernels.warm import warm_kernels

    if options["work"] == "pca":
        pairs.measured(lambda: PCA_SIDES[side](options["file"]), warm_kernels)
        return
    start = np.load(options["start"])
    found: list[np.ndarray] = []

    def work() -> float:
        found.append(KMEANS_SIDES[side](options["file"], start))
        return 0.0

    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        pairs.measured(work, warm_kernels)
    record = json.loads(said.getvalue())
    record["quality"] = inertia_of(options["file"], found[0])
    print(json.dumps(record))


def make_files(folder: Path, rows: int) -> tuple[str, str, str]:
    """Write descriptors, reduced rows and starting centers."""
    from vehclust_dask.demo import write_demo
    from vehclust_dask.estimators import PCA
    from vehclust_dask.store.sources import open_source

    made = write_demo(folder / "demo", rows=rows, photos=False, sets=["osnet"])
    source = open_source(made.out / "osnet.pickle")
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, source.n_features))
    step = 8192
    for a in range(0, rows, step):
        X[a : a + step] = source.read(a, min(a + step, rows))
    X.flush()
    pca = PCA(COMPONENTS).fit(FileBlocks(str(folder / "X.npy")))
    Z = np.lib.format.open_memmap(folder / "Z.npy", "w+", np.float32, (rows, COMPONENTS))
    for a in range(0, rows, step):
        Z[a : a + step] = pca.transform(np.asarray(X[a : a + step]))
    Z.flush()
    chosen = np.random.default_rng(0).choice(rows, CLUSTERS, replace=False)
    np.save(folder / "start.npy", np.asarray(Z[np.sort(chosen)]))
    return str(folder / "X.npy"), str(folder / "Z.npy"), str(folder / "start.npy")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side")
    parser.add_argument("--options", type=json.loads)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.options)
        return
    with tempfile.TemporaryDirectory() as folder:
        X, Z, start = make_files(Path(folder), asked.rows)
        print(f"{asked.rows:,} rows; {pairs.machine()}\n")
        sides = pairs.compare(__file__, list(PCA_SIDES), {"work": "pca", "file": X}, asked.rounds)
        print(pairs.table(f"PCA 512 -> {COMPONENTS}", sides, "variance kept"), "\n")
        options = {"work": "kmeans", "file": Z, "start": start}
        sides = pairs.compare(__file__, list(KMEANS_SIDES), options, asked.rounds)
        print(
            pairs.table(
                f"k-means, k = {CLUSTERS}, d = {COMPONENTS}, same start and stop", sides, "inertia"
            )
        )


if __name__ == "__main__":
    main()
