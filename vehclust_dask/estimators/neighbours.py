"""The exact nearest rows of every row: surveys, tiles and searches over blocks, lists as they come out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import forget, reduce_rows, reduce_tiles, take_rows
from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput
from vehclust_dask.kernels.copies import Copies, hash_rows
from vehclust_dask.kernels.neighbours import Candidates, between, merge, search, within
from vehclust_dask.kernels.tiles import Frame, TileRows, unit_rows
from vehclust_dask.records import Blocks, Group, Span
from vehclust_dask.tasks import Keep

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

METRICS = ("euclidean", "cosine")
#: So many rows are searched for side by side: they travel with the task.
QUERY_ROWS = 4096


def own_unit(sq: Any, metric: str) -> Any:
    """Turn squared distances into the metric's own unit; cosine: 1 - <x, y> / (|x| |y|)."""
    return np.asarray(sq) / 2 if metric == "cosine" else np.sqrt(sq)


def squared(distance: Any, metric: str) -> Any:
    """Turn distances in the metric's own unit into squared ones."""
    return 2 * np.asarray(distance) if metric == "cosine" else np.square(distance)


@dataclass(frozen=True, eq=False)
class Survey:
    """What must be known before tiles: where the rows lie, and which are equal.

    Attributes
    ----------
    total : ndarray of shape (n_features,), float64
        Sum of the rows, of length one where the metric asks for it.
    largest : float
        Largest absolute value.
    hashes : list of ndarray of shape (n_rows, 2), uint64
    """

    total: F64
    largest: float
    hashes: list[NDArray[np.uint64]]


@dataclass(frozen=True)
class SurveyPass:
    """The reduction that surveys the rows and refuses those that have no place."""

    unit: bool
    fan_in: int = 8

    def fold(self, summary: Survey | None, X: F32, span: Span) -> Survey:
        """Add a block."""
        check_rows(X, span.row0, self.unit)
        rows = unit_rows(X) if self.unit else X
        largest = float(np.abs(rows).max())
        mine = Survey(rows.sum(axis=0, dtype=np.float64), largest, [hash_rows(rows)])
        return mine if summary is None else self.merge(summary, mine)

    def merge(self, left: Survey, right: Survey) -> Survey:
        """Put two surveys together, the earlier rows first."""
        largest = max(left.largest, right.largest)
        return Survey(left.total + right.total, largest, left.hashes + right.hashes)


def check_rows(X: F32, row0: int, unit: bool) -> None:
    """Refuse rows that are not finite, or that have no direction where only that counts."""
    sizes = np.abs(X).max(axis=1)
    bad = np.flatnonzero(~np.isfinite(sizes))
    if len(bad):
        raise BadInput(
            f"row {row0 + bad[0]} holds NaN or infinity: leave such rows out or fill them in first"
        )
    zero = np.flatnonzero(sizes == 0)
    if unit and len(zero):
        raise BadInput(
            f"row {row0 + zero[0]} is zero in every feature and has no direction: "
            "leave such rows out, or use metric='euclidean'"
        )


class Lists(NamedTuple):
    """Nearest rows and their squared distances, both of shape (n_rows, m), each in order."""

    rows: I32
    sq_dist: F64


class Found(NamedTuple):
    """What the tiles have shown of a group.

    Attributes
    ----------
    lists : Lists or None
        None where they were written.
    uncertain : ndarray of shape (n_uncertain,), int64
        Lists that must be searched again, by their places in the group.
    ceiling : ndarray of shape (n_uncertain,), float64
        Squared distances that their last entries do not exceed.
    """

    lists: Lists | None
    uncertain: I64
    ceiling: F64


class Shelf(Protocol):
    """Where lists are written, group by group, and put right afterwards."""

    def write(self, number: int, lists: Lists) -> None:
        """Write the lists of a group, in a task of its own."""
        ...

    def replace(self, at: I64, lists: Lists) -> None:
        """Write other lists at some places: those of distinct rows, unless said otherwise."""
        ...


@dataclass(frozen=True, eq=False)
class NeighbourPass:
    """The tile reduction that finds the nearest rows.

    Parameters
    ----------
    frame : Frame
    m : int
        Nearest rows asked for; there must be more distinct rows than that.
    kept : ndarray of shape (n_rows,), bool, or None
        Which rows take part: one of each pile of equal ones. None: all.
    shelf : Shelf or None
        Where a group writes its lists; None: they are returned.
    group : str
        Names this pass in the worker's cache.
    """

    frame: Frame
    m: int
    kept: NDArray[np.bool_] | None
    shelf: Shelf | None = None
    group: str = field(default_factory=lambda: f"neighbours-{uuid.uuid4().hex[:12]}")

    def ready(self, X: F32, group: Group) -> TileRows:
        """Return a group made ready for tiles, kept for its next tile."""
        return CACHE.of(
            self.group,
            group.number,
            lambda: ready_rows(self.frame, self.kept, X, group.row0),
            lambda rows: rows.tile.nbytes + rows.exact.nbytes,
        )

    def within(self, X: F32, group: Group) -> Candidates:
        """Find the nearest rows inside a group."""
        return within(self.ready(X, group), self.m)

    def hint(self, summary: Candidates, group: Group) -> F64:
        """Return the distance that no m-th neighbour exceeds."""
        return summary.ceiling(self.m)

    def between(
        self, left: tuple[F32, Group, F64], right: tuple[F32, Group, F64]
    ) -> tuple[Candidates, Candidates]:
        """Find the nearest rows of either group in the other."""
        a, b = self.ready(*left[:2]), self.ready(*right[:2])
        return between(a, b, left[2], right[2], self.m, self.frame.sq_scale)

    def merge(self, left: Candidates, right: Candidates) -> Candidates:
        """Merge lists."""
        return merge(left, right, self.m)

    def finish(self, summary: Candidates, group: Group) -> Found:
        """Write or return lists, and tell which of them must be searched again."""
        lists = Lists(*summary.matrix(self.m))
        uncertain = summary.uncertain(self.m, self.frame.sq_scale)
        ceiling = lists.sq_dist[uncertain, self.m - 1]
        if self.shelf is None:
            return Found(lists, uncertain, ceiling)
        self.shelf.write(group.number, lists)
        return Found(None, uncertain, ceiling)


def ready_rows(frame: Frame, kept: NDArray[np.bool_] | None, X: F32, row0: int) -> TileRows:
    """Return the rows of a stretch that take part, made ready for tiles."""
    rows = np.arange(row0, row0 + len(X), dtype=np.int32)
    if kept is not None:
        rows = rows[kept[row0 : row0 + len(X)]]
        X = X[rows - row0]
    return frame.ready(X, rows)


@dataclass(frozen=True, eq=False)
class SearchPass:
    """The reduction that finds the rows nearest to given ones, certain as it goes.

    Parameters
    ----------
    frame : Frame
    m : int
    kept : as in `NeighbourPass`
    queries : ndarray of shape (n_queries, n_features), float32
    rows : ndarray of shape (n_queries,), int32
        Row numbers of the queries, which are not their own neighbours; -1 for new rows.
    ceiling : ndarray of shape (n_queries,), float64
        Squared distances beyond which nothing is of interest.
    """

    frame: Frame
    m: int
    kept: NDArray[np.bool_] | None
    queries: F32
    rows: I32
    ceiling: F64
    fan_in: int = 8

    def fold(self, summary: Candidates | None, X: F32, span: Span) -> Candidates:
        """Add a block."""
        queries = self.frame.ready(self.queries, self.rows)
        ceiling = self.ceiling
        if summary is not None:
            ceiling = np.minimum(ceiling, summary.ceiling(self.m))
        group = ready_rows(self.frame, self.kept, X, span.row0)
        mine = search(queries, group, ceiling, self.m, self.frame.sq_scale)
        return mine if summary is None else self.merge(summary, mine)

    def merge(self, left: Candidates, right: Candidates) -> Candidates:
        """Merge lists."""
        return merge(left, right, self.m)


@dataclass(frozen=True, eq=False)
class Known:
    """What a survey has shown: the frame of the rows, and their copies."""

    frame: Frame
    copies: Copies

    @classmethod
    def of(cls, blocks: Blocks, metric: str) -> Known:
        """Survey the rows."""
        unit = metric == "cosine"
        seen = reduce_rows(blocks, SurveyPass(unit), name="survey")
        mean = seen.total / blocks.grid.n_rows
        frame = Frame.of(mean, seen.largest + float(np.abs(mean).max()), unit)
        return cls(frame, Copies.find(np.concatenate(seen.hashes)))

    @property
    def kept(self) -> NDArray[np.bool_] | None:
        """Return which rows stand for their copies; None where there are no copies."""
        if self.copies.none:
            return None
        kept = np.zeros(len(self.copies.pile), np.bool_)
        kept[self.copies.first] = True
        return kept


class Doubt(NamedTuple):
    """Lists that tiles left uncertain: places among the distinct rows, ascending, and ceilings."""

    at: I64
    ceiling: F64


def distinct_lists(blocks: Blocks, known: Known, m: int, *, name: str) -> Lists:
    """Return the m nearest distinct rows of every distinct row, rows named by their number in the whole.

    O(n**2 * n_features) time; the lists are held in memory.
    """
    if m == 0:
        n = len(known.copies.first)
        return Lists(np.empty((n, 0), np.int32), np.empty((n, 0)))
    parts, doubt = _tile_pass(blocks, known, NeighbourPass(known.frame, m, known.kept), name)
    held = [part.lists for part in parts if part.lists is not None]
    lists = Lists(
        np.concatenate([one.rows for one in held]), np.concatenate([one.sq_dist for one in held])
    )
    for at, found in search_again(blocks, known, m, doubt, name=name):
        lists.rows[at], lists.sq_dist[at] = found
    return lists


def shelve_lists(
    blocks: Blocks,
    known: Known,
    m: int,
    shelf: Shelf,
    *,
    name: str,
    keep: Keep[Candidates] | None = None,
) -> Doubt:
    """Write the m nearest distinct rows of every distinct row; return which lists are uncertain.

    Each group writes its lists where it is: nothing of their size comes to this process.

    Parameters
    ----------
    blocks : Blocks
    known : Known
    m : int
        At least 1, below the number of distinct rows.
    shelf : Shelf
    name : str
    keep : as in `blocks.reduce_tiles`
    """
    one = NeighbourPass(known.frame, m, known.kept, shelf)
    return _tile_pass(blocks, known, one, name, keep)[1]


def _tile_pass(
    blocks: Blocks,
    known: Known,
    one: NeighbourPass,
    name: str,
    keep: Keep[Candidates] | None = None,
) -> tuple[list[Found], Doubt]:
    try:
        parts: list[Found] = reduce_tiles(blocks, one, name=name, keep=keep)
    finally:
        forget(blocks, one.group)
    starts = np.searchsorted(known.copies.first, [g.row0 for g in blocks.grid.groups()])
    again = [start + part.uncertain for start, part in zip(starts, parts, strict=True)]
    ceilings = [part.ceiling for part in parts]
    return parts, Doubt(np.concatenate(again), np.concatenate(ceilings))


def search_again(
    blocks: Blocks, known: Known, m: int, doubt: Doubt, *, name: str
) -> Iterator[tuple[I64, Lists]]:
    """Search again for uncertain lists, so many at a time; iterate over places and certain lists."""
    for chunk in query_chunks(np.arange(len(doubt.at))):
        rows = known.copies.first[doubt.at[chunk]].astype(np.int32)
        queries = take_rows(blocks, rows.astype(np.int64), name=f"{name}-again")
        search = SearchPass(known.frame, m, known.kept, queries, rows, doubt.ceiling[chunk])
        found = reduce_rows(blocks, search, name=f"{name}-again")
        yield doubt.at[chunk], Lists(*found.matrix(m))


def query_chunks(rows: I64) -> Iterator[I64]:
    """Cut rows into pieces that are searched for side by side."""
    return (rows[i : i + QUERY_ROWS] for i in range(0, len(rows), QUERY_ROWS))
