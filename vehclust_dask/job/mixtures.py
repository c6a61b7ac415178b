"""The step of Gaussian mixtures: parameters for every number of components, then every row's place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import map_rows
from vehclust_dask.estimators import GaussianMixtureSweep
from vehclust_dask.estimators.em import MixtureState, aic, bic
from vehclust_dask.estimators.lloyd import LloydState
from vehclust_dask.job import clustering
from vehclust_dask.job.clustering import (
    STATE,
    Clustered,
    check_clusters,
    create_places,
    load_state,
    save_state,
    shown_counts,
)
from vehclust_dask.job.reduction import Reduced
from vehclust_dask.job.spec import ClusterSpec, StudySpec
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.mixture import Mixture, membership
from vehclust_dask.records import Blocks, Span
from vehclust_dask.store.folders import open_arrays, write_by
from vehclust_dask.store.matrices import Matrix
from vehclust_dask.store.steps import Step

F64 = NDArray[np.float64]

#: Files of the step: final parameters, and where an iteration stands (k-means first has its own).
MIXTURES, MIXTURE_STATE = "mixtures.npz", "mixtures-state.npz"
FLOATS = ("sq_dist", "margin", "resp", "second_resp")


def mix_rows(study: StudySpec, spec: ClusterSpec, reduced: Reduced, work: Work) -> list[Clustered]:
    """Fit the mixtures of a study and place every row, or find the result of having done so."""
    rows = reduced.rows
    check_clusters(study, spec, rows.grid.n_rows)
    step = work.step("mixture", _params(spec, work.seed), rows.digest)

    def compute(folder: Path) -> dict[str, Any]:
        name = f"mixture-{study.name}-{spec.name}"
        if not (folder / MIXTURES).exists():
            save_mixtures(folder / MIXTURES, _fitted(folder, spec, rows, work, name))
        # What is left of the way there depends on when it was saved.
        (folder / MIXTURE_STATE).unlink(missing_ok=True)
        state = load_mixtures(folder / MIXTURES)
        sums, matrices = _place_rows(folder, state.mixtures, rows, step, name)
        inertia, likelihood = sums
        pairs = [(float(v), m) for v, m in zip(likelihood, state.mixtures, strict=True)]
        return {
            "ks": list(spec.n_clusters),
            "n_iter": state.n_iter,
            "converged": state.converged,
            "inertia": [float(v) for v in inertia],
            "log_likelihood": [v for v, _ in pairs],
            "bic": [bic(v, rows.grid.n_rows, m) for v, m in pairs],
            "aic": [aic(v, m) for v, m in pairs],
            "matrices": {what: m.to_json(folder) for what, m in matrices.items()},
        }

    work.ensure(step, f"{study.name}/{spec.name}: {_words(spec)}", compute)
    return [_load(study, spec, step)]


def _params(spec: ClusterSpec, seed: int) -> dict[str, Any]:
    """Return what decides the result."""
    return {
        "method": spec.method,
        "n_clusters": list(spec.n_clusters),
        "covariance": spec.covariance,
        "reg_covar": spec.reg_covar,
        "tol": spec.tol,
        "max_iter": spec.max_iter,
        "n_init": spec.n_init,
        "precision": spec.precision,
        "seed": seed,
    }


def _words(spec: ClusterSpec) -> str:
    return f"{spec.method}, {spec.covariance} covariances, {shown_counts(spec.n_clusters)}"


def _fitted(folder: Path, spec: ClusterSpec, rows: Blocks, work: Work, name: str) -> MixtureState:
    """Fit all mixtures, going on from the saved state of an interrupted fit."""
    going, kmeans = folder / MIXTURE_STATE, folder / STATE
    saved: LloydState | MixtureState | None = None
    if going.exists():
        saved = load_mixtures(going)
    elif kmeans.exists():
        saved = load_state(kmeans)
    last = time.monotonic()

    def keep(state: LloydState | MixtureState) -> None:
        nonlocal last
        first = isinstance(state, MixtureState) and not any(state.n_iter)
        if not first and time.monotonic() - last <= clustering.SAVE_EVERY:
            return
        if isinstance(state, MixtureState):
            save_mixtures(going, state)
        else:
            save_state(kmeans, state)
        last = time.monotonic()
        what = "mixtures" if isinstance(state, MixtureState) else "starts"
        passes, moving = max(state.n_iter), len(state.active)
        work.say(f"  after {passes} passes {moving} of {len(state.done)} {what} move")

    sweep = GaussianMixtureSweep(
        spec.n_clusters,
        covariance_type=spec.covariance,
        tol=spec.tol,
        reg_covar=spec.reg_covar,
        max_iter=spec.max_iter,
        n_init=spec.n_init,
        precision=spec.precision,
        random_state=work.seed,
    )
    return sweep.fit_mixtures(rows, name=name, state=saved, on_state=keep)


def save_mixtures(file: Path, state: MixtureState) -> None:
    """Write a state, whole or not at all."""
    arrays: dict[str, Any] = {}
    for i, one in enumerate(state.mixtures):
        arrays |= {
            f"kind_{i}": one.kind,
            f"weights_{i}": one.weights,
            f"means_{i}": one.means,
            f"covariances_{i}": one.covariances,
            f"factors_{i}": one.factors,
        }
    arrays |= {
        "lower_bound": state.lower_bound,
        "done": state.done,
        "converged": state.converged,
        "n_iter": state.n_iter,
    }
    write_by(file, lambda out: np.savez(out, **arrays))


def load_mixtures(file: Path) -> MixtureState:
    """Read a state."""
    with open_arrays(file) as stored:
        done = stored["done"].tolist()
        mixtures = [
            Mixture(
                str(stored[f"kind_{i}"]),
                *(stored[f"{part}_{i}"] for part in ("weights", "means", "covariances", "factors")),
            )
            for i in range(len(done))
        ]
        return MixtureState(
            mixtures,
            stored["lower_bound"].tolist(),
            done,
            stored["converged"].tolist(),
            stored["n_iter"].tolist(),
        )


def _place_rows(
    folder: Path, mixtures: list[Mixture], rows: Blocks, step: Step, name: str
) -> tuple[F64, dict[str, Matrix]]:
    """Write the two likeliest components of every row; return inertias and log-likelihoods, and handles."""
    means = [one.means for one in mixtures]
    matrices = create_places(folder, rows.grid, means, step, floats=FLOATS)
    parts = map_rows(
        rows.grid, place_block, rows, tuple(mixtures), matrices, name=f"{name}-place", on=rows
    )
    for matrix in matrices.values():
        matrix.check_whole()
    sums = np.zeros((2, len(mixtures)))
    for part in parts:
        sums += part
    return sums, matrices


def place_block(
    i: int, span: Span, rows: Blocks, mixtures: tuple[Mixture, ...], out: dict[str, Matrix]
) -> F64:
    """Place the rows of one block and write that; return its inertias and log-likelihoods."""
    X = rows.read(i)
    found = [membership(X, one) for one in mixtures]
    for what, matrix in out.items():
        if what == "margin":
            columns = [f.resp - f.second_resp for f in found]
        else:
            columns = [getattr(f, what) for f in found]
        matrix.write(i, np.stack(columns, axis=1).astype(matrix.dtype))
    inertia = [f.sq_dist.sum() for f in found]
    return np.array([inertia, [f.log_likelihood.sum() for f in found]])


def _load(study: StudySpec, spec: ClusterSpec, step: Step) -> Clustered:
    facts = step.manifest()
    state = load_mixtures(step.folder / MIXTURES)
    return Clustered(
        study=study.name,
        name=spec.name,
        ks=tuple(facts["ks"]),
        engine=spec.engine,
        method=spec.method,
        centers=[one.means for one in state.mixtures],
        inertia=np.asarray(facts["inertia"]),
        matrices={
            what: Matrix.from_json(record, step.folder)
            for what, record in facts["matrices"].items()
        },
        step=step,
    )
