"""Files and folders that become visible whole or not at all; locks; digests; free space."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import Conflict, NotEnough, UsageError

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
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}{PARTIAL}")
    with open(beside, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, file)


def write_by(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let a function write a large file that is seen whole or not at all; it can be made again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}{PARTIAL}")
    with open(beside, "wb") as out:
        write(out)
    os.replace(beside, file)


def write_json(file: Path, value: Any) -> None:
    """Write readable JSON with sorted keys, whole or not at all."""
    write_text(file, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n")


def read_json(file: Path) -> Any:
    """Read a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writers that were killed, ours and zarr's, below a folder."""
    for file in folder.rglob("*"):
        if file.is_file() and (file.name.startswith(".") or file.name.endswith(PARTIAL)):
            file.unlink()


def publish(partial: Path, final: Path) -> None:
    """Make a finished folder visible; where another writer was first, keep its (identical) folder."""
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
        If it is a URL of another kind of storage, or cannot be written.
    """
    if "://" in str(workdir):
        raise UsageError(
            f"workdir {workdir}: this version keeps its work in a folder that every worker sees; "
            "give a path"
        )
    folder = Path(workdir)
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


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse work whose result does not fit on the disk.

    Raises
    ------
    NotEnough
        With what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnough(
            f"{what} needs {show_bytes(needed)} on the disk of {folder}, where {show_bytes(free)} are "
            "free; free some space or give another folder by --workdir"
        )
