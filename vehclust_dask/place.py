"""Places: where a job is computed. A YAML file becomes a Dask cluster and a client."""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from vehclust_dask import budget
from vehclust_dask.errors import NotEnough, UsageError, VehclustError, nearest

#: Memory a worker needs before it holds any rows: Python, numpy, numba, Dask.
WORKER_BASE_BYTES = 350 * budget.MIB
#: Share of a worker's memory limit that it may keep between tasks.
CACHE_SHARE = 4
#: A worker never keeps more than this: rows that are read again come from the system's own cache of
#: files at some GB a second, which is little beside what a pass computes with them.
MOST_KEPT = 1024 * budget.MIB
LAST_PORT = 65535
#: How long a scheduler may take to answer.
ANSWER_WITHIN = "15s"
#: What a local worker runs when it starts.
QUIET = """
import logging
for name in ("distributed.worker", "tornado.application"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
"""


@dataclass(frozen=True)
class PlaceSpec:
    """A place as its file says.

    Attributes
    ----------
    kind : {'local', 'address'}
    workers : int or None
        Worker processes; None: one per core.
    memory_limit : int or None
        Bytes of one worker; None: an equal share of four fifths of this machine's memory.
    dashboard : int or None
        Port; the next free one is taken where it is in use. None: no dashboard.
    local_directory : str or None
        Where workers put what does not fit into memory; None: a folder ``dask`` in the work folder.
    address : str or None
        Of a running scheduler.
    tls_ca, tls_cert, tls_key : str or None
        Files that a TLS scheduler asks for.
    insecure : bool
        Allow a scheduler beyond this machine without TLS.
    """

    kind: str = "local"
    workers: int | None = None
    memory_limit: int | None = None
    dashboard: int | None = 8787
    local_directory: str | None = None
    address: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool = False


_ALLOWED = {
    "local": ("kind", "workers", "memory_limit", "dashboard", "local_directory"),
    "address": ("kind", "address", "tls_ca", "tls_cert", "tls_key", "insecure"),
}


def load_place(file: str | Path) -> PlaceSpec:
    """Read a place file.

    Raises
    ------
    UsageError
        If it is missing or says something unknown; the nearest valid key is named.
    """
    path = Path(file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"place file {path}: {error.strerror}; see cluster_config/ for examples"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"place file {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"place file {path}: keys such as 'kind: local' are needed")
    return place_from(content, str(path))


def place_from(content: dict[str, Any], label: str) -> PlaceSpec:
    """Check the keys and values of a place."""
    kind = content.get("kind", "local")
    if not isinstance(kind, str) or kind not in _ALLOWED:
        raise UsageError(f"{label}: kind: {kind!r}: {nearest(str(kind), _ALLOWED)}")
    for key in content:
        if key not in _ALLOWED[kind]:
            raise UsageError(f"{label}: unknown key '{key}'; {nearest(str(key), _ALLOWED[kind])}")
    values = {key: _value(key, value, label) for key, value in content.items()}
    place = PlaceSpec(**values)
    if kind == "address":
        if not place.address:
            raise UsageError(f"{label}: address is missing; write it like tcp://127.0.0.1:8786")
        check_address(place, label)
    return place


def _value(key: str, value: Any, label: str) -> Any:
    if value in ("auto", None):
        return None if key != "insecure" else False
    if key == "memory_limit":
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise UsageError(
                f"{label}: memory_limit: {value!r}: a size is needed; write it like 1GiB"
            )
        try:
            return budget.parse_bytes(value)
        except ValueError as error:
            raise UsageError(f"{label}: memory_limit: {error}") from None
    if key == "dashboard" and value in (False, "off"):
        return None
    if key in ("workers", "dashboard"):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(
                f"{label}: {key}: {value!r}: a whole number of at least 1, or auto, is needed"
            )
        if key == "dashboard" and value > LAST_PORT:
            raise UsageError(f"{label}: dashboard: {value}: a port is at most {LAST_PORT}")
        return value
    expected = bool if key == "insecure" else str
    if not isinstance(value, expected):
        raise UsageError(f"{label}: {key}: {value!r}: {expected.__name__} is needed")
    return value


def scheduler_place(address: str) -> PlaceSpec:
    """Return the place of a scheduler given on the command line or by DASK_SCHEDULER_ADDRESS."""
    place = PlaceSpec(kind="address", address=address)
    check_address(place, f"scheduler {address}")
    return place


def check_address(place: PlaceSpec, label: str) -> None:
    """Refuse a scheduler beyond this machine that anyone could read and command.

    Raises
    ------
    UsageError
    """
    parts = urlsplit(place.address or "")
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not _port_of(parts):
        raise UsageError(
            f"{label}: '{place.address}' is no address; write it like tls://10.0.0.5:8786"
        )
    if parts.scheme == "tcp" and not place.insecure and not _is_loopback(parts.hostname):
        raise UsageError(
            f"{label}: {place.address} is beyond this machine and not encrypted: whoever reaches it "
            "runs code as you; use tls://, or say 'insecure: true' in the place file if the network "
            "is closed"
        )
    if parts.scheme == "tls" and not (place.tls_ca and place.tls_cert and place.tls_key):
        from dask import config

        if not config.get("distributed.comm.tls.ca-file", None):
            raise UsageError(
                f"{label}: a tls:// scheduler needs tls_ca, tls_cert and tls_key in the place file "
                "(or distributed.comm.tls in Dask's own configuration)"
            )


def _port_of(parts: Any) -> int | None:
    try:
        port: int | None = parts.port
    except ValueError:
        return None
    return port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    """

    client: Any
    cluster: Any
    dashboard: str | None
    n_workers: int
    memory_limit: int


def local_size(place: PlaceSpec) -> tuple[int, int]:
    """Return number of workers and memory limit of a local place, bytes."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    # Both know what a container or a batch system grants, which may be less than the machine has.
    workers = place.workers or CPU_COUNT
    limit = place.memory_limit or MEMORY_LIMIT * 4 // 5 // workers
    return workers, int(limit)


def cache_bytes(memory_limit: int, per_task: int) -> int:
    """Return what a worker may keep between tasks: a share of its limit, beside one task and its base."""
    spare = memory_limit - per_task - WORKER_BASE_BYTES
    return max(64 * budget.MIB, min(memory_limit // CACHE_SHARE, spare, MOST_KEPT))


def free_port(wanted: int) -> int:
    """Return the first port from ``wanted`` on that nobody listens on, on loopback."""
    for port in range(wanted, min(wanted + 200, LAST_PORT + 1)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise VehclustError(f"no port is free from {wanted} on; give another, or set dashboard: off")


@contextlib.contextmanager
def open_place(place: PlaceSpec, *, workdir: Path, per_task: int) -> Iterator[OpenPlace]:
    """Start or join the Dask cluster of a place; it is closed (a joined one: left) at the end.

    Parameters
    ----------
    place : PlaceSpec
    workdir : Path
    per_task : int
        Bytes one task may take.
    """
    import dask

    settings = {
        "distributed.comm.retry.count": 3,
        "distributed.scheduler.no-workers-timeout": "120s",
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
    with dask.config.set(settings):
        start = _local if place.kind == "local" else _joined
        with start(place, workdir) as opened:
            _prepare(opened, per_task)
            yield opened


@contextlib.contextmanager
def _local(place: PlaceSpec, workdir: Path) -> Iterator[OpenPlace]:
    from distributed import Client, LocalCluster

    workers, limit = local_size(place)
    port = None if place.dashboard is None else free_port(place.dashboard)
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
                dashboard_address=f"127.0.0.1:{port or 0}",
                scheduler_kwargs={"dashboard": port is not None},
                worker_dashboard_address="127.0.0.1:0",
                local_directory=str(scratch),
                silence_logs=logging.CRITICAL,
                # An error reaches the person through the client; a worker need not print it as well.
                preload=QUIET,
            )
            closing.callback(_close, cluster, 10)
        client = Client(cluster, set_as_default=True)
        closing.callback(_close, client, 5)
        link = None if port is None else f"http://127.0.0.1:{port}/status"
        yield OpenPlace(client, cluster, link, workers, limit)


def _close(opened: Any, timeout: int) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        opened.close(timeout=timeout)


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


@contextlib.contextmanager
def _joined(place: PlaceSpec, workdir: Path) -> Iterator[OpenPlace]:
    from distributed import Client

    try:
        client = Client(
            place.address, security=_security(place), timeout=ANSWER_WITHIN, set_as_default=True
        )
    except (OSError, TimeoutError) as error:
        raise VehclustError(
            f"no scheduler answers at {place.address} ({type(error).__name__}); "
            "start one with 'dask scheduler', or check address and certificates"
        ) from None
    try:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise VehclustError(
                f"the scheduler at {place.address} has no workers after 60 s; "
                f"start some with 'dask worker {place.address} --nthreads 1'"
            ) from None
        _check_versions(client)
        infos = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [int(w["memory_limit"] or 0) for w in infos]
        yield OpenPlace(client, None, client.dashboard_link, len(limits), min(limits))
    finally:
        client.close(timeout=5)


def _security(place: PlaceSpec) -> Any:
    from distributed.security import Security

    if not place.tls_ca:
        return None
    for name in ("tls_ca", "tls_cert", "tls_key"):
        file = getattr(place, name)
        if not file or not Path(file).is_file():
            raise UsageError(f"{name}: the file {file} does not exist")
    return Security(
        tls_ca_file=place.tls_ca,
        tls_client_cert=place.tls_cert,
        tls_client_key=place.tls_key,
        require_encryption=True,
    )


def _our_version() -> str:
    from vehclust_dask import __version__

    return __version__


def _check_versions(client: Any) -> None:
    """Refuse workers that do not have our code, or another version of it."""
    ours = _our_version()
    try:
        theirs = client.run(_our_version)
    except (ImportError, AttributeError) as error:
        raise VehclustError(
            f"the workers cannot import vehclust_dask ({error}); install the same version ({ours}) there"
        ) from None
    for worker, version in sorted(theirs.items()):
        if version != ours:
            raise VehclustError(
                f"worker {worker} has vehclust_dask {version}, this is {ours}; install the same version"
            )


def _prepare(opened: OpenPlace, per_task: int) -> None:
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


def tunnel_line(link: str) -> str:
    """Return the command that shows a dashboard on another machine's browser."""
    parts = urlsplit(link)
    host = socket.gethostname()
    return f"ssh -L {parts.port}:{parts.hostname}:{parts.port} {getpass.getuser()}@{host}"
