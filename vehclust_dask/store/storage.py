"""One door to files: of this machine and of object stores, by path or URL.

A path is a ``pathlib.Path``; a URL of an object store (any that fsspec knows, ``s3://bucket/work``)
becomes an object with the same methods. What the two do not share is here: reading from any
position, creating what must not be there yet, removing a whole folder, preparing one elsewhere.

Credentials come from the environment that the store's own library reads (``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, profiles), never from a job, a place or a URL.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from vehclust_dask.errors import BadInput, UsageError

#: Bytes of an object that a stream fetches at a time.
_FETCH = 1 << 20
#: Bytes between two reads of which the second still follows the first.
_NEAR = 1 << 16
#: How often a request is made again that the store refused for now (503, time out).
_ATTEMPTS = 10
#: How long to wait for a store: a connection, an answer, seconds.
_PATIENCE = 20
#: An object store without folders still answers that one exists; temporary names have this part.
_SLASHES = "://"


def is_url(place: object) -> bool:
    """Say whether a file lies on an object store."""
    text = str(place)
    return _SLASHES in text and not text.startswith("file://")


@functools.cache
def options(scheme: str) -> dict[str, Any]:
    """Return how a kind of object store is opened: no listing is remembered, refusals are tried again."""
    known: dict[str, Any] = {"use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        known["config_kwargs"] = {
            "retries": {"mode": "standard", "max_attempts": _ATTEMPTS},
            "connect_timeout": _PATIENCE,
            "read_timeout": 3 * _PATIENCE,
        }
    return known


def at(place: str | os.PathLike[str]) -> Path:
    """Return a file or folder by its path or URL; either answers as a ``pathlib.Path`` does.

    Raises
    ------
    UsageError
        For a URL that holds credentials, or of a kind that is not known or not installed.
    """
    if not isinstance(place, str):
        return cast("Path", place)
    if not is_url(place):
        return Path(place.removeprefix("file://"))
    scheme, _, rest = place.partition(_SLASHES)
    if "@" in rest.partition("/")[0]:
        raise UsageError(
            f"a URL of {scheme} holds credentials; leave them out and set the store's environment "
            "variables instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3)"
        )
    try:
        from upath import UPath

        found = UPath(place, **options(scheme))
        assert found.fs is not None, "asking for it loads the store's library"
    except ImportError as error:
        raise UsageError(
            f"{place}: {error}; install it with pip install 'vehclust-dask[s3]' for s3, or fsspec's "
            f"package for {scheme}"
        ) from None
    except ValueError as error:
        raise UsageError(
            f"{place}: {error}; give a path, or a URL like s3://bucket/folder"
        ) from None
    return cast("Path", found)


def _store(place: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the file system of a URL and the name of the file there."""
    found: Any = at(place)
    return found.fs, found.path


def stream(place: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading from any position, piece by piece."""
    if not is_url(place):
        return open(place, "rb")
    fs, name = _store(place)
    found: IO[bytes] = fs.open(name, "rb", block_size=_FETCH, cache_type="readahead")
    return found


def readable(place: str | os.PathLike[str]) -> Any:
    """Return what pyarrow and h5py open: a path as it is, an object as a stream."""
    return stream(place) if is_url(place) else place


def whole(place: str | os.PathLike[str]) -> IO[bytes]:
    """Open a small file: one of an object store is fetched by one request."""
    return io.BytesIO(read(place)) if is_url(place) else open(place, "rb")


def read(place: str | os.PathLike[str]) -> bytes:
    """Return a small file's bytes; one request for an object."""
    if not is_url(place):
        return Path(place).read_bytes()
    fs, name = _store(place)
    found: bytes = fs.cat_file(name)
    return found


def put(place: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write an object, which is seen whole or not at all; one request."""
    fs, name = _store(place)
    fs.pipe_file(name, bytes(content))


@dataclass(frozen=True)
class About:
    """Size of a file in bytes, and when it changed."""

    size: int
    mtime_ns: int


def about(place: str | os.PathLike[str]) -> About:
    """Return size and time of change of a file.

    Raises
    ------
    OSError
    """
    if not is_url(place):
        stat = os.stat(place)
        return About(stat.st_size, stat.st_mtime_ns)
    fs, name = _store(place)
    info = fs.info(name)
    if info["type"] != "file":
        raise IsADirectoryError(21, "Is a directory", str(place))
    return About(int(info["size"]), _changed(info))


def files_below(folder: str | os.PathLike[str]) -> dict[str, About]:
    """Return every file below a folder by its path in it, sorted."""
    found: dict[str, About] = {}
    if is_url(folder):
        fs, name = _store(folder)
        for full, info in fs.find(name, detail=True).items():
            found[full[len(name) :].lstrip("/")] = About(int(info["size"]), _changed(info))
    else:
        for top, _, names in os.walk(folder):
            for one in names:
                full = os.path.join(top, one)
                found[os.path.relpath(full, folder)] = about(full)
    return dict(sorted(found.items()))


def zarr_options(place: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return what zarr is told of the storage of a path or URL."""
    return dict(options(str(place).partition(_SLASHES)[0])) if is_url(place) else None


def _changed(info: dict[str, Any]) -> int:
    """Return a number that changes with an object: its time where it has one, else its tag."""
    time: Any = info.get("LastModified") or info.get("mtime") or info.get("created")
    if hasattr(time, "timestamp"):
        return int(time.timestamp()) * 1_000_000_000
    tag = str(info.get("ETag") or info.get("etag") or "")
    return int(hashlib.sha256(tag.encode()).hexdigest()[:15], 16)


class Reader:
    """A file that is read from any position, without mapping it.

    Parameters
    ----------
    place : str or Path
        A path or a URL.

    Raises
    ------
    OSError
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.name = str(place)
        self._fd = -1
        self._window = (0, b"")
        if is_url(place):
            self._fs, self._path = _store(place)
            self._about = about(place)
        else:
            self._fd = os.open(place, os.O_RDONLY)
            stat = os.fstat(self._fd)
            self._about = About(stat.st_size, stat.st_mtime_ns)

    @property
    def about(self) -> About:
        """Return size and time of change as they were when it was opened."""
        return self._about

    @property
    def far(self) -> bool:
        """Say whether a request takes as long as reading a MiB: better read than jump over."""
        return self._fd < 0

    def pread(self, length: int, offset: int) -> bytes:
        """Return up to ``length`` bytes from a position on; fewer at the end."""
        if self._fd >= 0:
            return os.pread(self._fd, length, offset)
        stop = min(offset + length, self._about.size)
        if stop <= offset:
            return b""
        first, window = self._window
        if not first <= offset <= stop <= first + len(window):
            # A request takes as long as a MiB: who reads on gets the following pieces with it.
            follows = 0 <= offset - first - len(window) <= _NEAR
            ahead = min(max(stop, offset + _FETCH), self._about.size) if follows else stop
            first, window = offset, self._fs.cat_file(self._path, start=offset, end=ahead)
            self._window = (first, window if len(window) <= _FETCH else b"")
        return bytes(window[offset - first : stop - first])

    def fill(self, view: memoryview, offset: int) -> None:
        """Fill a buffer from a position on; one call of the system reads at most 2 GiB.

        Raises
        ------
        BadInput
            If the file ends before.
        """
        done = 0
        while done < len(view):
            if self._fd >= 0:
                n = os.preadv(self._fd, [view[done:]], offset + done)
            else:
                piece = self.pread(len(view) - done, offset + done)
                n = len(piece)
                view[done : done + n] = piece
            if n == 0:
                raise BadInput(
                    f"{self.name} ends at byte {offset + done:,}: it changed since it was opened"
                )
            done += n

    def close(self) -> None:
        """Close it; more than once does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -2

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def create(file: Path, content: bytes) -> bool:
    """Write a small file unless there is one; say whether it was written, at once for everybody."""
    if not is_url(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}.partial")
        beside.write_bytes(content)
        try:
            os.link(beside, file)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
        return True
    fs, name = _store(file)
    try:
        fs.pipe_file(name, content, mode="create")
    except FileExistsError:
        return False
    except OSError:
        # A store says "precondition failed"; a request that was made again may have met itself.
        if not file.exists():
            raise
        return read(file) == content
    return True


def tag_of(file: Path) -> str:
    """Return the tag of the version of an object that is there now."""
    fs, name = _store(file)
    return str(fs.info(name).get("ETag") or "")


def replace(file: Path, content: bytes, tag: str) -> str | None:
    """Write an object only over the version of this tag; return the new tag, None for refused."""
    fs, name = _store(file)
    try:
        fs.pipe_file(name, content, **({"IfMatch": tag} if tag else {}))
    except OSError:
        if not file.exists() or read(file) != content:
            return None
    return tag_of(file)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; none is fine."""
    if not is_url(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    fs, name = _store(folder)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(name, recursive=True)


def upload(source: Path, target: Path, last: str) -> None:
    """Copy a folder to an object store, the file ``last`` after all others.

    Objects of the target that the source does not have are removed first: the target is then what
    the source is.
    """
    fs, name = _store(target)
    files = sorted(f for f in source.rglob("*") if f.is_file())
    kept = {f"{name}/{f.relative_to(source).as_posix()}" for f in files}
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(f"{name}/{last}")
    stale = [one for one in fs.find(name) if one not in kept]
    if stale:
        fs.rm(stale)
    for file in sorted(files, key=lambda f: f == source / last):
        fs.put_file(str(file), f"{name}/{file.relative_to(source).as_posix()}")


@contextlib.contextmanager
def here(folder: Path, last: str) -> Iterator[Path]:
    """Give the folder to write: itself, or one of this machine that is sent to the store at the end.

    Parameters
    ----------
    folder : Path
    last : str
        The file that makes it whole, sent after all others.

    Yields
    ------
    Path
        Not made yet where it is to be sent.
    """
    if not is_url(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vehclust-") as scratch:
        prepared = Path(scratch) / folder.name
        yield prepared
        upload(prepared, folder, last)
