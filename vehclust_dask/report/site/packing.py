"""Rows made small enough to travel in a page: whole numbers in few bits, paths against each other.

Everything ends as raw deflate in base64, which a browser unpacks by itself.
"""

from __future__ import annotations

import base64
import re
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Bits of a coordinate; the error is at most half of a 4095th of the range.
BITS = 12
#: The code of a number that is unknown; known ones have the codes below it.
UNKNOWN = 255
# Runs of digits that a browser's numbers hold with room; longer ones are cut.
_NUMBERS = re.compile("([0-9]{1,9})")


def squeezed(content: bytes) -> str:
    """Return bytes as raw deflate in base64; the same bytes always give the same text."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return base64.b64encode(packer.compress(content) + packer.flush()).decode("ascii")


def quantised(values: NDArray[Any], levels: int) -> tuple[I64, float, float]:
    """Return the nearest of ``levels`` evenly spaced numbers to every value, and the ends of these.

    Parameters
    ----------
    values : ndarray of shape (n,), floating
        Finite.
    levels : int

    Returns
    -------
    codes : ndarray of shape (n,), int64
        0 stands for the smallest value, ``levels - 1`` for the largest.
    low, high : float
        Smallest and largest value; the error is at most ``(high - low) / (levels - 1) / 2``.
    """
    known = values.astype(np.float64)
    low = float(known.min(initial=np.inf)) if len(known) else 0.0
    high = float(known.max(initial=-np.inf)) if len(known) else 0.0
    step = (high - low) / (levels - 1)
    codes = np.rint((known - low) / step) if step > 0 else np.zeros(len(known))
    return codes.astype(np.int64), low, high


def squeezed_positions(x: I64, y: I64) -> str:
    """Return pairs of 12-bit numbers: upper bytes of x, of y, then the four last bits of both.

    The upper bytes of rows that crowd together repeat, so they shrink; the last bits do not.
    """
    planes = (x >> 4, y >> 4, (x & 15) << 4 | (y & 15))
    return squeezed(b"".join(plane.astype(np.uint8).tobytes() for plane in planes))


def squeezed_codes(codes: I64, n_codes: int) -> str:
    """Return codes as bytes, or above 256 of them as lower, then upper bytes."""
    planes = [codes & 255] if n_codes <= 256 else [codes & 255, codes >> 8]
    return squeezed(b"".join(plane.astype(np.uint8).tobytes() for plane in planes))


def varints(values: I64) -> bytes:
    """Return numbers from 0 as 7 bits a byte, the lowest first; the top bit says that more follow."""
    n = np.ones(len(values), np.int64)
    rest = values >> 7
    while rest.any():
        n += rest > 0
        rest = rest >> 7
    at = np.cumsum(n) - n
    out = np.zeros(int(n.sum()), np.uint8)
    for place in range(int(n.max(initial=0))):
        has = n > place
        more = np.where(n[has] > place + 1, 128, 0)
        out[at[has] + place] = (values[has] >> (7 * place)) & 127 | more
    return out.tobytes()


def zigzag(values: I64) -> I64:
    """Return 0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ..."""
    return np.where(values < 0, -2 * values - 1, 2 * values)


def squeezed_rows(rows: I64) -> str | None:
    """Return rising row numbers as steps from one to the next; None where they are 0, 1, 2, ..."""
    if np.array_equal(rows, np.arange(len(rows))):
        return None
    return squeezed(varints(np.diff(rows, prepend=0)))


def squeezed_paths(paths: Sequence[str]) -> dict[str, str]:
    """Return paths, each told by the path before it.

    A path that differs from the one before in its numbers only (and not in their width) is told by
    how much each number grew. Any other is told by how much of its beginning it shares, and the rest.

    Parameters
    ----------
    paths : sequence of str

    Returns
    -------
    dict of str to str
        ``kinds``: for every path 0, or 1 and how many UTF-16 units it shares. ``steps``: growth of
        every number of every path of kind 0, zigzag. ``lengths``: UTF-16 units of the rest of the
        others. ``text``: these rests one after the other, UTF-8.
    """
    kinds, steps, lengths = array("q"), array("q"), array("q")
    rests: list[str] = []
    before, shape, numbers = "", ([""], [0]), [0]
    for path in paths:
        parts = _NUMBERS.split(path)
        digits = parts[1::2]
        now = parts[::2], [len(run) for run in digits]
        grown = [int(run) for run in digits]
        if now == shape:
            kinds.append(0)
            steps.extend(new - old for new, old in zip(grown, numbers, strict=True))
        else:
            shared, rest = _split(before, path)
            kinds.append(1 + _units(shared))
            lengths.append(_units(rest))
            rests.append(rest)
        before, shape, numbers = path, now, grown
    return {
        "kinds": squeezed(varints(np.frombuffer(kinds, np.int64))),
        "steps": squeezed(varints(zigzag(np.frombuffer(steps, np.int64)))),
        "lengths": squeezed(varints(np.frombuffer(lengths, np.int64))),
        "text": squeezed("".join(rests).encode()),
    }


def _split(before: str, path: str) -> tuple[str, str]:
    """Return the beginning of a path that the one before shares, and the rest."""
    pairs = enumerate(zip(before, path, strict=False))
    end = next((i for i, (a, b) in pairs if a != b), min(len(before), len(path)))
    return path[:end], path[end:]


def _units(text: str) -> int:
    """Return how long a browser takes a text for."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
