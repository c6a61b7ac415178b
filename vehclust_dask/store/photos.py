"""Photos in a folder or a zip, found by their path and read in place; nothing is unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import BadInput
from vehclust_dask.store.photo_index import PICTURE_SUFFIXES, read_index, refresh_index
from vehclust_dask.store.storage import Reader, about, at, files_below, is_url, read

#: A member that unpacks to more than this is no vehicle photo but a zip bomb.
MAX_PHOTO_BYTES = 256 << 20

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
# EXIF's orientation, and from which value on a photo lies on its side.
_ORIENTATION, _LYING = 0x0112, 5
# Extra fields of local headers: 20 bytes for zip64, 28 for times and owners; seldom more.
_EXTRA_GUESS = 128
# How many paths are tried to find out under which folder the photos lie.
_SAMPLE, _PROBES, _MAX_MATCHES = 512, 8, 16
# Everything that Pillow's decoders are known to raise on damaged bytes.
_BROKEN_PICTURE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class PrefixRule(NamedTuple):
    """The leading folders ``old`` of every path stand for ``new`` where the photos lie."""

    old: str = ""
    new: str = ""


class Missing(NamedTuple):
    """How many paths have no photo, and the first of them."""

    n: int
    first: str | None


class Pixels(NamedTuple):
    """One photo, upright: RGB of shape (height, width, 3), uint8, and its full size in pixels."""

    rgb: NDArray[np.uint8]
    full_width: int
    full_height: int


@dataclass(frozen=True, eq=False)
class _Opened:
    """What a process holds of an index: columns, and the opened zip (None for a folder)."""

    names: pa.Array
    columns: dict[str, NDArray[np.int64]]
    zip: Reader | None


class Photos:
    """Photos of one folder or zip; pickles as two paths and reopens by itself.

    Made by :func:`open_photos`. Entries are numbers into the sorted names of the index.
    Reading is safe from several threads.

    Attributes
    ----------
    where : Path
        The zip or the folder.
    index : Path
        The parquet file that names every photo in it.
    """

    def __init__(self, where: Path, index: Path) -> None:
        self.where = where
        self.index = index
        self._opened_: _Opened | None = None

    def __getstate__(self) -> dict[str, Path]:
        """Leave behind what is open."""
        return {"where": self.where, "index": self.index}

    def __setstate__(self, state: dict[str, Path]) -> None:
        """Come back unopened: the index and the zip are opened where they are first needed."""
        self.where, self.index, self._opened_ = state["where"], state["index"], None

    def __repr__(self) -> str:
        """Say where the photos are."""
        return f"Photos({str(self.where)!r})"

    @property
    def n_photos(self) -> int:
        """Return the number of photos."""
        return len(self._opened.names)

    def name(self, entry: int) -> str:
        """Return the path of an entry inside the folder or zip, with forward slashes."""
        return str(self._opened.names[self._checked(entry)])

    def prefix_rule(self, paths: Sequence[str]) -> PrefixRule:
        """Find which leading folders of the paths to exchange so that they name photos.

        The exchanged part must be common to all paths, so two paths never get one photo.

        Parameters
        ----------
        paths : sequence of str
            All the paths of a data set, with slashes or backslashes; a sample of them is looked up.

        Returns
        -------
        PrefixRule
            The rule that finds most of the sample; with equals, the one that changes least.

        Raises
        ------
        BadInput
            If two folders fit equally well.
        """
        wanted = _normalised(paths)
        if not len(wanted):
            return PrefixRule()
        sample = wanted.take(pa.array(_spaced(len(wanted), _SAMPLE)))
        if self._hits(sample, PrefixRule()) == len(sample):
            return PrefixRule()
        texts = sample.to_pylist()
        common = _common_folder(texts)
        rules = {PrefixRule()}
        for i in _spaced(len(texts), _PROBES):
            rules |= self._rules_for(texts[i], common)
        return self._best_rule(sample, rules)

    def find(self, paths: Sequence[str], rule: PrefixRule | None = None) -> NDArray[np.int64]:
        """Find the entry of every path.

        Parameters
        ----------
        paths : sequence of str of length n
            With slashes or backslashes.
        rule : PrefixRule, optional
            As :meth:`prefix_rule` found it for the whole data set; found for these paths alone
            when left out.

        Returns
        -------
        ndarray of shape (n,), int64
            Entry numbers; -1 where there is no such photo.
        """
        chosen = self.prefix_rule(paths) if rule is None else rule
        return self._look_up(_normalised(paths), chosen)

    def missing(self, paths: Sequence[str], rule: PrefixRule | None = None) -> Missing:
        """Count the paths that have no photo and name the first one."""
        lost = np.flatnonzero(self.find(paths, rule) < 0)
        return Missing(len(lost), str(paths[int(lost[0])]) if len(lost) else None)

    def read(self, entry: int) -> bytes:
        """Return the bytes of one photo as they were stored.

        Raises
        ------
        BadInput
            If the file is gone, was cut off or changed after it was indexed.
        """
        i = self._checked(entry)
        opened = self._opened
        if opened.zip is None:
            return self._read_file(self.name(i))
        return self._read_member(opened, opened.zip, i)

    def thumbnail(self, entry: int, size: int) -> Image.Image:
        """Return one photo, upright, in RGB, as large as fits into a square of ``size`` pixels.

        Raises
        ------
        BadInput
            If the bytes are no whole picture.
        """
        upright, _ = self._decoded(entry, size)
        return upright

    def pixels(self, entry: int, size: int) -> Pixels:
        """Return one photo as `thumbnail` does, as an array, and how large it is on storage.

        Raises
        ------
        BadInput
            If the bytes are no whole picture.
        """
        upright, full = self._decoded(entry, size)
        return Pixels(np.asarray(upright), *full)

    def _decoded(self, entry: int, size: int) -> tuple[Image.Image, tuple[int, int]]:
        """Return one photo in a square of ``size`` pixels, and its width and height on storage."""
        content = self.read(entry)
        try:
            with Image.open(io.BytesIO(content)) as picture:
                width, height = picture.size
                if picture.getexif().get(_ORIENTATION, 1) >= _LYING:
                    width, height = height, width
                # Decode a JPEG at a half, a quarter or an eighth where that is still large enough.
                picture.draft("RGB", (size, size))
                upright = ImageOps.exif_transpose(picture).convert("RGB")
            fitted = ImageOps.contain(upright, (size, size), Image.Resampling.LANCZOS)
            return fitted, (width, height)
        except _BROKEN_PICTURE as error:
            raise BadInput(
                f"photo '{self.name(entry)}' in {self.where} is broken ({error}); "
                "replace the file or leave its row out"
            ) from error

    def fingerprint(self) -> str:
        """Return what names the photos: of a zip its members, size and time, of a folder every file's.

        Raises
        ------
        BadInput
            If a file is gone.
        """
        digest = hashlib.sha256()
        opened = self._opened
        for name in opened.names.to_pylist():
            digest.update(f"{name}\n".encode())
        if opened.zip is not None:
            for key, column in sorted(opened.columns.items()):
                digest.update(key.encode() + column.tobytes())
            now = opened.zip.about
            digest.update(f"{now.size} {now.mtime_ns}".encode())
            return digest.hexdigest()[:16]
        listed = files_below(self.where) if is_url(self.where) else None
        for name in opened.names.to_pylist():
            try:
                now = about(self.where / name) if listed is None else listed[name]
            except (OSError, KeyError) as error:
                told = getattr(error, "strerror", None) or "is gone"
                raise BadInput(f"photo '{name}' of {self.where}: {told}") from error
            digest.update(f"{now.size} {now.mtime_ns}\n".encode())
        return digest.hexdigest()[:16]

    @property
    def _opened(self) -> _Opened:
        if self._opened_ is None:
            self._opened_ = self._open()
        return self._opened_

    def _open(self) -> _Opened:
        kept = read_index(self.index)
        if kept is None:
            raise BadInput(f"there is no photo index at {self.index}; open the photos again")
        table, made_from = kept
        names = table["name"].combine_chunks()
        if made_from["kind"] == "folder":
            return _Opened(names, {}, None)
        reader = Reader(self.where)
        weakref.finalize(self, reader.close)
        if reader.about.size != made_from["zip_size"]:
            raise BadInput(f"{self.where} changed after it was indexed; open the photos again")
        columns = {
            key: table[key].to_numpy().astype(np.int64)
            for key in ("header_offset", "size", "file_size", "method")
        }
        return _Opened(names, columns, reader)

    def _checked(self, entry: int) -> int:
        if not 0 <= entry < self.n_photos:
            raise IndexError(f"photo {entry} of {self.n_photos}")
        return int(entry)

    def _look_up(self, wanted: pa.Array, rule: PrefixRule) -> NDArray[np.int64]:
        found = pc.index_in(_apply(rule, wanted), value_set=self._opened.names)
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def _hits(self, wanted: pa.Array, rule: PrefixRule) -> int:
        return int(np.count_nonzero(self._look_up(wanted, rule) >= 0))

    def _rules_for(self, path: str, common: str) -> set[PrefixRule]:
        """Return the rules under which one path names a photo: the longest tail that any has."""
        starts = [0, *(i + 1 for i, letter in enumerate(common) if letter == "/")]
        names = self._opened.names
        for start in starts:
            tail = path[start:]
            ends = pc.or_(pc.equal(names, tail), pc.ends_with(names, pattern="/" + tail))
            matches = names.filter(ends).to_pylist()
            if matches:
                if len(matches) > _MAX_MATCHES:
                    return set()
                return {PrefixRule(path[:start], m[: len(m) - len(tail)]) for m in matches}
        return set()

    def _best_rule(self, sample: pa.Array, rules: set[PrefixRule]) -> PrefixRule:
        def change(rule: PrefixRule) -> tuple[int, int, int]:
            return -hits[rule], rule.old.count("/"), rule.new.count("/")

        hits = {rule: self._hits(sample, rule) for rule in rules}
        ranked = sorted(rules, key=lambda rule: (change(rule), rule))
        best = ranked[0]
        if hits[best] == 0:
            return PrefixRule()
        if len(ranked) > 1 and change(ranked[1]) == change(best):
            raise BadInput(
                f"the paths fit photos under '{best.new}' and under '{ranked[1].new}' of "
                f"{self.where} equally well; write one of these folders into the paths"
            )
        return best

    def _read_file(self, name: str) -> bytes:
        if is_url(self.where):
            try:
                return read(self.where / name)
            except OSError as error:
                raise BadInput(f"photo '{name}' of {self.where}: {error}") from error
        root = os.path.realpath(self.where)
        path = os.path.realpath(os.path.join(root, name))
        if os.path.commonpath([root, path]) != root:
            raise BadInput(f"photo '{name}' leads out of {self.where}; copy it into the folder")
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise BadInput(f"photo '{name}' of {self.where}: {error.strerror}") from error

    def _read_member(self, opened: _Opened, reader: Reader, i: int) -> bytes:
        offset, size, file_size, method = (int(column[i]) for column in opened.columns.values())
        name = self.name(i)
        if max(size, file_size) > MAX_PHOTO_BYTES:
            raise BadInput(
                f"photo '{name}' in {self.where} claims {show_bytes(max(size, file_size))}; "
                f"at most {show_bytes(MAX_PHOTO_BYTES)} are allowed"
            )
        head = _LOCAL_HEADER.size
        raw = reader.pread(head + len(name.encode()) + _EXTRA_GUESS + size, offset)
        if len(raw) < head or not raw.startswith(b"PK\x03\x04"):
            raise BadInput(f"{self.where} has no photo '{name}' where its index says; re-pack it")
        *_, n_name, n_extra = _LOCAL_HEADER.unpack_from(raw)
        start = head + n_name + n_extra
        packed = raw[start : start + size]
        if len(packed) < size and len(raw) == head + len(name.encode()) + _EXTRA_GUESS + size:
            packed = reader.pread(size, offset + start)
        content = packed if method == zipfile.ZIP_STORED else self._inflate(packed, file_size, name)
        if len(packed) != size or len(content) != file_size:
            raise BadInput(
                f"photo '{name}' in {self.where} has {len(content)} of {file_size} bytes; "
                "the zip was cut off or damaged: copy it again"
            )
        return content

    def _inflate(self, packed: bytes, file_size: int, name: str) -> bytes:
        try:
            # One byte more than promised shows a lie; a bomb never unfolds.
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, file_size + 1)
        except zlib.error as error:
            raise BadInput(
                f"photo '{name}' in {self.where} cannot be unpacked ({error}); copy the zip again"
            ) from error


def open_photos(where: str | Path, index: Path) -> Photos:
    """Open the photos of a folder or a zip; make or renew their index first.

    A zip is indexed once, and again when its size or time changed: the standard library reads its
    central directory (8 s and 280 MB for 416,000 photos), later opens read the index alone.
    A folder is listed every time, because nothing tells whether a folder deep inside changed.

    Parameters
    ----------
    where : str or Path
        A folder, or a zip (also zip64) with stored or deflated members.
    index : Path
        Parquet file to keep the index in; its folder is made.

    Returns
    -------
    Photos

    Raises
    ------
    BadInput
        If there is nothing, no photo, no whole zip, or a member that is encrypted or packed by
        another method.
    """
    place = at(str(where)) if is_url(where) else Path(where).absolute()
    refresh_index(place, index)
    photos = Photos(place, index if is_url(index) else Path(index).absolute())
    if not photos.n_photos:
        raise BadInput(
            f"{where} holds no photos; allowed endings: {', '.join(sorted(PICTURE_SUFFIXES))}"
        )
    return photos


def _normalised(paths: Sequence[str]) -> pa.Array:
    texts = pa.array(list(paths), pa.string())
    return pc.replace_substring_regex(
        pc.replace_substring(texts, pattern="\\", replacement="/"),
        pattern="^(\\./)+",
        replacement="",
    )


def _apply(rule: PrefixRule, wanted: pa.Array) -> pa.Array:
    """Exchange the prefix of every path; null where a path has another one."""
    if rule == PrefixRule():
        return wanted
    tails = pc.utf8_slice_codeunits(wanted, start=len(rule.old))
    renamed = pc.binary_join_element_wise(rule.new, tails, "")
    return pc.if_else(
        pc.starts_with(wanted, pattern=rule.old), renamed, pa.scalar(None, pa.string())
    )


def _spaced(n: int, at_most: int) -> list[int]:
    """Return up to ``at_most`` places among ``n``, evenly spaced, first and last included."""
    return [int(i) for i in np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.int64))]


def _common_folder(paths: list[str]) -> str:
    """Return the leading folders that all paths share, with a slash at the end."""
    first, last = min(paths), max(paths)
    differ = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    shared = first[:differ]
    return shared[: shared.rfind("/") + 1]
