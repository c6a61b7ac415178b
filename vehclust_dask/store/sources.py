"""Descriptor files of any size, read by row ranges, whatever their format."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store import source_chunks, source_files, source_tables
from vehclust_dask.store.storage import at, is_url, stream

_PICKLE_ENDINGS = (".pickle", ".pkl", ".p", ".pck")
_FORMATS = "pickle, npy, npz, parquet, zarr, safetensors or hdf5"
#: First bytes of compressed files, which cannot be read by rows.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@runtime_checkable
class Source(Protocol):
    """A matrix of descriptors in a file; small, and opens its file anew wherever it is read.

    A source can be sent to another process: it holds no open file and no rows. ``paths`` stay
    behind in the process that opened the file.

    Attributes
    ----------
    file : str
        The absolute path of the file.
    key : str or None
        Which matrix of the file.
    n_rows, n_features : int
    dtype : str
        Type of the numbers in the file, as numpy writes it (``<f4``).
    payload_bytes : int
        Bytes of all numbers in that type.
    paths : tuple of str or None
        The path of each row, normalised, where the file tells.
    """

    @property
    def file(self) -> str:
        """Return the absolute path of the file."""
        ...

    @property
    def key(self) -> str | None:
        """Return which matrix of the file was asked for."""
        ...

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        ...

    @property
    def dtype(self) -> str:
        """Return the type of the numbers in the file."""
        ...

    @property
    def payload_bytes(self) -> int:
        """Return the bytes of all numbers in that type."""
        ...

    @property
    def paths(self) -> tuple[str, ...] | None:
        """Return the path of each row, normalised, or None."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows ``start`` to ``stop``: float32, C order; too large values are infinite."""
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in any order: float32, C order."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes when the file changes: its size and time of change."""
        ...


def open_source(file: str | Path, key: str | None = None) -> Source:
    """Open a file of descriptors without loading it.

    Parameters
    ----------
    file : str or Path
        A pickle, npy, npz, parquet, safetensors or HDF5 file, or a zarr folder; recognised by its
        first bytes, then by its ending.
    key : str, optional
        Which matrix, where the file holds several.

    Returns
    -------
    Source

    Raises
    ------
    BadInput
        If there is no such file, it is damaged, or it holds no matrix of plain numbers.

    Notes
    -----
    Milliseconds, except: a pickle of protocol 0 to 2 is read through once, and a pickle of many
    small vectors is walked (about half a minute to a minute for a million).
    """
    path = at(str(file)) if is_url(file) else Path(os.path.abspath(os.path.expanduser(file)))
    name = str(path)
    try:
        if path.is_dir():
            return source_chunks.open_zarr(name, key)
        if not path.exists():
            raise BadInput(f"there is no file {name}{_near(path)}")
        with stream(name) as opened:
            head = opened.read(16)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}") from error
    return _open_file(name, path.suffix.lower(), head, key)


def _open_file(name: str, ending: str, head: bytes, key: str | None) -> Source:
    """Choose by the first bytes, then by the ending."""
    if not head:
        raise BadInput(f"{name} is empty")
    for magic, method in _COMPRESSED.items():
        if head.startswith(magic):
            raise BadInput(f"{name} is compressed by {method}; unpack it first")
    if head.startswith(b"\x93NUMPY"):
        return source_files.open_npy(name, key)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return source_files.open_npz(name, key)
    if head.startswith(b"PAR1"):
        return source_tables.open_parquet(name, key)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return source_chunks.open_hdf5(name, key)
    if ending == ".safetensors":
        return source_files.open_safetensors(name, key)
    if ending in _PICKLE_ENDINGS or head[:1] == b"\x80":
        return source_files.open_pickle(name, key)
    raise BadInput(f"{name} is none of the formats that are read: {_FORMATS}")


def _near(path: Path) -> str:
    """Name a file beside it that was probably meant."""
    if not path.parent.is_dir():
        return f", and no folder {path.parent}"
    beside = [other.name for other in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
