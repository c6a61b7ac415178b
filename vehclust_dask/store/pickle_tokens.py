"""Cut a pickle into opcodes and arguments; nothing is executed and no large payload is read.

The grammar is that of the standard library's ``pickletools``: one byte says what follows. Long
byte strings and texts are not loaded: a token says where in the file they lie.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from vehclust_dask.errors import BadInput

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


class Token(NamedTuple):
    """An opcode, its argument and where it stands."""

    code: int
    arg: Any
    at: int


class Tape:
    """A file that is looked at through a small window.

    Parameters
    ----------
    descriptor : int
        An open file.
    file : str
        Its name, for messages.
    """

    def __init__(self, descriptor: int, file: str) -> None:
        self._descriptor = descriptor
        self.file = file
        self.size = os.fstat(descriptor).st_size

    def load(self, start: int) -> bytes:
        """Return a window of the file's bytes from ``start``; whole unless the file ends."""
        return os.pread(self._descriptor, _WINDOW, start)

    def line_end(self, start: int) -> int:
        """Return where the next newline stands, at ``start`` or after it."""
        while window := self.load(start):
            found = window.find(b"\n")
            if found >= 0:
                return start + found
            start += len(window)
        self.refuse(f"is cut off: the file ends inside a line, at byte {self.size:,}")

    def refuse(self, reason: str) -> NoReturn:
        """Raise BadInput about this file."""
        raise BadInput(f"{self.file} {reason}")


# What follows an opcode: nothing, an integer of some bytes, a counted piece, or a line.
_BARE, _INTEGER, _COUNTED, _LINE, _OTHER = range(5)
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
_TABLE = [_SHAPES.get(code) for code in range(256)]

_REFUSED = {
    ord("P"): "asks for an object by a persistent id",
    ord("Q"): "asks for an object by a persistent id",
    ord("i"): "would run code: it builds an object of a class",
    ord("o"): "would run code: it builds an object of a class",
    0x81: "would run code: it builds an object of a class",
    0x92: "would run code: it builds an object of a class",
    0x82: "asks for an object of the extension registry",
    0x83: "asks for an object of the extension registry",
    0x84: "asks for an object of the extension registry",
    0x8F: "holds a set, not arrays",
    0x90: "holds a set, not arrays",
    0x91: "holds a set, not arrays",
    0x97: "keeps its data in out-of-band buffers, which are not in the file",
    0x98: "keeps its data in out-of-band buffers, which are not in the file",
    ord("0"): "uses an opcode that arrays do not need (POP)",
    ord("1"): "uses an opcode that arrays do not need (POP_MARK)",
    ord("2"): "uses an opcode that arrays do not need (DUP)",
}
_REMEDY = "; save the matrix with numpy.save or as parquet"

_INT_LINE = re.compile(rb"[+-]?[0-9]{1,250}L?")
_FLOAT_LINE = re.compile(rb"[+-]?(?:[0-9.eE+-]{1,40}|inf|nan)")


def read_tokens(tape: Tape) -> Iterator[Token]:
    """Yield the tokens of a pickle, STOP included; check frames and the file's end.

    Raises
    ------
    BadInput
        If an opcode is unknown or refused, the file is cut off or goes on behind the end, or a
        frame does not hold whole opcodes.
    """
    size, window, base, pos = tape.size, b"", 0, 0
    limit = size  # no token may reach beyond the frame it stands in, or beyond the file
    while True:
        at = pos - base
        if at + _HEAD > len(window):
            window, base, at = tape.load(pos), pos, 0
        if pos >= limit or not window:
            tape.refuse(f"is cut off: the pickle does not end before byte {size:,}")
        code = window[at]
        shape = _TABLE[code]
        if shape is None:
            _refuse_opcode(tape, code, pos)
        kind, width, flag, form = shape
        if kind == _BARE:
            end, arg = pos + 1, None
        elif kind == _INTEGER:
            end = pos + 1 + width
            arg = int.from_bytes(window[at + 1 : at + 1 + width], "little", signed=flag)
        elif kind == _COUNTED:
            begin = pos + 1 + width
            length = int.from_bytes(window[at + 1 : at + 1 + width], "little")
            end = begin + length
            if begin > limit or end > limit:
                _refuse_reach(tape, pos, end, limit)
            raw = None
            if length <= (_SHORT_TEXT if flag else _WORD):
                if begin + length - base > len(window):
                    window, base = tape.load(pos), pos
                raw = window[begin - base : end - base]
            arg = Piece(begin, length, form, flag, raw)
        elif kind == _LINE:
            end, arg = _read_line(tape, code, pos)
        else:
            end, arg = _read_other(tape, code, pos, window[at : at + _HEAD])
        if end > limit:
            _refuse_reach(tape, pos, end, limit)
        if code == 0x95:
            if limit != size:
                tape.refuse(f"is damaged: a frame begins inside a frame at byte {pos:,}")
            limit = end + int(arg or 0)
            if limit > size:
                tape.refuse(f"is cut off or damaged: a frame reaches beyond the end at byte {pos:,}")
        else:
            yield Token(code, arg, pos)
        pos = end
        if code == 0x2E:
            _check_end(tape, pos, limit)
            return
        if pos == limit:
            limit = size


def _check_end(tape: Tape, pos: int, limit: int) -> None:
    """Refuse bytes behind the end of the pickle, and a frame that was not filled."""
    if limit != tape.size and pos != limit:
        tape.refuse(f"is damaged: its last frame holds {limit - pos:,} bytes too many")
    if pos != tape.size:
        tape.refuse(
            f"goes on for {tape.size - pos:,} bytes behind the end of the pickle; "
            "a file must hold one pickle"
        )


def _refuse_opcode(tape: Tape, code: int, pos: int) -> NoReturn:
    """Say why an opcode is not walked."""
    if code in _REFUSED:
        tape.refuse(_REFUSED[code] + _REMEDY)
    tape.refuse(f"is no pickle, or damaged: 0x{code:02x} at byte {pos:,} is no opcode")


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
        module, name = tape.load(pos + 1)[: names_end - pos - 1].split(b"\n")
        return names_end + 1, (module.decode("ascii", "replace"), name.decode("ascii", "replace"))
    if stop - pos > _LONGEST_NUMBER:
        tape.refuse(f"is no pickle, or damaged: a number at byte {pos:,} is too long")
    return stop + 1, _number(tape, code, tape.load(pos + 1)[: stop - pos - 1], pos)


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
    raw = tape.load(start)[: stop - start] if stop - start <= _SHORT_TEXT else None
    return Piece(start, stop - start, form, text, raw)


def _quoted(tape: Tape, pos: int, stop: int) -> Piece:
    first, last = tape.load(pos + 1)[:1], tape.load(stop - 1)[:1]
    if stop - pos < 3 or first != last or first not in (b"'", b'"'):
        tape.refuse(f"is no pickle, or damaged: a string at byte {pos:,} has no quotes")
    return _piece(tape, pos + 2, stop - 1, QUOTED, False)


def _read_other(tape: Tape, code: int, pos: int, head: bytes) -> tuple[int, Any]:
    """Return the end and the argument of BINFLOAT, LONG1 and LONG4."""
    if code == 0x47:
        end = pos + 9
        return end, struct.unpack(">d", head[1:9])[0] if len(head) == 9 else 0.0
    width = 1 if code == 0x8A else 4
    length = int.from_bytes(head[1 : 1 + width], "little")
    if length > _LONGEST_NUMBER:
        tape.refuse(f"is damaged: a number at byte {pos:,} has {length:,} bytes")
    begin = 1 + width
    digits = tape.load(pos)[begin : begin + length]
    return pos + begin + length, int.from_bytes(digits, "little", signed=True)
