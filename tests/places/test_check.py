"""``vehclust cluster check`` on workers that suit a job, and on some that do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.end_to_end.conftest import run_cli
from tests.places.conftest import ROOT, free_port, listening, until
from vehclust_dask.place import checking, code
from vehclust_dask.place.asking import read_probes, unreadable, write_probe
from vehclust_dask.place.checking import WorkerSeen, blas_warnings, memory_reasons

GIB = 1 << 30


def seen(*blas: str, limit: int = GIB) -> WorkerSeen:
    return WorkerSeen("tcp://a:1", "a", 1, limit, list(blas))


def test_blas_warnings__tell_kernels_that_differ() -> None:
    assert blas_warnings([seen("openblas Haswell")] * 2, ["openblas Haswell"]) == []
    (told,) = blas_warnings([seen("openblas Haswell"), seen("openblas Zen")], ["openblas Zen"])
    assert "1 with openblas Haswell; 1 with openblas Zen" in told
    (told,) = blas_warnings([seen("openblas Haswell")], ["openblas Zen"])
    assert "(openblas Haswell) are not this machine's (openblas Zen)" in told


def test_memory_reasons__name_a_worker_that_is_too_small() -> None:
    assert memory_reasons([seen(limit=GIB), seen(limit=0)], GIB // 2) == []
    (told,) = memory_reasons([seen(limit=GIB)], GIB)
    assert "worker tcp://a:1 has 1.1 GB, but needs 367.0 MB for itself beside 1.1 GB" in told


class Workers:
    """Workers of which each sees a folder of its own where the driver's is asked for."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self.folders}

    def run(
        self, question: Callable[..., Any], folder: Path, *args: Any, workers: list[str]
    ) -> dict[str, Any]:
        return {one: question(self.folders[one], *args) for one in workers}


def test_storage__finds_a_folder_that_only_has_the_same_name(tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    other.mkdir()
    assert checking.storage_reasons(Workers({"tcp://a": work, "tcp://b": work}), work) == []
    (told,) = checking.storage_reasons(Workers({"tcp://a": work, "tcp://b": other}), work)
    assert told.startswith(f"worker tcp://b, work folder {work}: does not see the driver's file")
    (told,) = checking.storage_reasons(Workers({"tcp://a": tmp_path / "absent"}), work)
    assert "does not see the driver's file" in told
    assert not list(work.iterdir())
    assert not list(other.iterdir())


def test_read_probes__misses_what_another_wrote_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    (tmp_path / "m-driver").write_bytes(b"m")
    assert write_probe(tmp_path, "m", "w") is None
    assert read_probes(tmp_path, "m", ["w", "v"]) == ["v"]
    (tmp_path / "m-driver").write_bytes(b"another")
    assert write_probe(tmp_path, "m", "w") == "reads something else in the driver's file"


def test_unreadable__names_what_cannot_be_read(tmp_path: Path) -> None:
    there = str(tmp_path)
    assert unreadable([there, f"{there}/absent"]) == [f"{there}/absent"]


def test_differences__name_both_versions_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = code.installed(code.COMPARED)
    theirs = ours | {"numpy": "1.0", "zarr": None, code.OURS: "0.0.9"}
    monkeypatch.setattr(code, "ask_workers", lambda *args: {"tcp://a": theirs})
    monkeypatch.setattr(code, "ask_scheduler", lambda *args: ours | {"dask": "1.2"})
    told = "\n".join(code.version_differences(SimpleNamespace()))
    here = ours["numpy"]
    assert f"worker tcp://a has numpy 1.0, here is {here}; install numpy {here} there" in told
    assert f"worker tcp://a cannot import zarr, here is {ours['zarr']}" in told
    assert f"worker tcp://a has vehclust_dask 0.0.9, this is {ours[code.OURS]}" in told
    assert "say 'code: upload'" in told
    assert f"the scheduler has dask 1.2, here is {ours['dask']}" in told
    assert len(told.splitlines()) == 4


def test_python__of_another_line_is_refused_before_anything_is_sent() -> None:
    host = {"host": {"python": "3.9.1.final.0"}}
    client = SimpleNamespace(get_versions=lambda: {"scheduler": host, "workers": {}})
    with pytest.raises(code.VehclustError, match=r"the scheduler runs Python 3\.9\.1, this is 3\."):
        code.bring_code(client, "upload")


def test_pack_code__is_the_same_for_the_same_files_and_another_for_others(tmp_path: Path) -> None:
    package = tmp_path / "one"
    (package / "__pycache__").mkdir(parents=True)
    (package / "a.py").write_text("a = 1\n")
    first = code.pack_code(package)[1]
    (package / "__pycache__" / "a.pyc").write_bytes(b"x")
    assert code.pack_code(package)[1] == first
    (package / "a.py").write_text("a = 2\n")
    assert code.pack_code(package)[1] != first


@pytest.mark.cluster
def test_check__tells_of_workers_storage_sources_and_memory(
    dask: Callable[..., object], job: Path, tmp_path: Path
) -> None:
    port = free_port()
    listen = ("--host", "127.0.0.1", "--no-dashboard")
    dask("scheduler", "--port", port, *listen, project=ROOT)
    until(lambda: listening(port), "a scheduler")
    sizes = ("--nthreads", 1, "--no-nanny", "--memory-limit", "1GiB")
    dask("worker", f"tcp://127.0.0.1:{port}", *sizes, *listen, project=ROOT)
    file = tmp_path / "place.yaml"
    file.write_text(f"kind: address\naddress: tcp://127.0.0.1:{port}\n")
    work = tmp_path / "work"
    ended = run_cli("cluster", "check", file, "--workdir", work, "--job", job, "--json")
    assert ended.code == 0, ended.out + ended.err
    record = json.loads(ended.out)
    assert record["well"]
    assert record["reasons"] == []
    (worker,) = record["workers"]
    assert (worker["threads"], worker["memory_limit"]) == (1, GIB)
    assert not list(work.glob(".probe*"))
    large = job.parent / "large.yaml"
    large.write_text(job.read_text().replace("128MiB", "900MiB"))
    ended = run_cli("cluster", "check", file, "--workdir", work, "--job", large)
    assert ended.code == 1
    assert "BAD        worker tcp://127.0.0.1" in ended.out
    assert "raise memory_limit or lower the job's memory.per_task" in ended.out


def test_cluster_help__is_light() -> None:
    before = "import atexit; atexit.register(lambda: print([m for m in sys.modules if m in heavy]))"
    names = "heavy = {'dask', 'distributed', 'numpy', 'pandas', 'cryptography', 'yaml'}"
    ended = run_cli("cluster", "--help", before=f"import sys\n{names}\n{before}")
    assert ended.out.rstrip().endswith("[]"), ended.out
    assert sys.executable
