"""Figures of outlier scores: how they are distributed, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.report import palette
from vehclust_dask.report.figure import STYLE, head

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

F64 = NDArray[np.float64]

#: What a score measures, under its name.
UNITS = {
    "lof": "local outlier factor, 1 inside a cluster",
    "knn_distance": "distance to the k-th neighbour",
    "isolation": "above 0.5: isolated by few cuts",
    "center_distance": "distance to the own center",
    "glare": "share of blinded pixels",
    "dark": "1 less the median luma",
    "low_contrast": "1 less the spread of luma",
    "blur": "less fine detail, in powers of ten",
    "odd_size": "doublings from the usual size",
    "broken": "1: cannot be decoded",
}
_BINS = 60


@dataclass(frozen=True, eq=False)
class ScoreHistograms:
    """How the scores of all rows are distributed, and where the rules cut.

    Parameters
    ----------
    scores : mapping of str to ndarray of shape (n_rows,), float64
        NaN where a row has none.
    rules : mapping of str to float
        Rows of this value and above are excluded; scores may be left out.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.
    """

    scores: Mapping[str, F64]
    rules: Mapping[str, float]
    title: str = "Outlier scores"
    synthetic: bool = False

    def frame(self) -> pd.DataFrame:
        """Return a row per score and bin.

        Returns
        -------
        DataFrame
            score, low, high (of the bin, the last one holds all above too), rows, rule.
        """
        import pandas as pd

        parts = []
        for score, values in self.scores.items():
            edges, counts = _histogram(values, self.rules.get(score))
            parts.append(
                pd.DataFrame(
                    {
                        "score": score,
                        "low": edges[:-1],
                        "high": edges[1:],
                        "rows": counts,
                        "rule": self.rules.get(score, np.nan),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def plot(self) -> Figure:
        """Draw a histogram per score, on a logarithmic axis: outliers are few."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        columns = min(3, len(self.scores))
        rows = -(-len(self.scores) // columns)
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(11.4, 0.7 + 2.45 * rows), layout="constrained")
            axes = figure.subplots(rows, columns, squeeze=False).ravel()
            for one, (score, values) in zip(axes, self.scores.items(), strict=False):
                self._draw(one, score, values)
            for one in axes[len(self.scores) :]:
                one.set_axis_off()
            head(figure, self.title, self.synthetic)
        return figure

    def _draw(self, axes: Axes, score: str, values: F64) -> None:
        rule = self.rules.get(score)
        edges, counts = _histogram(values, rule)
        over = edges[:-1] >= rule if rule is not None else np.zeros(len(counts), np.bool_)
        # Bars stand on a half: on a logarithmic axis a bin of one row would have no height.
        axes.bar(
            edges[:-1],
            np.maximum(counts - 0.5, 0),
            np.diff(edges),
            bottom=0.5,
            align="edge",
            color=np.where(over, palette.MARK, palette.PALETTE[0]),
        )
        axes.set_yscale("log")
        axes.set_ylim(0.5, max(10.0, 2.2 * counts.max(initial=1)))
        axes.set_yticks(_powers(counts.max(initial=1)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda n, _: f"{n:,.0f}")
        axes.tick_params(labelsize=8.5)
        axes.set_title(score)
        axes.set_xlabel(UNITS.get(score, "larger is more outlying"), fontsize=8.5)
        notes = []
        if rule is not None:
            axes.axvline(rule, color=palette.MARK, linewidth=1.3, linestyle=(0, (4, 2)))
            notes.append((f"{int((values >= rule).sum()):,} rows from {rule:g} on", palette.MARK))
        beyond = int((values > edges[-1]).sum())
        if beyond:
            notes.append((f"{beyond:,} beyond, in the last bar", palette.MUTED))
        absent = int(np.isnan(values).sum())
        if absent:
            notes.append((f"{absent:,} rows without", palette.MUTED))
        for line, (words, color) in enumerate(notes):
            axes.text(
                1,
                1.03 - 0.115 * line,
                words,
                transform=axes.transAxes,
                ha="right",
                va="bottom",
                fontsize=8.5,
                color=color,
            )


@dataclass(frozen=True, eq=False)
class OutlierPrecision:
    """How well each score finds rows that are known to be wrong, beside finding them by chance.

    Parameters
    ----------
    judged : DataFrame
        score, question, known, base_rate, average_precision.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.
    """

    judged: pd.DataFrame
    title: str = "What outlier scores find"
    synthetic: bool = False

    def frame(self) -> pd.DataFrame:
        """Return a row per question and score: known, base_rate, average_precision."""
        columns = ["question", "score", "known", "base_rate", "average_precision"]
        return self.judged[columns].reset_index(drop=True)

    def plot(self) -> Figure:
        """Draw a bar per score for each question, and the base rate as a line."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        asked = list(dict.fromkeys(self.judged["question"]))
        scores = self.judged["score"].nunique()
        columns = min(2, len(asked))
        rows = -(-len(asked) // columns)
        with mpl.rc_context(STYLE):
            figure = Figure(
                figsize=(9.6, 0.8 + rows * (0.75 + 0.25 * scores)), layout="constrained"
            )
            axes = figure.subplots(rows, columns, squeeze=False).ravel()
            for one, question in zip(axes, asked, strict=False):
                _draw_bars(one, question, self.judged[self.judged["question"] == question])
            for one in axes[len(asked) :]:
                one.set_axis_off()
            head(figure, self.title, self.synthetic)
        return figure


def _draw_bars(axes: Axes, question: str, part: pd.DataFrame) -> None:
    """Draw one question; a bar that is no better than chance is grey."""
    base = float(part["base_rate"].iloc[0])
    values = part["average_precision"].to_numpy(np.float64)
    places = range(len(values))
    better = values > 2 * base
    axes.barh(places, values, 0.66, color=np.where(better, palette.PALETTE[0], palette.NOISE))
    for place, value in zip(places, values, strict=True):
        if np.isfinite(value):
            axes.text(
                value + 0.015, place, f"{value:.2f}", va="center", fontsize=8, color=palette.MUTED
            )
    axes.axvline(base, color=palette.MARK, linewidth=1.3)
    axes.set_yticks(places, part["score"], fontsize=9)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(0, 1.09)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.set_title(question)
    axes.text(
        1,
        1.02,
        f"base rate {base:.2%} of {int(part['known'].iloc[0]):,} rows",
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=8.5,
        color=palette.MARK,
    )
    axes.set_xlabel("average precision", fontsize=8.5)


def _histogram(values: F64, rule: float | None) -> tuple[F64, NDArray[np.int64]]:
    """Return edges and counts; a few rows far beyond all others are counted in the last bin."""
    told = values[np.isfinite(values)]
    if not len(told):
        return np.linspace(0.0, 1.0, _BINS + 1), np.zeros(_BINS, np.int64)
    low, middle, high = np.quantile(told, [0, 0.5, 0.999])
    top = min(float(told.max()), float(high + 3 * (high - middle)))
    if rule is not None and rule <= told.max():
        top = max(top, rule + 0.1 * (rule - low))
    if top <= low:
        top = low + 1.0
    edges = np.linspace(low, top, _BINS + 1)
    if rule is not None and low < rule < top:
        # No bar has rows on both sides of a rule.
        edges[np.abs(edges[1:-1] - rule).argmin() + 1] = rule
    counts, _ = np.histogram(np.minimum(told, edges[-1]), edges)
    return edges, counts.astype(np.int64)


def _powers(most: int) -> list[int]:
    """Return the ticks of a logarithmic axis of counts, five at most."""
    powers = list(range(len(str(max(1, most)))))
    step = -(-len(powers) // 5)
    return [10**p for p in powers[::step]]
