"""What can go wrong at a door, one class per exit code of the command line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

#: What the system answers where a disk, or the share of it that is granted, is full.
FULL = (errno.ENOSPC, errno.EDQUOT)


class VehclustError(Exception):
    """A failure that is told to the person in one sentence, without a traceback.

    The message says what was given, what is allowed and what to do.
    """

    exit_code = 1


class Lost(VehclustError):
    """The scheduler or all workers went away; what was finished is kept."""


class UsageError(VehclustError):
    """The job, the place or an option asks for something that does not exist."""

    exit_code = 2


class BadInput(VehclustError, ValueError):
    """A file or an array does not hold what it should (also a ValueError, as scikit-learn raises)."""

    exit_code = 3


class NotEnough(VehclustError):
    """The plan cannot fit into the memory or the disk there is."""

    exit_code = 4


class RunMissing(VehclustError):
    """There is no such run, or it does not hold what is asked of it."""

    exit_code = 5


class Conflict(VehclustError):
    """Somebody else holds what this command needs."""

    exit_code = 6


class Interrupted(VehclustError):
    """The person or the machine asked the job to stop; it can be resumed."""

    exit_code = 130


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Say which allowed word was probably meant, as the end of a sentence."""
    choices = sorted(allowed)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'? Allowed: {', '.join(choices)}"
    return f"allowed: {', '.join(choices)}"


def refused_by_system(error: OSError) -> VehclustError:
    """Return the sentence for what the system refused, and of which file."""
    file = f"{error.filename}: " if error.filename else ""
    kind = NotEnough if error.errno in FULL else VehclustError
    return kind(f"{file}{error.strerror or error}; finished work is kept, mend it and run again")
