"""Ward's method in a job: neighbours, the whole tree of all rows, and its cuts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import solo
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.ward import grow_tree, start_ward, whole_linkage
from vehclust_dask.job.clustering import (
    STATE,
    Clustered,
    check_clusters,
    create_places,
    load_clustered,
    shown_counts,
)
from vehclust_dask.job.neighbourhood import (
    Neighbourhood,
    find_neighbours,
    found_neighbours,
    load_neighbours,
    needed_neighbours,
)
from vehclust_dask.job.placing import place_labels
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.spec import ClusterSpec, StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.linkage import cut_linkage
from vehclust_dask.kernels.ward import WardState
from vehclust_dask.records import Blocks
from vehclust_dask.store.folders import open_arrays, read_array, write_by
from vehclust_dask.store.steps import Step
from vehclust_dask.store.storage import at
from vehclust_dask.tasks import tell

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: File of the tree: scipy's linkage matrix.
LINKAGE = "linkage.npy"
#: Seconds between two savings of a growing tree, whose state is large.
SAVE_EVERY = 45.0


def grow_and_cut(
    study: StudySpec, spec: ClusterSpec, reduced: Reduced, work: Work
) -> list[Clustered]:
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
    return [load_clustered(study, spec, cut, earlier=(near, tree) if near else (tree,))]


def tree_step(cut: Step) -> Step:
    """Return the step of the tree that was cut."""
    (digest,) = cut.made_from
    return Step.at(cut.root, cut.root / "steps" / f"ward-{digest}")


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
    known, file = near.survey(), at(folder) / STATE
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
    write_by(at(folder) / LINKAGE, lambda out: np.save(out, linkage))
    return len(linkage)


def save_tree(file: Path, state: WardState) -> None:
    """Write a state, whole or not at all."""
    write_by(file, lambda out: np.savez(out, **state._asdict()))


def load_tree(file: Path) -> WardState:
    """Read a state."""
    with open_arrays(file) as stored:
        return WardState(**{name: stored[name] for name in WardState._fields})


def _cut(study: StudySpec, spec: ClusterSpec, rows: Blocks, tree: Step, work: Work) -> Step:
    """Write every row's place in every cut: its cluster, the nearest other one, distances."""
    ks = spec.n_clusters
    step = work.step("cut", {"n_clusters": list(ks)}, tree.digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"ward-{study.name}-{spec.name}"
        linkage = read_array(tree.folder / LINKAGE)
        n = len(linkage) + 1
        shapes = [np.empty((k, rows.n_features)) for k in ks]
        out = create_places(folder, rows.grid, shapes, step, floats=("sq_dist", "margin"))
        labels = np.stack([cut_linkage(linkage, n - k) for k in ks], axis=1)
        out["labels"].write_rows(labels)
        return place_labels(folder, rows, ks, out, name)

    return work.ensure(step, f"{study.name}/{spec.name}: ward, {shown_counts(ks)}", compute)
