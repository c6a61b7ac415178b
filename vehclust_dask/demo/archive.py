"""Write a zip of stored members as they come: flat memory, the same bytes every time, any size."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from types import TracebackType
from typing import BinaryIO, Self

_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_NEEDS, _NEEDS_64 = 20, 45
#: 1 January 2020, midnight, as DOS writes it: a real date would change the bytes.
_TIME, _DATE = 0, (2020 - 1980) << 9 | 1 << 5 | 1
_MODE = 0o100644 << 16
_UNIX = 3 << 8


class StoredZip:
    """A zip archive that is written front to back; a context manager.

    The list of members, which a zip has at its end, waits in an unnamed temporary file: 416,314
    photos need 35 MB there and nothing in memory.

    Parameters
    ----------
    file : binary file
        Open for writing; offsets count from its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = file.tell()
        self._members = 0

    def __enter__(self) -> Self:
        self._list = tempfile.TemporaryFile()
        return self

    def add(self, name: str, content: bytes) -> None:
        """Append one member; below 4 GiB, with forward slashes in its name."""
        raw, size = name.encode("ascii"), len(content)
        far = self._offset >= _U32
        needs = _NEEDS_64 if far else _NEEDS
        sums = struct.pack("<3L", zlib.crc32(content), size, size)
        common = struct.pack("<5H", needs, 0, 0, _TIME, _DATE) + sums
        self._file.write(b"PK\x03\x04" + common + struct.pack("<2H", len(raw), 0) + raw)
        self._file.write(content)
        extra = struct.pack("<2HQ", 1, 8, self._offset) if far else b""
        lengths = struct.pack("<5H", len(raw), len(extra), 0, 0, 0)
        where = struct.pack("<2L", _MODE, min(self._offset, _U32))
        made_by = struct.pack("<H", _UNIX | needs)
        self._list.write(b"PK\x01\x02" + made_by + common + lengths + where + raw + extra)
        self._offset += 30 + len(raw) + size
        self._members += 1

    def _finish(self) -> None:
        size, members, start = self._list.tell(), self._members, self._offset
        self._list.seek(0)
        shutil.copyfileobj(self._list, self._file, 1 << 20)
        if members >= _U16 or size >= _U32 or start >= _U32:
            versions = struct.pack("<2H2L", _UNIX | _NEEDS_64, _NEEDS_64, 0, 0)
            counts = struct.pack("<4Q", members, members, size, start)
            self._file.write(b"PK\x06\x06" + struct.pack("<Q", 44) + versions + counts)
            self._file.write(b"PK\x06\x07" + struct.pack("<LQL", 0, start + size, 1))
        few = min(members, _U16)
        ends = struct.pack("<4H2LH", 0, 0, few, few, min(size, _U32), min(start, _U32), 0)
        self._file.write(b"PK\x05\x06" + ends)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._list:
            if kind is None:
                self._finish()
