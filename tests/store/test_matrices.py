"""Matrices in zarr: what was written is read, what is missing or damaged is noticed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput
from vehclust_dask.records import RowGrid
from vehclust_dask.store.matrices import Matrix, create_matrix

parts = st.lists(st.integers(1, 20), min_size=1, max_size=4).map(tuple)


def written(folder: Path, X: np.ndarray, grid: RowGrid, *, compress: str = "none") -> Matrix:
    """Write all rows of a matrix."""
    matrix = create_matrix(
        folder, "X", grid, X.shape[1], str(X.dtype), digest=str(folder), compress=compress
    )
    for i, span in enumerate(grid.spans()):
        matrix.write(i, X[span.row0 : span.row0 + span.n_rows])
    return matrix


def chunk(matrix: Matrix, name: str) -> Path:
    return Path(matrix.paths[0]) / "c" / name


@given(
    parts=parts, block_rows=st.integers(1, 8), dtype=st.sampled_from(["float32", "int16", "int32"])
)
def test_write__is_read_back_block_by_block_and_by_other_tools(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[int, ...], block_rows: int, dtype: str
) -> None:
    X = np.arange(sum(parts) * 3).reshape(-1, 3).astype(dtype)
    X[0] = 0
    matrix = written(tmp_path_factory.mktemp("m"), X, RowGrid(parts, block_rows))
    matrix.check_whole()
    blocks = [matrix.read(i) for i in range(matrix.grid.n_blocks)]
    assert np.array_equal(np.concatenate(blocks), X)
    assert not any(block.flags.writeable for block in blocks)
    whole = np.concatenate([zarr.open_array(path, mode="r")[:] for path in matrix.paths])
    assert np.array_equal(whole, X)


@pytest.mark.parametrize("dtype", ["float32", "int16", "int32", "float64"])
@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_write__gives_the_bytes_that_zarr_writes(tmp_path: Path, dtype: str, compress: str) -> None:
    X = (np.random.default_rng(0).standard_normal((7, 5)) * 100).astype(dtype)
    X.flags.writeable = False
    ours = written(tmp_path / "ours", X, RowGrid((7,), 3), compress=compress)
    theirs = create_matrix(
        tmp_path / "theirs", "X", ours.grid, 5, dtype, digest="b", compress=compress
    )
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(theirs.paths[0], mode="r+")[:] = X
    files = {"0/0", "1/0", "2/0"}
    assert {str(f.relative_to(chunk(ours, ""))) for f in chunk(ours, "").glob("*/*")} == files
    for name in files:
        assert chunk(ours, name).read_bytes() == chunk(theirs, name).read_bytes()


def test_create_matrix__takes_a_part_without_rows(tmp_path: Path) -> None:
    X = np.ones((5, 2), np.float32)
    matrix = written(tmp_path, X, RowGrid((3, 0, 2), 2))
    matrix.check_whole()
    assert sum(len(matrix.read(i)) for i in range(matrix.grid.n_blocks)) == 5


def test_create_matrix__finds_the_blocks_of_an_interrupted_run(tmp_path: Path) -> None:
    grid = RowGrid((4,), 2)
    first = create_matrix(tmp_path, "X", grid, 2, "float32", digest="a")
    first.write(1, np.ones((2, 2), np.float32))
    again = create_matrix(tmp_path, "X", grid, 2, "float32", digest="a")
    assert [again.is_written(i) for i in range(2)] == [False, True]
    with pytest.raises(BadInput, match=r"1 of 2 blocks of .* are missing .the first is 0."):
        again.check_whole()


def test_is_written__tells_zeros_from_nothing(tmp_path: Path) -> None:
    matrix = written(tmp_path, np.zeros((4, 2), np.int32), RowGrid((4,), 2))
    assert [matrix.is_written(i) for i in range(2)] == [True, True]


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_read__notices_a_chunk_that_was_lost(tmp_path: Path, dtype: str) -> None:
    matrix = written(tmp_path, np.ones((4, 2), dtype), RowGrid((4,), 2))
    chunk(matrix, "1/0").unlink()
    matrix.read(0)
    with pytest.raises(BadInput, match=r"block 1 of .* delete that folder"):
        matrix.read(1)


@pytest.mark.parametrize("compress", ["none", "zstd"])
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_read__notices_a_flipped_bit(
    tmp_path_factory: pytest.TempPathFactory, compress: str, place: int, bit: int
) -> None:
    X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    matrix = written(tmp_path_factory.mktemp("m"), X, RowGrid((8,), 8), compress=compress)
    content = bytearray(chunk(matrix, "0/0").read_bytes())
    content[place % len(content)] ^= 1 << bit
    chunk(matrix, "0/0").write_bytes(content)
    if compress == "none":
        with pytest.raises(BadInput, match="block 0 of"):
            matrix.read(0)
        return
    # Some bits of a zstd frame decide nothing: the rows are refused, or they are right.
    with contextlib.suppress(BadInput):
        assert np.array_equal(matrix.read(0), X)


def test_read__notices_a_chunk_cut_short(tmp_path: Path) -> None:
    matrix = written(tmp_path, np.ones((4, 2), np.float32), RowGrid((4,), 4))
    content = chunk(matrix, "0/0").read_bytes()
    for length in (0, 3, 4, len(content) - 1):
        chunk(matrix, "0/0").write_bytes(content[:length])
        with pytest.raises(BadInput, match="block 0 of"):
            matrix.read(0)


def test_read__keeps_a_block_for_next_time(tmp_path: Path) -> None:
    matrix = written(tmp_path, np.ones((4, 2), np.float32), RowGrid((4,), 4))
    before = CACHE.held
    first = matrix.read(0)
    assert CACHE.held - before == first.nbytes
    assert matrix.read(0) is first


def test_to_json__is_read_back_in_another_place(tmp_path: Path) -> None:
    matrix = written(tmp_path / "a", np.ones((4, 2), np.float32), RowGrid((3, 1), 2))
    record = matrix.to_json(tmp_path / "a")
    assert all(not Path(path).is_absolute() for path in record["paths"])
    (tmp_path / "a").rename(tmp_path / "b")
    again = Matrix.from_json(record, tmp_path / "b")
    assert again == matrix.moved(tmp_path / "a", tmp_path / "b")
    assert again.read(2).tolist() == [[1, 1]]
