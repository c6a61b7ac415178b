"""Figures of density methods: numbers by hand, files, the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vehclust_dask.report.density import DensityMap, KDistance, Reachability
from vehclust_dask.report.figure import Display, write_figure


def grid(recommended: bool) -> pd.DataFrame:
    rows = [
        {
            "min_samples": q,
            "eps": eps,
            "clusters": q * 10,
            "noise": 0.25,
            "largest": 0.5,
            "balanced": recommended and eps == 2.0,
            "recommended": recommended and (q, eps) == (5, 2.0),
        }
        for q in (5, 10)
        for eps in (1.0, 2.0, 3.5)
    ]
    return pd.DataFrame(rows)


def distances() -> pd.DataFrame:
    share = np.linspace(0, 1, 11)
    parts = [
        pd.DataFrame({"min_samples": q, "share": share, "distance": q + share**4}) for q in (5, 10)
    ]
    return pd.concat(parts)


def valleys(n: int) -> Reachability:
    rng = np.random.default_rng(0)
    height = rng.uniform(1, 2, n)
    height[0] = np.inf
    order = rng.permutation(n)
    labels = np.empty(n, np.int64)
    labels[order] = np.repeat([-1, 1, 0], [n - 2 * (n // 3), n // 3, n // 3])
    return Reachability(order, height, labels, "euclidean")


@pytest.mark.parametrize(
    "display",
    [DensityMap(grid(True), "cosine"), KDistance(distances(), "euclidean"), valleys(90)],
)
def test_write__gives_the_same_bytes_again(display: Display, tmp_path: Path) -> None:
    first = [file.read_bytes() for file in write_figure(display, tmp_path / "a", "one")]
    again = [file.read_bytes() for file in write_figure(display, tmp_path / "b", "one")]
    assert first == again
    assert all(first)


def test_verdict__names_the_best_or_says_that_there_is_none() -> None:
    best = DensityMap(grid(True), "euclidean").verdict()
    assert "best: eps 2, min_samples 5: 50 clusters, 25% noise" in best
    assert DensityMap(grid(False), "euclidean").verdict().startswith("no eps gives balanced")


def test_reachability__of_few_rows_has_a_column_each() -> None:
    display = valleys(90)
    table = display.frame()
    assert len(table) == 90
    np.testing.assert_array_equal(table["low"][1:], display.height[1:])
    np.testing.assert_array_equal(table["cluster"], np.repeat([-1, 1, 0], 30))


def test_reachability__of_many_rows_keeps_valleys_and_peaks() -> None:
    display = valleys(50_000)
    display.height[20_000] = 0.1
    display.height[30_000] = 9.0
    table = display.frame()
    assert len(table) <= 2000
    assert table["rows"].sum() == 50_000
    assert table["low"].min() == 0.1
    assert table["high"].max() == 9.0
