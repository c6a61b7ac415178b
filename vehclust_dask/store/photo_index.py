"""The index of a folder or zip of photos: one parquet file that is made once and read often."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vehclust_dask.errors import BadInput
from vehclust_dask.store.folders import write_by
from vehclust_dask.store.storage import about, files_below, is_url, stream, whole

#: Files with other endings are no photos and are left out of the index.
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

_SCHEMA = {"schema": "photo-index", "schema_version": 1}
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}


def refresh_index(where: Path, index: Path) -> None:
    """Make the index of a zip unless it is there and fits; list a folder in any case.

    The columns are name, and for a zip header_offset, size (packed, in bytes), file_size (in
    bytes) and method, sorted by name; the schema metadata holds the zip's size and mtime.

    Parameters
    ----------
    where : Path
        The folder or the zip.
    index : Path
        The parquet file; it appears whole or not at all.

    Raises
    ------
    BadInput
        If there is nothing to read, or a zip that is damaged, encrypted or packed otherwise.
    """
    try:
        folder = where.is_dir()
        stamp = None if folder else about(where)
    except OSError as error:
        raise BadInput(
            f"cannot open the photos at {where}: {error.strerror or error}; give a folder or a zip"
        ) from error
    if stamp is None:
        names = sorted(_walk(where))
        _write_index(index, pa.table({"name": pa.array(names, pa.string())}), {"kind": "folder"})
        return
    made_from = {"kind": "zip", "zip_size": stamp.size, "zip_mtime_ns": stamp.mtime_ns}
    kept = read_index(index)
    if kept is None or kept[1] != made_from:
        _write_index(index, _zip_table(where), made_from)


def read_index(index: Path) -> tuple[pa.Table, dict[str, Any]] | None:
    """Return an index and what it was made from, or None where there is none of this version."""
    try:
        with whole(index) as opened:
            table = pq.ParquetFile(opened).read()
        made_from = json.loads((table.schema.metadata or {})[b"vehclust"])
    except (FileNotFoundError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    if any(made_from.pop(key, None) != value for key, value in _SCHEMA.items()):
        return None
    return table, made_from


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    # macOS puts a shadow file of the same ending beside every picture it packs.
    shadow = path.name.startswith("._") or path.parts[:1] == ("__MACOSX",)
    return path.suffix.lower() in PICTURE_SUFFIXES and not shadow


def _walk(root: Path) -> Iterator[str]:
    """Yield the photos below a folder by relative path; links that lead out of it are no photos."""
    if is_url(root):
        yield from filter(_is_picture, files_below(root))
        return
    real_root = os.path.realpath(root)
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(os.path.join(real_root, folder)) as found:
                entries = list(found)
        except OSError as error:
            raise BadInput(f"cannot list {root / folder}: {error.strerror}") from error
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                todo.append(name)
            elif _is_picture(name) and _stays(entry, real_root) and _is_text(name):
                yield name


def _stays(entry: os.DirEntry[str], real_root: str) -> bool:
    if not entry.is_symlink():
        return entry.is_file()
    target = os.path.realpath(entry.path)
    return os.path.commonpath([real_root, target]) == real_root and os.path.isfile(target)


def _is_text(name: str) -> bool:
    """Tell whether a file name is valid UTF-8; others cannot stand in a list of paths."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _zip_table(where: Path) -> pa.Table:
    """Read the central directory of a zip into the table of an index."""
    try:
        with stream(where) as opened, zipfile.ZipFile(opened) as archive:
            members = {
                name: member
                for member in archive.infolist()
                if _is_picture(name := member.filename.replace("\\", "/"))
            }
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError) as error:
        raise BadInput(f"{where} {_what_is_wrong(where)} ({error})") from error
    for name, member in members.items():
        if member.flag_bits & 0x1:
            raise BadInput(f"{where} is encrypted ('{name}'); pack the photos without a password")
        if member.compress_type not in _METHODS:
            raise BadInput(
                f"{where} packs '{name}' by method {member.compress_type}; "
                f"allowed: {' and '.join(_METHODS.values())}; pack the photos again, for example "
                "with zip -0"
            )
    names = sorted(members)
    chosen = [members[name] for name in names]
    return pa.table(
        {
            "name": pa.array(names, pa.string()),
            "header_offset": pa.array([m.header_offset for m in chosen], pa.int64()),
            "size": pa.array([m.compress_size for m in chosen], pa.int64()),
            "file_size": pa.array([m.file_size for m in chosen], pa.int64()),
            "method": pa.array([m.compress_type for m in chosen], pa.int16()),
        }
    )


def _what_is_wrong(where: Path) -> str:
    try:
        with stream(where) as file:
            begins_well = file.read(4) == b"PK\x03\x04"
    except OSError:
        return "cannot be read; check its permissions"
    if begins_well:
        return "begins like a zip but is not whole; copy it again"
    return "is neither a folder nor a zip; give one of them"


def _write_index(index: Path, table: pa.Table, made_from: dict[str, Any]) -> None:
    """Write an index under a temporary name and let it appear whole."""
    stamp = json.dumps(made_from | _SCHEMA, sort_keys=True)
    table = table.replace_schema_metadata({"vehclust": stamp})
    numbers = [name for name in table.column_names if name != "name"]
    encoding = {"name": "DELTA_BYTE_ARRAY"} | dict.fromkeys(numbers, "DELTA_BINARY_PACKED")
    write_by(
        index,
        lambda out: pq.write_table(
            table, out, compression="zstd", use_dictionary=False, column_encoding=encoding
        ),
    )
