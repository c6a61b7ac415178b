"""Outliers of a study: scores of every row and photo, near-duplicates, and what rules exclude."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows, solo
from vehclust_dask.errors import BadInput, UsageError
from vehclust_dask.estimators.outliers import fit_forest, isolation
from vehclust_dask.job.dataset import Dataset
from vehclust_dask.job.neighbourhood import (
    Neighbourhood,
    find_neighbours,
    load_neighbours,
    needed_neighbours,
)
from vehclust_dask.job.outlier_spec import FROM_PHOTOS, OutlierSpec
from vehclust_dask.job.photo_scores import odd_size, photo_columns, score_photos
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.spec import StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.copies import spread
from vehclust_dask.kernels.outliers import local_outlier_factor, near_groups, ranks
from vehclust_dask.records import Blocks, RowGrid, Span
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.steps import Step
from vehclust_dask.store.views import RowsView, original_rows

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Rows of one tree of the isolation forest: the paper's, scikit-learn's default.
MAX_SAMPLES = 256


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Near-duplicates.

    Attributes
    ----------
    group : ndarray of shape (n_rows,), int64
        The lowest original row of each row's group, -1 for a row that has no near-duplicate.
    distance : ndarray of shape (n_rows,), float64
        To the nearest other row.
    limit : float
        Rows up to this distance are near-duplicates.
    """

    group: I64
    distance: F64
    limit: float


@dataclass(frozen=True, eq=False)
class Outliers:
    """What stands out in a study.

    Attributes
    ----------
    study : str
    spec : OutlierSpec
    rows : ndarray of shape (n_rows,), int64
        Original row numbers.
    scores : dict of str to ndarray of shape (n_rows,), float64
        The larger, the more outlying; NaN where there is none.
    duplicates : Duplicates
    steps : tuple of Step
    """

    study: str
    spec: OutlierSpec
    rows: I64
    scores: dict[str, F64]
    duplicates: Duplicates
    steps: tuple[Step, ...]

    def reasons(self) -> list[str]:
        """Return the rules that exclude each row, empty for a row that stays."""
        found = np.full(len(self.rows), "", dtype=object)
        for score, limit in self.spec.rules:
            reached = self.scores[score] >= limit
            words = f"{score} >= {limit:g}"
            found[reached] = [f"{have}; {words}" if have else words for have in found[reached]]
        return [str(words) for words in found]


def check_outliers(study: StudySpec, photos: bool, n_rows: int) -> None:
    """Refuse scores that the job has no rows or photos for, before any work."""
    spec = study.outliers
    if spec is None:
        return
    where = f"studies.{study.name}.outliers"
    if spec.n_neighbors >= n_rows:
        raise BadInput(
            f"{where}: n_neighbors={spec.n_neighbors} but there are {n_rows} rows; "
            f"lower it to {n_rows - 1} or less"
        )
    without = [score for score in spec.named() if score in FROM_PHOTOS and not photos]
    if without:
        raise UsageError(
            f"{where}: '{without[0]}' is measured on photos and the job names none; "
            "give data.photos and data.paths, or take it out"
        )


def find_outliers(
    study: StudySpec,
    reduced: Reduced,
    view: RowsView,
    dataset: Dataset,
    work: Work,
    extra: Mapping[str, F64] | None = None,
) -> Outliers:
    """Score every row of a study and every photo, or find the steps that did so.

    Parameters
    ----------
    study : StudySpec
        With ``outliers``.
    reduced : Reduced
    view : RowsView
    dataset : Dataset
    work : Work
    extra : mapping of str to ndarray of shape (n_rows,), float64, optional
        Further scores by name, the larger the more outlying: of the featured clustering, say.
    """
    spec, rows = study.outliers, reduced.rows
    assert spec is not None, "asked of studies with outliers alone"
    photos = score_photos(dataset, work)
    check_outliers(study, photos is not None, rows.grid.n_rows)
    m = needed_neighbours(study, "euclidean")
    near = find_neighbours(rows, rows.digest, m, "euclidean", study.name, work)
    factors = _factors(study.name, spec, rows.grid, near, work)
    copies = _duplicates(study.name, spec, rows.grid, near, work)
    steps = [near, factors, copies]
    lof, knn = _columns(factors)
    scores = {"lof": lof, "knn_distance": knn}
    if spec.scores is None or "isolation" in spec.named():
        forest = _isolated(study.name, spec, rows, rows.digest, work)
        steps.append(forest)
        (scores["isolation"],) = _columns(forest)
    original = _original(rows.grid, view)
    if photos is not None:
        steps.append(photos)
        scores |= {name: values[original] for name, values in _photo_scores(photos).items()}
    elif spec.scores is None:
        work.say(f"{study.name}: no photos in this job, so no {', '.join(FROM_PHOTOS)}")
    scores |= dict(extra or {})
    wanted = tuple(scores) if spec.scores is None else dict.fromkeys(spec.named())
    chosen = {name: scores[name] for name in wanted}
    return Outliers(
        study.name, spec, original, chosen, _near_copies(copies, original), tuple(steps)
    )


def _original(grid: RowGrid, view: RowsView) -> I64:
    return np.concatenate([original_rows(span, view.dropped) for span in grid.spans()])


def _photo_scores(step: Step) -> dict[str, F64]:
    found = photo_columns(step)
    found["odd_size"] = odd_size(found["width"], found["height"])
    return {name: found[name] for name in FROM_PHOTOS}


def _factors(study: str, spec: OutlierSpec, grid: RowGrid, near: Step, work: Work) -> Step:
    """Compute local outlier factors and distances to the k-th neighbour."""
    k = spec.n_neighbors
    step = work.step("lof", {"n_neighbors": k}, near.digest)

    def compute(folder: Path) -> dict[str, Any]:
        matrix = _create(folder, step, grid, ("lof", "knn_distance"))
        solo(_write_factors, load_neighbours(near), matrix, k, name=f"lof-{study}")
        return _facts(matrix, folder)

    return work.ensure(step, f"{study}: local outlier factors, {k} neighbours", compute)


def _write_factors(near: Neighbourhood, matrix: Matrix, k: int) -> None:
    known, lists = near.survey(), near.lists()
    whole, sq_dist = spread(known.copies, lists.rows, lists.sq_dist, k)
    lof = local_outlier_factor(whole, sq_dist, k)
    matrix.write_rows(np.column_stack([lof, np.sqrt(sq_dist[:, k - 1])]))


def _duplicates(study: str, spec: OutlierSpec, grid: RowGrid, near: Step, work: Work) -> Step:
    """Group rows that nearly repeat each other."""
    step = work.step("duplicates", {"share": spec.duplicates}, near.digest)

    def compute(folder: Path) -> dict[str, Any]:
        matrix = _create(folder, step, grid, ("group", "distance"))
        task = (load_neighbours(near), matrix, spec.duplicates)
        facts = solo(_write_duplicates, *task, name=f"duplicates-{study}")
        return _facts(matrix, folder) | facts

    step = work.ensure(step, f"{study}: near-duplicates", compute)
    facts = step.manifest()
    if facts["full_lists"]:
        work.say(
            f"{study}: {facts['full_lists']:,} rows have near-duplicates in their whole list: groups "
            "may be larger than told; lower outliers.duplicates or raise n_neighbors"
        )
    return step


def _write_duplicates(near: Neighbourhood, matrix: Matrix, share: float) -> dict[str, Any]:
    copies, lists = near.survey().copies, near.lists()
    m = lists.rows.shape[1]
    # With one distinct row there is no distance between rows, and copies alone are groups.
    nearest = lists.sq_dist[:, 0] if m else np.zeros(len(lists.rows))
    sq_limit = share**2 * float(np.median(nearest))
    group = near_groups(*copies, lists.rows, lists.sq_dist, sq_limit)
    repeated = copies.counts[copies.pile] > 1
    distance = np.sqrt(np.where(repeated, 0.0, nearest[copies.pile]))
    matrix.write_rows(np.column_stack([group.astype(np.float64), distance]))
    # A list that holds all other rows hides none.
    hides = 0 < m < len(copies.first) - 1
    full = int((lists.sq_dist[:, -1] <= sq_limit).sum()) if hides else 0
    return {
        "limit": math.sqrt(sq_limit),
        "groups": len(np.unique(group[group >= 0])),
        "rows": int((group >= 0).sum()),
        "full_lists": full,
    }


def _near_copies(step: Step, original: I64) -> Duplicates:
    stored, distance = _columns(step)
    group = stored.astype(np.int64)
    named = np.where(group >= 0, original[group], -1)
    return Duplicates(named, distance, float(step.manifest()["limit"]))


def _isolated(study: str, spec: OutlierSpec, rows: Blocks, digest: str, work: Work) -> Step:
    """Grow a forest on drawn rows and score all rows by blocks.

    The forest is never stored: an interrupted step grows the same one again from the seed.
    """
    params = {
        "n_estimators": spec.n_estimators,
        "sample": min(spec.sample, rows.grid.n_rows),
        "max_samples": MAX_SAMPLES,
        "seed": work.seed,
    }
    step = work.step("isolation", params, digest)

    def compute(folder: Path) -> dict[str, Any]:
        matrix = _create(folder, step, rows.grid, ("isolation",))
        name = f"isolation-{study}"
        asked = (params["n_estimators"], params["sample"], MAX_SAMPLES, work.seed)
        forest = solo(fit_forest, rows, *asked, name=f"{name}-fit", on=rows)
        map_rows(rows.grid, _isolate, matrix, rows, forest, name=name, on=rows)
        return _facts(matrix, folder)

    words = f"{params['n_estimators']} trees on {params['sample']:,} drawn rows"
    return work.ensure(step, f"{study}: isolation forest, {words}", compute)


def _isolate(i: int, span: Span, matrix: Matrix, rows: Blocks, forest: Any) -> None:
    """Score a block, unless that was done before."""
    if not matrix.is_written(i):
        matrix.write(i, isolation(forest, rows.read(i))[:, None])


def _create(folder: Path, step: Step, grid: RowGrid, columns: tuple[str, ...]) -> Matrix:
    return create_matrix(
        folder / "scores.zarr",
        "scores",
        grid,
        len(columns),
        "float64",
        digest=step.digest,
        attributes=step.provenance() | {"columns": list(columns)},
    )


def _facts(matrix: Matrix, folder: Path) -> dict[str, Any]:
    matrix.check_whole()
    return {"matrix": matrix.to_json(folder)}


def _columns(step: Step) -> F64:
    """Read what a step wrote, shape (n_columns, n_rows)."""
    matrix = Matrix.from_json(step.manifest()["matrix"], step.folder)
    whole = np.concatenate([matrix.load(i) for i in range(matrix.grid.n_blocks)])
    columns: F64 = np.ascontiguousarray(whole.T)
    return columns


def write_outliers(file: Path, samples: pd.DataFrame, found: Outliers, block_rows: int) -> None:
    """Write the table of a study's outliers, a row per row, whole or not at all.

    Columns are ``row`` and ``path``, each score and its ``<score>_rank`` (1 is the most outlying, 0
    has no score), ``duplicate_group``, ``duplicate_distance``, ``excluded`` and ``reason``.

    Parameters
    ----------
    file : Path
    samples : DataFrame
    found : Outliers
    block_rows : int
        Rows of a row group.
    """
    columns: dict[str, Any] = {"row": found.rows}
    if "path" in samples:
        columns["path"] = pa.array(samples["path"].iloc[found.rows], type=pa.string())
    for name, values in found.scores.items():
        columns[name] = values
        columns[f"{name}_rank"] = ranks(values)
    columns["duplicate_group"] = found.duplicates.group
    columns["duplicate_distance"] = found.duplicates.distance
    reasons = found.reasons()
    columns["excluded"] = np.array([bool(words) for words in reasons])
    columns["reason"] = pa.array([words or None for words in reasons], type=pa.string())
    beside = file.with_name(f".{file.name}")
    pq.write_table(pa.table(columns), beside, compression="zstd", row_group_size=block_rows)
    beside.replace(file)
