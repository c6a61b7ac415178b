"""What lies in a folder: descriptor sets, paths, photos and truth under their usual names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vehclust_dask.errors import BadInput
from vehclust_dask.store.sources import open_source

#: How far below the folder files are looked for.
DEPTH = 2
#: Paths read to recognise the vehicle's identity in them.
SAMPLE_PATHS = 1000
SUFFIXES = (".pickle", ".pkl", ".npy", ".npz", ".parquet", ".zarr", ".safetensors", ".h5")
PICTURES = (".jpg", ".jpeg", ".png")
#: Folders that usually hold descriptors: a set found twice is taken from there.
USUAL_FOLDERS = ("descriptors", "data", "row_data", "raw_data")

_NOISE = r"(?:-(?:descriptors?|features?|embeddings?|vectors?))?"
_KNOWN = {
    "efficientnet": re.compile(rf"(?:efficient-?net|effnet)(?:-?b7)?{_NOISE}"),
    "osnet": re.compile(rf"os-?net{_NOISE}"),
    "vdc_color": re.compile(rf"(?:[vm]dc-?)?colou?r{_NOISE}"),
    "vdc_type": re.compile(rf"(?:[vm]dc-?)?type{_NOISE}"),
}


@dataclass(frozen=True)
class FoundSet:
    """A file that looks like a descriptor set.

    Parameters
    ----------
    name : str
        One of the case's four names, or the file's stem.
    file : str
        Path below the folder, with forward slashes.
    n_rows, n_features : int
    """

    name: str
    file: str
    n_rows: int
    n_features: int


@dataclass(frozen=True)
class Found:
    """What lies in a folder; every file is named from there.

    Parameters
    ----------
    folder : Path
        Absolute.
    sets : tuple of FoundSet
        At least one; the case's four first, in their usual order.
    paths : str or None
        The table with a path per row.
    photos : str or None
        A folder (``.`` for the folder itself) or a zip.
    truth : str or None
    truth_columns : tuple of str
        Its columns without the path column.
    group : str or None
        Regular expression of the vehicle's identity in a path.
    synthetic : bool
        The folder says that its data are made up.
    others : tuple of str
        Files of the same kinds that were passed over.
    unreadable : tuple of str
        Why a file that is named like descriptors is none, one sentence per file.
    """

    folder: Path
    sets: tuple[FoundSet, ...]
    paths: str | None
    photos: str | None
    truth: str | None
    truth_columns: tuple[str, ...]
    group: str | None
    synthetic: bool
    others: tuple[str, ...]
    unreadable: tuple[str, ...]


def recognise(folder: Path) -> Found:
    """Return what a folder and two levels below hold.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    BadInput
        If it is no folder, or holds nothing that looks like descriptors.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; name the one in which the descriptors lie")
    try:
        entries = tuple(_entries(folder, DEPTH))
    except OSError as error:
        raise BadInput(f"{error.filename} cannot be read ({error.strerror})") from error
    sets, others, unreadable = _sets(folder, entries)
    if not sets and unreadable:
        raise BadInput(f"{folder} holds no descriptors that can be read: {unreadable[0]}")
    if not sets:
        raise BadInput(
            f"{folder} holds no descriptors two levels deep; looked for files that end in "
            f"{', '.join(SUFFIXES)}, such as osnet.pickle; name the folder in which they lie"
        )
    tables = {entry: columns for entry in entries if (columns := _path_table(entry))}
    truth = next((table for table in tables if table.stem.lower() == "truth"), None)
    lists = sorted((table for table in tables if table != truth), key=_by_usual_name)
    sample = _sample(lists[0], *tables[lists[0]]) if lists else ()
    photos, other_photos = _photos(folder, entries, sample)

    def below(path: Path | None) -> str | None:
        return None if path is None else path.relative_to(folder).as_posix()

    return Found(
        folder=folder,
        sets=sets,
        paths=below(lists[0]) if lists else None,
        photos=below(photos),
        truth=below(truth),
        truth_columns=_without_path(*tables[truth]) if truth else (),
        group=group_pattern(sample),
        synthetic=any(entry.name == "demo.json" and entry.parent == folder for entry in entries),
        others=tuple(below(entry) or "" for entry in (*others, *lists[1:], *other_photos)),
        unreadable=unreadable,
    )


def clean_name(text: str) -> str:
    """Return the nearest name a set, a study or a job may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:60] or "job"


def group_pattern(paths: tuple[str, ...]) -> str | None:
    r"""Return the regular expression of the vehicle's identity, if the paths carry one.

    Parameters
    ----------
    paths : tuple of str
        Paths with forward slashes, such as ``veriwild/1/00001/000001.jpg``.

    Returns
    -------
    str or None
        Such as ``veriwild/\d+/(\d+)/``: the last folder, where it and the picture's name are
        digits in every path, at least one folder stands before it, and a vehicle has more than
        one photo on average.
    """
    if not paths or paths[0].count("/") < 2:
        return None
    *parents, _, _ = paths[0].split("/")
    parts = [r"\d+" if part.isdecimal() else re.escape(part) for part in parents]
    pattern = "".join(f"{part}/" for part in parts) + r"(\d+)/"
    suffix = re.compile(pattern + r"\d+\.(?:jpe?g|png)", re.IGNORECASE)
    matches = [suffix.fullmatch(path) for path in paths]
    groups = {match[1] for match in matches if match is not None}
    if None in matches or len(groups) >= len(paths):
        return None
    return pattern


def _entries(folder: Path, depth: int) -> Iterator[Path]:
    """Iterate over files and folders, sorted, hidden ones left out.

    A zarr store is one entry, and the first picture stands for all of its folder: there may be
    hundreds of thousands.
    """
    with os.scandir(folder) as found:
        entries = sorted((entry.name, entry.is_dir()) for entry in found)
    picture_seen = False
    for name, is_folder in entries:
        entry = folder / name
        is_picture = entry.suffix.lower() in PICTURES and not is_folder
        if name.startswith(".") or (is_picture and picture_seen):
            continue
        picture_seen |= is_picture
        yield entry
        if depth and is_folder and entry.suffix.lower() not in SUFFIXES:
            yield from _entries(entry, depth - 1)


def _sets(
    folder: Path, entries: tuple[Path, ...]
) -> tuple[tuple[FoundSet, ...], list[Path], tuple[str, ...]]:
    """Return the sets, files whose name a set has already, and why others are no descriptors."""
    chosen: dict[str, FoundSet] = {}
    others, unreadable = [], []
    usual = (entry for entry in entries if _looks_like_set(entry))
    for entry in sorted(usual, key=lambda entry: entry.parent.name.lower() not in USUAL_FOLDERS):
        name = _set_name(entry.stem)
        # Names become folders, which on some systems do not differ by case.
        if name.lower() in chosen:
            others.append(entry)
            continue
        try:
            source = open_source(entry)
        except BadInput as error:
            unreadable.append(str(error))
            continue
        file = entry.relative_to(folder).as_posix()
        chosen[name.lower()] = FoundSet(name, file, source.n_rows, source.n_features)
    order = {name: i for i, name in enumerate(_KNOWN)}
    sets = sorted(
        chosen.values(), key=lambda found: (order.get(found.name, len(order)), found.name)
    )
    return tuple(sets), others, tuple(unreadable)


def _looks_like_set(entry: Path) -> bool:
    # A zarr store is a folder, everything else a file.
    suffix = entry.suffix.lower()
    return suffix in SUFFIXES and entry.is_dir() == (suffix == ".zarr")


def _set_name(stem: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    known = (name for name, pattern in _KNOWN.items() if pattern.fullmatch(plain))
    return next(known, clean_name(stem))


def _path_table(entry: Path) -> tuple[int, list[str]] | None:
    """Return the path column's number and all columns of a csv that has one."""
    if entry.suffix.lower() != ".csv" or not entry.is_file():
        return None
    columns = next(_rows(entry), [])
    at = (i for i, column in enumerate(columns) if column.lower().endswith(("path", "paths")))
    first = next(at, None)
    return None if first is None else (first, columns)


def _rows(table: Path) -> Iterator[list[str]]:
    # Only names and shapes of paths are looked at here: odd bytes do not matter.
    try:
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            yield from csv.reader(lines)
    except (csv.Error, OSError) as error:
        raise BadInput(f"{table} cannot be read ({error}); mend it or move it away") from error


def _without_path(at: int, columns: list[str]) -> tuple[str, ...]:
    return tuple(column for i, column in enumerate(columns) if i != at)


def _sample(table: Path, at: int, columns: list[str]) -> tuple[str, ...]:
    """Return the first paths of a table, with forward slashes."""
    paths = []
    for row in _rows(table):
        if len(row) == len(columns) and row != columns:
            paths.append(row[at].replace("\\", "/"))
        if len(paths) == SAMPLE_PATHS:
            break
    return tuple(paths)


def _by_usual_name(table: Path) -> tuple[bool, Path]:
    return "path" not in table.stem.lower(), table


def _photos(
    folder: Path, entries: tuple[Path, ...], sample: tuple[str, ...]
) -> tuple[Path | None, list[Path]]:
    """Return the folder below which the first path lies, else the zip, else one of pictures."""
    folders = [folder, *(entry for entry in entries if entry.is_dir())]
    # Paths may begin with a folder that is not there: the name of the zip they came in.
    first = sample[0] if sample else ""
    for path in (first, first.partition("/")[2]):
        for root in folders:
            if _inside(root, path):
                return root, []
    zips = [entry for entry in entries if entry.suffix.lower() == ".zip" and entry.is_file()]
    case = [entry for entry in zips if entry.stem.lower() == "veriwild"]
    if case or len(zips) == 1:
        chosen = (case or zips)[0]
        return chosen, [entry for entry in zips if entry != chosen]
    pictures = (entry.parent for entry in entries if entry.suffix.lower() in PICTURES)
    return next(pictures, None), zips


def _inside(root: Path, path: str) -> bool:
    """Tell whether a relative path names a file below the root; one that climbs out does not."""
    parts = path.split("/")
    return "" not in parts and ".." not in parts and (root / path).is_file()
