"""The first two principal components coloured by cluster, as an animation over k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.canvas import badge, shorten, synthetic_mark, write

MAX_FRAMES = 25

_WIDTH, _MARGIN, _TOP, _BOTTOM = 640, 20, 96, 52
_FRAME_MS, _LAST_MS = 800, 2400
# Colour table of the GIF: cluster colours, then the noise, then a ramp from paper to ink into
# which all text is drawn, then the mark.
_NOISE_SLOT = len(palette.PALETTE)
_RAMP_FROM, _RAMP_LENGTH = _NOISE_SLOT + 1, 32
_MARK_SLOT = _RAMP_FROM + _RAMP_LENGTH
# Beyond this share of the middle 99.8 %, single far points would shrink all others.
_FAR = 0.15


def animate_over_k(
    xy: NDArray[np.float32],
    labels_by_k: Mapping[int, NDArray[np.integer[Any]]],
    out: Path,
    *,
    explained: tuple[float, float],
    synthetic: bool,
    centers: Mapping[int, NDArray[np.floating[Any]]] | None = None,
    title: str = "",
    order: NDArray[np.uint64] | None = None,
    max_points: int = 20_000,
) -> Path:
    """Write an animated GIF with a frame per number of clusters.

    The points stay where they are; a cluster keeps its colour from frame to frame as far as its
    members stay together. The numbers on the centres are those of the clusters.

    Parameters
    ----------
    xy : ndarray of shape (n_samples, 2), float32
        First two principal components.
    labels_by_k : mapping of int to ndarray of shape (n_samples,)
        Labels from -1 (noise) to ``k - 1``; of more than 25 clusterings, 25 are shown, all the
        small k among them.
    out : Path
        The GIF.
    explained : tuple of float
        Shares of the variance of the two components.
    synthetic : bool
        Mark the frames as drawn from invented data.
    centers : mapping of int to ndarray of shape (k, 2), optional
        Centres in the same plane; the means of the members when left out.
    title : str
        Which clustering this is.
    order : ndarray of shape (n_samples,), uint64, optional
        Hashes of the photos' paths: the smallest are drawn. Row numbers are hashed when left out.
    max_points : int
        Points drawn at most; the caption says how many of how many.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    BadInput
        If there is nothing to draw, or labels, hashes and points do not belong together.
    """
    _check(xy, labels_by_k, order)
    counts = spaced_k(sorted(labels_by_k))
    labels = [np.asarray(labels_by_k[k], dtype=np.int64) for k in counts]
    slots = stable_slots(labels, counts)
    hashes = _hashed_rows(len(xy)) if order is None else order
    drawn = np.argsort(hashes, kind="stable")[:max_points]
    plane = _Plane.around(xy)
    pixels = plane.pixels(xy[drawn])
    inside = plane.holds(pixels)
    caption = f"{len(drawn):,} of {len(xy):,} photos drawn"
    if not inside.all():
        caption += f", {int((~inside).sum()):,} of them lie outside the frame"
    background = _background(plane, explained, title, caption, synthetic, counts)
    frames = []
    for i, k in enumerate(counts):
        at = _centers(xy, labels[i], k) if centers is None else np.asarray(centers[k])
        color = np.append(slots[i] % len(palette.PALETTE), _NOISE_SLOT)
        frame = background.copy()
        _paint(frame, pixels[inside], color[labels[i][drawn[inside]]], len(drawn))
        _annotate(frame, plane, at, labels[i], color, counts, i)
        frames.append(Image.fromarray(frame))
    _save(frames, out)
    return out


def spaced_k(counts: Sequence[int], at_most: int = MAX_FRAMES) -> list[int]:
    """Choose the numbers of clusters to show: first and last, the small ones close together.

    Parameters
    ----------
    counts : sequence of int
        Sorted, without repetition.
    at_most : int
        At least 2.

    Returns
    -------
    list of int
        Sorted.
    """
    n = len(counts)
    if n <= at_most:
        return list(counts)
    chosen: list[int] = []
    for step in range(at_most):
        wanted = round((n - 1) * (step / (at_most - 1)) ** 1.6)
        chosen.append(max(wanted, chosen[-1] + 1) if chosen else 0)
    return [counts[i] for i in chosen]


def stable_slots(
    labels: Sequence[NDArray[np.int64]], counts: Sequence[int]
) -> list[NDArray[np.int64]]:
    """Give every cluster of consecutive clusterings a colour slot that follows its members.

    Clusters of two neighbours are matched so that the rows they share are most (Hungarian
    method); a matched cluster keeps the slot, a new one takes the lowest free slot.

    Parameters
    ----------
    labels : sequence of ndarray of shape (n_samples,), int64
    counts : sequence of int
        Number of clusters of each.

    Returns
    -------
    list of ndarray of shape (k,), int64
        Slots, different within a clustering.
    """
    from scipy.optimize import linear_sum_assignment

    slots = [np.arange(counts[0])]
    for i in range(1, len(labels)):
        before, now = counts[i - 1], counts[i]
        both = (labels[i - 1] >= 0) & (labels[i] >= 0)
        pairs = labels[i - 1][both] * now + labels[i][both]
        shared = np.bincount(pairs, minlength=before * now).reshape(before, now)
        old, new = linear_sum_assignment(shared, maximize=True)
        # Clusters that share nobody are no successors of each other.
        old, new = old[shared[old, new] > 0], new[shared[old, new] > 0]
        found = np.full(now, -1, dtype=np.int64)
        found[new] = slots[-1][old]
        highest = int(max(found.max(initial=0), now)) + now
        free = np.setdiff1d(np.arange(highest), found)
        found[found < 0] = free[: int((found < 0).sum())]
        slots.append(found)
    return slots


@dataclass(frozen=True)
class _Plane:
    """The part of the plane that is drawn: both axes to one scale, second component upwards."""

    left: float
    upper: float
    scale: float
    height: int

    @classmethod
    def around(cls, xy: NDArray[np.float32]) -> _Plane:
        """Fit all points, or where a few lie far out, the middle 99.8 % with a margin."""
        low, high = xy.min(axis=0).astype(np.float64), xy.max(axis=0).astype(np.float64)
        near, far = np.quantile(xy, [0.001, 0.999], axis=0)
        room = np.maximum((far - near) * _FAR, 1e-12)
        low, high = np.maximum(low, near - room), np.minimum(high, far + room)
        span = np.maximum(high - low, 1e-9)
        inner = _WIDTH - 2 * _MARGIN - 16
        tall = int(np.clip(inner * span[1] / span[0], 240, 560))
        scale = min(inner / span[0], tall / span[1])
        middle = (low + high) / 2
        height = tall + 16
        return cls(
            float(middle[0] - (_WIDTH / 2 - _MARGIN) / scale),
            float(middle[1] + height / 2 / scale),
            float(scale),
            height,
        )

    def pixels(self, xy: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Return column and row of every point, shape (n, 2)."""
        x = _MARGIN + (xy[:, 0].astype(np.float64) - self.left) * self.scale
        y = _TOP + (self.upper - xy[:, 1].astype(np.float64)) * self.scale
        # Points far outside stay countable: int64 would overflow only beyond 1e18.
        return np.rint(np.clip(np.column_stack([x, y]), -1e6, 1e6)).astype(np.int64)

    def holds(self, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which pixels lie in the frame with room for their marker."""
        x, y = pixels.T
        sides = (x > _MARGIN + 3) & (x < _WIDTH - _MARGIN - 4)
        inside: NDArray[np.bool_] = sides & (y > _TOP + 3) & (y < _TOP + self.height - 4)
        return inside


def _check(
    xy: NDArray[np.float32],
    labels_by_k: Mapping[int, NDArray[np.integer[Any]]],
    order: NDArray[np.uint64] | None,
) -> None:
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy) or not labels_by_k:
        raise BadInput(
            f"points of shape {xy.shape} and {len(labels_by_k)} clusterings cannot be animated; "
            "give two columns, a row per photo, and at least one clustering"
        )
    if order is not None and len(order) != len(xy):
        raise BadInput(f"{len(order)} hashes for {len(xy)} points; give one per photo")
    for k, labels in labels_by_k.items():
        if len(labels) != len(xy) or labels.min() < -1 or labels.max() >= k:
            raise BadInput(
                f"k={k} has {len(labels)} labels from {labels.min()} to {labels.max()}; "
                f"give {len(xy)} from -1 (noise) to {k - 1}"
            )


def _hashed_rows(n: int) -> NDArray[np.uint64]:
    """Scramble row numbers (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _centers(xy: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return the mean of every cluster; NaN for an empty one."""
    rows = labels >= 0
    counts = np.bincount(labels[rows], minlength=k)
    sums = [np.bincount(labels[rows], weights=xy[rows, axis], minlength=k) for axis in (0, 1)]
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = np.column_stack(sums) / counts[:, None]
    return means


def _paint(
    frame: NDArray[np.uint8], pixels: NDArray[np.int64], colors: NDArray[np.int64], n: int
) -> None:
    """Set a small marker for every point; the one with the smallest hash lies on top."""
    x, y = pixels[::-1].T
    side = 2 if n > 6000 else 3 if n > 1500 else 4
    shape = [(i, j) for i in range(side) for j in range(side)]
    corners = {0, side - 1}
    for i, j in shape:
        if side == 4 and i in corners and j in corners:
            continue
        frame[y + i - side // 2, x + j - side // 2] = colors[::-1]


def _ink(grey: float) -> int:
    """Return the slot of the text ramp: 0 is paper, 1 is ink."""
    return _RAMP_FROM + round(grey * (_RAMP_LENGTH - 1))


def _background(
    plane: _Plane,
    explained: tuple[float, float],
    title: str,
    caption: str,
    synthetic: bool,
    counts: Sequence[int],
) -> NDArray[np.uint8]:
    """Draw what is the same in all frames."""
    height = _TOP + plane.height + _BOTTOM
    bottom = _TOP + plane.height
    inked = Image.new("L", (_WIDTH, height), 0)
    draw = ImageDraw.Draw(inked)
    right = _WIDTH - _MARGIN
    write(draw, (right, 24), shorten(title, 380, 12), size=12, fill=165, anchor="ra")
    first, second = (f"component {i + 1} ({share:.1%})" for i, share in enumerate(explained))
    write(draw, (right, bottom + 7), f"{first} →", size=11, fill=150, anchor="ra")
    write(draw, (_MARGIN, bottom + 7), f"↑ {second}", size=11, fill=150)
    write(draw, (_MARGIN, bottom + 27), caption, size=11, fill=150)
    draw.rectangle((_MARGIN, _TOP, right, bottom), outline=45)
    frame = _ramped(inked)
    mark = synthetic_mark(synthetic)
    if mark:
        marked = Image.new("RGB", (_WIDTH, height), palette.PAPER)
        badge(ImageDraw.Draw(marked), (right, 46), mark)
        grey = np.asarray(marked.convert("L"))
        frame[grey < 200] = _MARK_SLOT
    return frame


def _ramped(inked: Image.Image) -> NDArray[np.uint8]:
    """Map ink from 0 to 255 to slots of the text ramp."""
    amount = np.asarray(inked, dtype=np.float64) / 255
    return (_RAMP_FROM + np.rint(amount * (_RAMP_LENGTH - 1))).astype(np.uint8)


def _annotate(
    frame: NDArray[np.uint8],
    plane: _Plane,
    centers: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    color: NDArray[np.int64],
    counts: Sequence[int],
    i: int,
) -> None:
    """Draw what changes: k, the shares of the clusters, the centres with their numbers."""
    inked = Image.new("L", (_WIDTH, frame.shape[0]), 0)
    draw = ImageDraw.Draw(inked)
    write(draw, (_MARGIN, 16), f"k = {counts[i]}", size=28, fill=255, bold=True)
    text = np.asarray(inked) > 0
    frame[text] = _ramped(inked)[text]
    _share_bar(frame, labels, color)
    known = np.isfinite(centers).all(axis=1)
    at = plane.pixels(np.where(known[:, None], centers, 0.0))
    shown = np.flatnonzero(known & plane.holds(at))
    _tags(frame, at, shown, 11 if counts[i] <= 20 else 9)


def _share_bar(
    frame: NDArray[np.uint8], labels: NDArray[np.int64], color: NDArray[np.int64]
) -> None:
    """Draw the sizes of the clusters as one bar in the order of their colours, noise last."""
    sizes = np.bincount(np.where(labels < 0, len(color) - 1, labels), minlength=len(color))
    ranks = np.argsort(color, kind="stable")
    ends = _MARGIN + np.rint(np.cumsum(sizes[ranks]) / sizes.sum() * (_WIDTH - 2 * _MARGIN + 1))
    start = _MARGIN
    for cluster, end in zip(ranks, ends.astype(int), strict=True):
        frame[74:84, start:end] = color[cluster]
        # A thin gap keeps neighbours of similar colour apart.
        if end - start > 3:
            frame[74:84, end - 1] = _ink(0)
        start = end


def _tags(
    frame: NDArray[np.uint8], at: NDArray[np.int64], shown: NDArray[np.int64], size: int
) -> None:
    """Write the number of every shown cluster on a white disc at its centre."""
    height, width = frame.shape
    paper, inked = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    on_paper, on_ink = ImageDraw.Draw(paper), ImageDraw.Draw(inked)
    for cluster in shown:
        x, y = (int(v) for v in at[cluster])
        half = size * (0.5 + 0.31 * len(str(cluster)))
        box = (x - half, y - size * 0.8, x + half, y + size * 0.8)
        on_paper.rounded_rectangle(box, radius=size * 0.8, fill=255)
        on_ink.rounded_rectangle(box, radius=size * 0.8, fill=0, outline=150)
        write(on_ink, (x, y), str(cluster), size=size, fill=255, bold=True, anchor="mm")
    covered = np.asarray(paper) > 0
    frame[covered] = _ramped(inked)[covered]


def _save(frames: list[Image.Image], out: Path) -> None:
    colors = [palette.rgb(code) for code in (*palette.PALETTE, palette.NOISE)]
    paper, ink = np.array(palette.rgb(palette.PAPER)), np.array(palette.rgb(palette.INK))
    for step in range(_RAMP_LENGTH):
        mixed = paper + (ink - paper) * step / (_RAMP_LENGTH - 1)
        colors.append((round(mixed[0]), round(mixed[1]), round(mixed[2])))
    colors.append(palette.rgb(palette.MARK))
    for frame in frames:
        frame.putpalette([part for code in colors for part in code])
    out.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        out,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[_FRAME_MS] * (len(frames) - 1) + [_LAST_MS],
        loop=0,
        optimize=False,
    )
