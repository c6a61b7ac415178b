"""Two clusterings side by side: which cluster of one meets which of the other, and in which rows."""

from __future__ import annotations

import functools
import io
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.kernels.agreement import adjusted_mutual_information, adjusted_rand
from vehclust_dask.report.chosen import photo_order
from vehclust_dask.report.site.book import Book
from vehclust_dask.report.site.clusters import page_name
from vehclust_dask.report.site.describe import MOST_VALUES
from vehclust_dask.report.site.site import Link, Site, slug

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

#: Pages of two clusterings, and of a clustering and something known.
MOST_PAIRS, MOST_KNOWN = 10, 10
#: Clusters of a side that the table shows, the largest ones.
MOST_SHOWN = 60
#: Cells with thumbnails, how many each, their side in pixels, and how many a line of the sprite.
CELLS, THUMBS, SIDE, COLUMNS = 60, 2, 72, 12
#: Rows of one cell, and of all cells of a page, that are listed with their paths.
LISTED, LISTED_ALL = 2_000, 12_000
#: Bytes up to which the table of all rows lies beside the pages.
MOST_BYTES = 3_000_000
#: In labels of all rows of the data set: noise, and a row that this side does not know.
NOISE, ABSENT = -1, -2


@dataclass(frozen=True, eq=False)
class Side:
    """A clustering of all rows of the data set, or something known of them.

    Attributes
    ----------
    study : str or None
        None for a known column.
    column : str
    labels : ndarray of shape (n_rows,), int64
        -1 for noise, -2 where nothing is known of a row.
    names : list of str
        Of its clusters or values.
    """

    study: str | None
    column: str
    labels: I64
    names: list[str]

    @property
    def name(self) -> str:
        """Return how people call it."""
        return self.column if self.study is None else f"{self.study} / {self.column}"


@dataclass(frozen=True, eq=False)
class Crossed:
    """Two sides over the rows that both know.

    Attributes
    ----------
    a, b : Side
    rows : ndarray of shape (n_common,), int64
        Of the data set.
    counts : ndarray of shape (k_a, k_b), int64
        Rows of every pair; the last row and column are the noise, also where there is none.
    """

    a: Side
    b: Side
    rows: I64
    counts: I64

    @classmethod
    def of(cls, a: Side, b: Side) -> Crossed:
        """Count the rows of every pair of clusters."""
        rows = np.flatnonzero((a.labels != ABSENT) & (b.labels != ABSENT))
        k_a, k_b = len(a.names), len(b.names)
        code = _code(a, rows) * (k_b + 1) + _code(b, rows)
        counts = np.bincount(code, minlength=(k_a + 1) * (k_b + 1)).astype(np.int64)
        return cls(a, b, rows, counts.reshape(k_a + 1, k_b + 1))

    @functools.cached_property
    def agreement(self) -> Agreement:
        """Return how far the two agree, on the rows that are in a cluster of both."""
        inner = self.counts[:-1, :-1]
        table = inner[inner.any(axis=1)][:, inner.any(axis=0)]
        if not table.size:
            return Agreement(0, float("nan"), float("nan"), float("nan"))
        return Agreement(
            int(table.sum()),
            adjusted_mutual_information(table),
            adjusted_rand(table),
            v_measure(table),
        )


@dataclass(frozen=True)
class Agreement:
    """Adjusted mutual information, adjusted Rand index and V-measure of so many rows."""

    rows: int
    ami: float
    ari: float
    v: float


def v_measure(table: I64) -> float:
    """Return the harmonic mean of homogeneity and completeness of a table of counts.

    Rosenberg and Hirschberg, V-measure (2007), with beta 1.
    """
    joint = table / table.sum()
    apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    there = joint > 0
    shared = float((joint[there] * np.log(joint[there] / apart[there])).sum())
    both = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0))
    return 1.0 if both <= 0 else 2 * shared / both


def _entropy(shares: F64) -> float:
    return float(-(shares * np.log(shares)).sum())


def _code(side: Side, rows: I64) -> I64:
    """Return clusters of rows, the noise last."""
    labels = side.labels[rows]
    return np.where(labels == NOISE, len(side.names), labels)


def heavy_order(counts: I64) -> tuple[I64, I64]:
    """Return rows and columns of a table so that its diagonal is heavy.

    As many pairs as there can be are matched so that they hold the most rows (Hungarian method); the
    heaviest stand first. What is left over stands behind the pair it shares most rows with.

    Parameters
    ----------
    counts : ndarray of shape (n_a, n_b), int64

    Returns
    -------
    rows, columns : ndarray of int64
    """
    from scipy.optimize import linear_sum_assignment

    matched_a, matched_b = linear_sum_assignment(counts, maximize=True)
    order = np.argsort(-counts[matched_a, matched_b], kind="stable")
    return (
        _line_up(counts, matched_a[order], matched_b[order]),
        _line_up(counts.T, matched_b[order], matched_a[order]),
    )


def _line_up(counts: I64, matched: I64, partners: I64) -> I64:
    """Return all rows: matched ones in their order, each other one behind that of its partner."""
    n = len(counts)
    place = np.empty(counts.shape[1], np.int64)
    place.fill(len(partners))
    place[partners] = np.arange(len(partners))
    home = place[counts.argmax(axis=1)] if counts.size else np.zeros(n, np.int64)
    home[matched] = np.arange(len(matched))
    follows = np.ones(n, np.int64)
    follows[matched] = 0
    return np.lexsort((np.arange(n), -counts.sum(axis=1), follows, home)).astype(np.int64)


def sides(book: Book) -> list[Side]:
    """Return the featured clusterings of all studies, then what is known of the rows."""
    found = []
    for study in book.studies:
        featured = study.featured
        if featured is not None and featured.k:
            labels = np.full(book.n_rows, ABSENT)
            labels[study.rows] = np.maximum(featured.labels, NOISE)
            names = [str(cluster) for cluster in range(featured.k)]
            found.append(Side(study.name, featured.column, labels, names))
    for name in book.samples.columns:
        if str(name).startswith("truth_"):
            values = book.samples[name].astype("string")
            values = values.mask(values == "")
            codes, named = pd.factorize(values, sort=True)
            if 1 < len(named) <= MOST_VALUES:
                labels = np.where(codes < 0, ABSENT, codes).astype(np.int64)
                column = str(name).removeprefix("truth_")
                found.append(Side(None, column, labels, [str(value) for value in named]))
    return found


def pairs(found: list[Side]) -> list[Crossed]:
    """Return the pairs of sides that are told: clusterings of two studies, a clustering and what is known."""
    both = [
        Crossed.of(a, b)
        for a, b in itertools.combinations(found, 2)
        if a.study is not None and a.study != b.study
    ]
    return [one for one in both if len(one.rows)]


def with_pages(crossed: list[Crossed]) -> list[Crossed]:
    """Return the pairs that get a page: of what is known those that agree most."""
    clusterings = [one for one in crossed if one.b.study is not None]
    known = [one for one in crossed if one.b.study is None]
    known.sort(key=lambda one: -np.nan_to_num(one.agreement.ami, nan=-1.0))
    return clusterings[:MOST_PAIRS] + known[:MOST_KNOWN]


def link(site: Site) -> None:
    """Add the page to the navigation."""
    if pairs(sides(site.book)):
        site.links.append(Link("cross", "cross.html"))


def write(site: Site) -> None:
    """Write the pages."""
    found = sides(site.book)
    crossed = pairs(found)
    if not crossed:
        return
    shown = with_pages(crossed)
    pages = {id(one): f"cross/{i + 1:02d}.html" for i, one in enumerate(shown)}
    whole = _all_rows(site, found)
    site.copy_static("cross.js", "outliers.js")
    paths = site.book.paths
    order = np.arange(site.book.n_rows, dtype=np.uint64) if paths is None else photo_order(paths)
    for one in shown:
        _write_pair(site, one, pages[id(one)], order, whole)
    firsts = [a for a in found if a.study is not None]
    by = {(one.a.name, one.b.name): one for one in crossed}
    by |= {(one.b.name, one.a.name): one for one in crossed}
    lines = []
    for a in firsts:
        line = []
        for b in found:
            pair = by.get((a.name, b.name)) if a is not b else None
            line.append(None if pair is None else (pair.agreement.ami, pages.get(id(pair))))
        lines.append((a, line))
    site.write("cross/agreement.csv", _agreement_table(crossed))
    site.render(
        "cross.html",
        "cross.html",
        title=site.words("cross.title"),
        sides=found,
        lines=lines,
        shown=[(one, pages[id(one)]) for one in shown],
        whole=whole,
    )


def _agreement_table(crossed: list[Crossed]) -> str:
    table = pd.DataFrame(
        [
            (
                one.a.name,
                one.b.name,
                *(getattr(one.agreement, w) for w in ("rows", "ami", "ari", "v")),
            )
            for one in crossed
        ],
        columns=["a", "b", "rows", "ami", "ari", "v_measure"],
    )
    return table.to_csv(index=False, lineterminator="\n")


def _all_rows(site: Site, found: list[Side]) -> str | None:
    """Write a column per side for all rows, if that is small; return the file."""
    book = site.book
    columns: dict[str, Any] = {"row": np.arange(book.n_rows)}
    if book.paths is not None:
        columns["path"] = book.paths
    fewest = book.n_rows * (len(found) + 8)
    if fewest > MOST_BYTES:
        return None
    for side in found:
        columns[side.name.replace(" / ", "/")] = _told(side)
    out = io.StringIO()
    pd.DataFrame(columns).to_csv(out, index=False, lineterminator="\n")
    text = out.getvalue()
    if len(text.encode()) > MOST_BYTES:
        return None
    site.write("cross/rows.csv", text)
    return "cross/rows.csv"


def _told(side: Side) -> NDArray[Any]:
    """Return the name of every row's cluster, -1 for noise, empty where nothing is known."""
    names = np.array([*side.names, "", str(NOISE)], object)
    return names[side.labels]


@dataclass(frozen=True, eq=False)
class Shown:
    """A table as it stands on the page: clusters in order, the noise last; -1 names it.

    Attributes
    ----------
    a, b : ndarray of int64
        Clusters of the rows and columns of the table.
    counts : ndarray of shape (len(a), len(b)), int64
    """

    a: I64
    b: I64
    counts: I64


def arranged(crossed: Crossed) -> Shown:
    """Return the largest clusters of both sides, in heavy order."""
    inner = crossed.counts[:-1, :-1]
    keep_a = _largest(crossed.counts[:-1].sum(axis=1))
    keep_b = _largest(crossed.counts[:, :-1].sum(axis=0))
    rows, columns = heavy_order(inner[np.ix_(keep_a, keep_b)])
    a, b = keep_a[rows], keep_b[columns]
    if crossed.counts[-1].any():
        a = np.append(a, NOISE)
    if crossed.counts[:, -1].any():
        b = np.append(b, NOISE)
    return Shown(a, b, crossed.counts[np.ix_(a, b)])


def _largest(sizes: I64) -> I64:
    order = np.argsort(-sizes, kind="stable")
    return np.sort(order[sizes[order] > 0][:MOST_SHOWN])


def cap(counts: I64, each: int, all_in_all: int) -> int:
    """Return how many rows of each cell can be listed so that all of them come to so many at most."""
    low, high = 0, each
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(counts, middle).sum()) <= all_in_all:
            low = middle
        else:
            high = middle - 1
    return low


def _write_pair(
    site: Site, one: Crossed, page: str, order: NDArray[np.uint64], whole: str | None
) -> None:
    shown = arranged(one)
    most = max(cap(shown.counts, LISTED, LISTED_ALL), THUMBS)
    cells = _cells(one, shown, order, most)
    stem = page.removesuffix(".html")
    thumbs = _thumbs(site, shown, cells, f"{stem}.jpg")
    paths = site.book.paths
    rows = np.concatenate([*cells.values(), np.empty(0, np.int64)])
    sizes_a, sizes_b = one.counts.sum(axis=1), one.counts.sum(axis=0)
    data = {
        "a": _side(site, one.a, shown.a, sizes_a),
        "b": _side(site, one.b, shown.b, sizes_b),
        "counts": shown.counts.tolist(),
        "total": len(one.rows),
        "lists": {f"{i},{j}": found.tolist() for (i, j), found in cells.items()},
        "paths": {str(row): paths[row] for row in rows.tolist()} if paths is not None else {},
        "thumbs": {f"{i},{j}": at for (i, j), at in thumbs.items()},
        "sprite": f"{stem.rpartition('/')[2]}.jpg" if thumbs else None,
        "columns": COLUMNS,
        "side": SIDE,
        "each": THUMBS,
        "words": site.words.part("cross.js."),
        "language": site.words.language,
    }
    site.script(f"{stem}.js", "CROSS", data)
    site.write(f"{stem}.csv", _numbers(one))
    site.render(
        "pair.html",
        page,
        title=f"{one.a.name} × {one.b.name}",
        one=one,
        shown=shown,
        script=f"{stem.rpartition('/')[2]}.js",
        numbers=f"{stem.rpartition('/')[2]}.csv",
        left_out=(_left_out(sizes_a, shown.a), _left_out(sizes_b, shown.b)),
        pictures=bool(thumbs),
        whole=whole,
        tables=[side.study for side in (one.a, one.b) if side.study is not None],
    )


def _left_out(sizes: I64, clusters: I64) -> int:
    """Return how many clusters with common rows the table does not show."""
    return int((sizes[:-1] > 0).sum() - (clusters != NOISE).sum())


def _side(site: Site, side: Side, clusters: I64, sizes: I64) -> dict[str, Any]:
    """Return what the script knows of one side."""
    folder = None if side.study is None else f"../s/{slug(side.study)}/c"
    return {
        "name": side.name,
        "column": side.column,
        "study": side.study,
        "noise": site.words("noise"),
        "clusters": [None if c == NOISE else side.names[c] for c in clusters.tolist()],
        "sizes": sizes[clusters].tolist(),
        "pages": None
        if folder is None
        else [f"{folder}/{page_name(c)}" for c in clusters.tolist()],
    }


def _cells(
    one: Crossed, shown: Shown, order: NDArray[np.uint64], most: int
) -> dict[tuple[int, int], I64]:
    """Return rows of every shown cell, first those whose paths have the smallest hash."""
    place_a = _places(shown.a, len(one.a.names))[_code(one.a, one.rows)]
    place_b = _places(shown.b, len(one.b.names))[_code(one.b, one.rows)]
    there = (place_a >= 0) & (place_b >= 0)
    rows, cell = one.rows[there], (place_a * len(shown.b) + place_b)[there]
    rows = rows[np.lexsort((rows, order[rows], cell))]
    starts = np.concatenate([[0], np.cumsum(shown.counts.ravel())])
    return {
        (at // len(shown.b), at % len(shown.b)): rows[starts[at] : starts[at + 1]][:most]
        for at in np.flatnonzero(shown.counts.ravel()).tolist()
    }


def _places(clusters: I64, k: int) -> I64:
    """Return where each cluster stands, the noise last; -1 for one that is not shown."""
    place = np.full(k + 1, -1)
    place[clusters] = np.arange(len(clusters))
    return place


def _thumbs(
    site: Site, shown: Shown, cells: dict[tuple[int, int], I64], name: str
) -> dict[tuple[int, int], int]:
    """Write thumbnails of the largest cells; return where those of a cell begin, by cell."""
    if not site.thumbs.any:
        return {}
    largest = sorted(cells, key=lambda cell: (-shown.counts[cell], cell))[:CELLS]
    lines = [np.resize(cells[cell][:THUMBS], THUMBS) for cell in largest]
    if not lines:
        return {}
    site.thumbs.sprite(np.concatenate(lines), COLUMNS, site.out / name, SIDE)
    return {cell: THUMBS * at for at, cell in enumerate(largest)}


def _numbers(one: Crossed) -> str:
    """Return all counts as CSV: a row per pair of clusters that share rows."""
    i, j = np.nonzero(one.counts)
    apart = one.counts.sum(axis=1)[i] * one.counts.sum(axis=0)[j].astype(np.float64)
    names_a, names_b = [*one.a.names, str(NOISE)], [*one.b.names, str(NOISE)]
    table = pd.DataFrame(
        {
            "a": [names_a[at] for at in i],
            "b": [names_b[at] for at in j],
            "rows": one.counts[i, j],
            "lift": one.counts[i, j] * float(len(one.rows)) / apart,
        }
    )
    return table.to_csv(index=False, lineterminator="\n")
