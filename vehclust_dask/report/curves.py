"""Curves of a run: explained variance, and scores against the number of clusters.

Every figure knows its numbers (``frame()``) and draws them (``plot()``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.figure import STYLE, Display, blend, head, log_ticks, write_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Display", "ExplainedVariance", "ScoresAgainstK", "write_figure"]

#: Guide lines of explained variance.
GUIDES = (0.80, 0.90, 0.95)
#: Methods that find their own number of clusters: points that belong to no common line.
FINDS_K = frozenset({"dbscan", "dbscan*", "hdbscan", "optics"})

#: Numbers of clusters that differ by more than this factor are drawn on a logarithmic axis.
_WIDE_K = 4

_Line = Literal["-", "--", ":", "-."]
_ENGINE_LINES: tuple[_Line, ...] = ("-", "--", ":", "-.")
_MARKERS = "osD^vP*X"


class _Score(NamedTuple):
    """A column of the scores table and how to read it."""

    column: str
    name: str
    note: str


#: The order of the small plots; agreement and accuracy are drawn where a row has them.
SCORES = (
    _Score("inertia", "Inertia", "falls with k in any case"),
    _Score("calinski_harabasz", "Calinski-Harabasz", "higher is better, often falls with k"),
    _Score("davies_bouldin", "Davies-Bouldin", "lower is better"),
    _Score("silhouette", "Silhouette", "higher is better"),
    _Score("silhouette_sq", "Silhouette of squared distances", "higher is better"),
    _Score("group_agreement", "Group agreement", "higher is better, tends to fall with k"),
    _Score("accuracy", "Accuracy", "higher is better, tends to grow with k"),
)


@dataclass(frozen=True, eq=False)
class ExplainedVariance:
    """Cumulative explained variance of every study in one plot.

    Parameters
    ----------
    curves : mapping of str to ndarray of shape (n_components,)
        Element ``i`` is the share of the variance in the first ``i + 1`` components, from 0 to 1.
    chosen : mapping of str to int
        How many components a study keeps; marked on its curve. Studies may be left out.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.

    Raises
    ------
    BadInput
        If a curve is no cumulative share, or a chosen number lies beyond its curve.
    """

    curves: Mapping[str, NDArray[np.floating[Any]]]
    chosen: Mapping[str, int]
    title: str = "Explained variance"
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no cumulative curve."""
        for study, curve in self.curves.items():
            _check_cumulative(study, np.asarray(curve, dtype=np.float64))
        for study, n in self.chosen.items():
            length = len(self.curves.get(study, ()))
            if not 1 <= n <= length:
                raise BadInput(
                    f"{n} components are chosen for '{study}', whose curve has {length}; "
                    f"choose from 1 to {length}"
                )

    def frame(self) -> pd.DataFrame:
        """Return a row per study and component count.

        Returns
        -------
        DataFrame
            study, n_components, explained_variance (cumulative share), chosen (bool).
        """
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "study": study,
                    "n_components": np.arange(1, len(curve) + 1),
                    "explained_variance": np.asarray(curve, dtype=np.float64),
                    "chosen": np.arange(1, len(curve) + 1) == self.chosen.get(study, 0),
                }
            )
            for study, curve in self.curves.items()
        ]
        columns = ["study", "n_components", "explained_variance", "chosen"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def plot(self) -> Figure:
        """Draw a curve per study over the number of components, on a logarithmic axis."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(9.2, 5.4), layout="constrained")
            axes = figure.subplots()
            longest = max((len(curve) for curve in self.curves.values()), default=1)
            _draw_guides(axes, longest)
            for i, (study, curve) in enumerate(self.curves.items()):
                self._draw_curve(
                    axes, study, np.asarray(curve, np.float64), palette.PALETTE[i % 50]
                )
            axes.set_xscale("log")
            axes.set_xlim(0.92, max(2, longest) * 1.02)
            ticks = _round_numbers(longest)
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axes.minorticks_off()
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
            axes.set_xlabel("number of principal components (logarithmic)")
            axes.set_ylabel("share of the variance kept")
            if self.curves:
                axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=2, handlelength=2.2)
            head(figure, self.title, self.synthetic)
        return figure

    def _draw_curve(self, axes: Axes, study: str, curve: NDArray[np.float64], color: str) -> None:
        n = self.chosen.get(study)
        keeps = (
            f" of {len(curve):,}"
            if n is None
            else f": {n:,} of {len(curve):,} keep {curve[n - 1]:.1%}"
        )
        counts = np.arange(1, len(curve) + 1)
        axes.plot(
            counts,
            curve,
            color=color,
            linewidth=2,
            label=f"{study}{keeps}",
            marker="o",
            markersize=8,
            markeredgecolor=palette.PAPER,
            markeredgewidth=1.5,
            markevery=[] if n is None else [n - 1],
            zorder=3,
        )
        if n is not None:
            axes.plot([n, n], [0, curve[n - 1]], color=color, linewidth=1, linestyle=":", zorder=2)


@dataclass(frozen=True, eq=False)
class ScoresAgainstK:
    """Scores of clusterings against their number of clusters, a small plot per score.

    Parameters
    ----------
    table : DataFrame
        Columns study, method, engine, k and any of inertia, calinski_harabasz, davies_bouldin,
        group_agreement, accuracy. A score that is NaN everywhere is not drawn. ``noise``, where it
        is there, is the share of the rows that the scores of a clustering leave out.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.

    Raises
    ------
    BadInput
        If a column that names the clusterings is missing, or no score is there.
    """

    table: pd.DataFrame
    title: str = "Scores against the number of clusters"
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse a table without clusterings or without scores."""
        lost = [name for name in ("study", "method", "engine", "k") if name not in self.table]
        if lost:
            raise BadInput(f"the scores table lacks {', '.join(lost)}; add these columns")
        if not self._scores():
            raise BadInput(
                "the scores table holds no score; fill one of "
                + ", ".join(score.column for score in SCORES)
            )

    def frame(self) -> pd.DataFrame:
        """Return the drawn columns, sorted by study, method, engine and k."""
        names = ["study", "method", "engine", "k"]
        columns = names + [score.column for score in self._scores()]
        columns += ["noise"] if self._has_noise() else []
        return self.table[columns].sort_values(names, kind="stable", ignore_index=True)

    def plot(self) -> Figure:
        """Draw a row of small plots per study (two rows for a single study).

        Only clusterings of one study may be compared: their distances have one unit. A clustering
        that found no cluster has no place.
        """
        import matplotlib as mpl
        from matplotlib.figure import Figure

        scores, frame = self._scores(), self.frame()
        studies = list(frame["study"].unique())
        one = len(studies) == 1
        n_cols = math.ceil(len(scores) / 2) if one and len(scores) > 2 else len(scores)
        n_rows = math.ceil(len(scores) / n_cols) if one else len(studies)
        with mpl.rc_context(STYLE):
            size = (max(6.4, 4.3 * n_cols), 3.1 * n_rows + 1.0)
            figure = Figure(figsize=size, layout="constrained")
            grid = figure.subplots(n_rows, n_cols, squeeze=False).ravel()
            cells = [(study, score) for study in studies for score in scores]
            looks = _looks(frame)
            for axes, (study, score) in zip(grid, cells, strict=False):
                part = frame[frame["study"] == study]
                _draw_score(axes, part, score, looks)
                if not one and score is scores[0]:
                    axes.set_ylabel(study, fontsize=12, fontweight="bold", color=palette.INK)
            for axes in grid[len(cells) :]:
                axes.set_axis_off()
            _legend(figure, looks, self._has_noise())
            head(figure, f"{self.title}: {studies[0]}" if one else self.title, self.synthetic)
        return figure

    def _has_noise(self) -> bool:
        return "noise" in self.table and bool((self.table["noise"] > 0).any())

    def _scores(self) -> list[_Score]:
        return [
            score
            for score in SCORES
            if score.column in self.table and self.table[score.column].notna().any()
        ]


class _Look(NamedTuple):
    """How the clusterings of one method and engine are drawn."""

    color: str
    line: _Line
    marker: str


_Looks = dict[tuple[str, str], _Look]


def _looks(frame: pd.DataFrame) -> _Looks:
    """Give every method a colour and a marker, every engine a kind of line."""
    methods = sorted(frame["method"].unique())
    engines = sorted(frame["engine"].unique(), key=lambda engine: (engine != "vehclust", engine))
    pairs = sorted(
        set(zip(frame["method"], frame["engine"], strict=True)),
        key=lambda pair: (methods.index(pair[0]), engines.index(pair[1])),
    )
    return {
        (method, engine): _Look(
            palette.color(methods.index(method)),
            _ENGINE_LINES[engines.index(engine) % len(_ENGINE_LINES)],
            _MARKERS[methods.index(method) % len(_MARKERS)],
        )
        for method, engine in pairs
    }


def _draw_score(axes: Axes, part: pd.DataFrame, score: _Score, looks: _Looks) -> None:
    from matplotlib.ticker import EngFormatter

    part = part[part["k"] > 0]
    for (method, engine), look in looks.items():
        rows = part[(part["method"] == method) & (part["engine"] == engine)]
        rows = rows[rows[score.column].notna()].sort_values("k", kind="stable")
        if rows.empty:
            continue
        joined = method not in FINDS_K and len(rows) > 1 and rows["k"].is_unique
        axes.plot(
            rows["k"].to_numpy(),
            rows[score.column].to_numpy(),
            color=look.color,
            linestyle=look.line if joined else "none",
            marker=look.marker,
            markersize=(3.5 if len(rows) < 20 else 2) if joined else 7,
            markerfacecolor=look.color if look.line == "-" else palette.PAPER,
            linewidth=1.7,
            clip_on=False,
        )
        if "noise" in rows and not joined:
            _thin_out(axes, rows, score, look)
    axes.set_title(score.name)
    axes.text(
        1, 1.03, score.note, transform=axes.transAxes, ha="right", fontsize=8, color=palette.MUTED
    )
    _scale_k(axes, part)
    if score.column in ("inertia", "calinski_harabasz"):
        # Both are measured from zero: a cut axis would draw a bend where there is none.
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    elif score.column in ("group_agreement", "accuracy"):
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _thin_out(axes: Axes, rows: pd.DataFrame, score: _Score, look: _Look) -> None:
    """Draw points over those that are there, the paler the more of their rows are noise."""
    counts, values = rows["k"].to_numpy(), rows[score.column].to_numpy()
    for k, value, noise in zip(counts, values, rows["noise"].fillna(0).to_numpy(), strict=True):
        axes.plot(
            [k],
            [value],
            color=look.color,
            marker=look.marker,
            markersize=7,
            markerfacecolor=blend(look.color, 1 - 0.95 * float(noise)),
            linestyle="none",
            clip_on=False,
        )


def _scale_k(axes: Axes, part: pd.DataFrame) -> None:
    """Scale the axis of k, by its logarithm where methods found far more clusters than were asked."""
    from matplotlib.ticker import MaxNLocator

    found = part["method"].isin(FINDS_K)
    usual = part.loc[~found, "k"].max() if not found.all() else part["k"].median()
    most = part["k"].max()
    if len(part) and most > _WIDE_K * usual:
        axes.set_xscale("log")
        axes.set_xlim(part["k"].min() / 1.15, most * 1.15)
        log_ticks(axes.xaxis, 1, max(40, float(most)))
        axes.set_xlabel("k (logarithmic)")
        return
    axes.set_xlabel("k")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, looks: _Looks, noise: bool) -> None:
    from matplotlib.lines import Line2D

    several = len({engine for _, engine in looks}) > 1
    handles = [
        Line2D(
            [],
            [],
            color=look.color,
            linestyle="none" if method in FINDS_K else look.line,
            marker=look.marker,
            markersize=5,
            markerfacecolor=look.color if look.line == "-" else palette.PAPER,
            label=f"{method} ({engine})" if several else method,
        )
        for (method, engine), look in looks.items()
    ]
    if noise:
        pale: Any = {"marker": "o", "markersize": 5, "markerfacecolor": palette.TILE}
        told = "the paler, the more rows are noise and left out"
        handles.append(Line2D([], [], color=palette.MUTED, linestyle="none", label=told, **pale))
    figure.legend(handles=handles, loc="outside lower left", ncols=min(5, len(handles)))


def _draw_guides(axes: Axes, longest: int) -> None:
    for share in GUIDES:
        axes.axhline(share, color=palette.MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.text(
            0.95, share + 0.005, f"{share:.0%}", fontsize=8.5, color=palette.MUTED, va="bottom"
        )


def _check_cumulative(study: str, curve: NDArray[np.float64]) -> None:
    rises = bool(np.all(np.diff(curve) >= -1e-9))
    if curve.ndim != 1 or not len(curve) or not rises or curve[0] < 0 or curve[-1] > 1 + 1e-6:
        raise BadInput(
            f"the curve of '{study}' is no cumulative share of variance; give numbers that rise "
            "from at least 0 to at most 1, one per component"
        )


def _round_numbers(longest: int) -> list[int]:
    return list(_up_to(max(2, longest)))


def _up_to(longest: int) -> Iterator[int]:
    for power in range(8):
        for digit in (1, 2, 5):
            if digit * 10**power <= longest:
                yield digit * 10**power
