"""Figures of outlier scores: numbers first, then what is drawn, then the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask.report.curves import write_figure
from vehclust_dask.report.outliers import OutlierPrecision, ScoreHistograms


def scores() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    glare = rng.random(2000) / 10
    glare[:7] = 0.9
    glare[-5:] = np.nan
    return {"lof": 1 + np.square(rng.normal(size=2000)) / 20, "glare": glare}


def judged() -> pd.DataFrame:
    rows = [
        (score, question, 50, 0.02, value)
        for question in ("quality=glare", "quality=night")
        for score, value in (("lof", 0.03), ("glare", 0.9))
    ]
    names = ["score", "question", "known", "base_rate", "average_precision"]
    return pd.DataFrame(rows, columns=names).assign(rule=np.nan)


def test_histograms__frame_counts_every_row_that_has_a_score() -> None:
    frame = ScoreHistograms(scores(), {"glare": 0.5}).frame()
    assert frame.groupby("score")["rows"].sum().to_dict() == {"glare": 1995, "lof": 2000}
    glare = frame[frame["score"] == "glare"]
    assert glare.loc[glare["low"] >= 0.5, "rows"].sum() == 7
    assert (glare["rule"] == 0.5).all()
    assert frame.loc[frame["score"] == "lof", "rule"].isna().all()


@given(
    st.lists(st.floats(-5, 5) | st.sampled_from([0.0, 1.0, 1e9, np.nan]), min_size=1),
    st.none() | st.floats(0, 6),
)
def test_histograms__no_bar_has_rows_on_both_sides_of_a_rule(
    values: list[float], rule: float | None
) -> None:
    rules = {} if rule is None else {"x": rule}
    frame = ScoreHistograms({"x": np.array(values)}, rules).frame()
    told = np.array([v for v in values if not np.isnan(v)])
    assert frame["rows"].sum() == len(told)
    assert (np.diff(frame["low"]) >= 0).all()
    if rule is not None and len(told) and told.min() < rule <= told.max():
        over = frame.loc[frame["low"] >= rule, "rows"].sum()
        assert over == (told >= rule).sum()


def test_histograms__plot_marks_the_rule_and_what_it_excludes() -> None:
    figure = ScoreHistograms(scores(), {"glare": 0.5}, title="t", synthetic=True).plot()
    lof, glare = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in (lof, glare)] == ["lof", "glare"]
    assert [float(line.get_xdata()[0]) for line in glare.lines] == [0.5]
    assert not lof.lines
    assert [text.get_text() for text in glare.texts] == ["7 rows from 0.5 on", "5 rows without"]
    assert "synthetic data" in {text.get_text() for text in figure.texts}


def test_precision__plot_has_a_panel_per_question_with_its_base_rate() -> None:
    display = OutlierPrecision(judged())
    assert list(display.frame()) == [
        "question", "score", "known", "base_rate", "average_precision",
    ]  # fmt: skip
    figure = display.plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["quality=glare", "quality=night"]
    for axes in figure.axes:
        assert [bar.get_width() for bar in axes.patches] == [0.03, 0.9]
        assert [float(line.get_xdata()[0]) for line in axes.lines] == [0.02]
        assert "base rate 2.00% of 50 rows" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("display", [ScoreHistograms(scores(), {"glare": 0.5}), None])
def test_figures__give_the_same_bytes_again(
    tmp_path: Path, display: ScoreHistograms | None
) -> None:
    one = display or OutlierPrecision(judged())
    first = [f.read_bytes() for f in write_figure(one, tmp_path / "a", "x")]
    assert first == [f.read_bytes() for f in write_figure(one, tmp_path / "b", "x")]
