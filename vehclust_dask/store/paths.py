"""Lists of photo paths, as people have them, and which row of a file a path stands for."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store.storage import read, whole

#: Names of a column of paths, the most telling first; any case.
PATH_COLUMNS = ("path", "paths", "filename", "filenames", "file", "files", "image", "images")
_DELIMITERS = ",;\t"
#: Wanted paths that are looked at to find out how two lists of paths differ.
_SAMPLES = 16
#: Ways in which a sampled path may continue that are tried on all paths.
_MAX_RULES = 32


def normalise_path(path: str) -> str:
    r"""Return a path with forward slashes, without a leading ``./`` and without double slashes.

    Absolute paths and ``..`` stay as they are; ``a\b.jpg`` becomes ``a/b.jpg``.
    """
    path = path.strip().replace("\\", "/")
    if "//" in path or "/./" in path or path.startswith("./"):
        root = "//" if path.startswith("//") else "/" if path.startswith("/") else ""
        path = root + "/".join(part for part in path.split("/") if part.strip() not in ("", "."))
        path = path.strip()
    return path


def find_column(names: Iterable[str]) -> str | None:
    """Return the name of the column that holds paths, or None."""
    by_name = {name.strip().lower(): name for name in reversed(list(names))}
    return next((by_name[name] for name in PATH_COLUMNS if name in by_name), None)


def read_paths(file: str | Path) -> list[str]:
    """Read a list of paths: csv, txt or parquet.

    A csv has one column, or several of which one is called path, paths, file, filename or image;
    with a header or without one; any line ends, quotes, UTF-8 or UTF-16.

    Parameters
    ----------
    file : str or Path

    Returns
    -------
    list of str
        The paths in the order of the file, normalised by `normalise_path`.

    Raises
    ------
    BadInput
        If there is no such file or column, a line is empty or a path stands there twice.

    Notes
    -----
    About half a second for 416,314 paths.
    """
    name = str(file)
    try:
        raw = read(file)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}") from error
    if raw.startswith(b"PAR1"):
        paths, lines = _read_table(name), None
    else:
        paths, lines = _read_text(name, _decode(name, raw))
    if not paths:
        _refuse(name, "holds no paths")
    paths = list(map(normalise_path, paths))
    if "" in paths:
        _refuse(name, f"has no path in {_place(paths.index(''), lines)}")
    _check_unique(name, paths, lines)
    return paths


def _refuse(file: str, reason: str) -> NoReturn:
    raise BadInput(f"{file} {reason}")


def _place(i: int, lines: Sequence[int] | None) -> str:
    return f"row {i:,}" if lines is None else f"line {lines[i]:,}"


def _check_unique(file: str, paths: list[str], lines: Sequence[int] | None) -> None:
    if len(set(paths)) == len(paths):
        return
    seen: dict[str, int] = {}
    for i, path in enumerate(paths):
        if (first := seen.setdefault(path, i)) != i:
            places = f"{_place(first, lines)} and {_place(i, lines)}"
            _refuse(file, f"holds '{path}' twice, in {places}; every photo needs one row")


def _decode(file: str, raw: bytes) -> str:
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        _refuse(file, f"is no UTF-8 text: line {line:,}; save it as UTF-8")
    if "\0" in text:
        _refuse(file, "is no text: it holds zero bytes")
    return text


def _read_text(file: str, text: str) -> tuple[list[str], Sequence[int]]:
    """Return the paths as they are written, and their line numbers."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n \t")
    first = text.split("\n", 1)[0]
    for delimiter in _DELIMITERS:
        names = _fields(first, delimiter)
        if len(names) > 1 and (column := find_column(names)) is not None:
            return _read_columns(file, text, delimiter, names.index(column))
    if any(len(_fields(first, delimiter)) > 1 for delimiter in _DELIMITERS):
        allowed = ", ".join(PATH_COLUMNS)
        _refuse(
            file, f"has several columns ({first[:80]}); call the one with paths one of {allowed}"
        )
    return _read_lines(text)


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _read_lines(text: str) -> tuple[list[str], Sequence[int]]:
    """Read one path per line; the first line may be a heading."""
    values = text.split("\n") if text else []
    if '"' in text:
        values = [_unquote(value) for value in values]
    skip = 1 if values and _is_heading(values) else 0
    return values[skip:], range(skip + 1, len(values) + 1)


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('""', '"')
    return value


def _is_heading(values: list[str]) -> bool:
    """Say whether the first line is a heading: a known name, or no path where the next is one."""
    if values[0].strip().lower() in PATH_COLUMNS:
        return True
    first, following = values[0], "".join(values[1:2])
    return not set(first) & set("./\\") and bool(set(following) & set("./\\"))


def _read_columns(
    file: str, text: str, delimiter: str, column: int
) -> tuple[list[str], Sequence[int]]:
    """Read one column of several; the first line is the heading."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    paths, lines = [], []
    try:
        next(reader)
        for row in reader:
            paths.append(row[column])
            lines.append(reader.line_num)
    except IndexError:
        _refuse(file, f"has too few columns in line {reader.line_num:,}")
    except csv.Error as error:
        _refuse(file, f"is damaged in line {reader.line_num:,}: {error}")
    return paths, lines


def _read_table(file: str) -> list[str]:
    """Read the column of paths of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(whole(file)).names
        column = names[0] if len(names) == 1 else find_column(names)
        if column is None:
            allowed = ", ".join(PATH_COLUMNS)
            _refuse(file, f"has no column of paths; call it one of {allowed}")
        values = (
            pq.read_table(whole(file), columns=[column]).column(0).cast(pa.string()).to_pylist()
        )
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{file} cannot be read as parquet: {error}") from error
    return ["" if value is None else value for value in values]


def match_rows(wanted: list[str], have: Sequence[str]) -> NDArray[np.int64]:
    """Return the row of each wanted path in another list of paths.

    The lists may differ by leading folders: ``1/0001.jpg`` is found in ``veriwild/1/0001.jpg``, and
    ``/data/veriwild/1/0001.jpg`` in either, when one rule does so for all wanted paths.

    Parameters
    ----------
    wanted : list of str
        Normalised paths.
    have : sequence of str
        Normalised paths; may hold more than the wanted ones.

    Returns
    -------
    ndarray of shape (len(wanted),), int64

    Raises
    ------
    BadInput
        If a path is missing, or stands for more than one row.
    """
    rows = {path: i for i, path in enumerate(have)}
    best = _apply(("", ""), wanted, rows)
    if (best < 0).any():
        best = _best_by_rule(wanted, have, rows, best)
    missing = np.flatnonzero(best < 0)
    if len(missing):
        raise BadInput(
            f"{len(missing):,} of {len(wanted):,} paths are missing, "
            f"the first is '{wanted[int(missing[0])]}'"
        )
    if len(rows) < len(have):
        _check_single(wanted, have, best)
    return best


def _apply(rule: tuple[str, str], wanted: Sequence[str], rows: dict[str, int]) -> NDArray[np.int64]:
    """Return the rows after replacing a leading part by another; -1 where there is none."""
    drop, put = rule
    n = len(drop)
    if not drop and not put:
        found = (rows.get(path, -1) for path in wanted)
    else:
        found = (rows.get(put + path[n:], -1) if path.startswith(drop) else -1 for path in wanted)
    return np.fromiter(found, np.int64, len(wanted))


def _best_by_rule(
    wanted: list[str], have: Sequence[str], rows: dict[str, int], exact: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows by the rule that finds most; refuse two rules that find all."""
    best, whole = exact, exact
    complete = 0
    for rule in _rules(wanted, have):
        found = _apply(rule, wanted, rows)
        if (found < 0).sum() < (best < 0).sum():
            best = found
        if (found >= 0).all():
            if complete and not np.array_equal(found, whole):
                i = int(np.flatnonzero(found != whole)[0])
                raise BadInput(
                    f"{int((found != whole).sum()):,} of {len(wanted):,} paths stand for more than "
                    f"one row; the first is '{wanted[i]}', which may be '{have[int(found[i])]}' "
                    f"or '{have[int(whole[i])]}'"
                )
            complete, whole = 1, found
    return best


def _rules(wanted: list[str], have: Sequence[str]) -> list[tuple[str, str]]:
    """Return ways to turn wanted paths into paths at hand, as sampled paths suggest them."""
    step = max(1, len(wanted) // _SAMPLES)
    samples = wanted[::step][:_SAMPLES]
    names = {_basename(path) for path in samples}
    near: dict[str, list[str]] = {}
    for path in have:
        if (name := _basename(path)) in names:
            near.setdefault(name, []).append(path)
    rules: dict[tuple[str, str], int] = {}
    for path in samples:
        candidates = [_rule(path, other) for other in near.get(_basename(path), [])]
        for rule in candidates:
            if rule is not None:
                rules[rule] = rules.get(rule, 0) + 1
    return sorted(rules, key=lambda rule: (-rules[rule], len(rule[0]) + len(rule[1])))[:_MAX_RULES]


def _basename(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def _rule(path: str, other: str) -> tuple[str, str] | None:
    """Return which leading folders to replace by which; only whole folders, only what is safe.

    Folders may be left out on one side. Both sides may differ only where both are absolute: else
    ``1/0001.jpg`` would pass for ``2/0001.jpg``.
    """
    mine, theirs = path.split("/"), other.split("/")
    n = 0
    while n < min(len(mine), len(theirs)) and mine[-1 - n] == theirs[-1 - n]:
        n += 1
    drop = "".join(part + "/" for part in mine[: len(mine) - n])
    put = "".join(part + "/" for part in theirs[: len(theirs) - n])
    if drop and put and not (_is_absolute(path) and _is_absolute(other)):
        return None
    return drop, put


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or path[1:3] == ":/"


def _check_single(wanted: list[str], have: Sequence[str], found: NDArray[np.int64]) -> None:
    """Refuse wanted paths that stand more than once in the other list."""
    seen: set[str] = set()
    twice: set[str] = set()
    for path in have:
        (twice if path in seen else seen).add(path)
    bad = [i for i, row in enumerate(found.tolist()) if have[row] in twice]
    if bad:
        raise BadInput(
            f"{len(bad):,} of {len(wanted):,} paths stand for more than one row; "
            f"the first is '{wanted[bad[0]]}'"
        )
