"""Figures of density methods: numbers by hand, files, the same bytes."""

from __future__ import annotations

import time
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from vehclust_dask.errors import BadInput
from vehclust_dask.report.density import DensityMap, KDistance, spread
from vehclust_dask.report.figure import Display, write_figure
from vehclust_dask.report.reachability import Reachability


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


def test_reachability__colours_a_column_by_most_of_its_rows() -> None:
    n = 4000
    labels = np.tile([3, 3, -1, -1], n // 4)
    frame = Reachability(np.arange(n), np.ones(n), labels, "euclidean").frame()
    np.testing.assert_array_equal(frame["cluster"], np.tile([3, -1], n // 4))
    tied = np.tile([3, 1], n // 2)
    frame = Reachability(np.arange(n), np.ones(n), tied, "euclidean").frame()
    assert set(frame["cluster"]) == {1}


def test_reachability__of_all_rows_is_fast() -> None:
    n = 416_314
    rng = np.random.default_rng(0)
    display = Reachability(
        rng.permutation(n), rng.uniform(1, 2, n), rng.integers(-1, 500, n), "euclidean"
    )
    began = time.process_time()
    display.plot()
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("order", "height", "labels", "told"),
    [
        ([0, 1], [1.0], [0, 0], "2 rows in the order, 1 distances"),
        ([0, 0], [1.0, 1.0], [0, 0], "row 1 is not in the order"),
        ([0, 5], [1.0, 1.0], [0, 0], "row 1 is not in the order"),
        ([0, 1], [1.0, np.nan], [0, 0], "no number"),
        ([], [], [], "at least one"),
    ],
)
def test_reachability__refuses_what_is_no_order(
    order: list[int], height: list[float], labels: list[int], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        Reachability(np.array(order, np.int64), np.array(height), np.array(labels), "euclidean")


def test_k_distance__refuses_what_does_not_rise() -> None:
    with pytest.raises(BadInput, match="lacks share"):
        KDistance(distances().drop(columns="share"), "euclidean")
    with pytest.raises(BadInput, match="min_samples=5 does not rise"):
        KDistance(distances().assign(distance=lambda t: -t["distance"]), "euclidean")
    with pytest.raises(BadInput, match="is empty"):
        KDistance(distances().iloc[:0], "euclidean")


def test_k_distance__is_logarithmic_where_distances_differ_much() -> None:
    assert KDistance(distances(), "euclidean").plot().axes[0].get_yscale() == "linear"
    far = distances().assign(distance=lambda t: t["distance"] * 10 ** (3 * t["share"]))
    axes = KDistance(far, "euclidean").plot().axes[0]
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["5", "10 min_samples"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2, exclude_min=True))
def test_spread__gives_each_room_and_keeps_the_order(heights: list[float], step: float) -> None:
    at = np.array(heights)
    out = spread(at, step)
    order = np.argsort(at, kind="stable")
    assert (np.diff(out[order]) >= step * (1 - 1e-9)).all()
    assert out.mean() == pytest.approx(at.mean())
    far = np.arange(len(at)) * 2 * step
    np.testing.assert_allclose(spread(far, step), far)


def test_map__outlines_the_balanced_and_writes_every_number() -> None:
    figure = DensityMap(grid(True), "euclidean").plot()
    clusters, noise, largest = figure.axes[:3]
    assert [text.get_text() for text in clusters.texts] == ["50"] * 3 + ["100"] * 3
    assert {text.get_text() for text in noise.texts} == {"25"}
    assert {text.get_text() for text in largest.texts} == {"50"}
    outlined = [c for c in clusters.collections if c.get_linewidth()[0] > 2]
    assert [len(c.get_paths()) for c in outlined] == [2]
    none = DensityMap(grid(False), "euclidean").plot().axes[0]
    assert all(c.get_linewidth()[0] < 2 for c in none.collections)


def test_map__says_what_comes_nearest_where_nothing_is_balanced() -> None:
    table = grid(False)
    table.loc[4, ["noise", "largest"]] = 0.1, 0.2
    said = DensityMap(table, "euclidean").verdict()
    assert "at best eps 2, min_samples 10: 100 clusters, 10% noise, 20% of the rows" in said


def test_map__takes_other_eps_for_every_min_samples() -> None:
    table = grid(True)
    table.loc[table["min_samples"] == 10, "eps"] *= 3
    DensityMap(table, "euclidean").plot()
    one = DensityMap(table.iloc[:1], "euclidean").plot()
    assert [text.get_text() for text in one.axes[0].texts] == ["50"]


def test_map__refuses_what_is_none() -> None:
    with pytest.raises(BadInput, match="lacks noise, balanced"):
        DensityMap(grid(True).drop(columns=["noise", "balanced"]), "cosine")
    with pytest.raises(BadInput, match=r"eps=0\.0"):
        DensityMap(grid(True).replace({"eps": {1.0: 0.0}}), "cosine")
    with pytest.raises(BadInput, match=r"min_samples=5, eps=1\.0 comes twice"):
        DensityMap(pd.concat([grid(True), grid(True)]), "cosine")
