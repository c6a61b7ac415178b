"""Condensed trees: places by hand, when clusters end, what is drawn first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vehclust_dask.errors import BadInput
from vehclust_dask.report.figure import write_figure
from vehclust_dask.report.icicles import CondensedTree

COLUMNS = ["parent", "child", "lambda_val", "child_size"]


def tree() -> pd.DataFrame:
    """Return 100 rows that part into 60 and 30, the 60 into 40 and 15."""
    rows = [(100, 101, 0.5, 60), (100, 102, 0.5, 30), (101, 103, 1.0, 40), (101, 104, 1.0, 15)]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_frame__by_hand() -> None:
    frame = CondensedTree(tree(), [102, 103], n_samples=100).frame()
    assert frame["cluster"].tolist() == [100, 101, 103, 102, 104]
    assert frame["parent"].tolist() == [-1, 100, 101, 100, 101]
    assert frame["rows"].tolist() == [100, 60, 40, 30, 15]
    assert frame["birth"].tolist() == [np.inf, 2.0, 1.0, 2.0, 1.0]
    assert frame["end"].tolist() == [2.0, 1.0, 0.0, 0.0, 0.0]
    assert frame["label"].tolist() == [-1, -1, 1, 0, -1]
    # 103, 104 and 102 are as wide as they have rows, what they lie in as wide as they together.
    assert frame["left"].tolist() == [0, 0, 0, 55, 40]
    assert frame["right"].tolist() == [85, 55, 40, 85, 55]


def test_frame__parts_of_a_selected_cluster_lie_in_its_middle() -> None:
    frame = CondensedTree(tree(), [101, 102]).frame().set_index("cluster")
    assert frame.loc[101, ["left", "right"]].tolist() == [0, 60]
    assert frame.loc[103, ["left", "right"]].tolist() == [2.5, 42.5]
    assert frame.loc[104, ["left", "right"]].tolist() == [42.5, 57.5]
    assert frame.loc[100, "rows"] == 90


def test_frame__knows_from_rows_when_the_last_one_leaves() -> None:
    points = [(103, 0, 4.0, 1), (103, 1, 2.0, 1), (104, 2, np.inf, 1), (101, 3, 0.7, 1)]
    whole = pd.concat([tree(), pd.DataFrame(points, columns=COLUMNS)], ignore_index=True)
    frame = CondensedTree(whole).frame().set_index("cluster")
    assert frame["end"].to_dict() == {100: 2.0, 101: 1.0, 102: 0.0, 103: 0.25, 104: 0.0}
    told = tree().assign(lambda_end=[1.0, 0.5, 4.0, np.inf])
    frame = CondensedTree(told).frame().set_index("cluster")
    assert frame["end"].to_dict() == {100: 2.0, 101: 1.0, 102: 2.0, 103: 0.25, 104: 0.0}


def test_frame__draws_the_selected_first_and_all_they_lie_in() -> None:
    assert CondensedTree(tree(), [104], top=1).frame()["cluster"].tolist() == [100, 101, 104]
    said = CondensedTree(tree(), [103, 104], top=1).plot().get_supxlabel().replace("\n", " ")
    assert "3 of 5 clusters; 2 selected" in said
    assert "1 of them too small to be drawn" in said


def test_plot__names_and_outlines_what_is_selected() -> None:
    axes = CondensedTree(tree(), [102, 103], n_samples=100).plot().axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["40", "30"]
    assert {"0", "1", "60", "100"} <= {text.get_text() for text in axes.texts}
    assert sum(patch.get_linewidth() > 1 for patch in axes.patches) == 2


def test_frame__of_a_long_chain_keeps_every_selected_one_in_sight() -> None:
    n = 3000
    trunk = np.arange(1, 2 * n, 2)
    rows = [(max(0, t - 2), t, (i + 1) / n, 10 * n - 9 * i) for i, t in enumerate(trunk)]
    rows += [(max(0, t - 2), t + 1, (i + 1) / n, 5 + i % 3) for i, t in enumerate(trunk)]
    chosen = list(range(2, 60, 2))
    frame = CondensedTree(pd.DataFrame(rows, columns=COLUMNS), chosen).frame()
    width = (frame["right"] - frame["left"])[frame["label"] >= 0]
    assert len(width) == len(chosen)
    assert width.min() >= 0.017 * frame["right"].max() / 2


def test_write__gives_the_same_bytes_again(tmp_path: Path) -> None:
    display = CondensedTree(tree(), [103, 102], synthetic=True)
    first = [file.read_bytes() for file in write_figure(display, tmp_path / "a", "one")]
    again = [file.read_bytes() for file in write_figure(display, tmp_path / "b", "one")]
    assert first == again


def test_condensed_tree__refuses_what_is_none() -> None:
    with pytest.raises(BadInput, match="lacks child_size"):
        CondensedTree(tree().drop(columns="child_size"))
    with pytest.raises(BadInput, match=r"^0 clusters .* have no parent"):
        CondensedTree(tree().iloc[:0])
    with pytest.raises(BadInput, match=r"^2 clusters .* have no parent"):
        CondensedTree(tree().assign(parent=[100, 99, 101, 101]))
    with pytest.raises(BadInput, match="selected cluster 7 is not in"):
        CondensedTree(tree(), [7])
    with pytest.raises(BadInput, match="top=0"):
        CondensedTree(tree(), top=0)
