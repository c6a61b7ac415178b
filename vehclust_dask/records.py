"""Records that every floor speaks of: the row grid, blocks and handles. No arrays are stored in a handle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vehclust_dask import budget

FloatArray = NDArray[np.floating[Any]]


class Span(NamedTuple):
    """A block's rows: ``[start, stop)`` inside its part, first global row ``row0``."""

    block: int
    part: int
    start: int
    stop: int
    row0: int

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return self.stop - self.start


class Group(NamedTuple):
    """One side of the tiles: consecutive blocks, or a piece of one, of about `budget.TILE_ROWS` rows.

    The rows are ``[row0, row0 + n_rows)`` of the whole; ``skip`` rows of the first block come before.
    """

    number: int
    blocks: range
    skip: int
    row0: int
    n_rows: int


@dataclass(frozen=True)
class RowGrid:
    """How rows are cut into blocks and blocks into leaves; fixed once, stored with the data.

    A matrix grows by parts: each part is cut from its own first row, so that appended rows leave
    the blocks of older parts as they were.

    Parameters
    ----------
    part_rows : tuple of int
        Rows of each part.
    block_rows : int
        Rows of every block but the last of each part.
    """

    part_rows: tuple[int, ...]
    block_rows: int
    _first_blocks: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _first_rows: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        blocks, rows = [0], [0]
        for n in self.part_rows:
            blocks.append(blocks[-1] + -(-n // self.block_rows))
            rows.append(rows[-1] + n)
        object.__setattr__(self, "_first_blocks", tuple(blocks))
        object.__setattr__(self, "_first_rows", tuple(rows))

    @classmethod
    def for_width(cls, part_rows: tuple[int, ...], n_features: int) -> RowGrid:
        """Return the house's grid for a matrix of this many columns."""
        return cls(tuple(part_rows), budget.block_rows(n_features))

    @property
    def n_rows(self) -> int:
        """Return the number of rows of all parts."""
        return self._first_rows[-1]

    @property
    def n_blocks(self) -> int:
        """Return the number of blocks of all parts."""
        return self._first_blocks[-1]

    def span(self, i: int) -> Span:
        """Return the rows of block ``i``."""
        if not 0 <= i < self.n_blocks:
            raise IndexError(f"block {i} of {self.n_blocks}")
        part = int(np.searchsorted(self._first_blocks, i, side="right")) - 1
        start = (i - self._first_blocks[part]) * self.block_rows
        stop = min(start + self.block_rows, self.part_rows[part])
        return Span(i, part, start, stop, self._first_rows[part] + start)

    def spans(self) -> Iterator[Span]:
        """Iterate over the rows of every block, in order."""
        return (self.span(i) for i in range(self.n_blocks))

    def leaves(self) -> tuple[range, ...]:
        """Return the blocks of every leaf, in order: a function of the number of blocks alone."""
        step = budget.leaf_blocks(self.n_blocks)
        return tuple(range(i, min(i + step, self.n_blocks)) for i in range(0, self.n_blocks, step))

    def groups(self) -> tuple[Group, ...]:
        """Return the groups that tiles are made of, in order: a function of the grid alone."""
        groups: list[Group] = []
        for span in self.spans():
            last = groups[-1] if groups else None
            if last is not None and last.n_rows + span.n_rows <= budget.TILE_ROWS:
                blocks = range(last.blocks.start, span.block + 1)
                groups[-1] = last._replace(blocks=blocks, n_rows=last.n_rows + span.n_rows)
                continue
            for skip in range(0, span.n_rows, budget.TILE_ROWS):
                rows = min(budget.TILE_ROWS, span.n_rows - skip)
                block = range(span.block, span.block + 1)
                groups.append(Group(len(groups), block, skip, span.row0 + skip, rows))
        return tuple(groups)


def tile_rounds(n_groups: int) -> list[list[tuple[int, int]]]:
    """Return every pair of different groups once, in rounds that each group takes part in twice.

    Round k pairs the groups that lie k apart on a ring: work spreads evenly, and after a few rounds
    every group has met a fair share of all rows.
    """
    rounds = []
    for k in range(1, n_groups // 2 + 1):
        n = k if 2 * k == n_groups else n_groups
        rounds.append([(i, (i + k) % n_groups) for i in range(n)])
    return rounds


@runtime_checkable
class Blocks(Protocol):
    """Rows that can be read block by block, wherever they lie; pickles small unless it is an array.

    Attributes
    ----------
    grid : RowGrid
        How the rows are cut.
    n_features : int
        Number of columns.
    """

    @property
    def grid(self) -> RowGrid:
        """Return how the rows are cut."""
        ...

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        ...

    def read(self, i: int) -> NDArray[np.float32]:
        """Return block ``i``: float32, C order, not to be written into."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """An array in memory as blocks of the house's grid.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
    grid : RowGrid
    """

    X: NDArray[np.float32]
    grid: RowGrid

    @classmethod
    def of(cls, X: NDArray[Any], block_rows: int | None = None) -> ArrayBlocks:
        """Wrap a matrix; it is converted to float32 when it is anything else."""
        Xf = np.ascontiguousarray(X, dtype=np.float32)
        rows = block_rows or budget.block_rows(Xf.shape[1])
        return cls(Xf, RowGrid((Xf.shape[0],), rows))

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        return int(self.X.shape[1])

    def read(self, i: int) -> NDArray[np.float32]:
        """Return block ``i`` without a copy."""
        span = self.grid.span(i)
        return self.X[span.row0 : span.row0 + span.n_rows]
