"""Open matrices that lie in chunks: zarr folders and HDF5 files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store.source_arrays import (
    check_range,
    file_fingerprint,
    put_float32,
    take_rows,
)
from vehclust_dask.store.source_files import check_matrix, choose_key, refuse
from vehclust_dask.store.storage import at, files_below, readable, zarr_options

#: Bytes of a matrix that are read at a time, beside the result.
_BUFFER = 16 << 20
#: Rows that are read rather than jumped over: a chunk is decoded whole anyway.
_MAX_GAP = 256

#: Codecs that only move or shrink bytes; zarr 2 also knows one that would load pickles.
_SAFE_CODECS = frozenset(
    {
        "blosc",
        "zstd",
        "lz4",
        "gzip",
        "zlib",
        "bz2",
        "lzma",
        "shuffle",
        "delta",
        "bitround",
        "fixedscaleoffset",
        "quantize",
        "astype",
        "packbits",
        "crc32",
        "crc32c",
        "adler32",
        "fletcher32",
        "jenkins_lookup3",
        "zfpy",
        "pcodec",
        "bytes",
        "transpose",
        "sharding_indexed",
    }
)


@dataclass(frozen=True)
class ChunkedSource:
    """A matrix in a zarr folder or in an HDF5 file.

    Parameters
    ----------
    file : str
    key : str or None
        The array inside, as it was asked for.
    array : str
        The array inside; empty for a zarr folder that is the array.
    n_rows, n_features : int
    dtype : str
        Type in the file, as numpy writes it.
    """

    file: str
    key: str | None
    array: str
    n_rows: int
    n_features: int
    dtype: str

    @property
    def payload_bytes(self) -> int:
        """Return the bytes of all numbers, decompressed."""
        return self.n_rows * self.n_features * np.dtype(self.dtype).itemsize

    @property
    def paths(self) -> tuple[str, ...] | None:
        """Return None: such a file names no rows."""
        return None

    def fingerprint(self) -> dict[str, Any]:
        """Return size and time of change; of a folder the sums of its files and the newest."""
        if _is_folder(self.file):
            return _folder_fingerprint(self.file)
        return file_fingerprint(self.file)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows: ndarray of shape (stop - start, n_features), float32, C order.

        Memory beside it: the chunks that 16 MiB of rows touch.
        """
        check_range(self, start, stop)
        out = np.empty((stop - start, self.n_features), np.float32)
        if _is_folder(self.file):
            self._copy(_zarr_array(self.file, self.array), out, start)
            return out
        with _hdf5_file(self.file) as container:
            self._copy(self._dataset(container), out, start)
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in any order: ndarray of shape (len(rows), n_features), float32."""
        return take_rows(self, rows, _MAX_GAP)

    def _dataset(self, container: Any) -> Any:
        try:
            return container[self.array]
        except (KeyError, ValueError, OSError, RuntimeError) as error:
            message = f"{self.file} has no readable '{self.array}' any more: {error}"
            raise BadInput(message) from error

    def _copy(self, array: Any, out: NDArray[np.float32], start: int) -> None:
        if array.shape != (self.n_rows, self.n_features):
            raise BadInput(f"{self.file} changed since it was opened: shape {array.shape}")
        step = max(1, _BUFFER // (self.n_features * np.dtype(self.dtype).itemsize))
        for first in range(0, len(out), step):
            part = out[first : first + step]
            begin = start + first
            try:
                values = array[begin : begin + len(part)]
            except (OSError, ValueError, RuntimeError) as error:
                message = f"{self.file} is damaged near row {begin:,}: {error}"
                raise BadInput(message) from error
            put_float32(part, np.asarray(values))


def _is_folder(file: str) -> bool:
    return at(file).is_dir()


def _has(folder: str, name: str) -> bool:
    return (at(folder) / name).is_file()


def _folder_fingerprint(folder: str) -> dict[str, Any]:
    files = list(files_below(folder).values())
    return {
        "size": sum(file.size for file in files),
        "mtime_ns": max((file.mtime_ns for file in files), default=0),
        "files": len(files),
    }


def open_zarr(folder: str, key: str | None) -> ChunkedSource:
    """Open a zarr folder, format 2 or 3: a matrix, or a group and the key of a matrix in it."""
    if _kind_of(folder) == "array":
        if key is not None:
            refuse(folder, f"is one array and has no key '{key}'; leave the key out")
        name = ""
    else:
        name = choose_key(folder, key, _zarr_keys(folder))
    array = _zarr_array(folder, name)
    what = f"['{name}'] " if name else ""
    n_rows, n_features = check_matrix(folder, what, tuple(array.shape), array.dtype.str)
    return ChunkedSource(folder, key, name, n_rows, n_features, array.dtype.str)


def _kind_of(folder: str) -> str | None:
    """Say what a folder holds by its metadata: array, group or None."""
    for name, kind in ((".zarray", "array"), (".zgroup", "group")):
        if _has(folder, name):
            return kind
    if _has(folder, "zarr.json"):
        node = _metadata(folder, "zarr.json").get("node_type")
        return str(node) if node in ("array", "group") else None
    return None


def _metadata(folder: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads((at(folder) / name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{folder} is damaged: {name} cannot be read ({error})") from error
    if not isinstance(found, dict):
        refuse(folder, f"is damaged: {name} is no JSON object")
    return found


def _zarr_keys(folder: str) -> list[str]:
    """Return the arrays in a group, by their paths in it."""
    if _kind_of(folder) is None:
        refuse(folder, "is no zarr folder: it has neither zarr.json nor .zarray nor .zgroup")
    keys, groups = [], [""]
    for group in groups:
        inside = sorted(one.name for one in (at(folder) / group).iterdir() if one.is_dir())
        for name in (f"{group}/{one}" if group else one for one in inside):
            kind = _kind_of(f"{folder}/{name}")
            if kind == "array":
                keys.append(name)
            elif kind == "group":
                groups.append(name)
    return keys


def _zarr_array(folder: str, name: str) -> Any:
    """Open an array once its codecs are known to be harmless."""
    import zarr

    place = f"{folder}/{name}" if name else folder
    _check_codecs(folder, place)
    try:
        return zarr.open_array(place, mode="r", storage_options=zarr_options(place))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BadInput(f"{folder} cannot be read as zarr: {error}") from error


def _check_codecs(folder: str, place: str) -> None:
    if _has(place, "zarr.json"):
        names = _codec_names(_metadata(place, "zarr.json").get("codecs"))
    else:
        metadata = _metadata(place, ".zarray")
        names = _codec_names([metadata.get("compressor"), *(metadata.get("filters") or [])])
    for name in names:
        if name.removeprefix("numcodecs.") not in _SAFE_CODECS:
            refuse(folder, f"uses the codec '{name}', which is not read here (it could run code)")


def _codec_names(codecs: Any) -> list[str]:
    """Return the names of codecs, also of those inside shards."""
    names: list[str] = []
    for codec in codecs if isinstance(codecs, list) else []:
        if isinstance(codec, str):
            names.append(codec)
        elif isinstance(codec, dict):
            names.append(str(codec.get("id", codec.get("name"))))
            inner = codec.get("configuration")
            for part in ("codecs", "index_codecs"):
                names += _codec_names(inner.get(part) if isinstance(inner, dict) else None)
    return names


def _hdf5_file(file: str) -> Any:
    try:
        import h5py
    except ImportError:
        message = f"{file} is an HDF5 file, which needs h5py: pip install 'vehclust-dask[hdf5]'"
        raise BadInput(message) from None
    try:
        return h5py.File(readable(file), "r")
    except OSError as error:
        raise BadInput(f"{file} cannot be read as HDF5: {error}") from error


def open_hdf5(file: str, key: str | None) -> ChunkedSource:
    """Open a dataset of an HDF5 file; links to other files are not followed."""
    with _hdf5_file(file) as container:
        keys: dict[str, tuple[tuple[int, ...], str]] = {}

        def note(name: str, node: Any) -> None:
            if hasattr(node, "shape") and node.shape is not None:
                inside = node.external is None and not node.is_virtual
                keys[name] = (node.shape, node.dtype.str if inside else "")

        try:
            container.visititems(note)  # does not follow soft or external links
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{file} cannot be read as HDF5: {error}") from error
    wanted = key.strip("/") if key is not None else None
    matrices = [name for name, (shape, _) in keys.items() if len(shape) == 2]
    name = choose_key(file, wanted, matrices if wanted is None and matrices else list(keys))
    shape, dtype = keys[name]
    if not dtype:
        refuse(file, f"['{name}'] keeps its numbers in other files, which are not read")
    n_rows, n_features = check_matrix(file, f"['{name}'] ", shape, dtype)
    return ChunkedSource(file, key, name, n_rows, n_features, dtype)
