"""What commands print of runs, and what they hand on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.job.conftest import Site, call

CLUSTER = {
    "km": {"method": "kmeans", "n_clusters": [3, 4], "n_init": 2},
    "mbk": {"method": "minibatch-kmeans", "n_clusters": 3, "n_init": 2},
}
TWO = {
    "one": {"descriptors": ["a"], "reduce": "none", "cluster": CLUSTER, "featured": "km/3"},
    "two": {"descriptors": ["b"], "reduce": "none", "cluster": CLUSTER, "featured": "km/4"},
}


@pytest.fixture
def done(site: Site) -> Path:
    return site.finished(site.job(studies=TWO))


def test_runs__are_listed_and_shown(site: Site, done: Path) -> None:
    listed = call("runs", "list", "--workdir", site.workdir)
    assert listed.out.splitlines()[1].split()[0] == done.name
    for name in (done.name, done.name[:-4], "small"):
        shown = call("runs", "show", name, "--workdir", site.workdir)
        assert shown.out.startswith(f"run {done.name} (300 rows)")
        assert f"vehclust export csv {done.name}" in shown.out
    (record,) = json.loads(call("runs", "list", "--json", "--workdir", site.workdir).out)
    assert record["run"] == done.name
    assert [(s["study"], s["clustering"], s["k"]) for s in record["scores"]] == [
        (study, *rest) for study in ("one", "two") for rest in (("km", 3), ("km", 4), ("mbk", 3))
    ]
    assert record == json.loads(
        call("runs", "show", "small", "--json", "--workdir", site.workdir).out
    )


def test_runs__that_are_not_there_are_told(site: Site, done: Path) -> None:
    ended = call("runs", "show", "smal-x", "--workdir", site.workdir)
    assert ended.code == 5
    assert ended.err == f"vehclust: 'smal-x' is no run in {site.workdir}; there are: {done.name}\n"
    assert call("runs", "show", "x", "--workdir", site.folder / "absent").code == 5
    other = {"one": TWO["one"]}
    site.finished(site.job(studies=other))
    ended = call("runs", "show", "small", "--workdir", site.workdir)
    assert (ended.code, "fits 2 runs" in ended.err) == (5, True)


def test_runs__under_way_are_not_shown(site: Site) -> None:
    (site.workdir / "runs" / ".small-1.partial").mkdir(parents=True)
    (site.workdir / "runs" / ".small-1.partial" / "manifest.json").write_text("{}")
    (site.workdir / "runs" / "small-2").mkdir()
    assert call("runs", "list", "--workdir", site.workdir).out == "no finished runs\n"
    assert json.loads(call("runs", "list", "--json", "--workdir", site.workdir).out) == []


def test_export__writes_a_file_per_study(site: Site, done: Path) -> None:
    ended = call(
        "export", "csv", done.name, "--workdir", site.workdir, "--out", site.folder / "out"
    )
    files = [Path(line) for line in ended.out.splitlines()]
    assert [f.name for f in files] == ["one_KMeans_k3.csv", "two_KMeans_k4.csv"]
    for file, study, column in zip(files, ("one", "two"), ("km_3", "km_4"), strict=True):
        labels = site.labels(done, study)
        written = pd.read_csv(file)
        assert list(written) == ["path", "cluster"]
        assert written["path"].tolist() == site.paths
        assert written["cluster"].tolist() == labels[column].tolist()


def test_export__takes_what_is_asked_for(site: Site, done: Path) -> None:
    asked = ("--study", "two", "--clustering", "km", "-k", 3, "--out", site.folder / "mine.csv")
    ended = call("export", "csv", done.name, "--workdir", site.workdir, *asked)
    assert ended.out == f"{site.folder / 'mine.csv'}\n"
    written = pd.read_csv(site.folder / "mine.csv")
    assert written["cluster"].tolist() == site.labels(done, "two")["km_3"].tolist()
    alone = ("--study", "one", "--clustering", "mbk", "--out", site.folder)
    ended = call("export", "csv", done.name, "--workdir", site.workdir, *alone)
    assert ended.out == f"{site.folder / 'one_MiniBatchKMeans_k3.csv'}\n"


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        (("--study", "on"), 5, "has no study 'on'; did you mean 'one'? Allowed: one, two"),
        (("--clustering", "kn"), 5, "has no clustering 'kn'; did you mean 'km'?"),
        (("-k", 5), 5, "has no clustering 'km_5'; did you mean 'km_"),
        (("--out", "all.csv"), 2, "run {run} has 2 studies (one, two); choose one by --study"),
    ],
)
def test_export__of_what_is_not_there_names_the_nearest(
    site: Site,
    done: Path,
    asked: tuple[object, ...],
    code: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = site.folder / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    ended = call("export", "csv", done.name, "--workdir", site.workdir, *asked)
    assert ended.code == code
    assert reason.format(run=done.name) in ended.err
    assert os.listdir(empty) == []


def test_export__into_what_is_no_folder_is_one_sentence(site: Site, done: Path) -> None:
    ended = call(
        "export", "csv", done.name, "--workdir", site.workdir, "--out", site.folder / "a.npy" / "x"
    )
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert line.startswith("vehclust: ")
    assert "a.npy" in line
