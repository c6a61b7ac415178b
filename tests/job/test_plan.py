"""Plans: told before the first task, never below what is then written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.job.conftest import Site, call
from vehclust_dask.errors import NotEnough
from vehclust_dask.job.plan import PlannedStep, plan_job
from vehclust_dask.job.spec import load_job


def planned(site: Site, job: Path) -> dict[str, PlannedStep]:
    site.workdir.mkdir(exist_ok=True)
    plan = plan_job(load_job(job, workdir=str(site.workdir)), site.workdir)
    return {step.name: step for step in plan.steps}


def chunk_bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("c/*/*") if f.is_file())


def test_plan__names_every_step_and_starts_nothing(site: Site) -> None:
    ended = site.run(site.job(), command="plan")
    assert ended.code == 0
    for name in ("convert a", "convert b", "one: moments", "one: components", "one/km: kmeans"):
        assert name in ended.out
    assert not (site.workdir / "datasets").exists()
    dry = site.run(site.job(), "--dry-run", "--json")
    as_json = site.run(site.job(), "--json", command="plan")
    assert dry.out == as_json.out
    steps = {s["name"]: s for s in json.loads(as_json.out)["steps"]}
    assert (steps["convert a"]["rows"], steps["convert a"]["blocks"]) == (300, 5)
    assert not (site.workdir / "runs").exists()


def test_plan__of_the_disk_is_an_upper_bound(site: Site) -> None:
    steps = planned(site, site.job())
    site.finished(site.job())
    slack = 4 * 5 * 4  # a checksum of every chunk of five blocks
    for prefix, name in (("reduced", "one: reduced rows"), ("kmeans", "one/km: kmeans")):
        (folder,) = (site.workdir / "steps").glob(f"{prefix}-*")
        assert chunk_bytes(folder) <= steps[name].disk_bytes + slack
    sets = site.workdir / "datasets" / "site"
    assert chunk_bytes(sets / "a.zarr") <= steps["convert a"].disk_bytes + slack


def test_plan__of_a_task_holds_its_block_and_its_state(site: Site) -> None:
    steps = planned(site, site.job())
    block = 4 * 64 * 6
    assert steps["convert a"].task_bytes >= 2 * block
    assert steps["one: moments"].task_bytes >= block + 8 * 6 * 6
    assert steps["one/km: kmeans"].task_bytes >= 4 * 64 * 3 + 8 * 7 * 3


def test_plan__knows_what_is_converted_in_this_cut(site: Site) -> None:
    job = site.job()
    assert not planned(site, job)["convert a"].done
    site.finished(job)
    again = planned(site, job)["convert a"]
    assert (again.done, again.disk_bytes) == (True, 0)
    other = planned(site, site.job(data={"block_rows": 32}))["convert a"]
    assert not other.done
    assert other.disk_bytes == 320 * 6 * 4
    site.save("a.npy", site.A[:299])
    assert not planned(site, job)["convert a"].done


@pytest.mark.parametrize("command", ["plan", "convert", "run"])
def test_check__refuses_a_task_too_large_with_numbers(site: Site, command: str) -> None:
    ended = site.run(site.job(memory={"per_task": 1000}), command=command)
    assert ended.code == 4
    assert "needs" in ended.err
    assert "the job grants 1.0 kB; raise memory.per_task" in ended.err
    assert not (site.workdir / "datasets").exists()


def test_check__refuses_a_disk_too_small(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(folder: Path, needed: int, what: str) -> None:
        raise NotEnough(f"{what} needs {needed}")

    monkeypatch.setattr("vehclust_dask.job.plan.require_space", tiny)
    for command in ("plan", "convert", "run"):
        assert site.run(site.job(), command=command).code == 4
    assert not (site.workdir / "datasets").exists()


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (
            {"reduce": {"method": "pca", "n_components": 7}},
            "studies.one: n_components=7 but the descriptor has 6 features; lower it to 6 or less, "
            "or write max_components instead",
        ),
        (
            {"reduce": "none", "cluster": {"km": {"method": "kmeans", "n_clusters": 301}}},
            "studies.one.cluster.km: n_clusters=301 but there are 300 rows; lower it to 300 or less",
        ),
    ],
)
def test_plan__refuses_more_than_there_is(site: Site, study: dict[str, Any], reason: str) -> None:
    job = site.job(studies={"one": {"descriptors": ["a"]} | study})
    for command in ("plan", "convert", "run"):
        ended = site.run(job, command=command)
        assert (ended.code, ended.err.strip()) == (3, f"vehclust: {reason}")
    assert call("runs", "list", "--workdir", site.workdir).out == "no finished runs\n"
