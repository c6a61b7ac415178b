"""Write a matrix as a pickle block by block, byte for byte what ``pickle.dump`` would write.

``pickle.dump`` needs the whole array in memory. The payload of an array is one run of bytes inside
a short fixed stream of opcodes, so the stream is written by hand around rows as they are made.
"""

from __future__ import annotations

import pickle
import struct
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

_MEMO = pickle.MEMOIZE
_NONE_TIMES_3 = pickle.NONE * 3
_BINBYTES_MAX = 0xFFFFFFFF


def _text(word: str) -> bytes:
    raw = word.encode()
    return pickle.SHORT_BINUNICODE + bytes([len(raw)]) + raw + _MEMO


def _int(value: int) -> bytes:
    """Encode as the shortest opcode, as the pickle module does."""
    if 0 <= value <= 0xFF:
        return pickle.BININT1 + bytes([value])
    if 0 <= value <= 0xFFFF:
        return pickle.BININT2 + struct.pack("<H", value)
    if -(1 << 31) <= value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x05" + value.to_bytes(5, "little")


def _frame(body: bytes) -> bytes:
    return pickle.FRAME + struct.pack("<Q", len(body)) + body


def _reconstruct() -> bytes:
    """Return the opcodes that make an empty ndarray: memo 0 to 8, the word numpy being memo 3."""
    empty = pickle.SHORT_BINBYTES + b"\x01b" + _MEMO
    return b"".join(
        (
            _text("numpy._core.multiarray") + _text("_reconstruct") + pickle.STACK_GLOBAL + _MEMO,
            _text("numpy") + _text("ndarray") + pickle.STACK_GLOBAL + _MEMO,
            _int(0) + pickle.TUPLE1 + _MEMO + empty,
            pickle.TUPLE3 + _MEMO + pickle.REDUCE + _MEMO,
        )
    )


def _float32() -> bytes:
    """Return the opcodes that make ``dtype('<f4')``."""
    state = _int(3) + _text("<") + _NONE_TIMES_3 + _int(-1) * 2 + _int(0)
    return b"".join(
        (
            pickle.BINGET + b"\x03" + _text("dtype") + pickle.STACK_GLOBAL + _MEMO,
            _text("f4") + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3 + _MEMO,
            pickle.REDUCE + _MEMO + pickle.MARK + state + pickle.TUPLE + _MEMO + pickle.BUILD,
        )
    )


def _bytes_opcode(n_bytes: int) -> bytes:
    if n_bytes <= _BINBYTES_MAX:
        return pickle.BINBYTES + struct.pack("<I", n_bytes)
    return pickle.BINBYTES8 + struct.pack("<Q", n_bytes)


def header(n_rows: int, n_features: int) -> bytes:
    """Return all bytes before the payload of a C-ordered float32 matrix, pickle protocol 4."""
    shape = _int(n_rows) + _int(n_features) + pickle.TUPLE2 + _MEMO
    state = pickle.MARK + _int(1) + shape + _float32() + pickle.NEWFALSE
    opening = pickle.PROTO + b"\x04" + _frame(_reconstruct() + state)
    return opening + _bytes_opcode(4 * n_rows * n_features)


def footer() -> bytes:
    """Return all bytes after the payload."""
    return _frame(_MEMO + pickle.TUPLE + _MEMO + pickle.BUILD + pickle.STOP)


class PickledMatrix:
    """A float32 matrix that is written to a file as its rows are made; a context manager.

    Parameters
    ----------
    file : binary file
        Open for writing; only ever appended to.
    n_rows, n_features : int
        The whole shape, which has to be known first. Leaving the context with another number of
        rows written is an error, for the file could not be read.
    """

    def __init__(self, file: BinaryIO, n_rows: int, n_features: int) -> None:
        self._file = file
        self._shape = (n_rows, n_features)
        self._written = 0

    def __enter__(self) -> Self:
        self._file.write(header(*self._shape))
        return self

    def write(self, X: NDArray[np.float32]) -> None:
        """Append rows, an array of shape (n, n_features)."""
        if X.shape[1] != self._shape[1] or self._written + len(X) > self._shape[0]:
            raise ValueError(f"rows of shape {X.shape} do not fit into {self._shape}")
        self._file.write(np.ascontiguousarray(X, dtype="<f4").data)
        self._written += len(X)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        if self._written != self._shape[0]:
            raise ValueError(f"{self._written} of {self._shape[0]} rows were written")
        self._file.write(footer())
