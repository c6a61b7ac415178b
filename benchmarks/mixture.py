"""Gaussian mixtures: ours in both precisions and scikit-learn's, the same steps from the same start.

    python -m benchmarks.mixture --rows 100000 --kinds full --keep work/bench

Rows are 70 standardised components. Every side starts from the file and makes ten steps of EM and
a last E step; scikit-learn loads the file and is given float32, once more float64. What each side
found is then judged by the mean log-likelihood of all rows, in float64.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import arguments, main
from benchmarks.files import FileBlocks, Files, make_once
from benchmarks.pairs import Comparison, Found, Goal, Options, Quality, Side, Table

CLUSTERS, COLUMNS, STEPS = 10, 70, 10
KINDS = ("full", "tied", "diag", "spherical")
OURS, FAST = "vehclust float64", "vehclust float32"
PEER = "scikit-learn float32"


def told(options: Options) -> dict[str, Any]:
    """Return where to begin, and no reason to stop before the end."""
    with np.load(options["start"]) as stored:
        return {
            "n_components": CLUSTERS,
            "covariance_type": options["kind"],
            "tol": 0.0,
            "max_iter": STEPS,
            "weights_init": stored["weights"],
            "means_init": stored["means"],
            "precisions_init": stored[options["kind"]],
        }


def ours(precision: str) -> Callable[[Options], Callable[[], Any]]:
    """Return our side in one precision."""

    def prepare(options: Options) -> Callable[[], Any]:
        from vehclust_dask.estimators import GaussianMixture
        from vehclust_dask.kernels.warm import warm_mixtures

        warm_mixtures()
        model = GaussianMixture(precision=precision, **told(options))
        return lambda: model.fit(FileBlocks.of(options["file"])).mixture_

    return prepare


def theirs(dtype: str) -> Callable[[Options], Callable[[], Any]]:
    """Return scikit-learn's side, given rows and a start of one precision."""

    def prepare(options: Options) -> Callable[[], Any]:
        from sklearn.mixture import GaussianMixture

        start = told(options)
        for name in ("weights_init", "means_init", "precisions_init"):
            start[name] = start[name].astype(dtype)

        def work() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                X = np.load(options["file"]).astype(dtype, copy=False)
                return GaussianMixture(**start).fit(X)

        return work

    return prepare


def judge(options: Options, found: Any) -> Quality:
    """Return the mean log-likelihood of all rows under what a side found."""
    from vehclust_dask.kernels.mixture import Mixture, factors_of, log_likelihood

    kind = options["kind"]
    if not isinstance(found, Mixture):
        covariances = np.asarray(found.covariances_, dtype=np.float64)
        weights, means = (np.asarray(a, np.float64) for a in (found.weights_, found.means_))
        found = Mixture(kind, weights, means, covariances, factors_of(covariances, kind))
    blocks = FileBlocks.of(options["file"])
    total = sum(log_likelihood(blocks.read(i), found) for i in range(blocks.grid.n_blocks))
    return {"mean log-likelihood": float(total / blocks.grid.n_rows)}


def _fast_ratio(found: Found) -> float:
    sides = (found.rounds.get(FAST), found.rounds.get(PEER))
    if sides[0] is None or sides[1] is None:
        return float("nan")
    return float(np.median([a.cpu / b.cpu for a, b in zip(*sides, strict=True)]))


def _goals(kind: str) -> tuple[Goal, ...]:
    if kind != "full":
        return ()
    return (
        Goal(f"CPU s, {OURS} / {PEER}", lambda found: found.ratio("cpu", PEER), 0.6),
        Goal(f"CPU s, {FAST} / {PEER}", _fast_ratio, 0.3),
    )


SIDES = (
    Side(OURS, ours("float64")),
    Side(FAST, ours("float32")),
    Side(PEER, theirs("float32")),
    Side("scikit-learn float64", theirs("float64")),
)
TABLES = {kind: Table(SIDES, judge, goals=_goals(kind)) for kind in KINDS}


def make_start(reduced: Path, out: Path) -> None:
    """Write a start of every kind: a k-means on all rows, taken as clusters."""
    from vehclust_dask.estimators import KMeans
    from vehclust_dask.estimators.em import hard_mixtures

    blocks = FileBlocks.of(str(reduced))
    centers = KMeans(CLUSTERS).fit(blocks).cluster_centers_
    parts = {}
    for kind in KINDS:
        (start,) = hard_mixtures(blocks, [centers], kind, 1e-6, "start")
        square = kind in ("full", "tied")
        turned = np.swapaxes(start.factors, -1, -2) if square else start.factors
        parts[kind] = start.factors @ turned if square else np.square(start.factors)
    with open(out, "wb") as file:
        np.savez(file, weights=start.weights, means=start.means, **parts)


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    made = files.features("osnet", asked.rows)
    reduced = files.reduced(made, COLUMNS)
    start = reduced.with_name(f"{reduced.stem}-mixtures.npz")
    make_once(start, lambda out: make_start(reduced, out))
    for kind in asked.kinds:
        options = {"file": str(reduced), "start": str(start), "kind": kind}
        title = (
            f"Gaussian mixture, {kind}, k = {CLUSTERS}, {COLUMNS} components of {made.title}, "
            f"{STEPS} steps from the same start"
        )
        yield Comparison(kind, title, options)


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=100_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    return main("mixture", TABLES, plan, parser, argv)


if __name__ == "__main__":
    run()
