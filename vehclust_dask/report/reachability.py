"""The reachability plot: rows in the order density walks them, valleys are clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.density import LOG_FACTOR
from vehclust_dask.report.figure import STYLE, blend, head, log_ticks, name_line, note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Columns of the figure, about one a pixel.
N_COLUMNS = 2000
#: Numbers of clusters lie at least this share of the figure apart; longer runs come first.
_NAMED = 0.017


@dataclass(frozen=True, eq=False)
class Reachability:
    """Distances by which rows are reached one after the other, coloured by cluster.

    Where there are more rows than columns, a column keeps the smallest and the largest distance of
    its rows, so that no valley and no wall is lost, and has the colour of most of them.

    Parameters
    ----------
    order : ndarray of shape (n_samples,), int
        Every row once, in the order they are reached.
    height : ndarray of shape (n_samples,), float64
        By place: ``height[i]`` is that at which ``order[i]`` was reached; infinite where nothing
        reached it, as for the first.
    labels : ndarray of shape (n_samples,), int
        Clusters by row, -1 for noise.
    metric : str
        The metric of the distances, with its unit.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.
    eps : float, optional
        A cut to mark: what lies below it in one piece is a cluster.

    Raises
    ------
    BadInput
        If there is not one of each per row, or the order names a row twice.
    """

    order: NDArray[np.integer[Any]]
    height: F64
    labels: NDArray[np.integer[Any]]
    metric: str
    title: str = "Reachability"
    synthetic: bool = False
    eps: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no order of all rows."""
        n = len(self.order)
        if not n == len(self.height) == len(self.labels) or not n:
            raise BadInput(
                f"{n} rows in the order, {len(self.height)} distances, {len(self.labels)} labels: "
                "give one of each per row, at least one"
            )
        seen = np.zeros(n, np.bool_)
        inside = (np.asarray(self.order) >= 0) & (np.asarray(self.order) < n)
        seen[self.order[inside]] = True
        if not seen.all():
            raise BadInput(
                f"row {int(np.argmin(seen))} is not in the order; give every row from 0 to "
                f"{n - 1} once"
            )
        if np.isnan(self.height).any() or (np.asarray(self.height) < 0).any():
            raise BadInput("a distance is below zero or no number; give 0 to infinity")

    def frame(self) -> pd.DataFrame:
        """Return a row per drawn column.

        Returns
        -------
        DataFrame
            start (place of its first row), rows, low and high (smallest and largest distance; an
            infinite one counts as the largest finite one), cluster (of most of its rows; the
            smaller one of two).
        """
        import pandas as pd

        n = len(self.order)
        n_columns = min(n, N_COLUMNS)
        start = np.arange(n_columns, dtype=np.int64) * n // n_columns
        distance = np.asarray(self.height, np.float64)
        reached = np.isfinite(distance)
        distance = np.where(reached, distance, np.max(distance, where=reached, initial=0.0))
        return pd.DataFrame(
            {
                "start": start,
                "rows": np.diff(np.append(start, n)),
                "low": np.minimum.reduceat(distance, start),
                "high": np.maximum.reduceat(distance, start),
                "cluster": _most_frequent(np.asarray(self.labels, np.int64)[self.order], start),
            }
        )

    def plot(self) -> Figure:
        """Draw smallest distances in full colour and, above them, the largest in a lighter one."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        frame = self.frame()
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(12, 5.4), layout="constrained")
            axes = figure.subplots()
            low, high = self._scale(axes, frame)
            runs = _runs(frame["cluster"].to_numpy(np.int64))
            edges = np.append(frame["start"].to_numpy(np.int64), len(self.order))
            lows = np.clip(frame["low"].to_numpy(np.float64), low, high)
            highs = np.clip(frame["high"].to_numpy(np.float64), low, high)
            _draw_steps(axes, runs, edges, lows, highs, 0.45)
            _draw_steps(axes, runs, edges, np.full(len(lows), low), lows, 1.0)
            _name_clusters(axes, runs, edges)
            self._mark_eps(axes)
            axes.set_xlim(0, len(self.order))
            axes.xaxis.set_major_formatter(lambda place, _: f"{place:,.0f}")
            axes.grid(axis="x", visible=False)
            axes.tick_params(axis="x", pad=18)
            axes.set_xlabel("rows in the order they are reached")
            head(figure, self.title, self.synthetic)
            note(figure, self._told(len(frame)))
        return figure

    def _scale(self, axes: Axes, frame: pd.DataFrame) -> tuple[float, float]:
        """Scale the axis of distances; return its lower and upper end."""
        high = float(frame["high"].max()) or 1.0
        # A few copies, at next to no distance, shall not decide.
        valleys = frame.loc[frame["low"] > 0, "low"]
        low = float(valleys.quantile(0.02)) if len(valleys) else high
        logarithmic = high > LOG_FACTOR * low
        low, high = (low / 1.3, high * 1.1) if logarithmic else (0.0, high * 1.05)
        if logarithmic:
            axes.set_yscale("log")
            log_ticks(axes.yaxis, low, high)
        axes.set_ylim(low, high)
        words = " (logarithmic)" if logarithmic else ""
        axes.set_ylabel(f"mutual reachability, {self.metric}{words}")
        return low, high

    def _mark_eps(self, axes: Axes) -> None:
        if self.eps is None:
            return
        axes.axhline(self.eps, color=palette.MARK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=5)
        name_line(axes, self.eps, f"eps {self.eps:.4g}")

    def _told(self, n_columns: int) -> str:
        n, labels = len(self.order), np.asarray(self.labels)
        n_clusters, noise = len(np.unique(labels[labels >= 0])), float(np.mean(labels < 0))
        plural = "" if n_clusters == 1 else "s"
        told = f"{n:,} rows in {n_clusters:,} cluster{plural}, {noise:.0%} noise (grey)"
        if n_columns < n:
            told += f"; a column is {n / n_columns:.0f} rows: their smallest distance, "
            told += "and pale above it the largest"
        return told


class _Run(NamedTuple):
    """Neighbouring columns of one label."""

    label: int
    start: int
    stop: int


def _runs(label: I64) -> list[_Run]:
    starts = np.flatnonzero(np.append(True, np.diff(label) != 0))
    stops = np.append(starts[1:], len(label))
    return [_Run(int(label[a]), a, b) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]


def _most_frequent(label: I64, first: I64) -> I64:
    """Return the label most rows of each column have; of two equally frequent the smaller one."""
    column = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(label))))
    kinds, place = np.unique(label, return_inverse=True)
    pairs, counts = np.unique(column * len(kinds) + place, return_counts=True)
    order = np.lexsort((-counts, pairs // len(kinds)))
    best = order[np.searchsorted(pairs[order] // len(kinds), np.arange(len(first)))]
    out: I64 = kinds[pairs[best] % len(kinds)]
    return out


def _draw_steps(
    axes: Axes, runs: list[_Run], edges: I64, low: F64, high: F64, share: float
) -> None:
    """Fill between two stairs in the colours of the runs, thinned to ``share``."""
    from matplotlib.collections import PolyCollection

    shapes = []
    for run in runs:
        x = np.repeat(edges[run.start : run.stop + 1], 2)[1:-1]
        above, below = (np.repeat(y[run.start : run.stop], 2) for y in (high, low))
        there, back = np.column_stack([x, above]), np.column_stack([x, below])[::-1]
        shapes.append(np.concatenate([there, back]))
    colors = [blend(palette.color(run.label), share) for run in runs]
    # Without smoothing neighbours meet with no white line between them.
    axes.add_collection(
        PolyCollection(shapes, facecolors=colors, linewidths=0, antialiased=False, zorder=2),
        autolim=False,
    )


def _name_clusters(axes: Axes, runs: list[_Run], edges: I64) -> None:
    """Write every cluster's number below its longest run, where there is room."""
    longest: dict[int, tuple[int, float]] = {}
    for run in runs:
        start, stop = int(edges[run.start]), int(edges[run.stop])
        if run.label >= 0 and stop - start > longest.get(run.label, (0, 0.0))[0]:
            longest[run.label] = (stop - start, (start + stop) / 2)
    taken: list[float] = []
    room = _NAMED * float(edges[-1])
    for label, (_, middle) in sorted(longest.items(), key=lambda item: (-item[1][0], item[0])):
        if any(abs(middle - other) < room for other in taken):
            continue
        taken.append(middle)
        axes.annotate(
            str(label),
            (middle, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            fontweight="bold",
        )
