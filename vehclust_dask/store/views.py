"""The rows a study works on: some sets side by side, without the rows that were dropped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.moments import unit_rows
from vehclust_dask.records import RowGrid, Span
from vehclust_dask.store.matrices import Matrix


@dataclass(frozen=True)
class RowsView:
    """Blocks of several sets, joined column by column.

    Attributes
    ----------
    sets : tuple of Matrix
        All with the same rows.
    grid : RowGrid
        Over the rows that are kept.
    dropped : tuple of int
        Global numbers of rows that are left out, ascending.
    unit : bool
        Divide each row of each set by its length before joining.
    kept : bool
        The worker keeps blocks it has read: for rows that are read again and again.
    """

    sets: tuple[Matrix, ...]
    grid: RowGrid
    dropped: tuple[int, ...] = ()
    unit: bool = False
    kept: bool = False

    @classmethod
    def of(
        cls,
        sets: tuple[Matrix, ...],
        *,
        dropped: tuple[int, ...] = (),
        unit: bool = False,
        block_rows: int | None = None,
    ) -> RowsView:
        """Join sets; the grid follows from the joined width unless ``block_rows`` is given."""
        bounds = np.cumsum([0, *sets[0].grid.part_rows])
        lost = (
            np.histogram(np.asarray(dropped, dtype=np.int64), bins=bounds)[0] if dropped else None
        )
        kept = tuple(
            int(n - (0 if lost is None else lost[p])) for p, n in enumerate(sets[0].grid.part_rows)
        )
        width = sum(s.n_features for s in sets)
        grid = RowGrid(kept, block_rows) if block_rows else RowGrid.for_width(kept, width)
        return cls(sets, grid, dropped, unit)

    @property
    def n_features(self) -> int:
        """Return the joined width."""
        return sum(s.n_features for s in self.sets)

    @property
    def digest(self) -> str:
        """Return what names these rows: content, choice and cut."""
        parts = [s.digest for s in self.sets]
        lost = hashlib.sha256(np.asarray(self.dropped, dtype=np.int64).tobytes()).hexdigest()[:16]
        text = f"{parts} {lost} {self.unit} {self.grid.part_rows} {self.grid.block_rows}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def read(self, i: int) -> NDArray[np.float32]:
        """Return block ``i``."""
        rows = original_rows(self.grid.span(i), self.dropped)
        parts = [self._read_set(matrix, rows) for matrix in self.sets]
        if self.unit:
            parts = [unit_rows(part) for part in parts]
        return parts[0] if len(parts) == 1 else np.hstack(parts)

    def _read_set(self, matrix: Matrix, rows: NDArray[np.int64]) -> NDArray[Any]:
        first, last = int(rows[0]), int(rows[-1]) + 1
        pieces = []
        for b, span in blocks_between(matrix.grid, first, last):
            low, high = max(first, span.row0), min(last, span.row0 + span.n_rows)
            block = matrix.read(b) if self.kept else matrix.load(b)
            pieces.append(block[low - span.row0 : high - span.row0])
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return whole if len(whole) == len(rows) else whole[rows - first]


def original_rows(span: Span, dropped: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the original numbers of kept rows."""
    kept = np.arange(span.row0, span.row0 + span.n_rows, dtype=np.int64)
    if not dropped:
        return kept
    lost = np.asarray(dropped, dtype=np.int64)
    return kept + np.searchsorted(lost - np.arange(len(lost)), kept, side="right")


def blocks_between(grid: RowGrid, first: int, last: int) -> list[tuple[int, Span]]:
    """Return the blocks that hold rows ``first`` to ``last`` (not included)."""
    found = []
    low, high = 0, grid.n_blocks
    while low < high:
        middle = (low + high) // 2
        span = grid.span(middle)
        if span.row0 + span.n_rows <= first:
            low = middle + 1
        else:
            high = middle
    for b in range(low, grid.n_blocks):
        span = grid.span(b)
        if span.row0 >= last:
            break
        found.append((b, span))
    return found
