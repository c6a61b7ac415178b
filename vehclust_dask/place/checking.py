"""A look at a place before a job: its workers, versions, shared storage, memory."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import VehclustError
from vehclust_dask.place.asking import (
    ask_workers,
    machine,
    read_probes,
    unreadable,
    write_probe,
)
from vehclust_dask.place.code import Differing
from vehclust_dask.place.kinds import KINDS, Place
from vehclust_dask.place.opened import WORKER_BASE_BYTES, OpenPlace, settings, tunnel_line


@dataclass(frozen=True)
class WorkerSeen:
    """A worker as it was found; ``memory_limit`` in bytes, 0 for none."""

    address: str
    host: str
    threads: int
    memory_limit: int
    blas: list[str]


@dataclass
class Checked:
    """What was found of a place.

    Attributes
    ----------
    kind : str
    workers : list of WorkerSeen
    dashboard, tunnel : str or None
    reasons : list of str
        Why a job would fail there; none where all is well.
    warnings : list of str
    """

    kind: str
    workers: list[WorkerSeen] = field(default_factory=list)
    dashboard: str | None = None
    tunnel: str | None = None
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Say whether a job can run."""
        return not self.reasons

    def record(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {"well": self.well, **asdict(self)}

    def lines(self) -> list[str]:
        """Return all of it for a person."""
        told = [f"place      {self.kind}, {len(self.workers)} workers"]
        for one in self.workers:
            limit = show_bytes(one.memory_limit) if one.memory_limit else "no limit"
            told.append(f"worker     {one.address}  {one.host}  {one.threads} threads  {limit}")
        if self.dashboard:
            told += [f"dashboard  {self.dashboard}", f"           {self.tunnel}"]
        told += [f"warning    {words}" for words in self.warnings]
        told += [f"BAD        {words}" for words in self.reasons]
        return told if self.reasons else [*told, "ok         a job can run here"]


def check_place(
    place: Place,
    workdir: Path,
    *,
    scratch: Path | None = None,
    per_task: int | None = None,
    files: list[str] | None = None,
) -> Checked:
    """Start or join a place and look whether a job can run there.

    Parameters
    ----------
    place : Place
    workdir : Path
        Every worker must see it.
    scratch : Path or None
        Folder of this machine for what a place starts here; None: the work folder.
    per_task : int or None
        Bytes that a task of the job may take.
    files : list of str or None
        Files and folders that every worker must read.
    """
    import dask

    found = Checked(place.kind)
    try:
        with (
            dask.config.set(settings()),
            KINDS[place.kind].open(place, scratch or workdir) as opened,
        ):
            _look(found, opened, workdir, per_task, files or [])
    except Differing as differing:
        found.reasons += differing.differences
    except VehclustError as error:
        found.reasons.append(str(error))
    return found


def _look(
    found: Checked, opened: OpenPlace, workdir: Path, per_task: int | None, files: list[str]
) -> None:
    client = opened.client
    machines = ask_workers(client, machine)
    infos = client.scheduler_info(n_workers=-1)["workers"]
    found.workers = [
        WorkerSeen(
            address,
            seen["host"],
            int(infos[address]["nthreads"]),
            int(infos[address]["memory_limit"] or 0),
            seen["blas"],
        )
        for address, seen in sorted(machines.items())
        if address in infos
    ]
    if opened.dashboard:
        found.dashboard = opened.dashboard
        found.tunnel = tunnel_line(opened.dashboard, opened.gateway)
    found.warnings += blas_warnings(found.workers, machine()["blas"])
    found.reasons += memory_reasons(found.workers, per_task)
    found.reasons += storage_reasons(client, workdir)
    for address, missing in sorted(ask_workers(client, unreadable, files).items()):
        if missing:
            found.reasons.append(
                f"worker {address} cannot read {', '.join(missing[:3])}"
                f"{' and more' if len(missing) > 3 else ''}; put the data where every worker sees them"
            )


def blas_warnings(workers: list[WorkerSeen], here: list[str]) -> list[str]:
    """Say where products are computed by other instructions, so that the last bits may differ."""
    kinds = Counter(", ".join(one.blas) for one in workers)
    if len(kinds) > 1:
        told = "; ".join(f"{n} with {kind}" for kind, n in kinds.most_common())
        return [
            f"the workers' BLAS kernels differ ({told}): bytes of results may differ run by run"
        ]
    if kinds and ", ".join(here) not in kinds:
        (kind,) = kinds
        return [f"the workers' BLAS kernels ({kind}) are not this machine's ({', '.join(here)})"]
    return []


def memory_reasons(workers: list[WorkerSeen], per_task: int | None) -> list[str]:
    """Name the workers that are too small for a task of the job."""
    needed = (per_task or 0) + WORKER_BASE_BYTES
    beside = f" beside {show_bytes(per_task)} for a task" if per_task else ""
    return [
        f"worker {one.address} has {show_bytes(one.memory_limit)}, but needs "
        f"{show_bytes(WORKER_BASE_BYTES)} for itself{beside}; raise memory_limit or lower the job's "
        "memory.per_task"
        for one in workers
        if one.memory_limit and one.memory_limit < needed
    ]


def storage_reasons(client: Any, workdir: Path) -> list[str]:
    """Let driver and workers write into the work folder and read each other's files.

    A worker that sees another folder of the same name lacks the driver's file.
    """
    mark = f".probe-{secrets.token_hex(8)}"
    written = {f"{mark}-driver"}
    try:
        (workdir / f"{mark}-driver").write_bytes(mark.encode())
        names = {
            address: f"worker{number}"
            for number, address in enumerate(sorted(client.scheduler_info(n_workers=-1)["workers"]))
        }
        told = []
        writers = []
        for address, name in names.items():
            written.add(f"{mark}-{name}")
            (wrong,) = ask_workers(
                client, write_probe, workdir, mark, name, workers=[address]
            ).values()
            if wrong is None:
                writers.append(name)
            else:
                told.append(f"worker {address}, work folder {workdir}: {wrong}")
        who = {name: address for address, name in names.items()}
        unseen = {"the driver": read_probes(workdir, mark, writers)}
        readers = [who[name] for name in writers]
        if readers:
            answers = ask_workers(client, read_probes, workdir, mark, writers, workers=readers)
            unseen |= {f"worker {address}": missing for address, missing in answers.items()}
        for reader, missing in unseen.items():
            told += [
                f"{reader} does not see in {workdir} what worker {who[name]} wrote"
                for name in missing
            ]
        return told
    finally:
        for name in written:
            (workdir / name).unlink(missing_ok=True)
