"""The photos nearest to one photo, from the lists that a run has kept."""

from __future__ import annotations

import bisect
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.errors import RunMissing, UsageError, nearest
from vehclust_dask.estimators.neighbours import own_unit
from vehclust_dask.job.neighbourhood import Neighbourhood, load_neighbours
from vehclust_dask.job.run import read_run
from vehclust_dask.job.tables import read_dropped
from vehclust_dask.store.paths import normalise_path
from vehclust_dask.store.samples import paths_digest, read_samples
from vehclust_dask.store.steps import Step

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: So many names are offered in place of an unknown one, the best of so many that begin alike.
OFFERED, ALIKE = 3, 60


@dataclass(frozen=True, eq=False)
class Similar:
    """What lies nearest to a row.

    Attributes
    ----------
    run, study, metric : str
    row : int
    path : str or None
    recall : float
        Below 1 for lists by cells, as it was measured.
    table : DataFrame
        ``rank`` from 1, ``distance`` in the metric's own unit (cosine: 1 - cos), ``row``, ``path``
        where paths are known, ``same_vehicle`` where groups are known (missing for a row without).
    """

    run: str
    study: str
    metric: str
    row: int
    path: str | None
    recall: float
    table: pd.DataFrame


def similar_rows(
    workdir: Path,
    name: str,
    *,
    path: str | None,
    row: int | None,
    study: str | None,
    metric: str | None,
    n: int,
) -> Similar:
    """Return the rows nearest to a photo, which a path or a row number names.

    Raises
    ------
    RunMissing
        If the run keeps no such lists.
    UsageError
        If there is no such photo, or the lists are shorter than asked for.
    """
    if (path is None) == (row is None):
        raise UsageError("similar takes a photo's PATH or its --row: give one of the two")
    folder, manifest = read_run(workdir, name)
    study, record = _chosen(folder.name, manifest["studies"], study, metric)
    if not 1 <= n <= record["m"]:
        raise UsageError(
            f"-n {n}: the lists of study '{study}' hold {record['m']} neighbours; ask for 1 to "
            f"{record['m']}, or write 'neighbours: {max(n, 1)}' into the study and run the job again"
        )
    near = _neighbourhood(workdir, record["step"])
    samples = read_run_samples(workdir, folder, manifest["dataset"])
    asked = _row_of(samples, path) if row is None else row
    dropped = read_dropped(folder / "tables")
    found, distances = _nearest(near, _place(asked, dropped, len(samples)), record["metric"], n)
    rows = _originals(found, dropped)
    table = pd.DataFrame({"rank": np.arange(1, len(rows) + 1), "distance": distances, "row": rows})
    if "path" in samples:
        table["path"] = samples["path"].iloc[rows].to_numpy()
    if "group" in samples:
        table["same_vehicle"] = _same(samples["group"], asked, rows)
    shown = str(samples["path"].iloc[asked]) if "path" in samples else None
    recall = float(record.get("recall", 1.0))
    return Similar(folder.name, study, record["metric"], asked, shown, recall, table)


def _chosen(
    run: str, studies: dict[str, Any], study: str | None, metric: str | None
) -> tuple[str, dict[str, Any]]:
    """Choose a study and its lists."""
    if study is not None and study not in studies:
        raise RunMissing(f"run {run} has no study '{study}'; {nearest(study, studies)}")
    # Exact lists stand before those by cells, and are taken where a study has both.
    kept = {
        (one, record["metric"]): record
        for one in studies
        for record in reversed(studies[one].get("neighbours", ()))
        if study in (None, one) and metric in (None, record["metric"])
    }
    if len(kept) == 1:
        ((chosen, _), record) = next(iter(kept.items()))
        return chosen, record
    if not kept:
        what = f"{metric} lists" if metric else "lists"
        who = f"study '{study}' of run {run}" if study else f"run {run}"
        asked = f"{{n: 32, metric: {metric}}}" if metric else "32"
        raise RunMissing(
            f"{who} keeps no {what} of nearest rows; write 'neighbours: {asked}' into a study of its "
            "job and run it again"
        )
    there = ", ".join(f"--study {one} --metric {by}" for one, by in kept)
    raise UsageError(f"run {run} keeps several lists: choose one of {there}")


def _neighbourhood(workdir: Path, name: str) -> Neighbourhood:
    folder = workdir / "steps" / name
    if not (folder / "manifest.json").exists():
        raise RunMissing(f"{folder} is no longer there; run the job again")
    return load_neighbours(Step.at(workdir, folder), exact=False)


def read_run_samples(workdir: Path, run: Path, dataset: dict[str, Any]) -> pd.DataFrame:
    """Read the table of rows, which must be the one of the run."""
    file = workdir / "datasets" / dataset["name"] / "samples.parquet"
    if not file.exists():
        raise RunMissing(f"{file} is no longer there; run the job again")
    samples = read_samples(file)
    if paths_digest(samples) != dataset.get("paths"):
        raise RunMissing(
            f"data set {dataset['name']} has other rows or paths by now than run {run.name} had; run "
            "the job again"
        )
    return samples


def _row_of(samples: pd.DataFrame, path: str | None) -> int:
    """Return the row of a path; both kinds of slashes are understood."""
    if path is None or "path" not in samples:
        raise UsageError("no set brought paths and the job names none: give a --row")
    wanted = normalise_path(path)
    rows = np.flatnonzero(samples["path"].to_numpy() == wanted)
    if len(rows) == 1:
        return int(rows[0])
    if len(rows):
        listed = ", ".join(map(str, rows[:5].tolist()))
        raise UsageError(f"'{wanted}' stands in {len(rows)} rows ({listed}): choose by --row")
    offered = "', '".join(near_paths(wanted, samples["path"].tolist()))
    raise UsageError(f"there is no photo '{wanted}'; the nearest names are '{offered}'")


def near_paths(wanted: str, paths: Sequence[str]) -> list[str]:
    """Return the paths most like a wanted one: the same file elsewhere, else those that begin alike."""
    name = os.path.basename(wanted)
    same = [path for path in paths if os.path.basename(path) == name]
    if not same:
        ordered = sorted(paths)
        at = bisect.bisect_left(ordered, wanted)
        same = ordered[max(0, at - ALIKE) : at + ALIKE]
    return difflib.get_close_matches(wanted, same, n=OFFERED, cutoff=0.0)


def _place(row: int, dropped: I64, n_rows: int) -> int:
    """Return the number of a row among those that were kept."""
    if not 0 <= row < n_rows:
        raise UsageError(f"--row {row}: rows are numbered 0 to {n_rows - 1}")
    before = int(np.searchsorted(dropped, row))
    if before < len(dropped) and dropped[before] == row:
        raise UsageError(f"row {row} was left out of the run: it holds NaN or infinity in some set")
    return row - before


def _originals(places: I64, dropped: I64) -> I64:
    """Return the row numbers of kept rows."""
    rows: I64 = places + np.searchsorted(dropped - np.arange(len(dropped)), places, side="right")
    return rows


def _nearest(near: Neighbourhood, place: int, metric: str, n: int) -> tuple[I64, F64]:
    """Return up to n nearest rows and their distances: copies first, ties by row."""
    pile = near.survey().copies.pile
    own = int(pile[place])
    lists = near.list_of(own)
    piles = np.concatenate([[own], pile[lists.rows]])
    sq_dist = np.concatenate([[0.0], lists.sq_dist])
    at = np.full(int(pile.max()) + 1, -1)
    at[piles] = np.arange(len(piles))
    rows = np.flatnonzero(at[pile] >= 0)
    rows = rows[rows != place]
    of_rows = sq_dist[at[pile[rows]]]
    order = np.lexsort((rows, of_rows))[:n]
    sq = of_rows[order]
    return rows[order], own_unit(sq, metric)


def _same(groups: pd.Series[str], row: int, rows: I64) -> NDArray[Any]:
    """Say which rows have the group of one row; None where either has none."""
    own = groups.iloc[row]
    others = groups.iloc[rows].tolist()
    return np.array(
        [None if pd.isna(own) or pd.isna(other) else bool(other == own) for other in others],
        dtype=object,
    )
