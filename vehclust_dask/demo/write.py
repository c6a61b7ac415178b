"""Write the demo's files: descriptors, paths, photos and truth, visible only when all are whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vehclust_dask import budget, errors
from vehclust_dask.demo import descriptors, drawing, latent
from vehclust_dask.demo.archive import StoredZip
from vehclust_dask.demo.latent import Latents
from vehclust_dask.demo.pickled import PickledMatrix

Progress = Callable[[str, int, int], None]

#: Goes up whenever the same rows and seed would give other files.
VERSION = 2
RECORD = "demo.json"
PATHS = "images_paths.csv"
TRUTH = "truth.csv"
PHOTOS = "veriwild.zip"
_TRUTH_COLUMNS = "path,vehicle,type,color,view,camera,light,quality,duplicate_of"
_FOLDERS = 10
#: Generous bytes of a photo with its place in the zip, and of a row of both tables.
_PHOTO_BYTES, _ROW_BYTES = 6000, 160


@dataclass(frozen=True)
class DemoSummary:
    """What a demo folder holds.

    Attributes
    ----------
    out : Path
        The folder.
    rows, seed : int
        What it was made from.
    files : tuple of Path
        Every file but the record of the demo itself.
    n_vehicles, n_bad, n_duplicates : int
        Different vehicles, bad pictures, and frames that repeat the one before.
    """

    out: Path
    rows: int
    seed: int
    files: tuple[Path, ...]
    n_vehicles: int
    n_bad: int
    n_duplicates: int


@dataclass(frozen=True)
class _Order:
    """What is asked for, checked."""

    rows: int
    seed: int
    photos: bool
    sets: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the files, in the order they are written."""
        photos = (PHOTOS,) if self.photos else ()
        return (PATHS, TRUTH, *(descriptors.SETS[s].file for s in self.sets), *photos)

    def asked(self) -> dict[str, Any]:
        """Return what decides about every byte."""
        return {
            "version": VERSION,
            "rows": self.rows,
            "seed": self.seed,
            "photos": self.photos,
            "sets": list(self.sets),
        }

    def n_bytes(self) -> int:
        """Return about how much disk the files need, never less."""
        width = sum(4 * descriptors.SETS[s].n_features for s in self.sets)
        return self.rows * (width + _ROW_BYTES + (_PHOTO_BYTES if self.photos else 0))


def _checked(rows: int, seed: int, photos: bool, sets: Sequence[str] | None) -> _Order:
    if rows < 1:
        raise errors.UsageError(f"rows={rows}, but a demo needs at least 1 row; raise rows")
    if seed < 0:
        raise errors.UsageError(f"seed={seed}, but a seed is 0 or more; give another one")
    wanted = list(descriptors.SETS) if sets is None else [sets] if isinstance(sets, str) else sets
    for name in wanted:
        if name not in descriptors.SETS:
            near = errors.nearest(name, descriptors.SETS)
            raise errors.UsageError(f"the demo has no descriptor set '{name}'; {near}")
    return _Order(rows, seed, photos, tuple(s for s in descriptors.SETS if s in wanted))


def _chunks(order: _Order) -> Iterator[tuple[int, Latents, int]]:
    """Iterate over chunk number, what its photos show, and how many of its rows are used."""
    for chunk, used in latent.chunk_rows(order.rows):
        yield chunk, latent.latent_chunk(order.seed, chunk), used


def _names(rows: Latents, used: int, total: int) -> list[str]:
    """Return the paths of a chunk's photos, with forward slashes.

    Folders hold tenths of the rows; a vehicle lies whole in the folder of its first photo.
    """
    first = rows.row0 + np.searchsorted(rows.vehicle, rows.vehicle[:used])
    folder = 1 + first * _FOLDERS // total
    vehicle = rows.vehicle[:used]
    return [
        f"veriwild/{f}/{v:05d}/{rows.row0 + i + 1:06d}.jpg"
        for i, (f, v) in enumerate(zip(folder.tolist(), vehicle.tolist(), strict=True))
    ]


def _truth_lines(rows: Latents, names: list[str]) -> Iterator[str]:
    for i, name in enumerate(names):
        quality = latent.QUALITIES[rows.quality[i]]
        view = "" if quality == "no-vehicle" else latent.VIEWS[rows.view[i]]
        same = int(rows.duplicate_of[i])
        cells = (
            name,
            str(rows.vehicle[i]),
            latent.TYPES[rows.type[i]],
            latent.COLORS[rows.color[i]],
            view,
            str(rows.camera[i] + 1),
            latent.LIGHTS[rows.light[i]],
            quality,
            names[same - rows.row0] if same >= 0 else "",
        )
        yield ",".join(cells)


def _write_tables(order: _Order, folder: Path, progress: Progress) -> tuple[int, int]:
    """Write paths and truth; return the numbers of bad pictures and of repeated frames."""
    n_bad = n_duplicates = 0
    with (
        open(folder / PATHS, "w", encoding="utf-8", newline="\n") as paths,
        open(folder / TRUTH, "w", encoding="utf-8", newline="\n") as truth,
    ):
        paths.write("paths\n")
        truth.write(_TRUTH_COLUMNS + "\n")
        for _, rows, used in _chunks(order):
            names = _names(rows, used, order.rows)
            paths.write("".join(f"{name}\n" for name in names).replace("/", "\\"))
            truth.write("".join(f"{line}\n" for line in _truth_lines(rows, names)))
            n_bad += int((rows.quality[:used] != latent.OK).sum())
            n_duplicates += int((rows.duplicate_of[:used] >= 0).sum())
            progress(TRUTH, rows.row0 + used, order.rows)
    return n_bad, n_duplicates


def _write_set(order: _Order, name: str, folder: Path, progress: Progress) -> None:
    model = descriptors.SETS[name]
    with (
        open(folder / model.file, "wb") as file,
        PickledMatrix(file, order.rows, model.n_features) as matrix,
    ):
        for _, rows, used in _chunks(order):
            matrix.write(descriptors.descriptor_chunk(model, rows, order.seed)[:used])
            progress(model.file, rows.row0 + used, order.rows)


def _write_photos(order: _Order, folder: Path, progress: Progress) -> None:
    with open(folder / PHOTOS, "wb") as file, StoredZip(file) as photos:
        for chunk, rows, used in _chunks(order):
            chances = drawing.photo_chances(order.seed, chunk, rows)
            paints = drawing.vehicle_paints(order.seed, chunk)
            for i, name in enumerate(_names(rows, used, order.rows)):
                photo = drawing.draw_photo(rows, i, chances, paints)
                photos.add(name, drawing.to_jpeg(photo))
            progress(PHOTOS, rows.row0 + used, order.rows)


def _write_all(order: _Order, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write every file and the record of them, which is returned."""
    n_bad, n_duplicates = _write_tables(order, folder, progress)
    for name in order.sets:
        _write_set(order, name, folder, progress)
    if order.photos:
        _write_photos(order, folder, progress)
    record = order.asked() | {
        "files": {name: (folder / name).stat().st_size for name in order.files},
        "n_vehicles": latent.n_vehicles(order.seed, order.rows),
        "n_bad": n_bad,
        "n_duplicates": n_duplicates,
    }
    text = json.dumps(record, indent=2, sort_keys=True)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    return record


def _summary(out: Path, record: dict[str, Any]) -> DemoSummary:
    return DemoSummary(
        out=out,
        rows=record["rows"],
        seed=record["seed"],
        files=tuple(out / name for name in sorted(record["files"])),
        n_vehicles=record["n_vehicles"],
        n_bad=record["n_bad"],
        n_duplicates=record["n_duplicates"],
    )


def _existing(out: Path, order: _Order) -> DemoSummary | None:
    """Return what lies there if it is this very demo, None if nothing does; else refuse."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    remedy = "give another folder or remove this one"
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        asked = {key: record[key] for key in order.asked()}
        sizes: dict[str, int] = dict(record["files"])
        summary = _summary(out, record)
    except (OSError, ValueError, KeyError, TypeError):
        raise errors.Conflict(f"{out} exists and holds no demo; {remedy}") from None
    if asked != order.asked():
        known = ", ".join(f"{key}={value}" for key, value in asked.items())
        raise errors.Conflict(f"{out} holds another demo ({known}); {remedy}")
    for name, size in sizes.items():
        file = out / name
        if not file.is_file() or file.stat().st_size != size:
            raise errors.Conflict(
                f"{file} was changed or removed since the demo was made; {remedy}"
            )
    return summary


def _room_for(out: Path, order: _Order) -> None:
    free = shutil.disk_usage(out.parent).free
    if order.n_bytes() > free:
        needed, left = budget.show_bytes(order.n_bytes()), budget.show_bytes(free)
        raise errors.NotEnough(
            f"{order.rows} rows need {needed}, but {out.parent} has {left} free; "
            "lower rows, choose fewer sets, or give a folder on a larger disk"
        )


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def write_demo(
    out: Path,
    *,
    rows: int = 5000,
    seed: int = 0,
    photos: bool = True,
    sets: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> DemoSummary:
    """Write the demo's descriptors, paths, photos and truth into a folder.

    The same arguments give the same bytes for the same versions of numpy, Pillow and their
    libraries. Descriptors and truth of the first rows do not depend on how many follow; folders in
    paths do, as they hold tenths of the rows. A whole demo of the same arguments is kept as it is.

    Parameters
    ----------
    out : Path
        Folder to make; it appears when every file in it is whole.
    rows : int
        Number of photos.
    seed : int
        At least 0; chooses vehicles and photos, never the networks behind the descriptors.
    photos : bool
        Whether to draw the photos; a millisecond and 5 kB each.
    sets : sequence of str, optional
        Names out of ``descriptors.SETS``; all four if None.
    on_progress : callable, optional
        Called with a file's name, its rows done and all rows, about every 1,000 rows.

    Returns
    -------
    DemoSummary

    Raises
    ------
    UsageError
        For rows, a seed or a set that cannot be.
    Conflict
        If the folder holds anything else.
    NotEnough
        If the disk cannot hold the files.

    Notes
    -----
    Memory is that of 1,024 rows of one set, whatever the number of rows. 0.1 to 0.2 ms per row for
    all four sets.
    """
    out = Path(out)
    order = _checked(rows, seed, photos, sets)
    there = _existing(out, order)
    if there is not None:
        return there
    out.parent.mkdir(parents=True, exist_ok=True)
    _room_for(out, order)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        # The folder inside gets the usual permissions; a temporary one is closed to others.
        folder = Path(scratch) / out.name
        folder.mkdir()
        record = _write_all(order, folder, on_progress or _silent)
        try:
            os.rename(folder, out)
        except OSError as error:
            raise errors.Conflict(
                f"{out} appeared while its files were written ({error.strerror}); "
                "give another folder or remove it"
            ) from None
    return _summary(out, record)
