"""How near the demo's descriptor sets come to what is published about the case, as a markdown table.

    python benchmarks/calibration.py --rows 100000

The sets are written into a temporary folder (15 kB a row for all four, one set at a time) and read
block by block: one pass gives ranges, means and every spectrum, a second one the rows for k-means.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pairs
import published
from published import PUBLISHED, ROWS, Published

from vehclust_dask.demo import descriptors, write_demo
from vehclust_dask.estimators import PCA, KMeansSweep
from vehclust_dask.kernels.scores import calinski_harabasz, davies_bouldin, spread_of
from vehclust_dask.records import RowGrid
from vehclust_dask.store.sources import open_source

#: How far a mean and an extreme may lie off, a share of variance in points, a score as a factor.
MEAN_SHARE, EXTREME_SHARE, POINTS, FACTOR = 0.10, 0.15, 0.03, 1.3
#: Of every published curve so many counts are shown, besides the one that is farthest off.
SHOWN_COUNTS = 5


@dataclass(frozen=True)
class Check:
    """One published figure beside the twin's."""

    target: str
    published: float
    twin: float
    met: bool
    decimals: int = 3

    def line(self, name: str) -> str:
        """Return a row of the table."""
        numbers = f"{self.published:,.{self.decimals}f} | {self.twin:,.{self.decimals}f}"
        return f"| {name} | {self.target} | {numbers} | {'met' if self.met else '**missed**'} |"


class FileBlocks:
    """A descriptor file as blocks of rows."""

    def __init__(self, file: Path) -> None:
        self.source = open_source(file)
        self.n_features = self.source.n_features
        self.grid = RowGrid.for_width((self.source.n_rows,), self.n_features)

    def read(self, i: int) -> np.ndarray:
        span = self.grid.span(i)
        return self.source.read(span.row0, span.row0 + span.n_rows)


def within_factor(twin: float, target: float) -> bool:
    return target / FACTOR <= twin <= target * FACTOR


def value_checks(raw: PCA, target: Published) -> Iterator[Check]:
    moments = raw.moments_
    low, mean, high = target.values
    found = float(moments.minimum.min())
    yield Check("smallest value", low, found, abs(found - low) <= EXTREME_SHARE * abs(low))
    found = float(moments.mean.mean())
    yield Check("mean value", mean, found, abs(found - mean) <= MEAN_SHARE * abs(mean))
    found = float(moments.maximum.max())
    yield Check("largest value", high, found, abs(found - high) <= EXTREME_SHARE * abs(high))


def variance_checks(pca: PCA, curve: dict[int, float], columns: str) -> Iterator[Check]:
    """Compare a curve at all its counts; show some of them and the one farthest off."""
    shares = pca.spectrum_.cumsum() / pca.spectrum_.sum()
    checks = {
        count: Check(
            f"variance, {count} components, {columns}",
            share,
            float(shares[count - 1]),
            abs(shares[count - 1] - share) <= POINTS,
        )
        for count, share in curve.items()
    }
    counts = list(curve)
    farthest = max(counts, key=lambda c: abs(checks[c].twin - checks[c].published))
    step = max(1, -(-len(counts) // SHOWN_COUNTS))
    for count in sorted({*counts[::step], counts[-1], farthest}):
        yield checks[count]
    off = abs(checks[farthest].twin - checks[farthest].published)
    met = all(check.met for check in checks.values())
    yield Check(f"largest difference at {len(counts)} counts, {columns}", 0.0, off, met)


def reduced(blocks: FileBlocks, pca: PCA) -> np.ndarray:
    Z = np.empty((blocks.grid.n_rows, pca.n_components_), dtype=np.float32)
    for i, span in enumerate(blocks.grid.spans()):
        Z[span.row0 : span.row0 + span.n_rows] = pca.transform_block(blocks.read(i))
    return Z


def scores(Z: np.ndarray, labels: np.ndarray, k: int) -> tuple[float, float]:
    """Return Calinski-Harabasz, as of all published rows, and Davies-Bouldin."""
    means = np.stack([Z[labels == c].mean(axis=0, dtype=np.float64) for c in range(k)])
    spread = spread_of(Z, np.ascontiguousarray(labels[:, None]), np.array([0, k]), means)
    ch = calinski_harabasz(spread.counts, means, spread.sq_distance)
    return ch * ROWS / len(Z), davies_bouldin(spread.counts, means, spread.distance)


def score_checks(blocks: FileBlocks, pca: PCA, scaler: str, target: Published) -> Iterator[Check]:
    Z = reduced(blocks, pca)
    sweep = KMeansSweep(published.CLUSTERS).fit(Z)
    for k in published.CLUSTERS:
        twin = scores(Z, sweep.models_[k].labels_, k)
        names, decimals = ("Calinski-Harabasz", "Davies-Bouldin"), (0, 2)
        for name, wanted, found, n in zip(
            names, target.scores[scaler, k], twin, decimals, strict=True
        ):
            yield Check(
                f"{name}, k = {k}, {scaler}", wanted, found, within_factor(found, wanted), n
            )


def unscaled_checks(blocks: FileBlocks, pca: PCA, target: Published) -> Iterator[Check]:
    Z = reduced(blocks, pca)
    sweep = KMeansSweep(tuple(target.unscaled_scores)).fit(Z)
    for k, wanted in target.unscaled_scores.items():
        found, _ = scores(Z, sweep.models_[k].labels_, k)
        what = f"Calinski-Harabasz, k = {k}, raw, {pca.n_components_} components"
        yield Check(what, wanted, found, within_factor(found, wanted), 0)


def set_checks(name: str, rows: int, folder: Path) -> Iterator[Check]:
    """Write one set and compare every figure."""
    made = write_demo(folder / name, rows=rows, photos=False, sets=[name])
    blocks = FileBlocks(made.out / descriptors.SETS[name].file)
    target = PUBLISHED[name]
    count = min(published.COMPONENTS, blocks.n_features)
    raw = PCA(published.UNSCALED_COMPONENTS).fit(blocks)
    standard = PCA(count, scale="standard").fit_moments(raw.moments_)
    minmax = PCA(count, scale="minmax").fit_moments(raw.moments_)
    yield from value_checks(raw, target)
    yield from variance_checks(raw, target.variance, "raw")
    yield from variance_checks(standard, target.standard_variance, "standardised")
    for scaler, pca in (("standard", standard), ("minmax", minmax)):
        yield from score_checks(blocks, pca, scaler, target)
    yield from unscaled_checks(blocks, raw, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--set", action="append", choices=list(PUBLISHED), dest="sets")
    asked = parser.parse_args()
    began, n_met, n_all = time.perf_counter(), 0, 0
    print(f"{asked.rows:,} rows; {pairs.machine()}\n", flush=True)
    print("| set | target | published | twin | |\n| --- | --- | --- | --- | --- |")
    for name in asked.sets or PUBLISHED:
        with tempfile.TemporaryDirectory() as folder:
            for check in set_checks(name, asked.rows, Path(folder)):
                n_met, n_all = n_met + check.met, n_all + 1
                print(check.line(name), flush=True)
    print(f"\n{n_met} of {n_all} met; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
