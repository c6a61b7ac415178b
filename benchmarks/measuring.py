"""What a stretch of work takes: seconds, CPU seconds, private memory, and on which libraries it ran."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Seconds between two looks at this process's memory, and at a tree of processes.
LOOK_EVERY, LOOK_AT_TREE_EVERY = 0.01, 0.2


@dataclass
class Record:
    """What one side did in one round.

    Attributes
    ----------
    seconds, cpu : float
        Of the work; imports and compiling are not in it.
    peak_mb : float
        Largest private memory (RssAnon: no pages of files) of the whole process during the work, MB.
    start_cpu, start_mb : float
        CPU seconds of imports and of making compiled kernels ready, and the memory held then.
    quality : dict
        What the answer is worth; plain values.
    libraries : list of str
        BLAS that were loaded, with their kernels.
    """

    seconds: float
    cpu: float
    peak_mb: float
    start_cpu: float
    start_mb: float
    quality: dict[str, Any] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return asdict(self)


def measured(prepare: Callable[[], Callable[[], Any]]) -> tuple[Record, Any]:
    """Make ready, then do the work; return what it took and its answer."""
    base = cpu_seconds()
    work = prepare()
    ready, held = cpu_seconds(), anonymous_bytes()
    with Peak() as peak:
        began = time.perf_counter()
        answer = work()
        seconds = time.perf_counter() - began
    cpu = cpu_seconds() - ready
    start = {"start_cpu": ready - base, "start_mb": held / 1e6}
    return Record(seconds, cpu, peak.n_bytes / 1e6, **start, libraries=libraries()), answer


def cpu_seconds() -> float:
    """Return user and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Peak:
    """Look at private memory every few milliseconds while open.

    The system keeps a high-water mark of all resident pages only, and pages of a mapped file are
    not memory that a process needs.
    """

    def __init__(self, look: Callable[[], int] | None = None, every: float = LOOK_EVERY) -> None:
        self.n_bytes = 0
        self._look = look or anonymous_bytes
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Peak:
        self._note()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._note()

    def _loop(self) -> None:
        while not self._stop.wait(self._every):
            self._note()

    def _note(self) -> None:
        self.n_bytes = max(self.n_bytes, self._look())


def anonymous_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process that belongs to no file, bytes; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def tree_bytes(pid: int) -> int:
    """Return the private memory of a process and of all below it, bytes."""
    import psutil

    total = anonymous_bytes(pid)
    with contextlib.suppress(psutil.Error):
        total += sum(anonymous_bytes(p.pid) for p in psutil.Process(pid).children(recursive=True))
    return total


@contextlib.contextmanager
def tree_peak(pid: int) -> Iterator[Peak]:
    """Watch the private memory of a process and of all below it."""
    with Peak(lambda: tree_bytes(pid), LOOK_AT_TREE_EVERY) as peak:
        yield peak


def libraries() -> list[str]:
    """Return the loaded BLAS with version and kernel, and whatever may use more than one thread."""
    from threadpoolctl import threadpool_info

    found = set()
    for pool in threadpool_info():
        owner = Path(pool["filepath"]).parent.name.removesuffix(".libs")
        words = (pool["internal_api"], pool.get("version"), pool.get("architecture"))
        name = f"{owner}: {' '.join(w for w in words if w)}"
        if pool["num_threads"] != 1:
            found.add(f"{name} ({pool['num_threads']} threads)")
        elif pool["user_api"] == "blas":
            found.add(name)
    numba = sys.modules.get("numba")
    if numba is not None and numba.config.NUMBA_NUM_THREADS != 1:
        found.add(f"numba: ({numba.config.NUMBA_NUM_THREADS} threads)")
    return sorted(found)
