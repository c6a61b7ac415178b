"""Several hosts on one machine: a network namespace each, joined by a bridge in one more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

#: The scheduler, three hosts of workers, and the one where a person works.
NAMES = ("scheduler", "one", "two", "three", "driver")
PORT = 8786
#: Seconds that Dask's processes have for starting or stopping.
PATIENCE = 60
#: A silent peer is taken for dead after this; below 11 s Dask's own heartbeats would be too slow.
SILENCE = "12s"


class Hosts:
    """The hosts, and the processes that run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tag = f"vc{os.getpid()}"
        self._running: list[subprocess.Popen[bytes]] = []
        self.address = f"tcp://{self.ip('scheduler')}:{PORT}"

    def ip(self, name: str) -> str:
        """Return the address of a host."""
        return f"10.77.0.{NAMES.index(name) + 1}"

    def space(self, name: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self._tag}-{name}"

    def build(self) -> None:
        """Make the hosts and their links."""
        _ip("netns", "add", self.space("net"))
        _ip("-n", self.space("net"), "link", "add", "br0", "type", "bridge")
        _ip("-n", self.space("net"), "link", "set", "br0", "up")
        for n, name in enumerate(NAMES):
            here, there = ("-n", self.space(name)), ("-n", self.space("net"))
            _ip("netns", "add", self.space(name))
            peer = ("peer", "name", f"p{n}", "netns", self.space("net"))
            _ip(*here, "link", "add", "eth0", "type", "veth", *peer)
            _ip(*there, "link", "set", f"p{n}", "master", "br0")
            _ip(*there, "link", "set", f"p{n}", "up")
            _ip(*here, "addr", "add", f"{self.ip(name)}/24", "dev", "eth0")
            _ip(*here, "link", "set", "eth0", "up")
            _ip(*here, "link", "set", "lo", "up")

    def link(self, name: str, state: str) -> None:
        """Cut or join the link of a host, at the bridge: the host itself notices nothing."""
        _ip("-n", self.space("net"), "link", "set", f"p{NAMES.index(name)}", state)

    def inside(self, name: str, *command: object) -> list[str]:
        """Return a command that runs on a host."""
        return ["ip", "netns", "exec", self.space(name), *map(str, command)]

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        """Start the scheduler."""
        return self._dask("scheduler", "scheduler", "--port", PORT, "--no-dashboard")

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        """Start a nanny with a worker on a host."""
        scratch = self.folder / name
        scratch.mkdir(exist_ok=True)
        limits = ("--nthreads", 1, "--memory-limit", "1GiB", "--local-directory", scratch)
        return self._dask(name, "worker", self.address, *limits, "--no-dashboard")

    def _dask(self, host: str, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words, "--host", self.ip(host)]
        with open(self.folder / f"{host}.log", "ab") as log:
            one = subprocess.Popen(
                self.inside(host, *command),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": SILENCE},
            )
        self._running.append(one)
        return one

    def wait_for_workers(self, n: int) -> None:
        """Wait until the scheduler has just so many workers."""
        code = f"""
import time
from distributed import Client
with Client({self.address!r}, timeout={PATIENCE}) as client:
    end = time.monotonic() + {PATIENCE}
    while len(client.nthreads()) != {n}:
        assert time.monotonic() < end, client.nthreads()
        time.sleep(0.1)
"""
        subprocess.run(self.inside("driver", sys.executable, "-c", code), check=True, timeout=120)

    def close(self) -> None:
        """End every process and take the hosts down."""
        for one in self._running:
            kill(one)
        for name in (*NAMES, "net"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self.space(name))


def worker_of(nanny: subprocess.Popen[bytes]) -> psutil.Process:
    """Return the worker process of a nanny."""
    below = psutil.Process(nanny.pid).children(recursive=True)
    return next(p for p in below if "spawn_main" in " ".join(p.cmdline()))


def kill(one: subprocess.Popen[bytes]) -> None:
    """End a process and all it started at once, as a lost machine would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)
    one.wait(30)


class Driver:
    """A command under way on the driver's host."""

    def __init__(self, command: list[str], **env: str) -> None:
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.process: subprocess.Popen[Any] = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=self._err,
            start_new_session=True,
            env=os.environ | env,
        )

    @property
    def err(self) -> str:
        """Return what was told so far."""
        return os.pread(self._err.fileno(), 10**6, 0).decode()

    def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for a moment while the command runs."""
        end = time.monotonic() + 120
        while not happened():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.err}"
            assert time.monotonic() < end, f"never came to {what}:\n{self.err}"
            time.sleep(0.005)

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(180)

    def close(self) -> None:
        """Leave nothing behind."""
        kill(self.process)
        self._err.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
