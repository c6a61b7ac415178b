"""Trees of clusters: the top of a linkage, and the clusters that density finds in one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.figure import STYLE, head, name_line, note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: More branches than this side by side leave no room for their numbers.
MOST_BRANCHES = 120
#: Heights are drawn from zero unless the lowest of them lies above this share of the highest.
_FROM_ZERO = 0.4


class Branch(NamedTuple):
    """A node of a tree's top.

    Attributes
    ----------
    node : int
        As scipy numbers them: a row, or n_samples + the merge that made it.
    parent : int
        -1 for the root.
    left, right : int
        The nodes it was made of; -1 where the branch is drawn as a leaf.
    height : float
        Of the merge that made it; 0 for a single row.
    rows : int
    """

    node: int
    parent: int
    left: int
    right: int
    height: float
    rows: int


@dataclass(frozen=True, eq=False)
class Dendrogram:
    """The top of a tree: its last merges, the clusters below them as branches with their sizes.

    Parameters
    ----------
    linkage : ndarray of shape (n_samples - 1, 4), float64
        As scipy.cluster.hierarchy.linkage, heights never falling.
    top : int
        Branches drawn, 2 or more; all rows where there are fewer.
    n_clusters : int, optional
        Mark the cut into so many clusters and colour by them, in the colours and numbers of
        :func:`~vehclust_dask.kernels.linkage.cut_linkage`. A cut into more clusters than there are
        branches lies below the figure, which then says so.
    height : str
        What the height of a merge is, with its unit.
    title : str
    synthetic : bool
        Mark the figure as drawn from invented data.

    Raises
    ------
    BadInput
        If the linkage is none, or a number lies outside what is allowed.
    """

    linkage: NDArray[np.float64]
    top: int = 30
    n_clusters: int | None = None
    height: str = "height of the merge"
    title: str = "The top of the tree"
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no linkage matrix, or a top that cannot be drawn."""
        Z = np.asarray(self.linkage)
        if Z.ndim != 2 or Z.shape[1] != 4 or not len(Z):
            raise BadInput(
                f"the linkage has shape {Z.shape}; give one row per merge with two clusters, "
                "height and size, (n_samples - 1, 4)"
            )
        if not np.isfinite(Z[:, 2]).all() or (np.diff(Z[:, 2]) < 0).any():
            raise BadInput(
                "the linkage's heights fall or are not finite; sort its merges by height"
            )
        if not 2 <= self.top <= MOST_BRANCHES:
            raise BadInput(f"top={self.top} branches: draw from 2 to {MOST_BRANCHES}")
        n = len(Z) + 1
        if self.n_clusters is not None and not 1 <= self.n_clusters <= n:
            raise BadInput(
                f"n_clusters={self.n_clusters} but the tree has {n} rows; cut it into 1 to {n}"
            )

    @property
    def n_branches(self) -> int:
        """Return how many branches are drawn."""
        return min(self.top, len(self.linkage) + 1)

    @property
    def cut_height(self) -> float | None:
        """Return the height of the marked cut, half way to the next merge; None where none is drawn."""
        if self.n_clusters is None or self.n_clusters > self.n_branches:
            return None
        heights = np.concatenate([[0.0], self.linkage[:, 2], self.linkage[-1:, 2] * 1.08])
        made = len(self.linkage) + 1 - self.n_clusters
        return float(heights[made] + heights[made + 1]) / 2

    def frame(self) -> pd.DataFrame:
        """Return a row per drawn node, the root first.

        Returns
        -------
        DataFrame
            node, parent (numbered as scipy does; -1 above the root), height of the merge, rows,
            branch (place from left to right; -1 for a merge that is drawn), cluster (of the cut;
            -1 above it, and where none is drawn).
        """
        import pandas as pd

        branches = self._branches()
        place = {node: i for i, node in enumerate(_leaves(branches))}
        cluster = self._clusters(branches)
        return pd.DataFrame(
            {
                "node": list(branches),
                "parent": [branch.parent for branch in branches.values()],
                "height": [branch.height for branch in branches.values()],
                "rows": [branch.rows for branch in branches.values()],
                "branch": [place.get(node, -1) for node in branches],
                "cluster": [cluster.get(node, -1) for node in branches],
            }
        )

    def plot(self) -> Figure:
        """Draw the merges above, the sizes of the branches as bars below them."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        branches = self._branches()
        leaves, cluster = _leaves(branches), self._clusters(branches)
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(max(7.2, 0.33 * len(leaves) + 1.4), 6.4), layout="constrained")
            above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4.6, 1])
            self._draw_tree(above, branches, leaves, cluster)
            _draw_sizes(below, [branches[leaf].rows for leaf in leaves], _colors(leaves, cluster))
            above.set_xlim(-0.75, len(leaves) - 0.25)
            head(figure, self.title, self.synthetic)
            note(figure, self._told())
        return figure

    def _told(self) -> str:
        n, drawn = len(self.linkage) + 1, self.n_branches
        told = f"{n:,} rows; the last {drawn - 1:,} of {n - 1:,} merges"
        if self.n_clusters is not None and self.cut_height is None:
            told += f". The cut into {self.n_clusters:,} clusters lies below these branches"
        return told

    def _branches(self) -> dict[int, Branch]:
        """Return the nodes that are drawn, the root first."""
        Z, n = self.linkage, len(self.linkage) + 1
        first = 2 * n - self.n_branches
        parent, out = {2 * n - 2: -1}, {}
        for node in range(2 * n - 2, first - 1, -1):
            left, right = int(Z[node - n, 0]), int(Z[node - n, 1])
            parent |= {left: node, right: node}
        for node in sorted(parent, reverse=True):
            left, right = (int(Z[node - n, 0]), int(Z[node - n, 1])) if node >= first else (-1, -1)
            made = node >= n
            out[node] = Branch(
                node,
                parent[node],
                left,
                right,
                float(Z[node - n, 2]) if made else 0.0,
                int(Z[node - n, 3]) if made else 1,
            )
        return out

    def _clusters(self, branches: dict[int, Branch]) -> dict[int, int]:
        """Return the number of the cluster of every node below the cut, counted by first rows."""
        if self.cut_height is None:
            return {}
        # Merges are made in order: after all but the last n_clusters - 1, whatever has a later
        # merge above it or none is a cluster.
        n = len(self.linkage) + 1
        assert self.n_clusters is not None, "a cut is drawn"
        first_undone = 2 * n - self.n_clusters
        tops = [
            b.node
            for b in branches.values()
            if b.node < first_undone and (b.parent >= first_undone or b.parent < 0)
        ]
        rows = _first_rows(self.linkage, tops)
        number = {node: c for c, node in enumerate(sorted(tops, key=lambda node: rows[node]))}
        for branch in branches.values():
            if branch.parent in number:
                number[branch.node] = number[branch.parent]
        return number

    def _draw_tree(
        self,
        axes: Axes,
        branches: dict[int, Branch],
        leaves: list[int],
        cluster: dict[int, int],
    ) -> None:
        from matplotlib.collections import LineCollection

        heights = [b.height for b in branches.values() if b.left >= 0]
        low, high = min(heights), max(heights)
        bottom = low - 0.12 * (high - low) if low > _FROM_ZERO * high and low < high else 0.0
        x = {leaf: float(i) for i, leaf in enumerate(leaves)}
        for node in reversed(branches):
            if branches[node].left >= 0:
                x[node] = (x[branches[node].left] + x[branches[node].right]) / 2
        lines, colors, faint = [], [], []
        for branch in branches.values():
            if branch.left >= 0:
                ends = (x[branch.left], branch.height), (x[branch.right], branch.height)
                lines.append(ends)
                colors.append(_ink(branch.node, cluster))
            if branch.parent >= 0:
                own, up = max(branch.height, bottom), branches[branch.parent].height
                lines.append(((x[branch.node], own), (x[branch.node], up)))
                colors.append(_ink(branch.node, cluster))
            if branch.left < 0 and branch.height > bottom:
                faint.append(((x[branch.node], bottom), (x[branch.node], branch.height)))
        axes.add_collection(
            LineCollection(faint, colors=palette.EMPTY_TILE, linewidths=1.2, linestyles=(0, (1, 2)))
        )
        axes.add_collection(
            LineCollection(lines, colors=colors, linewidths=1.8, capstyle="projecting", zorder=3)
        )
        axes.set_ylim(bottom, high + 0.1 * (high - bottom) or 1.0)
        axes.grid(axis="x", visible=False)
        axes.tick_params(axis="x", length=0)
        axes.yaxis.set_major_formatter(lambda height, _: f"{height:,.6g}")
        axes.set_ylabel(self.height)
        self._draw_cut(axes, leaves, cluster)

    def _draw_cut(self, axes: Axes, leaves: list[int], cluster: dict[int, int]) -> None:
        """Draw the line of the cut and, below the tree, the number of every cluster."""
        if self.cut_height is None:
            return
        words = f"{self.n_clusters:,} cluster{'s' if self.n_clusters != 1 else ''}"
        axes.axhline(self.cut_height, color=palette.MARK, linewidth=1.2, linestyle=(0, (5, 3)))
        name_line(axes, self.cut_height, f"{words}\ncut at {self.cut_height:,.4g}")
        axes.annotate(
            "cluster",
            (0, 0),
            xycoords="axes fraction",
            xytext=(-6, -5),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
            color=palette.MUTED,
        )
        numbers = [cluster[leaf] for leaf in leaves]
        for c in dict.fromkeys(numbers):
            places = [i for i, number in enumerate(numbers) if number == c]
            axes.plot(
                [places[0] - 0.36, places[-1] + 0.36],
                [0, 0],
                transform=axes.get_xaxis_transform(),
                color=palette.color(c),
                linewidth=5,
                solid_capstyle="butt",
                clip_on=False,
                zorder=4,
            )
            axes.annotate(
                str(c),
                ((places[0] + places[-1]) / 2, 0),
                xycoords=("data", "axes fraction"),
                xytext=(0, -5),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=9,
                fontweight="bold",
                color=palette.INK,
            )


def _first_rows(Z: NDArray[np.float64], tops: list[int]) -> dict[int, int]:
    """Return the smallest row below each of some nodes that hold all rows between them.

    Every node learns its parent's parent at once: log2(depth) steps over whole arrays, so that a
    tree that is one long chain costs no more than a balanced one.
    """
    n = len(Z) + 1
    up = np.arange(2 * n - 1)
    made = Z[:, :2].astype(np.int64)
    up[made[:, 0]] = up[made[:, 1]] = np.arange(n, 2 * n - 1)
    up[tops] = tops
    above = max(tops) + 1
    up[above:] = np.arange(above, 2 * n - 1)
    while True:
        further = up[up]
        if np.array_equal(further, up):
            break
        up = further
    owners, first = np.unique(up[:n], return_index=True)
    return dict(zip(owners.tolist(), first.tolist(), strict=True))


def _leaves(branches: dict[int, Branch]) -> list[int]:
    """Return the branches that are drawn as leaves from left to right, as scipy orders them."""
    out, todo = [], [next(iter(branches))]
    while todo:
        branch = branches[todo.pop()]
        if branch.left < 0:
            out.append(branch.node)
        else:
            todo += [branch.right, branch.left]
    return out


def _ink(node: int, cluster: dict[int, int]) -> str:
    return palette.color(cluster[node]) if node in cluster else palette.MUTED


def _colors(nodes: list[int], cluster: dict[int, int]) -> list[str]:
    return [_ink(node, cluster) for node in nodes]


def _draw_sizes(axes: Axes, rows: list[int], colors: list[str]) -> None:
    axes.bar(range(len(rows)), rows, width=0.62, color=colors)
    upright = len(rows) <= 12
    axes.set_xticks(
        range(len(rows)),
        [f"{size:,}" for size in rows],
        rotation=0 if upright else 90,
        fontsize=9 if len(rows) <= 40 else 8,
        color=palette.INK,
    )
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("rows", rotation=0, ha="right", va="center")
