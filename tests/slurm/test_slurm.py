"""On a real Slurm: the same bytes as on this machine, whatever ends worker jobs or the driver."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.conftest import Case, Ended, Started, digests, place_file, run_cli
from tests.slurm.conftest import Slurm
from vehclust_dask.errors import VehclustError
from vehclust_dask.job.status import read_status
from vehclust_dask.place import open_place, place_from

pytestmark = pytest.mark.cluster

STUDIES = """
studies:
  osnet:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: [2, 3, 8], n_init: 2, tol: 0}
    featured: km/3
"""
WORKERS = "vehclust-worker"


def slurm_place(file: Path, **keys: Any) -> Path:
    """Write a Slurm place that fits the small nodes."""
    content = {"kind": "slurm", "jobs": 2, "memory_limit": "1GiB", "walltime": "00:30:00"}
    content |= {"driver_memory": "1GiB", "dashboard": "off", "start_within": "00:02:00"} | keys
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(scope="module")
def job(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.job(tmp_path_factory.mktemp("job") / "main.yaml", studies=STUDIES)


@pytest.fixture(scope="module")
def expected(job: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the results of a run on this machine."""
    folder = tmp_path_factory.mktemp("local")
    place = place_file(folder / "place.yaml", 2, "dashboard: off")
    ended = run_cli("run", job, "--workdir", folder / "work", "--cluster", place)
    assert ended.code == 0, ended.err
    return digests(folder / "work")


def status(workdir: Path) -> dict[str, Any]:
    """Return where the job stands."""
    (record,) = read_status(workdir, "main")
    return record


def check_clean(slurm: Slurm, workdir: Path) -> None:
    """Check that no job and no key is left."""
    slurm.until(lambda: not slurm.queue(), "an empty queue", 30)
    assert not (workdir / ".private").exists()


def test_worker_job__that_is_cancelled_is_replaced(
    slurm: Slurm, job: Path, expected: dict[str, str], tmp_path: Path, start: Callable[..., Started]
) -> None:
    workdir = tmp_path / "work"
    place = slurm_place(tmp_path / "place.yaml", workers_per_job=2, memory_limit="768MiB")
    one = start("run", job, "--workdir", workdir, "--cluster", place)
    one.until(lambda: any(workdir.glob("steps/moments-*.partial")), "moments")
    first = slurm.queue(WORKERS)
    (folder,) = (workdir / ".private").iterdir()
    assert {f.stat().st_mode & 0o077 for f in (folder.parent, folder, *folder.iterdir())} == {0}
    listening = {
        c.laddr.ip for c in one.tree.net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }
    assert not listening & {"0.0.0.0", "::"}, "the driver listens on one address, not on all"
    slurm.call("scancel", min(first, key=int))
    one.until(lambda: len(slurm.queue(WORKERS).keys() | first.keys()) == 3, "another job")
    ended = one.wait()
    assert ended.code == 0, ended.err
    assert "workers    4, " in ended.err
    assert digests(workdir) == expected
    check_clean(slurm, workdir)


#: A driver that waits among its steps until other worker jobs have come.
WAITING = """
import time
from pathlib import Path
import vehclust_dask.job.run as run
reduce_study = run.reduce_study
def reduce_later(*words):
    end = time.monotonic() + 100
    while len(list(Path({logs!r}).glob("worker-*.log"))) < 3 and time.monotonic() < end:
        time.sleep(0.1)
    return reduce_study(*words)
run.reduce_study = reduce_later
"""


def test_worker_jobs__roll_over_before_their_walltime(
    slurm: Slurm, job: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    workdir = tmp_path / "work"
    place = slurm_place(tmp_path / "place.yaml", walltime="00:00:20", insecure=True)
    before = WAITING.format(logs=str(workdir / "logs"))
    ended = run_cli("run", job, "--workdir", workdir, "--cluster", place, before=before)
    assert ended.code == 0, ended.err
    assert digests(workdir) == expected
    logs = sorted((workdir / "logs").glob("worker-*.log"))
    assert len(logs) > 2
    assert any("worker-lifetime-reached" in log.read_text() for log in logs)
    check_clean(slurm, workdir)


def submit(job: Path, workdir: Path, place: Path) -> Ended:
    return run_cli("submit", job, "--workdir", workdir, "--cluster", place)


def test_submit__goes_on_after_a_stop_and_after_its_walltime(
    slurm: Slurm, job: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    workdir = tmp_path / "work"
    place = slurm_place(tmp_path / "place.yaml", jobs=3)

    def begun(number: str, sign: str) -> bool:
        assert number in slurm.queue(), (workdir / "logs" / f"main-{number}.log").read_text()
        return any(workdir.glob(sign))

    ended = submit(job, workdir, place)
    assert ended.code == 0, ended.err
    first = ended.out.strip()
    assert first in slurm.queue("vehclust-main")
    again = submit(job, workdir, place)
    assert again.code == 6
    assert re.search(rf"job main is \w+ already \(Slurm job {first}\)", again.err)
    slurm.until(lambda: begun(first, "steps/moments-*.partial"), "moments")
    assert status(workdir)["state"] == "running"
    slurm.call("scancel", first)
    slurm.until(lambda: not slurm.queue(), "an empty queue")
    stopped = status(workdir)
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", 130)
    assert not (workdir / ".private").exists()

    second = submit(job, workdir, place).out.strip()
    slurm.until(lambda: begun(second, "steps/kmeans-*.partial"), "clusters")
    # What Slurm sends some minutes before the end of the walltime.
    slurm.call("scancel", "--batch", "--signal=USR1", second)
    slurm.until(lambda: slurm.queue().get(second) == "PENDING", "the queue again")
    assert status(workdir)["state"] == "queued"
    slurm.until(lambda: len(slurm.queue()) == 1, "its workers' end")
    # By itself it waits for two minutes; in the second of its end Slurm would refuse it its credential.
    slurm.call("scontrol", "update", f"jobid={second}", "starttime=now+3")
    slurm.until(lambda: status(workdir)["state"] == "finished", "the end")
    said = run_cli("status", "main", "--workdir", workdir, "--json")
    assert said.code == 0, said.err
    done = json.loads(said.out)
    log = (workdir / "logs" / f"main-{second}.log").read_text()
    assert "already converted" in log
    assert log.count("stopped by SIGTERM") == 1
    assert "Traceback" not in log
    assert done["slurm_job"] == second
    assert (workdir / "runs" / done["run"] / "manifest.json").exists()
    assert digests(workdir) == expected
    check_clean(slurm, workdir)


def refused(workdir: Path, **keys: Any) -> str:
    """Return what a place says that does not open."""
    place = place_from({"kind": "slurm", "dashboard": "off", **keys}, "place.yaml")
    with pytest.raises(VehclustError) as told, open_place(place, workdir=workdir, per_task=1):
        pass
    return str(told.value)


def test_place__without_workers_names_the_state_of_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    slurm.call("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=test")
    try:
        said = refused(tmp_path, start_within="00:00:05")
    finally:
        slurm.call("scontrol", "update", "nodename=n[1-2]", "state=resume")
    assert re.search(
        r"no worker came within 0-00:00:05; the queue says: job \d+ is PENDING "
        r"(Nodes required for job are DOWN|ReqNodeNotAvail).*start_within",
        said,
    )
    check_clean(slurm, tmp_path)


def test_place__that_slurm_refuses_says_why(slurm: Slurm, tmp_path: Path) -> None:
    said = refused(tmp_path, partition="none")
    assert "Slurm refuses the worker jobs" in said
    assert "Invalid partition name specified" in said
    assert "memory" in refused(tmp_path, memory_limit="900GiB").lower()
    check_clean(slurm, tmp_path)


def test_place__whose_workers_cannot_start_shows_what_they_said(
    slurm: Slurm, tmp_path: Path
) -> None:
    said = refused(tmp_path, job_script_prologue=["echo no such module >&2", "exit 3"])
    assert "ended before they joined" in said
    assert "no such module" in said
    assert "job_script_prologue" in said
    check_clean(slurm, tmp_path)


def test_submit__needs_a_slurm_place(job: Path, tmp_path: Path) -> None:
    ended = submit(job, tmp_path / "work", place_file(tmp_path / "place.yaml", 1))
    assert ended.code == 2
    assert "use 'vehclust run', or a place file of 'kind: slurm'" in ended.err
