"""Cut a pickle into opcodes and arguments; nothing is executed and no large payload is read.

The grammar is that of the standard library's ``pickletools``: one byte says what follows. Long
byte strings and texts are not loaded: a token says where in the file they lie.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, NoReturn

from vehclust_dask.errors import BadInput
from vehclust_dask.store.storage import Reader

#: How the bytes of a piece stand for the bytes that were meant.
IN_PLACE, UTF8, ESCAPED, QUOTED = "in place", "utf8", "escaped", "quoted"

_WINDOW = 1 << 18
#: Byte strings up to this length may be words or names and are loaded.
_WORD = 1 << 12
#: Texts up to this length are loaded, so that small encoded payloads can be measured at once.
_SHORT_TEXT = 1 << 16
#: No number written in digits, and no number in binary, needs more bytes than this.
_LONGEST_NUMBER = 255
#: The longest name of a module or of a thing in it.
_LONGEST_NAME = 1 << 10
#: Bytes of the widest fixed argument and of its opcode.
_HEAD = 9
_FRAME, _STOP = 0x95, 0x2E


class Piece:
    """Bytes that lie somewhere in the file.

    Attributes
    ----------
    offset, size : int
        Where the bytes lie, and how many.
    form : str
        How they are written: ``in place``, ``utf8`` (latin-1 characters), ``escaped`` (raw unicode
        escapes, latin-1) or ``quoted`` (escapes of Python 2's ``repr``).
    text : bool
        Whether the pickle says that this is text rather than bytes.
    raw : bytes or None
        The bytes as they lie in the file, where they are few.
    """

    __slots__ = ("form", "offset", "raw", "size", "text")

    def __init__(self, offset: int, size: int, form: str, text: bool, raw: bytes | None) -> None:
        self.offset, self.size, self.form, self.text, self.raw = offset, size, form, text, raw


#: An opcode, its argument and where it stands. A plain tuple: there may be tens of millions.
Token = tuple[int, Any, int]


class Tape:
    """A file that is looked at through a small window.

    Parameters
    ----------
    reader : Reader
        An open file.
    file : str
        Its name, for messages.
    """

    def __init__(self, reader: Reader, file: str) -> None:
        self._reader = reader
        self.file = file
        self.size = reader.about.size

    def load(self, start: int, length: int = _WINDOW) -> bytes:
        """Return a window of the file's bytes from ``start``; whole unless the file ends."""
        return self._reader.pread(length, start)

    def line_end(self, start: int) -> int:
        """Return where the next newline stands, at ``start`` or after it."""
        length = 128  # most lines are short, but a payload may be one too
        while window := self.load(start, length):
            found = window.find(b"\n")
            if found >= 0:
                return start + found
            start, length = start + len(window), _WINDOW
        self.refuse(f"is cut off: the file ends inside a line, at byte {self.size:,}")

    def refuse(self, reason: str) -> NoReturn:
        """Raise BadInput about this file."""
        raise BadInput(f"{self.file} {reason}")


# What follows an opcode: nothing, an integer of some bytes, a counted piece, or a line.
_BARE, _INTEGER, _COUNTED, _LINE, _OTHER, _LAST, _UNKNOWN = range(7)
_SHAPES: dict[int, tuple[int, int, bool, str]] = {}  # code -> (shape, width, signed or text, form)


def _declare(shape: int, codes: str, width: int = 0, flag: bool = False, form: str = "") -> None:
    for code in codes.encode("latin-1"):
        _SHAPES[code] = (shape, width, flag, form)


_declare(_BARE, ".()N]}abdelsRtu\x85\x86\x87\x88\x89\x93\x94")
_declare(_INTEGER, "Khq\x80", 1)
_declare(_INTEGER, "M", 2)
_declare(_INTEGER, "jr", 4)
_declare(_INTEGER, "J", 4, True)
_declare(_INTEGER, "\x95", 8)
_declare(_COUNTED, "UC", 1, False, IN_PLACE)
_declare(_COUNTED, "TB", 4, False, IN_PLACE)
_declare(_COUNTED, "\x8e\x96", 8, False, IN_PLACE)
_declare(_COUNTED, "\x8c", 1, True, UTF8)
_declare(_COUNTED, "X", 4, True, UTF8)
_declare(_COUNTED, "\x8d", 8, True, UTF8)
_declare(_LINE, "ILFSVpgc")
_declare(_OTHER, "G\x8a\x8b")
_ALL = bytes(range(256))

_REMEDY = "; save the matrix with numpy.save or as parquet"
#: Opcodes of real pickles that arrays do not need, and what to say of them.
REFUSED = {
    **dict.fromkeys(b"PQ", "asks for an object by a persistent id" + _REMEDY),
    **dict.fromkeys(b"io\x81\x92", "would run code: it builds an object of a class" + _REMEDY),
    **dict.fromkeys(b"\x82\x83\x84", "asks for an object of the extension registry" + _REMEDY),
    **dict.fromkeys(b"\x8f\x90\x91", "holds a set, not arrays" + _REMEDY),
    **dict.fromkeys(b"\x97\x98", "keeps its data in out-of-band buffers" + _REMEDY),
    **dict.fromkeys(b"012", "uses an opcode that arrays do not need" + _REMEDY),
}
_TABLE = [_SHAPES.get(code, (_UNKNOWN, 0, False, "")) for code in range(256)]
for _code in REFUSED:
    _TABLE[_code] = (_LAST, 0, False, "")

_INT_LINE = re.compile(rb"[+-]?[0-9]{1,250}L?")
_FLOAT_LINE = re.compile(rb"[+-]?(?:[0-9.eE+-]{1,40}|inf|nan)")


def read_tokens(tape: Tape, only: bytes = _ALL) -> Iterator[Token]:
    """Yield the tokens of a pickle, STOP included; check frames and the file's end.

    An opcode of `REFUSED` is yielded as the last token: what follows it is not looked at.

    Parameters
    ----------
    tape : Tape
    only : bytes
        Opcodes that are yielded; the others are checked all the same.

    Raises
    ------
    BadInput
        If an opcode is unknown, the file is cut off or goes on behind the end, or a frame does
        not hold whole opcodes.
    """
    size, window, base, pos, code = tape.size, b"", 0, 0, 0
    limit = size  # no token may reach beyond the frame it stands in, or beyond the file
    table, shown = _TABLE, frozenset(only)
    while code != _STOP:
        at = pos - base
        if at + _HEAD > len(window):
            window, base, at = tape.load(pos), pos, 0
        if pos >= limit or not window:
            tape.refuse(f"is cut off: the pickle does not end before byte {size:,}")
        code = window[at]
        kind, width, flag, form = table[code]
        if kind == _LAST:
            yield code, None, pos
            return
        arg: Any = None
        end = pos + 1 + width
        if kind == _INTEGER:
            arg = int.from_bytes(window[at + 1 : at + 1 + width], "little", signed=flag)
        elif kind == _COUNTED:
            length = int.from_bytes(window[at + 1 : at + 1 + width], "little")
            begin, end = end, end + length
            if code in shown and end <= limit:
                raw = None
                if length <= (_SHORT_TEXT if flag else _WORD):
                    if end - base > len(window):
                        window, base = tape.load(pos), pos
                    raw = window[begin - base : end - base]
                arg = Piece(begin, length, form, flag, raw)
        elif kind != _BARE:
            end, arg = _read_odd(tape, kind, code, pos)
        if end > limit:
            _refuse_reach(tape, pos, end, limit)
        if code == _FRAME:
            limit = _frame_limit(tape, pos, end + arg, limit)
        elif code in shown:
            yield code, arg, pos
        pos = end
        if pos == limit and code != _STOP:
            limit = size
    if pos != size:
        tape.refuse(
            f"goes on for {size - pos:,} bytes behind the end of the pickle; "
            "a file must hold one pickle"
        )


def _read_odd(tape: Tape, kind: int, code: int, pos: int) -> tuple[int, Any]:
    """Return the end and the argument of an opcode that is rare in large files."""
    if kind == _LINE:
        return _read_line(tape, code, pos)
    if kind == _OTHER:
        return _read_other(tape, code, pos)
    tape.refuse(f"is no pickle, or damaged: 0x{code:02x} at byte {pos:,} is no opcode")


def _frame_limit(tape: Tape, pos: int, end: int, limit: int) -> int:
    """Return where a frame ends; refuse one inside another or beyond the file."""
    if limit != tape.size:
        tape.refuse(f"is damaged: a frame begins inside a frame at byte {pos:,}")
    if end > tape.size:
        tape.refuse(f"is cut off: a frame reaches beyond the end at byte {pos:,}")
    return end


def _refuse_reach(tape: Tape, pos: int, end: int, limit: int) -> NoReturn:
    """Say that a token does not fit into its frame or into the file."""
    if end > tape.size:
        tape.refuse(
            f"is cut off: what begins at byte {pos:,} needs {end:,} bytes "
            f"and the file has {tape.size:,}"
        )
    tape.refuse(f"is damaged: the frame that ends at byte {limit:,} cuts an opcode in two")


def _read_line(tape: Tape, code: int, pos: int) -> tuple[int, Any]:
    """Return the end and the argument of an opcode whose argument is a line of text."""
    stop = tape.line_end(pos + 1)
    if code == 0x56:  # V: text, raw unicode escapes
        return stop + 1, _piece(tape, pos + 1, stop, ESCAPED, True)
    if code == 0x53:  # S: Python 2's str, as repr writes it
        return stop + 1, _quoted(tape, pos, stop)
    if code == 0x63:  # c: module and name
        names_end = tape.line_end(stop + 1)
        if names_end - pos > _LONGEST_NAME:
            tape.refuse(f"is no pickle, or damaged: a name at byte {pos:,} is too long")
        module, name = tape.load(pos + 1, names_end - pos - 1).split(b"\n")
        return names_end + 1, (module.decode("ascii", "replace"), name.decode("ascii", "replace"))
    if stop - pos > _LONGEST_NUMBER:
        tape.refuse(f"is no pickle, or damaged: a number at byte {pos:,} is too long")
    return stop + 1, _number(tape, code, tape.load(pos + 1, stop - pos - 1), pos)


def _number(tape: Tape, code: int, line: bytes, pos: int) -> int | bool | float:
    """Read a number written in digits."""
    line = line.strip()
    if code == 0x46 and _FLOAT_LINE.fullmatch(line):  # F
        try:
            return float(line)
        except ValueError:
            tape.refuse(f"is damaged: a number at byte {pos:,} is none")
    if code != 0x46 and _INT_LINE.fullmatch(line):
        if code == 0x49 and line in (b"00", b"01"):  # protocols 0 and 1 write booleans so
            return line == b"01"
        return int(line.rstrip(b"L"))
    tape.refuse(f"is no pickle, or damaged: a number at byte {pos:,} is none")


def _piece(tape: Tape, start: int, stop: int, form: str, text: bool) -> Piece:
    raw = tape.load(start, stop - start) if stop - start <= _SHORT_TEXT else None
    return Piece(start, stop - start, form, text, raw)


def _quoted(tape: Tape, pos: int, stop: int) -> Piece:
    first, last = tape.load(pos + 1, 1), tape.load(stop - 1, 1)
    if stop - pos < 3 or first != last or first not in (b"'", b'"'):
        tape.refuse(f"is no pickle, or damaged: a string at byte {pos:,} has no quotes")
    return _piece(tape, pos + 2, stop - 1, QUOTED, False)


def _read_other(tape: Tape, code: int, pos: int) -> tuple[int, Any]:
    """Return the end and the argument of BINFLOAT, LONG1 and LONG4."""
    head = tape.load(pos, _HEAD)
    if code == 0x47:
        end = pos + 9
        return end, struct.unpack(">d", head[1:9])[0] if len(head) == 9 else 0.0
    width = 1 if code == 0x8A else 4
    length = int.from_bytes(head[1 : 1 + width], "little")
    if length > _LONGEST_NUMBER:
        tape.refuse(f"is damaged: a number at byte {pos:,} has {length:,} bytes")
    begin = 1 + width
    digits = tape.load(pos + begin, length)
    return pos + begin + length, int.from_bytes(digits, "little", signed=True)
