"""Walk a pickle on paper: a small machine that knows plain numpy arrays and runs nothing.

The machine keeps a stack, marks and a memo like the one that loads pickles, but a call is only
recognised, never made. What comes out is a table that says where the numbers of each array lie.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn, cast

from vehclust_dask.store.pickle_tokens import (
    ESCAPED,
    IN_PLACE,
    REFUSED,
    UTF8,
    Piece,
    Tape,
    Token,
    read_tokens,
)
from vehclust_dask.store.pickle_values import (
    HINTS,
    NAMES,
    ArrayTable,
    ArrayValue,
    DictValue,
    DtypeValue,
    Known,
    Layout,
    ListValue,
    decode_piece,
    say_dtype,
    say_value,
)

#: Marks inside marks: arrays in a list in a dict need three.
_MAX_DEPTH = 32
#: Values on the stack, and memo entries that are read again: honest picklers stay far below.
_MAX_STACK = 1 << 21
_MAX_DIMENSIONS = 32
_CHECK_EVERY = 1 << 16

_DTYPE_NAME = re.compile(r"b1|f[248]|[iu][1248]|[SU][0-9]{1,6}")
_GETS, _PUTS = b"hjg", b"qrp"


class Machine:
    """The machine; use `walk`.

    Parameters
    ----------
    tape : Tape
        The file.
    wanted : set of int
        Memo entries that are read again; the others are not kept.
    """

    def __init__(self, tape: Tape, wanted: set[int]) -> None:
        self.tape = tape
        self.table = ArrayTable()
        self._wanted = wanted
        self._memo: dict[int, Any] = {}
        self._memoized = 0
        self._numbered = False
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._handlers = self._make_handlers()
        self._calls: dict[Known, Callable[[tuple[Any, ...]], Any]] = {
            Known.RECONSTRUCT: self._call_reconstruct,
            Known.FROMBUFFER: self._call_frombuffer,
            Known.DTYPE: self._call_dtype,
            Known.ENCODE: self._call_encode,
            Known.BYTES: self._call_bytes,
        }

    def run(self, tokens: Iterator[Token]) -> Any:
        """Walk all tokens; return the value on top."""
        handlers, at, due = self._handlers, 0, 0
        try:
            for code, arg, at in tokens:
                if at > due:
                    self._check_size()
                    due = at + _CHECK_EVERY
                handlers[code](arg)
        except IndexError:
            self.tape.refuse(f"is no pickle, or damaged: nothing to take at byte {at:,}")
        if len(self._stack) != 1 or self._marks:
            self.tape.refuse(f"is damaged: values are left over at byte {at:,}")
        return self._stack[0]

    def _make_handlers(self) -> dict[int, Callable[[Any], None]]:
        table: dict[str, Callable[[Any], None]] = {
            "\x80": self._proto, ".": lambda _: None, "(": self._mark, "N": self._push,
            "\x88": lambda _: self._stack.append(True),
            "\x89": lambda _: self._stack.append(False),
            "c": lambda names: self._name(*names), "\x93": self._stack_name,
            "R": self._reduce, "b": self._build, "\x94": self._memoize,
            ")": lambda _: self._push(()), "t": lambda _: self._push(tuple(self._pop_mark())),
            "\x85": lambda _: self._tuple(1), "\x86": lambda _: self._tuple(2),
            "\x87": lambda _: self._tuple(3),
            "]": lambda _: self._push(ListValue()), "}": lambda _: self._push(DictValue()),
            "l": self._list, "d": self._dict, "a": self._append, "e": self._appends,
            "s": self._set_item, "u": self._set_items,
        }  # fmt: skip
        table |= dict.fromkeys("KMJIL\x8a\x8bGFUTSCB\x8e\x96\x8cX\x8dV", self._push)
        table |= dict.fromkeys(_PUTS.decode(), self._put)
        table |= dict.fromkeys(_GETS.decode(), self._get)
        handlers = {ord(code): handler for code, handler in table.items()}
        for code, reason in REFUSED.items():
            handlers[code] = partial(self._refuse_last, reason)
        return handlers

    def _refuse_last(self, reason: str, _: Any) -> NoReturn:
        self._refuse(reason)

    def _refuse(self, reason: str) -> NoReturn:
        self.tape.refuse(reason)

    def _check_size(self) -> None:
        if len(self._stack) + sum(map(len, self._marks)) > _MAX_STACK:
            self._refuse("holds millions of loose values instead of arrays; save one matrix")

    # Stack, marks and memo.

    def _proto(self, version: int) -> None:
        if self._stack or self._marks or version > 5:
            self._refuse(f"is no pickle, or damaged: protocol {version} is not known here")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        if len(self._marks) >= _MAX_DEPTH:
            self._refuse("is nested deeper than arrays in lists and dicts need")
        self._marks.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _tuple(self, n: int) -> None:
        if len(self._stack) < n:
            raise IndexError(n)
        self._stack[-n:] = [tuple(self._stack[-n:])]

    def _put(self, index: int) -> None:
        if self._memoized:
            self._refuse("is damaged: it numbers its values in two ways")
        self._numbered = True
        value = self._stack[-1]
        if index in self._wanted:
            self._memo[index] = value

    def _memoize(self, _: Any) -> None:
        if self._numbered:
            self._refuse("is damaged: it numbers its values in two ways")
        value = self._stack[-1]
        if self._memoized in self._wanted:
            self._memo[self._memoized] = value
        self._memoized += 1

    def _get(self, index: int) -> None:
        if index not in self._memo:
            self._refuse(f"is damaged: it takes up value {index:,}, which it did not lay down")
        self._stack.append(self._memo[index])

    # Words and names.

    def _word(self, value: Any) -> str | None:
        """Return a short text, or None."""
        if not isinstance(value, Piece) or value.raw is None:
            return None
        try:
            if value.form == UTF8:
                return value.raw.decode("utf-8", "surrogatepass")
            if value.form == ESCAPED:
                return codecs.raw_unicode_escape_decode(value.raw, "strict", True)[0]
            return decode_piece(value.form, value.raw)[0].decode("utf-8")
        except ValueError:
            return None

    def _name(self, module: str, name: str) -> None:
        known = NAMES.get((module, name))
        if known is None:
            package = module.split(".")[0]
            what = f"{module}.{name}"
            if package in HINTS:
                self._refuse(f"holds {what}: {HINTS[package]}")
            self._refuse(
                f"would run code: {what}; only plain numpy arrays are read from a pickle, "
                "save the matrix with numpy.save"
            )
        self._stack.append(known)

    def _stack_name(self, _: Any) -> None:
        name, module = self._word(self._stack.pop()), self._word(self._stack.pop())
        if name is None or module is None:
            self._refuse("is damaged: a name is no text")
        self._name(module, name)

    # Calls that are recognised.

    def _reduce(self, _: Any) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Known) or not isinstance(args, tuple):
            self._refuse("would run code: it calls something that is no function of numpy")
        call = self._calls.get(function)
        if call is None:
            self._refuse(f"would run code: it calls {function.value}")
        self._stack.append(call(args))

    def _call_reconstruct(self, args: tuple[Any, ...]) -> ArrayValue:
        if len(args) != 3 or args[0] is not Known.NDARRAY or args[1] != (0,):
            self._refuse("is damaged: an array is begun with unusual arguments")
        return ArrayValue()

    def _call_dtype(self, args: tuple[Any, ...]) -> DtypeValue:
        name = self._word(args[0]) if args else None
        if name is None or len(args) > 3 or any(type(a) not in (bool, int) for a in args[1:]):
            self._refuse("is damaged: the type of an array has unusual arguments")
        if not _DTYPE_NAME.fullmatch(name):
            self._refuse(f"holds an array of {say_dtype(name)}; descriptors are plain numbers")
        return DtypeValue(name)

    def _call_encode(self, args: tuple[Any, ...]) -> Piece:
        if len(args) != 2 or not isinstance(args[0], Piece) or not args[0].text:
            self._refuse("would run code: it encodes what is no text")
        encoding = self._word(args[1])
        if encoding not in ("latin1", "latin-1"):
            self._refuse("is damaged: bytes are written in another encoding than latin1")
        text = args[0]
        return Piece(text.offset, text.size, text.form, False, text.raw)

    def _call_bytes(self, args: tuple[Any, ...]) -> Piece:
        if args:
            self._refuse("would run code: it calls bytes with arguments")
        return Piece(0, 0, IN_PLACE, False, b"")

    def _call_frombuffer(self, args: tuple[Any, ...]) -> ArrayValue:
        if len(args) not in (4, 5) or (order := self._word(args[3])) not in ("C", "F"):
            self._refuse("holds an array whose axes are in an unusual order; save a C-ordered copy")
        return ArrayValue(self._enter(args[2], args[1], order == "F", args[0]))

    # States that are filled in.

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if not isinstance(state, tuple):
            self._refuse("would run code: it sets the state of an object")
        if isinstance(target, DtypeValue):
            self._build_dtype(target, state)
        elif isinstance(target, ArrayValue):
            if len(state) != 5 or state[0] != 1 or target.number >= 0:
                self._refuse("is damaged: an array has an unusual state")
            _, shape, dtype, fortran, payload = state
            if type(fortran) not in (bool, int):
                self._refuse("is damaged: an array has an unusual state")
            target.number = self._enter(shape, dtype, bool(fortran), payload)
        else:
            self._refuse("would run code: it sets the state of an object that is no array")

    def _build_dtype(self, dtype: DtypeValue, state: tuple[Any, ...]) -> None:
        order = self._word(state[1]) if len(state) == 8 else None
        plain = len(state) == 8 and state[0] in (3, 4) and state[2:5] == (None, None, None)
        if not plain or order not in ("<", ">", "|", "="):
            self._refuse("holds a structured array or a type with extras; save plain numbers")
        dtype.known = dtype.known.newbyteorder(cast(Any, order))

    def _enter(self, shape: Any, dtype: Any, fortran: bool, payload: Any) -> int:
        """Check an array's parts against each other; enter it into the table."""
        if not isinstance(dtype, DtypeValue) or not isinstance(payload, Piece) or payload.text:
            self._refuse("is damaged: an array has no plain type or no bytes")
        if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
            self._refuse("is damaged: an array has no shape")
        if any(type(n) is not int for n in shape) or any(not 0 <= n < 1 << 63 for n in shape):
            self._refuse("is damaged: an array has a shape that is not made of counts")
        expected = math.prod(shape) * dtype.known.itemsize
        self._check_length(payload, expected, shape, dtype.known.str)
        return self.table.add(payload, Layout(dtype.known.str, shape, fortran, payload.form))

    def _check_length(self, payload: Piece, expected: int, shape: Any, dtype: str) -> None:
        """Compare the bytes there are with the bytes a shape needs.

        A long encoded payload is only bounded here; it is measured when it is opened.
        """
        low = high = payload.size
        if payload.form != IN_PLACE:
            low, high = payload.size // (2 if payload.form == UTF8 else 10), payload.size
            if payload.raw is not None:
                try:
                    low = high = len(decode_piece(payload.form, payload.raw)[0])
                except ValueError:
                    self._refuse("is damaged: the bytes of an array are not latin-1 text")
        if not low <= expected <= high:
            self._refuse(
                f"is damaged: an array of shape {shape} and type {dtype} needs {expected:,} bytes, "
                f"the file holds {payload.size:,} for it"
            )

    # Lists and dicts.

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self._stack[-1], kind):
            self._refuse("would run code: it fills an object that is no list or dict")
        return self._stack[-1]

    def _fill_list(self, target: ListValue, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, ArrayValue):
                target.arrays.append(self._finished(item))
            elif (word := self._word(item)) is not None:
                target.words.append(word)
            elif target.foreign is None:
                target.foreign = say_value(item)

    def _finished(self, item: ArrayValue) -> int:
        if item.number < 0:
            self._refuse("is damaged: an array is used before it has numbers")
        return item.number

    def _fill_dict(self, target: DictValue, items: list[Any]) -> None:
        if len(items) % 2:
            self._refuse("is damaged: a dict has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            word = str(key) if type(key) is int else self._word(key)
            if word is None:
                self._refuse(f"has a dict with {say_value(key)} as a key; keys must be text")
            if isinstance(value, ArrayValue):
                target.keys.append(word)
                target.arrays.append(self._finished(value))
            elif isinstance(value, ListValue):
                target.lists[word] = value
            else:
                target.others.append(word)

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._fill_list(self._top(ListValue), [item])

    def _appends(self, _: Any) -> None:
        items = self._pop_mark()
        self._fill_list(self._top(ListValue), items)

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill_dict(self._top(DictValue), [key, value])

    def _set_items(self, _: Any) -> None:
        items = self._pop_mark()
        self._fill_dict(self._top(DictValue), items)

    def _list(self, _: Any) -> None:
        value, items = ListValue(), self._pop_mark()
        self._fill_list(value, items)
        self._stack.append(value)

    def _dict(self, _: Any) -> None:
        value, items = DictValue(), self._pop_mark()
        self._fill_dict(value, items)
        self._stack.append(value)


def walk(tape: Tape) -> tuple[Any, ArrayTable]:
    """Walk a pickle twice: first for the memo entries that are read again, then for its values.

    Only those entries are kept, so that millions of small arrays do not stay behind as objects.

    Returns
    -------
    value : ArrayValue, ListValue, DictValue or anything else
        What the pickle holds.
    table : ArrayTable
        Where its arrays lie.

    Raises
    ------
    BadInput
        If the pickle is damaged or holds anything but arrays, lists, dicts, numbers and text.
    """
    wanted: set[int] = set()
    for _, arg, _ in read_tokens(tape, _GETS):
        wanted.add(arg)
        if len(wanted) > _MAX_STACK:
            tape.refuse("refers to millions of its own values; save one matrix")
    machine = Machine(tape, wanted)
    return machine.run(read_tokens(tape)), machine.table
