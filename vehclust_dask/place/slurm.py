"""A Slurm cluster as a place: workers are jobs of its queue, the scheduler lives in the driver.

A worker job ends by its walltime, by preemption or by a person; the driver then puts another one into
the queue. Beyond loopback every connection is encrypted with certificates made for this run alone.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import math
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vehclust_dask.budget import MIB
from vehclust_dask.errors import UsageError, VehclustError
from vehclust_dask.place.address import is_loopback
from vehclust_dask.place.keys import count, duration, flag, key, port, size, text, texts
from vehclust_dask.place.local import free_port
from vehclust_dask.place.opened import OpenPlace, check_versions, close_quietly, settings

#: Memory of a job beside its workers: the process that starts and watches them.
NANNY_BYTES = 256 * MIB
#: Seconds between two looks at the workers, and the least between two questions to the queue: the
#: queue is asked only while workers are missing.
LOOK_EVERY, ASK_EVERY = 1.0, 4.0
#: Seconds until another job is submitted after Slurm has refused one: a limit of jobs, say.
REFUSED_FOR = 60.0
#: Names of the folder of certificates and of the one of what jobs print, below the work folder.
PRIVATE, LOGS = ".private", "logs"
#: What the environment of a worker's process says comes below this word in Dask's settings.
SPAWN = "distributed.nanny.pre-spawn-environ."


@dataclass(frozen=True)
class SlurmPlace:
    """Workers as jobs of Slurm.

    Attributes
    ----------
    jobs : int
        Worker jobs in the queue at any time.
    workers_per_job : int
        Processes of one thread in each of them; a core each.
    memory_limit : int
        Bytes of one worker.
    walltime : int
        Seconds that a worker job may take; workers leave in good time before, and others come.
    partition, account : str or None
    extra_directives : tuple of str
        Further options of sbatch, like --constraint=haswell.
    job_script_prologue : tuple of str
        Lines of shell before the worker starts, like 'module load python'.
    python : str or None
        Interpreter on the nodes; None: the one that runs here.
    host, interface : str or None
        Address or network interface (ib0) of this machine that the nodes reach; None: where the
        machine's own traffic goes out.
    scheduler_port : int or None
        None: any that is free.
    insecure : bool
        No encryption, on a network that is closed to everybody else.
    local_directory : str or None
        Where workers put what does not fit into memory; None: the node's temporary folder.
    shared_folder : str or None
        Where certificates and what jobs print lie, seen by every node; None: the work folder.
    dashboard : int or None
        Port on loopback of this machine, or the next free one; None: no dashboard.
    start_within : int
        Seconds until the first worker must have come.
    driver_walltime, driver_memory, driver_partition
        What ``vehclust submit`` asks for the driver itself.
    driver_requeue : bool
        Whether a driver whose walltime ends goes back into the queue by itself.
    """

    kind: ClassVar[str] = "slurm"
    jobs: int = key(count, 2)
    workers_per_job: int = key(count, 1)
    memory_limit: int = key(size, 2048 * MIB)
    walltime: int = key(duration, 3600)
    partition: str | None = key(text)
    account: str | None = key(text)
    extra_directives: tuple[str, ...] = key(texts, ())
    job_script_prologue: tuple[str, ...] = key(texts, ())
    python: str | None = key(text)
    host: str | None = key(text)
    interface: str | None = key(text)
    scheduler_port: int | None = key(port)
    insecure: bool = key(flag, False)
    local_directory: str | None = key(text)
    shared_folder: str | None = key(text)
    dashboard: int | None = key(port, 8787)
    start_within: int = key(duration, 3600)
    driver_walltime: int = key(duration, 86400)
    driver_memory: int = key(size, 4096 * MIB)
    driver_partition: str | None = key(text)
    driver_requeue: bool = key(flag, True)

    @property
    def n_workers(self) -> int:
        """Return how many workers there are when all have come."""
        return self.jobs * self.workers_per_job

    @property
    def encrypted(self) -> bool:
        """Say whether connections are encrypted: always where others could reach them."""
        return not (self.insecure or (self.host is not None and is_loopback(self.host)))


def check_slurm(place: SlurmPlace, label: str) -> None:
    """Refuse what contradicts itself or would break a job's script."""
    if place.host and place.interface:
        raise UsageError(f"{label}: host and interface both say where to listen; leave one out")
    for name in (
        "python",
        "local_directory",
        "shared_folder",
        "host",
        "interface",
        "partition",
        "account",
    ):
        _plain(getattr(place, name), f"{label}: {name}")
    for line in (*place.extra_directives, *place.job_script_prologue):
        if "\n" in line:
            raise UsageError(f"{label}: {line!r}: write one line per entry")


def _plain(word: str | None, what: str) -> None:
    """Refuse a word that a shell would not take as it is."""
    if word and shlex.quote(word) != word:
        raise UsageError(
            f"{what}: '{word}' holds a character that Slurm's job scripts cannot; use letters, digits "
            "and ./_-@%+=:,"
        )


def slurm_time(seconds: int) -> str:
    """Return seconds as Slurm writes them."""
    minutes, left = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02d}:{minutes:02d}:{left:02d}"


def lifetime(walltime: int) -> tuple[int, int]:
    """Return after how many seconds a worker leaves by itself, and by how many more or fewer.

    A tenth of the walltime, ten minutes at most, is kept for leaving; not all leave at once.
    """
    margin = max(min(walltime // 10, 600), 2)
    return max(walltime - margin, 1), margin // 2


def show_slurm(place: SlurmPlace) -> str:
    """Return the script of a worker job as Slurm will get it; the scheduler's address is not known yet."""
    shared = Path(place.shared_folder or "WORKDIR")
    private = shared / PRIVATE / "<folder of this run>"
    security = _security(private) if place.encrypted else None
    scheme = "tls" if place.encrypted else "tcp"
    address = f"{scheme}://{place.host or '<this machine>'}:{place.scheduler_port or '<port>'}"
    job = _jobqueue().slurm.SLURMJob(
        address,
        name="<name>",
        interface=place.interface,
        security=security,
        protocol=f"{scheme}://",
        **_job_options(place, shared),
    )
    return str(job.job_script())


def _job_options(place: SlurmPlace, workdir: Path) -> dict[str, Any]:
    """Return what every worker job is given."""
    each = place.workers_per_job
    seconds, stagger = lifetime(place.walltime)
    words = [
        f"--lifetime {seconds}s --lifetime-stagger {stagger}s",
        "--dashboard-address 127.0.0.1:0",
    ]
    if place.host and is_loopback(place.host):
        words.append(f"--host {place.host}")
    exports = [f"export {name}={shlex.quote(value)}" for name, value in _environment().items()]
    memory = place.memory_limit * each
    return {
        "cores": each,
        "processes": each,
        "memory": f"{memory}B",
        "job_mem": f"{math.ceil((memory + NANNY_BYTES) / MIB)}M",
        "walltime": slurm_time(place.walltime),
        "queue": place.partition,
        "account": place.account,
        "job_name": "vehclust-worker",
        # Another job is submitted by the driver, under another name: Slurm need not do so as well.
        "job_extra_directives": [
            f'-o "{workdir / LOGS}/worker-%j.log"',
            "--no-requeue",
            *place.extra_directives,
        ],
        "job_script_prologue": [*place.job_script_prologue, *exports],
        "python": place.python,
        "local_directory": place.local_directory,
        "worker_extra_args": words,
    }


def _environment() -> dict[str, str]:
    """Return the Dask settings of a job as variables: workers of other machines do not inherit them."""
    found = {}
    for name, value in settings().items():
        if name.startswith(SPAWN):
            found[name.removeprefix(SPAWN)] = str(value)
        else:
            variable = name.replace(".", "__").replace("-", "_").upper()
            found[f"DASK_{variable}"] = str(value)
    return found


def _jobqueue() -> Any:
    """Return the package dask_jobqueue; without the file of settings that it writes into a home."""
    from dask import config

    before = config.PATH
    with tempfile.TemporaryDirectory() as elsewhere:
        config.PATH = elsewhere
        try:
            import dask_jobqueue
        except ImportError:
            raise UsageError(
                "kind: slurm needs dask-jobqueue; run: pip install 'vehclust-dask[slurm]'"
            ) from None
        finally:
            config.PATH = before
    return dask_jobqueue


def require_slurm() -> None:
    """Refuse a machine that cannot submit jobs."""
    absent = [word for word in ("sbatch", "squeue", "scancel") if shutil.which(word) is None]
    if absent:
        raise UsageError(
            f"kind: slurm: {', '.join(absent)} is not on this machine's PATH; run this on a login node "
            "of the Slurm cluster"
        )


def queue_states(user: str | None = None) -> dict[str, tuple[str, str]] | None:
    """Return state and reason of a person's jobs by number; None where Slurm does not answer."""
    words = ["squeue", "-h", "-u", user or getpass.getuser(), "-o", "%i|%T|%r"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return {number: (state, reason) for number, state, reason in rows}


def shared_folder(place: SlurmPlace, workdir: Path) -> Path:
    """Return where certificates and logs lie; refuse a folder that job scripts cannot name.

    The work folder where the place names none: a file system of all nodes, not an object store.
    """
    if place.shared_folder is None and "://" in str(workdir):
        raise UsageError(
            f"workdir {workdir} is no folder of the nodes; name one for certificates and logs by "
            "shared_folder in the place file"
        )
    folder = Path(place.shared_folder or workdir)
    _plain(str(folder), "workdir")
    return folder.absolute()


@contextlib.contextmanager
def start_slurm(place: SlurmPlace, workdir: Path) -> Iterator[OpenPlace]:
    """Start a scheduler here and workers in Slurm's queue; they end with the context."""
    require_slurm()
    jobqueue = _jobqueue()
    import dask
    from distributed import Client

    shared = shared_folder(place, workdir)
    (shared / LOGS).mkdir(parents=True, exist_ok=True)
    refusals: list[str] = []
    shown = None if place.dashboard is None else free_port(place.dashboard)
    waiting = {
        # The timer of a lost worker must have run out before another gets its name.
        "distributed.deploy.lost-worker-timeout": "1s",
        "distributed.scheduler.no-workers-timeout": f"{place.start_within}s",
    }
    with contextlib.ExitStack() as closing:
        closing.enter_context(dask.config.set(waiting))
        security = None
        if place.encrypted:
            security = _certificates(closing.enter_context(private_folder(shared)))
        cluster = jobqueue.SLURMCluster(
            job_cls=_noting(jobqueue.slurm.SLURMJob, refusals),
            security=security,
            interface=place.interface,
            # A stop leaves workers that still speak to a client that is gone: nothing to tell.
            silence_logs=logging.CRITICAL + 1,
            scheduler_options={
                **_listening(place),
                "port": place.scheduler_port or 0,
                "dashboard": shown is not None,
                "dashboard_address": f"127.0.0.1:{shown or 0}",
            },
            **_job_options(place, shared),
        )
        closing.callback(close_quietly, cluster, 10)
        cluster.scale(jobs=place.jobs)
        client = Client(cluster, set_as_default=True)
        closing.callback(close_quietly, client, 5)
        _await_first(place, cluster, refusals, shared)
        check_versions(client)
        closing.enter_context(_Keeper(place, cluster, refusals))
        link = None if shown is None else f"http://127.0.0.1:{shown}/status"
        yield OpenPlace(client, cluster, link, place.n_workers, place.memory_limit)


def _listening(place: SlurmPlace) -> dict[str, str]:
    """Return where the scheduler listens: on one address, never on all of them."""
    if place.interface:
        return {"interface": place.interface}
    if place.host:
        return {"host": place.host}
    from distributed.utils import get_ip

    return {"host": get_ip()}


def _certificates(folder: Path) -> Any:
    """Make a certificate of this run alone, which all its processes show and ask for."""
    from distributed.security import Security

    try:
        made = Security.temporary()
    except ImportError:
        raise UsageError(
            "encrypted connections need the package cryptography; run: pip install "
            "'vehclust-dask[slurm]', or say 'insecure: true' in the place file if the network is closed"
        ) from None
    files = {"ca": made.tls_ca_file, "cert": made.tls_worker_cert, "key": made.tls_worker_key}
    for name, content in files.items():
        file = folder / f"{name}.pem"
        file.touch(mode=0o600)
        file.write_text(content)
    return _security(folder)


def _security(folder: Path) -> Any:
    from distributed.security import Security

    each = {
        f"tls_{role}_{what}": f"{folder}/{what}.pem"
        for role in ("scheduler", "worker", "client")
        for what in ("cert", "key")
    }
    return Security(tls_ca_file=f"{folder}/ca.pem", require_encryption=True, **each)


@contextlib.contextmanager
def private_folder(workdir: Path) -> Iterator[Path]:
    """Give a folder that only this person can read, on the nodes as well; it goes with the context.

    What drivers of this machine left that were killed is removed.
    """
    top = workdir / PRIVATE
    top.mkdir(mode=0o700, exist_ok=True)
    top.chmod(0o700)
    here = socket.gethostname()
    for left in top.glob(f"{here}-*"):
        if not _alive(left.name.removeprefix(f"{here}-").split("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{here}-{os.getpid()}-", dir=top))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            top.rmdir()


def _alive(pid: str) -> bool:
    import psutil

    return not pid.isdigit() or psutil.pid_exists(int(pid))


def _noting(kind: type[Any], refusals: list[str]) -> type[Any]:
    """Return jobs of a kind that note what Slurm says when it refuses them, and count as gone."""
    from distributed.core import Status

    class Job(kind):
        """A job whose refusal is noted, not raised."""

        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, OSError, ValueError) as error:
                refusals.append(said(str(error)))
                self.status = Status.running

    return Job


def said(output: str) -> str:
    """Return what sbatch said of a refusal, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("sbatch: error: ") for line in lines if line.startswith("sbatch:")]
    return "; ".join(errors) or (lines or ["nothing"])[-1]


def _await_first(place: SlurmPlace, cluster: Any, refusals: list[str], workdir: Path) -> None:
    """Wait for the first worker.

    Raises
    ------
    VehclustError
        With what the queue says, if none comes in time or all jobs are gone.
    """
    end = time.monotonic() + place.start_within
    asked = 0.0
    while not cluster.scheduler_info["workers"]:
        now = time.monotonic()
        if refusals:
            raise VehclustError(
                f"Slurm refuses the worker jobs ({refusals[0]}); correct the place file"
            )
        if now > end:
            raise VehclustError(_nobody(place, cluster))
        if now - asked >= ASK_EVERY:
            states, asked = queue_states(), now
            ids = _job_ids(cluster)
            if states is not None and ids and not set(ids.values()) & _going_on(states):
                # A worker may have come since the queue was asked.
                time.sleep(LOOK_EVERY)
                if not cluster.scheduler_info["workers"]:
                    raise VehclustError(_all_ended(ids, workdir))
        time.sleep(0.1)


def _job_ids(cluster: Any) -> dict[str, str]:
    """Return the numbers of the jobs that were submitted, by name."""
    jobs = dict(cluster.workers)
    return {name: job.job_id for name, job in jobs.items() if job.job_id}


def _going_on(states: dict[str, tuple[str, str]]) -> set[str]:
    return {number for number, (state, _) in states.items() if state != "COMPLETING"}


def _nobody(place: SlurmPlace, cluster: Any) -> str:
    states = queue_states() or {}
    mine = [f"job {n} is {' '.join(states[n])}" for n in _job_ids(cluster).values() if n in states]
    return (
        f"no worker came within {slurm_time(place.start_within)}; the queue says: "
        f"{', '.join(mine) or 'nothing of our jobs'}; wait longer (start_within), ask for less "
        "(jobs, memory_limit, walltime) or another partition in the place file"
    )


def _all_ended(ids: dict[str, str], workdir: Path) -> str:
    logs = [workdir / LOGS / f"worker-{number}.log" for number in ids.values()]
    written = [log for log in logs if log.exists()]
    if not written:
        return (
            f"the worker jobs ({', '.join(ids.values())}) ended before they began, without a word in "
            f"{workdir / LOGS}; is that folder seen by the nodes?"
        )
    lines = written[0].read_text(errors="replace").split("\n")
    last = [line.strip() for line in lines if line.strip()][-1:] or ["nothing"]
    return (
        f"the worker jobs ended before they joined; {written[0]} ends with: {last[0][:300]}; see python, "
        "job_script_prologue, host and interface in the place file"
    )


class _Keeper:
    """Puts another job into the queue for each that ended, for as long as it is open.

    Dask's own ways do not: a job that ended before it came, or one of several processes, stays in its
    books. The queue is asked only while workers are missing.
    """

    def __init__(self, place: SlurmPlace, cluster: Any, refusals: list[str]) -> None:
        self._place = place
        self._cluster = cluster
        self._refusals = refusals
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="slurm-keeper", daemon=True)

    def __enter__(self) -> _Keeper:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(ASK_EVERY)

    def _loop(self) -> None:
        again = 0.0
        while not self._stop.wait(LOOK_EVERY):
            missing = len(self._cluster.scheduler_info["workers"]) < self._place.n_workers
            if missing and time.monotonic() >= again:
                again = time.monotonic() + (REFUSED_FOR if self._refusals else ASK_EVERY)
                self._refusals.clear()
                self._replace()

    def _replace(self) -> None:
        states = queue_states()
        if states is None or self._stop.is_set():
            return
        ids, going_on = _job_ids(self._cluster), _going_on(states)
        ended = [name for name in dict(self._cluster.worker_spec) if ids.get(name) not in going_on]
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            if ended:
                self._cluster.sync(self._cluster.scale_down, ended)
            self._cluster.scale(jobs=self._place.jobs)
