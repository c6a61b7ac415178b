"""Bytes to rows, blocks, leaves and workers. Integers only, so the same everywhere."""

from __future__ import annotations

MIB = 1 << 20

#: A block holds at least this many bytes of float32 and at most twice as many.
BLOCK_BYTES = 16 * 10**6
#: Narrow matrices: a block never holds more rows than this, or a whole data set would be one task.
MAX_BLOCK_ROWS = 1 << 16
#: A leaf never holds more blocks than this: a task takes about a second.
MAX_LEAF_BLOCKS = 16
#: Up to this many leaves are made before leaves grow.
FEW_LEAVES = 32
#: A group of rows that meets another in one tile task holds about as many: the task takes a second.
TILE_ROWS = 1 << 14
#: Summaries are merged this many at a time.
MERGE_FAN_IN = 8


def block_rows(n_features: int) -> int:
    """Return the rows of a block: a power of two, a function of the width alone.

    Parameters
    ----------
    n_features : int
        Width of the matrix; at least 1.

    Returns
    -------
    int
        2 ** ceil(log2(16e6 / (4 * n_features))), at least 1 and at most 65,536.
    """
    wanted = -(-BLOCK_BYTES // (4 * n_features))
    return min(MAX_BLOCK_ROWS, 1 << max(0, (wanted - 1).bit_length()))


def leaf_blocks(n_blocks: int) -> int:
    """Return how many consecutive blocks make a leaf: a power of two, a function of n_blocks alone."""
    wanted = -(-n_blocks // FEW_LEAVES)
    return min(MAX_LEAF_BLOCKS, 1 << max(0, (wanted - 1).bit_length()))


def parse_bytes(text: str | int) -> int:
    """Read a size such as ``1GiB``, ``512 MB`` or ``1000000``; return bytes.

    Raises
    ------
    ValueError
        If the text is no positive size.
    """
    if isinstance(text, int):
        if text <= 0:
            raise ValueError(f"{text} is no positive number of bytes")
        return text
    units = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
    units |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}
    units |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
    word = text.strip().lower()
    cut = len(word.rstrip("abcdefghijklmnopqrstuvwxyz "))
    number, unit = word[:cut], word[cut:].strip()
    try:
        value = int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"'{text}' is no size; write it like 1GiB, 500MB or 1000000") from None
    if value <= 0:
        raise ValueError(f"'{text}' is no positive size")
    return value


def show_bytes(n_bytes: int) -> str:
    """Write a number of bytes for people: ``6.2 GB``."""
    value = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
