"""What every figure has in common: its numbers, its look, its files.

A figure knows its numbers (``frame()``) and draws them (``plot()``); :func:`write_figure` writes
SVG, PNG and CSV. The same numbers give the same bytes.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vehclust_dask.report import palette
from vehclust_dask.report.canvas import SYNTHETIC_MARK

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Settings of matplotlib that every figure is drawn and written under.
STYLE: Any = {
    "svg.hashsalt": "vehclust",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": palette.INK,
    "axes.edgecolor": palette.EMPTY_TILE,
    "axes.labelcolor": palette.MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": palette.RULE,
    "grid.linewidth": 0.7,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.titlesize": 14,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.10,
    "figure.constrained_layout.wspace": 0.03,
    "figure.constrained_layout.hspace": 0.03,
}


class Display(Protocol):
    """A figure that can also be read as a table."""

    def frame(self) -> pd.DataFrame:
        """Return the numbers of the figure."""
        ...

    def plot(self) -> Figure:
        """Draw the figure."""
        ...


def write_figure(display: Display, out_dir: Path, stem: str, *, png: bool = True) -> list[Path]:
    """Write ``stem.svg``, ``stem.png`` and the numbers as ``stem.csv``.

    Parameters
    ----------
    display : Display
    out_dir : Path
        Made where it is missing.
    stem : str
    png : bool
        False: a page needs no PNG.

    Returns
    -------
    list of Path
        The files; a second call writes the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out_dir.mkdir(parents=True, exist_ok=True)
    endings = ("svg", "png", "csv") if png else ("svg", "csv")
    files = {ending: out_dir / f"{stem}.{ending}" for ending in endings}
    with mpl.rc_context(STYLE):
        figure = display.plot()
        FigureCanvasAgg(figure)
        figure.savefig(files["svg"], metadata={"Date": None})
        if png:
            figure.savefig(files["png"], dpi=144, metadata={"Software": None})
    display.frame().to_csv(files["csv"], index=False, lineterminator="\n")
    return list(files.values())


def head(figure: Figure, title: str, synthetic: bool) -> None:
    """Write the title at the left and, where it applies, the mark at the right."""
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    if synthetic:
        figure.text(
            0.985,
            0.982,
            SYNTHETIC_MARK,
            ha="right",
            va="top",
            fontsize=8.5,
            color=palette.MARK,
            bbox={"boxstyle": "round,pad=0.45,rounding_size=0.9", "fc": "none", "ec": palette.MARK},
        )


def note(figure: Figure, words: str) -> None:
    """Write a sentence below everything, at the left, in lines as wide as the figure."""
    # Letters of this size are about a fourteenth of an inch wide.
    lines = textwrap.fill(words, int(14 * figure.get_figwidth()) - 6)
    figure.supxlabel(lines, x=0.012, ha="left", fontsize=9, color=palette.MUTED)


def blend(code: str, share: float, onto: str = palette.PAPER) -> str:
    """Return a colour thinned onto another, ``share`` of it from 0 to 1, as ``#rrggbb``."""
    over, under = palette.rgb(code), palette.rgb(onto)
    mixed = (round(share * a + (1 - share) * b) for a, b in zip(over, under, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def name_line(axes: Axes, height: float, words: str) -> None:
    """Say at the right edge what a horizontal line at this height is."""
    axes.annotate(
        words,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=palette.MARK,
    )


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Put plain numbers on a logarithmic axis: close ones where it is short."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if high < 2 * low:
        axis.set_major_locator(MaxNLocator(nbins=6))
    else:
        subs: tuple[float, ...] = (1, 2, 5) if high < 1000 * low else (1,)
        subs = (1, 1.5, 2, 3, 5, 7) if high < 30 * low else subs
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(lambda number, _: f"{number:,.6g}")
    axis.set_minor_locator(NullLocator())
