"""Matrices in zarr, one array per part, a chunk per block, every chunk with a checksum."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, Endian, ZstdCodec

from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput
from vehclust_dask.records import RowGrid, Span
from vehclust_dask.store.folders import PARTIAL
from vehclust_dask.store.storage import at, is_url, zarr_options

SCHEMA_VERSION = 1
#: Most bytes of a piece of a shard.
PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class Matrix:
    """A handle of a matrix on storage: it travels into tasks, rows are read where they are needed.

    Attributes
    ----------
    paths : tuple of str
        Folder of the zarr array of every part.
    grid : RowGrid
    n_features : int
        Number of columns.
    dtype : str
    digest : str
        Names the content; the cache of a worker goes by it.
    """

    paths: tuple[str, ...]
    grid: RowGrid
    n_features: int
    dtype: str
    digest: str

    def read(self, i: int) -> NDArray[Any]:
        """Return block ``i``; kept by the worker while there is room. Not to be written into."""
        return CACHE.of(self.digest, (self.paths[0], i), lambda: self.load(i), lambda X: X.nbytes)

    def load(self, i: int) -> NDArray[Any]:
        """Return block ``i`` from storage and keep nothing: for rows that are passed by once."""
        span = self.grid.span(i)
        path = self.paths[span.part]
        if not self._is_known(i):
            # It would read as fill values without a word.
            raise BadInput(f"block {i} of {path} is missing; delete that folder and run again")
        try:
            block = np.asarray(_open(path)[span.start : span.stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"block {i} of {path} cannot be read ({error}); delete that folder and run again"
            ) from error
        block.flags.writeable = False
        return block

    def write(self, i: int, block: NDArray[Any]) -> None:
        """Write block ``i``: a whole chunk, so that tasks never share one."""
        span = self.grid.span(i)
        array = _open(self.paths[span.part], "r+")
        if _is_plain(self.paths[span.part]) and block.shape == array.chunks:
            _write_chunk(self._chunk(span), np.ascontiguousarray(block, dtype=self.dtype))
        else:
            array[span.start : span.stop] = block
            _note_written(str(self._chunk(span)))

    def write_rows(self, values: NDArray[Any]) -> None:
        """Write all blocks from values of shape (n_rows, n_features), in the matrix's type."""
        for i, span in enumerate(self.grid.spans()):
            block = values[span.row0 : span.row0 + span.n_rows]
            self.write(i, block.astype(self.dtype, copy=False))

    def is_written(self, i: int) -> bool:
        """Say whether block ``i`` is on storage."""
        return self._chunk(self.grid.span(i)).exists()

    def _is_known(self, i: int) -> bool:
        """Say whether block ``i`` is on storage; an object store is asked once, blocks do not go."""
        span = self.grid.span(i)
        if not is_url(self.paths[span.part]):
            return self.is_written(i)
        if str(self._chunk(span)) in _WRITTEN:
            return True
        if self.is_written(i):
            _note_written(str(self._chunk(span)))
            return True
        return False

    def _chunk(self, span: Span) -> Path:
        return at(self.paths[span.part]) / "c" / str(span.start // self.grid.block_rows) / "0"

    def check_whole(self) -> None:
        """Refuse a matrix with blocks missing: they would read as fill values without a word."""
        absent = [i for i in range(self.grid.n_blocks) if not self.is_written(i)]
        if absent:
            raise BadInput(
                f"{len(absent)} of {self.grid.n_blocks} blocks of {self.paths[0]} are missing "
                f"(the first is {absent[0]}); delete that folder and run again"
            )

    def moved(self, old: Path, new: Path) -> Matrix:
        """Return the handle after its folder was renamed."""
        paths = tuple(str(new / at(p).relative_to(old)) for p in self.paths)
        return Matrix(paths, self.grid, self.n_features, self.dtype, self.digest)

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return the handle as plain values, its paths relative to ``root``."""
        return {
            "paths": [str(at(p).relative_to(root)) for p in self.paths],
            "part_rows": list(self.grid.part_rows),
            "block_rows": self.grid.block_rows,
            "n_features": self.n_features,
            "dtype": self.dtype,
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any], root: Path) -> Matrix:
        """Return the handle that `to_json` wrote."""
        return cls(
            tuple(str(root / p) for p in record["paths"]),
            RowGrid(tuple(record["part_rows"]), record["block_rows"]),
            record["n_features"],
            record["dtype"],
            record["digest"],
        )


#: Blocks of object stores that are known to be there, in this process.
_WRITTEN: set[str] = set()
_MOST_NOTED = 1 << 16


def _note_written(chunk: str) -> None:
    if len(_WRITTEN) >= _MOST_NOTED:
        _WRITTEN.clear()
    _WRITTEN.add(chunk)


@functools.lru_cache(maxsize=64)
def _open(path: str, mode: str = "r") -> Any:
    # An all-zero chunk must be written too, or it could not be told from a missing one.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(path, mode=mode, storage_options=zarr_options(path))


@functools.lru_cache(maxsize=64)
def _is_plain(path: str) -> bool:
    """Say whether a chunk of the array is its bytes and their checksum, nothing else."""
    if is_url(path):
        return False
    little, *others = _open(path).metadata.codecs
    plain = isinstance(little, BytesCodec) and little.endian in (None, Endian.little)
    return plain and [type(codec) for codec in others] == [Crc32cCodec]


def _write_chunk(file: Path, block: NDArray[Any]) -> None:
    """Write a whole chunk as zarr would: its bytes, then their checksum; seen whole or not at all.

    zarr's own way to the file copies a chunk twice and hands it from thread to thread, which takes
    three times as long as writing it.
    """
    raw = block.reshape(-1).view(np.uint8)
    checksum = google_crc32c.value(raw).to_bytes(4, "little")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}{PARTIAL}")
    with open(beside, "wb", buffering=0) as out:
        rest = memoryview(raw.data)
        while rest:
            rest = rest[out.write(rest) :]
        out.write(checksum)
    os.replace(beside, file)


def create_matrix(
    folder: Path,
    name: str,
    grid: RowGrid,
    n_features: int,
    dtype: str,
    *,
    digest: str,
    compress: str = "none",
    attributes: dict[str, Any] | None = None,
) -> Matrix:
    """Create the arrays of a matrix, or find those an interrupted run created.

    Parameters
    ----------
    folder : Path
        A zarr group; made if absent.
    name : str
        The array of part p is called ``<name>/part-<p>``.
    grid : RowGrid
    n_features : int
    dtype : str
    digest : str
        Of the content, known from what it is made from.
    compress : {'none', 'zstd'}
    attributes : dict
        Written with every array; no times, so that the same content gives the same bytes.
    """
    paths = [folder / name / f"part-{p:04d}" for p in range(len(grid.part_rows))]
    for path, rows in zip(paths, grid.part_rows, strict=True):
        create_array(path, rows, grid.block_rows, n_features, dtype, compress, attributes or {})
    return Matrix(tuple(str(p) for p in paths), grid, n_features, dtype, digest)


def create_array(
    path: Path,
    n_rows: int,
    block_rows: int,
    n_features: int,
    dtype: str,
    compress: str,
    attributes: dict[str, Any],
) -> None:
    """Create one zarr array with a chunk per block, unless it is there."""
    if (path / "zarr.json").exists():
        return
    rows = max(1, min(block_rows, n_rows))
    chunk_rows = _chunk_rows(path, rows, n_features * np.dtype(dtype).itemsize)
    zarr.create_array(
        str(path),
        shape=(n_rows, n_features),
        chunks=(chunk_rows, n_features),
        shards=None if chunk_rows == rows else (rows, n_features),
        dtype=dtype,
        compressors=_codecs(compress),
        filters=None,
        fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
        attributes={"schema": "vehclust-matrix", "schema_version": SCHEMA_VERSION} | attributes,
        dimension_names=("row", "column"),
        overwrite=False,
        storage_options=zarr_options(path),
    )


def _chunk_rows(path: Path, rows: int, row_bytes: int) -> int:
    """Return the rows of a chunk: a block; on an object store a piece of one, a block being a shard.

    A shard is one object, written at once; of its pieces a reader may fetch some.
    """
    while is_url(path) and rows % 2 == 0 and rows * row_bytes > PIECE_BYTES:
        rows //= 2
    return rows


def _codecs(compress: str) -> Sequence[Any]:
    """Return the codecs: each has a checksum, since zarr reads a flipped byte without a word."""
    if compress == "zstd":
        return (ZstdCodec(level=1, checksum=True),)
    return (Crc32cCodec(),)
