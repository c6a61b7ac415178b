"""The job file as frozen records: what to compute, checked as far as that goes without data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vehclust_dask import budget
from vehclust_dask.job.locations import Locations, absolute, portable
from vehclust_dask.job.reading import Place, check_name, read_yaml, refuse_repeats
from vehclust_dask.job.study import (
    ClusterSpec,
    NeighboursSpec,
    ReduceSpec,
    StudySpec,
    read_study,
)

__all__ = [
    "ClusterSpec",
    "DataSpec",
    "DescriptorSpec",
    "JobSpec",
    "NeighboursSpec",
    "ReduceSpec",
    "ReportSpec",
    "SourceSpec",
    "StudySpec",
    "TruthSpec",
    "job_digest",
    "load_job",
]


@dataclass(frozen=True)
class SourceSpec:
    """One file of descriptors.

    Parameters
    ----------
    file : str
        Absolute path, or a URL.
    key : str or None
        Which array of a file that holds several.
    """

    file: str
    key: str | None = None


@dataclass(frozen=True)
class DescriptorSpec:
    """A descriptor set: the rows of its sources, one after the other.

    Parameters
    ----------
    name : str
    sources : tuple of SourceSpec
        At least one.
    """

    name: str
    sources: tuple[SourceSpec, ...]


@dataclass(frozen=True)
class TruthSpec:
    """A table of what is known about the photos; it judges clusterings and never makes them.

    Parameters
    ----------
    file : str
    columns : tuple of str
        Columns to use; empty for all but the path column.
    """

    file: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class DataSpec:
    """What lies on storage before the job.

    Parameters
    ----------
    dataset : str
        Name of the converted data; jobs that give the same name share it.
    folder : str or None
        Where relative files were looked for; None for the current folder.
    descriptors : tuple of DescriptorSpec
        At least one, in the order of the job file.
    paths : tuple of str
        Tables with the path of every row, one after the other; may be empty.
    photos : str or None
        A folder or a zip.
    group : str or None
        Regular expression whose one group is the vehicle's identity in a path with forward
        slashes.
    truth : TruthSpec or None
    on_nan : str
        ``refuse`` or ``drop``, which drops the row in every set.
    block_rows : int or None
        Rows of a block; None for the house's grid.
    compress : str
        ``none`` or ``zstd``.
    synthetic : bool
        The data are made up, and every page says so.
    """

    dataset: str
    folder: str | None
    descriptors: tuple[DescriptorSpec, ...]
    paths: tuple[str, ...]
    photos: str | None
    group: str | None
    truth: TruthSpec | None
    on_nan: str
    block_rows: int | None
    compress: str
    synthetic: bool


@dataclass(frozen=True)
class ReportSpec:
    """What the pages show; decides no result.

    Parameters
    ----------
    photos_per_sheet : int
    sheets : str
        Clusterings that get contact sheets: ``featured``, ``all`` or ``none``.
    pages : bool
        Write the pages of the report when the run is finished.
    language : {'en', 'ru'}
        Of the pages.
    """

    photos_per_sheet: int = 50
    sheets: str = "featured"
    pages: bool = True
    language: str = "en"


@dataclass(frozen=True)
class JobSpec:
    """A whole job.

    Parameters
    ----------
    name : str
    seed : int
        From 0 to 2**32 - 1; every random choice of the job comes from it.
    data : DataSpec
    per_task_bytes : int
        Memory one task may take; decides no result.
    studies : tuple of StudySpec
        In the order of the job file; none for a job that only converts.
    report : ReportSpec
    workdir : str
        What ``{workdir}`` stood for, so that results can be named without it.
    """

    name: str
    seed: int
    data: DataSpec
    per_task_bytes: int
    studies: tuple[StudySpec, ...]
    report: ReportSpec
    workdir: str = field(default="", compare=False, repr=False)

    def canonical(self) -> dict[str, Any]:
        """Return what decides the results, as sorted mappings, lists, text and numbers.

        Left out are the job's name, memory, storage format and report settings. Files below the
        work folder begin with ``{workdir}``, wherever that lies.
        """
        data = dataclasses.asdict(self.data)
        for word in ("folder", "compress", "synthetic"):
            del data[word]
        data["descriptors"] = _by_name(data["descriptors"])
        studies = [dataclasses.asdict(study) for study in self.studies]
        for study in studies:
            study["cluster"] = _by_name(study["cluster"])
        whole = {"seed": self.seed, "data": data, "studies": _by_name(studies)}
        plain: dict[str, Any] = portable(whole, self.workdir)
        return plain


def load_job(path: Path, *, workdir: str) -> JobSpec:
    """Return the job a YAML file describes.

    Parameters
    ----------
    path : Path
        The job file.
    workdir : str
        What ``{workdir}`` stands for: a path or a URL.

    Raises
    ------
    UsageError
        If anything in the file is unknown, misspelt, of the wrong kind or contradicts the rest;
        the sentence begins with the file and the dotted place.
    """
    job = read_yaml(Path(path))
    job.mapping(("name", "seed", "data", "memory", "studies", "report"))
    name = check_name(job["name"], job["name"].text())
    data = _data(job["data"], name, Locations(workdir))
    sets = tuple(descriptor.name for descriptor in data.descriptors)
    return JobSpec(
        name=name,
        seed=job["seed"].whole(0, least=0, most=2**32 - 1),
        data=data,
        per_task_bytes=_bytes(job["memory"].mapping(("per_task",))["per_task"]),
        studies=tuple(
            read_study(name, place, sets) for name, place in job["studies"].named("study")
        ),
        report=_report(
            job["report"].mapping(tuple(f.name for f in dataclasses.fields(ReportSpec)))
        ),
        workdir=workdir,
    )


def _bytes(place: Place) -> int:
    if place.given and (isinstance(place.value, bool) or not isinstance(place.value, int | str)):
        place.wrong("a size such as 1GiB")
    try:
        return budget.parse_bytes(place.value if place.given else "1GiB")
    except (ValueError, OverflowError) as error:
        place.refuse(str(error))


def _report(place: Place) -> ReportSpec:
    return ReportSpec(
        photos_per_sheet=place["photos_per_sheet"].whole(50, least=1),
        sheets=place["sheets"].choice(("featured", "all", "none"), "featured"),
        pages=place["pages"].flag(True),
        language=place["language"].choice(("en", "ru"), "en"),
    )


def _data(place: Place, job_name: str, outside: Locations) -> DataSpec:
    """Read the data section; relative files lie below its folder."""
    place = place.mapping(spec.name for spec in dataclasses.fields(DataSpec))
    folder = place["folder"].maybe(lambda there: absolute(outside.replaced(there)))
    locations = Locations(outside.workdir, folder)
    paths = tuple(locations.file(item) for item in place["paths"].items())
    return DataSpec(
        dataset=check_name(place["dataset"], place["dataset"].text(job_name)),
        folder=folder,
        descriptors=_descriptors(place["descriptors"], locations),
        paths=paths,
        photos=place["photos"].maybe(locations.file),
        group=place["group"].maybe(_group),
        truth=place["truth"].maybe(lambda there: _truth(there, locations)),
        on_nan=place["on_nan"].choice(("refuse", "drop"), "refuse"),
        block_rows=place["block_rows"].maybe(lambda there: there.whole(least=1)),
        compress=place["compress"].choice(("none", "zstd"), "none"),
        synthetic=place["synthetic"].flag(False),
    )


def _descriptors(place: Place, locations: Locations) -> tuple[DescriptorSpec, ...]:
    sets = []
    for name, there in place.named("descriptor set"):
        sources = tuple(_source(item, locations) for item in there.items())
        if not sources:
            there.refuse("names no file")
        sets.append(DescriptorSpec(name, sources))
    if not sets:
        place.refuse("is missing; name at least one set, such as 'osnet: osnet.pickle'")
    return tuple(sets)


def _source(place: Place, locations: Locations) -> SourceSpec:
    """Read a file, or a file and the key of one of its arrays."""
    if not isinstance(place.value, dict):
        return SourceSpec(locations.file(place))
    place = place.mapping(("file", "key"))
    return SourceSpec(locations.file(place["file"]), place["key"].maybe(Place.text))


def _truth(place: Place, locations: Locations) -> TruthSpec:
    if not isinstance(place.value, dict):
        return TruthSpec(locations.file(place), ())
    place = place.mapping(("file", "columns"))
    columns = tuple(item.text() for item in place["columns"].items())
    refuse_repeats(place["columns"], columns)
    return TruthSpec(locations.file(place["file"]), columns)


def _group(place: Place) -> str:
    """Read a regular expression with exactly one group."""
    text = place.text()
    try:
        n_groups = re.compile(text).groups
    except re.error as error:
        place.refuse(f"'{text}' is no regular expression ({error})")
    if n_groups != 1:
        place.refuse(
            f"'{text}' has {n_groups} groups, expected one pair of parentheses around the "
            r"vehicle's identity, such as 'veriwild/\d+/(\d+)/'"
        )
    return text


def _by_name(records: tuple[dict[str, Any], ...] | list[dict[str, Any]]) -> dict[str, Any]:
    return {record.pop("name"): record for record in records}


def job_digest(spec: JobSpec) -> str:
    """Return the SHA-256 of the job's canonical form, as 64 hexadecimal digits."""
    text = json.dumps(spec.canonical(), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
