"""Gaussian mixtures: ours, in both precisions, and scikit-learn's on the same file, one thread each.

    python benchmarks/mixture.py --rows 100000 --rounds 3

Each side starts from the file (npy, float32, page cache warm) and ends with its parameters, in a
process of its own, after the same number of steps from the same explicit start; scikit-learn loads
the file and is given float32, once more float64. Every side ends with one more E step, for the
likelihood or the labels of the end. Quality is the mean log-likelihood of all rows
under the final parameters, in float64. The data are the demo's osnet set (synthetic), reduced.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pairs
from engines import FileBlocks

COMPONENTS, COLUMNS, STEPS = 10, 70, 10
KINDS = ("full", "tied", "diag", "spherical")


def options_of(start: str, kind: str) -> dict[str, Any]:
    """Return what all sides are told: where to begin, and no reason to stop before the end."""
    stored = np.load(start)
    return {
        "n_components": COMPONENTS,
        "covariance_type": kind,
        "tol": 0.0,
        "max_iter": STEPS,
        "weights_init": stored["weights"],
        "means_init": stored["means"],
        "precisions_init": stored[kind],
    }


def ours(file: str, start: str, kind: str, precision: str) -> Any:
    from vehclust_dask.estimators import GaussianMixture

    model = GaussianMixture(precision=precision, **options_of(start, kind))
    return model.fit(FileBlocks(file, keep=True)).mixture_


def theirs(file: str, start: str, kind: str, dtype: str) -> Any:
    from sklearn.mixture import GaussianMixture

    told = options_of(start, kind)
    for name in ("weights_init", "means_init", "precisions_init"):
        told[name] = told[name].astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(**told).fit(np.load(file).astype(dtype, copy=False))


SIDES = {
    "scikit-learn float32": lambda *given: theirs(*given, "float32"),
    "vehclust float64": lambda *given: ours(*given, "float64"),
    "vehclust float32": lambda *given: ours(*given, "float32"),
    "scikit-learn float64": lambda *given: theirs(*given, "float64"),
}


def likelihood(file: str, kind: str, found: Any) -> float:
    """Return the mean log-likelihood of all rows under what a side found."""
    from vehclust_dask.kernels.mixture import Mixture, factors_of, log_likelihood

    if not isinstance(found, Mixture):
        covariances = np.asarray(found.covariances_, dtype=np.float64)
        weights, means = (np.asarray(a, np.float64) for a in (found.weights_, found.means_))
        found = Mixture(kind, weights, means, covariances, factors_of(covariances, kind))
    blocks = FileBlocks(file)
    total = sum(log_likelihood(blocks.read(i), found) for i in range(blocks.grid.n_blocks))
    return total / blocks.grid.n_rows


def ready() -> None:
    """Import what both sides need and compile the kernels: neither is what is compared."""
    import sklearn.mixture

    import vehclust_dask.estimators
    from vehclust_dask.kernels.warm import warm_kernels

    assert sklearn.mixture, vehclust_dask.estimators
    warm_kernels()


def one_side(side: str, options: dict[str, Any]) -> None:
    found: list[Any] = []

    def work() -> float:
        found.append(SIDES[side](options["file"], options["start"], options["kind"]))
        return 0.0

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        pairs.measured(work, ready)
    record = json.loads(said.getvalue())
    record["quality"] = likelihood(options["file"], options["kind"], found[0])
    print(json.dumps(record))


def make_files(folder: Path, rows: int) -> tuple[str, str]:
    """Write reduced rows and a start of every kind: a k-means on all rows, taken as clusters."""
    from vehclust_dask.demo import write_demo
    from vehclust_dask.estimators import PCA, KMeans
    from vehclust_dask.estimators.em import hard_mixtures
    from vehclust_dask.store.sources import open_source

    made = write_demo(folder / "demo", rows=rows, photos=False, sets=["osnet"])
    source = open_source(made.out / "osnet.pickle")
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, source.n_features))
    Z = np.lib.format.open_memmap(folder / "Z.npy", "w+", np.float32, (rows, COLUMNS))
    spans = [(a, min(a + 8192, rows)) for a in range(0, rows, 8192)]
    for a, b in spans:
        X[a:b] = source.read(a, b)
    X.flush()
    pca = PCA(COLUMNS).fit(FileBlocks(str(folder / "X.npy")))
    for a, b in spans:
        Z[a:b] = pca.transform(np.asarray(X[a:b]))
    Z.flush()
    blocks = FileBlocks(str(folder / "Z.npy"))
    centers = KMeans(COMPONENTS).fit(blocks).cluster_centers_
    parts = {}
    for kind in KINDS:
        (start,) = hard_mixtures(blocks, [centers], kind, 1e-6, "start")
        square = kind in ("full", "tied")
        turned = np.swapaxes(start.factors, -1, -2) if square else start.factors
        parts[kind] = start.factors @ turned if square else np.square(start.factors)
    np.savez(folder / "start.npz", weights=start.weights, means=start.means, **parts)
    return str(folder / "Z.npy"), str(folder / "start.npz")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--side")
    parser.add_argument("--options", type=json.loads)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.options)
        return
    with tempfile.TemporaryDirectory() as folder:
        file, start = make_files(Path(folder), asked.rows)
        print(f"{asked.rows:,} rows; {pairs.machine()}\n")
        for kind in asked.kinds:
            options = {"file": file, "start": start, "kind": kind}
            sides = pairs.compare(__file__, list(SIDES), options, asked.rounds)
            title = f"{kind}, k = {COMPONENTS}, d = {COLUMNS}, {STEPS} steps from the same start"
            print(pairs.table(title, sides, "mean log-likelihood"), "\n")


if __name__ == "__main__":
    main()
