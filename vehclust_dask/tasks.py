"""What runs inside a task: folding a leaf, merging summaries, calling a function with one BLAS thread."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from distributed import WorkerPlugin, get_worker
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from vehclust_dask.cache import CACHE
from vehclust_dask.errors import FULL, VehclustError, refused_by_system
from vehclust_dask.records import Blocks, Group, Span

S = TypeVar("S")
R = TypeVar("R")

_voice: ContextVar[Callable[[str], None] | None] = ContextVar("voice", default=None)


def tell(text: str) -> None:
    """Tell a person, wherever the driver is, how far a task is that stands alone; a few words."""
    voice = _voice.get()
    if voice is not None:
        voice(text)


@contextlib.contextmanager
def speaking(voice: Callable[[str], None] | None) -> Iterator[None]:
    """Let ``voice`` have what is told inside."""
    token = _voice.set(voice)
    try:
        yield
    finally:
        _voice.reset(token)


def _by_event(topic: str) -> Callable[[str], None]:
    """Return a voice that reaches the driver as an event of the Dask cluster."""
    return lambda text: get_worker().log_event(topic, text)


class Reduction(Protocol[S]):
    """A reduction as data: fold the blocks of a leaf, merge the summaries of leaves.

    ``fan_in`` summaries are merged by one task: few where a summary is large.
    """

    @property
    def fan_in(self) -> int:
        """Return how many summaries one task merges."""
        ...

    def fold(self, summary: S | None, X: NDArray[np.float32], span: Span) -> S:
        """Add one block to the summary of a leaf (None before its first block), which may be written over."""
        ...

    def merge(self, left: S, right: S) -> S:
        """Merge the summaries of neighbouring rows, the earlier rows first."""
        ...


class TileReduction(Protocol[S]):
    """A reduction over pairs of rows as data: compare groups, merge what each row learns.

    A group first meets itself. What it then knows is a *hint* for the tiles that follow (a ceiling
    of the distances of interest, say), taken again after 1, 2, 4, ... rounds. A hint may change how
    much a summary holds, never what the last one says.
    """

    def within(self, X: NDArray[np.float32], group: Group) -> S:
        """Compare the rows of a group with each other."""
        ...

    def hint(self, summary: S, group: Group) -> Any:
        """Return what later tiles of the group should know; small."""
        ...

    def between(
        self,
        left: tuple[NDArray[np.float32], Group, Any],
        right: tuple[NDArray[np.float32], Group, Any],
    ) -> tuple[S, S]:
        """Compare two groups, each given as rows, group and hint; return a summary for either."""
        ...

    def merge(self, left: S, right: S) -> S:
        """Merge what a group learnt from earlier tiles and from a later one."""
        ...

    def finish(self, summary: S, group: Group) -> Any:
        """Return the result of a group, or write it and return what is worth telling."""
        ...


class Keep(Protocol[S]):
    """Where groups keep what they have learnt from whole rounds of tiles, so that a later call goes on.

    Summaries are written and read by tasks; the driver only marks a round that is there for all
    groups. A summary of a round is right whichever hints it was found with: one that a stopped call
    wrote late does no harm.
    """

    def saved(self, groups: Sequence[Group]) -> int:
        """Return the last round that is marked for just these groups; -1 for none."""
        ...

    def save(self, number: int, group: Group, summary: S) -> None:
        """Write what a group knows after a round, whole or not at all."""
        ...

    def load(self, number: int, group: Group) -> S:
        """Read what a group knew after a round."""
        ...

    def mark(self, number: int, groups: Sequence[Group]) -> None:
        """Note that a round is there for all groups, then remove other rounds."""
        ...


@dataclass(frozen=True)
class Refusal:
    """A person's mistake or a full disk, found inside a task: a result, since trying again helps nobody."""

    error: VehclustError


class _OneThread:
    """Keep BLAS to one thread while any task of this process computes.

    Sums then have one order, and workers do not fight for cores. Tasks of several threads share the
    limit: it is set by the first that enters and lifted by the last that leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Limit BLAS inside."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._limit = _libraries().limit(limits=1)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._limit.restore_original_limits()


@functools.cache
def _libraries() -> ThreadpoolController:
    # scipy brings a BLAS of its own: it must be loaded to be found. Looking takes milliseconds: once.
    import scipy.linalg

    assert scipy.linalg is not None, "importing loads the library"
    return ThreadpoolController()


_ONE_THREAD = _OneThread()


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Return a context in which BLAS uses one thread."""
    return _ONE_THREAD.hold()


def as_refusal(function: Callable[..., R]) -> Callable[..., R | Refusal]:
    """Make a task return a person's mistake, or a full disk, instead of failing with it."""

    @functools.wraps(function)
    def guarded(*args: Any) -> R | Refusal:
        try:
            return function(*args)
        except VehclustError as error:
            return Refusal(error)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return Refusal(refused_by_system(error))

    return guarded


def fold_leaf(reduction: Reduction[S], blocks: Blocks, leaf: range) -> S:
    """Fold the blocks of a leaf in order."""
    summary: S | None = None
    with one_thread():
        for i in leaf:
            summary = reduction.fold(summary, blocks.read(i), blocks.grid.span(i))
    assert summary is not None, "a leaf holds at least one block"
    return summary


def fold_chunk(reduction: Reduction[S], summary: S | None, chunk: Any, span: Span) -> S:
    """Fold one chunk of a Dask array into the summary of its leaf.

    The summary is another task's result: a copy is written over, else trying again would add twice.
    """
    own = copy.deepcopy(summary)
    with one_thread():
        return reduction.fold(own, np.ascontiguousarray(chunk, dtype=np.float32), span)


def merge_all(reduction: Reduction[S], summaries: Sequence[S]) -> S:
    """Merge summaries one after the other, the earlier rows first."""
    merged = summaries[0]
    for summary in summaries[1:]:
        merged = reduction.merge(merged, summary)
    return merged


def hold(value: R) -> R:
    """Return the value: as a task's result it reaches each worker once, and can be made again."""
    return value


def call_block(task: Callable[..., R], i: int, span: Span, held: tuple[Any, ...]) -> R:
    """Call a function for one block."""
    with one_thread():
        return task(i, span, *held)


def call_alone(task: Callable[..., R], shared: tuple[Any, ...], call: tuple[Any, ...]) -> R:
    """Call a function that has no block of its own."""
    with one_thread():
        return task(*shared, *call)


def group_rows(source: Any, group: Group) -> NDArray[np.float32]:
    """Read the rows of a group from its blocks, or from the chunks of a Dask array."""
    if isinstance(source, list):
        parts = [np.ascontiguousarray(chunk, dtype=np.float32) for chunk in source]
    else:
        parts = [source.read(i) for i in group.blocks]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows[group.skip : group.skip + group.n_rows]


def tile_within(reduction: TileReduction[S], source: Any, group: Group) -> S:
    """Compare a group with itself."""
    with one_thread():
        return reduction.within(group_rows(source, group), group)


def tile_between(
    reduction: TileReduction[S], left: tuple[Any, Group, Any], right: tuple[Any, Group, Any]
) -> tuple[S, S]:
    """Compare two groups."""
    with one_thread():
        return reduction.between(
            (group_rows(left[0], left[1]), left[1], left[2]),
            (group_rows(right[0], right[1]), right[1], right[2]),
        )


def first_refusal(*values: Any) -> Refusal | None:
    """Return the first refusal among the values, if any."""
    return next((value for value in values if isinstance(value, Refusal)), None)


@as_refusal
def within_task(reduction: TileReduction[S], source: Any, group: Group) -> S:
    """Compare a group with itself, as a task."""
    return tile_within(reduction, source, group)


@as_refusal
def hint_task(reduction: TileReduction[Any], summary: Any, group: Group) -> Any:
    """Take a group's hint, as a task; a refusal passes through."""
    return first_refusal(summary) or reduction.hint(summary, group)


@as_refusal
def between_task(
    reduction: TileReduction[Any],
    sources: list[Any],
    groups: tuple[Group, Group],
    left_hint: Any,
    right_hint: Any,
) -> Any:
    """Compare two groups, as a task; a refusal passes through."""
    refused = first_refusal(left_hint, right_hint)
    if refused is not None:
        return refused
    left, right = zip(sources, groups, (left_hint, right_hint), strict=True)
    return tile_between(reduction, left, right)


@as_refusal
def merge_tile_task(reduction: TileReduction[Any], summary: Any, pair: Any, side: int) -> Any:
    """Merge one side of a tile, as a task; a refusal passes through."""
    return first_refusal(summary, pair) or reduction.merge(summary, pair[side])


@as_refusal
def save_task(
    reduction: TileReduction[Any], keep: Keep[Any], number: int, group: Group, summary: Any
) -> Any:
    """Keep what a group knows, as a task; a refusal passes through."""
    refused = first_refusal(summary)
    if refused is None:
        keep.save(number, group, summary)
    return refused


@as_refusal
def load_task(reduction: TileReduction[Any], keep: Keep[S], number: int, group: Group) -> S:
    """Read what a group knew, as a task."""
    return keep.load(number, group)


@as_refusal
def finish_task(reduction: TileReduction[Any], summary: Any, group: Group) -> Any:
    """Finish a group, as a task; a refusal passes through."""
    return first_refusal(summary) or reduction.finish(summary, group)


@as_refusal
def fold_leaf_task(reduction: Reduction[S], blocks: Blocks, leaf: range) -> S:
    """Fold a leaf, as a task."""
    return fold_leaf(reduction, blocks, leaf)


@as_refusal
def fold_chunk_task(reduction: Reduction[S], summary: Any, chunk: Any, span: Span) -> Any:
    """Fold a chunk, as a task; a refusal passes through."""
    return summary if isinstance(summary, Refusal) else fold_chunk(reduction, summary, chunk, span)


@as_refusal
def merge_task(reduction: Reduction[S], summaries: Sequence[Any]) -> Any:
    """Merge summaries, as a task; the first refusal passes through."""
    refused = [s for s in summaries if isinstance(s, Refusal)]
    return refused[0] if refused else merge_all(reduction, summaries)


@as_refusal
def call_block_task(task: Callable[..., R], i: int, span: Span, held: tuple[Any, ...]) -> R:
    """Call a function for one block, as a task."""
    return call_block(task, i, span, held)


@as_refusal
def call_alone_task(
    task: Callable[..., R], shared: tuple[Any, ...], call: tuple[Any, ...], topic: str
) -> R:
    """Call a function, as a task; what it tells goes by this topic."""
    with speaking(_by_event(topic)):
        return call_alone(task, shared, call)


def forget(group: str) -> None:
    """Drop a group of this process's cache."""
    CACHE.forget(group)


class PrepareWorker(WorkerPlugin):
    """Set up every worker, also one that joins later: how much it may keep between tasks.

    Parameters
    ----------
    cache_bytes : int
    """

    name = "vehclust-prepare"
    idempotent = True

    def __init__(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes

    def setup(self, worker: Any) -> None:
        """Set the limit of the worker's cache; keep what it writes from being changed by others."""
        os.umask(os.umask(0o022) | 0o002)
        CACHE.limit = self.cache_bytes
