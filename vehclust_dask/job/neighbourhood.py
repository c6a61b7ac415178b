"""The step of neighbours: the exact nearest rows of every row, computed once per rows and metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vehclust_dask.estimators.neighbours import Known, Lists, distinct_lists
from vehclust_dask.job.study import DENSITY, StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.copies import Copies
from vehclust_dask.kernels.tiles import Frame
from vehclust_dask.records import Blocks, RowGrid
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.steps import Step

#: Files of the step: where the rows are seen from and which are equal; the lists themselves.
SURVEY, LISTS = "survey.npz", "neighbours.zarr"


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
    """

    rows: Matrix
    sq_dist: Matrix
    folder: str

    def survey(self) -> Known:
        """Read where the rows are seen from, and which of them are equal."""
        with np.load(Path(self.folder) / SURVEY, allow_pickle=False) as stored:
            frame = Frame(stored["center"], float(stored["scale"]), bool(stored["unit"]))
            return Known(frame, Copies(stored["first"], stored["pile"]))

    def lists(self) -> Lists:
        """Read all lists."""
        blocks = range(self.rows.grid.n_blocks)
        return Lists(
            np.concatenate([self.rows.load(i) for i in blocks]),
            np.concatenate([self.sq_dist.load(i) for i in blocks]),
        )


def needed_neighbours(study: StudySpec, metric: str) -> int:
    """Return how many nearest rows a study asks for, 0 for none: its clusterings share one step."""
    asked = [0]
    if study.outliers is not None and metric == "euclidean":
        asked.append(study.outliers.n_neighbors)
    for spec in study.cluster:
        if spec.method == "ward" and metric == "euclidean":
            asked.append(spec.n_neighbors)
        if spec.method in DENSITY and spec.metric == metric:
            asked.append(max(1, spec.largest_samples - 1))
    return max(asked)


def find_neighbours(rows: Blocks, digest: str, m: int, metric: str, label: str, work: Work) -> Step:
    """Find the nearest rows of every row, or the step that did so.

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
    """
    step = work.step("neighbours", {"m": m, "metric": metric}, digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"neighbours-{label}"
        known = Known.of(rows, metric)
        n = len(known.copies.first)
        lists = distinct_lists(rows, known, min(m, n - 1), name=name)
        _save_survey(folder / SURVEY, known)
        matrices = _write_lists(folder, lists, rows.grid.block_rows, step)
        return {
            "rows": rows.grid.n_rows,
            "distinct": n,
            "matrices": {what: matrix.to_json(folder) for what, matrix in matrices.items()},
        }

    return work.ensure(step, f"{label}: {m} nearest rows of every row, {metric}", compute)


def load_neighbours(step: Step) -> Neighbourhood:
    """Return the handle of a finished step."""
    stored = step.manifest()["matrices"]
    matrices = {what: Matrix.from_json(record, step.folder) for what, record in stored.items()}
    return Neighbourhood(matrices["rows"], matrices["sq_dist"], str(step.folder))


def _save_survey(file: Path, known: Known) -> None:
    frame, copies = known.frame, known.copies
    with open(file, "wb") as out:
        np.savez(
            out,
            center=frame.center,
            scale=frame.scale,
            unit=frame.unit,
            first=copies.first,
            pile=copies.pile,
        )


def _write_lists(folder: Path, lists: Lists, block_rows: int, step: Step) -> dict[str, Matrix]:
    n, m = lists.rows.shape
    grid = RowGrid((n,), block_rows)
    matrices = {}
    for what, values in lists._asdict().items():
        matrix = create_matrix(
            folder / LISTS,
            what,
            grid,
            m,
            str(values.dtype),
            digest=f"{step.digest}-{what}",
            attributes=step.provenance(),
        )
        for i, span in enumerate(grid.spans()):
            matrix.write(i, values[span.row0 : span.row0 + span.n_rows])
        matrix.check_whole()
        matrices[what] = matrix
    return matrices
