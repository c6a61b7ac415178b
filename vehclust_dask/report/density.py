"""Which eps and min_samples to choose: core distances, and what every pair of them gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.figure import STYLE, blend, head, log_ticks, note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

F64 = NDArray[np.float64]

#: Distances that differ by more than this factor are drawn on a logarithmic axis.
LOG_FACTOR = 20.0
_COLUMNS = ("min_samples", "eps", "clusters", "noise", "largest", "balanced", "recommended")
#: Labels at the end of lines need this share of the height each.
_LABEL_STEP = 0.052
#: Inches of a digit of the numbers in cells.
_LETTER = 0.062


@dataclass(frozen=True, eq=False)
class KDistance:
    """Core distances of all rows in rising order, a line per ``min_samples``.

    At an eps, the share at its left are core rows: where a line bends upwards, more rows cost much
    distance.

    Parameters
    ----------
    table : DataFrame
        min_samples, share (of the rows, 0 to 1) and distance: the core distances up to which so many
        rows reach, both rising.
    metric : str
        The metric of the distances, with its unit.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.

    Raises
    ------
    BadInput
        If a column is missing, there is no curve, or one does not rise.
    """

    table: pd.DataFrame
    metric: str
    title: str = "Core distances"
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no sorted curve."""
        _check_columns(self.table, ("min_samples", "share", "distance"), "core distances")
        for min_samples, share, distance in self._curves():
            good = np.isfinite(distance).all() and share[0] >= 0 and share[-1] <= 1
            if not good or min(distance[0], *np.diff(share), *np.diff(distance)) < 0:
                raise BadInput(
                    f"the curve of min_samples={min_samples} does not rise; give shares from 0 to 1 "
                    "and finite distances of at least 0, both sorted"
                )

    def frame(self) -> pd.DataFrame:
        """Return min_samples, share and distance, a row per point."""
        return self.table[["min_samples", "share", "distance"]]

    def plot(self) -> Figure:
        """Draw the lines, each with its number at its end."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        low, high = self._range()
        logarithmic = high > LOG_FACTOR * low
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(9.2, 5.4), layout="constrained")
            axes = figure.subplots()
            if logarithmic:
                axes.set_yscale("log")
                axes.set_ylim(low / 1.3, high * 1.3)
                log_ticks(axes.yaxis, low / 1.3, high * 1.3)
            else:
                axes.set_ylim(0, high * 1.06)
            self._draw_lines(axes)
            axes.set_xlim(0, 1)
            axes.set_xticks(np.linspace(0, 1, 11))
            axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
            axes.set_xlabel("rows, those in dense places first")
            words = " (logarithmic)" if logarithmic else ""
            axes.set_ylabel(f"core distance, {self.metric}{words}")
            head(figure, self.title, self.synthetic)
            self._tell_copies(figure)
        return figure

    def _curves(self) -> list[tuple[int, F64, F64]]:
        """Return min_samples, shares and distances of every curve, by min_samples."""
        return [
            (int(part["min_samples"].iloc[0]), *part[["share", "distance"]].to_numpy(np.float64).T)
            for _, part in self.table.groupby("min_samples", sort=True)
        ]

    def _range(self) -> tuple[float, float]:
        """Return the distances the axis must tell apart: the nearest tenth may lie below."""
        far = self.table[(self.table["share"] >= 0.1) & (self.table["distance"] > 0)]
        told, high = far["distance"], float(self.table["distance"].max())
        return (float(told.min()) if len(told) else high), high or 1.0

    def _draw_lines(self, axes: Axes) -> None:
        curves = self._curves()
        colors = _ramp(len(curves))
        for (_, share, distance), color in zip(curves, colors, strict=True):
            axes.plot(share, distance, color=color, linewidth=2)
        ends = np.array([distance[-1] for _, _, distance in curves])
        heights = axes.transData.transform(np.column_stack([np.ones(len(ends)), ends]))
        heights = axes.transAxes.inverted().transform(heights)[:, 1]
        places = spread(heights, _LABEL_STEP)
        places -= max(0.0, float(places.max()) - 0.98)
        for (m, _, _), end, at, color in zip(curves, ends, places, colors, strict=True):
            axes.annotate(
                str(m) if m != curves[-1][0] else f"{m} min_samples",
                (1, end),
                xycoords=("axes fraction", "data"),
                xytext=(1.03, at),
                textcoords="axes fraction",
                va="center",
                fontsize=9,
                color=color,
                fontweight="bold",
                arrowprops={
                    "arrowstyle": "-",
                    "color": color,
                    "lw": 0.8,
                    "shrinkA": 1,
                    "shrinkB": 0,
                    "relpos": (0, 0.5),
                },
            )

    def _tell_copies(self, figure: Figure) -> None:
        """Say how many rows have copies enough to lie at distance 0."""
        m, share, distance = self._curves()[0]
        if distance[0] == 0:
            zero = float(share[np.searchsorted(distance, 0, side="right") - 1])
            note(figure, f"min_samples = {m}: {zero:.1%} of the rows are copies, at distance 0")


def _check_columns(table: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    lost = [name for name in columns if name not in table]
    if lost:
        raise BadInput(f"the table of {what} lacks {', '.join(lost)}; add these columns")
    if not len(table):
        raise BadInput(f"the table of {what} is empty; give one row or more")


def spread(heights: F64, step: float) -> F64:
    """Return heights as near as can be to those given, in their order and ``step`` apart.

    Each run of heights that would touch is centred on its mean.
    """
    order = np.argsort(heights, kind="stable")
    runs: list[tuple[float, int]] = []
    for height in heights[order]:
        middle, n = float(height), 1
        while runs and middle - runs[-1][0] < step * (n + runs[-1][1]) / 2:
            below, m = runs.pop()
            middle, n = (middle * n + below * m) / (n + m), n + m
        runs.append((middle, n))
    out = np.empty(len(heights))
    out[order] = np.concatenate(
        [middle + step * (np.arange(n) - (n - 1) / 2) for middle, n in runs] or [np.empty(0)]
    )
    return out


class _Map(NamedTuple):
    """A column of the settings and how it is drawn."""

    column: str
    name: str
    color: str


_MAPS = (
    _Map("clusters", "clusters", palette.PALETTE[0]),
    _Map("noise", "noise, % of all rows", palette.MUTED),
    _Map("largest", "largest cluster, % of all rows", palette.PALETTE[1]),
)


class Choice(NamedTuple):
    """A setting and what it gives: ``noise`` and ``largest`` as shares of all rows.

    Attributes
    ----------
    balanced : int
        Settings of the map that are balanced; where there are none, this is the least bad.
    """

    min_samples: int
    eps: float
    clusters: int
    noise: float
    largest: float
    balanced: int


@dataclass(frozen=True, eq=False)
class DensityMap:
    """What every eps and min_samples gives: clusters, noise and the largest cluster, as three maps.

    Parameters
    ----------
    table : DataFrame
        A row per setting: min_samples, eps (above 0), clusters, noise and largest (shares of all
        rows, 0 to 1), balanced (bool, outlined), recommended (bool, the best of the balanced).
        Every min_samples may have eps of its own.
    metric : str
        The metric of eps, with its unit.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.

    Raises
    ------
    BadInput
        If a column is missing, there is no setting, one comes twice or an eps is not above 0.
    """

    table: pd.DataFrame
    metric: str
    title: str = "Every DBSCAN"
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse a table that is no map."""
        _check_columns(self.table, _COLUMNS, "settings")
        eps = self.table["eps"].to_numpy(np.float64)
        if not (np.isfinite(eps) & (eps > 0)).all():
            raise BadInput(f"eps={eps.min()}: a map has a logarithmic axis; give numbers above 0")
        twice = self.table.duplicated(["min_samples", "eps"])
        if twice.any():
            m, e = self.table.loc[twice, ["min_samples", "eps"]].iloc[0]
            raise BadInput(f"min_samples={m:.0f}, eps={e} comes twice; give every setting once")

    def frame(self) -> pd.DataFrame:
        """Return the settings, sorted by min_samples and eps."""
        return self.table.sort_values(["min_samples", "eps"], kind="stable", ignore_index=True)

    def plot(self) -> Figure:
        """Draw the three maps below each other over one axis of eps; balanced cells are outlined."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        frame = self.frame()
        cells = _cells(frame)
        n_rows = frame["min_samples"].nunique()
        widest = int(frame.groupby("min_samples")["eps"].size().max())
        with mpl.rc_context(STYLE):
            size = (min(17.0, max(7.6, 0.27 * widest + 2.2)), 3 * (0.25 * n_rows + 0.55) + 1.4)
            figure = Figure(figsize=size, layout="constrained")
            for axes, one in zip(figure.subplots(3, 1, sharex=True), _MAPS, strict=True):
                _draw_map(figure, axes, frame, cells, one)
            axes.set_xlabel(f"eps, {self.metric} (logarithmic)")
            figure.axes[1].set_ylabel("min_samples")
            head(figure, self.title, self.synthetic)
            note(figure, self.verdict())
        return figure

    def choice(self) -> Choice:
        """Return the setting that serves, or what comes nearest where none does."""
        chosen = self.table[self.table["recommended"].astype(bool)]
        if not len(chosen):
            # What leaves the most rows both out of the noise and out of the largest cluster.
            lost = self.table[["noise", "largest"]].to_numpy(np.float64).max(axis=1)
            chosen = self.table.iloc[[int(lost.argmin())]]
        m, eps, clusters, noise, largest = chosen[list(_COLUMNS[:5])].to_numpy(np.float64)[0]
        balanced = int(self.table["balanced"].sum())
        return Choice(int(m), float(eps), int(clusters), float(noise), float(largest), balanced)

    def verdict(self) -> str:
        """Say in a sentence which setting serves, or what comes nearest where none does."""
        one = self.choice()
        words = "best: " if self.table["recommended"].any() else "at best "
        words += (
            f"eps {one.eps:g}, min_samples {one.min_samples}: {one.clusters:,} "
            f"cluster{'' if one.clusters == 1 else 's'}, {one.noise:.0%} noise, "
            f"{one.largest:.0%} of the rows in the largest cluster"
        )
        if not one.balanced:
            return f"no eps gives balanced clusters: {words}"
        n, of = one.balanced, len(self.table)
        return f"{n:,} of {of:,} settings are balanced (outlined); {words}"


class _Cell(NamedTuple):
    """A rectangle of a map: the two eps it lies between, and the place of its min_samples."""

    left: float
    right: float
    place: int


def _cells(frame: pd.DataFrame) -> list[_Cell]:
    """Return a cell per setting: it reaches half way, in logarithms, to its neighbours."""
    out = []
    for place, (_, row) in enumerate(frame.groupby("min_samples", sort=True)):
        logs = np.log(row["eps"].to_numpy(np.float64))
        steps = np.diff(logs) if len(logs) > 1 else np.array([np.log(1.5)])
        between = (logs[1:] + logs[:-1]) / 2
        edges = [logs[0] - steps[0] / 2, *between, logs[-1] + steps[-1] / 2]
        edges = np.exp(edges).tolist()
        out += [_Cell(a, b, place) for a, b in pairwise(edges)]
    return out


def _draw_map(
    figure: Figure, axes: Axes, frame: pd.DataFrame, cells: list[_Cell], one: _Map
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import to_hex

    values = frame[one.column].to_numpy(np.float64)
    colors, norm = _shades(one, values)
    low, high = min(cell.left for cell in cells), max(cell.right for cell in cells)
    places = sorted(frame["min_samples"].unique())
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(-0.5, len(places) - 0.5)
    wanted = np.flatnonzero(frame["balanced"].to_numpy(np.bool_))
    fills = [to_hex(shade) for shade in colors(norm(np.maximum(values, norm.vmin or 0.0)))]
    if one.column == "clusters":
        fills = [
            fill if value else palette.PAPER for fill, value in zip(fills, values, strict=True)
        ]
    _fill_cells(axes, cells, fills, np.arange(len(cells)), zorder=1)
    if len(wanted):
        # A stroke about every cell, then the cells over it: what is left goes about them all.
        _fill_cells(axes, cells, fills, wanted, zorder=2, edge=palette.INK, width=4)
        _fill_cells(axes, cells, fills, wanted, zorder=3)
    _write_values(figure, axes, cells, values, fills, share=one.column != "clusters")
    log_ticks(axes.xaxis, low, high)
    axes.set_yticks(range(len(places)), [f"{m:.0f}" for m in places])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.set_title(one.name)
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=axes, aspect=12, pad=0.01)
    bar.outline.set_visible(False)
    if one.column == "clusters":
        bar.set_ticks(_round_counts(values.max()))
        bar.ax.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
        bar.ax.minorticks_off()
    else:
        bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _round_counts(most: float) -> list[int]:
    """Return a few round numbers from 1 to ``most``."""
    if most < 20:
        return [count for count in (1, 2, 5, 10) if count <= max(2, most)]
    return [10**power for power in range(int(math.log10(most)) + 1)]


def _shades(one: _Map, values: F64) -> tuple[Colormap, Normalize]:
    """Return colours from paper to full; numbers of clusters by their logarithm, shares from 0 to 1."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    stops = [blend(one.color, 0.06), one.color, blend(one.color, 0.7, palette.INK)]
    colors = LinearSegmentedColormap.from_list(one.column, stops)
    if one.column == "clusters":
        return colors, LogNorm(1, max(2.0, float(values.max())))
    return colors, Normalize(0, 1)


def _fill_cells(
    axes: Axes,
    cells: list[_Cell],
    fills: list[str],
    which: NDArray[np.intp],
    *,
    zorder: int,
    edge: str = palette.PAPER,
    width: float = 0.6,
) -> None:
    from matplotlib.collections import PolyCollection

    corners = [
        [(c.left, low), (c.right, low), (c.right, low + 1), (c.left, low + 1)]
        for c, low in ((cells[i], cells[i].place - 0.5) for i in which)
    ]
    axes.add_collection(
        PolyCollection(
            corners,
            facecolors=[fills[i] for i in which],
            edgecolors=edge,
            linewidths=width,
            zorder=zorder,
            clip_on=False,
        ),
        autolim=False,
    )


def _write_values(
    figure: Figure, axes: Axes, cells: list[_Cell], values: F64, fills: list[str], share: bool
) -> None:
    """Write the numbers of the cells that are wide enough; shares in per cent."""
    low, high = axes.get_xlim()
    # Labels and the bar of colours take about 1.8 inches.
    scale = (figure.get_figwidth() - 1.8) / math.log(high / low)
    for cell, value, fill in zip(cells, values, fills, strict=True):
        words = f"{100 * value:.0f}" if share else f"{value:,.0f}"
        room = scale * math.log(cell.right / cell.left) - 0.03
        if not share and value >= 1000 and _LETTER * len(words) > room:
            words = f"{value / 1000:.0f}k"
        if _LETTER * len(words) > room:
            continue
        red, green, blue = palette.rgb(fill)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 140
        axes.text(
            math.sqrt(cell.left * cell.right),
            cell.place,
            words,
            ha="center",
            va="center_baseline",
            fontsize=7,
            color=palette.PAPER if dark else palette.INK,
            zorder=4,
        )


def _ramp(n: int) -> list[str]:
    """Return n colours from light to dark of one hue, for things that have an order."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    stops = [blend(palette.PALETTE[0], 0.45), palette.PALETTE[0], palette.PALETTE[9]]
    ramp = LinearSegmentedColormap.from_list("ramp", stops)
    return [to_hex(ramp(place)) for place in np.linspace(0, 1, n)] if n > 1 else [stops[1]]
