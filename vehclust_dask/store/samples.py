"""What is known of every row: its number, path, group and truth; one parquet file per data set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vehclust_dask.errors import BadInput
from vehclust_dask.store.folders import write_bytes
from vehclust_dask.store.paths import find_column, match_rows, normalise_path
from vehclust_dask.store.storage import whole

#: A truth column is written with this prefix, so that it cannot hide one of ours.
TRUTH = "truth_"


def build_samples(
    paths: Sequence[str] | None,
    n_rows: int,
    *,
    group: str | None,
    truth: Path | None,
    truth_columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the table of rows.

    Parameters
    ----------
    paths : sequence of str or None
        Path of every row, normalised.
    n_rows : int
    group : str or None
        Regular expression with one group: what it finds in a path is the row's group.
    truth : Path or None
        CSV with a path column; joined by path, rows it does not know stay empty.
    truth_columns : sequence of str
        Columns to use; none: all but the path.

    Returns
    -------
    DataFrame
        ``row`` (int64), ``path``, ``group`` where asked for, ``truth_<column>``.
    """
    table = pd.DataFrame({"row": np.arange(n_rows, dtype=np.int64)})
    if paths is None:
        if group is not None or truth is not None:
            raise BadInput(
                "data.group and data.truth join by path, and no set brings paths of its own: "
                "name the table of paths in data.paths"
            )
        return table
    table["path"] = pd.array(list(paths), dtype="string")
    if group is not None:
        table["group"] = _groups(paths, group)
    if truth is not None:
        for column, values in _truth(list(paths), truth, truth_columns).items():
            table[TRUTH + column] = values
    return table


def _groups(paths: Sequence[str], pattern: str) -> pd.Series[str]:
    finder = re.compile(pattern)
    found = [finder.search(path) for path in paths]
    if not any(found):
        raise BadInput(
            f"data.group '{pattern}' fits none of the {len(paths):,} paths (the first is "
            f"'{paths[0]}'); mend it or leave it out"
        )
    return pd.Series([m.group(1) if m and m.groups() else None for m in found], dtype="string")


def _truth(paths: list[str], file: Path, columns: Sequence[str]) -> dict[str, pd.Series[str]]:
    try:
        with whole(file) as opened:
            known = pd.read_csv(opened, dtype="string", keep_default_na=False)
    except FileNotFoundError:
        raise BadInput(
            f"there is no truth file {file}; correct data.truth or leave it out"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as CSV: {error}") from None
    key = find_column(known.columns)
    if key is None:
        raise BadInput(f"{file} has no column with paths; name one of its columns 'path'")
    chosen = list(columns) or [c for c in known.columns if c != key]
    for column in chosen:
        if column not in known.columns:
            raise BadInput(f"{file} has no column '{column}': it has {', '.join(known.columns)}")
    have = [normalise_path(p) for p in known[key]]
    rows = {path: i for i, path in enumerate(have)}
    at = np.array([rows.get(path, -1) for path in paths], dtype=np.int64)
    if (at < 0).all():
        at = match_rows(paths, have)
    out = {}
    for column in chosen:
        values = known[column].to_numpy(dtype=object)
        picked = pd.Series(np.where(at >= 0, values[at], ""), dtype="string")
        out[column] = picked.mask(picked == "")
    return out


def paths_digest(table: pd.DataFrame) -> str:
    """Return what names the rows: how many they are, and the path of each."""
    named = table["path"] if "path" in table else table["row"]
    rows = pd.util.hash_pandas_object(named, index=False).to_numpy()
    return hashlib.sha256(rows.tobytes()).hexdigest()[:16]


def write_samples(table: pd.DataFrame, file: Path) -> None:
    """Write the table of rows as parquet, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    write_bytes(file, sink.getvalue().to_pybytes())


def read_samples(file: Path) -> pd.DataFrame:
    """Read the table of rows."""
    with whole(file) as opened:
        return pq.read_table(opened).to_pandas()
