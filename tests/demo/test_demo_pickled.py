from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vehclust_dask.demo import pickled


def _stream(X: np.ndarray, step: int) -> bytes:
    file = io.BytesIO()
    with pickled.PickledMatrix(file, *X.shape) as matrix:
        for row in range(0, len(X), step):
            matrix.write(X[row : row + step])
    return file.getvalue()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 90), st.integers(0, 9))
def test_pickled_matrix__loads_as_the_same_array(
    rows: int, columns: int, step: int, seed: int
) -> None:
    X = np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)
    loaded = pickle.loads(_stream(X, step))
    assert type(loaded) is np.ndarray
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, X)


@pytest.mark.parametrize("shape", [(17000, 1), (256, 64), (70000, 3), (300, 300)])
def test_pickled_matrix__has_the_bytes_of_pickle_dump(shape: tuple[int, int]) -> None:
    # From 64 KiB on pickle writes the payload between two frames, and so does the stream.
    X = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    assert _stream(X, 1000) == pickle.dumps(X, protocol=4)


def test_header__announces_eight_byte_lengths_above_4_gib() -> None:
    n_bytes = 416_314 * 2560 * 4
    assert n_bytes.bit_length() == 32
    assert pickled.header(416_314, 2560)[-5:] == b"B" + n_bytes.to_bytes(4, "little")
    n_bytes = 500_000 * 2560 * 4
    assert pickled.header(500_000, 2560)[-9:] == b"\x8e" + n_bytes.to_bytes(8, "little")


def test_header__with_eight_byte_lengths_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "_BINBYTES_MAX", 100)
    X = np.arange(60, dtype=np.float32).reshape(20, 3)
    written = _stream(X, 7)
    assert b"\x8e" + (240).to_bytes(8, "little") in written
    np.testing.assert_array_equal(pickle.loads(written), X)


def test_pickled_matrix__refuses_another_number_of_rows() -> None:
    X = np.zeros((3, 2), dtype=np.float32)
    with (
        pytest.raises(ValueError, match="3 of 4 rows"),
        pickled.PickledMatrix(io.BytesIO(), 4, 2) as matrix,
    ):
        matrix.write(X)
    with (
        pytest.raises(ValueError, match="do not fit"),
        pickled.PickledMatrix(io.BytesIO(), 2, 2) as matrix,
    ):
        matrix.write(X)
