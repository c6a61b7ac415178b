"""The row grid, and an array as blocks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask import budget
from vehclust_dask.records import ArrayBlocks, Blocks, RowGrid, Span

grids = st.builds(
    RowGrid,
    st.lists(st.integers(0, 50), max_size=5).map(tuple),
    st.sampled_from([1, 2, 4, 16, 64]),
)


@given(grids)
def test_row_grid__spans_cover_every_row_once_in_order(grid: RowGrid) -> None:
    at = 0
    starts = np.cumsum([0, *grid.part_rows])
    for i, span in enumerate(grid.spans()):
        assert span.block == i
        assert span.row0 == at == starts[span.part] + span.start
        assert 1 <= span.n_rows <= grid.block_rows
        assert span.start % grid.block_rows == 0
        assert span.stop <= grid.part_rows[span.part]
        at += span.n_rows
    assert at == grid.n_rows == sum(grid.part_rows)


@given(grids)
def test_row_grid__leaves_hold_every_block_once_in_order(grid: RowGrid) -> None:
    leaves = grid.leaves()
    assert [i for leaf in leaves for i in leaf] == list(range(grid.n_blocks))
    assert all(len(leaf) > 0 for leaf in leaves)


@given(grids, st.integers(0, 50))
def test_row_grid__a_new_part_leaves_old_blocks_alone(grid: RowGrid, rows: int) -> None:
    grown = RowGrid((*grid.part_rows, rows), grid.block_rows)
    assert list(grown.spans())[: grid.n_blocks] == list(grid.spans())


def test_row_grid__by_hand() -> None:
    grid = RowGrid((5, 0, 4), 4)
    assert list(grid.spans()) == [
        Span(0, 0, 0, 4, 0),
        Span(1, 0, 4, 5, 4),
        Span(2, 2, 0, 4, 5),
    ]


@pytest.mark.parametrize("i", [-1, 3, 100])
def test_row_grid__refuses_blocks_it_does_not_have(i: int) -> None:
    with pytest.raises(IndexError, match=f"block {i} of 3"):
        RowGrid((5, 4), 4).span(i)


def test_row_grid__is_a_value() -> None:
    grid = RowGrid((5, 4), 4)
    assert grid == RowGrid((5, 4), 4)
    assert hash(grid) == hash(RowGrid((5, 4), 4))
    assert grid != RowGrid((5, 4), 8)
    assert pickle.loads(pickle.dumps(grid)).span(2) == grid.span(2)
    assert RowGrid.for_width((10,), 2560).block_rows == budget.block_rows(2560)


def test_array_blocks__read_without_a_copy() -> None:
    X = np.arange(30, dtype=np.float32).reshape(10, 3)
    blocks = ArrayBlocks.of(X, block_rows=4)
    assert isinstance(blocks, Blocks)
    assert blocks.n_features == 3
    assert blocks.grid == RowGrid((10,), 4)
    parts = [blocks.read(i) for i in range(blocks.grid.n_blocks)]
    np.testing.assert_array_equal(np.concatenate(parts), X)
    assert all(np.shares_memory(part, X) for part in parts)


def test_array_blocks__convert_to_float32_rows() -> None:
    X = np.asfortranarray(np.arange(12).reshape(4, 3))
    blocks = ArrayBlocks.of(X)
    assert blocks.X.dtype == np.float32
    assert blocks.X.flags.c_contiguous
    np.testing.assert_array_equal(blocks.X, X)
    assert blocks.grid.block_rows == budget.block_rows(3)


def test_blocks__an_array_is_none() -> None:
    assert not isinstance(np.zeros((2, 2)), Blocks)
