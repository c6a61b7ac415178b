"""Runs again: finished work is found, notes stay, parts are added, changed files are noticed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.job.conftest import Site, call, no_cluster
from vehclust_dask.errors import Interrupted
from vehclust_dask.job import run
from vehclust_dask.store.folders import owner_lock


def mtimes(folder: Path) -> dict[str, int]:
    return {
        str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()
    }


def notes_file(site: Site, job: str = "small") -> Path:
    return site.workdir / "notes" / f"{job}.csv"


@pytest.fixture
def count_clusters(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count how often a cluster is opened."""
    opened: list[object] = []

    def counting(*args: object, **options: object) -> Any:
        opened.append(args)
        return no_cluster()

    monkeypatch.setattr(run, "open_place", counting)
    return opened


def test_second_run__finds_everything_without_a_cluster(
    site: Site, count_clusters: list[object]
) -> None:
    job = site.job()
    folder = site.finished(job)
    steps = mtimes(site.workdir / "steps")
    assert len(count_clusters) == 1
    again = site.run(job)
    assert again.code == 0
    assert "is finished already" in again.err
    assert again.out.startswith(f"run {folder.name} ")
    converted = site.run(job, command="convert")
    assert "a: 300 rows already converted" in converted.err
    assert len(count_clusters) == 1
    assert mtimes(site.workdir / "steps") == steps


def test_convert__prints_where_the_arrays_lie(site: Site) -> None:
    ended = site.run(site.job(), command="convert")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [name for name, _ in rows] == ["a", "b"]
    assert all((Path(path) / "zarr.json").is_file() for _, path in rows)


def test_changed_job__shares_the_steps_that_did_not_change(site: Site) -> None:
    first = site.finished(site.job())
    steps = mtimes(site.workdir / "steps")
    studies = {
        "one": {
            "descriptors": ["a"],
            "scale": "standard",
            "reduce": {"method": "pca", "n_components": 3},
            "cluster": {"other": {"method": "kmeans", "n_clusters": 5, "n_init": 2}},
        }
    }
    second = site.finished(site.job(studies=studies))
    assert second != first
    after = mtimes(site.workdir / "steps")
    assert {name: after[name] for name in steps} == steps
    new = {name.split("/")[0].split("-")[0] for name in set(after) - set(steps)}
    assert new == {"kmeans", "scores"}


def test_notes__stay_with_the_job(site: Site) -> None:
    job = site.job()
    site.finished(job)
    notes = pd.read_csv(notes_file(site), keep_default_na=False)
    assert notes[["study", "clustering", "k"]].to_numpy().tolist() == [
        ["one", "km", 3],
        ["one", "km", 4],
    ]
    notes.loc[1, ["interpretation", "quality"]] = ["by colour, \u00e4", "good"]
    notes["seen_by"] = ["me", "you"]
    notes.to_csv(notes_file(site), index=False)
    written = notes_file(site).read_bytes()
    for _ in range(3):
        folder = site.finished(job)
        scores = pd.read_csv(folder / "tables" / "scores.csv", keep_default_na=False)
        assert scores["interpretation"].tolist() == ["", "by colour, \u00e4"]
        assert scores["seen_by"].tolist() == ["me", "you"]
        assert not [c for c in scores if c.endswith(("_x", "_y"))]
    assert notes_file(site).read_bytes() == written
    studies = {
        "one": {
            "descriptors": ["a"],
            "scale": "standard",
            "reduce": {"method": "pca", "n_components": 3},
            "cluster": {"km": {"method": "kmeans", "n_clusters": "3..5", "n_init": 2}},
        }
    }
    changed = site.finished(site.job(studies=studies))
    scores = pd.read_csv(changed / "tables" / "scores.csv", keep_default_na=False)
    assert scores["k"].tolist() == [3, 4, 5]
    assert scores["interpretation"].tolist() == ["", "by colour, \u00e4", ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("study;clustering;k\none;km;3\n", "study, clustering, k"),
        ("study,clustering,k,quality\none,km,3,a\none,km,3,b\n", "one/km/3 twice"),
        ("study,clustering,k\none,km,three\n", "three"),
        ("", "study, clustering, k"),
    ],
)
def test_notes__that_cannot_be_read_are_told_before_any_work(
    site: Site, text: str, reason: str, count_clusters: list[object]
) -> None:
    notes_file(site).parent.mkdir(parents=True)
    notes_file(site).write_text(text)
    ended = site.run(site.job())
    assert ended.code == 3
    assert str(notes_file(site)) in ended.err
    assert re.search(reason, ended.err)
    assert notes_file(site).read_text() == text
    assert not count_clusters


def test_run__of_changed_paths_or_truth_is_another_run(site: Site) -> None:
    job = site.job(data={"truth": "truth.csv"})
    first = site.finished(job)
    turned = [p.replace("w/", "x/") for p in site.paths]
    site.write_paths(turned)
    known = pd.DataFrame({"path": turned, "kind": site.kinds % 2})
    known.to_csv(site.folder / "truth.csv", index=False)
    second = site.finished(job)
    assert second != first
    assert site.labels(second)["path"].tolist() == turned
    scores = [pd.read_parquet(f / "tables" / "scores.parquet") for f in (first, second)]
    assert scores[0]["ari_kind"].tolist() != scores[1]["ari_kind"].tolist()


def test_run__of_a_study_without_clusterings_ends_with_its_components(site: Site) -> None:
    studies = {"one": {"descriptors": ["a"], "reduce": {"method": "pca", "n_components": 2}}}
    folder = site.finished(site.job(studies=studies))
    assert not list((folder / "tables").glob("labels*"))
    assert site.finished(site.job(studies=studies)) == folder
    assert call("runs", "show", folder.name, "--workdir", site.workdir).code == 0
    ended = call("export", "csv", folder.name, "--workdir", site.workdir)
    assert (ended.code, "has no clusterings" in ended.err) == (5, True)


def test_run__of_one_cluster_is_whole(site: Site) -> None:
    cluster = {"km": {"method": "kmeans", "n_clusters": 1, "n_init": 2}}
    studies = {"one": {"descriptors": ["b"], "reduce": "none", "cluster": cluster}}
    labels = site.labels(site.finished(site.job(studies=studies)))
    assert (labels["km_1"] == 0).all()
    expected = np.square(site.B - site.B.mean(axis=0, dtype=np.float64)).sum(axis=1)
    np.testing.assert_allclose(labels["sq_dist"], expected, rtol=1e-5)


def test_finished_run__is_found_on_a_full_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = site.job()
    site.finished(job)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10**9, 10**9, 0))
    again = site.run(job)
    assert again.code == 0, again.err


def test_appended_part__leaves_the_first_as_it_was(site: Site) -> None:
    site.save("a1.npy", site.A[:200])
    site.save("a2.npy", site.A[200:])
    site.write_paths(site.paths[:200], "p1.csv")
    site.write_paths(site.paths[200:], "p2.csv")
    data = {"descriptors": {"a": ["a1.npy"]}, "paths": ["p1.csv"]}
    site.finished(site.job(data=data))
    sets = site.workdir / "datasets" / "site" / "a.zarr"
    (part,) = sets.glob("part-*")
    before = mtimes(part)
    data = {"descriptors": {"a": ["a1.npy", "a2.npy"]}, "paths": ["p1.csv", "p2.csv"]}
    folder = site.finished(site.job(data=data))
    assert mtimes(part) == before
    assert len(list(sets.glob("part-*"))) == 2
    labels = site.labels(folder)
    assert labels["row"].tolist() == list(range(300))
    assert labels["path"].tolist() == site.paths
    # Groups far apart are found whatever the cut into parts.
    together = site.labels(site.finished(site.job("whole", data={"dataset": "whole"})))
    assert labels["km_4"].tolist() == together["km_4"].tolist()


def test_parts__that_know_their_paths_are_joined_by_path(site: Site) -> None:
    rng = np.random.default_rng(0)
    for name, rows in (("a1.pickle", np.arange(200)), ("a2.pickle", np.arange(200, 300))):
        mixed = rng.permutation(rows)
        site.save_dict(name, [site.paths[i] for i in mixed], site.A[mixed])
    plain = site.labels(site.finished(site.job(data={"dataset": "plain"})))
    data = {"descriptors": {"a": ["a1.pickle", "a2.pickle"]}}
    joined = site.labels(site.finished(site.job("joined", data=data)))
    assert joined["km_4"].tolist() == plain["km_4"].tolist()


def test_parts__of_other_rows_than_the_paths_say_are_refused(site: Site) -> None:
    for name, rows in (("a1.pickle", slice(0, 200)), ("a2.pickle", slice(200, 300))):
        site.save_dict(name, site.paths[rows], site.A[rows])
    data = {"descriptors": {"a": ["a2.pickle", "a1.pickle"]}}
    ended = site.run(site.job(data=data))
    assert ended.code == 3
    assert "paths are missing" in ended.err


def test_join_by_path__gives_the_array_of_the_plain_file(site: Site) -> None:
    order = np.random.default_rng(0).permutation(300)
    site.save_dict("a.pickle", [site.paths[i] for i in order], site.A[order])
    plain, joined = site.job(data={"dataset": "plain"}), None
    folder = site.finished(plain)
    joined = site.job("joined", data={"descriptors": {"a": "a.pickle", "b": "b.npy"}})
    other = site.finished(joined)

    def array(dataset: str) -> dict[str, bytes]:
        (part,) = (site.workdir / "datasets" / dataset / "a.zarr").glob("part-*")
        return {
            str(f.relative_to(part)): f.read_bytes() for f in (part / "X").rglob("*") if f.is_file()
        }

    assert array("plain") == array("site")
    assert site.labels(other).equals(site.labels(folder))
    assert site.run(joined, "--verify", command="convert").code == 0


def test_verify__works_for_a_joined_source_whose_part_came_from_a_plain_one(site: Site) -> None:
    order = np.random.default_rng(0).permutation(300)
    site.save_dict("a.pickle", [site.paths[i] for i in order], site.A[order])
    site.finished(site.job())
    joined = site.job("joined", data={"descriptors": {"a": "a.pickle", "b": "b.npy"}})
    assert site.run(joined, command="convert").code == 0
    assert site.run(site.job(), "--verify", command="convert").code == 0
    ended = site.run(joined, "--verify", command="convert")
    assert ended.code == 0
    assert "a: 300 rows verified" in ended.err


@pytest.mark.parametrize("name", ["a.npy", "a.pickle"])
def test_verify__notices_bytes_that_changed_behind_size_and_time(site: Site, name: str) -> None:
    order = np.random.default_rng(0).permutation(300)
    site.save_dict("a.pickle", [site.paths[i] for i in order], site.A[order])
    job = site.job(data={"descriptors": {"a": name, "b": "b.npy"}})
    site.finished(job)
    assert site.run(job, "--verify").code == 0
    file = site.folder / name
    before = file.stat()
    content = bytearray(file.read_bytes())
    at = content.find(site.A[17].tobytes())
    content[at] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "finished already" in site.run(job).err, "the quick look goes by size and time"
    for command in ("convert", "run"):
        ended = site.run(job, "--verify", command=command)
        assert ended.code == 3
        assert f"{file} is no longer what was converted" in ended.err
        assert "Traceback" not in ended.err


def test_changed_file__is_converted_anew(site: Site) -> None:
    first = site.finished(site.job())
    site.save("a.npy", site.A[::-1])
    os.utime(site.folder / "a.npy", ns=(1, 1))
    second = site.finished(site.job())
    assert second != first
    assert site.labels(second)["km_4"].tolist() != site.labels(first)["km_4"].tolist()


def test_nan__is_refused_with_row_and_path(site: Site) -> None:
    A = site.A.copy()
    A[[70, 205], [2, 3]] = [np.nan, np.inf]
    site.save("a.npy", A)
    for command in ("convert", "run", "run"):
        ended = site.run(site.job(), command=command)
        assert ended.code == 3
        assert (
            f"a holds NaN or infinity in 2 rows, the first is row 70 ({site.paths[70]})"
            in ended.err
        )
        assert "on_nan: drop" in ended.err
    assert call("runs", "list", "--workdir", site.workdir).out.strip() == "no finished runs"


def test_nan__dropped_gives_what_data_without_the_rows_give(site: Site) -> None:
    lost = [0, 70, 71, 205, 299]
    kept = np.setdiff1d(np.arange(300), lost)
    A, B = site.A.copy(), site.B.copy()
    A[[0, 70, 71, 299], 2] = np.nan
    B[[70, 205], 1] = np.inf
    site.save("a.npy", A)
    site.save("b.npy", B)
    both = {
        "both": {
            "descriptors": ["a", "b"],
            "scale": "standard",
            "reduce": "none",
            "cluster": {"km": {"method": "kmeans", "n_clusters": [3, 4], "n_init": 2}},
        }
    }
    data = {"truth": "truth.csv", "group": r"w/\d/(\d+)/"}
    dropped = site.finished(site.job(data=data | {"on_nan": "drop"}, studies=both))
    site.save("a.npy", site.A[kept])
    site.save("b.npy", site.B[kept])
    site.write_paths([site.paths[i] for i in kept])
    without = site.finished(site.job("without", data=data | {"dataset": "without"}, studies=both))
    mine, theirs = site.labels(dropped, "both"), site.labels(without, "both")
    assert mine["row"].tolist() == kept.tolist()
    assert mine["path"].tolist() == [site.paths[i] for i in kept]
    assert mine.drop(columns="row").equals(theirs.drop(columns="row"))
    measured = ["seconds", "peak_mb"]
    scores = [
        pd.read_parquet(f / "tables/scores.parquet").drop(columns=measured)
        for f in (dropped, without)
    ]
    assert scores[0].equals(scores[1])


def test_nan__in_all_rows_of_an_appended_part_drops_the_part(site: Site) -> None:
    site.save("a1.npy", site.A[:290])
    site.save("a2.npy", np.full((10, 6), np.nan, np.float32))
    data = {"descriptors": {"a": ["a1.npy", "a2.npy"]}, "on_nan": "drop"}
    labels = site.labels(site.finished(site.job(data=data)))
    assert labels["row"].tolist() == list(range(290))


def test_nan__in_every_row_is_refused(site: Site) -> None:
    site.save("a.npy", np.full((300, 6), np.nan, np.float32))
    ended = site.run(site.job(data={"on_nan": "drop"}))
    assert ended.code == 3
    assert "no rows are left" in ended.err


def test_run__that_is_under_way_is_not_started_twice(site: Site) -> None:
    with owner_lock(site.workdir / "locks" / "job-small", "job small"):
        ended = site.run(site.job())
    assert ended.code == 6
    assert f"job small is being written by process {os.getpid()} on" in ended.err


def test_step__that_another_job_computes_is_not_computed_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vehclust_dask.job import clustering

    inner = []
    centers = clustering._centers

    def meanwhile(*args: Any) -> Any:
        if not inner:
            inner.append(site.run(site.job("other")))
        return centers(*args)

    monkeypatch.setattr(clustering, "_centers", meanwhile)
    ended = site.run(site.job())
    assert ended.code == 0, ended.err
    assert inner[0].code == 6
    assert "one/km" in inner[0].err
    assert "is being written by process" in inner[0].err
    assert site.run(site.job("other")).code == 0


def test_part__that_is_half_converted_is_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vehclust_dask.job import dataset

    class Stopped(Exception):
        pass

    def stop(*args: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "finish_part", stop)
        with pytest.raises(Stopped):
            site.run(site.job(), command="convert")
    assert not list(site.workdir.glob("datasets/site/a.zarr/part-*"))
    done = mtimes(next(site.workdir.glob("datasets/site/a.zarr/.part-*")) / "X")
    assert site.run(site.job(), command="convert").code == 0
    assert mtimes(next(site.workdir.glob("datasets/site/a.zarr/part-*")) / "X") == done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop__is_not_taken_for_a_failure_by_the_code_it_comes_upon(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def forgiving() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except Exception:
            pytest.fail("a library took the stop for an error of its own")

    words = f"stopped by {number.name}; .* goes on"
    with pytest.raises(Interrupted, match=words), run.stopping_cleanly():
        forgiving()
    assert signal.getsignal(number) is before
