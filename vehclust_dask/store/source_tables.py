"""Open matrices that lie in parquet tables: a column per feature, or one column of vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store.paths import PATH_COLUMNS, find_column, normalise_path
from vehclust_dask.store.source_arrays import (
    Names,
    check_range,
    file_fingerprint,
    put_float32,
    take_rows,
)
from vehclust_dask.store.source_files import choose_key, refuse
from vehclust_dask.store.storage import readable

#: Bytes of rows that are decoded at a time.
_BATCH = 4 << 20
#: Bytes of read buffers of all columns together.
_READ_BUFFERS = 32 << 20
#: Rows that are read rather than jumped over: batches only come one after the other.
_MAX_GAP = 4096
#: Whole numbers under these names count rows; as a feature they would drown all others.
_ROW_NUMBERS = frozenset({"id", "row", "row_id", "index", "unnamed: 0"})


class BatchCursor:
    """Batches that are being read, and how far; a copy in another process starts afresh."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: Iterator[Any] | None = None
        self.rows: NDArray[np.float32] | None = None
        self.at = 0  # the first row of `rows`, or of the next batch

    def __reduce__(self) -> tuple[type[BatchCursor], tuple[()]]:
        return BatchCursor, ()


@dataclass(frozen=True)
class TableSource:
    """A matrix in a parquet file. Rows that are read in order are decoded once.

    Reading something before the last rows begins anew at its row group, so that a file of one huge
    row group is quick only in order. Memory beside the result: about 4 MiB of rows, and the
    dictionary pages and read buffers of the columns.

    Parameters
    ----------
    file : str
    key : str or None
        The column of vectors, as it was asked for.
    columns : tuple of str
        Feature columns, or the column of vectors.
    vectors : bool
        Whether it is one column of vectors.
    n_rows, n_features : int
    dtype : str
        Type of the numbers in the file, as numpy writes it.
    group_rows : tuple of int
        The first row of each row group.
    names : Names
        Paths of the rows.
    """

    file: str
    key: str | None
    columns: tuple[str, ...] = field(repr=False)
    vectors: bool
    n_rows: int
    n_features: int
    dtype: str
    group_rows: tuple[int, ...] = field(repr=False)
    names: Names = field(compare=False, repr=False)
    _cursor: BatchCursor = field(default_factory=BatchCursor, compare=False, repr=False)

    @property
    def payload_bytes(self) -> int:
        """Return the bytes of all numbers, decoded."""
        return self.n_rows * self.n_features * np.dtype(self.dtype).itemsize

    @property
    def paths(self) -> tuple[str, ...] | None:
        """Return the paths of the rows, normalised, or None."""
        return self.names.get()

    def fingerprint(self) -> dict[str, Any]:
        """Return size and time of change of the file."""
        return file_fingerprint(self.file)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive rows: ndarray of shape (stop - start, n_features), float32, C order.

        Missing values become NaN.
        """
        check_range(self, start, stop)
        out = np.empty((stop - start, self.n_features), np.float32)
        cursor = self._cursor
        with cursor.lock:
            if len(out):
                self._move(start)
            done = 0
            while done < len(out):
                rows = self._rows()
                skip = start + done - cursor.at
                part = rows[skip : skip + len(out) - done] if skip < len(rows) else rows[:0]
                out[done : done + len(part)] = part
                done += len(part)
                used = min(skip + len(part), len(rows))
                cursor.at += used
                cursor.rows = rows[used:] if used < len(rows) else None
        return out

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows in any order: ndarray of shape (len(rows), n_features), float32."""
        return take_rows(self, rows, _MAX_GAP)

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self.group_rows, row, side="right")) - 1

    def _move(self, start: int) -> None:
        """Go on with the batches at hand, or begin at the row group of ``start``."""
        cursor = self._cursor
        group = self._group_of(start)
        at_hand = cursor.batches is not None and cursor.at <= start
        if at_hand and group == self._group_of(cursor.at):
            return
        width = max(1, self.n_features * np.dtype(self.dtype).itemsize)
        cursor.batches = read_batches(
            self.file,
            open_table(self.file, len(self.columns)),
            self.columns,
            batch_size=max(1, min(self.n_rows, _BATCH // width)),
            first_group=group,
        )
        cursor.rows, cursor.at = None, self.group_rows[group]

    def _rows(self) -> NDArray[np.float32]:
        """Return rows that were decoded already, or those of the next batch."""
        cursor = self._cursor
        if cursor.rows is None:
            batch = next(cursor.batches or iter(()), None)
            if batch is None:
                cursor.batches = None
                refuse(self.file, "is damaged: its rows end too early")
            cursor.rows = self._convert(batch)
        return cursor.rows

    def _convert(self, batch: Any) -> NDArray[np.float32]:
        out = np.empty((batch.num_rows, self.n_features), np.float32)
        if self.vectors:
            column = batch.column(0)
            check_lengths(self.file, column, self.n_features, self._cursor.at)
            put_float32(out, _to_numpy(column.flatten()).reshape(out.shape))
            return out
        for j, name in enumerate(self.columns):
            put_float32(out[:, j], _to_numpy(batch.column(name)))
        return out


def _to_numpy(column: Any) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    found: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return found


def check_lengths(file: str, column: Any, n_features: int, row0: int) -> None:
    """Refuse the first vector that is missing or has another length than the first of all."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(lengths != n_features)
    if len(odd):
        i = int(odd[0])
        length = "no vector" if lengths[i] < 0 else f"a vector of {lengths[i]} values"
        refuse(file, f"has {length} in row {row0 + i:,} where the first has {n_features}")


def open_table(file: str, n_columns: int = 1) -> Any:
    """Open a parquet file so that its columns are streamed, not loaded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(
            readable(file),
            buffer_size=max(4096, _READ_BUFFERS // max(8, n_columns)),
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInput(f"{file} cannot be read as parquet: {error}") from error


def read_batches(
    file: str, table: Any, columns: tuple[str, ...], *, batch_size: int, first_group: int = 0
) -> Iterator[Any]:
    """Yield batches of some columns; what cannot be decoded is BadInput."""
    import pyarrow as pa

    groups = list(range(first_group, table.metadata.num_row_groups))
    try:
        yield from table.iter_batches(batch_size, row_groups=groups, columns=list(columns))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadInput(f"{file} is damaged: {error}") from error


def open_parquet(file: str, key: str | None) -> TableSource:
    """Open a parquet file: a numeric column per feature, or one column of vectors."""
    import pyarrow as pa

    try:
        return _describe(file, key)
    except BadInput:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:  # also names that are no UTF-8
        raise BadInput(f"{file} is damaged: {error}") from error


def _describe(file: str, key: str | None) -> TableSource:
    table = open_table(file)
    schema, n_rows = table.schema_arrow, table.metadata.num_rows
    sizes = [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]
    if sum(sizes) != n_rows or min(sizes, default=0) < 0:
        refuse(file, "is damaged: its row groups do not make up its rows")
    if len(set(schema.names)) != len(schema.names):
        refuse(file, "has two columns of one name")
    if n_rows == 0:
        refuse(file, "has no rows")
    path_column = find_column(schema.names)
    lists = [item.name for item in schema if _is_list(item.type)]
    if key is not None or lists:
        name = choose_key(file, key, lists)
        columns: tuple[str, ...] = (name,)
        dtype = _dtype_of(file, name, schema.field(name).type.value_type)
        n_features = _vector_length(file, table, name)
    else:
        columns = _feature_columns(file, schema, path_column)
        dtypes = [_dtype_of(file, name, schema.field(name).type) for name in columns]
        dtype, n_features = np.result_type(*map(np.dtype, set(dtypes))).str, len(columns)
    names = Names(_read_names(file, table, path_column))
    firsts = tuple(int(n) for n in np.cumsum([0, *sizes])[:-1])
    return TableSource(file, key, columns, bool(lists), n_rows, n_features, dtype, firsts, names)


def _feature_columns(file: str, schema: Any, path_column: str | None) -> tuple[str, ...]:
    """Return all columns but the path; refuse what is no feature."""
    import pyarrow as pa

    columns = [
        name for name in schema.names
        if name != path_column and not name.startswith("__index_level_")
    ]  # fmt: skip
    if not columns:
        refuse(file, "has no columns of numbers")
    for name in columns:
        if name.lower() in _ROW_NUMBERS and pa.types.is_integer(schema.field(name).type):
            refuse(file, f"has a column '{name}' that looks like a row number; drop it")
    return tuple(columns)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    tests = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    return any(test(kind) for test in tests)


def _dtype_of(file: str, name: str, kind: Any) -> str:
    import pyarrow as pa

    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        allowed = ", ".join(PATH_COLUMNS)
        refuse(
            file,
            f"has a column '{name}' of {kind}, not of numbers; drop it, "
            f"or name it {allowed} if it holds paths",
        )
    return np.dtype(kind.to_pandas_dtype()).str


def _vector_length(file: str, table: Any, name: str) -> int:
    """Return the length of all vectors; the file's metadata tell when they differ."""
    first = next(read_batches(file, table, (name,), batch_size=1), None)
    if first is None or first.num_rows == 0:
        refuse(file, "is damaged: its rows end too early")
    vector = first.column(0)[0]
    n_features = len(vector) if vector.is_valid else 0
    if n_features == 0:
        refuse(file, f"has no vector in row 0 of column '{name}'")
    metadata = table.metadata
    stored = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        chunks = (group.column(j) for j in range(group.num_columns))
        stored += sum(c.num_values for c in chunks if c.path_in_schema.split(".")[0] == name)
    if stored != metadata.num_rows * n_features:
        row = 0
        for batch in read_batches(file, table, (name,), batch_size=1024):
            check_lengths(file, batch.column(0), n_features, row)
            row += batch.num_rows
    return n_features


def _read_names(file: str, table: Any, column: str | None) -> tuple[str, ...] | None:
    """Return the column of paths, normalised, or None when there is none."""
    import pyarrow as pa

    if column is None:
        return None
    values: list[str | None] = []
    for batch in read_batches(file, table, (column,), batch_size=1 << 16):
        values += batch.column(0).cast(pa.string()).to_pylist()
    if len(values) != table.metadata.num_rows:
        refuse(file, "is damaged: its rows end too early")
    if None in values:
        refuse(file, f"has no path in row {values.index(None):,} of column '{column}'")
    return tuple(normalise_path(value) for value in values if value is not None)
