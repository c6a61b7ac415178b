"""Dendrograms: scipy's leaves and heights, the numbers of a cut, speed at full size."""

from __future__ import annotations

import time
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram, linkage

from vehclust_dask.errors import BadInput
from vehclust_dask.kernels.linkage import cut_linkage
from vehclust_dask.report import palette
from vehclust_dask.report.figure import write_figure
from vehclust_dask.report.trees import Dendrogram

F64 = NDArray[np.float64]

#: Rows at 0, 1, 10, 12 and 50: pairs join at 1 and 2, then the four, then all.
LINE = linkage(np.array([[0.0], [1.0], [10.0], [12.0], [50.0]]), "single")


def ward(n: int, seed: int = 0) -> F64:
    Z: F64 = linkage(np.random.default_rng(seed).normal(size=(n, 3)), "ward")
    return Z


def chain(n: int) -> F64:
    """Return a tree that takes in one row after the other, as deep as a tree can be."""
    before = np.concatenate([[0], np.arange(n, 2 * n - 2)])
    rows = np.arange(1, n)
    return np.column_stack([np.minimum(before, rows), np.maximum(before, rows), rows, rows + 1.0])


def leaves_of(display: Dendrogram) -> pd.DataFrame:
    frame = display.frame()
    return frame[frame["branch"] >= 0].sort_values("branch")


def test_frame__of_five_rows_by_hand() -> None:
    frame = Dendrogram(LINE, top=3, n_clusters=2).frame()
    assert frame["node"].tolist() == [8, 7, 6, 5, 4]
    assert frame["parent"].tolist() == [-1, 8, 7, 7, 8]
    assert frame["height"].tolist() == [38.0, 9.0, 2.0, 1.0, 0.0]
    assert frame["rows"].tolist() == [5, 4, 2, 2, 1]
    # Row 4 is the smaller node of the last merge, and 5 that of the one before.
    assert frame["branch"].tolist() == [-1, -1, 2, 1, 0]
    assert frame["cluster"].tolist() == [-1, 0, 0, 0, 1]


def test_cut_height__lies_half_way_between_the_merges() -> None:
    assert Dendrogram(LINE, n_clusters=2).cut_height == (9.0 + 38.0) / 2
    assert Dendrogram(LINE, n_clusters=5).cut_height == 0.5
    assert Dendrogram(LINE).cut_height is None
    assert Dendrogram(LINE, top=3, n_clusters=4).cut_height is None


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 60), top=st.integers(2, 40), seed=st.integers(0, 2**16))
def test_frame__leaves_and_heights_are_scipys(n: int, top: int, seed: int) -> None:
    Z = ward(n, seed)
    theirs = dendrogram(Z, p=top, truncate_mode="lastp", no_plot=True)
    display = Dendrogram(Z, top)
    leaves, frame = leaves_of(display), display.frame()
    assert leaves["node"].tolist() == theirs["leaves"]
    pairs = zip(leaves["node"], leaves["rows"], strict=True)
    assert [f"({rows})" if node >= n else str(node) for node, rows in pairs] == theirs["ivl"]
    tops = sorted(max(heights) for heights in theirs["dcoord"])
    assert sorted(frame.loc[frame["branch"] < 0, "height"]) == tops


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 60), k=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_frame__numbers_clusters_as_the_cut_does(n: int, k: int, seed: int) -> None:
    Z, k = ward(n, seed), min(k, n)
    labels = cut_linkage(Z, n - k)
    leaves = leaves_of(Dendrogram(Z, top=30, n_clusters=k))
    assert leaves.groupby("cluster")["rows"].sum().tolist() == np.bincount(labels).tolist()
    for node, cluster in zip(leaves["node"], leaves["cluster"], strict=True):
        assert set(labels[rows_below(Z, node)]) == {cluster}


def rows_below(Z: F64, node: int) -> list[int]:
    n, todo, rows = len(Z) + 1, [node], []
    while todo:
        one = todo.pop()
        if one < n:
            rows.append(one)
        else:
            todo += [int(Z[one - n, 0]), int(Z[one - n, 1])]
    return rows


def test_plot__writes_sizes_and_the_numbers_of_clusters() -> None:
    display = Dendrogram(ward(3000), top=6, n_clusters=3)
    above, below = display.plot().axes
    leaves = leaves_of(display)
    sizes = [text.get_text() for text in below.get_xticklabels()]
    assert sizes == [f"{rows:,}" for rows in leaves["rows"]]
    assert leaves["rows"].sum() == 3000
    texts = {text.get_text() for text in above.texts}
    assert {"0", "1", "2"} <= texts
    assert any(text.startswith("3 clusters\ncut at ") for text in texts)
    assert len({patch.get_facecolor() for patch in below.patches}) == 3


def test_plot__says_where_a_cut_lies_below() -> None:
    figure = Dendrogram(ward(100), top=6, n_clusters=9).plot()
    assert "The cut into 9 clusters lies below these branches" in figure.get_supxlabel()
    assert not figure.axes[0].texts


@pytest.mark.parametrize("Z", [np.array([[0, 1, 3.0, 2]]), LINE, ward(40)])
def test_write__gives_the_same_bytes_again(Z: F64, tmp_path: Path) -> None:
    display = Dendrogram(Z, n_clusters=2, synthetic=True)
    first = [file.read_bytes() for file in write_figure(display, tmp_path / "a", "one")]
    again = [file.read_bytes() for file in write_figure(display, tmp_path / "b", "one")]
    assert first == again
    assert palette.color(1).encode() in first[0]


def test_frame__of_the_deepest_tree_is_fast() -> None:
    n = 416_314
    display = Dendrogram(chain(n), n_clusters=30)
    began = time.process_time()
    frame = display.frame()
    assert time.process_time() - began < 2
    assert frame["rows"].max() == n
    assert frame.loc[frame["branch"] >= 0, "rows"].sum() == n


@pytest.mark.parametrize(
    ("Z", "top", "k", "told"),
    [
        (LINE[:, :3], 30, None, r"shape \(4, 3\)"),
        (np.empty((0, 4)), 30, None, r"shape \(0, 4\)"),
        (LINE[::-1], 30, None, "heights fall"),
        (LINE, 1, None, "top=1"),
        (LINE, 500, None, "top=500"),
        (LINE, 30, 6, "n_clusters=6 but the tree has 5 rows"),
        (LINE, 30, 0, "n_clusters=0"),
    ],
)
def test_dendrogram__refuses_what_cannot_be_drawn(
    Z: F64, top: int, k: int | None, told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        Dendrogram(Z, top, k)
