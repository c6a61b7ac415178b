"""One job executed: convert, then every study through its steps, then tables, figures, manifest."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask import __version__, blocks
from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import Interrupted, RunMissing
from vehclust_dask.job.clustering import Clustered, cluster_rows
from vehclust_dask.job.dataset import Dataset, convert, find_converted
from vehclust_dask.job.density import cut_rows, select_rows
from vehclust_dask.job.figures import StudyResult, draw_figures
from vehclust_dask.job.mixtures import mix_rows
from vehclust_dask.job.neighbourhood import lists_record, study_neighbours
from vehclust_dask.job.outlier_judging import write_judgements
from vehclust_dask.job.outliers import find_outliers, write_outliers
from vehclust_dask.job.plan import plan_job
from vehclust_dask.job.reduction import reduce_study
from vehclust_dask.job.scoring import Known, cluster_sizes, judge_rows, score_rows
from vehclust_dask.job.silhouettes import find_silhouettes, with_cluster_means, with_silhouettes
from vehclust_dask.job.spec import JobSpec, StudySpec
from vehclust_dask.job.status import reporting
from vehclust_dask.job.study import DENSITY
from vehclust_dask.job.tables import (
    KEYS,
    read_notes,
    score_columns,
    update_notes,
    without_notes,
    write_dropped,
    write_labels,
    write_scores,
)
from vehclust_dask.job.telling import Teller
from vehclust_dask.job.trees import grow_and_cut
from vehclust_dask.job.watch import Measure, Watch
from vehclust_dask.job.work import Work
from vehclust_dask.kernels.warm import warm_kernels, warm_mixtures, warm_silhouettes, warm_tiles
from vehclust_dask.place import OpenPlace, Place, open_place, tunnel_line
from vehclust_dask.store.folders import (
    canonical_json,
    digest_of,
    owner_lock,
    partial_of,
    read_json,
    read_table,
    scratch_root,
    write_json,
    write_text,
)
from vehclust_dask.store.samples import paths_digest
from vehclust_dask.store.storage import here, is_url
from vehclust_dask.store.views import RowsView

#: Packages whose version may decide a result or a failure.
VERSIONED = (
    "dask", "distributed", "dask-ml", "numpy", "scipy", "scikit-learn", "zarr", "numcodecs",
    "pandas", "pyarrow", "numba",
)  # fmt: skip
MANIFEST = "manifest.json"
F64 = NDArray[np.float64]
#: What finds the clusters of a method; the others are clusters by centers.
FINDERS = {
    "gaussian-mixture": mix_rows,
    "ward": grow_and_cut,
    "dbscan": cut_rows,
    "hdbscan": select_rows,
}


@dataclass(frozen=True)
class Asked:
    """What the person asked for, beside the job itself.

    Attributes
    ----------
    job_file : Path
    workdir : Path
    place : Place
    keep : bool
        Leave the Dask cluster open at the end until the person stops it.
    verify : bool
        Read every source again.
    """

    job_file: Path
    workdir: Path
    place: Place
    keep: bool = False
    verify: bool = False


class _Stopped(BaseException):
    """A signal came. No Exception: no library may take it for a failure of its own and go on."""


@contextlib.contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into one exception that lets everything be closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        # Batch systems say it to every process of a job, and those say it to each other.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Stopped(signal.Signals(number).name)

    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _Stopped as stopped:
        raise Interrupted(
            f"stopped by {stopped}; finished work is kept, the same command goes on"
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def convert_job(spec: JobSpec, asked: Asked, teller: Teller) -> Dataset:
    """Convert the data of a job, or find it converted.

    A data set that is whole is found without starting a Dask cluster.
    """
    with (
        stopping_cleanly(),
        owner_lock(_dataset_lock(spec, asked), f"data set {spec.data.dataset}"),
    ):
        found = None if asked.verify else find_converted(spec.data, asked.workdir, say=teller.say)
        if found is not None:
            return found
        plan_job(spec, asked.workdir).check(asked.workdir)
        _warm(spec, asked)
        with (
            reporting(asked.workdir, spec.name, "convert", teller) as report,
            _opened(spec, asked) as place,
        ):
            report.opened(place)
            _greet(place, teller)
            with blocks.listening(teller.listen):
                return convert(spec.data, asked.workdir, say=teller.say, verify=asked.verify)


def _dataset_lock(spec: JobSpec, asked: Asked) -> Path:
    return asked.workdir / "locks" / f"dataset-{spec.data.dataset}"


def run_job(spec: JobSpec, asked: Asked, teller: Teller) -> Path:
    """Run a whole job and return the folder of its run.

    Raises
    ------
    VehclustError
        Whatever a person can mend, in one sentence.
    """
    with (
        stopping_cleanly(),
        owner_lock(asked.workdir / "locks" / f"job-{spec.name}", f"job {spec.name}"),
        reporting(asked.workdir, spec.name, "run", teller) as report,
    ):
        read_notes(_notes_file(spec, asked.workdir))
        found = _finished_run(spec, asked, teller)
        if found is not None:
            report.note(run=found.name)
            return found
        plan_job(spec, asked.workdir).check(asked.workdir)
        _warm(spec, asked)
        with (
            Watch() as watch,
            watch.measure() as whole,
            _opened(spec, asked) as place,
        ):
            report.opened(place)
            _greet(place, teller)
            with blocks.listening(teller.listen):
                folder = _run(spec, asked, place, teller, watch, whole)
            report.note(run=folder.name)
            if asked.keep:
                _wait(place, teller)
        return folder


def _finished_run(spec: JobSpec, asked: Asked, teller: Teller) -> Path | None:
    """Return the run where nothing is left to do; its notes are brought up to date."""
    if asked.verify:
        return None
    dataset = find_converted(spec.data, asked.workdir, say=lambda line: None)
    if dataset is None:
        return None
    folder = run_folder(spec, dataset, asked.workdir)
    if not (folder / MANIFEST).exists():
        return None
    scores = folder / "tables" / "scores.parquet"
    if scores.exists():
        table = read_table(scores)
        _with_notes(table, spec, asked.workdir, folder)
    teller.say(f"{folder.name} is finished already; change the job to compute something else")
    return folder


def run_folder(spec: JobSpec, dataset: Dataset, workdir: Path) -> Path:
    """Return where the run of a job on just these data lies."""
    whole = [
        spec.canonical(),
        dataset.digest,
        list(dataset.dropped),
        dataset.samples_digest,
        vars(spec.report),
        __version__,
    ]
    if dataset.photos is not None and any(study.outliers for study in spec.studies):
        # Only then do results depend on what the photos show.
        whole.append(dataset.photos.fingerprint())
    return workdir / "runs" / f"{spec.name}-{digest_of(whole)[:12]}"


def _warm(spec: JobSpec, asked: Asked) -> None:
    """Compile the kernels once, before several workers of this machine do so at the same time."""
    if asked.place.kind != "local":
        return
    warm_kernels()
    methods = {one.method for study in spec.studies for one in study.cluster}
    if "gaussian-mixture" in methods:
        warm_mixtures()
    lists = any(study.outliers or study.neighbours for study in spec.studies)
    if any(study.silhouette for study in spec.studies):
        warm_silhouettes()
    if lists or not methods.isdisjoint(("ward", *DENSITY)):
        warm_tiles()


def _opened(spec: JobSpec, asked: Asked) -> AbstractContextManager[OpenPlace]:
    scratch = scratch_root(asked.workdir)
    return open_place(asked.place, workdir=scratch, per_task=spec.per_task_bytes)


def _greet(place: OpenPlace, teller: Teller) -> None:
    if place.dashboard:
        teller.say(f"dashboard  {place.dashboard}")
        teller.say(
            f"           from another machine: {tunnel_line(place.dashboard, place.gateway)}"
        )
    limit = show_bytes(place.memory_limit) if place.memory_limit else "no limit"
    teller.say(f"workers    {place.n_workers}, {limit} each")


def _wait(place: OpenPlace, teller: Teller) -> None:
    teller.say(f"the Dask cluster stays open ({place.dashboard or place.client}); Ctrl-C ends it")
    with contextlib.suppress(_Stopped):
        while True:
            time.sleep(1)


def _run(
    spec: JobSpec, asked: Asked, place: OpenPlace, teller: Teller, watch: Watch, whole: Measure
) -> Path:
    began = datetime.now(UTC)
    with owner_lock(_dataset_lock(spec, asked), f"data set {spec.data.dataset}"):
        dataset = convert(spec.data, asked.workdir, say=teller.say, verify=asked.verify)
    folder = run_folder(spec, dataset, asked.workdir)
    work = Work(asked.workdir, spec.seed, teller.say, watch)
    with _prepared(folder) as partial, _performance_report(place, partial / "performance.html"):
        known = Known.of(dataset.samples, dataset.dropped)
        results = [_study(study, spec, dataset, known, work) for study in spec.studies]
        scores = _tables(partial, results, dataset, work)
        if len(scores):
            scores = _with_notes(scores, spec, asked.workdir, partial)
        if results:
            draw_figures(partial / "figures", results, scores, dataset, spec.report, teller.say)
        write_text(partial / "job.yaml", asked.job_file.read_text(encoding="utf-8"))
        manifest = _manifest(spec, asked, place, dataset, results, began, whole)
        write_json(partial / MANIFEST, manifest)
    return folder


def _study(
    study: StudySpec, spec: JobSpec, dataset: Dataset, known: Known, work: Work
) -> StudyResult:
    """Take one study from descriptors to clusterings and their scores."""
    view = RowsView.of(
        tuple(dataset.sets[name] for name in study.descriptors),
        dropped=dataset.dropped,
        unit=study.scale == "l2",
        block_rows=spec.data.block_rows,
    )
    reduced = reduce_study(study, view, work, spec.data.block_rows)
    clusterings = [
        found
        for one in study.cluster
        for found in FINDERS.get(one.method, cluster_rows)(study, one, reduced, work)
    ]
    near = study_neighbours(study, reduced.rows, work)
    featured = _featured(study, clusterings)
    silhouettes = find_silhouettes(study, clusterings, featured, reduced, work)
    scores = [
        score_columns(
            one,
            reduced,
            with_silhouettes(score_rows(one, reduced, work), one.name, silhouettes),
            judge_rows(one, known, work),
        )
        for one in clusterings
    ]
    outliers = None
    if study.outliers is not None:
        own = None if featured is None else _center_distance(clusterings, *featured)
        extra = {"center_distance": own, "glosh": _glosh(clusterings)}
        given = {name: values for name, values in extra.items() if values is not None}
        outliers = find_outliers(study, reduced, view, dataset, work, given)
    # The next study has rows of its own: room for them.
    labels = [one.matrices["labels"].digest for one in clusterings]
    for digest in (reduced.rows.digest, *(s.digest for s in view.sets), *labels):
        blocks.forget(view, digest)
    return StudyResult(
        study, view, reduced, clusterings, scores, featured, outliers, near, silhouettes
    )


def _center_distance(clusterings: list[Clustered], name: str, k: int) -> F64:
    """Return every row's distance to the center of its cluster, for noise to the nearest."""
    one = next(c for c in clusterings if c.name == name)
    distance: F64 = np.sqrt(one.column("sq_dist", k).astype(np.float64))
    return distance


def _glosh(clusterings: list[Clustered]) -> F64 | None:
    """Return the outlier scores of the first HDBSCAN, if there is one."""
    one = next((c for c in clusterings if c.method == "hdbscan"), None)
    return None if one is None else one.column("glosh", one.ks[0]).astype(np.float64)


def _featured(study: StudySpec, clusterings: list[Clustered]) -> tuple[str, int] | None:
    """Return name and k of the featured clustering; of those that find k the first of that name."""
    if study.featured is None:
        return None
    name, k = study.featured
    if k is not None:
        return name, k
    found = next(c for c in clusterings if c.part == name)
    return found.name, found.ks[0]


def _tables(folder: Path, results: list[StudyResult], dataset: Dataset, work: Work) -> pd.DataFrame:
    """Write the tables of all studies; return the scores of all clusterings."""
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    write_dropped(tables, dataset.dropped)
    for result in results:
        for one in result.clusterings:
            sizes = with_cluster_means(cluster_sizes(one, work), one.name, result.silhouettes)
            sizes.to_parquet(tables / f"clusters-{one.study}-{one.name}.parquet", index=False)
        if result.featured is not None:
            write_labels(
                tables / f"labels-{result.spec.name}.parquet",
                dataset.samples,
                result.view,
                result.clusterings,
                result.featured,
                result.silhouettes,
            )
        if result.outliers is not None:
            file = tables / f"outliers-{result.spec.name}.parquet"
            write_outliers(
                file, dataset.samples, result.outliers, result.reduced.rows.grid.block_rows
            )
    found = [result.outliers for result in results if result.outliers is not None]
    write_judgements(tables, found, dataset.samples)
    frames = [scores for result in results for scores in result.scores]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(KEYS))


def _with_notes(scores: pd.DataFrame, spec: JobSpec, workdir: Path, folder: Path) -> pd.DataFrame:
    """Write the scores table with the notes that a person keeps for this job."""
    noted = update_notes(_notes_file(spec, workdir), without_notes(scores))
    write_scores(folder / "tables", noted)
    return noted


def _notes_file(spec: JobSpec, workdir: Path) -> Path:
    return workdir / "notes" / f"{spec.name}.csv"


@contextlib.contextmanager
def _performance_report(place: OpenPlace, file: Path) -> Iterator[None]:
    """Keep Dask's own account of the run, readable without a network; a run that fails has none."""
    from distributed import performance_report

    if place.dashboard is None:
        yield
        return
    account = performance_report(filename=str(file), mode="inline")
    account.__enter__()
    yield
    # Where the scheduler was lost there is nobody to ask, and the first error is the one to tell.
    account.__exit__(None, None, None)
    # Its icon is the only thing that it would fetch.
    text = file.read_text(encoding="utf-8")
    write_text(file, re.sub(r'<link[^>]*href="https?://[^>]*>', "", text))


@contextlib.contextmanager
def _prepared(folder: Path) -> Iterator[Path]:
    """Give a folder of this machine to write a run into; it becomes visible whole, or not at all.

    The folder of an object store is written from it object by object, its manifest last.
    """
    if is_url(folder):
        with here(folder, MANIFEST) as local:
            local.mkdir()
            yield local
        return
    partial = partial_of(folder, hidden=True)
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def _manifest(
    spec: JobSpec,
    asked: Asked,
    place: OpenPlace,
    dataset: Dataset,
    results: list[StudyResult],
    began: datetime,
    whole: Measure,
) -> dict[str, Any]:
    """Return the provenance of a run."""
    return {
        "schema": "vehclust-run",
        "schema_version": 1,
        "job": spec.name,
        "job_digest": digest_of(spec.canonical()),
        "seed": spec.seed,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "rows": dataset.n_rows,
            "dropped": len(dataset.dropped),
            "paths": paths_digest(dataset.samples),
            "synthetic": dataset.synthetic,
            "sets": {name: m.n_features for name, m in dataset.sets.items()},
        },
        "studies": {r.spec.name: _study_record(r, asked.workdir) for r in results},
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_bytes": whole.peak_bytes,
        "place": {"kind": asked.place.kind, "workers": place.n_workers},
        "versions": versions(),
        "cpu_kernels": cpu_kernels(),
    }


def _study_record(result: StudyResult, root: Path) -> dict[str, Any]:
    record: dict[str, Any] = {
        "descriptors": list(result.spec.descriptors),
        "columns": result.reduced.rows.n_features,
        # Where nothing was scaled or reduced these are the rows themselves.
        "sets": [matrix.to_json(root) for matrix in result.view.sets],
        "unit": result.view.unit,
        "steps": [f"{s.kind}-{s.digest}" for s in result.reduced.steps],
        "clusterings": {
            c.name: {
                "step": f"{c.step.kind}-{c.step.digest}",
                "method": c.method,
                "engine": c.engine,
                "k": list(c.ks),
            }
            | ({"column": c.name} if c.finds_k else {})
            for c in result.clusterings
        },
        "neighbours": [lists_record(step) for step in result.neighbours],
    }
    if result.outliers is not None:
        record["outliers"] = [f"{s.kind}-{s.digest}" for s in result.outliers.steps]
    if result.featured is not None:
        record["featured"] = list(result.featured)
    return record


def versions() -> dict[str, str]:
    """Return the versions that may matter."""
    found = {name: metadata.version(name) for name in VERSIONED}
    return {"python": platform.python_version(), "vehclust": __version__, **found}


def cpu_kernels() -> list[str]:
    """Return which kernels BLAS chose on this processor: other kernels may round otherwise."""
    from threadpoolctl import threadpool_info

    return sorted(
        {
            canonical_json(
                [pool.get("internal_api"), pool.get("architecture"), pool.get("version")]
            )
            for pool in threadpool_info()
            if pool.get("user_api") == "blas"
        }
    )


def read_run(workdir: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Return folder and manifest of a run, by its name or a beginning of it.

    Raises
    ------
    RunMissing
    """
    runs = list_runs(workdir)
    matching = [r for r in runs if r.name == name] or [r for r in runs if r.name.startswith(name)]
    if len(matching) == 1:
        return matching[0], read_json(matching[0] / MANIFEST)
    known = ", ".join(r.name for r in runs) or "none yet"
    problem = "is no run" if not matching else f"fits {len(matching)} runs"
    raise RunMissing(f"'{name}' {problem} in {workdir}; there are: {known}")


def list_runs(workdir: Path) -> list[Path]:
    """Return the folders of finished runs, by name."""
    return sorted(f.parent for f in (workdir / "runs").glob(f"[!.]*/{MANIFEST}"))
