"""The disk fills while a job runs: one sentence, nothing half, and on with more room."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.components import need_root
from tests.end_to_end.conftest import Case, Started, digests, place_file, run_cli
from tests.faults.test_hosts import STUDIES
from vehclust_dask.job.run import list_runs

pytestmark = pytest.mark.cluster


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    need_root("a disk of its own")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "vc-disk", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Take all the room there is, as another program would."""
    with contextlib.suppress(OSError), open(disk / "ballast", "ab", buffering=0) as ballast:
        while True:
            ballast.write(bytes(1 << 16))


def test_job__a_disk_that_fills_is_told_and_more_room_goes_on(
    case: Case, disk: Path, tmp_path: Path, start: Callable[..., Started]
) -> None:
    job = case.job(tmp_path / "main.yaml", studies=STUDIES)
    # Workers put their own files elsewhere.
    scratch = f"local_directory: {tmp_path / 'scratch'}"
    place = place_file(tmp_path / "two.yaml", 2, "dashboard: off", scratch)
    whole = run_cli("run", job, "--workdir", tmp_path / "whole", "--cluster", place)
    assert whole.code == 0, whole.err
    workdir = disk / "work"
    words = ("run", job, "--workdir", workdir, "--cluster", place)
    one = start(*words)
    one.until(lambda: any(workdir.glob("steps/moments-*")), "moments")
    fill(disk)
    ended = one.wait()
    assert ended.code == 4, ended.err
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("vehclust: ")]
    assert "No space left on device; finished work is kept, mend it and run again" in line
    assert list_runs(workdir) == []
    steps = [s for s in workdir.glob("steps/*") if not s.name.endswith(".partial")]
    assert all((step / "manifest.json").is_file() for step in steps)
    subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
    again = run_cli(*words)
    assert again.code == 0, again.err
    assert digests(workdir) == digests(tmp_path / "whole")
