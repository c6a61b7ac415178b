"""An open place: its Dask settings, its workers' code and memory, and how to reach it."""

from __future__ import annotations

import contextlib
import getpass
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vehclust_dask import budget
from vehclust_dask.errors import NotEnough
from vehclust_dask.place.code import bring_code

#: Memory a worker needs before it holds any rows: Python, numpy, numba, Dask.
WORKER_BASE_BYTES = 350 * budget.MIB
#: Share of a worker's memory limit that it may keep between tasks.
CACHE_SHARE = 4
#: A worker never keeps more than this: rows that are read again come from the system's own cache of
#: files at some GB a second, which is little beside what a pass computes with them.
MOST_KEPT = 1024 * budget.MIB


@dataclass(frozen=True)
class OpenPlace:
    """A running Dask cluster and the client of it.

    Attributes
    ----------
    client : distributed.Client
    cluster : distributed.LocalCluster or None
    dashboard : str or None
        Link to the dashboard.
    n_workers : int
    memory_limit : int
        Bytes of the smallest worker; 0 where it has no limit.
    gateway : str or None
        Machine from whose loopback the dashboard is seen, like me@node1; None: this one.
    """

    client: Any
    cluster: Any
    dashboard: str | None
    n_workers: int
    memory_limit: int
    gateway: str | None = None


#: Who tells a lost connection with a traceback; the person is told by the error that follows.
LOGGERS = ("distributed.client", "distributed.core", "distributed.utils", "tornado.application")


@contextlib.contextmanager
def quiet_driver() -> Iterator[None]:
    """Keep Dask's own tales of lost connections away from the person while a place is open."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def settings() -> dict[str, Any]:
    """Return Dask's settings for a job, here and on workers started from here."""
    from dask import config

    patience = config.get("distributed.scheduler.no-workers-timeout", None)
    return {
        "distributed.comm.retry.count": 3,
        # Else a job whose workers are all gone waits for ever.
        "distributed.scheduler.no-workers-timeout": patience or "120s",
        "distributed.admin.large-graph-warning-threshold": "100MB",
        # A worker's cache counts as its memory; spilling what Dask holds would not make it smaller.
        "distributed.worker.memory.spill": False,
        # dask-ml divides by zero on its way to right results and says so on every worker.
        "distributed.nanny.pre-spawn-environ.PYTHONWARNINGS": "ignore::RuntimeWarning",
        # The nanny's default gives every freed array back to the system at once; products of tiles
        # then spend half their time in page faults. Keep what a task uses over and over.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 * budget.MIB,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 64 * budget.MIB,
        "distributed.worker.memory.pause": 0.9,
        "distributed.worker.memory.terminate": 0.97,
    }


def cache_bytes(memory_limit: int, per_task: int) -> int:
    """Return what a worker may keep between tasks: a share of its limit, beside one task and its base."""
    spare = memory_limit - per_task - WORKER_BASE_BYTES
    return max(64 * budget.MIB, min(memory_limit // CACHE_SHARE, spare, MOST_KEPT))


def close_quietly(opened: Any, timeout: int) -> None:
    """Close a cluster or a client that may be gone already."""
    with contextlib.suppress(OSError, TimeoutError):
        opened.close(timeout=timeout)


def check_versions(client: Any) -> None:
    """Refuse workers that do not have our code, or another version of it or of what it stands on."""
    bring_code(client, "installed")


def look_around(
    client: Any, cluster: Any, code: str, dashboard: str | None, gateway: str | None = None
) -> OpenPlace:
    """Bring our code to the workers that have come; return the open place with what they have."""
    bring_code(client, code)
    infos = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [int(w["memory_limit"] or 0) for w in infos]
    return OpenPlace(client, cluster, dashboard, len(limits), min(limits), gateway)


def prepare_workers(opened: OpenPlace, per_task: int) -> None:
    """Give every worker, also one that comes later, its cache; a worker too small is refused."""
    from vehclust_dask.tasks import PrepareWorker

    limit = opened.memory_limit
    if limit and limit < per_task + WORKER_BASE_BYTES:
        raise NotEnough(
            f"a worker has {budget.show_bytes(limit)}, but a task may take "
            f"{budget.show_bytes(per_task)} beside {budget.show_bytes(WORKER_BASE_BYTES)} for the "
            "process itself; raise memory_limit, start fewer workers, or lower the job's memory.per_task"
        )
    kept = cache_bytes(limit, per_task) if limit else MOST_KEPT // 2
    opened.client.register_plugin(PrepareWorker(kept))


def tunnel_line(link: str, gateway: str | None = None) -> str:
    """Return the command that shows a dashboard on another machine's browser."""
    parts = urlsplit(link)
    host = gateway or f"{getpass.getuser()}@{socket.gethostname()}"
    return f"ssh -L {parts.port}:{parts.hostname}:{parts.port} {host}"
