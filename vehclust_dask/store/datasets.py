"""Descriptor sets as chunked zarr: parts, written block by block, visible when whole.

A set is a folder ``<set>.zarr`` with a folder per part; a part is what one source held when it was
converted, named by its content. Appending is converting one more part; a source that changed gives
a new part and leaves the old one.
"""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vehclust_dask.kernels.columns import ColumnStats, column_stats, merge_columns
from vehclust_dask.records import RowGrid, Span
from vehclust_dask.store.folders import (
    digest_of,
    open_arrays,
    partial_of,
    publish,
    read_array,
    read_json,
    remove_leftovers,
    write_by,
    write_bytes,
    write_json,
    write_last,
)
from vehclust_dask.store.matrices import Matrix, create_array
from vehclust_dask.store.storage import at, is_url, remove_tree, whole

ARRAY = "X"


class RowSource(Protocol):
    """What a part is converted from (see `store.sources`)."""

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def n_features(self) -> int:
        """Return the number of columns."""
        ...

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows ``start`` to ``stop``."""
        ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in any order."""
        ...


@dataclass(frozen=True)
class Part:
    """A converted part.

    Attributes
    ----------
    folder : Path
    rows, n_features, block_rows : int
    digest : str
        Of the float32 values.
    bad_rows : tuple of int
        Rows (of this part) that hold NaN or infinity.
    """

    folder: Path
    rows: int
    n_features: int
    block_rows: int
    digest: str
    bad_rows: tuple[int, ...]

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the statistics of every column: minimum, mean, maximum, std, zeros, constant."""
        with whole(self.folder / "columns.parquet") as opened:
            table = pq.read_table(opened)
        return {name: table[name].to_numpy() for name in table.column_names}


@dataclass(frozen=True)
class PartWriter:
    """A handle that tasks write a part through: one block, its statistics, its digest.

    Attributes
    ----------
    folder : str
        The part's folder while it is written.
    grid : RowGrid
    n_features : int
    order : str or None
        File with the source row of every row, where rows are joined by path.
    """

    folder: str
    grid: RowGrid
    n_features: int
    order: str | None = None

    @property
    def matrix(self) -> Matrix:
        """Return the array that is written."""
        path = str(at(self.folder) / ARRAY)
        return Matrix((path,), self.grid, self.n_features, "float32", "")

    def _facts(self, i: int) -> Path:
        return at(self.folder) / "blocks" / f"{i:06d}.npz"

    def is_written(self, i: int) -> bool:
        """Say whether a block is whole: its statistics are written after its values."""
        return self._facts(i).exists() and self.matrix.is_written(i)

    def write(self, i: int, X: NDArray[np.float32]) -> None:
        """Write a block, then what was seen while it passed."""
        self.matrix.write(i, X)
        stats = column_stats(X, self.grid.span(i).row0)
        digest = hashlib.sha256(np.ascontiguousarray(X).data).digest()
        arrays = {"digest": np.frombuffer(digest, np.uint8), **vars(stats)}
        write_by(self._facts(i), lambda out: np.savez(out, **arrays))

    def facts(self, i: int) -> tuple[bytes, ColumnStats]:
        """Return digest and statistics of a written block."""
        with open_arrays(self._facts(i)) as stored:
            values = {name: stored[name] for name in stored.files}
        digest = values.pop("digest").tobytes()
        return digest, ColumnStats(n=int(values.pop("n")), **values)


def convert_block(i: int, span: Span, source: RowSource, writer: PartWriter) -> bool:
    """Convert one block; return whether there was anything to do.

    Parameters
    ----------
    i : int
    span : Span
    source : RowSource
    writer : PartWriter
    """
    if writer.is_written(i):
        return False
    writer.write(i, source_rows(source, writer, span))
    return True


def source_rows(source: RowSource, writer: PartWriter, span: Span) -> NDArray[np.float32]:
    """Return the source's values of a block, in the order of the data set."""
    if writer.order is None:
        return source.read(span.start, span.stop)
    order = _order(writer.order)[span.start : span.stop]
    return source.take(np.array(order, dtype=np.int64))


@functools.lru_cache(maxsize=2)
def _order(file: str) -> NDArray[np.int64]:
    """Return the source row of every row; the file is named by its content."""
    return read_array(at(file)) if is_url(file) else np.load(file, mmap_mode="r")


def block_digest(i: int, span: Span, source: RowSource, writer: PartWriter) -> bytes:
    """Return the digest of a block as the source holds it now."""
    X = source_rows(source, writer, span)
    return hashlib.sha256(np.ascontiguousarray(X).data).digest()


def find_part(folder: Path, fingerprint: dict[str, Any]) -> Part | None:
    """Return the part that was converted from a source in just this state, if any."""
    for record in sorted(folder.glob("part-*/part.json")):
        if fingerprint in read_json(record)["sources"]:
            return read_part(record.parent)
    return None


def read_part(folder: Path) -> Part:
    """Return the part in a folder."""
    record = read_json(folder / "part.json")
    return Part(
        folder,
        record["rows"],
        record["n_features"],
        record["block_rows"],
        record["digest"],
        tuple(read_array(folder / "bad_rows.npy").tolist()),
    )


def begin_part(
    folder: Path,
    fingerprint: dict[str, Any],
    n_rows: int,
    n_features: int,
    block_rows: int,
    compress: str,
    order: NDArray[np.int64] | None,
) -> PartWriter:
    """Create a part that is not yet visible, or find what an interrupted run wrote of it.

    Parameters
    ----------
    folder : Path
        Of the set.
    fingerprint : dict
        Of the source as it is now; names the unfinished part.
    n_rows, n_features, block_rows : int
    compress : {'none', 'zstd'}
    order : ndarray of shape (n_rows,), int64, or None
        Source row of every row.
    """
    partial = partial_of(folder / f"part-{digest_of([fingerprint, block_rows, compress])}", True)
    (partial / "blocks").mkdir(parents=True, exist_ok=True)
    create_array(partial / ARRAY, n_rows, block_rows, n_features, "float32", compress, {})
    order_file = None if order is None else keep_order(partial, order)
    grid = RowGrid((n_rows,), block_rows)
    return PartWriter(str(partial), grid, n_features, order_file)


def keep_order(folder: Path, order: NDArray[np.int64]) -> str:
    """Write the source row of every row where tasks can read it; return the file."""
    file = folder / f"order-{hashlib.sha256(order.tobytes()).hexdigest()[:16]}.npy"
    if not file.exists():
        content = io.BytesIO()
        np.save(content, order)
        write_bytes(file, content.getvalue())
    return str(file)


def finish_part(folder: Path, writer: PartWriter, fingerprint: dict[str, Any]) -> Part:
    """Check that every block is there, write what was seen of all of them, make the part visible."""
    writer.matrix.check_whole()
    stats: ColumnStats | None = None
    digests = hashlib.sha256(f"{writer.grid.n_rows} x {writer.n_features}".encode())
    for i in range(writer.grid.n_blocks):
        digest, facts = writer.facts(i)
        digests.update(digest)
        stats = facts if stats is None else merge_columns(stats, facts)
    assert stats is not None, "a part holds at least one row"
    partial, name = at(writer.folder), digests.hexdigest()[:16]
    # A part is named by its content where a folder can be renamed, else by what it is made from.
    final = partial if is_url(partial) else folder / f"part-{name}-{writer.grid.block_rows}"
    bad_rows = stats.bad_rows
    if partial == final or not final.exists():
        _write_columns(partial / "columns.parquet", stats)
        write_by(partial / "bad_rows.npy", lambda out: np.save(out, bad_rows))
        remove_tree(partial / "blocks")
        remove_leftovers(partial)
        write_last(partial / "part.json", _record(writer, name, [fingerprint]))
        publish(partial, final)
    else:
        record = read_json(final / "part.json")
        write_json(final / "part.json", _record(writer, name, [*record["sources"], fingerprint]))
        publish(partial, final)
    return read_part(final)


def _record(writer: PartWriter, digest: str, sources: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": "vehclust-part",
        "schema_version": 1,
        "rows": writer.grid.n_rows,
        "n_features": writer.n_features,
        "block_rows": writer.grid.block_rows,
        "digest": digest,
        "sources": sources,
    }


def _write_columns(file: Path, stats: ColumnStats) -> None:
    table = pa.table(
        {
            "column": np.arange(len(stats.mean), dtype=np.int32),
            "minimum": stats.minimum,
            "mean": stats.mean,
            "maximum": stats.maximum,
            "std": stats.std,
            "zeros": stats.zeros,
            "constant": stats.constant,
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(file, sink.getvalue().to_pybytes())


def set_matrix(parts: list[Part]) -> Matrix:
    """Return the handle of a set made of parts, in this order."""
    first = parts[0]
    grid = RowGrid(tuple(p.rows for p in parts), first.block_rows)
    digest = digest_of([p.digest for p in parts])
    paths = tuple(str(p.folder / ARRAY) for p in parts)
    return Matrix(paths, grid, first.n_features, "float32", digest)
