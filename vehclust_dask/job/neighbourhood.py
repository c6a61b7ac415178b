"""The step of neighbours: the exact nearest rows of every row, computed once per rows and metric."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.cells import cell_count, search_cells
from vehclust_dask.estimators.neighbours import (
    Doubt,
    Known,
    Lists,
    Shelf,
    search_again,
    shelve_lists,
)
from vehclust_dask.job.spec import NeighboursSpec, StudySpec
from vehclust_dask.job.study import DENSITY, METRICS
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.copies import Copies
from vehclust_dask.kernels.neighbours import Candidates
from vehclust_dask.kernels.tiles import Frame
from vehclust_dask.records import Blocks, RowGrid
from vehclust_dask.store import storage
from vehclust_dask.store.folders import open_arrays, read_array, write_by
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.rounds import Rounds
from vehclust_dask.store.steps import Step
from vehclust_dask.store.views import RowsView, blocks_between

I64 = NDArray[np.int64]

#: Files of the step: where the rows are seen from and which are equal; the lists themselves.
SURVEY, LISTS = "survey.npz", "lists.zarr"
#: Which distinct row each list belongs to, where cells put them in another order.
ORDER = "order.npy"
#: What a stopped step goes on from: rounds of tiles, then the lists that are left uncertain.
ROUNDS, STATE = "rounds", "state.npz"


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Lists on storage: the nearest distinct rows of every distinct row.

    Attributes
    ----------
    rows : Matrix
        Row numbers, int32 of shape (n_distinct, m), the nearest first.
    sq_dist : Matrix
        Squared distances, float64 of the same shape.
    folder : str
        Of the step.
    m : int or None
        How many of each list are read; None: all.
    order : str or None
        File that says which distinct row each list belongs to, where they are not in order.
    """

    rows: Matrix
    sq_dist: Matrix
    folder: str
    m: int | None = None
    order: str | None = None

    def survey(self) -> Known:
        """Read where the rows are seen from, and which of them are equal."""
        return _load_survey(storage.at(self.folder) / SURVEY)

    def lists(self) -> Lists:
        """Read the lists of all distinct rows."""
        blocks = range(self.rows.grid.n_blocks)
        lists = Lists(
            np.concatenate([self.rows.load(i)[:, : self.m] for i in blocks]),
            np.concatenate([self.sq_dist.load(i)[:, : self.m] for i in blocks]),
        )
        if self.order is None:
            return lists
        at = np.argsort(read_array(storage.at(self.order)))
        return Lists(lists.rows[at], lists.sq_dist[at])

    def list_of(self, distinct: int) -> Lists:
        """Read the list of one distinct row, two arrays of shape (m,), from its own block."""
        place = distinct
        if self.order is not None:
            (place,) = np.flatnonzero(read_array(storage.at(self.order)) == distinct).tolist()
        ((i, span),) = blocks_between(self.rows.grid, place, place + 1)
        at = place - span.row0
        return Lists(self.rows.load(i)[at, : self.m], self.sq_dist.load(i)[at, : self.m])


@dataclass(frozen=True, eq=False)
class StoredLists:
    """Lists that are being written: a block for every group of rows that are not all copies.

    Attributes
    ----------
    rows, sq_dist : Matrix
    block : tuple of int
        Of every group.
    """

    rows: Matrix
    sq_dist: Matrix
    block: tuple[int, ...]

    @classmethod
    def create(cls, folder: Path, counts: I64, m: int, step: Step) -> StoredLists:
        """Create the matrices for so many distinct rows of every group."""
        block = tuple((np.cumsum(counts > 0) - 1).tolist())
        rows, sq_dist = (
            create_matrix(
                folder / LISTS,
                what,
                _grid_of(counts[counts > 0]),
                m,
                dtype,
                digest=f"{step.digest}-{what}",
                attributes=step.provenance(),
            )
            for what, dtype in (("rows", "int32"), ("sq_dist", "float64"))
        )
        return cls(rows, sq_dist, block)

    def write(self, number: int, lists: Lists) -> None:
        """Write the lists of a group: whole chunks of its own."""
        if len(lists.rows):
            self.rows.write(self.block[number], lists.rows)
            self.sq_dist.write(self.block[number], lists.sq_dist)

    def replace(self, at: I64, lists: Lists) -> None:
        """Write other lists for some rows, block by block."""
        spans = list(self.rows.grid.spans())
        blocks = np.searchsorted([span.row0 for span in spans], at, side="right") - 1
        for matrix, values in ((self.rows, lists.rows), (self.sq_dist, lists.sq_dist)):
            for i in np.unique(blocks).tolist():
                whole = matrix.load(i).copy()
                whole[at[blocks == i] - spans[i].row0] = values[blocks == i]
                matrix.write(i, whole)

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Return the handles of the whole matrices as plain values."""
        for matrix in (self.rows, self.sq_dist):
            matrix.check_whole()
        return {"rows": self.rows.to_json(folder), "sq_dist": self.sq_dist.to_json(folder)}


def _grid_of(counts: I64) -> RowGrid:
    """Return a grid with a block of so many rows each: one part where all but the last are alike."""
    n_rows, first = counts.tolist(), int(counts[0])
    if (counts[:-1] == first).all() and n_rows[-1] <= first:
        return RowGrid((sum(n_rows),), first)
    return RowGrid(tuple(n_rows), max(n_rows))


def found_neighbours(digest: str, m: int, metric: str, work: Work) -> Step | None:
    """Return the finished step of these rows whose lists are long enough, the shortest of several."""
    fitting = []
    for file in (work.root / "steps").glob("neighbours-*/manifest.json"):
        step = Step.at(work.root, file.parent)
        # A step of another version of the algorithm has another name.
        if step.folder == file.parent and step.made_from == (digest,):
            fits = step.params["metric"] == metric and step.params["m"] >= m
            fitting += [step] if fits else []
    return min(fitting, key=lambda step: int(step.params["m"]), default=None)


def study_neighbours(study: StudySpec, rows: RowsView | Matrix, work: Work) -> tuple[Step, ...]:
    """Return the steps of lists that a study has, after those it asks for are computed."""
    steps, asked = [], study.neighbours
    for metric in METRICS:
        m = needed_neighbours(study, metric)
        if asked is not None and (asked.method, asked.metric) == ("exact", metric):
            steps.append(find_neighbours(rows, rows.digest, m, metric, study.name, work))
        elif m and (found := found_neighbours(rows.digest, m, metric, work)):
            steps.append(found)
    if asked is not None and asked.method == "cells":
        steps.append(find_by_cells(rows, rows.digest, asked, study.name, work))
    return tuple(steps)


def lists_record(step: Step) -> dict[str, Any]:
    """Return what a run's manifest says of lists: their step, its parameters, the recall of cells."""
    measured = {k: v for k, v in step.manifest().items() if k in ("recall", "recall_rows")}
    return {"step": f"{step.kind}-{step.digest}", **step.params, **measured}


def check_neighbours(study: StudySpec, n_rows: int) -> None:
    """Refuse lists longer than there are other rows, and too many or too few cells, before any work."""
    asked = study.neighbours
    if asked is not None and n_rows == 1:
        raise BadInput(
            f"studies.{study.name}.neighbours: there is 1 row: it has no neighbours; take them out"
        )
    if asked is not None and asked.n >= n_rows:
        raise BadInput(
            f"studies.{study.name}.neighbours: n={asked.n} but a row has {n_rows - 1} others; "
            "lower it to that or less"
        )
    if asked is not None and asked.method == "cells":
        n_cells = cell_count(asked.n_cells, n_rows)
        if asked.n_probe > n_cells:
            raise BadInput(
                f"studies.{study.name}.neighbours: n_probe={asked.n_probe} but {n_rows} rows make "
                f"{n_cells} cells; lower it, or leave method: cells out"
            )


def needed_neighbours(study: StudySpec, metric: str) -> int:
    """Return how many exact nearest rows a study asks for, 0 for none: all of it shares one step."""
    asked = [0]
    lists = study.neighbours
    if lists is not None and (lists.method, lists.metric) == ("exact", metric):
        asked.append(lists.n)
    if study.outliers is not None and metric == "euclidean":
        asked.append(study.outliers.n_neighbors)
    for spec in study.cluster:
        if spec.method == "ward" and metric == "euclidean":
            asked.append(spec.n_neighbors)
        if spec.method in DENSITY and spec.metric == metric:
            asked.append(max(1, spec.largest_samples - 1))
    return max(asked)


def find_neighbours(rows: Blocks, digest: str, m: int, metric: str, label: str, work: Work) -> Step:
    """Find the nearest rows of every row, or a step that did so, with longer lists if there is one.

    Parameters
    ----------
    rows : Blocks
    digest : str
        Of the rows.
    m : int
        Neighbours of each row; fewer where there are fewer distinct rows.
    metric : {'euclidean', 'cosine'}
    label : str
        The study's name.
    work : Work

    Raises
    ------
    BadInput
        If no row differs from the others.
    """
    step = work.step("neighbours", {"m": m, "metric": metric}, digest)
    step = found_neighbours(digest, m, metric, work) or step

    def compute(folder: Path) -> dict[str, Any]:
        known = _surveyed(folder, rows, metric, label)
        n = len(known.copies.first)
        stored = _search(folder, rows, known, min(m, n - 1), step, f"neighbours-{label}")
        return {"rows": rows.grid.n_rows, "distinct": n, "matrices": stored.to_json(folder)}

    return work.ensure(step, f"{label}: {m} nearest rows of every row, {metric}", compute)


def _search(folder: Path, rows: Blocks, known: Known, m: int, step: Step, name: str) -> StoredLists:
    """Write the lists, going on from what a stopped search left."""
    bounds = np.array([g.row0 for g in rows.grid.groups()] + [rows.grid.n_rows])
    counts = np.diff(np.searchsorted(known.copies.first, bounds))
    stored = StoredLists.create(folder, counts, m, step)
    file, keep = folder / STATE, Rounds(str(folder / ROUNDS), Candidates)
    if not file.exists():
        found = shelve_lists(rows, known, m, stored, name=name, keep=keep)
        write_by(file, lambda out: np.savez(out, **found._asdict()))
    keep.clear()
    with open_arrays(file) as left:
        doubt = Doubt(left["at"], left["ceiling"])
    for at, lists in search_again(rows, known, m, doubt, name=name):
        stored.replace(at, lists)
    return stored


def find_by_cells(rows: Blocks, digest: str, asked: NeighboursSpec, label: str, work: Work) -> Step:
    """Find neighbours by cells, an approximation by that name, or the step that did so.

    Its manifest holds the measured recall. Stopped, it begins again.
    """
    params = dataclasses.asdict(asked)
    step = work.step("cells", {"m": params.pop("n"), "seed": work.seed} | params, digest)

    def compute(folder: Path) -> dict[str, Any]:
        known = _surveyed(folder, rows, asked.metric, label)
        n = len(known.copies.first)
        made: list[StoredLists] = []

        def shelf(counts: list[int]) -> Shelf:
            m = min(asked.n, n - 1)
            made.append(StoredLists.create(folder, np.asarray(counts), m, step))
            return made[0]

        found = search_cells(
            rows,
            known,
            min(asked.n, n - 1),
            n_probe=asked.n_probe,
            n_cells=asked.n_cells,
            seed=work.seed,
            name=f"cells-{label}",
            shelf=shelf,
        )
        write_by(folder / ORDER, lambda out: np.save(out, found.order))
        return {
            "rows": rows.grid.n_rows,
            "distinct": n,
            "n_cells": found.n_cells,
            "recall": found.recall,
            "recall_rows": found.recall_rows,
            "matrices": made[0].to_json(folder),
        }

    return work.ensure(
        step, f"{label}: {asked.n} near rows of every row by cells, {asked.metric}", compute
    )


def load_neighbours(step: Step, m: int | None = None, *, exact: bool = True) -> Neighbourhood:
    """Return the handle of a finished step.

    Parameters
    ----------
    step : Step
    m : int or None
        How many of each list are read; None: all.
    exact : bool
        False: lists by cells will do.

    Raises
    ------
    BadInput
        If lists by cells will not do.
    """
    if exact and step.kind != "neighbours":
        raise BadInput(
            f"{step.kind}-{step.digest} holds lists by cells, an approximation; this needs exact ones: "
            "leave 'method: cells' out"
        )
    order = None if step.kind == "neighbours" else str(step.folder / ORDER)
    stored = step.manifest()["matrices"]
    matrices = {what: Matrix.from_json(record, step.folder) for what, record in stored.items()}
    return Neighbourhood(matrices["rows"], matrices["sq_dist"], str(step.folder), m, order)


def _surveyed(folder: Path, rows: Blocks, metric: str, label: str) -> Known:
    """Survey the rows, or read what a stopped step knew of them; refuse rows that are all equal."""
    file = folder / SURVEY
    if not file.exists():
        known = Known.of(rows, metric)
        write_by(file, lambda out: _save_survey(out, known))
    known = _load_survey(file)
    if len(known.copies.first) < 2:
        n = rows.grid.n_rows
        raise BadInput(
            f"studies.{label}: all {n:,} rows are equal, so none is nearer than another; look at "
            "the descriptors"
            if n > 1
            else f"studies.{label}: there is 1 row: it has no neighbours"
        )
    return known


def _save_survey(out: BinaryIO, known: Known) -> None:
    frame, copies = known.frame, known.copies
    np.savez(
        out,
        center=frame.center,
        scale=frame.scale,
        unit=frame.unit,
        first=copies.first,
        pile=copies.pile,
    )


def _load_survey(file: Path) -> Known:
    with open_arrays(file) as stored:
        frame = Frame(stored["center"], float(stored["scale"]), bool(stored["unit"]))
        return Known(frame, Copies(stored["first"], stored["pile"]))
