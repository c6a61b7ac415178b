"""Files and folders that become visible whole or not at all; locks; digests; free space."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import Conflict, NotEnough, UsageError
from vehclust_dask.store.leases import lease
from vehclust_dask.store.storage import at, create, is_url, put, read, whole

#: Suffix of a folder that is being written.
PARTIAL = ".partial"


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """Return 16 hexadecimal digits that name a plain value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def write_text(file: Path, text: str) -> None:
    """Write a text file that is seen whole or not at all."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file that is seen whole or not at all."""
    if is_url(file):
        put(file, content)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}{PARTIAL}")
    with open(beside, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, file)


def write_by(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let a function write a large file that is seen whole or not at all; it can be made again."""
    if is_url(file):
        content = io.BytesIO()
        write(content)
        put(file, content.getbuffer())
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}{PARTIAL}")
    with open(beside, "wb") as out:
        write(out)
    os.replace(beside, file)


def write_json(file: Path, value: Any) -> None:
    """Write readable JSON with sorted keys, whole or not at all."""
    write_text(file, _readable(value))


def _readable(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def write_last(file: Path, value: Any) -> None:
    """Write the record that says its folder is whole; of two writers the first one's stays."""
    if is_url(file):
        create(file, _readable(value).encode())
    else:
        write_json(file, value)


def read_json(file: Path) -> Any:
    """Read a JSON file."""
    return json.loads(read(file).decode("utf-8"))


@contextlib.contextmanager
def open_arrays(file: Path) -> Iterator[Any]:
    """Open a file of named arrays as ``numpy.savez`` writes it."""
    with whole(file) as opened, np.load(opened, allow_pickle=False) as stored:
        yield stored


def read_array(file: Path) -> NDArray[Any]:
    """Read one array as ``numpy.save`` writes it."""
    with whole(file) as opened:
        found: NDArray[Any] = np.load(opened, allow_pickle=False)
    return found


def read_table(file: Path) -> pd.DataFrame:
    """Read a parquet table."""
    with whole(file) as opened:
        return pd.read_parquet(opened)


def write_table(table: pd.DataFrame, file: Path, *, index: bool | None = False) -> None:
    """Write a parquet table that is seen whole or not at all."""
    write_by(file, lambda out: table.to_parquet(out, index=index))


def partial_of(folder: Path, hidden: bool = False) -> Path:
    """Return where a folder is written before it is whole.

    An object store renames nothing: there a folder is written in place, and a record written last
    says that it is whole.
    """
    if is_url(folder):
        return folder
    return folder.with_name(f"{'.' if hidden else ''}{folder.name}{PARTIAL}")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writers that were killed, ours and zarr's, below a folder."""
    if is_url(folder):
        return
    for file in folder.rglob("*"):
        if file.is_file() and (file.name.startswith(".") or file.name.endswith(PARTIAL)):
            file.unlink()


def publish(partial: Path, final: Path) -> None:
    """Make a finished folder visible; where another writer was first, keep its (identical) folder."""
    if partial == final:
        return
    try:
        os.rename(partial, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def owner_lock(file: Path, what: str) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends.

    Raises
    ------
    Conflict
        If another process holds it.
    """
    if is_url(file):
        with lease(file, what):
            yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip()
            raise Conflict(
                f"{what} is being written by {owner or 'another process'}; "
                "wait until it is done, or stop it, then run again"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def open_workdir(workdir: str | Path) -> Path:
    """Make the work folder if need be and check that it can be written.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    folder = at(str(workdir))
    if is_url(folder):
        _probe(folder)
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"workdir {folder} cannot be written ({error.strerror}); "
            "give a folder of yours by --workdir or WORKDIR="
        ) from None
    return folder.resolve()


def _probe(folder: Path) -> None:
    """Write, read and remove a small object of a work folder on an object store."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"probe")
        came_back = probe.read_bytes()
        probe.unlink()
    except Exception as error:  # each store's library has errors of its own
        told = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"workdir {folder} cannot be written ({told}); check that the bucket exists, and the "
            "environment variables that hold address and credentials (AWS_ENDPOINT_URL, "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY for s3)"
        ) from None
    if came_back != b"probe":
        raise UsageError(f"workdir {folder} gives back other bytes than were written; use another")


def scratch_root(workdir: Path) -> Path:
    """Return where this machine may keep what does not belong to the work: files of workers, say."""
    if is_url(workdir):
        folder = Path(tempfile.gettempdir()) / f"vehclust-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder
    return workdir


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse work whose result does not fit on the disk.

    Raises
    ------
    NotEnough
        With what is needed and what is free.
    """
    if is_url(folder):
        return
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnough(
            f"{what} needs {show_bytes(needed)} on the disk of {folder}, where {show_bytes(free)} are "
            "free; free some space or give another folder by --workdir"
        )
