"""What a local place opens to others and takes from the machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.end_to_end.conftest import Reference, Started, place_file

pytestmark = pytest.mark.cluster


def test_local_place__listens_on_loopback_alone(reference: Reference) -> None:
    assert reference.seen.listening == {"127.0.0.1"}


def test_local_place__shows_the_dashboard_at_the_next_free_port(reference: Reference) -> None:
    found = re.search(r"http://127\.0\.0\.1:(\d+)/status", reference.ended.err)
    assert found is not None
    port = int(found[1])
    assert reference.busy_port < port < reference.busy_port + 200
    assert port in reference.seen.ports
    assert reference.seen.answered == {200}
    assert "ssh -L" in reference.ended.err


def test_local_place__leaves_nothing_in_the_work_folder_but_results(reference: Reference) -> None:
    assert {f.name for f in reference.workdir.iterdir()} == {
        "dask", "datasets", "locks", "notes", "runs", "status", "steps",
    }  # fmt: skip
    assert not [f for f in (reference.workdir / "dask").rglob("*") if f.suffix not in (".lock", "")]


def test_convert__takes_little_memory(tmp_path: Path, start: Callable[..., Started]) -> None:
    source = tmp_path / "big.npy"
    rows = np.lib.format.open_memmap(source, mode="w+", dtype=np.float32, shape=(260_000, 400))
    rows[:] = np.arange(400, dtype=np.float32)
    rows.flush()
    del rows
    job = tmp_path / "big.yaml"
    job.write_text(
        f"name: big\ndata:\n  descriptors: {{a: {source}}}\nmemory: {{per_task: 256MiB}}\n"
    )
    place = place_file(tmp_path / "place.yaml", 2, "dashboard: off")
    one = start("convert", job, "--workdir", tmp_path / "work", "--cluster", place)
    base: dict[int, int] = {}
    peak: dict[int, int] = {}

    def look() -> None:
        begun = any((tmp_path / "work").glob("datasets/big/a.zarr/.part-*"))
        for worker in one.workers():
            try:
                held = worker.memory_full_info().uss
            except psutil.Error:
                continue
            seen = peak if begun else base
            seen[worker.pid] = max(seen.get(worker.pid, 0), held)

    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ended = one.wait()
    finally:
        stop.set()
        watcher.join()
        source.unlink()
    assert ended.code == 0, ended.err
    growth = {pid: (peak[pid] - base[pid]) / 2**20 for pid in peak if pid in base}
    assert len(growth) == 2
    assert max(growth.values()) <= 150, growth
    (chunks,) = (tmp_path / "work").glob("datasets/big/a.zarr/part-*/X/c")
    assert sum(f.stat().st_size for f in chunks.rglob("0")) >= 260_000 * 400 * 4
