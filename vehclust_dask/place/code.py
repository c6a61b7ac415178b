"""Our code where a job is computed: compared before any work, or sent from here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import socket
import zipfile
from pathlib import Path
from typing import Any

import vehclust_dask
from vehclust_dask.errors import VehclustError
from vehclust_dask.place.asking import (
    OURS,
    CodeOnScheduler,
    CodeOnWorkers,
    ask_scheduler,
    ask_workers,
    by_value,
    installed,
)

#: How the code comes to the workers: it is installed there, or sent by every command.
CODE = ("installed", "upload")
#: Packages whose version decides whether processes understand each other, or a result's bytes.
COMPARED = ("dask", "distributed", "numpy", "scipy", "numba", "zarr", "scikit-learn", "dask-ml")


class Differing(VehclustError):
    """Versions differ between here and there.

    Attributes
    ----------
    differences : list of str
        A sentence each; the first is the message.
    """

    def __init__(self, differences: list[str]) -> None:
        super().__init__(differences[0])
        self.differences = differences


def code(value: Any) -> str:
    """Read how our code comes to the workers."""
    if value not in CODE:
        raise ValueError(f"{value!r}: {' or '.join(CODE)} is needed")
    return str(value)


def bring_code(client: Any, how: str) -> None:
    """See to it that scheduler and workers have our code; send it where the place says so.

    Raises
    ------
    VehclustError
        With the first difference of versions, both of them, and the remedy.
    """
    _refuse_python(client)
    if how == "upload":
        send_code(client)
    differing = version_differences(client)
    if differing:
        raise Differing(differing)


def _refuse_python(client: Any) -> None:
    """Refuse another Python: no function can be sent there, not even one that asks."""
    found = client.get_versions()
    ours = platform.python_version()
    everyone = [("the scheduler", found["scheduler"])]
    everyone += [(f"worker {name}", one) for name, one in sorted(found["workers"].items())]
    for who, theirs in everyone:
        python = str((theirs or {}).get("host", {}).get("python", ours)).removesuffix(".final.0")
        if python.split(".")[:2] != ours.split(".")[:2]:
            raise VehclustError(
                f"{who} runs Python {python}, this is {ours}; start it with Python "
                f"{'.'.join(ours.split('.')[:2])}"
            )


def version_differences(client: Any) -> list[str]:
    """Return every difference of versions between here and there, a sentence each."""
    ours = installed(COMPARED)
    ours[OURS] = vehclust_dask.__version__
    told = [
        _difference(f"worker {name}", package, theirs[package], version)
        for name, theirs in sorted(ask_workers(client, installed, COMPARED).items())
        for package, version in ours.items()
        if package != "python" and theirs[package] != version
    ]
    theirs = ask_scheduler(client, installed, COMPARED)
    told += [
        _difference("the scheduler", package, theirs[package], ours[package])
        for package in (OURS, "dask", "distributed")
        if theirs[package] != ours[package]
    ]
    return told


def _difference(who: str, package: str, theirs: str | None, ours: str | None) -> str:
    has = f"has {package} {theirs}" if theirs else f"cannot import {package}"
    if package == OURS:
        return (
            f"{who} {has}, this is {ours}; install {OURS} {ours} there, or say 'code: upload' in "
            "the place file"
        )
    remedy = f"install {package} {ours} there" if ours else f"remove {package} there"
    return f"{who} {has}, here is {ours or 'none'}; {remedy}"


def send_code(client: Any) -> None:
    """Send our code to the scheduler and to every worker, also those that come later."""
    archive, digest = pack_code(Path(vehclust_dask.__file__).parent)
    sent = archive, digest, (socket.gethostname(), os.getpid())
    # What an earlier job left would be read by a new worker before it has any of our code.
    with contextlib.suppress(ValueError):
        client.unregister_worker_plugin("vehclust-prepare")
    with by_value():
        client.register_plugin(CodeOnScheduler(*sent))
        client.register_plugin(CodeOnWorkers(*sent))


def pack_code(package: Path) -> tuple[bytes, str]:
    """Return a zip of a package's own files, and a digest of what they hold."""
    digest = hashlib.blake2b(digest_size=8)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as members:
        for file in sorted(package.rglob("*")):
            if not file.is_file() or "__pycache__" in file.parts or file.name.startswith("."):
                continue
            name = str(file.relative_to(package.parent).as_posix())
            content = file.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            members.writestr(name, content)
    return packed.getvalue(), digest.hexdigest()
