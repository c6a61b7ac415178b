"""The tables of a run: labels of every row, scores of every clustering, sizes of every cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.job.clustering import Clustered
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.silhouettes import Silhouette
from vehclust_dask.store.folders import read_table, write_table, write_text
from vehclust_dask.store.storage import whole
from vehclust_dask.store.views import RowsView, original_rows

#: Columns of the notes a person may fill; they are carried to later runs of the same job.
NOTES = ("interpretation", "quality")
#: Where a row of the featured clustering belongs; the last for mixtures and density methods alone.
PLACES = ("second", "sq_dist", "margin", "resp", "second_resp", "core", "probability", "glosh")
#: What mixtures have beside the scores of all clusterings.
CRITERIA = ("log_likelihood", "bic", "aic")
#: What names a row of scores.
KEYS = ("study", "clustering", "k")


def write_labels(
    file: Path,
    samples: pd.DataFrame,
    view: RowsView,
    clusterings: list[Clustered],
    featured: tuple[str, int],
    silhouettes: Sequence[Silhouette] = (),
) -> None:
    """Write labels of all clusterings of a study, a column each, and distances for the featured one.

    Rows are the original ones; a dropped row is absent. A row group per block: memory stays flat.

    Parameters
    ----------
    file : Path
    samples : DataFrame
    view : RowsView
    clusterings : list of Clustered
    featured : tuple of str and int
        Name and number of clusters.
    silhouettes : sequence of Silhouette
        Those of the featured clustering are written, if they are among them.
    """
    grid = clusterings[0].matrices["labels"].grid
    beside = file.with_name(f".{file.name}")
    writer: pq.ParquetWriter | None = None
    for i, span in enumerate(grid.spans()):
        rows = original_rows(span, view.dropped)
        columns: dict[str, Any] = {"row": rows}
        if "path" in samples:
            columns["path"] = pa.array(samples["path"].iloc[rows], type=pa.string())
        for one in clusterings:
            labels = one.matrices["labels"].load(i)
            for s, k in enumerate(one.ks):
                columns[one.label_column(k)] = labels[:, s]
            if one.name == featured[0]:
                at = one.ks.index(featured[1])
                for what in PLACES:
                    if what in one.matrices:
                        columns[what] = one.matrices[what].load(i)[:, at]
        for value in silhouettes:
            if (value.clustering, value.k) == featured:
                columns["silhouette"] = value.values.load(i)[:, value.at]
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(beside, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None, "a grid has at least one block"
    writer.close()
    beside.replace(file)


def write_dropped(folder: Path, rows: tuple[int, ...]) -> None:
    """Write which rows were left out of every set, where there are any."""
    if rows:
        table = pd.DataFrame({"row": np.asarray(rows, dtype=np.int64)})
        table.to_parquet(folder / "dropped.parquet", index=False)


def read_dropped(folder: Path) -> NDArray[np.int64]:
    """Return the rows that were left out, ascending."""
    file = folder / "dropped.parquet"
    if not file.exists():
        return np.empty(0, np.int64)
    return read_table(file)["row"].to_numpy()


def score_columns(
    clustered: Clustered, reduced: Reduced, scores: pd.DataFrame, known: pd.DataFrame
) -> pd.DataFrame:
    """Put together what the scores table says of one clustering, a row per number of clusters."""
    facts = clustered.step.manifest()
    table = scores.merge(known, on="k", how="left")
    table.insert(0, "study", clustered.study)
    table.insert(1, "clustering", clustered.name)
    table.insert(2, "method", clustered.method)
    table.insert(3, "engine", clustered.engine)
    for criterion in CRITERIA:
        if criterion in facts:
            table[criterion] = facts[criterion]
    for word, value in facts.get("setting", {}).items():
        table[word] = value
    table["components"] = reduced.rows.n_features
    table["n_iter"] = facts["n_iter"]
    table["converged"] = facts["converged"]
    spent = [facts, *(step.manifest() for step in clustered.earlier)]
    table["seconds"] = round(sum(one["seconds"] for one in spent), 3)
    table["peak_mb"] = round(max(one["peak_bytes"] for one in spent) / 1e6, 1)
    return table


def read_notes(file: Path) -> pd.DataFrame:
    """Read the notes a person wrote; none at first.

    Raises
    ------
    BadInput
        If the file is damaged: it is a person's, so it is never replaced.
    """
    if not file.exists():
        return pd.DataFrame(columns=[*KEYS, *NOTES])
    remedy = f"it needs the columns {', '.join(KEYS)}; mend it, or move it away for a new one"
    types = {"study": "str", "clustering": "str", "k": "int64"}
    try:
        with whole(file) as opened:
            notes = pd.read_csv(opened, dtype=types, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:
        raise BadInput(f"the notes {file} cannot be read ({error}): {remedy}") from None
    if not set(KEYS) <= set(notes.columns):
        raise BadInput(f"the notes {file} have the columns {', '.join(map(str, notes))}: {remedy}")
    twice = notes[notes.duplicated(list(KEYS))]
    if len(twice):
        row = "/".join(str(twice[key].iloc[0]) for key in KEYS)
        raise BadInput(f"the notes {file} hold {row} twice: keep one of the rows")
    for column in NOTES:
        if column not in notes:
            notes[column] = ""
    return notes


def update_notes(file: Path, scores: pd.DataFrame) -> pd.DataFrame:
    """Add a row for every clustering that has none; never change what a person wrote.

    Returns
    -------
    DataFrame
        The scores with their notes.
    """
    notes = read_notes(file)
    have = set(map(tuple, notes[list(KEYS)].to_numpy().tolist()))
    new = [row for row in scores[list(KEYS)].to_numpy().tolist() if tuple(row) not in have]
    if new:
        added = pd.DataFrame(new, columns=list(KEYS)).assign(**dict.fromkeys(NOTES, ""))
        notes = pd.concat([notes, added], ignore_index=True)
        write_text(file, notes.to_csv(index=False, lineterminator="\n"))
    more = [c for c in notes.columns if c not in (*KEYS, *NOTES) and c not in scores]
    joined = scores.merge(notes[[*KEYS, *NOTES, *more]], on=list(KEYS), how="left")
    for column in (*NOTES, *more):
        joined[column] = joined[column].fillna("")
    return joined


def without_notes(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores as they were before notes were put behind them."""
    columns = list(scores)
    return scores[columns[: columns.index(NOTES[0])]] if NOTES[0] in scores else scores


def write_scores(folder: Path, scores: pd.DataFrame) -> None:
    """Write the scores table as parquet and as CSV."""
    write_table(scores, folder / "scores.parquet")
    write_text(folder / "scores.csv", scores.to_csv(index=False, lineterminator="\n"))
