"""Where the numbers of a pickle lie: read from its opcodes, nothing is executed.

A pickle of a matrix of 6 GB is opened in milliseconds: its bytes lie in place (protocols 3 to 5)
and are read by row ranges afterwards. Protocols 0 to 2 as Python 3 writes them keep the bytes as
text, which is measured by one pass through the file.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput, nearest
from vehclust_dask.store.paths import PATH_COLUMNS, normalise_path
from vehclust_dask.store.pickle_machine import walk
from vehclust_dask.store.pickle_tokens import Tape
from vehclust_dask.store.pickle_values import (
    ArrayTable,
    ArrayValue,
    DictValue,
    Layout,
    ListValue,
    say_value,
)
from vehclust_dask.store.storage import Reader

#: First bytes of a pickle of protocols 0 and 1 that holds an array, a list or a dict.
_OLD_BEGINNINGS = b"c(]}"
_KEYS_SHOWN = 12


@dataclass(frozen=True)
class PickledMatrix:
    """One matrix in a pickle.

    Attributes
    ----------
    dtype : str
        Type and byte order as numpy writes them, ``<f4``.
    shape : tuple of int
        Rows and columns.
    fortran : bool
        Whether columns lie one after the other rather than rows.
    offset, size : int
        Where its bytes lie in the file; more of them than numbers need unless ``in place``.
    form : str
        How the bytes are written, see `pickle_tokens.Piece`.
    paths : tuple of str or None
        A list of paths that lies beside it in a dict, normalised.
    """

    dtype: str
    shape: tuple[int, int]
    fortran: bool
    offset: int
    size: int
    form: str
    paths: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class PickledVectors:
    """Many vectors of one length in a pickle, each of them a row.

    Attributes
    ----------
    dtype : str
        Type and byte order as numpy writes them.
    n_features : int
        Length of every vector.
    offsets, sizes : ndarray of shape (n_rows,), int64
        Where the bytes of each row lie in the file.
    form : str
        How the bytes are written.
    paths : tuple of str or None
        The keys where the vectors lie in a dict, normalised.
    """

    dtype: str
    n_features: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    form: str
    paths: tuple[str, ...] | None = None


def locate(file: str | Path, key: str | None = None) -> PickledMatrix | PickledVectors:
    """Find a matrix, or vectors that make one, in a pickle without loading it.

    Parameters
    ----------
    file : str or Path
    key : str, optional
        Which entry of a dict, or the position in a list, when there are several matrices.

    Returns
    -------
    PickledMatrix or PickledVectors

    Raises
    ------
    BadInput
        If the file is no pickle, is damaged, holds anything but plain arrays of numbers in lists
        and dicts, or holds no matrix or several without a key.

    Notes
    -----
    Milliseconds and less than a MiB for one array of any size; for a million vectors half a minute
    to a minute, and less than 100 bytes each beside their names.
    """
    name = str(file)
    try:
        reader = Reader(file)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror or error}") from error
    with reader:
        tape = Tape(reader, name)
        _check_beginning(tape)
        value, table = walk(tape)
    return _Chooser(name, table).choose(value, key)


def _check_beginning(tape: Tape) -> None:
    first = tape.load(0)[:2]
    if not first:
        tape.refuse("is empty")
    if first == b"\x1f\x8b":
        tape.refuse("is compressed by gzip; unpack it first, so that rows can be read in any order")
    if first[0] != 0x80 and first[0] not in _OLD_BEGINNINGS:
        tape.refuse("is no pickle: save the matrix with pickle.dump or numpy.save")


class _Chooser:
    """Pick what a key, or the only matrix there is, stands for."""

    def __init__(self, file: str, table: ArrayTable) -> None:
        self._file = file
        self._table = table

    def choose(self, value: Any, key: str | None) -> PickledMatrix | PickledVectors:
        """Return the matrix or the vectors."""
        if isinstance(value, DictValue):
            return self._from_dict(value, key)
        if isinstance(value, ListValue | tuple):
            return self._from_list(_as_list(value), key)
        if not isinstance(value, ArrayValue):
            self._refuse(f"holds {say_value(value)}, not an array")
        if key is not None:
            self._refuse(f"holds one array and has no key '{key}'; leave the key out")
        if value.number < 0:
            self._refuse("is damaged: its array has no numbers")
        return self._matrix(value.number)

    def _refuse(self, reason: str) -> NoReturn:
        raise BadInput(f"{self._file} {reason}")

    def _matrix(self, number: int, what: str = "") -> PickledMatrix:
        layout = self._table.layout(number)
        shape = layout.shape
        if len(shape) != 2:
            self._refuse(f"{what}has shape {shape}: a matrix of rows is needed")
        if shape[0] == 0 or shape[1] == 0:
            self._refuse(f"{what}has shape {shape}: there are no rows or no columns")
        self._check_numbers(layout, what)
        offsets, sizes, _ = self._table.columns(array("q", [number]))
        rows = (shape[0], shape[1])
        at, size = int(offsets[0]), int(sizes[0])
        return PickledMatrix(layout.dtype, rows, layout.fortran, at, size, layout.form)

    def _check_numbers(self, layout: Layout, what: str) -> None:
        if layout.dtype[1] in "SU":
            self._refuse(f"{what}holds text ({layout.dtype}): a matrix of numbers is needed")

    def _from_list(self, value: ListValue, key: str | None) -> PickledMatrix | PickledVectors:
        if not value.arrays:
            kind = value.foreign or ("text" if value.words else "nothing")
            self._refuse(f"holds a list of {kind}, not of arrays; save numpy.asarray of it")
        if value.foreign or value.words:
            self._refuse(
                f"holds a list of arrays and of {value.foreign or 'text'}; save the matrix"
            )
        n = len(value.arrays)
        if key is not None:
            if not key.isascii() or not key.isdigit() or int(key) >= n:
                self._refuse(f"holds a list and has no key '{key}'; allowed: 0 to {n - 1}")
            return self._matrix(value.arrays[int(key)], f"[{key}] ")
        if n == 1 and len(self._table.layout(value.arrays[0]).shape) != 1:
            return self._matrix(value.arrays[0], "[0] ")
        if not self._are_vectors(value.arrays):
            self._refuse(f"holds a list of {n:,} arrays; choose one by its position as the key")
        return self._vectors(value.arrays, None)

    def _from_dict(self, value: DictValue, key: str | None) -> PickledMatrix | PickledVectors:
        names = [*value.keys, *value.lists]
        if len(set(names)) != len(names):
            self._refuse("holds a dict with the same key twice")
        if key is not None:
            return self._by_key(value, key)
        wide = [i for i, n in enumerate(value.arrays) if self._is_matrix(n)]
        stacks = [name for name, v in value.lists.items() if v.arrays]
        if len(wide) + len(stacks) == 1:
            return self._by_key(value, value.keys[wide[0]] if wide else stacks[0])
        if value.arrays and not stacks and self._are_vectors(value.arrays):
            return self._vectors(value.arrays, value.keys)
        if not wide and not stacks:
            self._refuse(f"holds no matrix; it has {self._show([*names, *value.others])}")
        names = [*(value.keys[i] for i in wide), *stacks]
        self._refuse(f"holds several arrays; choose one by its key: {self._show(names)}")

    def _by_key(self, value: DictValue, key: str) -> PickledMatrix | PickledVectors:
        paths = self._names_beside(value)
        if key in value.lists:
            found: PickledMatrix | PickledVectors = self._from_list(value.lists[key], None)
            n_rows = len(found.offsets) if isinstance(found, PickledVectors) else found.shape[0]
        elif key in value.keys:
            found = self._matrix(value.arrays[value.keys.index(key)], f"['{key}'] ")
            n_rows = found.shape[0]
        elif key in value.others:
            self._refuse(f"['{key}'] is no array")
        else:
            close = nearest(key, [*value.keys, *value.lists][:1000])
            self._refuse(f"has no key '{key}'; {close}")
        if paths is None or len(paths) != n_rows:
            return found
        return _with_paths(found, paths)

    def _names_beside(self, value: DictValue) -> tuple[str, ...] | None:
        """Return the list of paths that a dict holds beside its arrays."""
        for name in PATH_COLUMNS:
            beside = value.lists.get(name)
            if beside is not None and beside.words and not beside.arrays and not beside.foreign:
                return tuple(map(normalise_path, beside.words))
        return None

    def _is_matrix(self, number: int) -> bool:
        layout = self._table.layout(number)
        return len(layout.shape) == 2 and layout.shape[0] != 1

    def _are_vectors(self, numbers: array[int]) -> bool:
        """Say whether every array is a vector, or one row of a matrix."""
        layouts = self._table.layouts
        codes = np.unique(self._table.columns(numbers)[2])
        return all(_row_length(layouts[code]) is not None for code in codes)

    def _vectors(self, numbers: array[int], keys: list[str] | None) -> PickledVectors:
        """Return the rows that vectors make; refuse the first that is unlike the first of all."""
        offsets, sizes, codes = self._table.columns(numbers)
        layouts = self._table.layouts
        first = layouts[codes[0]]
        width = _row_length(first) or 0
        alike = [
            _row_length(other) == width and other.dtype == first.dtype and other.form == first.form
            for other in layouts
        ]
        odd = np.flatnonzero(~np.array(alike)[codes])
        if len(odd):
            i = int(odd[0])
            name, other = repr(keys[i]) if keys else i, layouts[codes[i]]
            self._refuse(
                f"holds vectors that differ: [{name}] has {_row_length(other)} values of type "
                f"{other.dtype} where the first has {width} of {first.dtype}"
            )
        self._check_numbers(first, "")
        if width == 0:
            self._refuse("holds vectors without values")
        paths = tuple(map(normalise_path, keys)) if keys else None
        return PickledVectors(first.dtype, width, offsets, sizes, first.form, paths)

    def _show(self, names: list[str]) -> str:
        shown = ", ".join(f"'{name}'" for name in names[:_KEYS_SHOWN])
        more = len(names) - _KEYS_SHOWN
        return (shown or "nothing") + (f" and {more:,} more" if more > 0 else "")


def _row_length(layout: Layout) -> int | None:
    """Return the length of a vector, or of the only row of a matrix."""
    if len(layout.shape) == 1:
        return layout.shape[0]
    return layout.shape[1] if len(layout.shape) == 2 and layout.shape[0] == 1 else None


def _as_list(value: ListValue | tuple[Any, ...]) -> ListValue:
    """Return a tuple as the list it could have been."""
    if isinstance(value, ListValue):
        return value
    as_list = ListValue()
    for item in value:
        if isinstance(item, ArrayValue) and item.number >= 0:
            as_list.arrays.append(item.number)
        else:
            as_list.foreign = as_list.foreign or say_value(item)
    return as_list


def _with_paths(
    found: PickledMatrix | PickledVectors, paths: tuple[str, ...]
) -> PickledMatrix | PickledVectors:
    if isinstance(found, PickledMatrix):
        return PickledMatrix(
            found.dtype, found.shape, found.fortran, found.offset, found.size, found.form, paths
        )
    return PickledVectors(
        found.dtype, found.n_features, found.offsets, found.sizes, found.form, paths
    )
