"""Time and memory of a job: the summed private memory of all its processes, sampled while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

#: Seconds between two looks.
INTERVAL = 0.2


@dataclass
class Measure:
    """What a stretch of work took.

    Attributes
    ----------
    seconds : float
        Wall clock.
    peak_bytes : int
        Largest sum of private memory seen: driver, scheduler, nannies and local workers.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


class Watch:
    """Look at this process and its children now and then, for as long as it is open."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._open: list[Measure] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def measure(self) -> Iterator[Measure]:
        """Measure what happens inside; measures may be nested."""
        one = Measure()
        began = time.perf_counter()
        with self._lock:
            self._open.append(one)
        try:
            yield one
        finally:
            self._look()
            one.seconds = time.perf_counter() - began
            with self._lock:
                self._open.remove(one)

    def _loop(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        held = private_bytes()
        with self._lock:
            for one in self._open:
                one.peak_bytes = max(one.peak_bytes, held)


def private_bytes() -> int:
    """Return the private memory of this process and all below it, bytes.

    Resident less shared pages: asking the system to walk through every page instead, for the very
    last bytes, would take a fifth of a core.
    """
    import psutil

    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_info()
            total += int(memory.rss - getattr(memory, "shared", 0))
    return total
