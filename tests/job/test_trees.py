"""Ward's method in a job: scipy's tree, its cuts, what a stop leaves, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from tests.job.conftest import N_ROWS, Site
from tests.job.test_plan import chunk_bytes, planned
from vehclust_dask.errors import NotEnough
from vehclust_dask.job import trees
from vehclust_dask.job.neighbourhood import needed_neighbours
from vehclust_dask.job.plan import plan_job
from vehclust_dask.job.spec import load_job
from vehclust_dask.job.trees import LINKAGE
from vehclust_dask.store.folders import read_json


def studies(**more: Any) -> dict[str, Any]:
    cluster = {"tree": {"method": "ward", "n_clusters": [2, 4, 9], "n_neighbors": 8} | more}
    return {"one": {"descriptors": ["a"], "reduce": "none", "cluster": cluster, "featured": "tree"}}


def tree_job(site: Site, name: str = "small", **more: Any) -> Path:
    """Return a job whose tasks may hold a small tree."""
    return site.job(name, studies=studies(**more), memory={"per_task": "96MiB"})


def test_run__writes_scipys_tree_and_its_cuts(site: Site) -> None:
    folder = site.finished(tree_job(site))
    wanted = linkage(site.A.astype(np.float64), "ward")
    (step,) = (site.workdir / "steps").glob("ward-*")
    found = np.load(step / LINKAGE)
    np.testing.assert_allclose(found[:, 2], wanted[:, 2], rtol=1e-12)
    labels = site.labels(folder)
    for k in (2, 4, 9):
        theirs = fcluster(wanted, k, "maxclust")
        assert adjusted_rand_score(theirs, labels[f"tree_{k}"]) == 1.0


def test_run__places_every_row_among_the_means_of_its_cut(site: Site) -> None:
    labels = site.labels(site.finished(tree_job(site)))
    own = labels["tree_9"].to_numpy()
    means = np.stack([site.A[own == c].mean(axis=0, dtype=np.float64) for c in range(9)])
    sq = np.square(site.A[:, None].astype(np.float64) - means[None]).sum(axis=2)
    mine = sq[np.arange(N_ROWS), own]
    np.testing.assert_allclose(labels["sq_dist"], mine, rtol=1e-5)
    sq[np.arange(N_ROWS), own] = np.inf
    np.testing.assert_array_equal(labels["second"], sq.argmin(axis=1))
    np.testing.assert_allclose(
        labels["margin"], np.sqrt(sq.min(axis=1)) - np.sqrt(mine), rtol=1e-4, atol=1e-5
    )
    nearer = labels["margin"] < 0
    assert nearer.any(), "a cut of a tree is no k-means: some rows lie nearer to another mean"


def test_run__scores_are_those_of_the_cut(site: Site) -> None:
    folder = site.finished(tree_job(site))
    scores = pd.read_parquet(folder / "tables" / "scores.parquet").set_index("k")
    labels = site.labels(folder)
    for k in (2, 4, 9):
        own = labels[f"tree_{k}"].to_numpy()
        parts = [site.A[own == c].astype(np.float64) for c in range(k)]
        inertia = sum(np.square(part - part.mean(axis=0)).sum() for part in parts)
        assert scores.loc[k, "inertia"] == pytest.approx(inertia, rel=1e-6)
        assert scores.loc[k, "smallest"] == min(map(len, parts))


def test_run__of_other_cuts_keeps_neighbours_and_tree(site: Site) -> None:
    def written() -> dict[str, int]:
        found = (site.workdir / "steps").glob("*/manifest.json")
        kept = ("ward-", "neighbours-")
        return {
            f.parent.name: f.stat().st_mtime_ns for f in found if f.parent.name.startswith(kept)
        }

    site.finished(tree_job(site))
    before = written()
    assert len(before) == 2
    site.finished(tree_job(site, "other", n_clusters=3))
    assert written() == before


def test_stopped_tree__goes_on_to_the_same_bytes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    (site.finished(tree_job(site, "whole", n_neighbors=2)),)
    (whole,) = (site.workdir / "steps").glob("ward-*")
    wanted = (whole / LINKAGE).read_bytes()
    (whole / "manifest.json").unlink()
    whole.rename(whole.with_name(whole.name + ".partial"))
    (whole.with_name(whole.name + ".partial") / LINKAGE).unlink()
    saved: list[int] = []

    def saving(file: Any, state: Any) -> None:
        told(file, state)
        saved.append(state.n_clusters)
        if len(saved) == 2:
            raise Stopped

    told, loaded = trees.save_tree, trees.load_tree
    monkeypatch.setattr(trees, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(trees, "save_tree", saving)
    job = tree_job(site, "again", n_neighbors=2)
    with pytest.raises(Stopped):
        site.run(job)
    assert saved[0] > saved[1] > 1
    resumed: list[int] = []

    def loading(file: Any) -> Any:
        state = loaded(file)
        resumed.append(state.n_clusters)
        return state

    monkeypatch.setattr(trees, "load_tree", loading)
    monkeypatch.setattr(trees, "save_tree", told)
    site.finished(job)
    assert resumed == [saved[1]]
    assert (whole / LINKAGE).read_bytes() == wanted
    assert sorted(f.name for f in whole.iterdir()) == [LINKAGE, "manifest.json"]


def test_run__tells_how_many_clusters_are_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.job.telling.LINE_EVERY", 0.0)
    told = site.run(tree_job(site, n_neighbors=2)).err.splitlines()
    words = [line.split() for line in told if line.startswith("  the tree: ")]
    assert all(line[3:] == ["of", "300", "clusters", "left"] for line in words)
    left = [int(line[2]) for line in words]
    assert left == sorted(left, reverse=True)
    assert left[0] < 300
    assert left[-1] == 1


def test_run__refuses_more_clusters_than_rows_that_differ(site: Site) -> None:
    site.save("a.npy", np.repeat(site.A[:3], N_ROWS // 3, axis=0))
    ended = site.run(tree_job(site))
    assert ended.code == 3
    assert "n_clusters=9 but only 3 rows differ from one another" in ended.err


def test_plan__counts_lists_and_tree(site: Site) -> None:
    job = tree_job(site)
    steps = planned(site, job)
    site.finished(job)
    slack = 4 * 5 * 8
    for prefix, name in (
        ("neighbours", "one: 8 nearest rows, euclidean"),
        ("cut", "one/tree: ward"),
    ):
        (folder,) = (site.workdir / "steps").glob(f"{prefix}-*")
        assert chunk_bytes(folder) <= steps[name].disk_bytes + slack
    assert steps["one: tree"].task_bytes >= N_ROWS * (8 * 6 + 12 * 8)


def refused(site: Site, **memory: Any) -> str:
    """Return how the plan of a tree job is refused."""
    site.workdir.mkdir(exist_ok=True)
    job = site.job(studies=studies(n_neighbors=256), **memory)
    plan = plan_job(load_job(job, workdir=str(site.workdir)), site.workdir)
    with pytest.raises(NotEnough) as refusal:
        plan.check(site.workdir)
    return str(refusal.value)


def test_plan__refuses_a_tree_that_no_task_can_hold(site: Site) -> None:
    assert refused(site, memory={"per_task": "32MiB"}) == (
        "one: tree needs 69.0 MB per task (for each of 300 rows 8 bytes in each of 6 columns, 24 for "
        "each of 256 neighbours, and 120; a lower n_neighbors takes less), the job grants 33.6 MB; "
        "raise memory.per_task (and a worker's memory_limit with it)"
    )


def test_plan__refuses_lists_that_no_task_can_hold(site: Site) -> None:
    message = refused(site, memory={"per_task": "4MiB"})
    assert message.startswith("one: 256 nearest rows, euclidean needs ")
    assert "(926.4 kB for lists of 256 neighbours of 300 rows, 12 bytes each" in message
    assert "fewer neighbours take less), the job grants 4.2 MB; raise memory" in message


def steps_of(site: Site, kind: str) -> list[str]:
    """Return the finished steps of a kind."""
    return sorted(f.name for f in (site.workdir / "steps").glob(f"{kind}-*"))


@pytest.mark.parametrize("m", [2, 8, 256])
def test_run__lists_of_any_length_grow_the_same_tree(site: Site, m: int) -> None:
    site.finished(tree_job(site, "first", n_neighbors=4))
    (step,) = (site.workdir / "steps").glob("ward-*")
    wanted = (step / LINKAGE).read_bytes()
    shutil.rmtree(site.workdir)
    site.finished(tree_job(site, "second", n_neighbors=m))
    assert steps_of(site, "ward") == [step.name]
    assert (step / LINKAGE).read_bytes() == wanted


def test_run__of_a_finished_tree_needs_no_longer_lists(site: Site) -> None:
    site.finished(tree_job(site, "first", n_neighbors=4))
    ended = site.run(tree_job(site, "second", n_neighbors=9, n_clusters=3))
    assert ended.code == 0, ended.err
    assert len(steps_of(site, "neighbours")) == len(steps_of(site, "ward")) == 1


def test_run__a_study_shares_the_longest_lists_it_needs(site: Site) -> None:
    more = {"n_neighbors": 20, "method": "ward", "n_clusters": 2}
    study = studies()["one"] | {"neighbours": 11}
    study["cluster"] = study["cluster"] | {"longer": more}
    job = site.job(studies={"one": study}, memory={"per_task": "96MiB"})
    planned_steps = [name for name in planned(site, job) if "nearest" in name]
    assert planned_steps == ["one: 20 nearest rows, euclidean"]
    folder = site.finished(job)
    (name,) = steps_of(site, "neighbours")
    record = read_json(folder / "manifest.json")["studies"]["one"]["neighbours"]
    assert record == [{"step": name, "m": 20, "metric": "euclidean"}]


def test_needed_neighbours__are_the_most_that_anything_asks_for(site: Site) -> None:
    def needs(**study: Any) -> tuple[int, int]:
        job = site.job(studies={"one": {"descriptors": ["a"]} | study})
        (one,) = load_job(job, workdir=str(site.workdir)).studies
        return needed_neighbours(one, "euclidean"), needed_neighbours(one, "cosine")

    cluster = studies(n_neighbors=17)["one"]["cluster"]
    assert needs() == (0, 0)
    assert needs(cluster=cluster) == (17, 0)
    assert needs(cluster=cluster, neighbours=40) == (40, 0)
    assert needs(cluster=cluster, neighbours={"n": 5, "metric": "cosine"}) == (17, 5)
