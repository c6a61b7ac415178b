from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from vehclust_dask.demo.archive import StoredZip


def _write(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with StoredZip(file) as archive:
        for name, content in members.items():
            archive.add(name, content)
    return file.getvalue()


def test_stored_zip__is_read_by_zipfile() -> None:
    members = {"a/1.jpg": b"one", "a/2.jpg": b"", "b/3.jpg": bytes(range(256)) * 40}
    with zipfile.ZipFile(io.BytesIO(_write(members))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == list(members)
        for info in archive.infolist():
            assert archive.read(info) == members[info.filename]
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (2020, 1, 1, 0, 0, 0)


def test_stored_zip__has_the_same_bytes_twice_and_may_be_empty() -> None:
    members = {"x": b"12", "y": b"3"}
    assert _write(members) == _write(members)
    with zipfile.ZipFile(io.BytesIO(_write({}))) as archive:
        assert archive.namelist() == []


@pytest.mark.parametrize("n_members", [65_534, 65_535])
def test_stored_zip__holds_more_than_65535_members(n_members: int) -> None:
    written = _write({str(i): b"" for i in range(n_members)})
    assert (b"PK\x06\x06" in written) == (n_members >= 65_535)
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert len(archive.namelist()) == n_members


def test_stored_zip__reaches_beyond_4_gib(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with open(path, "wb") as file:
        file.seek(0xFFFFFFFF - 60)  # a hole, which takes no disk
        with StoredZip(file) as archive:
            archive.add("before", b"x" * 100)
            archive.add("after", b"y" * 10)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("after").header_offset > 0xFFFFFFFF
        assert archive.read("before") == b"x" * 100
        assert archive.read("after") == b"y" * 10


def test_stored_zip__is_not_finished_after_an_error() -> None:
    file = io.BytesIO()

    def fail() -> None:
        with StoredZip(file) as archive:
            archive.add("x", b"1")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert file.getvalue().startswith(b"PK\x03\x04")
    assert b"PK\x05\x06" not in file.getvalue()
