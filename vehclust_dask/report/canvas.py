"""Text, bars and marks that every drawn picture shares."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vehclust_dask.report import palette

#: What a figure made from invented data says of itself.
SYNTHETIC_MARK = "synthetic data"


def synthetic_mark(synthetic: bool) -> str | None:
    """Return the mark of a figure, or None for one of real data."""
    return SYNTHETIC_MARK if synthetic else None


@functools.cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings along and which knows Cyrillic letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    # The basic layout is in every Pillow: the same pixels with and without libraqm.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    words: str,
    *,
    size: int,
    fill: str | int = palette.INK,
    bold: bool = False,
    anchor: str = "la",
) -> float:
    """Write one line of text at a point; return its width in pixels."""
    face, words = font(size, bold=bold), _one_line(words)
    draw.text(at, words, font=face, fill=fill, anchor=anchor)
    return float(face.getlength(words))


def shorten(words: str, width: float, size: int, *, keep_end: bool = False) -> str:
    """Cut a text to a width in pixels; an ellipsis stands for what is left out."""
    face, words = font(size), _one_line(words)
    if face.getlength(words) <= width:
        return words
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if face.getlength(_cut(words, middle, keep_end)) <= width:
            low = middle
        else:
            high = middle - 1
    return _cut(words, low, keep_end)


def badge(draw: ImageDraw.ImageDraw, right_top: tuple[float, float], words: str) -> None:
    """Draw a small outlined mark whose right upper corner is given."""
    right, top = right_top
    width = font(11).getlength(words) + 18
    draw.rounded_rectangle(
        (right - width, top, right, top + 21), radius=10, outline=palette.MARK, width=1
    )
    write(draw, (right - width / 2, top + 11), words, size=11, fill=palette.MARK, anchor="mm")


def bar(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], share: float, fill: str
) -> None:
    """Draw a horizontal bar: the track in grey, ``share`` of it in colour."""
    left, top, right, bottom = box
    draw.rectangle((left, top, right - 1, bottom - 1), fill=palette.RULE)
    end = left + round((right - left) * min(1.0, max(0.0, share)))
    if share > 0:
        draw.rectangle((left, top, max(left + 1, end - 1), bottom - 1), fill=fill)


def centered(onto: Image.Image, picture: Image.Image, corner: tuple[int, int], side: int) -> None:
    """Paste a picture into the middle of a square tile."""
    left = corner[0] + (side - picture.width) // 2
    onto.paste(picture, (left, corner[1] + (side - picture.height) // 2))


def _one_line(words: str) -> str:
    """Put a space for line breaks and whatever else has no shape."""
    return "".join(letter if letter.isprintable() else " " for letter in words)


def _cut(words: str, n: int, keep_end: bool) -> str:
    return "…" + words[len(words) - n :] if keep_end else words[:n].rstrip() + "…"
