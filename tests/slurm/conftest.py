"""A real Slurm of two nodes on this machine, in a folder and on ports of its own, and jobs on it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.components import need_command, need_module, need_root
from tests.end_to_end.conftest import (  # noqa: F401  fixtures of the small case
    Case,
    Started,
    case,
    start,
)

NODES = ("n1", "n2")
#: Slurm's daemons take a few ports in a row.
PORTS = 4
CONF = """
ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=20
MinJobAge=300
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=8000
PartitionName=small Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0
PartitionName=shut Nodes=n[1-2] MaxTime=INFINITE State=INACTIVE
"""


def free_ports(n: int) -> int:
    """Return the first of some ports in a row that nobody listens on."""
    for first in range(21000, 29000, n):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + n):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")


@dataclass(frozen=True)
class Slurm:
    """A running Slurm; its commands find it by SLURM_CONF."""

    folder: Path

    def call(self, *words: str) -> str:
        """Run one of Slurm's commands."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    def queue(self, name: str = "") -> dict[str, str]:
        """Return the state of every job in the queue, or of those of one name, by number."""
        lines = self.call("squeue", "-h", "-o", "%i %T %j").splitlines()
        rows = [line.split() for line in lines]
        return {number: state for number, state, called in rows if name in ("", called)}

    def until(self, happened: Callable[[], bool], what: str, seconds: float = 90) -> None:
        """Wait for a moment."""
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, f"never came to {what}; the queue: {self.queue()}"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Start munged, slurmctld and two slurmd; end them with whatever their jobs left."""
    need_command(
        "munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol",
        install="apt-get install slurm-wlm munge",
    )  # fmt: skip
    need_module("dask_jobqueue", install="pip install 'vehclust-dask[slurm]'")
    need_root("Slurm's daemons")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    first = free_ports(PORTS)
    conf = CONF.format(
        host=socket.gethostname(),
        folder=folder,
        port=first,
        first=first + 1,
        last=first + 2,
        cpus=2,
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    running: list[subprocess.Popen[bytes]] = []

    def daemon(*words: object) -> None:
        with open(folder / "daemons.log", "ab") as log:
            running.append(subprocess.Popen([*map(str, words)], stdout=log, stderr=log))

    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    made = Slurm(folder)
    try:
        daemon(
            "munged", "-F", "-f", f"--socket={folder}/munge.socket", f"--key-file={key}",
            f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        made.until((folder / "munge.socket").exists, "munge", 10)
        daemon("slurmctld", "-D", "-c")
        for node in NODES:
            daemon("slurmd", "-D", "-N", node)
        made.until(lambda: _idle(made) == len(NODES), "idle nodes", 30)
        yield made
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            made.call("scancel", "-u", "root")
            made.until(lambda: not made.queue(), "an empty queue", 30)
        for one in reversed(running):
            one.send_signal(signal.SIGTERM)
        for one in reversed(running):
            try:
                one.wait(20)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _idle(slurm: Slurm) -> int:
    try:
        return slurm.call("sinfo", "-h", "-N", "-t", "idle", "-p", "small", "-o", "%N").count("n")
    except subprocess.SubprocessError:
        return 0
