"""What a pickle of arrays is made of: names it may use, values on its stack, a table of arrays."""

from __future__ import annotations

import codecs
import re
from array import array
from enum import Enum
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.store.pickle_tokens import IN_PLACE, QUOTED, UTF8, Piece


class Known(Enum):
    """The things that a pickle may name."""

    RECONSTRUCT = "numpy's _reconstruct"
    FROMBUFFER = "numpy's _frombuffer"
    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    ENCODE = "_codecs.encode"
    BYTES = "bytes"


#: What a pickle may name, as numpy 1 and 2 and Python 2 and 3 write it.
NAMES = {
    ("numpy", "ndarray"): Known.NDARRAY,
    ("numpy", "dtype"): Known.DTYPE,
    ("numpy.core.multiarray", "_reconstruct"): Known.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Known.RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): Known.FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): Known.FROMBUFFER,
    ("_codecs", "encode"): Known.ENCODE,
    ("__builtin__", "bytes"): Known.BYTES,
    ("builtins", "bytes"): Known.BYTES,
}
#: What to do about things of well-known packages that are no plain arrays.
HINTS = {
    "pandas": "a pandas object; save it with .to_parquet, or its .to_numpy()",
    "torch": "a torch tensor; save its .numpy()",
    "scipy": "a scipy object; save its .toarray()",
    "joblib": "what joblib.dump wrote; save the array with numpy.save",
    "numpy": "not plain arrays of numbers; save numpy.asarray of it",
}


class Layout(NamedTuple):
    """What arrays of one kind have in common; ``dtype`` as numpy writes it, ``form`` of a Piece."""

    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    form: str


class ArrayTable:
    """Where the numbers of every array lie: three integers each, whatever their number."""

    def __init__(self) -> None:
        self._offsets, self._sizes, self._codes = array("q"), array("q"), array("l")
        self._known: dict[Layout, int] = {}
        #: All kinds of arrays; their codes are positions here.
        self.layouts: list[Layout] = []

    def add(self, piece: Piece, layout: Layout) -> int:
        """Enter an array; return its number."""
        self._offsets.append(piece.offset)
        self._sizes.append(piece.size)
        code = self._known.setdefault(layout, len(self.layouts))
        if code == len(self.layouts):
            self.layouts.append(layout)
        self._codes.append(code)
        return len(self._offsets) - 1

    def layout(self, number: int) -> Layout:
        """Return what one array looks like."""
        return self.layouts[self._codes[number]]

    def columns(
        self, numbers: array[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return offsets, sizes in the file and codes of layouts of the arrays asked for."""
        rows = np.frombuffer(numbers, np.int64) if len(numbers) else np.empty(0, np.int64)
        offsets = np.array(self._offsets, np.int64)[rows]
        return offsets, np.array(self._sizes, np.int64)[rows], np.array(self._codes, np.int64)[rows]


class ArrayValue:
    """An array on the stack; ``number`` is its row in the table, -1 until its state is known."""

    __slots__ = ("number",)

    def __init__(self, number: int = -1) -> None:
        self.number = number


class ListValue:
    """A list: the numbers of its arrays, its strings, and the first thing that is neither."""

    __slots__ = ("arrays", "foreign", "words")

    def __init__(self) -> None:
        self.arrays: array[int] = array("q")
        self.words: list[str] = []
        self.foreign: str | None = None


class DictValue:
    """A dict: the keys of its arrays with their numbers, and its lists by key."""

    __slots__ = ("arrays", "keys", "lists", "others")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.arrays: array[int] = array("q")
        self.lists: dict[str, ListValue] = {}
        self.others: list[str] = []


class DtypeValue:
    """The type of an array; its byte order is told later than its name."""

    __slots__ = ("known",)

    def __init__(self, name: str) -> None:
        self.known = np.dtype(name)


def decode_piece(form: str, raw: bytes, final: bool = True) -> tuple[bytes, int]:
    """Return the bytes that a piece, or its beginning, stands for, and how much of it was used.

    Raises
    ------
    ValueError
        If the bytes are not written in this form.
    """
    if form == IN_PLACE:
        return raw, len(raw)
    if form == QUOTED:
        used = cast("re.Match[bytes]", _QUOTED_WHOLE.match(raw)).end()
        if final and used != len(raw):
            raise ValueError("an escape is cut off")
        return codecs.escape_decode(raw[:used])[0], used
    decode = codecs.utf_8_decode if form == UTF8 else codecs.raw_unicode_escape_decode
    text, used = decode(raw, "strict", final)
    return text.encode("latin-1"), used


#: As many whole characters and escapes as there are (an escape may be cut by the end of a chunk).
_QUOTED_WHOLE = re.compile(rb"(?:[^\\]|\\x[0-9a-fA-F]{2}|\\[\\'\"nrt])*+", re.DOTALL)


def say_dtype(name: str) -> str:
    """Name a type that is not read, for a message."""
    kinds = {"O": "objects", "V": "records", "M": "dates", "m": "durations", "c": "complex numbers"}
    return kinds.get(name[:1], f"an unusual type ('{name[:20]}')")


def say_value(value: Any) -> str:
    """Name the kind of a value for a message."""
    if value is None:
        return "None"
    if isinstance(value, bool | int | float):
        return "a number"
    kinds: dict[type[Any], str] = {
        tuple: "a tuple", ListValue: "a list", DictValue: "a dict", Piece: "text or bytes",
    }  # fmt: skip
    return kinds.get(type(value), "something else")
