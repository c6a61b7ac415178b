"""Matrices and rows of vectors that lie in a file as plain numbers, read by row ranges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store.payloads import Payload, open_reader
from vehclust_dask.store.pickle_tokens import IN_PLACE
from vehclust_dask.store.pickle_values import decode_piece
from vehclust_dask.store.storage import Reader, about

#: Bytes that are read and converted at a time, beside the result.
_BUFFER = 4 << 20
#: Bytes of a file between two vectors that are read rather than jumped over.
_GAP = 1 << 14


class Names:
    """Paths that belong to rows; they stay in the process that opened the file.

    Hundreds of thousands of paths would travel with every task otherwise, and no task needs them.
    """

    def __init__(self, values: tuple[str, ...] | None) -> None:
        self._values = values
        self._left_behind = False

    def get(self) -> tuple[str, ...] | None:
        """Return the paths, or None when the file has none."""
        if self._left_behind:
            raise RuntimeError("paths stay in the process that opened the file; take them there")
        return self._values

    def __getstate__(self) -> dict[str, Any]:
        return {"_values": None, "_left_behind": self._left_behind or self._values is not None}


class Readable(Protocol):
    """What `take_rows` needs of a source."""

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows."""
        ...


def check_range(source: Readable, start: int, stop: int) -> None:
    """Raise IndexError unless ``0 <= start <= stop <= n_rows``."""
    if not 0 <= start <= stop <= source.n_rows:
        raise IndexError(f"rows {start} to {stop} of {source.n_rows}")


def take_rows(source: Readable, rows: NDArray[np.int64], max_gap: int) -> NDArray[np.float32]:
    """Return rows in any order, by reading them in the order of the file.

    Parameters
    ----------
    source : Readable
    rows : ndarray of shape (n,), int64
        Row numbers; may repeat.
    max_gap : int
        Rows between two wanted rows that are read rather than jumped over.

    Returns
    -------
    ndarray of shape (n, n_features), float32
    """
    rows = np.asarray(rows, np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < source.n_rows:
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {source.n_rows}")
    out = np.empty((len(rows), source.n_features), np.float32)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    cuts = np.flatnonzero(np.diff(ordered) > max_gap) + 1
    step = max(1, _BUFFER // (4 * source.n_features))
    for first, last in zip([0, *cuts], [*cuts, len(ordered)], strict=True):
        position = int(first)
        while position < last:
            begin = int(ordered[position])
            following = int(np.searchsorted(ordered[:last], begin + step))
            end = int(ordered[following - 1]) + 1
            inside = slice(position, following)
            out[order[inside]] = source.read(begin, end)[ordered[inside] - begin]
            position = following
    return out


def file_fingerprint(file: str) -> dict[str, Any]:
    """Return the size and the time of change of a file, to see that it is still the same."""
    try:
        now = about(file)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror or error}") from error
    return {"size": now.size, "mtime_ns": now.mtime_ns}


def put_float32(out: NDArray[np.float32], values: NDArray[Any]) -> None:
    """Convert numbers into a part of a result; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, values, casting="unsafe")


def _numbers(buffer: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """View bytes as numbers; of a bool's byte everything but 0 is true, also in a damaged file."""
    known = np.dtype(dtype)
    return buffer != 0 if known.kind == "b" else buffer.view(known)


@dataclass(frozen=True)
class MatrixSource:
    """A matrix whose bytes lie in one stretch of a file.

    Parameters
    ----------
    file : str
    key : str or None
        Which matrix of the file.
    n_rows, n_features : int
    dtype : str
        Type and byte order in the file, as numpy writes them.
    payload : Payload
        Its bytes.
    fortran : bool
        Whether columns lie one after the other.
    names : Names
        Paths of the rows.
    """

    file: str
    key: str | None
    n_rows: int
    n_features: int
    dtype: str
    payload: Payload
    fortran: bool = False
    names: Names = field(default_factory=lambda: Names(None), compare=False, repr=False)

    @property
    def payload_bytes(self) -> int:
        """Return the bytes of all numbers as they are stored, decoded."""
        return self.n_rows * self.n_features * np.dtype(self.dtype).itemsize

    @property
    def paths(self) -> tuple[str, ...] | None:
        """Return the paths of the rows, normalised, or None."""
        return self.names.get()

    def fingerprint(self) -> dict[str, Any]:
        """Return size and time of change of the file."""
        return file_fingerprint(self.file)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows.

        Parameters
        ----------
        start, stop : int
            ``0 <= start <= stop <= n_rows``.

        Returns
        -------
        ndarray of shape (stop - start, n_features), float32, C order
            Memory beside it: none for float32 in C order, else about 4 MiB or one column.
        """
        check_range(self, start, stop)
        out = np.empty((stop - start, self.n_features), np.float32)
        if self.fortran:
            self._read_columns(out, start)
        else:
            self._read_rows(out, start)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in any order: ndarray of shape (len(rows), n_features), float32."""
        row_bytes = self.payload_bytes // self.n_rows
        return take_rows(self, rows, max(1, self.payload.jump // row_bytes))

    def _read_rows(self, out: NDArray[np.float32], start: int) -> None:
        dtype = np.dtype(self.dtype)
        row_bytes = self.n_features * dtype.itemsize
        with self.payload.opened() as read_into:
            if dtype == np.float32:  # the machine's own float32: straight into the result
                if out.size:
                    read_into(out.reshape(-1).view(np.uint8).data, start * row_bytes)
                return
            step = max(1, _BUFFER // row_bytes)
            for first in range(0, len(out), step):
                part = out[first : first + step]
                buffer = np.empty(len(part) * row_bytes, np.uint8)
                read_into(buffer.data, (start + first) * row_bytes)
                put_float32(part, _numbers(buffer, self.dtype).reshape(part.shape))

    def _read_columns(self, out: NDArray[np.float32], start: int) -> None:
        """Read a segment of every column; a few columns at a time are turned into rows."""
        itemsize, n = np.dtype(self.dtype).itemsize, len(out)
        if n == 0:
            return
        group = max(1, min(64, _BUFFER // (n * itemsize)))
        with self.payload.opened() as read_into:
            for first in range(0, self.n_features, group):
                columns = range(first, min(first + group, self.n_features))
                buffer = np.empty((len(columns), n * itemsize), np.uint8)
                for segment, column in zip(buffer, columns, strict=True):
                    read_into(segment.data, (column * self.n_rows + start) * itemsize)
                values = _numbers(buffer.reshape(-1), self.dtype).reshape(len(columns), n)
                put_float32(out[:, first : columns.stop], values.T)


@dataclass(frozen=True, eq=False)
class VectorsSource:
    """Vectors of one length that lie somewhere in a file, each of them a row.

    Parameters
    ----------
    file : str
    key : str or None
        Which list of the file.
    n_features : int
    dtype : str
        Type and byte order in the file.
    offsets, sizes : ndarray of shape (n_rows,), int64
        Where each vector lies, and its bytes in the file.
    form : str
        How its bytes are written, see `pickle_tokens.Piece`.
    names : Names
        Paths of the rows.
    """

    file: str
    key: str | None
    n_features: int
    dtype: str
    offsets: NDArray[np.int64] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)
    form: str
    names: Names = field(default_factory=lambda: Names(None), repr=False)

    @property
    def n_rows(self) -> int:
        """Return the number of vectors."""
        return len(self.offsets)

    @property
    def payload_bytes(self) -> int:
        """Return the bytes of all numbers, decoded."""
        return self.n_rows * self._row_bytes

    @property
    def paths(self) -> tuple[str, ...] | None:
        """Return the paths of the rows, normalised, or None."""
        return self.names.get()

    @property
    def _row_bytes(self) -> int:
        return self.n_features * np.dtype(self.dtype).itemsize

    def fingerprint(self) -> dict[str, Any]:
        """Return size and time of change of the file."""
        return file_fingerprint(self.file)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows: ndarray of shape (stop - start, n_features), float32, C order.

        Vectors that lie close together are read at once, at most 4 MiB of the file at a time.
        """
        check_range(self, start, stop)
        out = np.empty((stop - start, self.n_features), np.float32)
        with open_reader(self.file) as reader:
            for first, last in self._stretches(start, stop):
                values = self._read_stretch(reader, first, last)
                put_float32(out[first - start : last - start], values)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in any order: ndarray of shape (len(rows), n_features), float32."""
        return take_rows(self, rows, max(1, _GAP // self._row_bytes))

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut rows where the next vector lies elsewhere, or enough is read at once."""
        first, end, begin = start, 0, 0
        for i in range(start, stop):
            offset, size = int(self.offsets[i]), int(self.sizes[i])
            far = i > first and not end <= offset <= end + _GAP
            if far or (i > first and offset + size - begin > _BUFFER):
                yield first, i
                first = i
            if i == first:
                begin = offset
            end = offset + size
        if stop > start:
            yield first, stop

    def _read_stretch(self, reader: Reader, first: int, last: int) -> NDArray[Any]:
        begin = int(self.offsets[first])
        raw = bytearray(int(self.offsets[last - 1] + self.sizes[last - 1]) - begin)
        view = memoryview(raw)
        reader.fill(view, begin)
        buffer = np.empty((last - first, self._row_bytes), np.uint8)
        rows = buffer.reshape(-1).data
        n = self._row_bytes
        for i in range(last - first):
            at = int(self.offsets[first + i]) - begin
            piece = view[at : at + int(self.sizes[first + i])]
            rows[i * n : (i + 1) * n] = piece if self.form == IN_PLACE else self._decode(piece)
        return _numbers(buffer.reshape(-1), self.dtype).reshape(last - first, self.n_features)

    def _decode(self, piece: memoryview) -> bytes:
        try:
            decoded = decode_piece(self.form, bytes(piece))[0]
        except ValueError:
            self._refuse_vector()
        if len(decoded) != self._row_bytes:
            self._refuse_vector()
        return decoded

    def _refuse_vector(self) -> NoReturn:
        raise BadInput(
            f"{self.file} is damaged: a vector of {self.n_features} values of type {self.dtype} "
            "does not have the bytes that it needs"
        )
