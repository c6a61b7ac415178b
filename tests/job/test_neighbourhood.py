"""Lists on storage: those of the estimator, whoever wrote them and however often it was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import F32
from tests.two_processes import FileBlocks, two_processes
from vehclust_dask import blocks as verbs
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.cells import search_cells
from vehclust_dask.estimators.neighbours import Known, Lists, distinct_lists
from vehclust_dask.job import neighbourhood
from vehclust_dask.job.neighbourhood import (
    _grid_of,
    find_by_cells,
    find_neighbours,
    load_neighbours,
)
from vehclust_dask.job.spec import NeighboursSpec
from vehclust_dask.job.watch import Watch
from vehclust_dask.job.work import Work
from vehclust_dask.records import ArrayBlocks
from vehclust_dask.store.rounds import Rounds
from vehclust_dask.store.steps import ALGORITHM_VERSIONS, Step

CELLS = NeighboursSpec(6, method="cells", n_probe=3, n_cells=12)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with two_processes() as client:
        yield client


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 128)


def rows_with_copies(n: int = 900, d: int = 8) -> F32:
    """Draw rows of which many are equal, whole groups among them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(np.float32)
    X[rng.choice(n, n // 4, replace=False)] = X[5]
    X[300:520] = X[7]
    return X


def plain_rows(n: int = 900, d: int = 8) -> F32:
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, d)).astype(np.float32)


def far_rows(n: int = 900, d: int = 8) -> F32:
    """Draw tight piles around far middles: float32 cannot tell their rows apart."""
    rng = np.random.default_rng(2)
    middles = 1e4 * rng.standard_normal((3, d))
    rows: F32 = (middles[rng.integers(0, 3, n)] + 1e-2 * rng.standard_normal((n, d))).astype(
        np.float32
    )
    return rows


def work_in(root: Path) -> Work:
    return Work(root, 0, lambda line: None, Watch())


def find(root: Path, blocks: Any, m: int, metric: str = "euclidean") -> Step:
    return find_neighbours(blocks, "rows", m, metric, "one", work_in(root))


def bytes_of(step: Step) -> dict[str, bytes]:
    """Return the content of every file but the manifest."""
    return {
        str(f.relative_to(step.folder)): f.read_bytes()
        for f in step.folder.rglob("*")
        if f.is_file() and f.name != "manifest.json"
    }


def check_lists(step: Step, X: F32, m: int, metric: str = "euclidean") -> None:
    blocks = ArrayBlocks.of(X)
    known = Known.of(blocks, metric)
    wanted = distinct_lists(blocks, known, min(m, len(known.copies.first) - 1), name="wanted")
    found = load_neighbours(step).lists()
    assert found.rows.dtype == np.int32
    np.testing.assert_array_equal(found.rows, wanted.rows)
    assert found.sq_dist.tobytes() == wanted.sq_dist.tobytes()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_grid_of__has_a_block_per_count(counts: list[int]) -> None:
    grid = _grid_of(np.asarray(counts))
    assert [span.n_rows for span in grid.spans()] == counts
    assert len(_grid_of(np.array([7, 7, 7, 2])).part_rows) == 1


@pytest.mark.parametrize("rows", [plain_rows, rows_with_copies, far_rows])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_find__writes_the_lists_of_the_estimator(tmp_path: Path, rows: Any, metric: str) -> None:
    X = rows()
    for block_rows in (100, 900):
        root = tmp_path / str(block_rows)
        step = find(root, FileBlocks.of(tmp_path, X, block_rows), 6, metric)
        check_lists(step, X, 6, metric)
        assert sorted(f.name for f in step.folder.iterdir()) == [
            "lists.zarr", "manifest.json", "survey.npz",
        ]  # fmt: skip


def test_find__lists_as_long_as_all_others_and_of_256(tmp_path: Path) -> None:
    X = plain_rows(400)
    check_lists(find(tmp_path, FileBlocks.of(tmp_path, X, 100), 256), X, 256)
    check_lists(find(tmp_path / "all", FileBlocks.of(tmp_path, X, 100), 999), X, 399)


def test_find__longer_lists_of_the_same_rows_serve(tmp_path: Path) -> None:
    X = plain_rows(300)
    blocks, said = ArrayBlocks.of(X), list[str]()
    work = Work(tmp_path, 0, said.append, Watch())
    longest, longer = find(tmp_path, blocks, 40), find(tmp_path, blocks, 41)
    serving = find_neighbours(blocks, "rows", 6, "euclidean", "one", work)
    assert serving == longest != longer
    (line,) = said
    assert "6 nearest rows of every row, euclidean: already there" in line
    found = load_neighbours(serving, 6).lists()
    wanted = distinct_lists(blocks, Known.of(blocks, "euclidean"), 6, name="wanted")
    np.testing.assert_array_equal(found.rows, wanted.rows)
    assert found.sq_dist.tobytes() == wanted.sq_dist.tobytes()


def test_find__nothing_else_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = ArrayBlocks.of(plain_rows(300))
    first = find(tmp_path, blocks, 6)
    assert find(tmp_path, blocks, 7) != first, "shorter lists"
    assert find(tmp_path, blocks, 5, "cosine").params["m"] == 5, "another metric"
    other = find_neighbours(blocks, "others", 5, "euclidean", "one", work_in(tmp_path))
    assert other.params["m"] == 5, "other rows"
    (first.folder / "manifest.json").rename(first.folder / "manifest")
    assert find(tmp_path, blocks, 5).params["m"] == 7, "an unfinished step"
    monkeypatch.setitem(ALGORITHM_VERSIONS, "neighbours", 99)
    assert find(tmp_path, blocks, 5).params["m"] == 5, "another algorithm"


class Stopped(Exception):
    """What a kill is to a driver."""


def stop_after(monkeypatch: pytest.MonkeyPatch, what: str, times: int) -> None:
    """Stop the driver when ``what`` was done so often: rounds marked or lists replaced."""
    owner = {"mark": Rounds, "replace": neighbourhood.StoredLists, "clear": Rounds}[what]
    method, left = getattr(owner, what), [times]

    def stopping(*args: Any) -> Any:
        method(*args)
        left[0] -= 1
        if left[0] == 0:
            raise Stopped

    monkeypatch.setattr(owner, what, stopping)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("rows", "what", "times"),
    [
        (rows_with_copies, "mark", 1),
        (rows_with_copies, "mark", 3),
        (rows_with_copies, "clear", 1),
        (far_rows, "mark", 2),
        (far_rows, "clear", 1),
        (far_rows, "replace", 2),
    ],
)
def test_find__stopped_goes_on_to_the_same_bytes(
    client: Client, tmp_path: Path, rows: Any, what: str, times: int
) -> None:
    blocks = FileBlocks.of(tmp_path, rows(), 100)
    wanted = bytes_of(find(tmp_path / "whole", blocks, 6))
    for patch in (first := pytest.MonkeyPatch(), pytest.MonkeyPatch()):
        with patch.context() as own, client.as_current():
            own.setattr("vehclust_dask.blocks.SAVE_TILES_EVERY", 0.0)
            own.setattr("vehclust_dask.blocks.SAVE_TILES_SHARE", 0)
            own.setattr("vehclust_dask.estimators.neighbours.QUERY_ROWS", 40)
            if patch is first:
                stop_after(own, what, times)
                expected = pytest.raises(Stopped)
            else:
                expected = contextlib.nullcontext()
            with expected:
                step = find(tmp_path / "stopped", blocks, 6)
    assert bytes_of(step) == wanted
    assert step.manifest()["resumed"]


@pytest.mark.cluster
def test_find__two_processes_write_the_same_bytes(client: Client, tmp_path: Path) -> None:
    blocks = FileBlocks.of(tmp_path, rows_with_copies(), 100)
    alone = bytes_of(find(tmp_path / "alone", blocks, 6))
    with client.as_current():
        together = bytes_of(find(tmp_path / "together", blocks, 6))
    assert together == alone


@pytest.mark.cluster
def test_find__brings_no_list_home(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, sizes = verbs._result, dict[int, list[int]]()

    def noting(future: Any, name: str) -> Any:
        result = told(future, name)
        sizes[m].append(len(pickle.dumps(result)))
        return result

    monkeypatch.setattr(verbs, "_result", noting)
    blocks = FileBlocks.of(tmp_path, plain_rows(), 100)
    for m in (6, 100):
        sizes[m] = []
        with client.as_current():
            find(tmp_path / str(m), blocks, m)
    # A survey brings 16 bytes a row; what a group tells does not grow with its lists.
    assert max(sizes[100]) <= max(sizes[6]) < 900 * 6 * 12
    groups = len(blocks.grid.groups())
    assert max(sizes[100][-groups:]) < 128 * 6 * 12


@pytest.mark.parametrize("cells", [False, True])
def test_find__refuses_rows_without_neighbours(tmp_path: Path, cells: bool) -> None:
    def finding(X: F32, metric: str = "euclidean") -> Step:
        blocks, asked = ArrayBlocks.of(X), dataclasses.replace(CELLS, metric=metric)
        if cells:
            return find_by_cells(blocks, "rows", asked, "one", work_in(tmp_path))
        return find(tmp_path, blocks, 2, metric)

    with pytest.raises(BadInput, match=r"studies\.one: all 5 rows are equal"):
        finding(np.ones((5, 3), np.float32))
    with pytest.raises(BadInput, match=r"studies\.one: all 5 rows are equal"):
        finding(np.arange(1, 6, dtype=np.float32)[:, None], "cosine")
    shutil.rmtree(tmp_path / "steps")
    with pytest.raises(BadInput, match=r"studies\.one: there is 1 row: it has no neighbours"):
        finding(np.ones((1, 3), np.float32))
    X = np.eye(4, 3, dtype=np.float32)
    with pytest.raises(BadInput, match="row 3 is zero in every feature"):
        finding(X, "cosine")


def test_replace__changes_just_these_lists(tmp_path: Path) -> None:
    counts, rng = np.array([4, 0, 3, 5]), np.random.default_rng(0)
    step = work_in(tmp_path).step("neighbours", {}, "x")
    stored = neighbourhood.StoredLists.create(tmp_path, counts, 2, step)
    whole = Lists(rng.integers(0, 99, (12, 2)).astype(np.int32), rng.random((12, 2)))
    for number, (a, b) in enumerate([(0, 4), (4, 4), (4, 7), (7, 12)]):
        stored.write(number, Lists(*(values[a:b] for values in whole)))
    at = np.array([0, 3, 5, 11])
    other = Lists(np.full((4, 2), -1, np.int32), np.full((4, 2), -1.0))
    stored.replace(at, other)
    for matrix, values in ((stored.rows, whole.rows), (stored.sq_dist, whole.sq_dist)):
        wanted = values.copy()
        wanted[at] = -1
        found = np.concatenate([matrix.load(i) for i in range(matrix.grid.n_blocks)])
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.cluster
@pytest.mark.parametrize("rows", [plain_rows, rows_with_copies])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_find_by_cells__writes_the_lists_of_the_estimator(
    client: Client, tmp_path: Path, rows: Any, metric: str
) -> None:
    X = rows()
    blocks, asked = FileBlocks.of(tmp_path, X, 100), dataclasses.replace(CELLS, metric=metric)
    alone = find_by_cells(blocks, "rows", asked, "one", work_in(tmp_path / "alone"))
    with client.as_current():
        together = find_by_cells(blocks, "rows", asked, "one", work_in(tmp_path / "together"))
    assert bytes_of(together) == bytes_of(alone)
    known = Known.of(ArrayBlocks.of(X), metric)
    wanted = search_cells(ArrayBlocks.of(X), known, 6, n_probe=3, n_cells=12, seed=0, name="wanted")
    near = load_neighbours(alone, exact=False)
    assert wanted.lists is not None
    assert 0.2 < wanted.recall < 1
    assert alone.manifest()["recall"] == wanted.recall
    for found, exact in zip(near.lists(), wanted.lists, strict=True):
        assert found.tobytes() == exact.tobytes()
    for distinct in (0, 1, len(wanted.lists.rows) - 1):
        np.testing.assert_array_equal(near.list_of(distinct).rows, wanted.lists.rows[distinct])


def test_find_by_cells__short_lists_are_made_whole(tmp_path: Path) -> None:
    X = plain_rows(300)
    asked = NeighboursSpec(40, method="cells", n_probe=1, n_cells=60)
    step = find_by_cells(ArrayBlocks.of(X), "rows", asked, "one", work_in(tmp_path))
    lists = load_neighbours(step, exact=False).lists()
    assert lists.rows.min() >= 0
    assert np.isfinite(lists.sq_dist).all()
    assert (np.diff(lists.sq_dist) >= 0).all()


def test_load__exact_methods_refuse_lists_by_cells(tmp_path: Path) -> None:
    blocks = ArrayBlocks.of(plain_rows(300))
    step = find_by_cells(blocks, "rows", CELLS, "one", work_in(tmp_path))
    with pytest.raises(BadInput, match="lists by cells, an approximation; this needs exact ones"):
        load_neighbours(step)
    assert find(tmp_path, blocks, 5).kind == "neighbours", "nor do they serve"
