"""From files to a data set on storage: open, join, convert by blocks, check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask import budget
from vehclust_dask.blocks import map_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.job.spec import DataSpec, DescriptorSpec, SourceSpec
from vehclust_dask.records import RowGrid
from vehclust_dask.store.datasets import (
    Part,
    PartWriter,
    begin_part,
    block_digest,
    convert_block,
    find_part,
    finish_part,
    keep_order,
    set_matrix,
)
from vehclust_dask.store.folders import digest_of, require_space
from vehclust_dask.store.matrices import Matrix
from vehclust_dask.store.paths import match_rows, read_paths
from vehclust_dask.store.photos import Photos, open_photos
from vehclust_dask.store.samples import build_samples, write_samples
from vehclust_dask.store.sources import Source, open_source
from vehclust_dask.store.storage import at, zarr_options

#: Told of what happens, a line each.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Dataset:
    """A converted data set.

    Attributes
    ----------
    name : str
    folder : Path
    sets : dict of str to Matrix
    parts : dict of str to list of Part
    dropped : tuple of int
        Rows left out in every set because one of them holds NaN or infinity there.
    samples : DataFrame
        See `store.samples`.
    photos : Photos or None
    synthetic : bool
    """

    name: str
    folder: Path
    sets: dict[str, Matrix]
    parts: dict[str, list[Part]]
    dropped: tuple[int, ...]
    samples: pd.DataFrame
    photos: Photos | None
    synthetic: bool

    @property
    def n_rows(self) -> int:
        """Return the number of rows, dropped ones included."""
        return next(iter(self.sets.values())).grid.n_rows

    @property
    def digest(self) -> str:
        """Return what names the descriptors of all sets, in the order of their names."""
        return digest_of([[name, self.sets[name].digest] for name in sorted(self.sets)])

    @property
    def samples_digest(self) -> str:
        """Return what names the paths, groups and truth of the rows."""
        rows = pd.util.hash_pandas_object(self.samples, index=False).to_numpy()
        return digest_of([list(self.samples), hashlib.sha256(rows.tobytes()).hexdigest()])


@dataclass(frozen=True)
class _Wanted:
    """A part that a job asks for: its source as it is now, and how rows are joined."""

    spec: SourceSpec
    source: Source
    order: NDArray[np.int64] | None
    fingerprint: dict[str, Any]
    block_rows: int


def convert(data: DataSpec, workdir: Path, *, say: Say, verify: bool = False) -> Dataset:
    """Convert what is not yet converted and return the data set.

    Parameters
    ----------
    data : DataSpec
    workdir : Path
    say : callable
    verify : bool
        Read every source again and compare it with what was converted.

    Raises
    ------
    BadInput
        Sources that are damaged or do not fit together.
    NotEnough
        If the disk is too small.
    """
    folder = workdir / "datasets" / data.dataset
    opened = _open(data)
    photos = _photos(data, folder, opened.samples, say)
    _require_space(folder, opened.wanted)
    parts = {
        name: [_part(folder, name, w, data.compress, say, verify) for w in several]
        for name, several in opened.wanted.items()
    }
    return _assemble(data, folder, parts, opened.samples, photos)


def find_converted(data: DataSpec, workdir: Path, *, say: Say) -> Dataset | None:
    """Return the data set if all of it is converted, else None; nothing is computed."""
    folder = workdir / "datasets" / data.dataset
    opened = _open(data)
    parts: dict[str, list[Part]] = {}
    for name, several in opened.wanted.items():
        found = [find_part(_set_folder(folder, name), w.fingerprint) for w in several]
        parts[name] = [part for part in found if part is not None]
        if len(parts[name]) < len(several):
            return None
        say(f"{name}: {sum(p.rows for p in parts[name]):,} rows already converted")
    photos = _photos(data, folder, opened.samples, say)
    return _assemble(data, folder, parts, opened.samples, photos)


@dataclass(frozen=True, eq=False)
class _Opened:
    """Sources that fit together, and the table of their rows."""

    wanted: dict[str, list[_Wanted]]
    samples: pd.DataFrame


def _open(data: DataSpec) -> _Opened:
    """Open all sources and check that they speak of the same rows."""
    paths = _row_paths(data)
    opened = [[open_source(s.file, s.key) for s in d.sources] for d in data.descriptors]
    paths = paths or _own_paths(opened)
    wanted = {
        d.name: _wanted(d, sources, paths, data)
        for d, sources in zip(data.descriptors, opened, strict=True)
    }
    n_rows = _check_rows(wanted, paths)
    samples = build_samples(
        paths,
        n_rows,
        group=data.group,
        truth=None if data.truth is None else at(data.truth.file),
        truth_columns=() if data.truth is None else data.truth.columns,
    )
    return _Opened(wanted, samples)


def _assemble(
    data: DataSpec,
    folder: Path,
    parts: dict[str, list[Part]],
    samples: pd.DataFrame,
    photos: Photos | None,
) -> Dataset:
    sets = {name: set_matrix(several) for name, several in parts.items()}
    dropped = _dropped(data, parts, samples)
    write_samples(samples, folder / "samples.parquet")
    return Dataset(data.dataset, folder, sets, parts, dropped, samples, photos, data.synthetic)


def _row_paths(data: DataSpec) -> list[str] | None:
    if not data.paths:
        return None
    paths = [path for file in data.paths for path in read_paths(file)]
    _refuse_twice(paths, "of the paths files")
    return paths


def _refuse_twice(paths: list[str], where: str) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise BadInput(f"'{path}' is in two {where}: a path names one row")
        seen.add(path)


def _own_paths(opened: list[list[Source]]) -> list[str] | None:
    """Return the paths a set brings with it, where no paths file is given."""
    for sources in opened:
        if all(source.paths is not None for source in sources):
            paths = [path for source in sources for path in source.paths or ()]
            _refuse_twice(paths, "files of a set")
            return paths
    return None


def _wanted(
    descriptor: DescriptorSpec, sources: list[Source], paths: list[str] | None, data: DataSpec
) -> list[_Wanted]:
    """Join the sources of a set to the rows: by path where they know theirs, else one after another."""
    widths = {source.n_features for source in sources}
    if len(widths) > 1:
        raise BadInput(
            f"the files of {descriptor.name} have {' and '.join(map(str, sorted(widths)))} columns: "
            "parts of one set need the same width"
        )
    rows = data.block_rows or budget.block_rows(sources[0].n_features)
    out = []
    first = 0
    for spec, source in zip(descriptor.sources, sources, strict=True):
        # A part holds the next rows; the only part of a set may know more rows than are asked for.
        mine = (paths or [])[first : first + source.n_rows] if len(sources) > 1 else paths
        order = None
        if source.paths is not None and mine:
            order = match_rows(mine, source.paths)
            if np.array_equal(order, np.arange(source.n_rows)):
                order = None
        first += source.n_rows
        fingerprint = {
            "file": source.file,
            "key": source.key,
            "order": None if order is None else digest_of(order.tolist()),
            "block_rows": rows,
            **source.fingerprint(),
        }
        out.append(_Wanted(spec, source, order, fingerprint, rows))
    return out


def _check_rows(wanted: dict[str, list[_Wanted]], paths: list[str] | None) -> int:
    """Refuse sets that do not have the same rows; return how many there are."""
    counts = {
        name: sum(w.source.n_rows if w.order is None else len(w.order) for w in several)
        for name, several in wanted.items()
    }
    first, n_rows = next(iter(counts.items()))
    for name, count in counts.items():
        if count != n_rows:
            raise BadInput(
                f"{name} has {count:,} rows but {first} has {n_rows:,}: row i must be the same photo "
                "in every set; give files that fit together"
            )
    if paths is not None and len(paths) != n_rows:
        raise BadInput(
            f"the paths name {len(paths):,} rows but {first} has {n_rows:,}: row i of the paths must "
            "be row i of every set"
        )
    return n_rows


def _photos(data: DataSpec, folder: Path, samples: pd.DataFrame, say: Say) -> Photos | None:
    if data.photos is None:
        return None
    if "path" not in samples:
        raise BadInput(
            "data.photos is given, but no set brings paths of its own: photos are found by path; "
            "name the table of paths in data.paths"
        )
    folder.mkdir(parents=True, exist_ok=True)
    photos = open_photos(data.photos, folder / "photos.parquet")
    paths = samples["path"].tolist()
    missing = photos.missing(paths)
    if missing.n == len(paths):
        raise BadInput(
            f"none of the {len(paths):,} paths is in {data.photos} (the first is '{paths[0]}'); "
            "correct data.photos, or leave it out to work without photos"
        )
    if missing.n:
        say(f"{missing.n:,} of {len(paths):,} photos are missing, the first is {missing.first}")
    return photos


def _require_space(folder: Path, wanted: dict[str, list[_Wanted]]) -> None:
    needed = sum(
        4 * w.source.n_rows * w.source.n_features
        for name, several in wanted.items()
        for w in several
        if find_part(_set_folder(folder, name), w.fingerprint) is None
    )
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, needed, "converting")


def _set_folder(folder: Path, name: str) -> Path:
    return folder / f"{name}.zarr"


def _part(folder: Path, name: str, wanted: _Wanted, compress: str, say: Say, verify: bool) -> Part:
    """Find or convert one part."""
    set_folder = _set_folder(folder, name)
    part = find_part(set_folder, wanted.fingerprint)
    if part is not None and not verify:
        say(f"{name}: {part.rows:,} x {part.n_features} already converted")
        return part
    n_rows = wanted.source.n_rows if wanted.order is None else len(wanted.order)
    width = wanted.source.n_features
    if part is not None:
        return _verified(part, wanted, name, say)
    (set_folder).mkdir(parents=True, exist_ok=True)
    _mark_group(set_folder)
    writer = begin_part(
        set_folder, wanted.fingerprint, n_rows, width, wanted.block_rows, compress, wanted.order
    )
    map_rows(writer.grid, convert_block, wanted.source, writer, name=f"convert-{name}")
    part = finish_part(set_folder, writer, wanted.fingerprint)
    say(f"{name}: {n_rows:,} x {width} converted")
    return part


def _mark_group(folder: Path) -> None:
    """Make the folder a zarr group, so that other tools can open it."""
    import zarr

    if not (folder / "zarr.json").exists():
        zarr.open_group(str(folder), mode="a", storage_options=zarr_options(folder))


def _verified(part: Part, wanted: _Wanted, name: str, say: Say) -> Part:
    """Compare a source with what was converted of it, block by block."""
    grid = RowGrid((part.rows,), part.block_rows)
    # The part may have come from another file, whose rows were in another order.
    order = None if wanted.order is None else keep_order(part.folder, wanted.order)
    writer = PartWriter(str(part.folder), grid, part.n_features, order)
    digests = map_rows(grid, block_digest, wanted.source, writer, name=f"verify-{name}")
    whole = hashlib.sha256(f"{part.rows} x {part.n_features}".encode())
    for digest in digests:
        whole.update(digest)
    if whole.hexdigest()[:16] != part.digest:
        raise BadInput(
            f"{wanted.source.file} is no longer what was converted although its size and time are "
            f"the same; delete {part.folder} and run again"
        )
    say(f"{name}: {part.rows:,} rows verified")
    return part


def _dropped(
    data: DataSpec, parts: dict[str, list[Part]], samples: pd.DataFrame
) -> tuple[int, ...]:
    """Return the rows with NaN or infinity in any set, or refuse them."""
    rows: set[int] = set()
    for name, several in parts.items():
        row0 = 0
        bad: list[int] = []
        for part in several:
            bad.extend(row0 + r for r in part.bad_rows)
            row0 += part.rows
        if bad and data.on_nan == "refuse":
            where = f" ({samples['path'].iloc[bad[0]]})" if "path" in samples else ""
            raise BadInput(
                f"{name} holds NaN or infinity in {len(bad):,} rows, the first is row {bad[0]}{where}; "
                "repair the file, or set data.on_nan: drop to leave these rows out of every set"
            )
        rows.update(bad)
    if len(rows) == len(samples):
        raise BadInput("every row holds NaN or infinity in some set: no rows are left")
    return tuple(sorted(rows))
