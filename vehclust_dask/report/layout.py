"""The layout of a drawn sheet: a header, then sections of photos in rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.canvas import badge, bar, centered, shorten, write
from vehclust_dask.store.photos import Photos

MARGIN, GAP = 28, 8
HEADER, TEXT_SIZE = 104, 13
_SECTION, _CAPTION = 34, 14
_TITLE_SIZE, _CAPTION_SIZE = 26, 10


@dataclass(frozen=True)
class Section:
    """One block of photos under a heading; a caption may have several lines."""

    heading: str
    note: str
    entries: Sequence[int]
    captions: Sequence[str]

    def caption_lines(self) -> int:
        """Return how many lines the longest caption has."""
        return max((len(words.split("\n")) for words in self.captions if words), default=0)


def draw_sheet(
    photos: Photos,
    sections: Sequence[Section],
    *,
    title: str,
    subtitle: str,
    corner: str = "",
    thumb: int = 112,
    columns: int = 10,
    mark: str | None = None,
    chip: str | None = None,
    share: float | None = None,
) -> Image.Image:
    """Lay out the header and the sections below each other.

    Parameters
    ----------
    photos : Photos
    sections : sequence of Section
    title, subtitle, corner : str
        At the left, below it, and at the right.
    thumb, columns : int
        Side of a tile in pixels, tiles in a row.
    mark : str, optional
        A small outlined text at the right.
    chip : str, optional
        A colour before the title.
    share : float, optional
        From 0 to 1, drawn as a bar below the header.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    width = max(480, 2 * MARGIN + columns * (thumb + GAP) - GAP)
    heights = [_section_height(section, thumb, columns) for section in sections]
    sheet = Image.new("RGB", (width, HEADER + sum(heights) + MARGIN - GAP), palette.PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_header(draw, width, title, subtitle, corner=corner, mark=mark, chip=chip)
    if share is not None:
        line = (MARGIN, HEADER - 14, width - MARGIN, HEADER - 9)
        bar(draw, line, share, chip or palette.MUTED)
    top = HEADER
    for section, height in zip(sections, heights, strict=True):
        _draw_section(sheet, draw, photos, section, top, thumb, columns)
        top += height
    return sheet


def draw_header(
    draw: ImageDraw.ImageDraw,
    width: int,
    title: str,
    subtitle: str,
    *,
    corner: str,
    mark: str | None,
    chip: str | None,
) -> None:
    """Draw title and subtitle at the left, ``corner`` and the mark at the right."""
    left, right = MARGIN, width - MARGIN
    if chip is not None:
        draw.rounded_rectangle((left, 26, left + 8, 78), radius=3, fill=chip)
        left += 22
    aside = shorten(corner, (right - left) * 0.45, TEXT_SIZE)
    room = (right - left) * (0.5 if corner else 0.8)
    # A bold letter is about a seventh wider than the plain one that is measured here.
    words = shorten(title, room / 1.15, _TITLE_SIZE)
    write(draw, (left, 22), words, size=_TITLE_SIZE, bold=True)
    write(draw, (left, 61), subtitle, size=TEXT_SIZE + 1, fill=palette.MUTED)
    write(draw, (right, 30), aside, size=TEXT_SIZE, fill=palette.MUTED, anchor="ra")
    if mark:
        badge(draw, (right, 56), mark)


def _section_height(section: Section, thumb: int, columns: int) -> int:
    n_rows = -(-len(section.entries) // columns)
    below = section.caption_lines() * _CAPTION + (4 if section.caption_lines() else 0)
    heading = _SECTION if section.heading else 0
    return heading + n_rows * (thumb + below + GAP) + (10 if section.heading else 0)


def _draw_section(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    photos: Photos,
    section: Section,
    top: int,
    thumb: int,
    columns: int,
) -> None:
    if section.heading:
        write(draw, (MARGIN, top + 8), section.heading, size=TEXT_SIZE + 1, bold=True)
        right = sheet.width - MARGIN
        write(
            draw,
            (right, top + 9),
            section.note,
            size=TEXT_SIZE - 1,
            fill=palette.MUTED,
            anchor="ra",
        )
        top += _SECTION
    lines = section.caption_lines()
    step = thumb + lines * _CAPTION + (4 if lines else 0) + GAP
    for i, entry in enumerate(section.entries):
        x, y = MARGIN + i % columns * (thumb + GAP), top + i // columns * step
        draw_tile(sheet, draw, photos, entry, (x, y), thumb)
        for line, words in enumerate(section.captions[i].split("\n") if section.captions else ()):
            at = (x + thumb / 2, y + thumb + 4 + line * _CAPTION)
            short = shorten(words, thumb, _CAPTION_SIZE, keep_end=True)
            write(draw, at, short, size=_CAPTION_SIZE, fill=palette.MUTED, anchor="ma")


def draw_tile(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    photos: Photos,
    entry: int,
    at: tuple[int, int],
    side: int,
) -> None:
    """Draw a photo, or a grey tile that says why there is none."""
    box = (at[0], at[1], at[0] + side - 1, at[1] + side - 1)
    problem = "missing" if entry < 0 else ""
    if not problem:
        try:
            picture = photos.thumbnail(entry, side)
        except BadInput:
            problem = "broken"
    if problem:
        draw.rectangle(box, fill=palette.EMPTY_TILE)
        middle = (at[0] + side / 2, at[1] + side / 2)
        write(draw, middle, problem, size=12, fill=palette.MUTED, anchor="mm")
        return
    draw.rectangle(box, fill=palette.TILE)
    centered(sheet, picture, at, side)
