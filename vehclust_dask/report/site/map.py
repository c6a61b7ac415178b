"""The map: every row of a study as a point, to colour, to hover, to cut out by a lasso."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from vehclust_dask.report import palette
from vehclust_dask.report.chosen import photo_order
from vehclust_dask.report.site.book import Featured, StudyBook, nearest_column
from vehclust_dask.report.site.clusters import COLUMNS, chosen_rows, page_name
from vehclust_dask.report.site.packing import (
    BITS,
    UNKNOWN,
    quantised,
    squeezed,
    squeezed_codes,
    squeezed_paths,
    squeezed_positions,
    squeezed_rows,
)
from vehclust_dask.report.site.pictures import THUMB
from vehclust_dask.report.site.site import Site

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Rows that a browser draws with ease; of more, a sample by hash lies on an image of their density.
MOST_POINTS, SAMPLE = 2_000_000, 500_000
#: Pixels of a side of that image.
DENSITY_SIDE = 1024
#: Clusters and values with a colour and a line of the legend of their own: no colour twice.
MOST_SHOWN = len(palette.PALETTE)
#: Other clusterings to colour by, and clusters one of them may have.
MOST_OTHERS, MOST_CLUSTERS = 4, 256
#: Values a known column may have, and outlier scores to colour by.
MOST_VALUES, MOST_SCORES = 60, 12
#: Share of the numbers beyond either end of their ramp: one far row would leave all others pale.
BEYOND = 0.005
#: The ramp of numbers: small ones pale, large ones dark.
RAMP = ("#efd9ae", "#f0a24a", "#d95a3c", "#9b2a5c", "#3c1550")
#: Small clusters that have no colour of their own.
OTHERS = "#8b929c"
#: Values that name a colour look like it; white is a grey that paper shows.
_LOOKS = {
    "beige": "#d8c199", "black": "#15181d", "blue": "#2f6fd0", "brown": "#7e4a2a",
    "gold": "#c9a227", "golden": "#c9a227", "gray": "#7d848e", "green": "#3f9a58",
    "grey": "#7d848e", "orange": "#ee8a2d", "pink": "#ee86b7", "purple": "#8452bd",
    "red": "#d23b3f", "silver": "#a9b4c0", "white": "#d5dbe2", "yellow": "#e3c11f",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Coloring:
    """What the points may be coloured by.

    Attributes
    ----------
    group : {'clusters', 'known', 'scores'}
    title : str
    make : callable
        Takes the positions of the drawn rows in the study, or None for all; returns what the
        browser is told.
    """

    group: str
    title: str
    make: Callable[[I64 | None], dict[str, Any]]


def link(site: Site) -> None:
    """Add the pages to the navigation."""
    for study in site.book.studies:
        if study.featured is not None:
            site.link_study(study, "map")


def write(site: Site) -> None:
    """Write the pages."""
    for study in site.book.studies:
        if study.featured is not None:
            _write_study(site, study, study.featured)
    site.copy_static("map.js", "map.css")


def _write_study(site: Site, study: StudyBook, featured: Featured) -> None:
    folder = site.folder(study)
    drawn = _drawn(site, study)
    x, *x_range = quantised(study.xy[:, 0], 1 << BITS)
    y, *y_range = quantised(study.xy[:, 1], 1 << BITS)
    if drawn is not None:
        _write_density(site, x, y, f"{folder}/map-density.png")
    own, *others = _colorings(site, study, featured)
    files = [f"map-color-{i + 1}.js" for i in range(len(others))]
    for i, (file, coloring) in enumerate(zip(files, others, strict=True)):
        site.script(f"{folder}/{file}", f"MAP_COLOR_{i + 1}", coloring.make(drawn))
    rows = study.rows if drawn is None else study.rows[drawn]
    paths = site.book.paths
    told = {
        "n": len(rows),
        "total": len(study.rows),
        "levels": 1 << BITS,
        "x": x_range,
        "y": y_range,
        "positions": squeezed_positions(*((x, y) if drawn is None else (x[drawn], y[drawn]))),
        "rows": squeezed_rows(rows),
        "paths": None if paths is None else squeezed_paths([paths[row] for row in rows.tolist()]),
        "own": own.make(drawn),
        "files": files,
        "tiles": _tiles(site, study, featured, drawn),
        "density": None if drawn is None else "map-density.png",
        "ramp": RAMP,
        "behind": palette.EMPTY_TILE,
    }
    site.script(f"{folder}/map-data.js", "MAP", told)
    site.render(
        "map.html",
        f"{folder}/map.html",
        title=site.words("map.title", study=study.name),
        study=study,
        featured=featured,
        drawn=len(rows),
        held=sum(study.shares) if study.shares else None,
        groups=_groups([own, *others]),
        script_words=site.words.part("map."),
    )


def _drawn(site: Site, study: StudyBook) -> I64 | None:
    """Return the rows that are drawn, by the hash of their path; None for all of them."""
    if len(study.rows) <= MOST_POINTS:
        return None
    paths = site.book.paths
    names = [str(row) if paths is None else paths[row] for row in study.rows.tolist()]
    first = np.argsort(photo_order(names), kind="stable")[:SAMPLE]
    return np.sort(first).astype(np.int64)


def _write_density(site: Site, x: I64, y: I64, file: str) -> None:
    """Write how many rows lie where as a picture, darker where more; the top is the largest y."""
    shift = BITS - (DENSITY_SIDE.bit_length() - 1)
    at = (DENSITY_SIDE - 1 - (y >> shift)) * DENSITY_SIDE + (x >> shift)
    counts = np.bincount(at, minlength=DENSITY_SIDE**2)
    dark = np.log1p(counts) / np.log1p(max(1, int(counts.max(initial=0))))
    levels = 255 - np.rint(110 * dark).astype(np.uint8)
    picture = Image.fromarray(levels.reshape(DENSITY_SIDE, DENSITY_SIDE))
    (site.out / file).parent.mkdir(parents=True, exist_ok=True)
    picture.save(site.out / file, "PNG", optimize=True)


def _groups(colorings: list[Coloring]) -> list[tuple[str, list[tuple[int, str]]]]:
    """Return the choices of a colour by group, numbered."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for i, coloring in enumerate(colorings):
        groups.setdefault(coloring.group, []).append((i, coloring.title))
    return list(groups.items())


def _colorings(site: Site, study: StudyBook, featured: Featured) -> Iterator[Coloring]:
    """Iterate over what the points may be coloured by, the featured clustering first."""
    noise, unknown = site.words("noise"), site.words("map.unknown")
    own = partial(_clusters, featured.labels, featured.k, noise)
    yield Coloring("clusters", featured.column, own)
    for column in _other_columns(study, featured):
        k = study.columns[column][1]
        yield Coloring("clusters", column, partial(_read_clusters, study, column, k, noise))
    for name, values in site.known(study).items():
        if len(set(values.tolist())) <= MOST_VALUES:
            yield Coloring("known", name, partial(_values, values, unknown))
    if np.isfinite(featured.distance).any():
        title = site.words("map.color.distance")
        yield Coloring("scores", title, partial(_numbers, featured.distance))
    for name, score in _scores(study):
        yield Coloring("scores", name, partial(_numbers, score))


def _other_columns(study: StudyBook, featured: Featured) -> list[str]:
    """Return other clusterings: of each other method the one nearest in number, then coarser ones."""
    few = {
        column: one
        for column, one in study.columns.items()
        if one[1] <= MOST_CLUSTERS and column != featured.column
    }
    found: list[str] = []
    for name in dict.fromkeys(name for name, _ in few.values()):
        if name != featured.name:
            found.append(nearest_column(few, name, featured.k))
    for part in (2, 4, 0.5, 8):
        if any(name == featured.name for name, _ in few.values()):
            found.append(nearest_column(few, featured.name, featured.k / part))
    return list(dict.fromkeys(found))[:MOST_OTHERS]


def _scores(study: StudyBook) -> list[tuple[str, F64]]:
    """Return the outlier scores of the rows: columns that are ranked."""
    table = study.outliers
    if table is None:
        return []
    ranked = [str(name) for name in table.columns if f"{name}_rank" in table.columns]
    scores = [(name, table[name].to_numpy(np.float64)) for name in ranked[:MOST_SCORES]]
    return [(name, values) for name, values in scores if np.isfinite(values).any()]


def _clusters(labels: I64, k: int, noise: str, drawn: I64 | None) -> dict[str, Any]:
    """Return a clustering for the browser; the noise is the last code and never stands first."""
    codes = np.where(labels < 0, k, labels)
    names = [*map(str, range(k)), noise]
    return _categories("cluster", codes, names, [palette.color(c) for c in range(k)], drawn)


def _read_clusters(
    study: StudyBook, column: str, k: int, noise: str, drawn: I64 | None
) -> dict[str, Any]:
    return _clusters(study.labels(column), k, noise, drawn)


def _values(values: NDArray[Any], unknown: str, drawn: I64 | None) -> dict[str, Any]:
    """Return a known column for the browser; unknown is the last code."""
    codes, names = pd.factorize(pd.Series(values).replace("", None), sort=True)
    named = [str(name) for name in names]
    colors = [palette.color(c) for c in range(len(named))]
    looks = [_LOOKS.get(name.lower()) for name in named]
    if sum(look is not None for look in looks) > len(looks) / 2:
        colors = [look or color for look, color in zip(looks, colors, strict=True)]
    codes = np.where(codes < 0, len(named), codes).astype(np.int64)
    return _categories("value", codes, [*named, unknown], colors, drawn)


def _categories(
    kind: str, codes: I64, names: list[str], colors: list[str], drawn: I64 | None
) -> dict[str, Any]:
    """Return codes with their names, counts and colours; the last one is nobody's, and grey.

    ``shown`` are the codes with a line of their own, the largest first. Counts are of all rows.
    """
    counts = np.bincount(codes, minlength=len(names))
    own = np.argsort(-counts[:-1], kind="stable")
    shown = [int(c) for c in own[:MOST_SHOWN] if counts[c]]
    if len(names) - 1 > MOST_SHOWN:
        # Numbers repeat colours; ranks do not.
        ranked = {c: palette.color(rank) for rank, c in enumerate(shown)}
        colors = [ranked.get(c, OTHERS) for c in range(len(names) - 1)]
    last = len(names) - 1
    return {
        "kind": kind,
        "names": names,
        "counts": counts.tolist(),
        "colors": [*colors, palette.NOISE],
        "shown": [*shown, last] if counts[last] else shown,
        "codes": squeezed_codes(codes if drawn is None else codes[drawn], len(names)),
    }


def _numbers(values: F64, drawn: I64 | None) -> dict[str, Any]:
    """Return numbers in 255 steps between two quantiles; what lies beyond has the colour of the end."""
    known = np.isfinite(values)
    ends = np.quantile(values[known], [BEYOND, 1 - BEYOND])
    codes = np.full(len(values), UNKNOWN)
    codes[known], low, high = quantised(np.clip(values[known], *ends), UNKNOWN)
    return {
        "kind": "number",
        "low": low,
        "high": high,
        "beyond": [bool(values[known].min() < low), bool(values[known].max() > high)],
        "unknown": int((~known).sum()),
        "codes": squeezed_codes(codes if drawn is None else codes[drawn], UNKNOWN + 1),
    }


def _tiles(
    site: Site, study: StudyBook, featured: Featured, drawn: I64 | None
) -> dict[str, Any] | None:
    """Return which drawn row every thumbnail of the sprites shows, -1 for none.

    Sprites follow each other as the clusters do, the noise last; within one, tiles go line by line.
    """
    if not site.thumbs.any:
        return None
    chosen = [one.all() for one in chosen_rows(site, study, featured)]
    rows = np.concatenate(chosen)
    if drawn is not None:
        at = np.minimum(np.searchsorted(drawn, rows), len(drawn) - 1)
        rows = np.where(drawn[at] == rows, at, -1)
    names = [page_name(c) for c in [*range(featured.k), -1]]
    return {
        "side": THUMB,
        "columns": COLUMNS,
        "sprites": [f"sprites/{name.replace('.html', '.jpg')}" for name in names],
        "counts": [len(one) for one in chosen],
        "rows": squeezed(rows.astype("<i4").tobytes()),
    }
