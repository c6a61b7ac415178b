"""A running scheduler as a place: plain on this machine, TLS beyond it."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from vehclust_dask.errors import UsageError, VehclustError
from vehclust_dask.place.code import code
from vehclust_dask.place.keys import flag, key, text
from vehclust_dask.place.opened import OpenPlace, look_around

#: How long a scheduler may take to answer.
ANSWER_WITHIN = "15s"


@dataclass(frozen=True)
class AddressPlace:
    """A running scheduler.

    Attributes
    ----------
    address : str
        Like tcp://127.0.0.1:8786.
    tls_ca, tls_cert, tls_key : str or None
        Files that a TLS scheduler asks for.
    insecure : bool
        Allow a scheduler beyond this machine without TLS.
    code : str
        ``installed`` on the workers, or ``upload``: sent from here.
    """

    kind: ClassVar[str] = "address"
    address: str | None = key(text)
    tls_ca: str | None = key(text)
    tls_cert: str | None = key(text)
    tls_key: str | None = key(text)
    insecure: bool = key(flag, False)
    code: str = key(code, "installed")


def scheduler_place(address: str) -> AddressPlace:
    """Return the place of a scheduler given on the command line or by DASK_SCHEDULER_ADDRESS."""
    place = AddressPlace(address=address)
    check_address(place, f"scheduler {address}")
    return place


def check_address(place: AddressPlace, label: str) -> None:
    """Refuse a scheduler beyond this machine that anyone could read and command.

    Raises
    ------
    UsageError
    """
    if not place.address:
        raise UsageError(f"{label}: address is missing; write it like tcp://127.0.0.1:8786")
    parts = urlsplit(place.address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname or not _port_of(parts):
        raise UsageError(
            f"{label}: '{place.address}' is no address; write it like tls://10.0.0.5:8786"
        )
    if parts.scheme == "tcp" and not place.insecure and not is_loopback(parts.hostname):
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


def is_loopback(host: str) -> bool:
    """Say whether an address is this machine's own, which no other machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def show_address(place: AddressPlace) -> str:
    """Return the commands that start the scheduler of a place and a worker of it."""
    parts = urlsplit(str(place.address))
    tls = ""
    if parts.scheme == "tls":
        # The files on the hosts are those of scheduler and worker, not the client's named here.
        tls = " --tls-ca-file ca.pem --tls-cert {who}.pem --tls-key {who}.key"
    scheduler = (
        f"dask scheduler --host {parts.hostname} --port {parts.port} --protocol {parts.scheme}"
        f"{tls.format(who='scheduler')} --dashboard-address 127.0.0.1:8787"
    )
    worker = (
        f"dask worker {place.address}{tls.format(who='worker')} --nthreads 1 --memory-limit 2GiB "
        "--dashboard-address 127.0.0.1:0"
    )
    return f"umask 027\n{scheduler}\n{worker}"


@contextlib.contextmanager
def join_scheduler(place: AddressPlace, workdir: Path) -> Iterator[OpenPlace]:
    """Join a scheduler; it is left as it was when the context ends."""
    from distributed import Client

    try:
        client = Client(
            place.address, security=security_of(place), timeout=ANSWER_WITHIN, set_as_default=True
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
        yield look_around(client, None, place.code, client.dashboard_link)
    finally:
        client.close(timeout=5)


def security_of(place: Any) -> Any:
    """Return what a client of a place shows and asks for; None: no TLS."""
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
