"""The machine at hand as a place: a scheduler and workers of its own, on loopback."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import ClassVar

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import VehclustError
from vehclust_dask.place.keys import LAST_PORT, count, key, port, size, text
from vehclust_dask.place.opened import OpenPlace, close_quietly

#: What a local worker runs when it starts.
QUIET = """
import logging
for name in ("distributed.worker", "tornado.application"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
"""


@dataclass(frozen=True)
class LocalPlace:
    """The machine at hand.

    Attributes
    ----------
    workers : int or None
        Worker processes; None: one per core.
    memory_limit : int or None
        Bytes of one worker; None: an equal share of four fifths of this machine's memory.
    dashboard : int or None
        Port; the next free one is taken where it is in use. None: no dashboard.
    local_directory : str or None
        Where workers put what does not fit into memory; None: a folder ``dask`` in the work folder.
    """

    kind: ClassVar[str] = "local"
    workers: int | None = key(count)
    memory_limit: int | None = key(size)
    dashboard: int | None = key(port, 8787)
    local_directory: str | None = key(text)


def local_size(place: LocalPlace) -> tuple[int, int]:
    """Return number of workers and memory limit of a local place, bytes."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    # Both know what a container or a batch system grants, which may be less than the machine has.
    workers = place.workers or CPU_COUNT
    limit = place.memory_limit or MEMORY_LIMIT * 4 // 5 // workers
    return workers, int(limit)


def free_port(wanted: int) -> int:
    """Return the first port from ``wanted`` on that nobody listens on, on loopback."""
    for number in range(wanted, min(wanted + 200, LAST_PORT + 1)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number
    raise VehclustError(f"no port is free from {wanted} on; give another, or set dashboard: off")


def show_local(place: LocalPlace) -> str:
    """Return what a local place starts."""
    workers, limit = local_size(place)
    shown = (
        "no dashboard" if place.dashboard is None else f"a dashboard from port {place.dashboard} on"
    )
    return f"{workers} workers of {show_bytes(limit)} each on this machine, on loopback; {shown}"


@contextlib.contextmanager
def start_local(place: LocalPlace, workdir: Path) -> Iterator[OpenPlace]:
    """Start a scheduler and workers on loopback; they end with the context."""
    from distributed import Client, LocalCluster

    workers, limit = local_size(place)
    shown = None if place.dashboard is None else free_port(place.dashboard)
    scratch = Path(place.local_directory or workdir / "dask")
    scratch.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as closing:
        with _deaf_to_ctrl_c():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                memory_limit=limit,
                dashboard_address=f"127.0.0.1:{shown or 0}",
                scheduler_kwargs={"dashboard": shown is not None},
                worker_dashboard_address="127.0.0.1:0",
                local_directory=str(scratch),
                silence_logs=logging.CRITICAL,
                # An error reaches the person through the client; a worker need not print it as well.
                preload=QUIET,
            )
            closing.callback(close_quietly, cluster, 10)
        client = Client(cluster, set_as_default=True)
        closing.callback(close_quietly, client, 5)
        link = None if shown is None else f"http://127.0.0.1:{shown}/status"
        yield OpenPlace(client, cluster, link, workers, limit)


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that never see Ctrl-C: a terminal sends it to all, this one closes the others.

    Threads and processes inherit what is blocked, so also a worker that is started again later.
    """
    # It would unblock the signal in the thread that starts the first process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
