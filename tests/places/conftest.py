"""Real schedulers and workers that listen, encrypt or lack our code, and the small case to run there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import (
    Case,
    case,
    digests,
    place_file,
    run_cli,
    start,
)

__all__ = ["case", "start"]

ROOT = Path(__file__).resolve().parents[2]
#: Every way through the store and the workers, little of the mathematics.
STUDIES = """
studies:
  small:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: [2, 3], n_init: 1}
    featured: km/3
"""


@pytest.fixture(scope="session")
def job(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the small job."""
    file = case.job(tmp_path_factory.mktemp("job") / "main.yaml", studies=STUDIES)
    file.write_text(file.read_text().replace("block_rows: 128", "block_rows: 512"))
    return file


@pytest.fixture(scope="session")
def expected(job: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the digests of the job's results on a local place."""
    root = tmp_path_factory.mktemp("local")
    place = place_file(root / "place.yaml", 2, "dashboard: off")
    ended = run_cli("run", job, "--workdir", root / "work", "--cluster", place)
    assert ended.code == 0, ended.err
    return digests(root / "work")


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Say whether anybody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def dask(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``dask ...`` by an interpreter, outside of the project; all end with the tests."""
    away = tmp_path_factory.mktemp("away")
    running: list[subprocess.Popen[bytes]] = []

    def begin(
        *args: object,
        python: str | Path = sys.executable,
        project: Path | None = None,
        **more: str,
    ) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | more
        if project is not None:
            environment["PYTHONPATH"] = str(project)
        one = subprocess.Popen(
            [str(python), "-m", "dask", *map(str, args)],
            cwd=away,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        running.append(one)
        return one

    yield begin
    for one in reversed(running):
        one.terminate()
    for one in running:
        try:
            one.wait(10)
        except subprocess.TimeoutExpired:
            one.kill()


def until(happened: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a moment."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"never came to {what}"
        time.sleep(0.05)
