"""Machines reached by ssh as a place: the first runs the scheduler, the others the workers."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vehclust_dask.errors import UsageError, VehclustError
from vehclust_dask.place.address import is_loopback, security_of
from vehclust_dask.place.code import code
from vehclust_dask.place.keys import count, flag, key, port, ports, size, text, texts
from vehclust_dask.place.opened import OpenPlace, close_quietly, look_around

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class SshPlace:
    """Machines that an ssh key opens.

    Attributes
    ----------
    hosts : tuple of str
        The scheduler's first, then those of the workers; one may be named again.
    workers_per_host : int
        Processes of one thread each.
    memory_limit : int or None
        Bytes of one worker; None: a core's share of its host's memory.
    username, client_keys, known_hosts : str, tuple of str, str or None
        None: as ssh itself would. A host that known_hosts does not list is refused.
    ssh_port : int
    remote_python : str or None
        Interpreter on the hosts; None: the path of the one that runs here.
    interface : str or None
        Network interface to listen on, like eth0; None: all of them.
    scheduler_port : int or None
        None: any that is free.
    worker_ports, nanny_ports : str or None
        Ranges like 9000:9100, for hosts behind a firewall.
    local_directory : str or None
        Where workers put what does not fit into memory; None: the host's temporary folder.
    dashboard : int or None
        Port on loopback of the scheduler's host. None: no dashboard.
    tls_ca, tls_cert, tls_key : str or None
        Files of the same name on every host and here.
    insecure : bool
        Allow hosts beyond this machine without TLS.
    code : str
        ``installed`` on the hosts, or ``upload``: sent from here.
    """

    kind: ClassVar[str] = "ssh"
    hosts: tuple[str, ...] = key(texts, ())
    workers_per_host: int = key(count, 1)
    memory_limit: int | None = key(size)
    username: str | None = key(text)
    client_keys: tuple[str, ...] = key(texts, ())
    known_hosts: str | None = key(text)
    ssh_port: int = key(count, 22)
    remote_python: str | None = key(text)
    interface: str | None = key(text)
    scheduler_port: int | None = key(port)
    worker_ports: str | None = key(ports)
    nanny_ports: str | None = key(ports)
    local_directory: str | None = key(text)
    dashboard: int | None = key(port, 8787)
    tls_ca: str | None = key(text)
    tls_cert: str | None = key(text)
    tls_key: str | None = key(text)
    insecure: bool = key(flag, False)
    code: str = key(code, "installed")

    @property
    def loopback(self) -> bool:
        """Say whether every host is this machine, reached by its own address."""
        return all(is_loopback(host) for host in self.hosts)

    @property
    def n_workers(self) -> int:
        """Return how many workers there are when all have come."""
        return (len(self.hosts) - 1) * self.workers_per_host


def check_ssh(place: SshPlace, label: str) -> None:
    """Refuse hosts beyond this machine that anyone could read and command.

    Raises
    ------
    UsageError
    """
    if len(place.hosts) < 2:
        raise UsageError(
            f"{label}: hosts: name the scheduler's host, then at least one for workers (the same "
            "may be named again), like [node1, node1, node2]"
        )
    files = (place.tls_ca, place.tls_cert, place.tls_key)
    if any(files) and not all(files):
        raise UsageError(f"{label}: TLS needs all of tls_ca, tls_cert and tls_key")
    if not (place.loopback or place.insecure or all(files)):
        away = next(host for host in place.hosts if not is_loopback(host))
        raise UsageError(
            f"{label}: {away} is beyond this machine and not encrypted: whoever reaches it runs code "
            "as you; give tls_ca, tls_cert and tls_key, or say 'insecure: true' in the place file if "
            "the network is closed"
        )


def show_ssh(place: SshPlace) -> str:
    """Return what is started on which host."""
    user = "" if place.username is None else f"{place.username}@"
    scheduler, worker = _options(place)
    nannies = [("distributed.Nanny", worker)] * (len(place.hosts) - 1)
    told = [("distributed.Scheduler", scheduler), *nannies]
    return "\n".join(
        f"ssh -p {place.ssh_port} {user}{host} {place.remote_python or sys.executable} "
        f"-m distributed.cli.dask_spec --spec '{json.dumps({'cls': what, 'opts': options})}'"
        for host, (what, options) in zip(place.hosts, told, strict=True)
    )


def _options(place: SshPlace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the scheduler and of the workers of one host."""
    shared: dict[str, Any] = {"protocol": "tls://" if place.tls_ca else "tcp://"}
    if place.loopback:
        shared["host"] = LOOPBACK
    elif place.interface:
        shared["interface"] = place.interface
    scheduler = shared | {
        "port": place.scheduler_port or 0,
        "dashboard": place.dashboard is not None,
        "dashboard_address": f"{LOOPBACK}:{place.dashboard or 0}",
    }
    worker = shared | {
        "n_workers": place.workers_per_host,
        "nthreads": 1,
        "memory_limit": place.memory_limit or "auto",
        "dashboard_address": f"{LOOPBACK}:0",
    }
    given = {
        "local_directory": place.local_directory,
        "worker_port": place.worker_ports,
        "port": place.nanny_ports,
    }
    return scheduler, worker | {name: value for name, value in given.items() if value}


def _connect(place: SshPlace) -> dict[str, Any]:
    """Return how asyncssh connects. A key that is left out means: as ssh itself would."""
    given = {
        "username": place.username,
        "client_keys": [str(Path(k).expanduser()) for k in place.client_keys],
        "known_hosts": place.known_hosts and str(Path(place.known_hosts).expanduser()),
    }
    return {"port": place.ssh_port} | {name: value for name, value in given.items() if value}


def _encryption(place: SshPlace) -> dict[str, Any]:
    """Return Dask's settings of TLS, which travel to every host; they name files and hold no key."""
    if not place.tls_ca:
        return {}
    tls = {"ca-file": place.tls_ca}
    for role in ("scheduler", "worker", "client"):
        tls |= {f"{role}.cert": str(place.tls_cert), f"{role}.key": str(place.tls_key)}
    settings: dict[str, Any] = {f"distributed.comm.tls.{name}": v for name, v in tls.items()}
    return settings | {"distributed.comm.require-encryption": True}


@contextlib.contextmanager
def start_ssh(place: SshPlace, workdir: Path) -> Iterator[OpenPlace]:
    """Start a scheduler and workers by ssh; they end with the context."""
    import dask
    from distributed import Client, SSHCluster

    try:
        import asyncssh
    except ImportError:
        raise UsageError(
            "kind: ssh needs asyncssh; install it with: pip install 'vehclust-dask[ssh]'"
        ) from None
    security = security_of(place)
    scheduler, worker = _options(place)
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    with dask.config.set(_encryption(place)), contextlib.ExitStack() as closing:
        try:
            cluster = SSHCluster(
                list(place.hosts),
                connect_options=_connect(place),
                scheduler_options=scheduler,
                worker_options=worker,
                remote_python=place.remote_python,
                security=security,
                silence_logs=logging.CRITICAL,
            )
        except Exception as error:
            # SSHCluster wraps what goes wrong, and has no class for a process that ends at once.
            raise VehclustError(_why(error, place, (asyncssh.Error, OSError))) from None
        closing.callback(close_quietly, cluster, 10)
        client = Client(cluster, security=security, set_as_default=True)
        closing.callback(close_quietly, client, 5)
        client.wait_for_workers(place.n_workers, timeout=120)
        link = None if place.dashboard is None else f"http://{LOOPBACK}:{place.dashboard}/status"
        gateway = f"{place.username or getpass.getuser()}@{place.hosts[0]}"
        yield look_around(client, cluster, place.code, link, None if place.loopback else gateway)


def _why(error: BaseException, place: SshPlace, by_ssh: tuple[type[BaseException], ...]) -> str:
    """Say in one sentence why nothing started."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, by_ssh):
            return (
                f"ssh to one of {', '.join(dict.fromkeys(place.hosts))} failed: {cause}; try "
                "'ssh HOST true' by hand, then look at username, client_keys and known_hosts"
            )
        cause = cause.__cause__ or cause.__context__
    return (
        f"a process started by ssh ended at once; see whether '{place.remote_python or sys.executable} "
        "-m distributed.cli.dask_spec --help' works on every host, and whether the tls files are there"
    )
