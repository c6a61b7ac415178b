"""Contact sheets: what lies in a cluster, in photos chosen by the hash of their path."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vehclust_dask.report import palette
from vehclust_dask.report.canvas import bar, shorten, synthetic_mark, write
from vehclust_dask.report.chosen import Clustering, Names, photo_order
from vehclust_dask.report.layout import (
    GAP,
    HEADER,
    MARGIN,
    TEXT_SIZE,
    Section,
    draw_header,
    draw_sheet,
    draw_tile,
)
from vehclust_dask.store.photos import Photos

__all__ = ["contact_sheet", "overview_sheet", "photo_order", "write_sheets"]

_ROW_THUMB, _ROWS_PER_PAGE, _SIDE = 72, 50, 236
_COLUMNS = 10

Progress = Callable[[int, int], None]


def contact_sheet(
    photos: Photos,
    entries: Sequence[int] | NDArray[np.int64],
    captions: Sequence[str],
    *,
    title: str,
    subtitle: str,
    thumb: int = 112,
    columns: int = _COLUMNS,
    badge: str | None = None,
) -> Image.Image:
    """Draw photos in rows under a title.

    Parameters
    ----------
    photos : Photos
    entries : sequence of int
        Entries of ``photos``; -1 is drawn as a missing photo, a broken one as broken.
    captions : sequence of str
        A text below every photo, cut at its beginning to the width of the photo; may be empty.
    title, subtitle : str
    thumb : int
        Side of a tile in pixels.
    columns : int
    badge : str, optional
        A mark in the upper right corner.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    section = Section("", "", [int(entry) for entry in entries], list(captions))
    return draw_sheet(
        photos, [section], title=title, subtitle=subtitle, thumb=thumb, columns=columns, mark=badge
    )


def write_sheets(
    out_dir: Path,
    photos: Photos,
    paths: Sequence[str],
    labels: NDArray[np.integer[Any]],
    *,
    n_clusters: int,
    title: str,
    synthetic: bool,
    photos_per_sheet: int = 50,
    sq_dist: NDArray[np.floating[Any]] | None = None,
    names: Names = None,
    order: NDArray[np.uint64] | None = None,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Write a contact sheet of every cluster, and one of the noise where there is any.

    Parameters
    ----------
    out_dir : Path
        Gets ``cluster-011.png`` and so on, and ``cluster-noise.png``.
    photos : Photos
    paths : sequence of str of length n_samples
    labels : ndarray of shape (n_samples,), integer
        From -1 (noise) to ``n_clusters - 1``.
    n_clusters : int
        A cluster without members gets a sheet that says so.
    title : str
        Which clustering this is.
    synthetic : bool
        Mark the sheets as drawn from invented data.
    photos_per_sheet : int
        Photos of the random block: those with the smallest hashes of their paths.
    sq_dist : ndarray of shape (n_samples,), optional
        Squared distance to the own centre: adds a row of central and a row of far photos.
    names : mapping or sequence of str, optional
        Names of clusters.
    order : ndarray of shape (n_samples,), uint64, optional
        What :func:`photo_order` gave for the paths; computed here when left out.
    on_progress : callable, optional
        Called with the number of written and of all sheets.

    Returns
    -------
    list of Path
        The written files, by cluster, noise last.

    Raises
    ------
    BadInput
        If paths, labels and distances do not belong together.
    """
    clustering = Clustering.of(
        photos,
        paths,
        labels,
        n_clusters=n_clusters,
        title=title,
        synthetic=synthetic,
        sq_dist=sq_dist,
        names=names,
        order=order,
    )
    clusters = list(range(n_clusters))
    if len(clustering.groups.members(-1)):
        clusters.append(-1)
    out_dir.mkdir(parents=True, exist_ok=True)
    digits = max(3, len(str(n_clusters - 1)))

    def one(cluster: int) -> Path:
        stem = "noise" if cluster < 0 else f"{cluster:0{digits}d}"
        path = out_dir / f"cluster-{stem}.png"
        _cluster_sheet(clustering, cluster, photos_per_sheet).save(path, compress_level=4)
        return path

    return _in_threads(one, clusters, on_progress)


def overview_sheet(
    out_dir: Path,
    photos: Photos,
    paths: Sequence[str],
    labels: NDArray[np.integer[Any]],
    *,
    n_clusters: int,
    title: str,
    synthetic: bool,
    photos_per_row: int = 12,
    sq_dist: NDArray[np.floating[Any]] | None = None,
    names: Names = None,
    order: NDArray[np.uint64] | None = None,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Write the wall: a row per cluster with its size and a dozen photos.

    The parameters are those of :func:`write_sheets`. With ``sq_dist`` the first third of a row
    are the most central photos, the rest is random.

    Returns
    -------
    list of Path
        ``overview.png``, or ``overview-1.png`` and so on with 50 clusters each.
    """
    clustering = Clustering.of(
        photos,
        paths,
        labels,
        n_clusters=n_clusters,
        title=title,
        synthetic=synthetic,
        sq_dist=sq_dist,
        names=names,
        order=order,
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    pages = [
        range(first, min(first + _ROWS_PER_PAGE, n_clusters))
        for first in range(0, max(1, n_clusters), _ROWS_PER_PAGE)
    ]

    def one(page: int) -> Path:
        stem = "overview" if len(pages) == 1 else f"overview-{page + 1}"
        path = out_dir / f"{stem}.png"
        _wall(clustering, pages[page], photos_per_row).save(path, compress_level=4)
        return path

    return _in_threads(one, range(len(pages)), on_progress)


def _in_threads(
    one: Callable[[int], Path], items: Iterable[int], on_progress: Progress | None
) -> list[Path]:
    """Draw in a few threads (decoding, scaling and packing let go of the interpreter's lock)."""
    todo = list(items)
    written = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for path in pool.map(one, todo):
            written.append(path)
            if on_progress is not None:
                on_progress(len(written), len(todo))
    return written


def _cluster_sheet(clustering: Clustering, cluster: int, photos_per_sheet: int) -> Image.Image:
    members = clustering.groups.members(cluster)
    sizes = clustering.groups.sizes()
    what = "Noise" if cluster < 0 else f"Cluster {cluster}"
    name = clustering.names.get(cluster, "")
    rank = (
        f" · rank {int((sizes > len(members)).sum()) + 1} of {len(sizes)}" if cluster >= 0 else ""
    )
    share = len(members) / max(1, clustering.n_samples)
    return draw_sheet(
        clustering.photos,
        _sections(clustering, cluster, photos_per_sheet),
        title=f"{what}: {name}" if name else what,
        subtitle=f"{_count(len(members))} · {share:.1%} of {clustering.n_samples:,}{rank}",
        corner=clustering.title,
        mark=synthetic_mark(clustering.synthetic),
        chip=palette.color(cluster),
        share=share,
    )


def _sections(clustering: Clustering, cluster: int, photos_per_sheet: int) -> list[Section]:
    members, columns = clustering.groups.members(cluster), _COLUMNS
    if not len(members):
        return [Section("This cluster is empty", "no photo is assigned to it", [], [])]
    shown = members[:photos_per_sheet]
    sections = []
    near = clustering.by_distance(cluster)
    if len(members) > columns and len(near):
        note = "the smallest distances to the centre"
        sections.append(_measured(clustering, "Central", note, near[:columns]))
    whole = len(shown) == len(members)
    sections.append(
        Section(
            f"All {len(members)}" if whole and len(members) > 1 else "All" if whole else "Random",
            ""
            if whole
            else f"{len(shown)} of {_count(len(members))}, chosen by the hash of their path",
            clustering.entries(shown),
            [_tail(clustering.paths[i]) for i in shown],
        )
    )
    if len(members) > columns and len(near):
        note = "the largest distances to the centre, farthest first"
        sections.append(_measured(clustering, "Far", note, near[::-1][:columns]))
    return sections


def _measured(clustering: Clustering, heading: str, note: str, rows: NDArray[np.int64]) -> Section:
    """Make a section whose captions give the distance and the photo."""
    captions = [
        f"distance {distance:.3g}\n{_tail(clustering.paths[i])}"
        for distance, i in zip(clustering.distances(rows), rows, strict=True)
    ]
    return Section(heading, note, clustering.entries(rows), captions)


def _wall(clustering: Clustering, clusters: range, photos_per_row: int) -> Image.Image:
    """Draw one page of the overview."""
    step = _ROW_THUMB + GAP
    n_central = photos_per_row // 3 if clustering.sq_dist is not None else 0
    split = GAP * 2 if n_central else 0
    left = MARGIN + _SIDE
    width = left + photos_per_row * step - GAP + split + MARGIN
    top = HEADER + 12
    sheet = Image.new("RGB", (width, top + len(clusters) * step + MARGIN - GAP), palette.PAPER)
    draw = ImageDraw.Draw(sheet)
    sizes = clustering.groups.sizes()
    n_noise = len(clustering.groups.members(-1))
    noise = f" · {n_noise:,} in no cluster" if n_noise else ""
    pages = f", here {clusters[0]} to {clusters[-1]}" if len(clusters) < len(sizes) else ""
    draw_header(
        draw,
        width,
        clustering.title,
        f"{clustering.n_samples:,} photos in {len(sizes)} clusters{noise}{pages}",
        corner="",
        mark=synthetic_mark(clustering.synthetic),
        chip=None,
    )
    for x, words in _wall_heads(left, step, n_central, split):
        write(draw, (x, top - 20), words, size=TEXT_SIZE - 2, fill=palette.MUTED)
    for i, cluster in enumerate(clusters):
        y = top + i * step
        _draw_size(draw, clustering, cluster, y, int(sizes.max()))
        rows = _wall_rows(clustering, cluster, n_central, photos_per_row)
        for j, entry in enumerate(clustering.entries(rows)):
            x = left + j * step + (split if j >= n_central else 0)
            draw_tile(sheet, draw, clustering.photos, entry, (x, y), _ROW_THUMB)
    return sheet


def _wall_heads(left: int, step: int, n_central: int, split: int) -> list[tuple[int, str]]:
    random = (left + n_central * step + split, "random")
    return [(left, "most central"), random] if n_central else [random]


def _wall_rows(
    clustering: Clustering, cluster: int, n_central: int, photos_per_row: int
) -> NDArray[np.int64]:
    """Choose the photos of a row: the central ones first, then random others."""
    near = clustering.by_distance(cluster)[:n_central]
    members = clustering.groups.members(cluster)[:photos_per_row]
    others = members[~np.isin(members, near)]
    return np.concatenate([near, others[: photos_per_row - len(near)]])


def _draw_size(
    draw: ImageDraw.ImageDraw, clustering: Clustering, cluster: int, y: int, largest: int
) -> None:
    """Draw number, name, size and size bar of a cluster at the left of its row."""
    size = int(clustering.groups.sizes()[cluster])
    used = write(draw, (MARGIN, y + 2), f"{cluster}", size=20, bold=True) + 10
    name = shorten(clustering.names.get(cluster, ""), _SIDE - 26 - used, TEXT_SIZE - 1)
    write(draw, (MARGIN + used, y + 9), name, size=TEXT_SIZE - 1)
    told = f"{_count(size)} · {size / max(1, clustering.n_samples):.1%}" if size else "empty"
    write(draw, (MARGIN, y + 32), told, size=TEXT_SIZE - 1, fill=palette.MUTED)
    box = (MARGIN, y + 54, MARGIN + _SIDE - 26, y + 62)
    bar(draw, box, size / max(1, largest), palette.color(cluster))


def _count(n: int) -> str:
    return "1 photo" if n == 1 else f"{n:,} photos"


@functools.lru_cache(maxsize=4096)
def _tail(path: str) -> str:
    """Return the last folder and the name of a photo, without its ending."""
    parts = PurePosixPath(path.replace("\\", "/")).with_suffix("").parts
    return "/".join(parts[-2:])
