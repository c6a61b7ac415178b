"""The report of a finished run: read from its records without Dask, written as a static folder."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from vehclust_dask.errors import BadInput, RunMissing, UsageError
from vehclust_dask.estimators import PCA
from vehclust_dask.job.clustering import CENTERS, load_clustered, load_state, recorded_column
from vehclust_dask.job.dataset import Say
from vehclust_dask.job.density import setting_names
from vehclust_dask.job.mixtures import MIXTURES, load_mixtures
from vehclust_dask.job.reduction import variance_curve
from vehclust_dask.job.run import read_run
from vehclust_dask.job.similar import read_run_samples
from vehclust_dask.job.spec import JobSpec, StudySpec, load_job
from vehclust_dask.job.study import DENSITY
from vehclust_dask.job.tables import read_dropped
from vehclust_dask.job.tree_figures import tree_displays
from vehclust_dask.report.figure import Display
from vehclust_dask.report.site.book import F64, Book, Featured, StudyBook, read_columns
from vehclust_dask.report.site.build import Written, write_site
from vehclust_dask.store.folders import read_table, write_by
from vehclust_dask.store.matrices import Matrix
from vehclust_dask.store.photos import Photos, open_photos
from vehclust_dask.store.steps import Step
from vehclust_dask.store.storage import at, here, is_url, readable, whole
from vehclust_dask.store.views import RowsView

#: The folder of a run that holds its report, and the page that is written last.
REPORT, FIRST_PAGE = "report", "index.html"


@dataclass(frozen=True)
class Reported:
    """A written report.

    Attributes
    ----------
    page : Path
        To open.
    written : Written
    seconds : float
    """

    page: Path
    written: Written
    seconds: float

    def told(self) -> str:
        """Return number, size and time in words."""
        written = self.written
        return f"{written.n_files} files, {written.n_bytes / 1e6:.1f} MB, {self.seconds:.1f} s"


def report_run(
    workdir: Path, name: str, *, out: Path | None = None, language: str = "en", say: Say
) -> Reported:
    """Write the report of a finished run.

    Parameters
    ----------
    workdir : Path
    name : str
        Of the run, or how it begins.
    out : Path or None
        Folder to write; None: ``report`` in the run.
    language : {'en', 'ru'}
    say : callable

    Raises
    ------
    RunMissing
        If there is no such run, or its steps are gone.
    """
    began = time.perf_counter()
    folder, manifest = read_run(workdir, name)
    book = read_book(workdir, folder, manifest, say)
    target = out or folder / REPORT
    with here(target, FIRST_PAGE) as local:
        written = write_site(book, local, language)
    return Reported(target / FIRST_PAGE, written, time.perf_counter() - began)


def ensure_report(workdir: Path, folder: Path, language: str, *, say: Say) -> None:
    """Write the report of a finished run unless it is there; a run without clusterings has none."""
    if (folder / REPORT / FIRST_PAGE).exists():
        return
    if not list((folder / "tables").glob("labels-*.parquet")):
        return
    found = report_run(workdir, folder.name, language=language, say=say)
    say(f"report: {found.told()}")


def read_book(workdir: Path, folder: Path, manifest: dict[str, Any], say: Say) -> Book:
    """Read what the report of a run is written from."""
    samples = read_run_samples(workdir, folder, manifest["dataset"])
    job = load_job(folder / "job.yaml", workdir=str(workdir))
    scores_file = folder / "tables" / "scores.parquet"
    scores = read_table(scores_file) if scores_file.exists() else pd.DataFrame()
    studies = tuple(
        _study(workdir, folder, name, record, scores, job)
        for name, record in manifest["studies"].items()
        if (folder / "tables" / f"labels-{name}.parquet").exists()
    )
    return Book(
        run=folder.name,
        job=manifest["job"],
        folder=folder,
        manifest=manifest,
        samples=samples,
        photos=_photos(workdir, manifest["dataset"]["name"], job, say),
        studies=studies,
        scores=scores,
        synthetic=bool(manifest["dataset"]["synthetic"]),
    )


def _photos(workdir: Path, dataset: str, job: JobSpec, say: Say) -> Photos | None:
    """Return the photos, or say why there are none: a report goes without."""
    if job.data.photos is None:
        return None
    try:
        return open_photos(job.data.photos, workdir / "datasets" / dataset / "photos.parquet")
    except BadInput as error:
        say(f"without photos: {error}")
        return None


def _study(
    workdir: Path,
    folder: Path,
    name: str,
    record: dict[str, Any],
    scores: pd.DataFrame,
    job: JobSpec,
) -> StudyBook:
    table = folder / "tables" / f"labels-{name}.parquet"
    steps = [_step(workdir, step) for step in record["steps"]]
    pca = _pca(steps)
    reduced = _clustered_rows(workdir, folder, record, steps)
    spec = next((one for one in job.studies if one.name == name), None)
    outliers = folder / "tables" / f"outliers-{name}.parquet"
    curve = None if pca is None else variance_curve(pca, _engine(steps))
    shares: tuple[float, ...] = ()
    if pca is not None and curve is not None:
        shares = tuple(float(share) for share in pca.explained_variance_ratio_[:2])
    return StudyBook(
        name=name,
        descriptors=tuple(record["descriptors"]),
        n_features=record["columns"],
        rows=read_columns(table, ["row"])["row"].astype(np.int64),
        xy=_first_two(reduced),
        shares=shares,
        curve=curve,
        featured=_featured(workdir, table, record),
        table=table,
        columns=_columns(record["clusterings"]),
        scores=scores[scores["study"] == name] if len(scores) else scores,
        clusters={
            one: read_table(folder / "tables" / f"clusters-{name}-{one}.parquet")
            for one in record["clusterings"]
        },
        outliers=read_table(outliers) if outliers.exists() else None,
        rules=dict(spec.outliers.rules) if spec is not None and spec.outliers else {},
        displays=_displays(workdir, spec, record, bool(job.data.synthetic)),
    )


def _clustered_rows(
    workdir: Path, folder: Path, record: dict[str, Any], steps: list[Step]
) -> Matrix | RowsView:
    """Return the rows that were clustered: reduced ones, or those of the sets as they are."""
    if steps:
        return Matrix.from_json(steps[-1].manifest()["matrix"], steps[-1].folder)
    sets = tuple(Matrix.from_json(one, workdir) for one in record["sets"])
    if not all(at(path).exists() for matrix in sets for path in matrix.paths):
        raise RunMissing(f"the data set of run {folder.name} is gone; run the job again")
    dropped = tuple(read_dropped(folder / "tables").tolist())
    return RowsView.of(sets, dropped=dropped, unit=record["unit"])


def _displays(
    workdir: Path, study: StudySpec | None, record: dict[str, Any], synthetic: bool
) -> dict[tuple[str, str], Display]:
    """Return the figures of a study's trees, from their steps."""
    if study is None:
        return {}
    about = record["clusterings"]
    clusterings = [
        load_clustered(study, spec, _step(workdir, about[name]["step"]), name=name)
        for spec in study.cluster
        if spec.method in ("ward", *DENSITY)
        for name in setting_names(spec)
    ]
    try:
        return tree_displays(study, clusterings, synthetic)
    except FileNotFoundError as error:
        raise RunMissing(
            f"{error.filename} is no longer there; run the job again, then its report"
        ) from None


def _step(workdir: Path, name: str) -> Step:
    folder = workdir / "steps" / name
    if not (folder / "manifest.json").exists():
        raise RunMissing(f"{folder} is no longer there; run the job again, then its report")
    return Step.at(workdir, folder)


def _pca(steps: list[Step]) -> PCA | None:
    for step in steps:
        if step.kind == "pca":
            with whole(step.folder / "pca.npz") as stored:
                return PCA.load(stored)
    return None


def _engine(steps: list[Step]) -> str:
    """Return what reduced the rows."""
    return next(str(step.manifest()["engine"]) for step in steps if step.kind == "pca")


def _first_two(reduced: Matrix | RowsView) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the first two columns, reading block by block."""
    xy = np.zeros((reduced.grid.n_rows, 2), np.float32)
    for i, span in enumerate(reduced.grid.spans()):
        block = (reduced.load(i) if isinstance(reduced, Matrix) else reduced.read(i))[:, :2]
        xy[span.row0 : span.row0 + span.n_rows, : block.shape[1]] = block
    return xy


def _columns(clusterings: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return clustering and number of clusters of every column of labels."""
    found: dict[str, tuple[str, int]] = {}
    for name, record in clusterings.items():
        for k in record["k"]:
            found[recorded_column(record, name, k)] = (name, int(k))
    return found


def _centers(step: Step, at: int) -> F64:
    """Return the centers of one clustering of a step; of a mixture its means."""
    if (step.folder / CENTERS).exists():
        return load_state(step.folder / CENTERS).centers[at]
    means: F64 = load_mixtures(step.folder / MIXTURES).mixtures[at].means
    return means


def _featured(workdir: Path, table: Path, record: dict[str, Any]) -> Featured | None:
    if "featured" not in record:
        return None
    name, k = record["featured"]
    about = record["clusterings"][name]
    column = recorded_column(about, name, k)
    if k < 1:
        return None
    centers = _centers(_step(workdir, about["step"]), list(about["k"]).index(k))
    there = set(pq.read_schema(readable(table)).names)
    wanted = [one for one in (column, "second", "sq_dist", "margin") if one in there]
    values = read_columns(table, wanted)
    n = len(values[column])

    def number(what: str) -> F64:
        found = values.get(what)
        return np.full(n, np.nan) if found is None else found.astype(np.float64)

    second = values.get("second")
    return Featured(
        name=name,
        column=column,
        method=about["method"],
        k=int(k),
        labels=values[column].astype(np.int64),
        second=np.full(n, -1) if second is None else second.astype(np.int64),
        distance=np.sqrt(np.maximum(number("sq_dist"), 0)),
        margin=number("margin"),
        centers=centers,
    )


def zip_report(found: Reported) -> Path:
    """Write a report as one zip beside its folder; return the file.

    Raises
    ------
    UsageError
        For a report on an object store.
    """
    folder = found.page.parent
    if is_url(folder):
        raise UsageError(f"{folder} is on an object store: write the report to a folder by --out")
    file = folder.with_name(f"{folder.name}.zip")

    def write(out: BinaryIO) -> None:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            for one in sorted(folder.rglob("*")):
                if one.is_file():
                    packed.write(one, Path(folder.name) / one.relative_to(folder))

    write_by(file, write)
    return file


def reported_record(found: Reported, packed: Path | None) -> dict[str, Any]:
    """Return what was written, as JSON knows it."""
    return {
        "page": str(found.page),
        "files": found.written.n_files,
        "bytes": found.written.n_bytes,
        "seconds": round(found.seconds, 2),
        "zip": None if packed is None else str(packed),
    }
