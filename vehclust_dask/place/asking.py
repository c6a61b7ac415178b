"""What is asked of processes that may not have our code: functions sent whole, not by name.

They may use the standard library and Dask alone; anything else is imported where it is looked for.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from distributed import SchedulerPlugin, WorkerPlugin

OURS = "vehclust_dask"
#: One at a time: what is sent by value is written down in a table of the whole process.
_SENDING = threading.Lock()


@contextlib.contextmanager
def by_value() -> Iterator[None]:
    """Send the functions and classes of this module as code instead of by name."""
    import cloudpickle

    module = sys.modules[__name__]
    with _SENDING:
        cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            cloudpickle.unregister_pickle_by_value(module)


def ask_workers(
    client: Any, question: Callable[..., Any], *args: Any, workers: list[str] | None = None
) -> dict[str, Any]:
    """Call a function of this module on every worker, or on those given; return answers by address."""
    with by_value():
        answers: dict[str, Any] = client.run(question, *args, workers=workers)
    return answers


def ask_scheduler(client: Any, question: Callable[..., Any], *args: Any) -> Any:
    """Call a function of this module on the scheduler."""
    with by_value():
        return client.run_on_scheduler(question, *args)


def installed(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Return versions of Python, of packages (None: absent), and of our code, where this runs."""
    from importlib import metadata

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    try:
        import vehclust_dask
    except ImportError:
        found[OURS] = None
    else:
        found[OURS] = vehclust_dask.__version__
    return found


def machine() -> dict[str, Any]:
    """Return name, process and BLAS kernels of where this runs."""
    kernels: list[str] = []
    with contextlib.suppress(ImportError):
        import numpy
        import scipy.linalg
        from threadpoolctl import threadpool_info

        assert numpy is not None, "a library must be loaded to be found"
        assert scipy.linalg is not None, "it brings a BLAS of its own"
        blas = [one for one in threadpool_info() if one["user_api"] == "blas"]
        kernels = sorted(
            {f"{one['internal_api']} {one.get('architecture') or '?'}" for one in blas}
        )
    return {"host": socket.gethostname(), "pid": os.getpid(), "blas": kernels}


def unpack_code(archive: bytes, digest: str, sender: tuple[str, int]) -> None:
    """Put sent code first where this process looks for packages; forget what it had of another.

    The folder is the same for every worker of a person on a host, and stays: compiled kernels are
    kept by the place of their source.
    """
    if (socket.gethostname(), os.getpid()) == sender:
        return
    folder = _code_folder(archive, digest)
    loaded = sys.modules.get(OURS)
    if loaded is not None and Path(str(loaded.__file__)).parent.parent != folder:
        for name in [n for n in sys.modules if n == OURS or n.startswith(f"{OURS}.")]:
            del sys.modules[name]
    sys.path[:] = [str(folder), *(p for p in sys.path if p != str(folder))]


def _code_folder(archive: bytes, digest: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vehclust"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".code-", dir=base))
    except OSError:
        # No home to write to: a folder of this process alone.
        folder = Path(tempfile.mkdtemp(prefix="vehclust-"))
        _unzip(archive, folder)
        return folder
    folder = base / f"code-{digest}"
    try:
        if not folder.is_dir():
            _unzip(archive, partial)
            with contextlib.suppress(OSError):
                partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unzip(archive: bytes, folder: Path) -> None:
    with zipfile.ZipFile(BytesIO(archive)) as members:
        members.extractall(folder)


class CodeOnWorkers(WorkerPlugin):
    """Our code on every worker, also on one that comes later."""

    name = "vehclust-code"

    def __init__(self, archive: bytes, digest: str, sender: tuple[str, int]) -> None:
        self.sent = archive, digest, sender

    def setup(self, worker: Any) -> None:
        """Unpack the code before anything of ours is asked of the worker."""
        unpack_code(*self.sent)


class CodeOnScheduler(SchedulerPlugin):
    """Our code on the scheduler, which reads every graph before it hands tasks on."""

    name = "vehclust-code"

    def __init__(self, archive: bytes, digest: str, sender: tuple[str, int]) -> None:
        self.sent = archive, digest, sender

    async def start(self, scheduler: Any) -> None:
        """Unpack the code."""
        unpack_code(*self.sent)


def write_probe(folder: Any, mark: str, name: str) -> str | None:
    """Write a file beside the driver's and read it back; return what is wrong, None if nothing."""
    try:
        if (folder / f"{mark}-driver").read_bytes() != mark.encode():
            return "reads something else in the driver's file"
        own = folder / f"{mark}-{name}"
        own.write_bytes(f"{mark} {name}".encode())
        if own.read_bytes() != f"{mark} {name}".encode():
            return "does not read back what it wrote"
    except FileNotFoundError:
        return "does not see the driver's file: the folder is not shared, or another of that name"
    except OSError as error:
        return f"cannot write there ({error.strerror or error})"
    return None


def read_probes(folder: Any, mark: str, names: list[str]) -> list[str]:
    """Return the names of those whose files are not seen here within some seconds."""
    # A network's folder may show a new file late.
    end = time.monotonic() + 10
    while True:
        missing = [
            name for name in names if not _holds(folder / f"{mark}-{name}", f"{mark} {name}")
        ]
        if not missing or time.monotonic() > end:
            return missing
        time.sleep(0.2)


def _holds(file: Any, content: str) -> bool:
    try:
        return bool(file.read_bytes() == content.encode())
    except OSError:
        return False


def unreadable(files: list[str]) -> list[str]:
    """Return those files or folders that cannot be read here."""
    return [file for file in files if not os.access(file, os.R_OK)]
