"""The page of density and trees: the recommended setting in words, every figure with its numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage

from tests.job.conftest import Site, call, no_cluster
from tests.report.site import small_books as books
from vehclust_dask.job import run
from vehclust_dask.report.density import DensityMap, KDistance
from vehclust_dask.report.site.book import Book
from vehclust_dask.report.site.build import write_site
from vehclust_dask.report.trees import Dendrogram

PAGE = "s/one/density.html"


def grid(best: int | None) -> pd.DataFrame:
    """Return a map of six settings; one is recommended."""
    n = 6
    return pd.DataFrame(
        {
            "min_samples": [5, 5, 5, 10, 10, 10],
            "eps": [0.1, 0.2, 0.4, 0.1, 0.2, 0.4],
            "clusters": [3, 40, 1, 0, 12, 1],
            "noise": [0.9, 0.3, 0.0, 1.0, 0.5, 0.02],
            "largest": [0.05, 0.25, 1.0, 0.0, 0.3, 0.98],
            "balanced": [best is not None and i in (1, 4) for i in range(n)],
            "recommended": [i == best for i in range(n)],
        }
    )


def make(folder: Path, best: int | None, part: str = "db") -> Book:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, books.N_ROWS)
    shares = np.linspace(0, 1, 11)
    distances = pd.DataFrame({"min_samples": 5, "share": shares, "distance": shares**2})
    tree = linkage(rng.normal(size=(30, 2)), "ward")
    scores = pd.DataFrame(
        {
            "study": "one",
            "clustering": [f"{part}-m5", f"{part}-m10", f"{part}-other", "ward"],
            "k": [40, 12, 7, 3],
            "noise": [0.3, 0.5, 0.7, np.nan],
        }
    )
    displays = {
        ("dbscan-map", part): DensityMap(grid(best), "cosine", synthetic=True),
        ("core-distances", part): KDistance(distances, "cosine", synthetic=True),
        ("core-distances", f"{part}-other"): KDistance(distances, "cosine"),
        ("dendrogram", "ward"): Dendrogram(tree, 10, 3, "height"),
    }
    study = books.study(folder, "one", labels, 3, displays=displays, scores=scores)
    return books.book(folder, [study])


def test_page__names_the_recommended_setting(tmp_path: Path) -> None:
    write_site(make(tmp_path, 1), tmp_path / "out")
    text = books.check_safe(tmp_path / "out" / PAGE).text
    assert "Take eps = 0.2, min_samples = 5. It gives 40 clusters, 30 % noise, 25 %" in text
    assert "outlined on the map: 2." in text
    assert "No eps gives" not in text


def test_page__says_that_no_eps_serves_and_what_comes_nearest(tmp_path: Path) -> None:
    write_site(make(tmp_path, None), tmp_path / "out")
    text = books.Page(tmp_path / "out" / PAGE).text
    assert "No eps gives balanced clusters" in text
    # 0.3 is the least of the larger of noise and largest.
    assert "The least bad is eps = 0.2, min_samples = 5. It gives 40 clusters" in text
    assert "Take eps" not in text


def test_page__clusterings_stand_under_their_own_part(tmp_path: Path) -> None:
    write_site(make(tmp_path, 1), tmp_path / "out")
    text = books.Page(tmp_path / "out" / PAGE).text
    first, _, rest = text.partition("db-other: 7 clusters")
    assert "db-m5: 40 clusters, 30 % noise" in first
    assert "db-m10: 12 clusters" in first
    assert "db-m5" not in rest


def test_page__figures_have_their_numbers_and_the_same_bytes_again(tmp_path: Path) -> None:
    book = make(tmp_path / "run", 1)
    write_site(book, tmp_path / "out")
    books.check_numbers_beside_figures(tmp_path / "out")
    shown = pd.read_csv(tmp_path / "out/s/one/figures/dbscan-map-db.csv")
    pd.testing.assert_frame_equal(shown, grid(1))
    first = books.tree_bytes(tmp_path / "out")
    write_site(book, tmp_path / "out")
    assert books.tree_bytes(tmp_path / "out") == first


@pytest.mark.parametrize("language", ["en", "ru"])
def test_page__a_hostile_name_stays_a_word(tmp_path: Path, language: str) -> None:
    part = "<script>alert(1)</script>"
    write_site(make(tmp_path, 1, part), tmp_path / "out", language)
    page = books.check_safe(tmp_path / "out" / PAGE)
    assert part in page.text
    assert {attrs.get("src") for attrs in page.of("img")} >= {
        "figures/dbscan-map-_script_alert_1___script_.svg"
    }


def test_page__a_study_without_trees_has_none(tmp_path: Path) -> None:
    study = books.study(tmp_path, "one", np.arange(books.N_ROWS) % 3, 3)
    write_site(books.book(tmp_path, [study]), tmp_path / "out")
    assert not (tmp_path / "out" / PAGE).exists()


def test_report__shows_the_figures_that_the_run_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "open_place", no_cluster)
    site = Site(tmp_path)
    cluster = {
        "tree": {"method": "ward", "n_clusters": [3, 4]},
        "db": {"method": "dbscan", "min_samples": [4, 8]},
        "hdb": {"method": "hdbscan", "min_cluster_size": [12, 20]},
    }
    study = {"descriptors": ["a"], "scale": "standard", "reduce": "none", "cluster": cluster}
    job = site.job(studies={"one": study | {"featured": "tree/4"}}, memory={"per_task": "128MiB"})
    folder = site.finished(job)
    out = tmp_path / "report"
    ended = call("report", folder.name, "--workdir", site.workdir, "--out", out)
    assert ended.code == 0, ended.err
    drawn = {file.name for file in (folder / "figures").glob("*.csv")}
    for stem, own in {
        "dbscan-map-db": "dbscan-map-one-db",
        "core-distances-db": "core-distances-one-db",
        "dendrogram-tree": "dendrogram-one-tree",
        "reachability-hdb-s12": "reachability-one-hdb-s12",
        "reachability-hdb-s20": "reachability-one-hdb-s20",
        "condensed-hdb-s12": "condensed-one-hdb-s12",
    }.items():
        assert f"{own}.csv" in drawn
        for ending in ("csv", "svg"):
            shown = (out / "s/one/figures" / f"{stem}.{ending}").read_bytes()
            assert shown == (folder / "figures" / f"{own}.{ending}").read_bytes()
