"""Parts of a set: written block by block, seen when whole, named by their content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import F32
from vehclust_dask.errors import BadInput
from vehclust_dask.store.datasets import (
    Part,
    begin_part,
    convert_block,
    find_part,
    finish_part,
    read_part,
    set_matrix,
)


@dataclass
class Rows:
    """A source in memory that counts what is read of it."""

    X: F32
    reads: int = 0

    @property
    def n_rows(self) -> int:
        return len(self.X)

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    def read(self, start: int, stop: int) -> F32:
        self.reads += 1
        return self.X[start:stop]

    def take(self, rows: np.ndarray) -> F32:
        self.reads += 1
        return self.X[rows]


def convert(
    folder: Path,
    source: Rows,
    name: str = "a",
    *,
    block_rows: int = 4,
    order: np.ndarray | None = None,
    stop_after: int | None = None,
) -> Part | None:
    """Convert a source, or only so many of its blocks."""
    print_of: dict[str, Any] = {"file": name, "order": None if order is None else "o"}
    n = source.n_rows if order is None else len(order)
    writer = begin_part(folder, print_of, n, source.n_features, block_rows, "none", order)
    for i, span in enumerate(writer.grid.spans()):
        if stop_after is not None and i >= stop_after:
            return None
        convert_block(i, span, source, writer)
    return finish_part(folder, writer, print_of)


def content(part: Part) -> F32:
    matrix = set_matrix([part])
    return np.concatenate([matrix.read(i) for i in range(matrix.grid.n_blocks)])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def X() -> F32:
    return np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)


def test_convert__keeps_the_values_and_tells_of_the_columns(tmp_path: Path, X: F32) -> None:
    X[:, 1] = 2.0
    X[3, 2] = 0.0
    part = convert(tmp_path, Rows(X))
    assert part is not None
    assert np.array_equal(content(part), X)
    columns = part.columns()
    np.testing.assert_allclose(columns["mean"], X.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(
        columns["std"], X.std(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-9
    )
    assert columns["minimum"].tolist() == X.min(axis=0).tolist()
    assert columns["maximum"].tolist() == X.max(axis=0).tolist()
    assert columns["constant"].tolist() == [False, True, False]
    assert columns["zeros"].tolist() == [0, 0, 1]
    assert part.bad_rows == ()


def test_convert__goes_on_where_it_was_interrupted(tmp_path: Path, X: F32) -> None:
    assert convert(tmp_path, Rows(X), stop_after=2) is None
    assert find_part(tmp_path, {"file": "a", "order": None}) is None
    assert not list(tmp_path.glob("part-*"))
    (partial,) = tmp_path.glob(".part-*.partial")
    (partial / "blocks" / ".000002.npz.77").write_bytes(b"half")
    (partial / "X" / "c" / "2").mkdir()
    (partial / "X" / "c" / "2" / "0.0a1b.partial").write_bytes(b"half")
    source = Rows(X)
    part = convert(tmp_path, source)
    assert part is not None
    assert source.reads == 1
    undisturbed = convert(tmp_path / "other", Rows(X))
    assert undisturbed is not None
    assert tree(part.folder) == tree(undisturbed.folder)


def test_convert__writes_a_block_again_whose_record_is_missing(tmp_path: Path, X: F32) -> None:
    convert(tmp_path, Rows(X), stop_after=2)
    (partial,) = tmp_path.glob(".part-*.partial")
    chunk = partial / "X" / "c" / "1" / "0"
    chunk.write_bytes(b"from before the kill")
    (partial / "blocks" / "000001.npz").unlink()
    part = convert(tmp_path, Rows(X))
    assert part is not None
    assert np.array_equal(content(part), X)


def test_finish_part__refuses_a_part_with_blocks_missing(tmp_path: Path, X: F32) -> None:
    writer = begin_part(tmp_path, {"file": "a"}, 11, 3, 4, "none", None)
    with pytest.raises(BadInput, match="3 of 3 blocks"):
        finish_part(tmp_path, writer, {"file": "a"})


def test_finish_part__of_the_same_content_from_another_file_adds_the_file(
    tmp_path: Path, X: F32
) -> None:
    first = convert(tmp_path, Rows(X), "a")
    assert first is not None
    before = tree(first.folder / "X")
    second = convert(tmp_path, Rows(X), "b")
    assert second == first
    assert tree(first.folder / "X") == before
    for name in "ab":
        assert find_part(tmp_path, {"file": name, "order": None}) == first
    assert [f.name for f in tmp_path.iterdir()] == [first.folder.name]


def test_finish_part__of_a_changed_file_leaves_the_old_part(tmp_path: Path, X: F32) -> None:
    first = convert(tmp_path, Rows(X), "a")
    assert first is not None
    before = tree(first.folder)
    second = convert(tmp_path, Rows(X + 1), "changed")
    assert second is not None
    assert second.folder != first.folder
    assert tree(first.folder) == before


@given(
    n=st.integers(1, 30),
    block_rows=st.integers(1, 9),
    bad=st.sets(st.integers(0, 29)),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_convert__notes_every_row_that_is_not_finite(
    tmp_path_factory: pytest.TempPathFactory, n: int, block_rows: int, bad: set[int], value: float
) -> None:
    X = np.ones((n, 2), np.float32)
    lost = sorted(r for r in bad if r < n)
    X[lost, 1] = value
    part = convert(tmp_path_factory.mktemp("p"), Rows(X), block_rows=block_rows)
    assert part is not None
    assert part.bad_rows == tuple(lost)
    np.testing.assert_array_equal(content(part), X)


def test_convert__of_rows_that_are_all_nan_or_zero_is_whole(tmp_path: Path) -> None:
    for value in (np.nan, 0.0):
        part = convert(
            tmp_path / str(value), Rows(np.full((6, 2), value, np.float32)), block_rows=2
        )
        assert part is not None
        np.testing.assert_array_equal(content(part), np.full((6, 2), value))


def test_convert__by_another_order_gives_the_rows_of_the_data_set(tmp_path: Path, X: F32) -> None:
    order = np.random.default_rng(1).permutation(11)
    joined = convert(tmp_path / "a", Rows(X[np.argsort(order)]), order=order)
    plain = convert(tmp_path / "b", Rows(X))
    assert joined is not None
    assert plain is not None
    assert tree(joined.folder / "X") == tree(plain.folder / "X")
    assert joined.digest == plain.digest


def test_set_matrix__puts_parts_one_after_the_other(tmp_path: Path, X: F32) -> None:
    parts = [convert(tmp_path, Rows(X[:5]), "a"), convert(tmp_path, Rows(X[5:]), "b")]
    matrix = set_matrix([p for p in parts if p is not None])
    blocks = [matrix.read(i) for i in range(matrix.grid.n_blocks)]
    assert [len(b) for b in blocks] == [4, 1, 4, 2]
    assert np.array_equal(np.concatenate(blocks), X)
    turned = set_matrix([p for p in reversed(parts) if p is not None])
    assert turned.digest != matrix.digest


def test_read_part__reads_what_was_written(tmp_path: Path, X: F32) -> None:
    part = convert(tmp_path, Rows(X))
    assert part is not None
    assert read_part(part.folder) == part
