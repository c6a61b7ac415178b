"""Nearest rows by cells: an approximation by that name, with a measured recall.

The rows are cut into cells, those of k-means centers. A row searches the rows of the few cells whose
centers lie nearest to it, its own first. That is not symmetric: a row may find another one whose own
search ends before it. Within the cells searched everything is exact: float64 distances of the rows
as they are, ordered by (distance, row). A list is therefore a function of rows, centers and options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask import budget
from vehclust_dask.blocks import DaskBlocks, reduce_rows, solos, take_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.kmeans import KMeansSweep
from vehclust_dask.estimators.neighbours import (
    Doubt,
    Known,
    Lists,
    Shelf,
    ready_rows,
    search_again,
)
from vehclust_dask.kernels.neighbours import Running, search, search_on
from vehclust_dask.kernels.tiles import Frame, TileRows, unit_rows
from vehclust_dask.records import Blocks, RowGrid, Span

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

#: Passes over all rows that the centers of cells take, from rows drawn at random.
CELL_PASSES = 5
#: So many rows of the cells that a task searches are held at a time.
POOL_ROWS = 1 << 16
#: Rows whose lists are compared with the exact ones.
RECALL_ROWS = 1000


@dataclass(frozen=True)
class UnitBlocks:
    """Rows of length one, made while reading."""

    blocks: Blocks

    @property
    def grid(self) -> RowGrid:
        """Return how the rows are cut."""
        return self.blocks.grid

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        return self.blocks.n_features

    def read(self, i: int) -> F32:
        """Return block ``i``."""
        return unit_rows(self.blocks.read(i)).astype(np.float32)


class Cells(NamedTuple):
    """Rows cut into cells.

    Attributes
    ----------
    centers : ndarray of shape (n_cells, n_features), float32
    cell : ndarray of shape (n_rows,), int32
        Of every row; -1 for a row that another one stands for.
    order : ndarray of shape (n_distinct,), int64
        Distinct rows by cell, those of one cell ascending, named by their place among the distinct.
    """

    centers: F32
    cell: I32
    order: I64


@dataclass(frozen=True, eq=False)
class OwnCellPass:
    """The reduction that finds the nearest center of every row that takes part."""

    frame: Frame
    centers: TileRows
    kept: NDArray[np.bool_] | None
    fan_in: int = 8

    def fold(self, summary: list[I32] | None, X: F32, span: Span) -> list[I32]:
        """Add a block."""
        rows = ready_rows(self.frame, self.kept, X, span.row0)
        mine = [nearest_cells(rows, self.centers, 1, self.frame.sq_scale)[:, 0]]
        return mine if summary is None else summary + mine

    def merge(self, left: list[I32], right: list[I32]) -> list[I32]:
        """Put cells together, those of the earlier rows first."""
        return left + right


def nearest_cells(rows: TileRows, centers: TileRows, n: int, sq_scale: float) -> I32:
    """Return the n cells nearest to each row, int32 of shape (n_rows, n); ties: the lower number first."""
    queries = rows._replace(rows=np.full(len(rows.rows), -1, np.int32))
    ceiling = np.full(len(rows.rows), np.inf)
    return search(queries, centers, ceiling, n, sq_scale).matrix(n)[0]


def ready_centers(frame: Frame, centers: F32) -> TileRows:
    """Return centers made ready for tiles."""
    return frame.ready(centers, np.arange(len(centers), dtype=np.int32))


def cell_count(n_cells: int | None, n_distinct: int) -> int:
    """Return how many cells there are: as asked for, or about the square root of the rows."""
    if n_cells is None:
        return max(1, math.isqrt(n_distinct))
    if n_cells > n_distinct:
        raise BadInput(
            f"n_cells={n_cells} but only {n_distinct} rows differ from one another; lower it to that "
            "or less"
        )
    return n_cells


def cut_cells(blocks: Blocks, known: Known, n_cells: int, *, seed: int, name: str) -> Cells:
    """Cut the rows into cells: k-means from rows drawn at random, a few passes."""
    first = known.copies.first
    unit = UnitBlocks(blocks) if known.frame.unit else blocks
    drawn = np.random.default_rng([seed, 0xCE]).choice(first, n_cells, replace=False)
    starts = take_rows(unit, np.sort(drawn), name=f"{name}-starts")
    sweep = KMeansSweep([n_cells], init={n_cells: starts}, max_iter=CELL_PASSES)
    centers = sweep.fit_centers(unit, name=f"{name}-centers").centers[0].astype(np.float32)
    one = OwnCellPass(known.frame, ready_centers(known.frame, centers), known.kept)
    own = np.concatenate(reduce_rows(blocks, one, name=f"{name}-cells"))
    cell = np.full(blocks.grid.n_rows, -1, np.int32)
    cell[first] = own
    return Cells(centers, cell, np.argsort(own, kind="stable"))


class Stretch(NamedTuple):
    """What the search of a stretch of rows has shown.

    Attributes
    ----------
    lists : Lists or None
        None where they were written.
    short : ndarray, int64
        Places of rows whose cells hold too few others.
    seen : Lists
        Of the rows that recall is measured on.
    """

    lists: Lists | None
    short: I64
    seen: Lists


@dataclass(frozen=True, eq=False)
class CellSearch:
    """The search by cells; a task takes a stretch of rows, which lie in few cells.

    Parameters
    ----------
    known : Known
    cells : Cells
    m : int
        At least 1, below the number of distinct rows.
    n_probe : int
        Cells that a row searches.
    sample : ndarray, int64
        Places of the rows that recall is measured on, ascending.
    shelf : Shelf or None
        Where lists are written, by place; None: they are returned.
    """

    known: Known
    cells: Cells
    m: int
    n_probe: int
    sample: I64
    shelf: Shelf | None = None

    def stretches(self) -> list[tuple[int, int, int]]:
        """Return number, first and last place (not included) of every stretch."""
        n, step = len(self.cells.order), budget.TILE_ROWS
        return [(i, a, min(a + step, n)) for i, a in enumerate(range(0, n, step))]

    def run(self, blocks: Blocks, number: int, start: int, stop: int) -> Stretch:
        """Search for the rows of a stretch."""
        frame = self.known.frame
        rows = self.known.copies.first[self.cells.order[start:stop]]
        queries = frame.ready(_gather(blocks, rows), rows.astype(np.int32))
        centers = ready_centers(frame, self.cells.centers)
        probes = nearest_cells(queries, centers, self.n_probe, frame.sq_scale)
        running = Running.fresh(np.full(len(rows), np.inf), self.m, frame.sq_scale)
        for pool in self._pools(blocks, np.unique(probes)):
            self._search_pool(pool, queries, probes, running)
        free = np.arange(self.m) >= running.filled[:, None]
        running.sq[free], running.rows[free] = np.inf, -1
        lists, short = Lists(running.rows, running.sq), start + np.flatnonzero(free[:, -1])
        low, high = np.searchsorted(self.sample, [start, stop])
        at = self.sample[low:high] - start
        seen = Lists(lists.rows[at], lists.sq_dist[at])
        if self.shelf is None:
            return Stretch(lists, short, seen)
        self.shelf.write(number, lists)
        return Stretch(None, short, seen)

    def _pools(self, blocks: Blocks, probed: I32) -> Iterator[TileRows]:
        """Read the rows of the cells probed, so many at a time, whatever the size of a cell."""
        chosen = np.zeros(len(self.cells.centers) + 1, np.bool_)
        chosen[probed] = True
        held, rows = list[F32](), list[I64]()
        for i, span in enumerate(blocks.grid.spans()):
            cell = self.cells.cell[span.row0 : span.row0 + span.n_rows]
            mine = np.flatnonzero(chosen[cell])
            held.append(blocks.read(i)[mine])
            rows.append(span.row0 + mine)
            last = i == blocks.grid.n_blocks - 1
            if last or sum(map(len, rows)) >= POOL_ROWS:
                numbers = np.concatenate(rows)
                yield self.known.frame.ready(np.concatenate(held), numbers.astype(np.int32))
                held, rows = [], []

    def _search_pool(
        self, pool: TileRows, queries: TileRows, probes: I32, running: Running
    ) -> None:
        """Search rows, cell by cell, for the queries that probe the cell."""
        cell = self.cells.cell[pool.rows]
        by_cell = np.argsort(cell, kind="stable")
        found, starts = np.unique(cell[by_cell], return_index=True)
        for c, members in zip(found, np.split(by_cell, starts[1:]), strict=True):
            at = np.flatnonzero((probes == c).any(axis=1))
            some = running.take(at)
            search_on(queries.take(at), pool.take(members), some, self.known.frame.sq_scale)
            running.put(at, some)


def _gather(blocks: Blocks, rows: I64) -> F32:
    """Read some rows in the order asked for, in a task."""
    at = np.argsort(rows)
    ascending = rows[at]
    X = np.empty((len(rows), blocks.n_features), np.float32)
    for i, span in enumerate(blocks.grid.spans()):
        low, high = np.searchsorted(ascending, [span.row0, span.row0 + span.n_rows])
        if low < high:
            X[at[low:high]] = blocks.read(i)[ascending[low:high] - span.row0]
    return X


def search_stretch(one: CellSearch, blocks: Blocks, number: int, start: int, stop: int) -> Stretch:
    """Search for a stretch of rows, as a task."""
    return one.run(blocks, number, start, stop)


@dataclass(frozen=True, eq=False)
class CellLists:
    """What a search by cells came to.

    Attributes
    ----------
    lists : Lists or None
        Of all distinct rows; None where they lie on a shelf.
    order : ndarray of shape (n_distinct,), int64
        Distinct row of every place of the shelf.
    n_cells : int
    recall : float
        Share of the exact nearest rows that is in the lists, on ``recall_rows`` rows.
    recall_rows : int
    """

    lists: Lists | None
    order: I64
    n_cells: int
    recall: float
    recall_rows: int


def search_cells(
    blocks: Blocks,
    known: Known,
    m: int,
    *,
    n_probe: int,
    n_cells: int | None,
    seed: int,
    name: str,
    shelf: Callable[[list[int]], Shelf] | None = None,
) -> CellLists:
    """Find m rows near every distinct row by searching the cells around it.

    A row whose cells hold fewer than m others is compared with all rows.

    Parameters
    ----------
    blocks : Blocks
    known : Known
    m : int
        At least 1, below the number of distinct rows.
    n_probe : int
        Cells that a row searches, its own included; the more, the better the recall.
    n_cells : int or None
        None: about the square root of the number of distinct rows.
    seed : int
        Of the cells, and of the rows that recall is measured on.
    name : str
    shelf : callable or None
        Given how many rows each stretch has, return where lists are written, by place.

    Raises
    ------
    BadInput
        If there are fewer cells than are searched, or fewer rows than cells.
    """
    n = len(known.copies.first)
    n_cells = cell_count(n_cells, n)
    if n_probe > n_cells:
        raise BadInput(
            f"n_probe={n_probe} but there are {n_cells} cells; lower it to that (which searches "
            "everything: method 'exact' then takes less), or raise n_cells"
        )
    cells = cut_cells(blocks, known, n_cells, seed=seed, name=name)
    rng = np.random.default_rng([seed, 0x4E])
    sample = np.sort(rng.choice(n, min(n, RECALL_ROWS), replace=False))
    one = CellSearch(known, cells, m, n_probe, sample)
    calls = one.stretches()
    if shelf is not None:
        one = replace(one, shelf=shelf([stop - start for _, start, stop in calls]))
    found = solos(search_stretch, calls, one, _handle(blocks), name=name, on=blocks)
    short = np.concatenate([part.short for part in found])
    lists = _joined([part.lists for part in found if part.lists is not None], cells.order)
    for at, exact in _exactly(blocks, known, m, cells, short, np.full(len(short), np.inf), name):
        if one.shelf is not None:
            one.shelf.replace(at, exact)
        elif lists is not None:
            lists.rows[cells.order[at]], lists.sq_dist[cells.order[at]] = exact
    recall = _recall(blocks, known, one, [part.seen for part in found], name)
    return CellLists(lists, cells.order, n_cells, recall, len(sample))


def _handle(blocks: Blocks) -> Blocks:
    """Return rows as a task may be given them: chunks of a Dask array are computed where they are read."""
    return DaskBlocks(blocks.X, blocks.grid) if isinstance(blocks, DaskBlocks) else blocks


def _joined(parts: list[Lists], order: I64) -> Lists | None:
    """Put the lists of stretches together, by distinct row."""
    if not parts:
        return None
    at = np.argsort(order)
    rows, sq_dist = (np.concatenate(values)[at] for values in zip(*parts, strict=True))
    return Lists(rows, sq_dist)


def _exactly(
    blocks: Blocks, known: Known, m: int, cells: Cells, places: I64, ceiling: F64, name: str
) -> Iterator[tuple[I64, Lists]]:
    """Compare the rows at some places with all rows; iterate over places and exact lists."""
    done = 0
    for at, lists in search_again(blocks, known, m, Doubt(cells.order[places], ceiling), name=name):
        yield places[done : done + len(at)], lists
        done += len(at)


def _recall(blocks: Blocks, known: Known, one: CellSearch, seen: list[Lists], name: str) -> float:
    """Return the share of exact nearest rows that the lists of the sample hold."""
    rows, sq_dist = (np.concatenate(values) for values in zip(*seen, strict=True))
    exact = _exactly(blocks, known, one.m, one.cells, one.sample, sq_dist[:, -1], f"{name}-recall")
    wanted = np.concatenate([lists.rows for _, lists in exact])
    # A short list was compared with all rows afterwards.
    short = (rows < 0).any(axis=1, keepdims=True)
    rows = np.where(short, wanted, rows)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(rows, wanted, strict=True))
    return hits / wanted.size
