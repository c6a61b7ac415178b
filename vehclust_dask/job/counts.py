"""The little grammar of cluster counts: ``30``, ``[10, 30]``, ``"2..50 step 4"``, ``"2,5..9"``."""

from __future__ import annotations

import re

#: More counts than this in one clustering is a slip of the keyboard, not a sweep.
MAX_COUNTS = 1000

_TERM = re.compile(r"(\d{1,9})(?:\s*\.\.\s*(\d{1,9})(?:\s+step\s+(\d{1,9}))?)?", re.ASCII)


def parse_counts(text: str) -> tuple[int, ...]:
    """Return the cluster counts a text names, sorted, each once.

    Parameters
    ----------
    text : str
        Terms separated by commas; a term is a count (``30``), a range with both ends included
        (``2..50``) or a range in steps (``2..50 step 4``: 2, 6, ... 50).

    Returns
    -------
    tuple of int
        Counts of 1 or more.

    Raises
    ------
    ValueError
        If the text follows no such form, a range runs backwards or names too many counts.
    """
    counts: set[int] = set()
    for word in text.split(","):
        counts.update(_term(word.strip()))
        check_number(len(counts))
    return tuple(sorted(counts))


def check_number(n_counts: int) -> None:
    """Refuse a sweep of more than MAX_COUNTS counts with a ValueError."""
    if n_counts > MAX_COUNTS:
        raise ValueError(f"names {n_counts} counts, {MAX_COUNTS} at most; use a larger step")


def _term(word: str) -> range:
    match = _TERM.fullmatch(word)
    if match is None:
        raise ValueError(f'\'{word}\' is no count; write 30, [10, 30], "2..50" or "2..50 step 4"')
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    step = int(match[3]) if match[3] else 1
    if first < 1 or step < 1:
        raise ValueError(f"'{word}': counts and steps begin at 1")
    if last < first:
        raise ValueError(f"'{word}' runs backwards; write {last}..{first}")
    counts = range(first, last + 1, step)
    check_number(len(counts))
    return counts
