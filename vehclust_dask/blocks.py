"""The verbs: the only module that hands work to Dask.

Each verb takes `Blocks` (rows that a task can read by itself) and pure functions, and does the same
work in the same order whether it runs in this process or on a Dask cluster. Nothing is scattered:
a task reads its rows from storage, so a lost worker costs a recomputation and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vehclust_dask import budget, tasks
from vehclust_dask.cache import CACHE
from vehclust_dask.errors import Lost, NotEnough, VehclustError
from vehclust_dask.records import ArrayBlocks, Blocks, Group, RowGrid, Span, tile_rounds
from vehclust_dask.tasks import Keep, Reduction, Refusal, TileReduction

S = TypeVar("S")
R = TypeVar("R")

#: How often a task is tried again after an error that is not its own fault.
RETRIES = 2
#: Seconds between two savings of what tiles have shown, and how many times as long as a saving took.
SAVE_TILES_EVERY, SAVE_TILES_SHARE = 20.0, 20


@dataclass(frozen=True)
class Progress:
    """How far a verb is: ``done`` of ``total`` tasks of the step ``name``, or what one of them tells."""

    name: str
    done: int
    total: int
    text: str = ""


#: So many tasks are named where it cannot be said which of them ended its worker.
MOST_SUSPECTS = 8
#: Steps of two words; the tasks of every other step go by the first word of their name.
TWO_WORDS = ("quick-kmeans", "minibatch-kmeans")

_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("listener", default=None)
_calls, _tasks = itertools.count(), itertools.count()


@contextlib.contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Tell ``listener`` of the progress of every verb called inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _tell(name: str, done: int, total: int) -> None:
    listener = _listener.get()
    if listener is not None:
        listener(Progress(name, done, total))


def as_blocks(X: Any) -> Blocks:
    """Return rows as blocks: blocks as they are, a numpy array or a Dask array cut by the house's grid."""
    if isinstance(X, Blocks):
        return X
    if hasattr(X, "dask") and hasattr(X, "to_delayed"):
        return DaskBlocks.of(X)
    return ArrayBlocks.of(np.asarray(X))


class DaskBlocks:
    """A Dask array as blocks; on a cluster its chunks are computed once and kept there while in use."""

    def __init__(self, X: Any, grid: RowGrid) -> None:
        self.X = X
        self.grid = grid
        self.n_features = int(X.shape[1])
        self._futures: list[Any] | None = None

    @classmethod
    def of(cls, X: Any) -> DaskBlocks:
        """Cut a Dask array of known shape by the house's grid."""
        if X.ndim != 2 or any(np.isnan(n) for n in X.shape):
            raise VehclustError(
                f"the Dask array has shape {X.shape}: a matrix of known shape is needed; "
                "call compute_chunk_sizes() first"
            )
        rows = budget.block_rows(int(X.shape[1]))
        grid = RowGrid((int(X.shape[0]),), rows)
        return cls(X.rechunk({0: rows, 1: -1}), grid)

    def read(self, i: int) -> NDArray[np.float32]:
        """Compute chunk ``i`` in this process."""
        chunk = self.X.blocks[i].compute(scheduler="synchronous")
        return np.ascontiguousarray(chunk, dtype=np.float32)

    def futures(self, client: Any) -> list[Any]:
        """Return a future of every chunk."""
        if self._futures is None:
            self._futures = client.compute(list(self.X.to_delayed().ravel()))
        return self._futures


def client_for(blocks: Blocks | None) -> Any | None:
    """Return the Dask client that work on these rows goes to; None means this process.

    An array in memory is worked on where it is. Everything else goes to the current client, if any.
    """
    if isinstance(blocks, ArrayBlocks):
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def reduce_rows(blocks: Blocks, reduction: Reduction[S], *, name: str, exact: bool = False) -> S:
    """Fold every leaf and merge the summaries in a tree that depends on the number of blocks alone.

    Parameters
    ----------
    blocks : Blocks
    reduction : Reduction
    name : str
        Of the step and its iteration, as the dashboard shows it.
    exact : bool
        Adding up in any grouping gives the same summary, bit for bit: leaves with one home are then
        folded by one task, which halves what a short pass costs beside its work.

    Returns
    -------
    summary
        Of all rows.
    """
    client = client_for(blocks)
    leaves = blocks.grid.leaves()
    if client is None:
        tree = _Tree(reduction.fan_in, lambda parts: tasks.merge_all(reduction, parts))
        for done, leaf in enumerate(leaves):
            tree.add(tasks.fold_leaf(reduction, blocks, leaf))
            _tell(name, done + 1, len(leaves))
        return tree.close()
    return _reduce_on(client, blocks, leaves, reduction, name, exact)


class _Tree:
    """Merge values as they come, ``fan_in`` at a time; the same tree for the same number of values."""

    def __init__(self, fan_in: int, merge: Callable[[list[Any]], Any]) -> None:
        self._fan_in = fan_in
        self._merge = merge
        self._levels: list[list[Any]] = []

    def add(self, value: Any) -> None:
        level = 0
        while True:
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(value)
            if len(self._levels[level]) < self._fan_in:
                return
            value = self._merge(self._levels[level])
            self._levels[level] = []
            level += 1

    def close(self) -> Any:
        """Merge what is left, the earlier rows first."""
        rest: list[Any] = []
        for level in self._levels:
            if level:
                rest = [self._merge(level + rest)] if len(level + rest) > 1 else level + rest
        return rest[0]


def step_of(name: str) -> str:
    """Return the step that a verb's name begins with: kmeans of kmeans-osnet-km-pass-003."""
    return next((step for step in TWO_WORDS if name.startswith(step)), name.split("-")[0])


def _rows(at: Span | Group) -> str:
    """Say which rows a task works on, first and last."""
    return f"rows {at.row0} to {at.row0 + at.n_rows - 1}"


class _Keys:
    """The keys of one call's tasks.

    Dask groups tasks by the first part up to its number, so that its pages show a bar per step; the
    others say to a person what the task does and on which rows.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._step = f"{step_of(name)}-{next(_calls)}"

    def __call__(self, what: str, where: str = "") -> tuple[str, str, str, int]:
        return f"{self._step}-{what}", self.name, where or what, next(_tasks)


def _reduce_on(
    client: Any,
    blocks: Blocks,
    leaves: Sequence[range],
    reduction: Reduction[S],
    name: str,
    exact: bool,
) -> S:
    keys = _Keys(name)
    held = client.submit(tasks.hold, reduction, key=keys("args"))

    def merge(parts: list[Any]) -> Any:
        return client.submit(tasks.merge_task, held, parts, key=keys("merge"), retries=RETRIES)

    tree = _Tree(reduction.fan_in, merge)
    workers = _workers(client)
    if exact:
        leaves = _joined(workers, blocks.grid, leaves)
    futures = []
    for leaf in leaves:
        where = _home(workers, blocks.grid, leaf)
        if isinstance(blocks, DaskBlocks):
            future = _fold_chunks(client, held, blocks, leaf, keys)
        else:
            future = client.submit(
                tasks.fold_leaf_task,
                held,
                blocks,
                leaf,
                key=keys("fold", _rows_of(blocks.grid, leaf)),
                retries=RETRIES,
                **where,
            )
        futures.append(future)
        tree.add(future)
    root = tree.close()
    _watch(futures, name)
    return _result(root, name)


def _workers(client: Any) -> list[str]:
    """Return the workers' addresses, sorted; none while the connection is lost."""
    return sorted(client.scheduler_info(n_workers=-1).get("workers", ()))


def _home(workers: list[str], grid: RowGrid, blocks: range) -> dict[str, Any]:
    """Name the worker that blocks go to by preference: the one whose cache holds them since last time.

    Each worker is home to about as many rows, which blocks alone do not tell: the last one is short.
    """
    if not workers:
        return {}
    last = grid.span(blocks[-1])
    middle = (grid.span(blocks[0]).row0 + last.row0 + last.n_rows) // 2
    at = min(middle * len(workers) // grid.n_rows, len(workers) - 1)
    return {"workers": [workers[at]], "allow_other_workers": True}


def _joined(workers: list[str], grid: RowGrid, leaves: Sequence[range]) -> list[range]:
    """Join neighbouring leaves of one home, while a task stays one of a few seconds."""
    joined: list[range] = []
    for leaf in leaves:
        if joined:
            both = range(joined[-1].start, leaf.stop)
            together = _home(workers, grid, joined[-1]) == _home(workers, grid, leaf)
            if together and len(both) <= budget.MAX_LEAF_BLOCKS:
                joined[-1] = both
                continue
        joined.append(leaf)
    return joined


def _rows_of(grid: RowGrid, blocks: range) -> str:
    """Say which rows consecutive blocks hold."""
    first, last = grid.span(blocks[0]), grid.span(blocks[-1])
    return f"rows {first.row0} to {last.row0 + last.n_rows - 1}"


def _fold_chunks(client: Any, held: Any, blocks: DaskBlocks, leaf: range, keys: _Keys) -> Any:
    """Fold the chunks of a Dask array one after the other, so that one chunk is held at a time."""
    chunks = blocks.futures(client)
    summary: Any = None
    for i in leaf:
        span = blocks.grid.span(i)
        summary = client.submit(
            tasks.fold_chunk_task,
            held,
            summary,
            chunks[i],
            span,
            key=keys("fold", _rows(span)),
            retries=RETRIES,
        )
    return summary


def _watch(futures: list[Any], name: str) -> None:
    """Wait for futures and tell the listener of each that is done.

    The list is emptied: a summary that was merged is then let go, while others are still made.
    """
    from distributed import as_completed

    total, order = len(futures), as_completed(futures)
    futures.clear()
    for done, future in enumerate(order):
        if future.status == "error":
            _result(future, name)
        _tell(name, done + 1, total)


def _result(future: Any, name: str) -> Any:
    """Return a future's result.

    Raises
    ------
    Lost
        If the scheduler went away, or all workers did and did not come back.
    VehclustError
        If a task ended its worker again and again: which, and on which rows.
    """
    from concurrent.futures import CancelledError

    from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

    try:
        result = future.result()
    except KilledWorker as error:
        raise VehclustError(
            f"{_task_of(*_suspects(future, error))} ended its worker {error.allowed_failures + 1} times: "
            "most often its memory did not suffice; raise the place's memory_limit or lower the "
            "job's memory.per_task, then run again: finished work is kept"
        ) from error
    except (NoWorkerError, NoValidWorkerError) as error:
        raise Lost(
            f"no worker was left for {error.timeout:.0f} s while {name} ran; start workers and run "
            "again: finished work is kept"
        ) from error
    except CancelledError as error:
        raise Lost(
            f"the scheduler was lost while {name} ran; start it and run again: finished work is kept"
        ) from error
    except MemoryError as error:
        raise NotEnough(
            f"{_task_of(future.key)} got no more memory ({error or 'MemoryError'}); raise the "
            "place's memory_limit or lower the job's memory.per_task, then run again: finished "
            "work is kept"
        ) from error
    if isinstance(result, Refusal):
        raise result.error
    return result


def _suspects(future: Any, error: Any) -> list[Any]:
    """Return the keys of the tasks that may have ended a worker.

    Dask blames every task that the worker had been given, those that still waited for their turn as
    well. Where the worker had told which were under way, as it does every second, it is one of them.
    """
    given = {error.task}
    with contextlib.suppress(OSError, RuntimeError):
        for _, event in future.client.get_events(error.last_worker.address):
            if event.get("action") == "remove-worker":
                given.update(event["processing-tasks"])
    under_way = given.intersection(error.last_worker.executing)
    return list(under_way or given)


def _task_of(*keys: Any) -> str:
    """Say of a task's key what it does and on which rows; of several keys, that it is one of them."""
    ours = sorted((key for key in keys if isinstance(key, tuple) and len(key) == 4), key=_number)
    if not ours:
        return f"the task {keys[0]}"
    shown = [where for _, _, where, _ in ours[:MOST_SUSPECTS]]
    more = f" and {len(ours) - len(shown)} more" if len(ours) > len(shown) else ""
    one = "the task" if len(ours) == 1 else "one of the tasks"
    return f"{one} of {ours[0][1]} on {', '.join(shown)}{more}"


def _number(key: tuple[str, str, str, int]) -> int:
    return key[3]


def forget(blocks: Blocks, group: str) -> None:
    """Drop a group of kept values here and on every worker: an iteration has ended."""
    CACHE.forget(group)
    client = client_for(blocks)
    if client is not None:
        with contextlib.suppress(OSError, RuntimeError):
            client.run(tasks.forget, group, on_error="ignore")


def map_rows(
    grid: RowGrid, task: Callable[..., R], *args: Any, name: str, on: Blocks | None = None
) -> list[R]:
    """Call ``task(i, span, *args)`` for every block of a grid; return the results in order.

    A task reads what it needs through the handles in ``args`` and writes its own block of the
    result. So many run at once as keep the workers busy.

    Parameters
    ----------
    grid : RowGrid
        Of the result.
    task : callable
    *args
        Handles and small arrays; they reach each worker once.
    name : str
        Of the step, as the dashboard shows it.
    on : Blocks or None
        The rows that are read: they say where the work is done. None: on the current client, if any.
    """
    client = client_for(on)
    if client is None:
        results = []
        for i, span in enumerate(grid.spans()):
            results.append(tasks.call_block(task, i, span, args))
            _tell(name, i + 1, grid.n_blocks)
        return results
    if isinstance(on, DaskBlocks):
        raise TypeError("map_rows writes through handles; a Dask array has a map of its own")
    return _map_on(client, grid, task, args, name)


def _map_on(
    client: Any, grid: RowGrid, task: Callable[..., R], args: tuple[Any, ...], name: str
) -> list[R]:
    from distributed import as_completed

    keys = _Keys(name)
    held = client.submit(tasks.hold, args, key=keys("args"))
    workers = _workers(client)
    window = 4 * max(1, sum(client.nthreads().values()))
    results: dict[int, R] = {}
    waiting = iter(enumerate(grid.spans()))
    numbers: dict[Any, int] = {}

    def submit(i: int, span: Span) -> Any:
        where = _home(workers, grid, range(i, i + 1))
        key = keys("block", _rows(span))
        future = client.submit(
            tasks.call_block_task, task, i, span, held, key=key, retries=RETRIES, **where
        )
        numbers[future.key] = i
        return future

    order = as_completed([submit(i, span) for i, span in itertools.islice(waiting, window)])
    for future in order:
        results[numbers[future.key]] = _result(future, name)
        _tell(name, len(results), grid.n_blocks)
        for i, span in itertools.islice(waiting, 1):
            order.add(submit(i, span))
    return [results[i] for i in range(grid.n_blocks)]


def reduce_tiles(
    blocks: Blocks, reduction: TileReduction[S], *, name: str, keep: Keep[S] | None = None
) -> list[Any]:
    """Compare every group of rows with itself and every other; return what each group's rows learnt.

    Tiles go by rounds (`records.tile_rounds`), and a group merges what it learns in the order of its
    tiles: a function of the grid alone. Tiles whose summaries are not merged yet are as many as
    keep the workers busy; otherwise a summary per group is held, by the workers.

    Parameters
    ----------
    blocks : Blocks
    reduction : TileReduction
    name : str
        Of the step, as the dashboard shows it.
    keep : Keep or None
        Where summaries are kept now and then after a whole round; a call that finds some goes on
        from there. A lost worker then costs no more than the time since.

    Returns
    -------
    list
        What `TileReduction.finish` returned for every group of ``blocks.grid.groups()``, in order.
    """
    client = client_for(blocks)
    groups = blocks.grid.groups()
    saving = _Saving(keep, groups)
    if client is not None:
        return _TilesOn(client, blocks, groups, reduction, name).run(saving)
    return _tiles_here(blocks, groups, reduction, name, saving)


class _Saving:
    """Which rounds of a call are done already, and when to keep one again."""

    def __init__(self, keep: Keep[Any] | None, groups: tuple[Group, ...]) -> None:
        self.keep, self._groups = keep, groups
        self.done = -1 if keep is None else keep.saved(groups)
        self._last, self._took = time.monotonic(), 0.0

    def due(self, number: int) -> bool:
        """Say whether this round, which is whole, is to be kept."""
        wait = max(SAVE_TILES_EVERY, SAVE_TILES_SHARE * self._took)
        return (
            self.keep is not None and number > self.done and time.monotonic() - self._last >= wait
        )

    @contextlib.contextmanager
    def round(self, number: int) -> Iterator[Keep[Any]]:
        """Mark a round once every group has saved it inside."""
        assert self.keep is not None, "only what is due is saved"
        began = time.monotonic()
        yield self.keep
        self.keep.mark(number, self._groups)
        self.done, self._last = number, time.monotonic()
        self._took = self._last - began

    def left(self, rounds: list[list[tuple[int, int]]]) -> list[tuple[int, list[tuple[int, int]]]]:
        """Return the rounds that are not done yet, each with its number."""
        return [both for both in enumerate(rounds, start=1) if both[0] > self.done]


def _tiles_here(
    blocks: Blocks,
    groups: tuple[Group, ...],
    reduction: TileReduction[Any],
    name: str,
    saving: _Saving,
) -> list[Any]:
    """Compare groups in this process."""
    rounds = tile_rounds(len(groups))
    total = len(groups) + sum(map(len, rounds))
    done = total - sum(len(pairs) for _, pairs in saving.left(rounds))
    states, hints = list[Any](), list[Any]()
    for group in groups:
        if saving.done < 0:
            states.append(tasks.tile_within(reduction, blocks, group))
            _tell(name, len(states), total)
        elif saving.keep is not None:
            states.append(saving.keep.load(saving.done, group))
    for number, pairs in saving.left(rounds):
        if saving.due(number - 1):
            with saving.round(number - 1) as keep:
                for group, state in zip(groups, states, strict=True):
                    keep.save(number - 1, group, state)
        if not hints or _hints_due(number):
            hints = [reduction.hint(*both) for both in zip(states, groups, strict=True)]
        for i, j in pairs:
            left, right = (blocks, groups[i], hints[i]), (blocks, groups[j], hints[j])
            of_left, of_right = tasks.tile_between(reduction, left, right)
            states[i] = reduction.merge(states[i], of_left)
            states[j] = reduction.merge(states[j], of_right)
            done += 1
            _tell(name, done, total)
    return [reduction.finish(*both) for both in zip(states, groups, strict=True)]


def _hints_due(number: int) -> bool:
    """Say whether hints are taken before this round: 1, 2, 4, ..., so that few tiles wait for others."""
    return number & (number - 1) == 0


class _TilesOn:
    """The tiles of one call on a cluster."""

    def __init__(
        self,
        client: Any,
        blocks: Blocks,
        groups: tuple[Group, ...],
        reduction: TileReduction[Any],
        name: str,
    ) -> None:
        self.client, self.blocks, self.groups, self.name = client, blocks, groups, name
        self.keys = _Keys(name)
        self.held = client.submit(tasks.hold, reduction, key=self.keys("args"))
        self.window = 4 * max(1, sum(client.nthreads().values()))

    def submit(self, task: Callable[..., Any], *args: Any, what: str, on: Sequence[Group]) -> Any:
        """Submit a task of this call that concerns one group or two."""
        key = self.keys(what, " and ".join(map(_rows, on)))
        return self.client.submit(task, self.held, *args, key=key, retries=RETRIES)

    def source(self, group: Group) -> Any:
        """Return what a task reads a group from."""
        if isinstance(self.blocks, DaskBlocks):
            chunks = self.blocks.futures(self.client)
            return [chunks[i] for i in group.blocks]
        return self.blocks

    def run(self, saving: _Saving) -> list[Any]:
        """Submit tiles and merges, so many at a time; return the groups' results."""
        rounds = tile_rounds(len(self.groups))
        left = saving.left(rounds)
        total = len(self.groups) + sum(map(len, rounds))
        before = sum(map(len, rounds)) - sum(len(pairs) for _, pairs in left)
        states = self.load(saving) if saving.done >= 0 else self.within()
        flow = _Flow(list(states), self.window, self.name, total, before)
        hints: list[Any] = []
        for number, pairs in left:
            if saving.due(number - 1):
                flow.drain()
                self.save(saving, number - 1, states)
                # From here on a lost worker's share is made again from what is saved, hints as well.
                states, hints = self.load(saving), []
            if not hints or _hints_due(number):
                both = zip(states, self.groups, strict=True)
                hints = [self.submit(tasks.hint_task, s, g, what="hint", on=[g]) for s, g in both]
            for i, j in pairs:
                flow.wait_for_room()
                both_groups = self.groups[i], self.groups[j]
                sources = [self.source(group) for group in both_groups]
                args = sources, both_groups, hints[i], hints[j]
                pair = self.submit(tasks.between_task, *args, what="tile", on=both_groups)
                for side, n in enumerate((i, j)):
                    merging = tasks.merge_tile_task, states[n], pair, side
                    states[n] = self.submit(*merging, what="merge", on=[self.groups[n]])
                flow.add(states[i], states[j])
        flow.drain()
        both = zip(states, self.groups, strict=True)
        finished = [self.submit(tasks.finish_task, s, g, what="finish", on=[g]) for s, g in both]
        del states
        return [_result(future, self.name) for future in finished]

    def within(self) -> list[Any]:
        """Compare every group with itself."""
        return [
            self.submit(tasks.within_task, self.source(g), g, what="within", on=[g])
            for g in self.groups
        ]

    def save(self, saving: _Saving, number: int, states: list[Any]) -> None:
        """Keep a round; the states are let go."""
        with saving.round(number) as keep:
            saved = [
                self.submit(tasks.save_task, keep, number, group, state, what="save", on=[group])
                for group, state in zip(self.groups, states, strict=True)
            ]
            states.clear()
            for future in saved:
                _result(future, self.name)

    def load(self, saving: _Saving) -> list[Any]:
        """Read the round that was kept last."""
        args = saving.keep, saving.done
        return [
            self.submit(tasks.load_task, *args, group, what="load", on=[group])
            for group in self.groups
        ]


class _Flow:
    """Count tiles that are under way; let new ones in when others are merged on both sides."""

    def __init__(
        self, first: list[Any], window: int, name: str, total: int, before: int = 0
    ) -> None:
        from distributed import as_completed

        self._order = as_completed(first)
        self._tile = {future.key: n for n, future in enumerate(first)}
        self._left = dict.fromkeys(range(len(first)), 1)
        self._window, self._name, self._total = window, name, total
        self._before = before
        self._submitted = len(first)
        self._done = 0

    def add(self, *merged: Any) -> None:
        """Follow a tile until its merges are done."""
        for future in merged:
            self._tile[future.key] = self._submitted
            self._order.add(future)
        self._left[self._submitted] = len(merged)
        self._submitted += 1

    def wait_for_room(self) -> None:
        """Return when another tile may be submitted."""
        while self._submitted - self._done >= self._window:
            self._next()

    def drain(self) -> None:
        """Return when every tile is merged."""
        while self._done < self._submitted:
            self._next()

    def _next(self) -> None:
        future = next(self._order)
        if future.status == "error":
            _result(future, self._name)
        tile = self._tile.pop(future.key)
        self._left[tile] -= 1
        if self._left[tile] == 0:
            del self._left[tile]
            self._done += 1
            _tell(self._name, self._before + self._done, self._total)


def solo(task: Callable[..., R], *args: Any, name: str, on: Blocks | None = None) -> R:
    """Call ``task(*args)`` as one task with whole handles."""
    return solos(task, [()], *args, name=name, on=on)[0]


def solos(
    task: Callable[..., R],
    calls: Sequence[tuple[Any, ...]],
    *shared: Any,
    name: str,
    on: Blocks | None = None,
) -> list[R]:
    """Call ``task(*shared, *call)`` for each of ``calls``, side by side; return the results in order."""
    client = client_for(on)
    if client is None:
        results = []
        for done, call in enumerate(calls):
            with tasks.speaking(_voice(name, len(calls))):
                results.append(tasks.call_alone(task, shared, call))
            _tell(name, done + 1, len(calls))
        return results
    topic, keys = f"{name}-{next(_calls)}", _Keys(name)
    held = client.submit(tasks.hold, shared, key=keys("args"))
    with _hearing(client, topic, _voice(name, len(calls))):
        futures = [
            client.submit(
                tasks.call_alone_task,
                task,
                held,
                call,
                topic,
                key=keys("alone", f"call {n + 1} of {len(calls)}"),
                retries=RETRIES,
            )
            for n, call in enumerate(calls)
        ]
        _watch(list(futures), name)
    return [_result(future, name) for future in futures]


def _voice(name: str, total: int) -> Callable[[str], None] | None:
    """Return what brings a task's words to the listener of this call, from any thread."""
    listener = _listener.get()
    if listener is None:
        return None
    return lambda text: listener(Progress(name, 0, total, text))


@contextlib.contextmanager
def _hearing(client: Any, topic: str, voice: Callable[[str], None] | None) -> Iterator[None]:
    """Hand on the words that tasks tell by a topic."""
    if voice is None:
        yield
        return
    client.subscribe_topic(topic, lambda event: voice(event[1]))
    try:
        yield
    finally:
        client.unsubscribe_topic(topic)


def take_rows(blocks: Blocks, rows: NDArray[np.int64], *, name: str) -> NDArray[np.float32]:
    """Return some rows, wherever they lie, in the order asked for.

    Parameters
    ----------
    blocks : Blocks
    rows : ndarray of shape (n,), int64
        Row numbers; small enough a choice to be held in memory.
    """
    if isinstance(blocks, DaskBlocks):
        order = np.argsort(rows, kind="stable")
        out = np.empty((len(rows), blocks.n_features), np.float32)
        out[order] = np.asarray(blocks.X[rows[order]].compute(), dtype=np.float32)
        return out
    order = np.argsort(rows, kind="stable")
    parts = map_rows(blocks.grid, _pick_rows, blocks, rows[order], name=name, on=blocks)
    out = np.empty((len(rows), blocks.n_features), np.float32)
    out[order] = np.concatenate(parts)
    return out


def _pick_rows(i: int, span: Span, blocks: Blocks, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    low, high = np.searchsorted(rows, [span.row0, span.row0 + span.n_rows])
    if low == high:
        return np.empty((0, blocks.n_features), np.float32)
    picked: NDArray[np.float32] = blocks.read(i)[rows[low:high] - span.row0]
    return picked
