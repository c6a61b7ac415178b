"""The verbs in this process and on two worker processes: the same values, bit for bit."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import dask.array as da
import numpy as np
import pytest
from dask.utils import key_split
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.strategies import F32, F64
from tests.two_processes import FileBlocks, two_processes
from vehclust_dask.blocks import (
    DaskBlocks,
    Progress,
    _home,
    _joined,
    _Keys,
    _Tree,
    as_blocks,
    client_for,
    listening,
    map_rows,
    reduce_rows,
    reduce_tiles,
    solo,
    solos,
    step_of,
    take_rows,
)
from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput, NotEnough, VehclustError
from vehclust_dask.estimators.lloyd import LloydState, RowRange, lloyd
from vehclust_dask.kernels.moments import MomentsPass
from vehclust_dask.records import ArrayBlocks, Blocks, Group, RowGrid, Span, tile_rounds
from vehclust_dask.tasks import PrepareWorker, fold_chunk, group_rows, tell

# Workers are processes of their own and cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

WIDTH = 6


@dataclass(frozen=True)
class SumPass:
    """Sums in float32: any other order of additions gives other bits."""

    fan_in: int = 3

    def fold(self, summary: F32 | None, X: F32, span: Span) -> F32:
        mine: F32 = X.sum(axis=0)
        return mine if summary is None else summary + mine

    def merge(self, left: F32, right: F32) -> F32:
        return left + right


@dataclass(frozen=True)
class WordPass:
    """Which blocks were folded, in which order."""

    fan_in: int = 2

    def fold(self, summary: str | None, X: F32, span: Span) -> str:
        return f"{summary or ''}{span.block}:{span.row0}+{len(X)} "

    def merge(self, left: str, right: str) -> str:
        return left + right


@dataclass(frozen=True)
class KillingPass(SumPass):
    """Ends its worker's process once, in the middle."""

    marker: str = ""

    def fold(self, summary: F32 | None, X: F32, span: Span) -> F32:
        if span.block == 20 and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fold(summary, X, span)


@dataclass(frozen=True)
class FailingPass(SumPass):
    """Fails at a block."""

    error: Exception | None = None

    def fold(self, summary: F32 | None, X: F32, span: Span) -> F32:
        if span.block == 3 and self.error is not None:
            raise self.error
        return super().fold(summary, X, span)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with two_processes() as client:
        yield client


@pytest.fixture
def rows() -> F32:
    # Sizes from 1e-4 to 1e4, so that the order of additions shows.
    rng = np.random.default_rng(0)
    values: F32 = (rng.standard_normal((700, WIDTH)) * 10 ** rng.uniform(-4, 4, (700, 1))).astype(
        np.float32
    )
    return values


def test_as_current__is_what_the_verbs_look_for(client: Client, tmp_path: Path, rows: F32) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 64)
    assert client_for(blocks) is None
    with client.as_current():
        assert client_for(blocks) is client
        assert client_for(None) is client
        assert client_for(ArrayBlocks.of(rows)) is None


@given(st.integers(1, 70), st.integers(2, 8))
def test_tree__keeps_the_order_of_an_associative_merge(n: int, fan_in: int) -> None:
    tree = _Tree(fan_in, "".join)
    words = [f"{i}," for i in range(n)]
    for word in words:
        tree.add(word)
    assert tree.close() == "".join(words)


@pytest.mark.parametrize("fan_in", range(2, 9))
def test_tree__merges_at_most_fan_in_at_a_time_for_every_number(fan_in: int) -> None:
    for n in range(1, 71):
        sizes: list[int] = []

        def merge(parts: list[int], sizes: list[int] = sizes) -> int:
            sizes.append(len(parts))
            return sum(parts)

        tree = _Tree(fan_in, merge)
        for _ in range(n):
            tree.add(1)
        assert tree.close() == n
        assert all(2 <= size <= fan_in for size in sizes)


@given(st.integers(1, 600), st.sampled_from([1, 2, 16]))
def test_reduce_rows__folds_every_block_once_in_order(n: int, block_rows: int) -> None:
    blocks = ArrayBlocks.of(np.zeros((n, 2), np.float32), block_rows)
    words = reduce_rows(blocks, WordPass(), name="words")
    wanted = [f"{s.block}:{s.row0}+{s.n_rows} " for s in blocks.grid.spans()]
    assert words == "".join(wanted)


@pytest.mark.cluster
@pytest.mark.parametrize(("block_rows", "fan_in"), [(700, 2), (128, 3), (23, 2), (16, 8), (4, 3)])
def test_reduce_rows__two_processes_give_the_same_bytes(
    client: Client, tmp_path: Path, rows: F32, block_rows: int, fan_in: int
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, block_rows)
    alone = reduce_rows(blocks, SumPass(fan_in), name="sum")
    in_memory = reduce_rows(ArrayBlocks.of(rows, block_rows), SumPass(fan_in), name="sum")
    with client.as_current():
        together = reduce_rows(blocks, SumPass(fan_in), name="sum")
    assert alone.tobytes() == in_memory.tobytes() == together.tobytes()


@pytest.mark.cluster
@pytest.mark.parametrize("triangular", [False, True])
def test_reduce_rows__two_processes_give_the_same_moments(
    client: Client, tmp_path: Path, rows: F32, triangular: bool
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 16)
    alone = reduce_rows(blocks, MomentsPass(triangular), name="moments")
    with client.as_current():
        together = reduce_rows(blocks, MomentsPass(triangular), name="moments")
    assert alone.scatter.tobytes() == together.scatter.tobytes()
    assert alone.mean.tobytes() == together.mean.tobytes()


def test_fold_chunk__leaves_the_summary_of_the_task_before_as_it_was() -> None:
    X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    span = RowGrid((20,), 10).span(0)
    first = fold_chunk(MomentsPass(), None, X[:10], span)
    kept = first.scatter.copy()
    second = fold_chunk(MomentsPass(), first, X[10:], span)
    np.testing.assert_array_equal(first.scatter, kept)
    again = fold_chunk(MomentsPass(), first, X[10:], span)
    np.testing.assert_array_equal(second.scatter, again.scatter)


@pytest.mark.cluster
def test_reduce_rows__of_a_dask_array_is_that_of_the_numpy_array(client: Client, rows: F32) -> None:
    X = np.tile(rows, (200, 1))
    blocks = as_blocks(da.from_array(X, chunks=(5000, 2)))
    assert isinstance(blocks, DaskBlocks)
    assert blocks.grid == as_blocks(X).grid
    assert blocks.grid.n_blocks > 1
    wanted = reduce_rows(as_blocks(X), SumPass(), name="sum")
    assert reduce_rows(blocks, SumPass(), name="sum").tobytes() == wanted.tobytes()
    with client.as_current():
        assert reduce_rows(blocks, SumPass(), name="sum").tobytes() == wanted.tobytes()


@pytest.mark.cluster
def test_lloyd__two_processes_give_the_same_centers(
    client: Client, tmp_path: Path, rows: F32
) -> None:
    X = np.log1p(np.abs(rows))
    blocks = FileBlocks.of(tmp_path, X, 64)
    start = [X[:k].astype(np.float64) for k in (2, 5)]

    def centers() -> list[F64]:
        spread = RowRange.of(blocks, "t")
        state = LloydState([c.copy() for c in start])
        return lloyd(blocks, state, spread, tol=0, max_iter=6, name="t").centers

    alone = centers()
    with client.as_current():
        together = centers()
    assert [c.tobytes() for c in alone] == [c.tobytes() for c in together]


@pytest.mark.cluster
def test_reduce_rows__a_killed_worker_changes_nothing(
    client: Client, tmp_path: Path, rows: F32
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 16)
    marker = tmp_path / "killed"
    wanted = reduce_rows(blocks, SumPass(), name="sum")
    with client.as_current():
        found = reduce_rows(blocks, KillingPass(marker=str(marker)), name="sum")
    assert marker.exists()
    assert found.tobytes() == wanted.tobytes()
    client.wait_for_workers(2, timeout=30)


@dataclass(frozen=True)
class DeadlyPass(SumPass):
    """Ends its worker's process at some rows, again and again."""

    def fold(self, summary: F32 | None, X: F32, span: Span) -> F32:
        if span.block == 37:
            # As one that takes more and more memory: long enough to be seen at work.
            time.sleep(2.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fold(summary, X, span)


@pytest.mark.cluster
def test_reduce_rows__names_the_rows_that_end_their_workers(
    client: Client, tmp_path: Path, rows: F32, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 1)
    blocks = FileBlocks.of(tmp_path, rows, 16)
    (leaf,) = [leaf for leaf in blocks.grid.leaves() if 37 in leaf]
    expected = (
        f"the task of kmeans-osnet-km-pass-003 on rows {16 * leaf[0]} to "
        f"{16 * leaf[-1] + 15} ended its worker 2 times: .* finished work is kept"
    )
    with client.as_current(), pytest.raises(VehclustError, match=expected):
        reduce_rows(blocks, DeadlyPass(), name="kmeans-osnet-km-pass-003")
    client.wait_for_workers(2, timeout=30)


def fill_disk(i: int, span: Span, log: str) -> None:
    with open(log, "a") as out:
        print(i, file=out)
    if i == 1:
        # What the system answers when a disk is full.
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")


def run_out_of_memory(n: int) -> Any:
    return np.empty(n, np.int8)


@pytest.mark.cluster
def test_map_rows__a_full_disk_is_told_at_once(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "tried"
    with client.as_current(), pytest.raises(NotEnough, match="No space left on device"):
        map_rows(RowGrid((10,), 4), fill_disk, str(log), name="fill")
    assert log.read_text().split().count("1") == 1, "trying again would fill nothing less"


@pytest.mark.cluster
def test_solo__a_task_without_memory_is_named(client: Client) -> None:
    with (
        client.as_current(),
        pytest.raises(NotEnough, match=r"the task of big-one on call 1 of 1 got no more memory"),
    ):
        solo(run_out_of_memory, 2**62, name="big-one")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("kmeans-osnet-150-km-pass-003", "kmeans"),
        ("quick-kmeans-osnet-q-5-pass-001", "quick-kmeans"),
        ("minibatch-kmeans-raw-mbk-4-batches", "minibatch-kmeans"),
        ("pca-osnet", "pca"),
        ("survey", "survey"),
    ],
)
def test_step_of__is_what_a_person_calls_the_work(name: str, step: str) -> None:
    assert step_of(name) == step
    # What Dask's pages group by.
    for what in ("fold", "args", "merge"):
        assert key_split(_Keys(name)(what)) == step


@pytest.mark.cluster
def test_verbs__their_tasks_go_by_the_step_on_every_page(
    client: Client, tmp_path: Path, rows: F32
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 16)
    with client.as_current():
        for n in range(3):
            reduce_rows(blocks, SumPass(), name=f"steps-study-{n}-pass-{n:03d}")
        map_rows(blocks.grid, scaled, blocks, 1.0, name="mapping-study", on=blocks)
        reduce_tiles(blocks, PairSums(), name="tiling-study-cosine")
        solos(multiplied, [(1,), (2,)], 2, name="alone-study")
    prefixes = client.cluster.scheduler.task_prefixes
    mine = {name for name in prefixes if name.split("-")[0] in {"steps", "mapping", "tiling"}}
    assert mine == {"steps", "mapping", "tiling"}
    assert "alone" in prefixes
    assert prefixes["mapping"].state_counts["memory"] >= blocks.grid.n_blocks


@pytest.mark.cluster
def test_reduce_rows__a_vehclust_error_in_a_task_arrives_as_itself(
    client: Client, tmp_path: Path, rows: F32
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 64)
    failing = FailingPass(error=BadInput("row 200 holds NaN"))
    with pytest.raises(BadInput, match=r"^row 200 holds NaN$"):
        reduce_rows(blocks, failing, name="sum")
    with client.as_current(), pytest.raises(BadInput, match=r"^row 200 holds NaN$") as caught:
        reduce_rows(blocks, failing, name="sum")
    assert caught.value.exit_code == 3


@pytest.mark.cluster
def test_reduce_rows__leaves_that_are_merged_are_let_go(
    client: Client, tmp_path: Path, rows: F32
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 16)
    kept: list[int] = []

    def listen(progress: Progress) -> None:
        """Wait at the last leaf until merges have caught up, then see what is still held."""
        end = time.monotonic() + 5
        while progress.done == progress.total:
            keys = {str(k) for held in client.has_what().values() for k in held}
            kept.append(len([k for k in keys if k.startswith("let-go") and "merge" not in k]))
            if kept[-1] <= 4 or time.monotonic() > end:
                return
            time.sleep(0.1)

    with client.as_current(), listening(listen):
        reduce_rows(blocks, SumPass(2), name="let-go")
    assert len(blocks.grid.leaves()) == 22
    # The reduction itself, and the leaves at the ends of the tree.
    assert kept[-1] <= 4, "large summaries would fill the workers' memory"


@dataclass(frozen=True)
class PairSums:
    """Sum of a function of all pairs per row, in float32: another order of merges gives other bits.

    A summary also counts the rows each row has met, and the largest hint it was given.
    """

    marker: str = ""
    error: Exception | None = None

    def within(self, X: F32, group: Group) -> NDArray[Any]:
        return self._met(X, X, 0.0)

    def hint(self, summary: NDArray[Any], group: Group) -> float:
        return float(summary[1].max())

    def between(
        self, left: tuple[F32, Group, float], right: tuple[F32, Group, float]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        if self.error is not None and left[1].number == 1:
            raise self.error
        if self.marker and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._met(left[0], right[0], left[2]), self._met(right[0], left[0], right[2])

    def _met(self, X: F32, others: F32, hint: float) -> NDArray[Any]:
        sums = (X[:, None] * others).sum(axis=(1, 2))
        return np.stack([sums, np.full(len(X), len(others)), np.full(len(X), hint)])

    def merge(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        return np.stack([*(left[:2] + right[:2]), np.maximum(left[2], right[2])])

    def finish(self, summary: NDArray[Any], group: Group) -> tuple[int, NDArray[Any]]:
        return group.row0, summary


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 64)


@given(st.integers(0, 40))
def test_tile_rounds__pair_every_two_groups_once(n: int) -> None:
    rounds = tile_rounds(n)
    pairs = [tuple(sorted(pair)) for pairs in rounds for pair in pairs]
    assert len(set(pairs)) == len(pairs) == n * (n - 1) // 2
    for pairs_of_round in rounds[:-1]:
        assert (np.bincount(np.ravel(pairs_of_round), minlength=n) == 2).all()


def test_groups__cover_every_row_once_in_order(small_groups: None) -> None:
    for part_rows, block_rows in [((700,), 16), ((700,), 128), ((5, 300, 64, 1), 100), ((9,), 64)]:
        grid = RowGrid(part_rows, block_rows)
        numbers = np.arange(grid.n_rows)[:, None].astype(np.float32)
        blocks = _Cut(numbers, grid)
        groups = grid.groups()
        assert [g.number for g in groups] == list(range(len(groups)))
        assert max(g.n_rows for g in groups) <= 64
        read = [group_rows(blocks, group) for group in groups]
        assert [r[0, 0] for r in read] == [g.row0 for g in groups]
        np.testing.assert_array_equal(np.concatenate(read), numbers)


@dataclass(frozen=True, eq=False)
class _Cut:
    X: F32
    grid: RowGrid
    n_features: int = 1

    def read(self, i: int) -> F32:
        span = self.grid.span(i)
        return self.X[span.row0 : span.row0 + span.n_rows]


@pytest.mark.cluster
@pytest.mark.parametrize("block_rows", [700, 100, 16])
def test_reduce_tiles__two_processes_give_the_same_bytes(
    client: Client, tmp_path: Path, rows: F32, block_rows: int, small_groups: None
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, block_rows)
    alone = reduce_tiles(blocks, PairSums(), name="pairs")
    with client.as_current():
        together = reduce_tiles(blocks, PairSums(), name="pairs")
    assert [row0 for row0, _ in alone] == [g.row0 for g in blocks.grid.groups()]
    met = np.concatenate([summary for _, summary in alone], axis=1)
    assert (met[1] == 700).all()
    assert (met[2] >= 64).all()
    assert met.tobytes() == np.concatenate([s for _, s in together], axis=1).tobytes()


@pytest.mark.cluster
def test_reduce_tiles__of_a_dask_array_is_that_of_blocks(
    client: Client, rows: F32, small_groups: None
) -> None:
    lazy = as_blocks(da.from_array(rows, chunks=(100, 6)))
    wanted = reduce_tiles(ArrayBlocks.of(rows), PairSums(), name="pairs")
    with client.as_current():
        found = reduce_tiles(lazy, PairSums(), name="pairs")
    for (_, a), (_, b) in zip(wanted, found, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.cluster
def test_reduce_tiles__a_killed_worker_changes_nothing(
    client: Client, tmp_path: Path, rows: F32, small_groups: None
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 64)
    wanted = reduce_tiles(blocks, PairSums(), name="pairs")
    marker = tmp_path / "killed"
    with client.as_current():
        found = reduce_tiles(blocks, PairSums(marker=str(marker)), name="pairs")
    assert marker.exists()
    assert [s.tobytes() for _, s in found] == [s.tobytes() for _, s in wanted]
    client.wait_for_workers(2, timeout=30)


@pytest.mark.cluster
def test_reduce_tiles__a_vehclust_error_arrives_as_itself(
    client: Client, tmp_path: Path, rows: F32, small_groups: None
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 64)
    failing = PairSums(error=BadInput("row 70 is empty"))
    with pytest.raises(BadInput, match=r"^row 70 is empty$"):
        reduce_tiles(blocks, failing, name="pairs")
    with client.as_current(), pytest.raises(BadInput, match=r"^row 70 is empty$"):
        reduce_tiles(blocks, failing, name="pairs")


@pytest.mark.cluster
def test_reduce_tiles__tiles_under_way_are_few_and_counted(
    client: Client, tmp_path: Path, rows: F32, small_groups: None
) -> None:
    blocks = FileBlocks.of(tmp_path, rows[:, :1], 16)
    heard: list[Progress] = []
    held: list[int] = []

    def listen(progress: Progress) -> None:
        heard.append(progress)
        if progress.done % 20 == 0:
            keys = {str(k) for kept in client.has_what().values() for k in kept}
            held.append(len([k for k in keys if k.startswith("few-tile")]))

    with listening(listen):
        reduce_tiles(blocks, PairSums(), name="few")
        with client.as_current():
            reduce_tiles(blocks, PairSums(), name="few")
    total = 11 + 11 * 10 // 2
    assert [(p.done, p.total) for p in heard] == 2 * [(i + 1, total) for i in range(total)]
    assert max(held) <= 16, "as many as the window of four threads"


class Stopped(Exception):
    """What a kill is to a driver."""


@dataclass
class FileKeep:
    """Rounds of arrays in a folder; the driver is stopped when it has marked the round ``stop``."""

    folder: Path
    stop: int = -1

    def saved(self, groups: Sequence[Group]) -> int:
        marker = self.folder / "round"
        return int(marker.read_text()) if marker.exists() else -1

    def save(self, number: int, group: Group, summary: NDArray[Any]) -> None:
        with open(self.folder / f"{number}-{group.number}.npy", "wb") as out:
            np.save(out, summary)

    def load(self, number: int, group: Group) -> NDArray[Any]:
        return np.load(self.folder / f"{number}-{group.number}.npy")

    def mark(self, number: int, groups: Sequence[Group]) -> None:
        (self.folder / "round").write_text(str(number))
        for file in self.folder.glob("*-*.npy"):
            if not file.name.startswith(f"{number}-"):
                file.unlink()
        if number == self.stop:
            raise Stopped


def sums_of(found: list[Any]) -> bytes:
    """Return what does not depend on hints."""
    return np.concatenate([summary[:2] for _, summary in found], axis=1).tobytes()


@pytest.mark.cluster
@pytest.mark.parametrize("stop", [0, 1, 3, 4])
@pytest.mark.parametrize("first_on_cluster", [False, True])
def test_reduce_tiles__stopped_after_a_round_goes_on_with_the_next(
    client: Client,
    tmp_path: Path,
    rows: F32,
    small_groups: None,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    first_on_cluster: bool,
) -> None:
    monkeypatch.setattr("vehclust_dask.blocks.SAVE_TILES_EVERY", 0.0)
    monkeypatch.setattr("vehclust_dask.blocks.SAVE_TILES_SHARE", 0)
    blocks = FileBlocks.of(tmp_path, rows, 64)
    wanted = sums_of(reduce_tiles(blocks, PairSums(), name="pairs"))
    contexts = [client.as_current(), contextlib.nullcontext()]
    first, second = contexts if first_on_cluster else contexts[::-1]
    with first, pytest.raises(Stopped):
        reduce_tiles(blocks, PairSums(), name="pairs", keep=FileKeep(tmp_path, stop))
    heard: list[Progress] = []
    with second, listening(heard.append):
        found = reduce_tiles(blocks, PairSums(), name="pairs", keep=FileKeep(tmp_path))
    assert sums_of(found) == wanted
    groups = len(blocks.grid.groups())
    before = sum(map(len, tile_rounds(groups)[:stop]))
    told = [p.done for p in heard]
    assert told[-1] == heard[-1].total == groups * (groups + 1) // 2
    assert min(told) > before, "what was done is not done again"
    assert told == sorted(set(told))


@pytest.mark.cluster
def test_reduce_tiles__a_killed_worker_is_made_up_for_from_what_was_kept(
    client: Client,
    tmp_path: Path,
    rows: F32,
    small_groups: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vehclust_dask.blocks.SAVE_TILES_EVERY", 0.0)
    monkeypatch.setattr("vehclust_dask.blocks.SAVE_TILES_SHARE", 0)
    blocks = FileBlocks.of(tmp_path, rows, 64)
    wanted = sums_of(reduce_tiles(blocks, PairSums(), name="pairs"))
    killed = KilledLate(FileKeep(tmp_path))
    with client.as_current(), listening(killed.listen):
        found = reduce_tiles(blocks, PairSums(), name="pairs", keep=killed.keep)
    assert killed.after >= 3
    assert sums_of(found) == wanted
    client.wait_for_workers(2, timeout=30)


class KilledLate:
    """Kill a worker when some rounds are kept, and the first of them removed."""

    def __init__(self, keep: FileKeep) -> None:
        self.keep, self.after = keep, -1

    def listen(self, progress: Progress) -> None:
        number = self.keep.saved(())
        if self.after < 0 and number >= 3:
            self.after = number
            pids = solos(process_of, [(i,) for i in range(2)], name="whom")
            os.kill(pids[0], signal.SIGKILL)


def scaled(i: int, span: Span, blocks: Blocks, factor: float) -> tuple[int, int, F32]:
    return i, span.row0, blocks.read(i) * factor


@pytest.mark.cluster
def test_map_rows__results_are_in_order(client: Client, tmp_path: Path, rows: F32) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 8)
    alone = map_rows(blocks.grid, scaled, blocks, 2.0, name="scale", on=blocks)
    with client.as_current():
        together = map_rows(blocks.grid, scaled, blocks, 2.0, name="scale", on=blocks)
    for results in (alone, together):
        assert [r[:2] for r in results] == [(s.block, s.row0) for s in blocks.grid.spans()]
        np.testing.assert_array_equal(np.concatenate([r[2] for r in results]), rows * 2)


@pytest.mark.cluster
@pytest.mark.parametrize("on_cluster", [False, True])
def test_progress__counts_to_the_end_once(
    client: Client, tmp_path: Path, rows: F32, on_cluster: bool
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 8)
    heard: list[Progress] = []
    with listening(heard.append):
        if on_cluster:
            with client.as_current():
                map_rows(blocks.grid, scaled, blocks, 1.0, name="map", on=blocks)
                reduce_rows(blocks, SumPass(), name="reduce")
                solos(multiplied, [(1,), (2,), (3,)], 2, name="solos")
        else:
            map_rows(blocks.grid, scaled, blocks, 1.0, name="map", on=blocks)
            reduce_rows(blocks, SumPass(), name="reduce")
            solos(multiplied, [(1,), (2,), (3,)], 2, name="solos")
    map_rows(blocks.grid, scaled, blocks, 1.0, name="unheard", on=ArrayBlocks.of(rows))
    n_blocks, n_leaves = blocks.grid.n_blocks, len(blocks.grid.leaves())
    for name, total in (("map", n_blocks), ("reduce", n_leaves), ("solos", 3)):
        events = [(p.done, p.total) for p in heard if p.name == name]
        assert events == [(i + 1, total) for i in range(total)]
    assert {p.name for p in heard} == {"map", "reduce", "solos"}


def multiplied(a: Any, b: Any) -> Any:
    return a * b


def process_of(_: int) -> int:
    return os.getpid()


@pytest.mark.cluster
def test_solos__results_are_in_order(client: Client) -> None:
    calls = [(i,) for i in range(17)]
    assert solos(multiplied, calls, 3, name="times") == [3 * i for i in range(17)]
    assert solo(multiplied, 6, 7, name="times") == 42
    with client.as_current():
        assert solos(multiplied, calls, 3, name="times") == [3 * i for i in range(17)]
        assert solo(multiplied, 6, 7, name="times") == 42
        assert os.getpid() not in solos(process_of, [(1,), (2,)], name="where")
        # Rows in memory are worked on where they are.
        here = ArrayBlocks.of(np.zeros((2, 2), np.float32))
        assert solos(process_of, [(1,)], name="where", on=here) == [os.getpid()]


def talkative(n: int) -> int:
    for left in range(n, 0, -1):
        tell(f"{left} left")
    return n


@pytest.mark.cluster
@pytest.mark.parametrize("on_cluster", [False, True])
def test_tell__brings_words_of_a_task_to_the_listener(client: Client, on_cluster: bool) -> None:
    heard: list[Progress] = []
    context = client.as_current() if on_cluster else contextlib.nullcontext()
    with context:
        assert solo(talkative, 2, name="unheard") == 2
        with listening(heard.append):
            assert solo(talkative, 3, name="tree") == 3
    words = [Progress("tree", 0, 1, f"{left} left") for left in (3, 2, 1)]
    assert heard == [*words, Progress("tree", 1, 1)]
    tell("nobody listens")


def fail(message: str) -> None:
    raise VehclustError(message)


@pytest.mark.cluster
def test_map_rows_and_solos__errors_arrive_as_themselves(client: Client, rows: F32) -> None:
    grid = RowGrid((10,), 4)
    for _ in range(2):
        with pytest.raises(VehclustError, match=r"^too bad$"):
            solo(fail, "too bad", name="fail")
    with client.as_current():
        with pytest.raises(VehclustError, match=r"^too bad$"):
            solo(fail, "too bad", name="fail")
        with pytest.raises(BadInput, match=r"^block 1$"):
            map_rows(grid, fail_at, name="fail")


def fail_at(i: int, span: Span) -> None:
    if i == 1:
        raise BadInput(f"block {i}")


@pytest.mark.cluster
def test_take_rows__any_rows_in_any_order(client: Client, tmp_path: Path, rows: F32) -> None:
    wanted = np.array([699, 0, 5, 5, 350, 3, 0], np.int64)
    handles: list[Blocks] = [
        FileBlocks.of(tmp_path, rows, 16),
        ArrayBlocks.of(rows, 16),
        as_blocks(da.from_array(rows, chunks=(100, 3))),
    ]
    for blocks in handles:
        np.testing.assert_array_equal(take_rows(blocks, wanted, name="take"), rows[wanted])
        with client.as_current():
            np.testing.assert_array_equal(take_rows(blocks, wanted, name="take"), rows[wanted])
    nothing: NDArray[np.int64] = np.empty(0, np.int64)
    assert take_rows(handles[0], nothing, name="take").shape == (0, WIDTH)


def test_as_blocks__takes_what_it_is_given(tmp_path: Path, rows: F32) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 16)
    assert as_blocks(blocks) is blocks
    assert isinstance(as_blocks(rows), ArrayBlocks)
    lazy = as_blocks(da.from_array(rows.astype(np.float64), chunks=(33, 6)))
    assert isinstance(lazy, DaskBlocks)
    np.testing.assert_array_equal(lazy.read(0), rows)
    assert lazy.read(0).dtype == np.float32


def test_as_blocks__refuses_a_dask_array_of_unknown_shape(rows: F32) -> None:
    X = da.from_array(rows)
    with pytest.raises(VehclustError, match="call compute_chunk_sizes"):
        as_blocks(X[X[:, 0] > 0])
    with pytest.raises(VehclustError, match="matrix"):
        as_blocks(X[:, 0])


def cache_limit(_: int) -> int:
    return CACHE.limit


@pytest.mark.cluster
def test_prepare_worker__sets_the_cache_of_every_worker(client: Client) -> None:
    plugin = pickle.loads(pickle.dumps(PrepareWorker(12345)))
    client.register_plugin(plugin)
    with client.as_current():
        limits = solos(cache_limit, [(i,) for i in range(8)], name="limits")
    assert limits == [12345] * 8


def test_joined__leaves_stay_at_home_and_cover_every_block_once() -> None:
    for n_blocks, workers in ((13, ["a", "b"]), (100, ["a", "b", "c"]), (300, ["a"]), (5, [])):
        grid = RowGrid((n_blocks * 10 - 3,), 10)
        joined = _joined(workers, grid, grid.leaves())
        assert [i for leaf in joined for i in leaf] == list(range(n_blocks))
        assert max(map(len, joined)) <= 16
        assert len(joined) <= max(len(workers), 1) * (1 + n_blocks // 16)
    assert len(_joined(["a", "b"], RowGrid((130,), 10), RowGrid((130,), 10).leaves())) == 2


@dataclass(frozen=True)
class IntegerPass:
    """Sums that are exact in any grouping."""

    fan_in: int = 3

    def fold(self, summary: Any, X: F32, span: Span) -> Any:
        mine = np.rint(X.astype(np.float64) * 1e6).astype(np.int64).sum(axis=0)
        return mine if summary is None else summary + mine

    def merge(self, left: Any, right: Any) -> Any:
        return left + right


@pytest.mark.cluster
@pytest.mark.parametrize("block_rows", [128, 16, 4])
def test_reduce_rows__exact_sums_are_the_same_in_fewer_tasks(
    client: Client, tmp_path: Path, rows: F32, block_rows: int
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, block_rows)
    alone = reduce_rows(blocks, IntegerPass(), name="integers", exact=True)
    seen: list[Progress] = []
    with client.as_current(), listening(seen.append):
        together = reduce_rows(blocks, IntegerPass(), name="integers", exact=True)
    np.testing.assert_array_equal(alone, together)
    assert seen[-1].total < len(blocks.grid.leaves())


def test_home__shares_the_rows_out_evenly_though_the_last_block_is_short() -> None:
    grid = RowGrid((416_314,), 32_768)
    homes = [_home(["a", "b"], grid, leaf)["workers"][0] for leaf in grid.leaves()]
    assert homes == sorted(homes)
    rows = {w: sum(grid.span(i).n_rows for i in range(13) if homes[i] == w) for w in "ab"}
    assert max(rows.values()) < 0.53 * grid.n_rows
    assert _home([], grid, range(1)) == {}
