"""One small case, ways to run the real command line on it, and the run that nobody disturbed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

N_ROWS = 4000
#: Seconds after which a command of these tests hangs.
PATIENCE = 150

#: Small blocks make many tasks; groups that overlap make many passes.
STUDIES = """
studies:
  osnet:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: [2, 3, 8], n_init: 2, tol: 0}
      ward: {method: ward, n_clusters: [2, 6], n_neighbors: 8}
      quick: {method: quick-kmeans, n_clusters: [3, 5], n_init: 2}
      mbk: {method: minibatch-kmeans, n_clusters: 4, n_init: 2, batch_size: 256}
      gm: {method: gaussian-mixture, n_clusters: [2, 5], n_init: 2, max_iter: 5, tol: 0}
      db: {method: dbscan, metric: cosine, min_samples: [3, 9]}
      hdb: {method: hdbscan, min_cluster_size: 30, min_samples: 5}
    featured: km/3
    silhouette: [km/3, ward]
  raw:
    descriptors: [b]
    reduce: none
    cluster:
      km: {method: kmeans, n_clusters: 3, n_init: 2}
"""


def job_text(folder: Path, *, name: str = "main", data: str = "", studies: str = STUDIES) -> str:
    """Return a job on the case; ``data`` adds lines to its data section."""
    return (
        f"name: {name}\nseed: 3\ndata:\n  folder: {folder}\n  dataset: small\n"
        "  descriptors: {a: a.npy, b: b.pickle}\n  paths: paths.csv\n"
        "  group: 'veriwild/\\d+/(\\d+)/'\n  truth: truth.csv\n  block_rows: 128\n"
        f"{data}memory: {{per_task: 128MiB}}\nreport: {{sheets: none, pages: false}}\n{studies}"
    )


@dataclass(frozen=True)
class Case:
    """Files of a small case and what is in them."""

    folder: Path
    A: np.ndarray
    B: np.ndarray
    paths: list[str]
    types: np.ndarray
    colors: np.ndarray

    def job(self, file: Path, **options: Any) -> Path:
        """Write a job file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(job_text(self.folder, **options), encoding="utf-8")
        return file


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Draw the case: overlapping groups of rows in two sets, what is known of them, tiny photos."""
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(1)
    types, colors = rng.integers(0, 5, N_ROWS), rng.integers(0, 3, N_ROWS)
    A = (1.2 * rng.normal(size=(5, 32)))[types] + rng.normal(size=(N_ROWS, 32))
    B = np.abs((3 * rng.normal(size=(3, 24)))[colors] + rng.normal(size=(N_ROWS, 24)))
    A, B = A.astype(np.float32), B.astype(np.float32)
    paths = [f"veriwild/{i % 10}/{i // 6:05d}/{i:06d}.jpg" for i in range(N_ROWS)]
    np.save(folder / "a.npy", A)
    (folder / "b.pickle").write_bytes(pickle.dumps(B, protocol=4))
    (folder / "paths.csv").write_text("\n".join(["path", *paths]) + "\n")
    known = {"path": paths, "type": types, "color": np.where(np.arange(N_ROWS) % 7, colors, -1)}
    truth = pd.DataFrame(known).astype(str).replace({"color": {"-1": ""}})
    truth.sample(frac=1, random_state=0).to_csv(folder / "truth.csv", index=False)
    with zipfile.ZipFile(folder / "photos.zip", "w") as members:
        for i, path in enumerate(paths):
            drawn = io.BytesIO()
            Image.new("RGB", (24, 16), (40 * types[i], 60 * colors[i], i % 255)).save(drawn, "JPEG")
            members.writestr(path, drawn.getvalue())
    return Case(folder, A, B, paths, types, colors)


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str


def command(*args: object, before: str = "") -> list[str]:
    """Return the real command line; ``before`` is Python that runs first in its process."""
    start = ["-m", "vehclust_dask.cli"]
    if before:
        start = ["-c", f"{before}\nfrom vehclust_dask.cli import main\nmain()"]
    return [sys.executable, *start, *map(str, args)]


def run_cli(*args: object, before: str = "") -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        command(*args, before=before), capture_output=True, text=True, timeout=PATIENCE
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Started:
    """A command under way, in a process group of its own."""

    def __init__(self, *args: object, before: str = "") -> None:
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command(*args, before=before),
            stdout=subprocess.DEVNULL,
            stderr=self._err,
            start_new_session=True,
        )
        self.tree = psutil.Process(self.process.pid)

    def children(self) -> list[psutil.Process]:
        """Return all processes below."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.tree.children(recursive=True)
        return []

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return [p for p in self.children() if "spawn_main" in " ".join(_cmdline(p))]

    def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for a moment while the command runs."""
        end = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.stderr()}"
            assert time.monotonic() < end, f"never came to {what}"
            time.sleep(0.001)

    def kill_all(self) -> None:
        """End the driver and everything below at once, as a lost machine would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def wait(self) -> Ended:
        """Wait for the end."""
        code = self.process.wait(PATIENCE)
        return Ended(code, "", self.stderr())

    def stderr(self) -> str:
        """Return what was printed for the person so far."""
        return os.pread(self._err.fileno(), 10**6, 0).decode()

    def close(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self._err.close()


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Start commands; whatever still runs at the end of the test is ended."""
    running: list[Started] = []

    def begin(*args: object, before: str = "") -> Started:
        running.append(Started(*args, before=before))
        return running[-1]

    yield begin
    for one in running:
        one.close()


@dataclass
class Seen:
    """What was seen of the processes of a command while it ran."""

    listening: set[str] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)

    def look(self, one: Started) -> None:
        """Note who listens where, and what the dashboard answers."""
        for process in (one.tree, *one.children()):
            with contextlib.suppress(psutil.Error):
                for socket_ in process.net_connections("tcp"):
                    if socket_.status == psutil.CONN_LISTEN:
                        self.listening.add(socket_.laddr.ip)
                        self.ports.add(socket_.laddr.port)
        shown = re.search(r"http://127\.0\.0\.1:\d+/status", one.stderr())
        if shown and not self.answered:
            with contextlib.suppress(OSError), urllib.request.urlopen(shown[0], timeout=5) as page:
                self.answered.add(page.status)


@dataclass(frozen=True)
class Reference:
    """The run that nobody disturbed."""

    workdir: Path
    ended: Ended
    seen: Seen
    busy_port: int
    place: Path
    job: Path
    digests: dict[str, str]


def place_file(file: Path, workers: int, *more: str) -> Path:
    """Write a local place."""
    lines = ["kind: local", f"workers: {workers}", "memory_limit: 1GiB", *more]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def reference(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Run the job on two local workers, and look at its processes meanwhile."""
    root = tmp_path_factory.mktemp("reference")
    job = case.job(root / "main.yaml")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        place = place_file(root / "place.yaml", 2, f"dashboard: {port}")
        one = Started("run", job, "--workdir", root / "work", "--cluster", place)
        seen = Seen()
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.3):
                seen.look(one)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            ended = one.wait()
        finally:
            stop.set()
            watcher.join()
            one.close()
    assert ended.code == 0, ended.err
    return Reference(root / "work", ended, seen, port, place, job, digests(root / "work"))


@pytest.fixture(scope="session")
def warm() -> Iterator[str]:
    """Return the address of a scheduler with three workers, two of one thread and one of two."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    one_process = ["--no-nanny", "--memory-limit", "1GiB"]
    listen = ["--host", "127.0.0.1", "--no-dashboard"]
    kept = [
        subprocess.Popen([*dask, "scheduler", "--port", str(port), *listen], **quiet),
        *(
            subprocess.Popen(
                [*dask, "worker", address, "--nthreads", str(threads), *one_process, *listen],
                **quiet,
            )
            for threads in (1, 2, 1)
        ),
    ]
    _wait_for_workers(address, 3)
    yield address
    for process in kept:
        process.kill()
        process.wait()


def _wait_for_workers(address: str, n: int) -> None:
    from distributed import Client

    with Client(address, timeout="60s", set_as_default=False) as client:
        client.wait_for_workers(n, timeout=60)


#: Columns that hold times and memory, which differ from run to run.
MEASURED = ["seconds", "peak_mb"]
#: Files that hold times, or are pictures.
EXCEPTED = {"manifest.json", "performance.html", "scores.csv"}


def digests(workdir: Path) -> dict[str, str]:
    """Return a digest of every result below a work folder, named as in that folder."""
    found = {}
    for top in ("datasets", "steps", "runs"):
        for file in sorted((workdir / top).rglob("*")):
            if not file.is_file() or file.name in EXCEPTED or "figures" in file.parts:
                continue
            content = file.read_bytes()
            if file.name == "scores.parquet" and top == "runs":
                content = pd.read_parquet(file).drop(columns=MEASURED).to_csv().encode()
            found[str(file.relative_to(workdir))] = hashlib.sha256(content).hexdigest()
    return found


def run_of(workdir: Path, name: str = "main") -> Path:
    """Return the folder of the only finished run of a job."""
    (folder,) = [f.parent for f in (workdir / "runs").glob(f"{name}-*/manifest.json")]
    return folder
