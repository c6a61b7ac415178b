"""Where jobs stand: what their drivers write, and what is said of drivers that cannot write any more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.job.conftest import Site, call
from vehclust_dask.blocks import Progress
from vehclust_dask.errors import BadInput, Interrupted, RunMissing
from vehclust_dask.job import status, telling
from vehclust_dask.job.status import Report, read_status, reporting, status_lines, write_status
from vehclust_dask.job.telling import Teller
from vehclust_dask.place import OpenPlace


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def first_record(workdir: Path, job: str = "one", **changes: Any) -> None:
    """Write the record of a job that runs on this machine, in this process, with changes."""
    Report(workdir, job, "run", Teller(quiet=True)).note()
    record = json.loads((workdir / "status" / f"{job}.json").read_text())
    write_status(workdir, record | changes)


def state_of(workdir: Path, **changes: Any) -> str:
    first_record(workdir, **changes)
    (record,) = read_status(workdir, "one")
    return str(record["state"])


def answer(monkeypatch: pytest.MonkeyPatch, queue: dict[str, tuple[str, str]] | None) -> None:
    """Let Slurm say what is in the queue, or nothing at all."""
    monkeypatch.setattr(status.shutil, "which", lambda word: f"/usr/bin/{word}")
    monkeypatch.setattr(status, "queue_states", lambda user: queue)


@pytest.fixture
def dead() -> int:
    """Return the number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_run__leaves_a_record_of_its_end(site: Site) -> None:
    folder = site.finished(site.job())
    file = site.workdir / "status" / "small.json"
    record = json.loads(file.read_text())
    assert record["state"] == "finished"
    assert record["run"] == folder.name
    assert record["exit_code"] == 0
    assert record["pid"] == os.getpid()
    assert record["host"] == socket.gethostname()
    assert file.stat().st_mode & 0o777 & ~0o644 == 0
    assert not list(file.parent.glob(".*"))
    for name in ("small", folder.name, folder.name[:8]):
        said = call("status", name, "--workdir", site.workdir)
        assert said.out.startswith(f"small: finished: {folder.name}")
    assert json.loads(call("status", "small", "--workdir", site.workdir, "--json").out)["run"]
    (only,) = json.loads(call("status", "--workdir", site.workdir, "--json").out)
    assert only["job"] == "small"


def test_run__leaves_a_record_of_its_failure(site: Site) -> None:
    site.save("a.npy", np.full((300, 6), np.nan, np.float32))
    assert site.run(site.job()).code == 3
    (record,) = read_status(site.workdir)
    assert (record["state"], record["exit_code"]) == ("failed", 3)
    assert status_lines(record)[0].startswith(
        "small: failed (3): a holds NaN or infinity in 300 rows"
    )


def test_convert__leaves_a_record(site: Site) -> None:
    assert site.run(site.job(), command="convert").code == 0
    (record,) = read_status(site.workdir)
    assert (record["state"], record["command"]) == ("finished", "convert")


@pytest.mark.parametrize(
    ("error", "state", "code", "said"),
    [
        (BadInput("no s3://me:word@host/a"), "failed", 3, "no s3://host/a"),
        (ValueError("a\nb"), "failed", 1, "ValueError: a b"),
        (OSError(28, "No space left on device"), "failed", 4, "OSError: "),
        (Interrupted("stopped by SIGTERM; more"), "stopped", 130, "stopped by SIGTERM"),
        (KeyboardInterrupt(), "stopped", 130, "stopped by KeyboardInterrupt"),
    ],
)
def test_reporting__has_the_end_as_the_last_word(
    tmp_path: Path, error: BaseException, state: str, code: int, said: str
) -> None:
    def fail() -> None:
        with reporting(tmp_path, "one", "run", Teller(quiet=True)) as report:
            report.opened(OpenPlace(None, None, "http://127.0.0.1:8787/status", 2, 0))
            (record,) = read_status(tmp_path)
            assert record["state"] == "running"
            assert record["tunnel"].startswith("ssh -L 8787:")
            raise error

    with pytest.raises(type(error)):
        fail()
    (record,) = read_status(tmp_path)
    assert (record["state"], record["exit_code"]) == (state, code)
    assert record["error"].startswith(said)
    assert record["dashboard"] is None


def test_reporting__is_kept_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: clock[0])
    teller = Teller(quiet=True)
    report = Report(tmp_path, "one", "run", teller)
    report.note()
    assert status_lines(read_status(tmp_path)[0])[0] == "one: running: no workers yet"
    teller.listen(Progress("kmeans", 0, 40))
    clock[0] += 4
    teller.listen(Progress("kmeans", 10, 40))
    report.note(workers=2)
    (record,) = read_status(tmp_path)
    assert (record["step"], record["done"], record["total"]) == ("kmeans", 10, 40)
    assert (record["rate"], record["seconds_left"]) == (2.5, 12.0)
    line = "one: running kmeans: 10/40 tasks, 2.5 a second, 12 s left"
    assert status_lines(record)[0] == line
    teller.listen(Progress("ward", 0, 1, "1,200 of 3,400 clusters left"))
    report.note()
    line = "one: running ward: 1,200 of 3,400 clusters left"
    assert status_lines(read_status(tmp_path)[0])[0] == line


def test_reporting__beats_while_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "NOTE_EVERY", 0.01)
    file = tmp_path / "status" / "one.json"
    with reporting(tmp_path, "one", "run", Teller(quiet=True)):
        first = file.stat().st_ino
        for _ in range(1000):
            if file.stat().st_ino != first:
                break
            status.time.sleep(0.01)
        assert file.stat().st_ino != first


def test_reporting__never_stops_a_job(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("no folder")
    with reporting(tmp_path, "one", "run", Teller(quiet=True)) as report:
        report.note(run="x")


def test_status__of_a_process_that_runs(tmp_path: Path) -> None:
    assert state_of(tmp_path) == "running"
    assert state_of(tmp_path, heartbeat=ago(0), pid=1) == "running"


def test_status__of_a_process_that_is_gone(tmp_path: Path, dead: int) -> None:
    assert state_of(tmp_path, pid=dead) == "running", "it was heard of a moment ago"
    assert state_of(tmp_path, pid=dead, heartbeat=ago(60)) == "lost"
    line = status_lines(read_status(tmp_path)[0])[0]
    assert line == "one: lost: run it again, it goes on"


def test_status__does_not_take_a_later_process_for_the_driver(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert state_of(tmp_path, pid=other.pid, heartbeat=ago(600)) == "lost"
        other.communicate(b"\n")


def test_status__of_another_machine_goes_by_silence(tmp_path: Path) -> None:
    assert state_of(tmp_path, host="elsewhere", heartbeat=ago(60)) == "running"
    assert state_of(tmp_path, host="elsewhere", heartbeat=ago(600)) == "lost"
    assert state_of(tmp_path, host="elsewhere", heartbeat=ago(600), state="failed") == "failed"


@pytest.mark.parametrize(
    ("state", "queue", "shown"),
    [
        ("queued", {"7": ("PENDING", "Priority")}, "queued"),
        ("queued", {"7": ("RUNNING", "None")}, "running"),
        ("queued", {"8": ("PENDING", "Priority")}, "lost"),
        ("queued", None, "queued"),
        ("running", {"7": ("RUNNING", "None")}, "running"),
        ("running", {"7": ("PENDING", "BeginTime")}, "queued"),
        ("running", {}, "lost"),
        ("stopped", {"7": ("PENDING", "BeginTime")}, "queued"),
        ("stopped", {}, "stopped"),
        ("finished", {"7": ("COMPLETING", "None")}, "finished"),
    ],
)
def test_status__of_a_driver_in_the_queue_goes_by_the_queue(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    queue: dict[str, tuple[str, str]] | None,
    shown: str,
) -> None:
    answer(monkeypatch, queue)
    words = {"state": state, "slurm_job": "7", "host": "elsewhere", "heartbeat": ago(60)}
    assert state_of(tmp_path, **words) == shown
    if queue == {"7": ("PENDING", "Priority")}:
        lines = status_lines(read_status(tmp_path)[0])
        assert lines[0] == "one: queued: PENDING (Priority)"


def test_status__lists_all_jobs_the_newest_first(tmp_path: Path) -> None:
    for job, began in (("old", 90), ("new", 10), ("mid", 50)):
        first_record(tmp_path, job, began=ago(began))
    (tmp_path / "status" / "broken.json").write_text("{")
    (tmp_path / "status" / "other.json").write_text("[]")
    assert [one["job"] for one in read_status(tmp_path)] == ["new", "mid", "old"]
    with pytest.raises(RunMissing, match=r"no job or run 'mit' .* did you mean 'mid'"):
        read_status(tmp_path, "mit")
    with pytest.raises(RunMissing, match="no job has run there"):
        read_status(tmp_path / "absent", "mid")
    said = call("status", "--workdir", tmp_path / "absent")
    assert "no job has run" in said.out
