"""A small job over and over, something killed at a random moment, the same command until it ends.

    python -m benchmarks.soak --soaks 50 --seed 0

Scheduler and workers are processes of their own on loopback. Each time the driver, a worker with or
without its nanny, or the scheduler is killed; what was lost is started again, and so is the job. In
the end every result must have the bytes of the run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

N_ROWS, N_WORKERS = 2000, 2
#: Seconds that one command, or Dask's processes, may take.
PATIENCE = 300
VICTIMS = ("driver", "worker", "nanny and worker", "scheduler")
JOB = """name: soak
seed: 3
data:
  folder: {folder}
  descriptors: {{a: a.npy}}
  block_rows: 128
memory: {{per_task: 128MiB}}
report: {{sheets: none, pages: false}}
studies:
  one:
    descriptors: [a]
    scale: standard
    reduce: {{method: pca, n_components: 8}}
    cluster:
      km: {{method: kmeans, n_clusters: [2, 3, 8], n_init: 2, tol: 0}}
      ward: {{method: ward, n_clusters: [2, 6], n_neighbors: 8}}
    featured: km/3
"""
#: Files that hold times, or are pictures.
EXCEPTED = {"manifest.json", "performance.html", "scores.csv", "scores.parquet"}


@dataclass
class Cluster:
    """A scheduler and workers on loopback."""

    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheduler: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.make_whole()

    def make_whole(self) -> None:
        """Start what is not there, wait until the workers are."""
        from distributed import Client

        if self.scheduler is None or self.scheduler.poll() is not None:
            # Workers end with their scheduler, sooner or later.
            self._end(self.workers)
            self.scheduler = self._dask("scheduler", "--port", str(self.port))
        self.workers = [one for one in self.workers if one.poll() is None]
        while len(self.workers) < N_WORKERS:
            limits = ("--nthreads", "1", "--memory-limit", "1GiB")
            scratch = ("--local-directory", str(self.folder / "scratch"))
            self.workers.append(self._dask("worker", self.address, *limits, *scratch))
        with Client(self.address, timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(N_WORKERS, timeout=PATIENCE)

    def _dask(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self.folder / "dask.log", "ab") as log:
            listen = ("--host", "127.0.0.1", "--no-dashboard")
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *words, *listen],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for one in processes:
            kill_group(one)

    def close(self) -> None:
        """End everything."""
        self._end([*self.workers, *([self.scheduler] if self.scheduler else [])])

    def processes(self) -> list[psutil.Process]:
        """Return scheduler, nannies and workers."""
        mine = [*self.workers, *([self.scheduler] if self.scheduler else [])]
        heads = [psutil.Process(one.pid) for one in mine]
        return [p for head in heads for p in (head, *head.children(recursive=True))]

    def kill(self, victim: str, at: random.Random) -> None:
        """Kill a worker, with or without its nanny, or the scheduler."""
        if victim == "scheduler":
            assert self.scheduler is not None
            kill_group(self.scheduler)
            return
        nanny = at.choice(self.workers)
        if victim == "worker":
            for below in psutil.Process(nanny.pid).children(recursive=True):
                if "spawn_main" in " ".join(below.cmdline()):
                    below.kill()
        else:
            kill_group(nanny)


def kill_group(one: subprocess.Popen[bytes]) -> None:
    """End a process and all it started at once, as a lost machine would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(one.pid, signal.SIGKILL)
    one.wait(60)


@dataclass
class Soak:
    """A job, a cluster for it, and the digests of the run that nobody disturbed."""

    folder: Path

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        types = rng.integers(0, 5, N_ROWS)
        A = (1.2 * rng.normal(size=(5, 32)))[types] + rng.normal(size=(N_ROWS, 32))
        np.save(self.folder / "a.npy", A.astype(np.float32))
        self.job = self.folder / "soak.yaml"
        self.job.write_text(JOB.format(folder=self.folder))
        self.cluster = Cluster(self.folder)

    def calibrate(self) -> None:
        """Run undisturbed, twice: the first run compiles what the second one's time should not hold."""
        for n in range(2):
            began = time.monotonic()
            code, err = self.end(self.begin(self.folder / "whole"))
            self.seconds = time.monotonic() - began
            assert code == 0, err
            self.wanted = digests(self.folder / "whole")
            if n == 0:
                shutil.rmtree(self.folder / "whole")

    def begin(self, workdir: Path) -> subprocess.Popen[bytes]:
        """Start the job."""
        words = ("run", str(self.job), "--workdir", str(workdir), "--quiet")
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "vehclust_dask.cli",
                *words,
                "--scheduler",
                self.cluster.address,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def end(self, one: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Wait for a command's end."""
        _, err = one.communicate(timeout=PATIENCE)
        return one.returncode, err.decode()

    def once(self, number: int, seed: int) -> str:
        """Disturb a run, go on until it ends, compare; return what was killed and when."""
        at = random.Random(f"{seed}-{number}")
        victim, after = at.choice(VICTIMS), at.uniform(0.1, 0.8) * self.seconds
        workdir = self.folder / f"soak-{number}"
        one = self.begin(workdir)
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(after)
        late = one.poll() is not None
        if victim == "driver":
            kill_group(one)
        else:
            self.cluster.kill(victim, at)
        code, err = self.end(one)
        check(victim, code, err, late)
        attempts = 1
        while code != 0:
            self.cluster.make_whole()
            code, err = self.end(self.begin(workdir))
            attempts += 1
            assert attempts <= 3, f"soak {number} does not end: {err}"
        self.cluster.make_whole()
        found = digests(workdir)
        assert found == self.wanted, f"soak {number}, {victim} after {after:.1f} s: other bytes"
        shutil.rmtree(workdir)
        return f"{victim} after {after:.1f} s" + (", too late" if late else f", {attempts} runs")

    def close(self) -> None:
        """End everything."""
        self.cluster.close()


def check(victim: str, code: int, err: str, late: bool) -> None:
    """Check how the disturbed command ended: well, or killed, or with one clear sentence."""
    assert "Traceback" not in err, err
    if victim in ("worker", "nanny and worker") or late:
        assert code == 0, err
    elif victim == "driver":
        assert code == -signal.SIGKILL
    elif code != 0:
        assert code == 1, err
        assert "kept" in err or "no scheduler answers" in err, err


def digests(workdir: Path) -> dict[str, str]:
    """Return a digest of every result."""
    files = [
        file
        for top in ("datasets", "steps", "runs")
        for file in sorted((workdir / top).rglob("*"))
        if file.is_file() and file.name not in EXCEPTED and "figures" not in file.parts
    ]
    return {str(f.relative_to(workdir)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def held(processes: list[psutil.Process]) -> tuple[float, int]:
    """Return private memory, MiB, and open files of processes, summed."""
    memory = sum(p.memory_full_info().uss for p in processes) / 2**20
    return memory, sum(p.num_fds() for p in processes)


def in_a_row(soak: Soak, jobs: int) -> list[tuple[float, int]]:
    """Run jobs one after the other against one cluster; return what it held after each."""
    found = []
    for n in range(jobs):
        workdir = soak.folder / f"row-{n}"
        code, err = soak.end(soak.begin(workdir))
        assert code == 0, err
        shutil.rmtree(workdir)
        found.append(held(soak.cluster.processes()))
    return found


def main() -> None:
    """Soak, then run ten jobs in a row."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--soaks", type=int, default=10)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--jobs", type=int, default=10, help="jobs in a row, for memory and files")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder))
        try:
            soak.calibrate()
            print(f"undisturbed: {soak.seconds:.1f} s", flush=True)
            for n in range(asked.soaks):
                print(f"{n + 1:3d}/{asked.soaks}  {soak.once(n, asked.seed)}", flush=True)
            print(f"{asked.soaks} resumed, same bytes", flush=True)
            for n, (memory, files) in enumerate(in_a_row(soak, asked.jobs), start=1):
                print(f"job {n:2d}: {memory:.0f} MiB, {files} open files", flush=True)
        finally:
            soak.close()


if __name__ == "__main__":
    main()
