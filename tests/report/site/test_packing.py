"""Packed rows come back as they were, by a reader that follows what is written of the packing."""

from __future__ import annotations

import base64
import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.site.drawn import twin_path
from vehclust_dask.report.site.packing import (
    quantised,
    squeezed_codes,
    squeezed_paths,
    squeezed_positions,
    squeezed_rows,
    varints,
    zigzag,
)

paths = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.from_regex(r"a/[0-9]{1,3}/[0-9]{2,12}\.jpg", fullmatch=True),
        st.sampled_from(["", "é/01", "é/02", "𝄞1", "𝄞2", "x\n1", "x\n2", "١", "٢"]),
    ),
    max_size=30,
)


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text), -zlib.MAX_WBITS)


def read_varints(content: bytes) -> list[int]:
    found, value, shift = [], 0, 0
    for byte in content:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(value)
            value, shift = 0, 0
    return found


def read_paths(told: dict[str, str]) -> list[str]:
    kinds = read_varints(unpacked(told["kinds"]))
    steps = iter(read_varints(unpacked(told["steps"])))
    lengths = iter(read_varints(unpacked(told["lengths"])))
    # Lengths count UTF-16 units, two bytes each.
    text = unpacked(told["text"]).decode().encode("utf-16-le")
    before, at, found = "", 0, []
    for kind in kinds:
        if kind:
            many = 2 * next(lengths)
            head = before.encode("utf-16-le")[: 2 * (kind - 1)]
            before = (head + text[at : at + many]).decode("utf-16-le")
            at += many
        else:
            parts = re.split("([0-9]{1,9})", before)
            for i in range(1, len(parts), 2):
                step = next(steps)
                grown = int(parts[i]) + (-(step + 1) // 2 if step % 2 else step // 2)
                parts[i] = str(grown).zfill(len(parts[i]))
            before = "".join(parts)
        found.append(before)
    return found


@given(paths)
def test_squeezed_paths__come_back(names: list[str]) -> None:
    assert read_paths(squeezed_paths(names)) == names


def test_squeezed_paths__of_the_case_take_half_a_byte() -> None:
    names = [twin_path(row) for row in range(20_000)]
    told = squeezed_paths(names)
    assert read_paths(told) == names
    assert sum(map(len, told.values())) < 0.5 * len(names)


@given(st.lists(st.integers(0, 2**40)))
def test_varints__come_back(values: list[int]) -> None:
    assert read_varints(varints(np.array(values, np.int64))) == values


def test_zigzag__is_as_told() -> None:
    assert zigzag(np.array([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50),
    st.sampled_from([2, 255, 4096]),
)
def test_quantised__error_is_half_a_step(values: list[float], levels: int) -> None:
    known = np.array(values, np.float32)
    codes, low, high = quantised(known, levels)
    assert codes.min() >= 0
    assert codes.max() < levels
    back = low + codes * ((high - low) / (levels - 1))
    assert np.abs(back - known).max() <= (high - low) / (levels - 1) / 2 * (1 + 1e-9) + 1e-9


def test_quantised__of_no_rows_is_empty() -> None:
    codes, low, high = quantised(np.empty(0, np.float32), 4096)
    assert (len(codes), low, high) == (0, 0.0, 0.0)


@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 4095)), max_size=40))
def test_squeezed_positions__come_back(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, np.int64).reshape(-1, 2).T
    content = np.frombuffer(unpacked(squeezed_positions(x, y)), np.uint8).astype(np.int64)
    high_x, high_y, last = content.reshape(3, -1)
    assert (high_x << 4 | last >> 4).tolist() == x.tolist()
    assert (high_y << 4 | last & 15).tolist() == y.tolist()


@pytest.mark.parametrize("n_codes", [2, 256, 257, 5000])
def test_squeezed_codes__come_back(n_codes: int) -> None:
    codes = np.random.default_rng(0).integers(0, n_codes, 300)
    planes = np.frombuffer(unpacked(squeezed_codes(codes, n_codes)), np.uint8).astype(np.int64)
    planes = planes.reshape(-1, 300)
    assert len(planes) == (1 if n_codes <= 256 else 2)
    assert (planes[0] + (planes[1] << 8 if len(planes) > 1 else 0)).tolist() == codes.tolist()


@given(st.sets(st.integers(0, 10**6), max_size=40))
def test_squeezed_rows__come_back(chosen: set[int]) -> None:
    rows = np.array(sorted(chosen), np.int64)
    told = squeezed_rows(rows)
    if told is None:
        assert rows.tolist() == list(range(len(rows)))
    else:
        assert np.cumsum(read_varints(unpacked(told))).tolist() == rows.tolist()
