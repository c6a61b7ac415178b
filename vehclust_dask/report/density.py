"""Figures of density methods: which eps could serve, and what lies how deep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.report import palette
from vehclust_dask.report.figure import head

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

F64 = NDArray[np.float64]

#: Columns that a reachability plot is reduced to.
COLUMNS = 2000
#: What the three maps of a grid show, and the color of their full end.
MAPS = (
    ("clusters", "clusters", "#236cc5"),
    ("noise", "noise, % of the rows", "#69717d"),
    ("largest", "largest cluster, % of the rows", "#d14244"),
)
#: Lines of several min_samples, from the smallest to the largest.
SHADES = ("#8fb8ea", "#4f8fd8", "#236cc5", "#1a4c8c", "#122f57")


@dataclass(frozen=True, eq=False)
class KDistance:
    """How far the ``min_samples``-th row is: the curve in which people look for a knee.

    Parameters
    ----------
    table : DataFrame
        min_samples, share (0 to 1, ascending), distance: core distances at shares of the rows.
    metric : str
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.
    """

    table: pd.DataFrame
    metric: str
    title: str = "Core distances"
    synthetic: bool = False

    def frame(self) -> pd.DataFrame:
        """Return min_samples, share and distance."""
        return self.table

    def plot(self) -> Figure:
        """Draw a line per ``min_samples``, named at its right end."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        head(figure, self.title, self.synthetic)
        axes = figure.add_subplot()
        groups = list(self.table.groupby("min_samples"))
        places = np.linspace(0, len(SHADES) - 1, len(groups)).round().astype(int)
        low, high = self.table["distance"].quantile([0.001, 0.999])
        ends = []
        for (samples, part), place in zip(groups, places, strict=True):
            axes.plot(part["share"], part["distance"], color=SHADES[place], lw=1.8)
            ends.append((float(part["distance"].iloc[-1]), samples, SHADES[place]))
        axes.set_ylim(max(0.0, low - 0.15 * (high - low)), high + 0.15 * (high - low))
        top = axes.get_ylim()[1]
        for at, samples, shade in _apart(ends, 0.05 * (top - axes.get_ylim()[0]), top):
            axes.annotate(
                f"min_samples {samples}", (1.0, at), (6, 0), textcoords="offset points",
                color=shade, va="center", fontsize=9, annotation_clip=False,
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_xlabel("rows, those in the densest places first")
        axes.set_ylabel(f"core distance, {self.metric}")
        axes.set_title(
            "a sharp knee suggests eps; without one no eps sets clusters apart", color=palette.MUTED
        )
        return figure


def _apart(
    ends: list[tuple[float, Any, str]], gap: float, top: float
) -> list[tuple[float, Any, str]]:
    """Move labels down until each has room."""
    placed: list[tuple[float, Any, str]] = []
    for at, samples, shade in sorted(ends, reverse=True):
        limit = placed[-1][0] - gap if placed else top
        placed.append((min(at, limit), samples, shade))
    return placed


@dataclass(frozen=True, eq=False)
class DensityMap:
    """What every setting of DBSCAN gives: eps across, ``min_samples`` down.

    Parameters
    ----------
    table : DataFrame
        min_samples, eps, clusters, noise, largest (shares), balanced, recommended.
    metric : str
    title : str
    synthetic : bool
    """

    table: pd.DataFrame
    metric: str
    title: str = "Every DBSCAN"
    synthetic: bool = False

    def frame(self) -> pd.DataFrame:
        """Return the settings."""
        return self.table

    def verdict(self) -> str:
        """Say in a sentence whether a setting serves."""
        best = self.table[self.table["recommended"]]
        if not len(best):
            return "no eps gives balanced clusters: where noise ends, most rows are in one cluster already"
        row = best.iloc[0]
        return (
            f"balanced settings are framed; best: eps {row['eps']:g}, min_samples "
            f"{row['min_samples']}: {row['clusters']:,} clusters, {row['noise']:.0%} noise"
        )

    def plot(self) -> Figure:
        """Draw three maps one below the other, over the same eps."""
        from matplotlib.figure import Figure

        samples = sorted(self.table["min_samples"].unique())
        figure = Figure(figsize=(9.6, 2.2 + 3 * (0.62 + 0.27 * len(samples))), layout="constrained")
        head(figure, self.title, self.synthetic)
        rows = figure.subplots(len(MAPS), 1, sharex=True)
        for axes, (column, name, shade) in zip(rows, MAPS, strict=True):
            self._map(axes, column, name, shade)
        rows[-1].set_xlabel(f"eps, {self.metric}\n\n{self.verdict()}")
        return figure

    def _map(self, axes: Axes, column: str, name: str, shade: str) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        wide = self.table.pivot(index="min_samples", columns="eps", values=column)
        values = wide.to_numpy(np.float64)
        shown = np.log10(1 + values) if column == "clusters" else values
        limit = max(float(shown.max()), 1e-9) if column == "clusters" else 1.0
        colors = LinearSegmentedColormap.from_list(column, [palette.PAPER, shade])
        axes.imshow(shown, cmap=colors, vmin=0, vmax=limit, aspect="auto")
        axes.grid(False)
        axes.set_title(name)
        axes.set_ylabel("min_samples")
        axes.set_yticks(range(len(wide)), [str(q) for q in wide.index])
        step = max(1, len(wide.columns) // 12)
        ticks = range(0, len(wide.columns), step)
        axes.set_xticks(ticks, [f"{wide.columns[t]:g}" for t in ticks])
        self._numbers(axes, values, shown / limit, column)
        framed = self.table.pivot(index="min_samples", columns="eps", values="balanced").to_numpy()
        for i, j in zip(*np.nonzero(framed), strict=True):
            box = {"fill": False, "ec": palette.MARK, "lw": 1.6}
            axes.add_patch(_cell(j, i, box))

    @staticmethod
    def _numbers(axes: Axes, values: F64, depth: F64, column: str) -> None:
        """Write into every cell, or into every second where cells are narrow."""
        step = 1 if values.shape[1] <= 24 else 2
        for i in range(values.shape[0]):
            for j in range(0, values.shape[1], step):
                value = values[i, j]
                text = f"{value:,.0f}" if column == "clusters" else f"{100 * value:.0f}"
                ink = palette.PAPER if depth[i, j] > 0.55 else palette.INK
                axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color=ink)


def _cell(column: int, row: int, box: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, **box)


@dataclass(frozen=True, eq=False)
class Reachability:
    """Rows in the order of the tree, and how far each is from those before: valleys are clusters.

    Parameters
    ----------
    order : ndarray of shape (n_rows,), int
    height : ndarray of shape (n_rows,), float64
        Infinite for the first.
    labels : ndarray of shape (n_rows,), int
        By row; -1 is noise.
    metric : str
    title : str
    synthetic : bool
    """

    order: NDArray[np.integer[Any]]
    height: F64
    labels: NDArray[np.integer[Any]]
    metric: str
    title: str = "Reachability"
    synthetic: bool = False

    def frame(self) -> pd.DataFrame:
        """Return a row per column of the plot.

        Returns
        -------
        DataFrame
            start, rows, low and high (smallest and largest height), cluster (the most frequent).
        """
        import pandas as pd

        n = len(self.order)
        bounds = np.unique(np.linspace(0, n, min(COLUMNS, n) + 1).astype(np.int64))
        starts, stops = bounds[:-1], bounds[1:]
        height = self.height.copy()
        height[~np.isfinite(height)] = np.nanmax(np.where(np.isfinite(height), height, np.nan))
        owners = self.labels[self.order]
        pairs = zip(starts, stops, strict=True)
        cluster = [int(_most(owners[a:b])) for a, b in pairs]
        return pd.DataFrame(
            {
                "start": starts,
                "rows": stops - starts,
                "low": np.minimum.reduceat(height, starts),
                "high": np.maximum.reduceat(height, starts),
                "cluster": cluster,
            }
        )

    def plot(self) -> Figure:
        """Draw the lowest and the highest of each column, in the color of its cluster."""
        from matplotlib.figure import Figure

        table = self.frame()
        figure = Figure(figsize=(10.0, 4.2), layout="constrained")
        head(figure, self.title, self.synthetic)
        axes = figure.add_subplot()
        # Colors go by size: the palette's first are the easiest to tell apart.
        sizes = table.groupby("cluster")["rows"].sum().sort_values(ascending=False)
        rank = {c: i for i, c in enumerate(c for c in sizes.index if c >= 0)}
        shades = [palette.color(rank[c]) if c >= 0 else palette.NOISE for c in table["cluster"]]
        floor = float(table["low"].quantile(0.01))
        top = float(table["high"].quantile(0.999))
        floor -= 0.1 * (top - floor)
        width = table["rows"]
        axes.bar(table["start"], table["low"] - floor, width, floor, color=shades, align="edge")
        axes.bar(
            table["start"], table["high"] - table["low"], width, table["low"],
            color=shades, alpha=0.45, align="edge",
        )  # fmt: skip
        axes.set_ylim(floor, top + 0.12 * (top - floor))
        axes.set_xlim(0, len(self.order))
        axes.grid(False, axis="x")
        axes.xaxis.set_major_formatter(lambda at, _: f"{at:,.0f}")
        axes.set_xlabel("rows in the order of the tree: valleys are clusters, grey is noise")
        axes.set_ylabel(f"mutual reachability, {self.metric}")
        n_clusters = int(self.labels.max()) + 1
        noise = float((self.labels < 0).mean())
        word = "cluster" if n_clusters == 1 else "clusters"
        axes.set_title(f"{n_clusters:,} {word}, {noise:.1%} noise", color=palette.MUTED)
        return figure


def _most(labels: NDArray[np.integer[Any]]) -> int:
    """Return the most frequent label; of several the smallest."""
    values, counts = np.unique(labels, return_counts=True)
    return int(values[counts.argmax()])
