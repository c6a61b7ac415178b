"""Which photos stand for a cluster, and the sprites that hold their thumbnails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.site.book import Featured
from vehclust_dask.store.photos import Photos, PrefixRule

I64 = NDArray[np.int64]

#: Side of a thumbnail, pixels; number plates stay unreadable.
THUMB = 96
#: JPEG quality of sprites: 3 to 4 kB a thumbnail.
QUALITY = 78
#: Thumbnails of one study, about: what stays below 25 MB.
MOST_THUMBS = 4800
#: Thumbnails of a kind on the page of a cluster.
FEWEST, MOST = 4, 24
#: How the photos of a cluster are chosen, in the order of its page.
KINDS = ("central", "random", "far", "border")


@dataclass(frozen=True)
class Chosen:
    """The rows that stand for a cluster, of each kind.

    Attributes
    ----------
    rows : dict of str to ndarray of int64
        Positions in the study's rows, by kind.
    """

    rows: dict[str, I64]

    def all(self) -> I64:
        """Return the rows of all kinds one after the other."""
        return np.concatenate([self.rows[kind] for kind in KINDS])


def per_kind(k: int) -> int:
    """Return how many photos of a kind a cluster shows, so that all clusters have room."""
    return int(np.clip(MOST_THUMBS // (len(KINDS) * max(k, 1)), FEWEST, MOST))


def choose_rows(featured: Featured, order: NDArray[np.uint64], n: int) -> list[Chosen]:
    """Choose the rows that stand for every cluster, noise last.

    Central and far go by the distance to the center, border by the smallest lead over the second
    cluster, random by the hash of the path; ties go by the hash. Every run chooses the same.

    Parameters
    ----------
    featured : Featured
    order : ndarray of shape (n_rows,), uint64
        Hash of every row's path.
    n : int
        Of each kind.

    Returns
    -------
    list of Chosen
        Of cluster 0, 1, ...; the last is the noise.
    """
    labels = np.where(featured.labels < 0, featured.k, featured.labels)
    by_hash = np.lexsort((order, labels))
    starts = np.searchsorted(labels[by_hash], np.arange(featured.k + 2))
    found = []
    for cluster in range(featured.k + 1):
        members = by_hash[starts[cluster] : starts[cluster + 1]].astype(np.int64)
        found.append(_choose(featured, members, n, noise=cluster == featured.k))
    return found


def _choose(featured: Featured, members: I64, n: int, *, noise: bool) -> Chosen:
    none = members[:0]
    rows = dict.fromkeys(KINDS, none)
    rows["random"] = members[:n]
    known = members[np.isfinite(featured.distance[members])]
    near = known[np.argsort(featured.distance[known], kind="stable")]
    rows["far"] = near[::-1][:n]
    if not noise:
        rows["central"] = near[:n]
        close = members[np.isfinite(featured.margin[members]) & (featured.second[members] >= 0)]
        rows["border"] = close[np.argsort(featured.margin[close], kind="stable")][:n]
    return Chosen(rows)


class Thumbs:
    """Thumbnails of rows, drawn once each.

    Parameters
    ----------
    photos : Photos or None
        None: there are no thumbnails.
    paths : sequence of str or None
        Of every row of the data set.
    """

    def __init__(self, photos: Photos | None, paths: Sequence[str] | None) -> None:
        self._photos, self._paths = photos, paths
        self._rule = PrefixRule()
        if photos is not None and paths is not None:
            self._rule = photos.prefix_rule(paths)

    @property
    def any(self) -> bool:
        """Say whether there are photos at all."""
        return self._photos is not None and self._paths is not None

    def sprite(self, rows: I64, columns: int, file: Path, side: int = THUMB) -> None:
        """Write the thumbnails of rows of the data set as one picture, ``columns`` a line."""
        lines = max(1, -(-len(rows) // columns))
        sheet = Image.new("RGB", (columns * side, lines * side), palette.PAPER)
        for i, tile in enumerate(self._tiles(rows, side)):
            sheet.paste(tile, (i % columns * side, i // columns * side))
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(file, "JPEG", quality=QUALITY, optimize=True, subsampling="4:2:0")

    def _tiles(self, rows: I64, side: int) -> Iterator[Image.Image]:
        assert self._photos is not None, "asked for with photos only"
        assert self._paths is not None, "photos are found by path"
        entries = self._photos.find([self._paths[row] for row in rows], self._rule)
        photos = self._photos

        def draw(entry: int) -> Image.Image:
            return _tile(photos, entry, side)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            yield from pool.map(draw, (int(entry) for entry in entries))

    def mean_color(self, sprite: Path) -> str:
        """Return the mean colour of the middle of a sprite's pictures as ``#rrggbb``."""
        with Image.open(sprite) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        quarter = THUMB // 4
        tiles = pixels.reshape(len(pixels) // THUMB, THUMB, -1, THUMB, 3).swapaxes(1, 2)
        middles = tiles[:, :, quarter:-quarter, quarter:-quarter].reshape(-1, (2 * quarter) ** 2, 3)
        means = middles.mean(axis=1)
        # Where a line of the sprite ends early there is paper, not a picture.
        means = means[means.min(axis=1) < _PAPER]
        mean = np.median(means, axis=0) if len(means) else np.array(palette.rgb(palette.TILE))
        return "#" + "".join(f"{round(part):02x}" for part in mean)


_PAPER = 254


def _tile(photos: Photos, entry: int, side: int) -> Image.Image:
    """Return one thumbnail in the middle of a square; a missing or broken photo says so."""
    tile = Image.new("RGB", (side, side), palette.TILE)
    if entry < 0:
        return _mark(tile, "no photo")
    try:
        picture = photos.thumbnail(entry, side)
    except BadInput:
        return _mark(tile, "broken")
    tile.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return tile


def _mark(tile: Image.Image, words: str) -> Image.Image:
    drawn = ImageDraw.Draw(tile)
    side = tile.width
    drawn.line((8, 8, side - 8, side - 8), fill=palette.EMPTY_TILE, width=2)
    drawn.line((8, side - 8, side - 8, 8), fill=palette.EMPTY_TILE, width=2)
    box = drawn.textbbox((0, 0), words)
    drawn.text(((side - box[2]) / 2, (side - box[3]) / 2), words, fill=palette.MARK)
    return tile


#: Told of work done: how much, of how much.
Progress = Callable[[int, int], None]
