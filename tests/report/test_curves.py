"""Curves: numbers first, then what is drawn, then the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vehclust_dask.errors import BadInput
from vehclust_dask.report.curves import ExplainedVariance, ScoresAgainstK, write_figure

CURVES = {"osnet": np.array([0.5, 0.8, 0.9, 1.0]), "colour": np.array([0.7, 1.0])}


def scores() -> pd.DataFrame:
    rows = [("osnet", "kmeans", "vehclust", k, 100.0 / k, 9.0 / k, 2.0, 0.5) for k in (5, 2, 10)]
    rows += [("osnet", "kmeans", "dask-ml", 5, 21.0, 1.7, 2.1, 0.4)]
    rows += [("osnet", "dbscan", "vehclust", k, np.nan, 0.5, 3.0, np.nan) for k in (4, 7)]
    rows += [("colour", "kmeans", "vehclust", k, 10.0 / k, 1.0 / k, 1.0, np.nan) for k in (2, 3)]
    names = ["study", "method", "engine", "k", "inertia", "calinski_harabasz"]
    return pd.DataFrame(rows, columns=[*names, "davies_bouldin", "group_agreement"])


def test_explained_variance__frame_holds_the_curves() -> None:
    frame = ExplainedVariance(CURVES, {"osnet": 3}).frame()
    assert len(frame) == 6
    osnet = frame[frame["study"] == "osnet"]
    assert osnet["n_components"].tolist() == [1, 2, 3, 4]
    assert osnet["explained_variance"].tolist() == [0.5, 0.8, 0.9, 1.0]
    assert frame[frame["chosen"]][["study", "n_components"]].to_numpy().tolist() == [["osnet", 3]]


def test_explained_variance__plot_marks_the_guides_and_the_chosen_number() -> None:
    axes = ExplainedVariance(CURVES, {"osnet": 3}).plot().axes[0]
    texts = {text.get_text() for text in axes.texts}
    assert {"80%", "90%", "95%"} <= texts
    lines = {line.get_label(): line for line in axes.lines}
    line = lines["osnet: 3 of 4 keep 90.0%"]
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.8, 0.9, 1.0]
    assert line.get_markevery() == [2]
    assert lines["colour of 2"].get_markevery() == []


@pytest.mark.parametrize(
    ("curve", "chosen"), [([0.5, 0.4], 1), ([0.5, 1.2], 1), ([], 1), ([0.5, 0.6], 3), ([0.5], 0)]
)
def test_explained_variance__refuses_what_is_no_curve(curve: list[float], chosen: int) -> None:
    with pytest.raises(BadInput, match="'a'"):
        ExplainedVariance({"a": np.array(curve)}, {"a": chosen})


def test_scores__frame_drops_what_nobody_has_and_sorts() -> None:
    table = scores().assign(accuracy=np.nan, remark="x")
    frame = ScoresAgainstK(table).frame()
    assert "accuracy" not in frame
    assert "remark" not in frame
    kmeans = frame[(frame["study"] == "osnet") & (frame["engine"] == "vehclust")]
    assert kmeans[kmeans["method"] == "kmeans"]["k"].tolist() == [2, 5, 10]


def test_scores__a_sweep_is_a_line_and_single_clusterings_are_points() -> None:
    table = scores()
    figure = ScoresAgainstK(table[table["study"] == "osnet"]).plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Inertia", "Calinski-Harabasz", "Davies-Bouldin", "Group agreement"]
    harabasz = figure.axes[1]
    drawn = {tuple(np.asarray(line.get_xdata()).tolist()): line for line in harabasz.lines}
    assert set(drawn) == {(2, 5, 10), (5,), (4, 7)}
    assert drawn[2, 5, 10].get_linestyle() == "-"
    assert np.asarray(drawn[2, 5, 10].get_ydata()).tolist() == [4.5, 1.8, 0.9]
    assert {drawn[5,].get_linestyle(), drawn[4, 7].get_linestyle()} == {"None"}
    assert harabasz.get_ylim()[0] == 0


def test_scores__several_studies_have_a_row_each() -> None:
    figure = ScoresAgainstK(scores()).plot()
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "colour",
        "",
        "",
        "",
        "osnet",
        "",
        "",
        "",
    ]
    assert not figure.axes[3].lines


def test_scores__refuses_a_table_without_names_or_scores() -> None:
    with pytest.raises(BadInput, match="lacks engine"):
        ScoresAgainstK(scores().drop(columns="engine"))
    with pytest.raises(BadInput, match="holds no score"):
        ScoresAgainstK(scores()[["study", "method", "engine", "k"]])


@pytest.mark.parametrize(
    "display",
    [
        ExplainedVariance(CURVES, {"osnet": 3}, synthetic=True),
        ScoresAgainstK(scores()[["study", "method", "engine", "k", "davies_bouldin"]]),
    ],
)
def test_write_figure__a_second_run_writes_the_same_bytes(
    display: ExplainedVariance | ScoresAgainstK, tmp_path: Path
) -> None:
    one = write_figure(display, tmp_path / "a", "figure")
    other = write_figure(display, tmp_path / "b", "figure")
    assert [path.name for path in one] == ["figure.svg", "figure.png", "figure.csv"]
    for left, right in zip(one, other, strict=True):
        assert left.read_bytes() == right.read_bytes()
    assert b"<dc:date>" not in one[0].read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(one[2]), display.frame(), check_dtype=False)


def test_plot__says_that_the_data_are_synthetic() -> None:
    for display in (ExplainedVariance, ScoresAgainstK):
        arguments = (CURVES, {}) if display is ExplainedVariance else (scores(),)
        for synthetic in (True, False):
            figure = display(*arguments, synthetic=synthetic).plot()
            said = "synthetic data" in {text.get_text() for text in figure.texts}
            assert said == synthetic


def test_scores__what_found_k_itself_is_paler_the_more_is_noise() -> None:
    table = pd.DataFrame(
        {
            "study": "osnet",
            "method": ["dbscan", "dbscan", "dbscan", "kmeans", "kmeans"],
            "engine": "vehclust",
            "k": [4, 7, 0, 2, 3],
            "noise": [0.0, 0.5, 1.0, np.nan, np.nan],
            "davies_bouldin": [3.0, 2.0, 9.0, 1.0, 1.5],
        }
    )
    display = ScoresAgainstK(table)
    assert display.frame()["noise"].tolist()[:3] == [1.0, 0.0, 0.5]
    figure = display.plot()
    points = {
        line.get_xdata()[0]: line for line in figure.axes[0].lines if len(line.get_xdata()) == 1
    }
    assert set(points) == {4, 7}
    assert points[4].get_markerfacecolor() == points[4].get_color()
    assert points[7].get_markerfacecolor() != points[7].get_color()
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["dbscan", "kmeans", "the paler, the more rows are noise and left out"]
    assert "noise" not in ScoresAgainstK(table.assign(noise=np.nan)).frame()


def test_scores__far_more_clusters_than_were_asked_take_a_logarithmic_axis() -> None:
    table = scores().assign(noise=0.0)
    assert {axes.get_xscale() for axes in ScoresAgainstK(table).plot().axes} == {"linear"}
    table.loc[table["method"] == "dbscan", "k"] = [400, 7]
    figure = ScoresAgainstK(table[table["study"] == "osnet"]).plot()
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
