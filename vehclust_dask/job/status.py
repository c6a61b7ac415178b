"""Where every job of a work folder stands: a small record each, kept up to date by its driver.

Whoever sees the work folder can read it, without the scheduler, from any machine and at any time. A driver
that was killed cannot say so: its record is old, and its process or its job in the queue is gone.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vehclust_dask.errors import (
    Interrupted,
    RunMissing,
    VehclustError,
    nearest,
    refused_by_system,
)
from vehclust_dask.job.telling import Teller
from vehclust_dask.place import OpenPlace, tunnel_line
from vehclust_dask.place.slurm import queue_states
from vehclust_dask.store.folders import read_json, write_json
from vehclust_dask.store.storage import is_url

#: Seconds between two notes of a driver.
NOTE_EVERY = 2.0
#: Seconds without a note after which a driver is looked for, and after which one that cannot be looked
#: for counts as lost: clocks of two machines may differ, and a storage may be slow.
SILENT, LOST = 15.0, 120.0
#: What a person does about a driver that is gone.
AGAIN = "run it again, it goes on"
FOLDER = "status"


def status_file(workdir: Path, job: str) -> Path:
    """Return where the record of a job lies."""
    return workdir / FOLDER / f"{job}.json"


def write_status(workdir: Path, record: dict[str, Any]) -> None:
    """Write the record of a job; others may read it, none but its owner may write it."""
    file = status_file(workdir, record["job"])
    write_json(file, record)
    if not is_url(file):
        file.chmod(file.stat().st_mode & 0o644)


def now() -> str:
    """Return the time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def first_record(job: str, state: str, **facts: Any) -> dict[str, Any]:
    """Return the record of a job that begins, every key of it."""
    later = ("host", "pid", "slurm_job", "run", "workers", "dashboard", "tunnel")
    known = {
        "schema": "vehclust-status",
        "schema_version": 1,
        "job": job,
        "command": "run",
        "state": state,
        "user": getpass.getuser(),
        "began": now(),
        "heartbeat": now(),
        "step": None,
        "done": 0,
        "total": 0,
        "rate": None,
        "seconds_left": None,
        "words": None,
        "ended": None,
        "error": None,
        "exit_code": None,
    }
    return dict.fromkeys(later) | known | facts


class Report:
    """The record of a job under way; it is written now and then and at every change.

    Parameters
    ----------
    workdir : Path
    job, command : str
    teller : Teller
        Who hears how far the steps are.
    """

    def __init__(self, workdir: Path, job: str, command: str, teller: Teller) -> None:
        self._workdir = workdir
        self._teller = teller
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._facts = first_record(
            job,
            "running",
            command=command,
            host=socket.gethostname(),
            pid=os.getpid(),
            slurm_job=os.environ.get("SLURM_JOB_ID"),
        )
        self._thread = threading.Thread(target=self._loop, name="status", daemon=True)

    def start(self) -> None:
        """Write the first record, then one now and then."""
        self.note()
        self._thread.start()

    def opened(self, place: OpenPlace) -> None:
        """Note the place where the job is computed."""
        link = place.dashboard
        tunnel = tunnel_line(link) if link else None
        self.note(workers=place.n_workers, dashboard=link, tunnel=tunnel)

    def note(self, **facts: Any) -> None:
        """Note facts; a storage that refuses them does not stop the job."""
        with self._lock, contextlib.suppress(OSError):
            self._facts |= facts
            write_status(
                self._workdir, self._facts | self._teller.standing() | {"heartbeat": now()}
            )

    def end(self, state: str, **facts: Any) -> None:
        """Write the last record."""
        self._stop.set()
        self._thread.join()
        self.note(state=state, ended=now(), dashboard=None, tunnel=None, **facts)

    def _loop(self) -> None:
        while not self._stop.wait(NOTE_EVERY):
            self.note()


@contextlib.contextmanager
def reporting(workdir: Path, job: str, command: str, teller: Teller) -> Iterator[Report]:
    """Keep the record of a job while the context is open; its end, also a bad one, is the last word."""
    report = Report(workdir, job, command, teller)
    report.start()
    try:
        yield report
    except Interrupted as stop:
        report.end("stopped", error=_sentence(stop), exit_code=stop.exit_code)
        raise
    except Exception as error:
        told = refused_by_system(error) if isinstance(error, OSError) else error
        code = told.exit_code if isinstance(told, VehclustError) else 1
        report.end("failed", error=_sentence(error), exit_code=code)
        raise
    except BaseException as stop:
        report.end("stopped", error=f"stopped by {str(stop) or type(stop).__name__}", exit_code=130)
        raise
    report.end("finished", exit_code=0)


def _sentence(error: Exception) -> str:
    """Return what an error says in one line, without a password that a URL may hold."""
    said = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, VehclustError):
        said = f"{type(error).__name__}: {said}"
    return re.sub(r"://[^/\s@]*@", "://", said)[:1000]


def read_status(workdir: Path, name: str | None = None) -> list[dict[str, Any]]:
    """Return the records of a work folder, the newest first, as they stand now.

    Parameters
    ----------
    workdir : Path
    name : str or None
        A job, or a run or how it begins; None: all jobs.

    Raises
    ------
    RunMissing
        If there is no such job.
    """
    records = [_read(file) for file in sorted((workdir / FOLDER).glob("*.json"))]
    found = [one for one in records if one is not None]
    if name is not None:
        jobs = [one for one in found if one["job"] == name]
        chosen = jobs or [one for one in found if str(one["run"] or "").startswith(name)]
        if not chosen:
            known = [one["job"] for one in found]
            hint = nearest(name, known) if known else "no job has run there"
            raise RunMissing(f"no job or run '{name}' in {workdir}; {hint}")
        found = chosen
    queues: dict[str, dict[str, tuple[str, str]] | None] = {}
    for one in found:
        _bring_up_to_date(one, queues)
    return sorted(found, key=lambda one: str(one["began"]), reverse=True)


def _read(file: Path) -> dict[str, Any] | None:
    """Read a record; one that goes away or is none is left out."""
    try:
        record = read_json(file)
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and record.get("schema") == "vehclust-status"
    return record if whole else None


def _bring_up_to_date(
    record: dict[str, Any], queues: dict[str, dict[str, tuple[str, str]] | None]
) -> None:
    """Say of a record what its driver could not: that it waits in the queue, that it is gone."""
    record["silent_seconds"] = _since(record["heartbeat"])
    record["queue"] = None
    if record["state"] in ("finished", "failed"):
        return
    queue = None
    if record["slurm_job"] and shutil.which("squeue"):
        user = record["user"]
        if user not in queues:
            queues[user] = queue_states(user)
        queue = queues[user]
    waits = (queue or {}).get(str(record["slurm_job"]))
    if waits is not None:
        record["queue"] = f"{waits[0]} ({waits[1]})" if waits[0] == "PENDING" else waits[0]
    if waits is not None and waits[0] == "PENDING":
        record["state"] = "queued"
    elif record["state"] == "queued":
        if waits is not None:
            record["state"] = "running"
        elif queue is not None and record["silent_seconds"] > SILENT:
            record["state"] = "lost"
    elif record["state"] == "running" and _gone(record, queue is not None, waits is not None):
        record["state"] = "lost"


def _gone(record: dict[str, Any], asked: bool, queued: bool) -> bool:
    """Say whether a driver that has been silent is gone."""
    silent = record["silent_seconds"]
    if silent <= SILENT:
        return False
    if record["host"] == socket.gethostname():
        return not _runs(record["pid"], record["heartbeat"])
    if asked:
        return not queued
    return bool(silent > LOST)


def _runs(pid: int, heartbeat: str) -> bool:
    """Say whether a process of this machine is the one that wrote a record, not a later one of its number."""
    import psutil

    try:
        began = psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    return began <= datetime.fromisoformat(heartbeat).timestamp() + 1


def _since(moment: str) -> float:
    """Return the seconds since a moment, by this machine's clock."""
    return round(max(0.0, time.time() - datetime.fromisoformat(moment).timestamp()), 1)


def status_lines(record: dict[str, Any]) -> list[str]:
    """Return where a job stands, as text."""
    lines = [f"{record['job']}: {progress_text(record)}"]
    where = f"{record['host']}, process {record['pid']}" if record["pid"] else ""
    if record["slurm_job"]:
        waits = f", {record['queue']}" if record["queue"] else ""
        where += f"{', ' if where else ''}Slurm job {record['slurm_job']}{waits}"
    lines.append(f"  driver     {where}")
    if record["workers"] and record["state"] == "running":
        lines.append(f"  workers    {record['workers']}")
    if record["dashboard"] and record["state"] == "running":
        lines.append(f"  dashboard  {record['dashboard']}")
        lines.append(f"             from another machine: {record['tunnel']}")
    times = f"began {record['began']}"
    if record["ended"] and record["state"] in ("finished", "failed", "stopped"):
        times += f", ended {record['ended']}"
    else:
        times += f", heard from {record['silent_seconds']:.0f} s ago"
    lines.append(f"  times      {times}")
    return lines


def progress_text(record: dict[str, Any]) -> str:
    """Return state, step, rate and time left in one line."""
    state = record["state"]
    if state == "lost":
        return f"lost: {AGAIN}"
    if state == "stopped":
        return f"{record['error']}: {AGAIN}"
    if state == "failed":
        return f"failed ({record['exit_code']}): {record['error']}"
    if state == "finished":
        return f"finished{': ' + record['run'] if record['run'] else ' ' + record['command']}"
    if state == "queued":
        return f"queued{': ' + record['queue'] if record['queue'] else ''}"
    if not record["step"]:
        return "running" if record["workers"] else "running: no workers yet"
    if record["words"]:
        return f"running {record['step']}: {record['words']}"
    text = f"running {record['step']}: {record['done']}/{record['total']} tasks"
    if record["rate"]:
        text += f", {record['rate']:.1f} a second, {record['seconds_left']:.0f} s left"
    return text
