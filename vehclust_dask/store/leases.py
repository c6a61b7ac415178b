"""Locks on an object store: an object with an end, renewed while its holder lives.

Only conditional writes decide who holds it: the first to create the object, or to replace the very
version that has not been renewed for `LASTS` seconds, or whose holder was a process of this very
machine that is gone. Time is the store's own. A holder that stood still for so long may find that
another took over: both then write the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from vehclust_dask.errors import Conflict
from vehclust_dask.store import storage

#: Seconds for which a lease holds, and between two renewals.
LASTS, RENEW_EVERY = 60.0, 15.0


@contextlib.contextmanager
def lease(file: Path, what: str) -> Iterator[None]:
    """Hold a lock on an object store; a holder that was killed holds it for a minute more.

    Raises
    ------
    Conflict
        If another process holds it.
    """
    name = uuid.uuid4().hex
    tag = _take(file, name, what)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(file, name, tag, stop), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        if _holder(file).get("name") == name:
            file.unlink(missing_ok=True)


def _content(name: str, count: int) -> bytes:
    record = {"name": name, "renewed": count, **_identity()}
    return json.dumps(record, sort_keys=True).encode()


def _identity() -> dict[str, object]:
    """Say which process this is, of which start of which machine."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "boot": boot,
            "began": _began("self"),
        }
    return {"pid": os.getpid(), "host": os.uname().nodename}


def _began(process: object) -> str:
    """Return when a process of this machine began: a number is given again, with another time."""
    # The name, in brackets, may hold spaces; the time is the 20th word behind it.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


def _is_gone(holder: dict[str, object]) -> bool:
    """Say whether the holder was a process of this machine that does not run any more."""
    mine = _identity()
    if "boot" not in holder or any(holder.get(key) != mine.get(key) for key in ("host", "boot")):
        return False
    try:
        return _began(holder.get("pid")) != holder.get("began")
    except OSError:
        return True


def _take(file: Path, name: str, what: str) -> str:
    """Create the object, or take over one that nobody renews; return its tag."""
    content = _content(name, 0)
    if storage.create(file, content):
        return storage.tag_of(file)
    holder = _holder(file)
    try:
        seen = storage.tag_of(file)
        age = _now(file) - storage.about(file).mtime_ns / 1e9
    except FileNotFoundError:
        age, seen = 0.0, ""
    if age > LASTS or _is_gone(holder):
        tag = storage.replace(file, content, seen)
        if tag is not None:
            return tag
    raise Conflict(
        f"{what} is being written by process {holder.get('pid', '?')} on {holder.get('host', '?')}; "
        "wait until it is done, or stop it, then run again (one that was killed is forgotten after "
        f"{LASTS:.0f} s)"
    )


def _now(file: Path) -> float:
    """Return the store's own time, seconds."""
    probe = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    storage.put(probe, b"now")
    try:
        return storage.about(probe).mtime_ns / 1e9
    finally:
        probe.unlink(missing_ok=True)


def _holder(file: Path) -> dict[str, object]:
    try:
        found = json.loads(storage.read(file))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _renew(file: Path, name: str, tag: str, stop: threading.Event) -> None:
    """Renew now and then until told to stop, or until another took over."""
    count, renewed_at = 0, time.monotonic()
    while not stop.wait(RENEW_EVERY):
        count += 1
        try:
            renewed = storage.replace(file, _content(name, count), tag)
        except Exception:  # a store that does not answer now may do so next time
            if time.monotonic() - renewed_at > LASTS:
                return
            continue
        if renewed is None:
            return
        tag, renewed_at = renewed, time.monotonic()
