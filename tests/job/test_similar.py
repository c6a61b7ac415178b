"""Photos like one photo: brute force over the rows, and every way to ask for what is not there."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest

from tests.job.conftest import N_ROWS, Ended, Site, call
from tests.job.test_plan import chunk_bytes, planned
from vehclust_dask.job.similar import near_paths
from vehclust_dask.store.folders import read_json


def kept_job(site: Site, neighbours: Any = 12, name: str = "small", **changes: Any) -> Any:
    """Return a job that keeps lists and clusters by k-means alone."""
    study = {"descriptors": ["a"], "reduce": "none", "neighbours": neighbours}
    cluster = {"km": {"method": "kmeans", "n_clusters": 3, "n_init": 2}}
    studies = {"one": study | {"cluster": cluster}}
    return site.job(name, studies=studies, memory={"per_task": "96MiB"}, **changes)


def similar(site: Site, *words: object) -> Ended:
    return call("similar", "small", *words, "--workdir", site.workdir)


def rows_like(site: Site, *words: object) -> list[dict[str, Any]]:
    ended = similar(site, *words, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)["neighbours"]


def brute(X: np.ndarray, row: int, n: int, metric: str) -> tuple[list[int], np.ndarray]:
    exact = X.astype(np.float64)
    if metric == "cosine":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        distances = 1 - exact @ exact[row]
    else:
        distances = np.linalg.norm(exact - exact[row], axis=1)
    distances[(X[row] == X).all(axis=1)] = 0.0
    order = np.lexsort((np.arange(len(X)), distances))
    order = order[order != row][:n]
    return order.tolist(), distances[order]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_similar__is_brute_force_with_copies_first(site: Site, metric: str) -> None:
    site.A[[250, 9, 31]] = site.A[40]
    site.save("a.npy", site.A)
    site.finished(kept_job(site, {"n": 12, "metric": metric}, data={"group": r"w/(\d)/"}))
    for row in (0, 40, 299):
        found = rows_like(site, "--row", row, "-n", 11)
        wanted, distances = brute(site.A, row, 11, metric)
        assert [one["row"] for one in found] == wanted
        np.testing.assert_allclose([one["distance"] for one in found], distances, atol=1e-7)
        assert [one["rank"] for one in found] == list(range(1, 12))
        assert [one["path"] for one in found] == [site.paths[i] for i in wanted]
        assert [one["same_vehicle"] for one in found] == [i % 5 == row % 5 for i in wanted]
    copies = rows_like(site, "--row", 40, "-n", 4)
    assert [one["row"] for one in copies][:3] == [9, 31, 250]
    assert [one["distance"] for one in copies][:3] == [0.0, 0.0, 0.0]


def test_similar__takes_a_path_with_either_slash(site: Site) -> None:
    site.finished(kept_job(site))
    wanted = rows_like(site, "--row", 17)
    assert len(wanted) == 10
    path = site.paths[17]
    for written in (path, path.replace("/", "\\"), f"./{path}"):
        assert rows_like(site, written) == wanted
    shown = similar(site, path, "-n", 3).out.splitlines()
    assert shown[0] == f"nearest to row 17, {path} in study one"
    assert shown[1].split() == ["rank", "euclidean", "row", "path"]
    assert [line.split()[3] for line in shown[2:]] == [one["path"] for one in wanted[:3]]


def test_similar__rows_that_were_dropped_shift_no_number(site: Site) -> None:
    site.A[[0, 20, 21]] = np.nan
    site.save("a.npy", site.A)
    site.finished(kept_job(site, data={"on_nan": "drop"}))
    whole = site.A.copy()
    whole[[0, 20, 21]] = 1e6
    for row in (1, 19, 22, 299):
        wanted, _ = brute(whole, row, 10, "euclidean")
        assert [one["row"] for one in rows_like(site, "--row", row)] == wanted
    assert "row 20 was left out of the run" in similar(site, "--row", 20).err


def test_similar__works_with_the_lists_of_a_tree(site: Site) -> None:
    cluster = {"tree": {"method": "ward", "n_clusters": 2, "n_neighbors": 5}}
    study = {"descriptors": ["a"], "reduce": "none", "cluster": cluster}
    site.finished(site.job(studies={"one": study}, memory={"per_task": "96MiB"}))
    found = rows_like(site, "--row", 7, "-n", 5)
    assert [one["row"] for one in found] == brute(site.A, 7, 5, "euclidean")[0]


def test_similar__of_a_study_without_clusterings(site: Site) -> None:
    study = {"descriptors": ["a"], "reduce": "none", "neighbours": 4}
    site.finished(site.job(studies={"one": study}, memory={"per_task": "96MiB"}))
    found = rows_like(site, "--row", 7, "-n", 4)
    assert [one["row"] for one in found] == brute(site.A, 7, 4, "euclidean")[0]


def test_similar__by_cells_says_so_with_the_recall(site: Site) -> None:
    job = kept_job(site, {"n": 8, "method": "cells", "n_probe": 1, "n_cells": 9})
    folder = site.finished(job)
    (record,) = read_json(folder / "manifest.json")["studies"]["one"]["neighbours"]
    assert (record["method"], record["recall_rows"]) == ("cells", 300)
    assert 0.3 < record["recall"] < 1
    hits = 0
    for row in range(0, 300, 30):
        found = [one["row"] for one in rows_like(site, "--row", row, "-n", 8)]
        hits += len(set(found) & set(brute(site.A, row, 8, "euclidean")[0]))
    assert 0.3 < hits / 80 < 1
    head = similar(site, "--row", 3, "-n", 2).out.splitlines()[0]
    assert head.endswith(f"in study one, by cells (recall {record['recall']:.3f})")


def test_similar__takes_exact_lists_where_there_are_both(site: Site) -> None:
    cluster = {"tree": {"method": "ward", "n_clusters": 2, "n_neighbors": 8}}
    cells = {"n": 8, "method": "cells", "n_probe": 1, "n_cells": 9}
    study = {"descriptors": ["a"], "reduce": "none", "neighbours": cells, "cluster": cluster}
    site.finished(site.job(studies={"one": study}, memory={"per_task": "96MiB"}))
    for row in range(0, 300, 50):
        found = [one["row"] for one in rows_like(site, "--row", row, "-n", 8)]
        assert found == brute(site.A, row, 8, "euclidean")[0]


def test_plan__of_cells_is_an_upper_bound(site: Site) -> None:
    job = kept_job(site, {"n": 8, "method": "cells", "n_cells": 9})
    step = planned(site, job)["one: 8 near rows by cells, euclidean"]
    site.finished(job)
    (folder,) = (site.workdir / "steps").glob("cells-*")
    assert chunk_bytes(folder) <= step.disk_bytes
    ended = site.run(kept_job(site, {"method": "cells", "n_probe": 18}), command="plan")
    assert ended.code == 3
    assert "neighbours: n_probe=18 but 300 rows make 17 cells; lower it" in ended.err


def test_similar__reads_one_block_of_lists(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 64)
    site.finished(kept_job(site))
    (lists,) = (site.workdir / "steps").glob("neighbours-*/lists.zarr")
    for what in ("rows", "sq_dist"):
        chunks = sorted((lists / what / "part-0000" / "c").iterdir())
        assert len(chunks) == 5
        for chunk in chunks:
            if chunk.name != "2":
                shutil.rmtree(chunk)
    assert [one["row"] for one in rows_like(site, "--row", 130)] == brute(
        site.A, 130, 10, "euclidean"
    )[0]


def test_similar__chooses_among_studies_and_metrics(site: Site) -> None:
    study = {"descriptors": ["a"], "reduce": "none", "neighbours": 4}
    other = study | {"descriptors": ["b"], "neighbours": {"n": 4, "metric": "cosine"}}
    site.finished(site.job(studies={"one": study, "two": other}, memory={"per_task": "96MiB"}))
    ended = similar(site, "--row", 3, "-n", 2)
    assert ended.code == 2
    there = "choose one of --study one --metric euclidean, --study two --metric cosine"
    assert there in ended.err
    wanted = brute(site.B, 3, 4, "cosine")[0]
    assert [one["row"] for one in rows_like(site, "--row", 3, "-n", 4, "--study", "two")] == wanted
    by_metric = rows_like(site, "--row", 3, "-n", 4, "--metric", "cosine")
    assert [one["row"] for one in by_metric] == wanted
    ended = similar(site, "--row", 3, "-n", 4, "--study", "two", "--metric", "euclidean")
    assert ended.code == 5
    assert "write 'neighbours: {n: 32, metric: euclidean}' into a study of its job" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "takes a photo's PATH or its --row: give one of the two"),
        (("a.jpg", "--row", 1), 2, "give one of the two"),
        (("--row", N_ROWS), 2, "--row 300: rows are numbered 0 to 299"),
        (("--row", -1), 2, "--row -1: rows are numbered 0 to 299"),
        (("--row", 1, "-n", 0), 2, "-n 0: the lists of study 'one' hold 12 neighbours"),
        (("--row", 1, "-n", 13), 2, "or write 'neighbours: 13' into the study and run"),
        (("--row", 1, "--study", "on"), 5, "has no study 'on'; did you mean 'one'?"),
        (("x/0/00017.jpg",), 2, "no photo 'x/0/00017.jpg'; the nearest names are 'w/2/0005/00017"),
        (("w/2/0005/0017.jpg",), 2, "; the nearest names are 'w/2/0005/00017.jpg', 'w/2/"),
    ],
)
def test_similar__refuses_in_one_sentence(
    site: Site, words: tuple[object, ...], code: int, sentence: str
) -> None:
    site.finished(kept_job(site))
    ended = similar(site, *words)
    assert (ended.code, ended.out) == (code, "")
    assert sentence in ended.err
    assert len(ended.err.splitlines()) == 1


def test_similar__of_a_run_without_lists_says_what_to_write(site: Site) -> None:
    site.finished(site.job())
    ended = similar(site, site.paths[0])
    assert ended.code == 5
    assert "keeps no lists of nearest rows; write 'neighbours: 32' into a study" in ended.err


def test_similar__needs_paths_only_to_find_by_path(site: Site) -> None:
    site.finished(kept_job(site, data={"paths": None}))
    assert "path" not in rows_like(site, "--row", 3)[0]
    assert "no set brought paths and the job names none: give a --row" in similar(site, "a").err


def test_similar__knows_that_rows_are_others_by_now(site: Site) -> None:
    site.finished(kept_job(site))
    site.write_paths(site.paths[::-1])
    site.finished(kept_job(site, 13, "other"))
    ended = similar(site, "--row", 3)
    assert ended.code == 5
    assert "data set site has other rows or paths by now than run small-" in ended.err
    assert ended.err.rstrip().endswith("run the job again")
    shutil.rmtree(site.workdir / "steps")
    assert "is no longer there; run the job again" in similar(site, "--row", 3).err


def test_plan__refuses_lists_longer_than_there_are_others(site: Site) -> None:
    ended = site.run(kept_job(site, 300), command="plan")
    assert ended.code == 3
    assert "studies.one.neighbours: n=300 but a row has 299 others; lower it to that" in ended.err
    assert site.run(kept_job(site, 299), command="plan").code == 0
    site.save("a.npy", site.A[:1])
    site.save("b.npy", site.B[:1])
    site.write_paths(site.paths[:1])
    ended = site.run(kept_job(site, 1), command="plan")
    assert "studies.one.neighbours: there is 1 row: it has no neighbours" in ended.err


def test_near_paths__the_same_file_elsewhere_comes_first() -> None:
    paths = [f"cam/{i}/{i:05d}.jpg" for i in range(5000)] + ["other/00007.jpg"]
    assert near_paths("dog/00007.jpg", paths) == ["other/00007.jpg", "cam/7/00007.jpg"]
    assert near_paths("cam/77/00077.jpeg", paths)[0] == "cam/77/00077.jpg"
    assert len(near_paths("zzz", paths)) == 3
