"""The command line: quick help, exit codes, one sentence for every mistake."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.job.conftest import Ended, Site, call, no_cluster
from vehclust_dask.job import run

HEAVY = (
    "numpy",
    "pandas",
    "dask",
    "distributed",
    "zarr",
    "numba",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "PIL",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(run, "open_place", no_cluster)
    monkeypatch.setattr(run, "draw_figures", lambda *args: None)
    return Site(tmp_path)


def sentence(ended: Ended, code: int, *words: str) -> None:
    """Check the exit code and that there is one sentence with these words, and nothing else."""
    assert ended.code == code, (ended.code, ended.err)
    (line,) = [
        line for line in ended.err.splitlines() if not line.startswith(("Usage", "Try", " "))
    ] or [""]
    assert line.startswith(("vehclust: ", "Error: ")), ended.err
    for word in words:
        assert word in line, line
    assert "Traceback" not in ended.err
    assert ended.out == ""


def unseen(site: Site) -> None:
    """Check that nothing can be seen of a run or a part that came to nothing."""
    assert not list(site.workdir.rglob("part-*/part.json"))
    assert call("runs", "list", "--workdir", site.workdir).out == "no finished runs\n"


def test_help__needs_none_of_the_heavy_packages() -> None:
    heavy = f"[m for m in {HEAVY!r} if m in sys.modules]"
    program = (
        "import sys, json\nfrom vehclust_dask.cli import main\n"
        "main(['--help'])\n"
        f"print(json.dumps({heavy}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads(done.stderr) == []
    for command in ("init", "demo", "convert", "plan", "run", "runs", "export", "doctor"):
        assert f"\n  {command} " in done.stdout


def test_help__comes_in_half_a_second_of_processor_time() -> None:
    def seconds() -> float:
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "vehclust_dask.cli", "--help"], check=True, capture_output=True
        )
        after = os.times()
        used = after.children_user - before.children_user
        return used + after.children_system - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize(
    "args", [("rum",), ("run",), ("run", "a.yaml", "--verfy"), ("export", "csv")]
)
def test_usage__exits_2(args: tuple[str, ...]) -> None:
    ended = call(*args)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_version__is_printed() -> None:
    from vehclust_dask import __version__

    assert call("--version").out == f"vehclust, version {__version__}\n"


class Planted:
    """Pickles to a call that would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


Spoil = Callable[[Site], Path]


def text_file(site: Site) -> Path:
    file = site.folder / "bad.pickle"
    file.write_text("this is no pickle")
    return file


def planted(site: Site) -> Path:
    file = site.folder / "bad.pickle"
    file.write_bytes(pickle.dumps(Planted(site.folder / "executed")))
    return file


def truncated(site: Site) -> Path:
    file = site.folder / "bad.pickle"
    content = pickle.dumps(site.A)
    file.write_bytes(content[: len(content) // 2])
    return file


def array(X: np.ndarray) -> Spoil:
    def save(site: Site) -> Path:
        np.save(site.folder / "bad.npy", X)
        return site.folder / "bad.npy"

    return save


def cut_npy(site: Site) -> Path:
    file = array(site.A)(site)
    file.write_bytes(file.read_bytes()[:-7])
    return file


def absent(site: Site) -> Path:
    return site.folder / "aa.npy"


BAD_SOURCES: list[tuple[str, Spoil, str]] = [
    ("text", text_file, "pickle"),
    ("code", planted, "system"),
    ("truncated", truncated, "end"),
    ("cut npy", cut_npy, ""),
    ("objects", array(np.array([["a", None]], dtype=object)), "object"),
    ("1-D", array(np.zeros(300, np.float32)), "(300,)"),
    ("3-D", array(np.zeros((300, 2, 2), np.float32)), "(300, 2, 2)"),
    ("no rows", array(np.zeros((0, 4), np.float32)), "0"),
    ("absent", absent, "did you mean 'a.npy'"),
]


@pytest.mark.parametrize("command", ["plan", "convert", "run"])
@pytest.mark.parametrize(
    ("spoil", "word"), [b[1:] for b in BAD_SOURCES], ids=[b[0] for b in BAD_SOURCES]
)
def test_source__that_is_no_matrix_exits_3(
    site: Site, spoil: Spoil, word: str, command: str
) -> None:
    file = spoil(site)
    ended = site.run(
        site.job(data={"descriptors": {"a": file.name, "b": "b.npy"}}), command=command
    )
    sentence(ended, 3, str(file), word)
    assert not (site.folder / "executed").exists()
    unseen(site)


def rows_differ(site: Site) -> dict[str, Any]:
    site.save("b.npy", site.B[:-1])
    return {}


def paths_differ(site: Site) -> dict[str, Any]:
    site.write_paths(site.paths[:-1])
    return {}


def paths_twice(site: Site) -> dict[str, Any]:
    site.write_paths([*site.paths[:-1], site.paths[5]])
    return {}


def photos_absent(site: Site) -> dict[str, Any]:
    (site.folder / "photos").mkdir()
    return {"photos": "photos"}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (rows_differ, ("299 rows", "300", "files that fit together")),
        (paths_differ, ("299 rows", "300", "row i of the paths")),
        (paths_twice, ("w/0/0001/00005.jpg",)),
        (photos_absent, ("photos",)),
    ],
)
@pytest.mark.parametrize("command", ["convert", "run"])
def test_data__that_do_not_fit_exit_3(
    site: Site, spoil: Callable[[Site], dict[str, Any]], words: tuple[str, ...], command: str
) -> None:
    data = spoil(site)
    sentence(site.run(site.job(data=data), "--quiet", command=command), 3, *words)
    unseen(site)


def test_photos__of_which_some_are_missing_are_one_line(site: Site) -> None:
    from PIL import Image

    (site.folder / "photos" / "w").mkdir(parents=True)
    for path in site.paths[:3]:
        file = site.folder / "photos" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(file)
    ended = site.run(site.job(data={"photos": "photos"}), command="convert")
    assert ended.code == 0
    assert f"297 of 300 photos are missing, the first is {site.paths[3]}" in ended.err


def test_job__that_is_misspelt_names_the_nearest_word(site: Site) -> None:
    for command in ("plan", "convert", "run"):
        job = site.job(data={"descriptrs": {"a": "a.npy"}})
        sentence(site.run(job, command=command), 2, str(job), "descriptrs", "descriptors")
    unseen(site)


def test_job__that_is_not_there_exits_2(site: Site) -> None:
    for command in ("plan", "convert", "run"):
        sentence(site.run(site.folder / "absent.yaml", command=command), 2, "absent.yaml")
    unseen(site)


def test_place__that_is_misspelt_names_the_nearest_word(site: Site) -> None:
    file = site.folder / "place.yaml"
    file.write_text("kind: local\nmemory_limits: 1GiB\n")
    for command in ("convert", "run"):
        ended = site.run(site.job(), "--cluster", file, command=command)
        sentence(ended, 2, str(file), "memory_limits", "did you mean 'memory_limit'")
    unseen(site)


@pytest.mark.parametrize("how", ["option", "variable", "file"])
def test_scheduler__beyond_this_machine_is_refused(
    site: Site, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "tcp://10.0.0.5:8786"
    more: tuple[object, ...] = ()
    if how == "option":
        more = ("--scheduler", address)
    elif how == "variable":
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    else:
        (site.folder / "place.yaml").write_text(f"kind: address\naddress: {address}\n")
        more = ("--cluster", site.folder / "place.yaml")
    sentence(site.run(site.job(), *more), 2, address, "'insecure: true'")
    unseen(site)


def test_scheduler__that_does_not_answer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setattr("vehclust_dask.place.address.ANSWER_WITHIN", "1s")
    site = Site(tmp_path)
    ended = site.run(site.job(), "--scheduler", f"tcp://127.0.0.1:{port}")
    sentence(ended, 1, f"no scheduler answers at tcp://127.0.0.1:{port}", "dask scheduler")


def test_workdir__that_cannot_be_written_exits_2(site: Site) -> None:
    below = site.folder / "a.npy" / "work"
    for command in ("plan", "convert", "run"):
        sentence(call(command, site.job(), "--workdir", below), 2, str(below), "--workdir")
    sentence(
        call("run", site.job(), "--workdir", "gopher://bucket/work"),
        2,
        "gopher://bucket/work",
        "give a path",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_workdir__of_somebody_else_exits_2(site: Site) -> None:
    site.folder.chmod(0o500)
    sentence(site.run(site.job()), 2, "cannot be written", "--workdir")


def test_disk__too_small_exits_4(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10**9, 10**9 - 5000, 5000))
    for command in ("convert", "run"):
        sentence(site.run(site.job(), command=command), 4, "5.0 kB are free", "--workdir")
    unseen(site)


def test_disk__that_fills_up_is_one_sentence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere/x")

    monkeypatch.setattr(run, "_tables", full)
    ended = site.run(site.job(), "--quiet")
    sentence(ended, 4, "/somewhere/x: No space left on device", "run again")
    assert call("runs", "list", "--workdir", site.workdir).out == "no finished runs\n"


def test_memory__of_a_worker_too_small_exits_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vehclust_dask.place import kinds

    small = replace(kinds.KINDS["local"], open=lambda spec, workdir: _opened(300 * 2**20))
    monkeypatch.setitem(kinds.KINDS, "local", small)
    site = Site(tmp_path)
    sentence(
        site.run(site.job(), "--quiet"), 4, "a worker has 314.6 MB", "67.1 MB", "raise memory_limit"
    )
    unseen(site)


def _opened(limit: int) -> Any:
    import contextlib

    from vehclust_dask.place import OpenPlace

    return contextlib.nullcontext(OpenPlace(None, None, None, 1, limit))


def test_stdout__is_data_and_quiet_is_quiet(site: Site) -> None:
    job = site.job()
    ended = site.run(job, "--quiet", "--json")
    assert ended.err == ""
    record = json.loads(ended.out)
    assert record["job"] == "small"
    assert [s["k"] for s in record["scores"]] == [3, 4]
    assert (Path(record["folder"]) / "job.yaml").read_text() == job.read_text()


@pytest.mark.cluster
def test_stop__while_workers_start_is_one_line_and_leaves_no_process(site: Site) -> None:
    place = site.folder / "place.yaml"
    place.write_text("kind: local\nworkers: 2\nmemory_limit: 1GiB\n")
    words = ["run", site.job(), "--workdir", site.workdir, "--cluster", place]
    process = subprocess.Popen(
        [sys.executable, "-m", "vehclust_dask.cli", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
    )
    driver = psutil.Process(process.pid)
    while len(driver.children(recursive=True)) < 3 and process.poll() is None:
        time.sleep(0.01)
    below = driver.children(recursive=True)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = err.splitlines()
    assert line == "vehclust: stopped by SIGTERM; finished work is kept, the same command goes on"
    assert not [p for p in psutil.wait_procs(below, timeout=10)[1] if p.is_running()]
    unseen(site)
