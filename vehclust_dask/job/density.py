"""Density methods in a job: one tree of all rows per metric, and every DBSCAN and HDBSCAN cut from it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.blocks import solo
from vehclust_dask.estimators.density import (
    Hierarchy,
    Local,
    Selected,
    best_setting,
    connect,
    graph_of,
)
from vehclust_dask.estimators.lloyd import LloydState
from vehclust_dask.estimators.neighbours import squared
from vehclust_dask.job.clustering import (
    CENTERS,
    Clustered,
    check_clusters,
    create_places,
    load_clustered,
    save_state,
)
from vehclust_dask.job.neighbourhood import (
    ROUNDS,
    Neighbourhood,
    find_neighbours,
    load_neighbours,
    needed_neighbours,
)
from vehclust_dask.job.placing import place_labels
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.spec import ClusterSpec, StudySpec
from vehclust_dask.job.study import DENSITY
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.condensed import reachability
from vehclust_dask.kernels.forest import Edges
from vehclust_dask.records import Blocks
from vehclust_dask.store.folders import open_arrays, read_table, write_by, write_table
from vehclust_dask.store.matrices import Matrix, create_matrix
from vehclust_dask.store.rounds import Rounds
from vehclust_dask.store.steps import Step
from vehclust_dask.store.storage import at

F64 = NDArray[np.float64]

#: Files of the steps: the tree; what every setting gives, and how far core distances reach; what
#: HDBSCAN chose from, and the rows in the order of the tree.
TREE, GRID, DISTANCES = "tree.npz", "grid.parquet", "core-distances.parquet"
CONDENSED, REACHABILITY = "condensed.parquet", "reachability.npz"
#: Core distances are told at so many shares of the rows.
SHARES = 1001


@dataclass(frozen=True, eq=False)
class Grown:
    """The tree of a study's rows for one metric, on storage.

    Attributes
    ----------
    near : Neighbourhood
    folder : str
        Of the tree's step.
    metric : str
    min_samples : int
        The largest it serves.
    """

    near: Neighbourhood
    folder: str
    metric: str
    min_samples: int

    def load(self) -> Hierarchy:
        """Read lists and tree."""
        copies = self.near.survey().copies
        with open_arrays(at(self.folder) / TREE) as stored:
            tree = Edges(stored["a"], stored["b"], stored["sq"])
        graph = graph_of(copies, self.near.lists())
        return Hierarchy(copies, graph, tree, self.min_samples, self.metric)


def density_specs(study: StudySpec, metric: str) -> list[ClusterSpec]:
    """Return the clusterings of a study that share one tree."""
    return [one for one in study.cluster if one.method in DENSITY and one.metric == metric]


def grow_density(
    study: StudySpec, metric: str, rows: Blocks, digest: str, work: Work
) -> tuple[Grown, tuple[Step, Step]]:
    """Grow the tree of a study's rows for its largest ``min_samples``, or find it grown."""
    largest = max(spec.largest_samples for spec in density_specs(study, metric))
    m = needed_neighbours(study, metric)
    near = find_neighbours(rows, digest, m, metric, study.name, work)
    lists = load_neighbours(near, max(1, largest - 1))
    step = work.step("density", {"metric": metric, "min_samples": largest}, digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"density-{study.name}-{metric}"
        local = solo(span_lists, lists, largest, name=name, on=rows)
        keep = Rounds(str(folder / ROUNDS), Edges)
        tree = connect(rows, lists.survey(), local, name=name, keep=keep)
        write_by(folder / TREE, lambda out: np.savez(out, **tree._asdict()))
        keep.clear()
        return {"apart": local.found.n_parts}

    label = f"{study.name}: tree of mutual reachability, {metric}, min_samples up to {largest}"
    work.ensure(step, label, compute)
    return Grown(lists, str(step.folder), metric, largest), (near, step)


def span_lists(near: Neighbourhood, min_samples: int) -> Local:
    """Span the rows as far as their lists go, where the memory for all lists is planned."""
    return Local.of(graph_of(near.survey().copies, near.lists()), min_samples)


def cut_rows(study: StudySpec, spec: ClusterSpec, reduced: Reduced, work: Work) -> list[Clustered]:
    """Cut DBSCAN's clusterings from the tree: what every setting gives, and labels of the asked ones."""
    rows = reduced.rows
    check_clusters(study, spec, rows.grid.n_rows)
    grown, earlier = grow_density(study, spec.metric, rows, rows.digest, work)
    grid = _grid(study, spec, grown, rows, rows.digest, work)
    table = read_table(grid.folder / GRID)
    found = []
    for q, eps in itertools.product(spec.min_samples, spec.eps or (None,)):
        setting = best_setting(table, q) if eps is None else {"eps": eps}
        params = {"metric": spec.metric, "min_samples": q, "eps": setting["eps"]}
        name = _name(spec, ("m", spec.min_samples, q), ("e", spec.eps, eps))
        step = work.step("dbscan", params, rows.digest)

        def compute(folder: Path, step: Step = step, name: str = name) -> dict[str, Any]:
            task = f"dbscan-{study.name}-{name}"
            labels, core = solo(cut_setting, grown, step.params, name=task, on=rows)
            extra = {"core": core}
            return _place(folder, rows, labels, extra, step, task)

        shown = ", ".join(f"{word} {value}" for word, value in params.items())
        work.ensure(step, f"{study.name}/{name}: dbscan, {shown}", compute)
        found.append(load_clustered(study, spec, step, (*earlier, grid), name))
    return found


def grid_step(spec: ClusterSpec, of: Step) -> Step:
    """Return the step that holds what every setting gives, beside one that cut or looked at the tree."""
    return Step(of.root, "density-grid", grid_params(spec), of.made_from)


def grid_params(spec: ClusterSpec) -> dict[str, Any]:
    """Return what decides the grid of settings."""
    return {
        "metric": spec.metric,
        "min_samples": list(spec.min_samples),
        "eps": list(spec.eps) or None,
    }


def setting_names(spec: ClusterSpec) -> list[str]:
    """Return the names of the clusterings that one part of a job gives."""
    if spec.method == "dbscan":
        pairs = itertools.product(spec.min_samples, spec.eps or (None,))
        return [_name(spec, ("m", spec.min_samples, q), ("e", spec.eps, eps)) for q, eps in pairs]
    if spec.method == "hdbscan":
        sizes = itertools.product(spec.min_cluster_size, spec.min_samples or (None,))
        return [
            _name(spec, ("s", spec.min_cluster_size, size), ("m", spec.min_samples, q))
            for size, q in sizes
        ]
    return [spec.name]


def _name(spec: ClusterSpec, *parts: tuple[str, tuple[Any, ...], Any]) -> str:
    """Name one of several clusterings by what they differ in: ``db-m5-e0.4``."""
    words = [f"{sign}{value:g}" for sign, values, value in parts if len(values) > 1]
    return "-".join([spec.name, *words])


def cut_setting(grown: Grown, params: dict[str, Any]) -> tuple[Any, Any]:
    """Return the labels of one setting, and which rows are core rows (int8)."""
    hierarchy = grown.load()
    cuts = hierarchy.cuts(params["min_samples"])
    core = cuts.core <= squared(params["eps"], grown.metric)
    return hierarchy.labels(cuts, params["eps"]), core[hierarchy.copies.pile].astype(np.int8)


def _grid(
    study: StudySpec, spec: ClusterSpec, grown: Grown, rows: Blocks, digest: str, work: Work
) -> Step:
    """Write what every setting gives, and the core distances, or find them written."""
    params = grid_params(spec)
    step = work.step("density-grid", params, digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"density-grid-{study.name}-{spec.name}"
        table, distances = solo(look_at_grid, grown, params, name=name, on=rows)
        write_table(table, folder / GRID)
        write_table(distances, folder / DISTANCES)
        return {"settings": len(table), "balanced": int(table["balanced"].sum())}

    return work.ensure(step, f"{study.name}/{spec.name}: every DBSCAN, {spec.metric}", compute)


def look_at_grid(grown: Grown, params: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what every setting gives, and the core distances at some shares of the rows."""
    hierarchy = grown.load()
    shares = np.linspace(0, 1, SHARES)
    parts = [
        pd.DataFrame(
            {
                "min_samples": q,
                "share": shares,
                "distance": np.quantile(hierarchy.core_distances(q), shares),
            }
        )
        for q in params["min_samples"]
    ]
    return hierarchy.grid(params["min_samples"], params["eps"]), pd.concat(parts)


def select_rows(
    study: StudySpec, spec: ClusterSpec, reduced: Reduced, work: Work
) -> list[Clustered]:
    """Choose HDBSCAN's clusters from the tree, for each setting of the job."""
    rows = reduced.rows
    check_clusters(study, spec, rows.grid.n_rows)
    grown, earlier = grow_density(study, spec.metric, rows, rows.digest, work)
    found = []
    for size, q in itertools.product(spec.min_cluster_size, spec.min_samples or (None,)):
        params = {
            "metric": spec.metric,
            "min_samples": size if q is None else q,
            "min_cluster_size": size,
            "selection": spec.selection,
        }
        name = _name(spec, ("s", spec.min_cluster_size, size), ("m", spec.min_samples, q))
        step = work.step("hdbscan", params, rows.digest)

        def compute(folder: Path, step: Step = step, name: str = name) -> dict[str, Any]:
            task = f"hdbscan-{study.name}-{name}"
            labels, extra = solo(select, grown, step.params, str(folder), name=task, on=rows)
            return _place(folder, rows, labels, extra, step, task)

        shown = ", ".join(f"{word} {value}" for word, value in params.items())
        work.ensure(step, f"{study.name}/{name}: hdbscan, {shown}", compute)
        found.append(load_clustered(study, spec, step, earlier, name))
    return found


def select(grown: Grown, params: dict[str, Any], folder: str) -> tuple[Any, dict[str, Any]]:
    """Return labels, probabilities and GLOSH; write the condensed tree and the rows in its order."""
    hierarchy = grown.load()
    linkage = hierarchy.linkage(hierarchy.cuts(params["min_samples"]))
    found = Selected.of(linkage, params["min_cluster_size"], params["selection"])
    order, height = reachability(linkage)
    write_by(at(folder) / REACHABILITY, lambda out: np.savez(out, order=order, height=height))
    label = np.full(found.condensed.n_clusters, -1, np.int32)
    cluster = found.condensed.row_clusters(found.chosen)
    label[cluster[cluster >= 0]] = found.labels[cluster >= 0]
    tree = pd.DataFrame(
        {
            "cluster": np.arange(found.condensed.n_clusters),
            "parent": found.condensed.parent,
            "birth": found.condensed.birth,
            "end": found.condensed.ends(),
            "size": found.condensed.size,
            "stability": found.condensed.stability(),
            "chosen": found.chosen,
            "label": label,
        }
    )
    write_table(tree, at(folder) / CONDENSED)
    extra = {"probability": found.probabilities, "glosh": found.outlier_scores}
    return found.labels, {word: values.astype(np.float32) for word, values in extra.items()}


def _place(
    folder: Path,
    rows: Blocks,
    labels: NDArray[np.int32],
    extra: dict[str, NDArray[Any]],
    step: Step,
    name: str,
) -> dict[str, Any]:
    """Write labels, what else is known of each row, and its place among the means of the clusters."""
    k = int(labels.max()) + 1
    shape = [np.empty((k, rows.n_features))]
    out = create_places(folder, rows.grid, shape, step, floats=("sq_dist", "margin"))
    for word, values in extra.items():
        out[word] = create_matrix(
            folder / "clusters.zarr",
            word,
            rows.grid,
            1,
            str(values.dtype),
            digest=f"{step.digest}-{word}",
            attributes=step.provenance(),
        )
    for word, values in ({"labels": labels} | extra).items():
        out[word].write_rows(values[:, None])
    facts = place_labels(folder, rows, (k,), out, name) if k else _all_noise(folder, rows, out)
    return facts | {"setting": step.params | {"noise": float((labels < 0).mean())}}


def _all_noise(folder: Path, rows: Blocks, out: dict[str, Matrix]) -> dict[str, Any]:
    """Write the places of rows that are in no cluster: there is nothing to be near to."""
    save_state(folder / CENTERS, LloydState([np.empty((0, rows.n_features))], [True], [True], [0]))
    for i, span in enumerate(rows.grid.spans()):
        for word, value in (("second", -1), ("sq_dist", np.nan), ("margin", np.nan)):
            out[word].write(i, np.full((span.n_rows, 1), value, out[word].dtype))
    return {
        "ks": [0],
        "n_iter": [0],
        "converged": [True],
        "inertia": [0.0],
        "matrices": {what: matrix.to_json(folder) for what, matrix in out.items()},
    }
