"""From descriptors to reduced rows: moments in one pass, components from them, projected blocks."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows, reduce_rows, solo
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import PCA
from vehclust_dask.job.spec import StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.moments import Moments, MomentsPass, column_factors
from vehclust_dask.records import Blocks, RowGrid, Span
from vehclust_dask.store.folders import open_arrays, write_by
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.steps import Step
from vehclust_dask.store.storage import at, whole
from vehclust_dask.store.views import RowsView, blocks_between

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Files of steps.
MOMENTS = "moments.npz"


@dataclass(frozen=True, eq=False)
class Reduced:
    """The rows a study clusters.

    Attributes
    ----------
    rows : RowsView or Matrix
    pca : PCA or None
        None where the study keeps its columns.
    steps : tuple of Step
        That led here.
    """

    rows: RowsView | Matrix
    pca: PCA | None
    steps: tuple[Step, ...]


def variance_curve(pca: PCA, engine: str) -> F64 | None:
    """Return the cumulative share of the variance by component; None where there is no variance.

    dask-ml's PCA knows the kept part of the spectrum only: no more of it is told.
    """
    whole_variance = pca.spectrum_.sum()
    if whole_variance <= 0:
        return None
    known = len(pca.spectrum_) if engine == "vehclust" else pca.n_components_
    curve: F64 = np.minimum(np.cumsum(pca.spectrum_) / whole_variance, 1.0)[:known]
    return curve


@dataclass(frozen=True, eq=False)
class ColumnScale:
    """Columns shifted and scaled, nothing else."""

    shift: F32
    factor: F32

    def transform_block(self, X: F32) -> F32:
        """Scale one block."""
        return (X - self.shift) * self.factor


def reduce_study(study: StudySpec, view: RowsView, work: Work, block_rows: int | None) -> Reduced:
    """Return the rows that a study clusters, from storage where they are there already."""
    if study.reduce.method == "none":
        return _scaled_only(study, view, work, block_rows)
    check_components(study, view.n_features, view.grid.n_rows)
    if study.reduce.engine == "dask-ml":
        steps: tuple[Step, ...] = (_daskml_components(study, view, work),)
    else:
        moments = gather_moments(study, view, work)
        steps = (moments, _components(study, moments, work))
    with whole(steps[-1].folder / "pca.npz") as opened:
        pca = PCA.load(opened)
    grid = _grid(view, pca.n_components_, block_rows)
    reduced = _project(study, view, pca, grid, steps[-1], pca.n_components_, work)
    return Reduced(_matrix(reduced), pca, (*steps, reduced))


def check_components(study: StudySpec, n_features: int, n_rows: int) -> None:
    """Refuse more components than there are columns or rows, before any work."""
    wanted = study.reduce
    limit = min(n_features, n_rows)
    if wanted.n_components and not wanted.max_components and wanted.n_components > limit:
        what = f"{n_features} features" if n_features <= n_rows else f"{n_rows} rows"
        raise BadInput(
            f"studies.{study.name}: n_components={wanted.n_components} but the descriptor has {what}; "
            f"lower it to {limit} or less, or write max_components instead"
        )


def gather_moments(study: StudySpec, view: RowsView, work: Work) -> Step:
    """Gather the moments of a view: one pass, shared by every study that scales its columns otherwise."""
    solver = study.reduce.solver if study.reduce.method == "pca" else "gram"
    step = work.step("moments", {"solver": solver}, view.digest)

    def compute(folder: Path) -> dict[str, Any]:
        one = MomentsPass(triangular=solver == "qr")
        moments = reduce_rows(view, one, name=f"pca-{'-'.join(study.descriptors)}")
        _save(folder / MOMENTS, **_fields(moments))
        return {"rows": moments.n, "n_features": len(moments.mean)}

    return work.ensure(step, f"{study.name}: moments of {'+'.join(study.descriptors)}", compute)


def load_moments(file: str | os.PathLike[str]) -> Moments:
    """Read the moments that a finished step wrote."""
    with open_arrays(at(file)) as stored:
        return Moments(
            int(stored["n"]),
            stored["mean"],
            stored["minimum"],
            stored["maximum"],
            stored["scatter"],
            bool(stored["triangular"]),
        )


def _components(study: StudySpec, moments: Step, work: Work) -> Step:
    wanted = study.reduce
    params = {
        "n_components": wanted.n_components if wanted.n_components else wanted.variance,
        "max_components": wanted.max_components,
        "scale": _column_scale(study.scale),
        "solver": wanted.solver,
    }
    step = work.step("pca", params, moments.digest)

    def compute(folder: Path) -> dict[str, Any]:
        file, out = str(moments.folder / MOMENTS), str(folder / "pca.npz")
        kept, share = solo(_solve, file, out, params, name=f"components-{study.name}")
        return {"n_components": kept, "explained": share, "engine": "vehclust"}

    return work.ensure(step, f"{study.name}: components", compute)


def _solve(file: str, out: str, params: dict[str, Any]) -> tuple[int, float]:
    """Solve for components where the memory for it is planned: on a worker."""
    pca = PCA(**params).fit_moments(load_moments(file))
    write_by(at(out), pca.save)
    return int(pca.n_components_), float(pca.explained_variance_ratio_.sum())


def _column_scale(scale: str) -> str:
    # Rows of length one are made while reading: a set's rows before sets are joined.
    return "none" if scale == "l2" else scale


def _daskml_components(study: StudySpec, view: RowsView, work: Work) -> Step:
    """Fit dask-ml's IncrementalPCA; its result is kept in the same form as ours."""
    wanted = study.reduce
    if wanted.n_components is None:
        raise BadInput(
            f"studies.{study.name}: engine dask-ml needs n_components: its IncrementalPCA knows no "
            "share of variance"
        )
    count = min(wanted.n_components, view.n_features)
    scale = _column_scale(study.scale)
    params = {"n_components": count, "scale": scale, "engine": "dask-ml"}
    step = work.step("pca", params | {"seed": work.seed}, view.digest)

    def compute(folder: Path) -> dict[str, Any]:
        from vehclust_dask.estimators.daskml import incremental_pca

        shift = np.zeros(view.n_features)
        factor = np.ones(view.n_features)
        if scale != "none":
            shift, factor = column_factors(
                load_moments(gather_moments(study, view, work).folder / MOMENTS), scale
            )
        found = incremental_pca(view, count, shift, factor, work.seed)
        pca = PCA(count, scale=scale)
        rest = found.total_variance - found.variances.sum()
        hidden = view.n_features - count
        tail = np.full(hidden, max(rest, 0.0) / hidden) if hidden else np.empty(0)
        pca.components_ = found.components
        # Only the kept part of the spectrum is known; the rest is its mean, so that shares are right.
        pca.spectrum_ = np.concatenate([found.variances, tail])
        pca.mean_, pca.factor_ = shift + found.mean / factor, factor
        pca.n_samples_seen_ = view.grid.n_rows
        pca._describe()
        write_by(folder / "pca.npz", pca.save)
        share = float(pca.explained_variance_ratio_.sum())
        return {"n_components": count, "explained": share, "engine": "dask-ml"}

    return work.ensure(step, f"{study.name}: components by dask-ml", compute)


def _scaled_only(study: StudySpec, view: RowsView, work: Work, block_rows: int | None) -> Reduced:
    """Keep the columns: nothing is written where nothing changes."""
    scale = _column_scale(study.scale)
    if scale == "none":
        return Reduced(dataclasses.replace(view, kept=True), None, ())
    moments = gather_moments(study, view, work)
    shift, factor = column_factors(load_moments(moments.folder / MOMENTS), scale)
    change = ColumnScale(shift.astype(np.float32), factor.astype(np.float32))
    grid = _grid(view, view.n_features, block_rows)
    reduced = _project(study, view, change, grid, moments, view.n_features, work)
    return Reduced(_matrix(reduced), None, (moments, reduced))


def _grid(view: RowsView, width: int, block_rows: int | None) -> RowGrid:
    rows = view.grid.part_rows
    return RowGrid(rows, block_rows) if block_rows else RowGrid.for_width(rows, width)


def _project(
    study: StudySpec,
    view: RowsView,
    change: PCA | ColumnScale,
    grid: RowGrid,
    made_by: Step,
    width: int,
    work: Work,
) -> Step:
    params = {"scale": study.scale, "width": width, "block_rows": grid.block_rows}
    step = work.step("reduced", params, view.digest, made_by.digest)

    def compute(folder: Path) -> dict[str, Any]:
        Z = create_matrix(
            folder / "reduced.zarr",
            "Z",
            grid,
            width,
            "float32",
            digest=step.digest,
            attributes=step.provenance(),
        )
        light = _light(change)
        map_rows(grid, project_block, view, light, Z, name=f"reduce-{study.name}", on=view)
        Z.check_whole()
        return {"matrix": Z.to_json(folder), "rows": grid.n_rows}

    return work.ensure(step, f"{study.name}: {grid.n_rows:,} x {width} reduced rows", compute)


def _light(change: PCA | ColumnScale) -> PCA | ColumnScale:
    """Return the transformation without the moments it was made from: it travels to every worker."""
    if isinstance(change, PCA) and hasattr(change, "moments_"):
        del change.moments_
    return change


def project_block(i: int, span: Span, rows: Blocks, change: PCA | ColumnScale, out: Matrix) -> None:
    """Project the rows of one block of the result, a piece of the source at a time, and write them."""
    if out.is_written(i):
        return
    Z = np.empty((span.n_rows, out.n_features), np.float32)
    first, last = span.row0, span.row0 + span.n_rows
    for b, piece in blocks_between(rows.grid, first, last):
        low, high = max(first, piece.row0), min(last, piece.row0 + piece.n_rows)
        X = rows.read(b)[low - piece.row0 : high - piece.row0]
        Z[low - first : high - first] = change.transform_block(X)
    out.write(i, Z)


def _matrix(step: Step) -> Matrix:
    return Matrix.from_json(step.manifest()["matrix"], step.folder)


def _fields(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def _save(file: Path, **arrays: Any) -> None:
    write_by(file, lambda out: np.savez(out, **arrays))
