"""The bytes of an array as they lie in a file: in place, written as text, or deflated.

A payload is a small record that opens its file anew in whatever process reads it. Bytes are read
with ``pread`` into buffers: mapped pages would count as the worker's memory.
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import IO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store.pickle_values import decode_piece
from vehclust_dask.store.storage import Reader, stream

#: Encoded bytes that are decoded at a time.
_CHUNK = 1 << 18
#: Bytes that are better read than jumped over where reading cannot begin just anywhere.
_FAR = 4 << 20

#: Fill a buffer with the payload's bytes from a position on.
ReadInto = Callable[[memoryview, int], None]


class Payload(Protocol):
    """Bytes that can be read from any position.

    Attributes
    ----------
    jump : int
        Up to so many bytes are better read than jumped over.
    """

    @property
    def jump(self) -> int:
        """Return up to how many bytes are better read than jumped over."""
        ...

    def opened(self) -> AbstractContextManager[ReadInto]:
        """Open the file; give a function that fills a buffer from a position."""
        ...


@contextmanager
def open_reader(file: str) -> Iterator[Reader]:
    """Open a file for reading from any position; a file that has gone is BadInput."""
    try:
        reader = Reader(file)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror or error}") from error
    with reader:
        yield reader


@dataclass(frozen=True)
class InPlace:
    """Bytes that lie in the file as they are.

    Parameters
    ----------
    file : str
    offset : int
        Where they begin.
    """

    file: str
    offset: int

    @property
    def jump(self) -> int:
        """Return the bytes that take about as long as another call of the system."""
        return 1 << 14

    @contextmanager
    def opened(self) -> Iterator[ReadInto]:
        """Open the file; the function given reads with ``pread``."""
        with open_reader(self.file) as reader:
            yield lambda view, start: reader.fill(view, self.offset + start)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Bytes that are written as text, with places from which decoding can begin.

    Parameters
    ----------
    file : str
    end : int
        Where the text ends in the file.
    form : str
        How it is written, see `pickle_tokens.Piece`.
    starts, offsets : ndarray of shape (n_places,), int64
        The byte of the payload that each place begins with, and where it lies in the file.
    """

    file: str
    end: int
    form: str
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def measure(
        cls, file: str, offset: int, size: int, form: str, *, expected: int, every: int
    ) -> Encoded:
        """Decode the text once; remember a place about every so many bytes.

        Parameters
        ----------
        file, offset, size, form
            Where the text lies and how it is written.
        expected : int
            Bytes that it must hold.
        every : int
            Bytes between two places.

        Raises
        ------
        BadInput
            If the text is not written in this form, or holds another number of bytes.
        """
        starts, offsets, total = [0], [offset], 0
        with open_reader(file) as reader:
            chunks = _decode(reader, file, form, offset, offset + size, min(_CHUNK, every))
            for decoded, following in chunks:
                total += len(decoded)
                if total - starts[-1] >= every:
                    starts.append(total)
                    offsets.append(following)
        if total != expected:
            raise BadInput(
                f"{file} is damaged: {expected:,} bytes are needed and the file holds {total:,}"
            )
        places = np.array(starts, np.int64), np.array(offsets, np.int64)
        return cls(file, offset + size, form, *places)

    @property
    def jump(self) -> int:
        """Return about the bytes between two places."""
        return _FAR

    @contextmanager
    def opened(self) -> Iterator[ReadInto]:
        """Open the file; the function given decodes from the place before its position."""
        with open_reader(self.file) as reader:
            yield lambda view, start: self._read(reader, view, start)

    def _read(self, reader: Reader, view: memoryview, start: int) -> None:
        place = int(np.searchsorted(self.starts, start, side="right")) - 1
        skip, done = start - int(self.starts[place]), 0
        begin = int(self.offsets[place])
        for decoded, _ in _decode(reader, self.file, self.form, begin, self.end, _CHUNK):
            if done == len(view):
                return
            part = memoryview(decoded)[skip : skip + len(view) - done]
            skip = max(0, skip - len(decoded))
            view[done : done + len(part)] = part
            done += len(part)
        if done != len(view):
            raise BadInput(f"{self.file} changed since it was opened")


def _decode(
    reader: Reader, file: str, form: str, begin: int, end: int, chunk: int
) -> Iterator[tuple[bytes, int]]:
    """Yield decoded bytes and where in the file the text that follows them begins."""
    while begin < end:
        raw = reader.pread(min(chunk, end - begin), begin)
        if not raw:
            raise BadInput(f"{file} ends at byte {begin:,}: it changed since it was opened")
        try:
            decoded, used = decode_piece(form, raw, final=begin + len(raw) >= end)
        except ValueError as error:
            raise BadInput(f"{file} is damaged: {error} near byte {begin:,}") from error
        if used == 0:
            raise BadInput(f"{file} is damaged: the bytes at {begin:,} are no latin-1 text")
        begin += used
        yield decoded, begin


class Cursor:
    """An open stream and how far it was read; a copy sent to another process starts afresh."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stream: IO[bytes] | None = None
        self.at = 0

    def __reduce__(self) -> tuple[type[Cursor], tuple[()]]:
        return Cursor, ()


@dataclass(frozen=True)
class Deflated:
    """Bytes of a deflated member of a zip file; they can only be inflated from the beginning.

    Reading on from where the last read ended costs nothing extra, and so do blocks in order;
    reading something before it inflates the member again, in memory that does not grow.

    Parameters
    ----------
    file : str
    member : str
        Its name in the zip file.
    offset : int
        Where the payload begins in the member.
    """

    file: str
    member: str
    offset: int
    _cursor: Cursor = field(default_factory=Cursor, compare=False, repr=False)

    @property
    def jump(self) -> int:
        """Return many bytes: all that lies between is inflated anyway."""
        return _FAR

    @contextmanager
    def opened(self) -> Iterator[ReadInto]:
        """Give a function that inflates up to its position."""
        with self._cursor.lock:
            yield self._read

    def _read(self, view: memoryview, start: int) -> None:
        cursor = self._cursor
        try:
            if cursor.stream is None or cursor.at > self.offset + start:
                self._rewind()
            self._skip(self.offset + start - cursor.at)
            for done in range(0, len(view), _CHUNK):
                part = view[done : done + _CHUNK]
                part[:] = self._take(len(part))
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            KeyError,
            UnicodeDecodeError,
        ) as error:
            cursor.stream = None
            raise BadInput(f"{self.file} is damaged in '{self.member}': {error}") from error

    def _rewind(self) -> None:
        cursor = self._cursor
        if cursor.stream is not None:
            cursor.stream.close()
        with zipfile.ZipFile(stream(self.file)) as archive:
            # The stream keeps its own hold of the file: closing the archive leaves it open.
            cursor.stream, cursor.at = archive.open(self.member), 0

    def _skip(self, n: int) -> None:
        while n > 0:
            n -= len(self._take(min(n, _CHUNK)))

    def _take(self, n: int) -> bytes:
        data = cast("IO[bytes]", self._cursor.stream).read(n)
        if len(data) != n:
            raise EOFError("it ends too early")
        self._cursor.at += n
        return data
