"""Sizes as integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask import budget


@given(st.integers(1, 10**7))
def test_block_rows__give_blocks_of_a_size(n_features: int) -> None:
    rows = budget.block_rows(n_features)
    assert rows & (rows - 1) == 0
    assert 1 <= rows <= budget.MAX_BLOCK_ROWS
    if 1 < rows < budget.MAX_BLOCK_ROWS:
        assert budget.BLOCK_BYTES <= 4 * n_features * rows < 2 * budget.BLOCK_BYTES


@pytest.mark.parametrize(
    ("n_features", "rows"),
    [(1, 65536), (62, 65536), (128, 32768), (512, 8192), (2560, 2048), (4 * 10**6, 1), (10**9, 1)],
)
def test_block_rows__by_hand(n_features: int, rows: int) -> None:
    assert budget.block_rows(n_features) == rows


@given(st.integers(0, 10**6))
def test_leaf_blocks__make_few_leaves_until_a_task_is_a_second(n_blocks: int) -> None:
    blocks = budget.leaf_blocks(n_blocks)
    assert blocks & (blocks - 1) == 0
    assert 1 <= blocks <= budget.MAX_LEAF_BLOCKS
    if blocks < budget.MAX_LEAF_BLOCKS:
        assert -(-n_blocks // blocks) <= budget.FEW_LEAVES


@pytest.mark.parametrize(
    ("n_blocks", "blocks"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 4), (9999, 16)]
)
def test_leaf_blocks__by_hand(n_blocks: int, blocks: int) -> None:
    assert budget.leaf_blocks(n_blocks) == blocks


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1GiB", 2**30),
        ("1 gib", 2**30),
        ("512 MB", 512 * 10**6),
        ("1.5k", 1536),
        ("1000000", 10**6),
        (" 7 B ", 7),
        ("2T", 2 * 2**40),
        (4096, 4096),
    ],
)
def test_parse_bytes__reads_sizes(text: str | int, n_bytes: int) -> None:
    assert budget.parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "1XB", "-1MB", "0", "1 G B", "one", "1e400", "nan", "inf", 0, -5]
)
def test_parse_bytes__refuses_what_is_no_size(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"is no (size|positive)"):
        budget.parse_bytes(text)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (6_180_000_000, "6.2 GB"),
        (5 * 10**12, "5.0 TB"),
        (3 * 10**15, "3000.0 TB"),
    ],
)
def test_show_bytes__for_people(n_bytes: int, text: str) -> None:
    assert budget.show_bytes(n_bytes) == text


@given(st.integers(0, 10**16))
def test_show_bytes__can_be_read_back(n_bytes: int) -> None:
    text = budget.show_bytes(n_bytes).replace("bytes", "b")
    if n_bytes >= 1:
        assert budget.parse_bytes(text) == pytest.approx(n_bytes, rel=0.06)
