"""Ward's method in a job: neighbours, the whole tree of all rows, and its cuts."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows, reduce_rows, solo
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.lloyd import LloydState, RowRange
from vehclust_dask.estimators.ward import grow_tree, start_ward, whole_linkage
from vehclust_dask.job.clustering import (
    CENTERS,
    STATE,
    Clustered,
    check_clusters,
    create_places,
    load_clustered,
    save_state,
    shown_counts,
)
from vehclust_dask.job.neighbourhood import (
    Neighbourhood,
    find_neighbours,
    found_neighbours,
    load_neighbours,
    needed_neighbours,
)
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.scoring import MeansPass
from vehclust_dask.job.spec import ClusterSpec, StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.distances import sq_norms
from vehclust_dask.kernels.kmeans import integers_to_centers, quantum_scale
from vehclust_dask.kernels.linkage import cut_linkage
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.kernels.ward import WardState
from vehclust_dask.records import Blocks, Span
from vehclust_dask.store.folders import write_by
from vehclust_dask.store.matrices import Matrix
from vehclust_dask.store.steps import Step
from vehclust_dask.tasks import tell

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: File of the tree: scipy's linkage matrix.
LINKAGE = "linkage.npy"
#: Seconds between two savings of a growing tree, whose state is large.
SAVE_EVERY = 45.0


def grow_and_cut(study: StudySpec, spec: ClusterSpec, reduced: Reduced, work: Work) -> Clustered:
    """Grow the tree of a study's rows and cut it, or find the result of having done so."""
    rows = reduced.rows
    check_clusters(study, spec, rows.grid.n_rows)
    # The tree is a function of the rows: lists of any length grow the same.
    tree = work.step("ward", {}, rows.digest)
    if tree.done:
        near = found_neighbours(rows.digest, 1, "euclidean", work)
    else:
        m = needed_neighbours(study, "euclidean")
        near = find_neighbours(rows, rows.digest, m, "euclidean", study.name, work)
        _check_distinct(study, spec, near)
        _grow(study, spec, rows, near, tree, work)
    _check_distinct(study, spec, tree)
    cut = _cut(study, spec, rows, tree, work)
    return load_clustered(study, spec, cut, earlier=(near, tree) if near else (tree,))


def _check_distinct(study: StudySpec, spec: ClusterSpec, step: Step) -> None:
    distinct = int(step.manifest()["distinct"])
    if distinct < max(spec.n_clusters[-1], 2):
        raise BadInput(
            f"studies.{study.name}.cluster.{spec.name}: n_clusters={spec.n_clusters[-1]} but only "
            f"{distinct} rows differ from one another; lower it, or look at the descriptors"
        )


def _grow(
    study: StudySpec, spec: ClusterSpec, rows: Blocks, near: Step, tree: Step, work: Work
) -> None:
    def compute(folder: Path) -> dict[str, Any]:
        lists = load_neighbours(near, spec.n_neighbors)
        merges = solo(grow, rows, lists, str(folder), name=f"ward-{study.name}", on=rows)
        return {"merges": merges, "distinct": near.manifest()["distinct"]}

    work.ensure(tree, f"{study.name}: the tree of {rows.grid.n_rows:,} rows", compute)


def grow(rows: Blocks, near: Neighbourhood, folder: str) -> int:
    """Grow the tree where the memory for it is planned, going on from a saved state; return its merges."""
    known, file = near.survey(), Path(folder) / STATE
    state = load_tree(file) if file.exists() else start_ward(rows, known, near.lists())
    last, n = time.monotonic(), len(known.copies.first)

    def keep(now: WardState) -> None:
        nonlocal last
        tell(f"the tree: {now.n_clusters:,} of {n:,} clusters left")
        if time.monotonic() - last > SAVE_EVERY:
            save_tree(file, now)
            last = time.monotonic()

    grow_tree(state, keep)
    linkage = whole_linkage(state, known.copies)
    write_by(Path(folder) / LINKAGE, lambda out: np.save(out, linkage))
    return len(linkage)


def save_tree(file: Path, state: WardState) -> None:
    """Write a state, whole or not at all."""
    write_by(file, lambda out: np.savez(out, **state._asdict()))


def load_tree(file: Path) -> WardState:
    """Read a state."""
    with np.load(file, allow_pickle=False) as stored:
        return WardState(**{name: stored[name] for name in WardState._fields})


def _cut(study: StudySpec, spec: ClusterSpec, rows: Blocks, tree: Step, work: Work) -> Step:
    """Write every row's place in every cut: its cluster, the nearest other one, distances."""
    ks = spec.n_clusters
    step = work.step("cut", {"n_clusters": list(ks)}, tree.digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"ward-{study.name}-{spec.name}"
        linkage = np.load(tree.folder / LINKAGE, allow_pickle=False)
        n = len(linkage) + 1
        shapes = [np.empty((k, rows.n_features)) for k in ks]
        out = create_places(folder, rows.grid, shapes, step, floats=("sq_dist", "margin"))
        labels = np.stack([cut_linkage(linkage, n - k) for k in ks], axis=1)
        for i, span in enumerate(rows.grid.spans()):
            block = labels[span.row0 : span.row0 + span.n_rows]
            out["labels"].write(i, block.astype(out["labels"].dtype))
        centers = _means(rows, out["labels"], ks, name)
        rest = [True] * len(ks)
        save_state(folder / CENTERS, LloydState(centers, rest, rest))
        segments = Segments.of(centers)
        parts = map_rows(rows.grid, place_block, rows, segments, out, name=f"{name}-place", on=rows)
        for matrix in out.values():
            matrix.check_whole()
        return {
            "ks": list(ks),
            "n_iter": [0] * len(ks),
            "converged": [True] * len(ks),
            "inertia": [float(v) for v in sum(parts, start=np.zeros(len(ks)))],
            "matrices": {what: m.to_json(folder) for what, m in out.items()},
        }

    return work.ensure(step, f"{study.name}/{spec.name}: ward, {shown_counts(ks)}", compute)


def _means(rows: Blocks, labels: Matrix, ks: tuple[int, ...], name: str) -> list[F64]:
    """Return the means of the clusters of every cut, from exact sums."""
    offsets = np.cumsum([0, *ks]).astype(np.int64)
    extent = RowRange.of(rows, name)
    scale = quantum_scale(extent.largest, extent.n)
    one = MeansPass(labels, offsets, scale, rows.n_features)
    sums, counts = reduce_rows(rows, one, name=f"{name}-means", exact=True)
    means = integers_to_centers(sums, counts, scale, np.zeros(sums.shape))
    return [means[a:b] for a, b in itertools.pairwise(offsets.tolist())]


def place_block(
    i: int, span: Span, rows: Blocks, segments: Segments, out: dict[str, Matrix]
) -> F64:
    """Write where the rows of one block lie among the centers of their cuts; return its inertias.

    A row of a cut need not lie nearest to the center of its own cluster: its margin is then below
    zero, and the nearest center is that of its second cluster.
    """
    X = rows.read(i)
    found = assign(X, segments)
    labels = out["labels"].load(i).astype(np.int32)
    second, sq_dist, margin = found.second.copy(), found.sq_dist.copy(), found.margin.copy()
    for s in range(segments.n_segments):
        other = np.flatnonzero(labels[:, s] != found.labels[:, s])
        own = segments.centers[segments.part(s)][labels[other, s]]
        sq_dist[other, s] = sq_norms(X[other].astype(np.float64) - own)
        second[other, s] = found.labels[other, s]
        margin[other, s] = np.sqrt(found.sq_dist[other, s]) - np.sqrt(sq_dist[other, s])
    for what, values in (("second", second), ("sq_dist", sq_dist), ("margin", margin)):
        out[what].write(i, values.astype(out[what].dtype))
    inertia: F64 = sq_dist.sum(axis=0)
    return inertia
