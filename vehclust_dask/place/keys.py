"""Keys of a place file: what each may hold, told in one sentence where it holds something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

from vehclust_dask import budget
from vehclust_dask.errors import UsageError

LAST_PORT = 65535
#: Turns what a file says of a key into its value; a ValueError says what is needed instead.
Reader = Callable[[Any], Any]
#: Words for "let the machine decide", which is the default of every key.
AUTO = ("auto", None)


def key(reader: Reader, default: Any = None) -> Any:
    """Return a field of a place that a file may set."""
    return field(default=default, metadata={"reader": reader})


def read_key(name: str, reader: Reader, value: Any, label: str) -> Any:
    """Read the value of a key.

    Raises
    ------
    UsageError
        With the file, the key, what it holds and what it may hold.
    """
    try:
        return reader(value)
    except ValueError as error:
        raise UsageError(f"{label}: {name}: {error}") from None


def count(value: Any) -> int:
    """Read a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r}: a whole number of at least 1, or auto, is needed")
    return value


def port(value: Any) -> int | None:
    """Read a port, or ``off``."""
    if value in (False, "off"):
        return None
    number = count(value)
    if number > LAST_PORT:
        raise ValueError(f"{number}: a port is at most {LAST_PORT}")
    return number


def ports(value: Any) -> str:
    """Read a range of ports, like 9000:9100."""
    first, colon, last = str(value).partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise ValueError(f"{value!r}: a range of ports is needed; write it like '9000:9100'")
    port(int(last))
    return str(value)


def size(value: Any) -> int:
    """Read bytes, written like 1GiB."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r}: a size is needed; write it like 1GiB")
    return budget.parse_bytes(value)


def duration(value: Any) -> int:
    """Read a stretch of time as Slurm writes it, "HH:MM:SS" or "D-HH:MM:SS"; return seconds."""
    # YAML reads 1:00:00 without quotes as a number of seconds, Slurm reads a number as minutes.
    found = re.fullmatch(r"(?:(\d+)-)?(\d{1,2}):([0-5]\d):([0-5]\d)", str(value))
    if not isinstance(value, str) or found is None:
        raise ValueError(f'{value!r}: a time is needed; write it like "01:30:00" or "2-00:00:00"')
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    whole = 86400 * days + 3600 * hours + 60 * minutes + seconds
    if not whole:
        raise ValueError(f"{value!r}: a time above zero is needed")
    return whole


def text(value: Any) -> str:
    """Read words."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r}: str is needed")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Read a list of words."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r}: a list of words is needed")
    return tuple(value)


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r}: bool is needed")
    return value
