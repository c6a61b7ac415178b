"""The clusters that density finds in one another, drawn as hdbscan draws its condensed tree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.figure import STYLE, blend, head, log_ticks, note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("parent", "child", "lambda_val", "child_size")
#: A column is never narrower than this share of them all, so that its number can be read.
_NARROWEST = 0.018
#: A size is written where a column covers this share of the figure's width and height.
_WIDE, _TALL = 0.05, 0.035


class Cluster(NamedTuple):
    """A cluster of a condensed tree.

    Attributes
    ----------
    parent : int
        -1 for the first.
    rows : int
        At its birth.
    birth, end : float
        Distances at which it came apart from others, and at which its last row left or it came
        apart itself: infinite at the birth of the first, zero at the end of what holds copies.
    parts : list of int
        Clusters it comes apart into, the largest first.
    """

    parent: int
    rows: int
    birth: float
    end: float
    parts: list[int]


class Column(NamedTuple):
    """A cluster as it is drawn; ``label`` is -1 where it is not selected, the rest as in `Cluster`."""

    cluster: int
    parent: int
    rows: int
    birth: float
    end: float
    label: int
    left: float
    right: float


@dataclass(frozen=True, eq=False)
class CondensedTree:
    """Clusters as columns: wide is many rows, long is lasting through many distances.

    Drawn are the ``top`` largest selected clusters, then the largest others while there is room,
    and all they lie in. The width of what lies above the selected clusters tells which of them it
    holds, not its rows: most rows of a large cluster often end as noise.

    Parameters
    ----------
    tree : DataFrame
        As hdbscan writes its condensed tree: parent, child, lambda_val, child_size. When the last
        row of a cluster leaves it is told by rows with child_size 1, or by a column lambda_end;
        without either, what does not come apart is drawn to the foot of the figure.
    selected : sequence of int
        The chosen clusters in the order of their labels: label 0 first.
    n_samples : int, optional
        Rows of the first cluster; left out, the sum of what it comes apart into.
    top : int
        Clusters drawn at most, those not counted that others lie in.
    metric : str
        The metric of the distances, with its unit.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.

    Raises
    ------
    BadInput
        If a column is missing, there is more or less than one first cluster, or a selected cluster
        is not in the tree.
    """

    tree: pd.DataFrame
    selected: Sequence[int] = ()
    n_samples: int | None = None
    top: int = 40
    metric: str = "euclidean"
    title: str = "Clusters by density"
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no condensed tree."""
        lost = [name for name in _COLUMNS if name not in self.tree]
        if lost:
            raise BadInput(f"the condensed tree lacks {', '.join(lost)}; add these columns")
        firsts = np.setdiff1d(self.tree["parent"], self.tree["child"])
        if len(firsts) != 1:
            raise BadInput(
                f"{len(firsts)} clusters of the condensed tree have no parent; give a whole tree, "
                "where one has none"
            )
        if self.top < 1:
            raise BadInput(f"top={self.top} clusters: draw 1 or more")
        known = self._clusters()
        strange = [cluster for cluster in self.selected if cluster not in known]
        if strange:
            raise BadInput(f"selected cluster {strange[0]} is not in the condensed tree")

    def frame(self) -> pd.DataFrame:
        """Return a row per drawn cluster, parents before children.

        Returns
        -------
        DataFrame
            cluster, parent (-1 for the first), rows at birth, birth and end (distances; birth is
            infinite for the first), label (-1 where not selected), left and right (place in the
            figure, in rows; narrow columns are widened).
        """
        import pandas as pd

        return pd.DataFrame(self._columns(), columns=list(Column._fields))

    def plot(self) -> Figure:
        """Draw the columns over a logarithmic distance, far above and near below."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        columns = self._columns()
        with mpl.rc_context(STYLE):
            wide = min(15.0, max(9.6, 0.3 * sum(c.label >= 0 for c in columns) + 2))
            figure = Figure(figsize=(wide, 6.4), layout="constrained")
            axes = figure.subplots()
            low, high = _span(columns)
            axes.set_yscale("log")
            axes.set_ylim(low, high)
            axes.set_xlim(columns[0].right * -0.002, columns[0].right * 1.002)
            log_ticks(axes.yaxis, low, high)
            _draw_columns(axes, columns)
            _name_selected(axes, columns)
            axes.grid(axis="x", visible=False)
            axes.set_ylabel(f"{self.metric} distance at which clusters part (logarithmic)")
            head(figure, self.title, self.synthetic)
            note(figure, self._told(columns))
        return figure

    def _told(self, columns: list[Column]) -> str:
        n = int((self.tree["child_size"] > 1).sum()) + 1
        told = f"{len(columns):,} of {n:,} clusters" if len(columns) < n else f"{n:,} clusters"
        told += f"; {len(self.selected):,} selected (outlined, with label and rows below)"
        small = len(self.selected) - sum(column.label >= 0 for column in columns)
        return told + (f", {small:,} of them too small to be drawn" if small else "")

    def _clusters(self) -> dict[int, Cluster]:
        """Return all clusters of the tree, parents first."""
        first = int(np.setdiff1d(self.tree["parent"], self.tree["child"])[0])
        parent, child, size = (
            self.tree[name].to_numpy(np.int64) for name in ("parent", "child", "child_size")
        )
        density = self.tree["lambda_val"].to_numpy(np.float64)
        ends = _ends(parent, density)
        if "lambda_end" in self.tree:
            ends |= _ends(child, self.tree["lambda_end"].to_numpy(np.float64))
        # A part has fewer rows than its whole, which is therefore met before it.
        order = np.lexsort((child, -size))
        order = order[size[order] > 1]
        n_samples = int(size[(parent == first) & (size > 1)].sum())
        n_samples = n_samples if self.n_samples is None else self.n_samples
        out = {first: Cluster(-1, n_samples, float("inf"), ends.get(first, 0.0), [])}
        for c, up, rows, born in zip(
            child[order].tolist(),
            parent[order].tolist(),
            size[order].tolist(),
            density[order].tolist(),
            strict=True,
        ):
            birth = _distance(born)
            out[up].parts.append(c)
            out[c] = Cluster(up, rows, birth, min(birth, ends.get(c, 0.0)), [])
        return out

    def _drawn(self, clusters: dict[int, Cluster]) -> set[int]:
        """Return the clusters to draw: selected ones, then others, by size, and all they lie in."""
        chosen = set(self.selected)
        wanted = sorted(clusters, key=lambda c: (c not in chosen, -clusters[c].rows, c))
        out: set[int] = set()
        for cluster in wanted[: self.top]:
            while cluster >= 0 and cluster not in out:
                out.add(cluster)
                cluster = clusters[cluster].parent
        return out

    def _columns(self) -> list[Column]:
        """Return what is drawn, parents first."""
        clusters = self._clusters()
        number = {int(cluster): label for label, cluster in enumerate(self.selected)}
        return [
            Column(c, *clusters[c][:4], number.get(c, -1), left, right)
            for c, (left, right) in self._places(clusters).items()
        ]

    def _places(self, clusters: dict[int, Cluster]) -> dict[int, tuple[float, float]]:
        """Return left and right of every drawn cluster, parents first."""
        drawn, chosen = self._drawn(clusters), set(self.selected)
        order = [cluster for cluster in clusters if cluster in drawn]
        parts = {c: [part for part in clusters[c].parts if part in drawn] for c in order}
        # What is selected, and what has no drawn part, is as wide as it has rows.
        tips = [c for c in order if c in chosen or not parts[c]]
        narrowest = _NARROWEST * sum(clusters[c].rows for c in tips)
        width: dict[int, float] = {}
        for c in reversed(order):
            within = sum(width[part] for part in parts[c])
            own = max(float(clusters[c].rows), narrowest)
            width[c] = max(own, within) if c in chosen or not parts[c] else within
        place = {order[0]: (0.0, width[order[0]])}
        for c in order:
            at = sum(place[c]) / 2 - sum(width[part] for part in parts[c]) / 2
            for part in parts[c]:
                place[part] = (at, at + width[part])
                at += width[part]
        return {c: place[c] for c in order}


def _draw_columns(axes: Axes, columns: list[Column]) -> None:
    from matplotlib.patches import Rectangle

    low, high = axes.get_ylim()
    within: dict[int, int] = {}
    for column in columns:
        top, bottom = min(column.birth, high), max(column.end, low)
        above, chosen = within.get(column.parent, -1), column.label >= 0
        within[column.cluster] = column.label if chosen else above
        width, middle = column.right - column.left, (column.left + column.right) / 2
        axes.add_patch(
            Rectangle(
                (column.left, bottom),
                width,
                top - bottom,
                facecolor=_fill(column.label, above),
                edgecolor=palette.INK if chosen else palette.PAPER,
                linewidth=1.4 if chosen else 0.8,
                zorder=4 if chosen else 3,
            )
        )
        tall = math.log(top / bottom) > _TALL * math.log(high / low)
        if not chosen and tall and width > _WIDE * columns[0].right:
            y = math.sqrt(top * bottom)
            axes.text(
                middle, y, f"{column.rows:,}", ha="center", va="center", fontsize=8.5, zorder=5
            )


def _fill(label: int, above: int) -> str:
    """Return the colour of a cluster by its label and by the label of what it lies in."""
    if label >= 0:
        return palette.color(label)
    return palette.TILE if above < 0 else blend(palette.color(above), 0.45)


def _name_selected(axes: Axes, columns: list[Column]) -> None:
    """Write label and rows of every selected cluster below it."""
    chosen = [column for column in columns if column.label >= 0]
    middles = [(column.left + column.right) / 2 for column in chosen]
    sizes = [f"{column.rows:,}" for column in chosen]
    axes.set_xticks(middles, sizes, rotation=90, fontsize=8.5)
    axes.tick_params(axis="x", length=0, pad=20, labelcolor=palette.INK)
    for x, column in zip(middles, chosen, strict=True):
        axes.annotate(
            str(column.label),
            (x, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -6),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
            fontweight="bold",
        )
    for words, below in (("label", 6), ("rows", 21)):
        axes.annotate(
            words if chosen else "",
            (0, 0),
            xycoords="axes fraction",
            xytext=(-6, -below),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
            color=palette.MUTED,
        )


def _distance(density: float) -> float:
    return 1 / density if density > 0 else float("inf")


def _ends(cluster: NDArray[np.int64], density: NDArray[np.float64]) -> dict[int, float]:
    """Return the smallest distance at which anything left each cluster."""
    clusters, place = np.unique(cluster, return_inverse=True)
    most = np.zeros(len(clusters))
    np.maximum.at(most, place, density)
    return dict(zip(clusters.tolist(), map(_distance, most.tolist()), strict=True))


def _span(columns: list[Column]) -> tuple[float, float]:
    """Return the smallest and the largest distance to draw, with some room about them."""
    ends = [d for column in columns for d in (column.birth, column.end)]
    ends = [d for d in ends if math.isfinite(d) and d > 0]
    low, high = (min(ends), max(ends)) if ends else (1.0, 1.0)
    room = max((high / low) ** 0.08, 1.03)
    return low / room, high * room
