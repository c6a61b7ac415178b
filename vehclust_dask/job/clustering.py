"""The clustering step: centers by the chosen method and engine, then every row's place among them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import KMeansSweep, MiniBatchKMeans
from vehclust_dask.estimators.lloyd import LloydState, RowRange
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.spec import ClusterSpec, StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import Blocks, RowGrid, Span
from vehclust_dask.store.folders import open_arrays, write_by
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.steps import Step

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Seconds between two savings of an iteration's state: about what a kill can cost.
SAVE_EVERY = 10.0
#: Files of the step.
CENTERS, STATE = "centers.npz", "state.npz"
#: Clusters that int16 labels can name.
INT16_CLUSTERS = 2**15 - 1


@dataclass(frozen=True, eq=False)
class Clustered:
    """A finished clustering, one or a sweep.

    Attributes
    ----------
    study, name : str
    ks : tuple of int
    engine, method : str
    centers : list of ndarray of shape (k, n_features), float64
    inertia : ndarray of shape (n_clusterings,), float64
        Sum of squared distances to the nearest final center.
    matrices : dict of str to Matrix
        Each of shape (n_rows, n_clusterings): ``labels`` and ``second`` (integers), ``sq_dist``
        (float32: squared distance to the center or mean of the own cluster) and ``margin``
        (float32: by how much the first is ahead of the second; small at a border). The margin is
        a difference of distances, for mixtures one of responsibilities; mixtures also have
        ``resp`` and ``second_resp`` (float32), the responsibilities themselves.
    step : Step
    earlier : tuple of Step
        That were made for this clustering before: their time counts as its own.
    part : str
        Of the job this is of: the name, unless one part gives several clusterings.
    finds_k : bool
        The number of clusters was found, not asked for: it names no column of labels.
    """

    study: str
    name: str
    ks: tuple[int, ...]
    engine: str
    method: str
    centers: list[F64]
    inertia: F64
    matrices: dict[str, Matrix]
    step: Step
    earlier: tuple[Step, ...] = ()
    part: str = ""
    finds_k: bool = False

    def label_column(self, k: int) -> str:
        """Return the name of a column of labels: ``km_30``."""
        return self.name if self.finds_k else f"{self.name}_{k}"

    def column(self, what: str, k: int) -> NDArray[Any]:
        """Return one clustering's values of all rows."""
        matrix, at = self.matrices[what], self.ks.index(k)
        blocks = [matrix.load(i)[:, at] for i in range(matrix.grid.n_blocks)]
        return np.concatenate(blocks)

    def whole(self, what: str) -> NDArray[Any]:
        """Return all clusterings' values of all rows, shape (n_rows, n_clusterings)."""
        matrix = self.matrices[what]
        return np.concatenate([matrix.load(i) for i in range(matrix.grid.n_blocks)])


def recorded_column(record: dict[str, Any], name: str, k: int) -> str:
    """Return the name of a column of labels, as the manifest of a run has its clustering."""
    return str(record.get("column") or f"{name}_{k}")


def cluster_rows(
    study: StudySpec, spec: ClusterSpec, reduced: Reduced, work: Work
) -> list[Clustered]:
    """Cluster the rows of a study, or find the result of having done so."""
    rows = reduced.rows
    check_clusters(study, spec, rows.grid.n_rows)
    step = work.step("kmeans", _params(spec, work.seed), rows.digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"{spec.method}-{study.name}-{spec.name}"
        centers, n_iter, converged = _centers(folder, spec, rows, work, name)
        inertia, matrices = _assign_rows(folder, centers, rows, step, name)
        return {
            "ks": list(spec.n_clusters),
            "n_iter": n_iter,
            "converged": converged,
            "inertia": [float(v) for v in inertia],
            "matrices": {what: m.to_json(folder) for what, m in matrices.items()},
        }

    work.ensure(step, f"{study.name}/{spec.name}: {_words(spec)}", compute)
    return [load_clustered(study, spec, step)]


def check_clusters(study: StudySpec, spec: ClusterSpec, n_rows: int) -> None:
    """Refuse more clusters or samples than rows, before any work."""
    for word in ("min_samples", "min_cluster_size"):
        most = max(getattr(spec, word), default=0)
        if most > n_rows:
            raise BadInput(
                f"studies.{study.name}.cluster.{spec.name}: {word}={most} but there are {n_rows} "
                f"rows; lower it to {n_rows} or less"
            )
    if spec.n_clusters and spec.n_clusters[-1] > n_rows:
        raise BadInput(
            f"studies.{study.name}.cluster.{spec.name}: n_clusters={spec.n_clusters[-1]} but there are "
            f"{n_rows} rows; lower it to {n_rows} or less"
        )


def _params(spec: ClusterSpec, seed: int) -> dict[str, Any]:
    """Return what decides the result, and nothing that the method has no use for."""
    params: dict[str, Any] = {
        "method": spec.method,
        "engine": spec.engine,
        "n_clusters": list(spec.n_clusters),
        "n_init": spec.n_init,
        "seed": seed,
    }
    if spec.method == "quick-kmeans":
        return params
    params["max_iter"] = spec.max_iter
    if spec.method == "kmeans":
        return params | {"init": spec.init, "tol": spec.tol}
    return params | {"batch_size": spec.batch_size}


def _words(spec: ClusterSpec) -> str:
    engine = "" if spec.engine == "vehclust" else f" by {spec.engine}"
    return f"{spec.method}, {shown_counts(spec.n_clusters)}{engine}"


def shown_counts(ks: tuple[int, ...]) -> str:
    """Write numbers of clusters for people: ``k = 2..50 (49 of them)``."""
    return f"k = {ks[0]}" if len(ks) == 1 else f"k = {ks[0]}..{ks[-1]} ({len(ks)} of them)"


def _centers(
    folder: Path, spec: ClusterSpec, rows: Blocks, work: Work, name: str
) -> tuple[list[F64], list[int], list[bool]]:
    """Find the centers, or read those that an interrupted run had found."""
    file = folder / CENTERS
    if not file.exists():
        find = _FINDERS[spec.engine, spec.method]
        state = find(folder, spec, rows, work, name)
        save_state(file, state)
    state = load_state(file)
    return state.centers, state.n_iter, state.converged


def _sweep(folder: Path, spec: ClusterSpec, rows: Blocks, work: Work, name: str) -> LloydState:
    """Run the joint sweep, going on from the saved state of an interrupted one."""
    file = folder / STATE
    saved = load_state(file) if file.exists() else None
    last = time.monotonic()

    def keep(state: LloydState) -> None:
        nonlocal last
        first = max(state.n_iter, default=0) == 0
        if first or time.monotonic() - last > SAVE_EVERY:
            save_state(file, state)
            last = time.monotonic()
            if not first:
                moving, passes = len(state.active), max(state.n_iter)
                work.say(f"  after {passes} passes {moving} of {len(state.done)} clusterings move")

    sweep = KMeansSweep(
        spec.n_clusters,
        init=spec.init,
        n_init=spec.n_init,
        max_iter=spec.max_iter,
        tol=spec.tol,
        random_state=work.seed,
        quick=spec.method == "quick-kmeans",
    )
    return sweep.fit_centers(rows, name=name, state=saved, on_state=keep)


def _batches(folder: Path, spec: ClusterSpec, rows: Blocks, work: Work, name: str) -> LloydState:
    models = []
    for k in spec.n_clusters:
        model = MiniBatchKMeans(
            k,
            batch_size=spec.batch_size,
            max_iter=spec.max_iter,
            n_init=spec.n_init,
            random_state=work.seed,
        )
        models.append(model.fit_centers(rows, name=f"{name}-{k}"))
    return _finished([m.cluster_centers_ for m in models], [m.n_steps_ for m in models])


def _daskml_kmeans(
    folder: Path, spec: ClusterSpec, rows: Blocks, work: Work, name: str
) -> LloydState:
    from vehclust_dask.estimators import daskml

    spread = RowRange.of(rows, name).mean_variance
    found = [
        daskml.kmeans(rows, k, spec.max_iter, spec.tol, spread, work.seed) for k in spec.n_clusters
    ]
    return _finished([c for c, _ in found], [n for _, n in found], spec.max_iter)


def _daskml_batches(
    folder: Path, spec: ClusterSpec, rows: Blocks, work: Work, name: str
) -> LloydState:
    from vehclust_dask.estimators import daskml

    found = [daskml.minibatch_kmeans(rows, k, spec.batch_size, work.seed) for k in spec.n_clusters]
    return _finished([c for c, _ in found], [n for _, n in found])


def _finished(centers: list[F64], n_iter: list[int], limit: int | None = None) -> LloydState:
    done = [True] * len(centers)
    return LloydState(centers, done, [limit is None or n < limit for n in n_iter], n_iter)


_Finder = Callable[[Path, ClusterSpec, Blocks, Work, str], LloydState]
_FINDERS: dict[tuple[str, str], _Finder] = {
    ("vehclust", "kmeans"): _sweep,
    ("vehclust", "quick-kmeans"): _sweep,
    ("vehclust", "minibatch-kmeans"): _batches,
    ("dask-ml", "kmeans"): _daskml_kmeans,
    ("dask-ml", "minibatch-kmeans"): _daskml_batches,
}


def save_state(file: Path, state: LloydState) -> None:
    """Write a state, whole or not at all."""
    arrays: dict[str, Any] = {f"centers_{i}": c for i, c in enumerate(state.centers)}
    arrays |= {"done": state.done, "converged": state.converged, "n_iter": state.n_iter}
    write_by(file, lambda out: np.savez(out, **arrays))


def load_state(file: Path) -> LloydState:
    """Read a state."""
    with open_arrays(file) as stored:
        done = stored["done"].tolist()
        centers = [stored[f"centers_{i}"] for i in range(len(done))]
        return LloydState(centers, done, stored["converged"].tolist(), stored["n_iter"].tolist())


def _assign_rows(
    folder: Path, centers: list[F64], rows: Blocks, step: Step, name: str
) -> tuple[F64, dict[str, Matrix]]:
    """Write label, second, squared distance and margin of every row; return inertias and handles."""
    segments = Segments.of(centers)
    matrices = create_places(folder, rows.grid, centers, step, floats=("sq_dist", "margin"))
    parts = map_rows(
        rows.grid, assign_block, rows, segments, matrices, name=f"{name}-assign", on=rows
    )
    for matrix in matrices.values():
        matrix.check_whole()
    inertia = np.zeros(len(centers))
    for part in parts:
        inertia += part
    return inertia, matrices


def create_places(
    folder: Path, grid: RowGrid, centers: list[F64], step: Step, *, floats: tuple[str, ...]
) -> dict[str, Matrix]:
    """Create the matrices that say where every row belongs: labels, second and some numbers."""
    short = max(len(c) for c in centers) <= INT16_CLUSTERS
    integer = "int16" if short else "int32"
    kinds = {"labels": integer, "second": integer} | dict.fromkeys(floats, "float32")
    return {
        what: create_matrix(
            folder / "clusters.zarr",
            what,
            RowGrid(grid.part_rows, grid.block_rows),
            len(centers),
            dtype,
            digest=f"{step.digest}-{what}",
            attributes=step.provenance(),
        )
        for what, dtype in kinds.items()
    }


def assign_block(
    i: int, span: Span, rows: Blocks, segments: Segments, out: dict[str, Matrix]
) -> F64:
    """Assign the rows of one block to their centers and write that; return its inertias."""
    found = assign(rows.read(i), segments)
    for what, matrix in out.items():
        matrix.write(i, getattr(found, what).astype(matrix.dtype))
    inertia: F64 = found.sq_dist.sum(axis=0)
    return inertia


def load_clustered(
    study: StudySpec,
    spec: ClusterSpec,
    step: Step,
    earlier: tuple[Step, ...] = (),
    name: str | None = None,
) -> Clustered:
    """Return a finished clustering; ``name`` where it is one of several of its part of the job."""
    facts = step.manifest()
    state = load_state(step.folder / CENTERS)
    return Clustered(
        study=study.name,
        name=name or spec.name,
        ks=tuple(facts["ks"]),
        engine=spec.engine,
        method=spec.method,
        centers=state.centers,
        inertia=np.asarray(facts["inertia"]),
        matrices={
            what: Matrix.from_json(record, step.folder)
            for what, record in facts["matrices"].items()
        },
        step=step,
        earlier=earlier,
        part=spec.name,
        finds_k=not spec.n_clusters,
    )
