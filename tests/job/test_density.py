"""Density methods in a job: scikit-learn's labels, the grid, what is named, planned and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import cluster as theirs_of
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score

from tests.job.conftest import N_ROWS, Site
from tests.job.test_plan import planned
from vehclust_dask.job import run
from vehclust_dask.job.density import CONDENSED, DISTANCES, GRID, REACHABILITY
from vehclust_dask.job.figures import StudyResult
from vehclust_dask.job.spec import load_job
from vehclust_dask.job.tree_figures import draw_trees

CLUSTER = {
    "db": {"method": "dbscan", "eps": [1.2, 2.0], "min_samples": [4, 8]},
    "cos": {"method": "dbscan", "metric": "cosine", "min_samples": 5},
    "hdb": {"method": "hdbscan", "min_cluster_size": [12, 20], "min_samples": 5},
}


def studies(cluster: dict[str, Any] = CLUSTER, **more: Any) -> dict[str, Any]:
    return {"one": {"descriptors": ["a"], "reduce": "none", "cluster": cluster} | more}


def density_job(site: Site, name: str = "small", **more: Any) -> Path:
    """Return a job whose tasks may hold lists and edges."""
    return site.job(name, studies=studies(**more), memory={"per_task": "96MiB"})


def scores_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "tables" / "scores.parquet").set_index("clustering")


def test_run__labels_are_scikit_learns(site: Site) -> None:
    folder = site.finished(density_job(site))
    labels, X = site.labels(folder), site.A.astype(np.float64)
    for q in (4, 8):
        for eps in (1.2, 2.0):
            theirs = theirs_of.DBSCAN(eps=eps, min_samples=q).fit(X)
            mine = labels[f"db-m{q}-e{eps:g}"].to_numpy()
            np.testing.assert_array_equal(mine, theirs.labels_)
    for size in (12, 20):
        theirs = theirs_of.HDBSCAN(size, min_samples=5, copy=True).fit(X)
        assert adjusted_rand_score(labels[f"hdb-s{size}"], theirs.labels_) == 1.0
    scores = scores_of(folder)
    theirs = theirs_of.DBSCAN(eps=scores.loc["cos", "eps"], min_samples=5, metric="cosine").fit(X)
    np.testing.assert_array_equal(labels["cos"].to_numpy(), theirs.labels_)


def test_run__scores_leave_noise_out_and_say_how_much(site: Site) -> None:
    folder = site.finished(density_job(site))
    labels, scores = site.labels(folder), scores_of(folder)
    for name in ("db-m4-e2", "hdb-s12"):
        own = labels[name].to_numpy()
        there = own >= 0
        row = scores.loc[name]
        assert row["k"] == own.max() + 1 > 1
        assert row["noise"] == pytest.approx(1 - there.mean())
        X = site.A[there].astype(np.float64)
        assert row["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(X, own[there]))
        assert row["davies_bouldin"] == pytest.approx(davies_bouldin_score(X, own[there]))
        assert row["largest"] == np.bincount(own[there]).max()


def test_run__places_noise_beside_the_nearest_cluster(site: Site) -> None:
    cluster = {"hdb": {"method": "hdbscan", "min_cluster_size": 6, "selection": "leaf"}}
    folder = site.finished(density_job(site, cluster=cluster))
    labels = site.labels(folder)
    own = labels["hdb"].to_numpy()
    k = own.max() + 1
    means = np.stack([site.A[own == c].mean(axis=0, dtype=np.float64) for c in range(k)])
    sq = np.square(site.A[:, None].astype(np.float64) - means[None]).sum(axis=2)
    noise = own < 0
    assert noise.any()
    np.testing.assert_array_equal(labels["second"][noise], sq[noise].argmin(axis=1))
    np.testing.assert_allclose(labels["sq_dist"][noise], sq[noise].min(axis=1), rtol=1e-5)
    assert labels["margin"][noise].isna().all()
    assert labels["margin"][~noise].notna().all()
    assert (labels["probability"][noise] == 0).all()
    assert labels["glosh"].between(0, 1).all()


def test_run__keeps_the_grid_and_what_hdbscan_chose_from(site: Site) -> None:
    labels = site.labels(site.finished(density_job(site)))
    sizes = {size: np.bincount(labels[f"hdb-s{size}"] + 1)[1:].tolist() for size in (12, 20)}
    steps = site.workdir / "steps"
    grids = [pd.read_parquet(file) for file in steps.glob(f"density-grid-*/{GRID}")]
    assert sorted(len(grid) for grid in grids)[0] == 4
    assert all(grid["recommended"].sum() <= 1 for grid in grids)
    for file in steps.glob(f"density-grid-*/{DISTANCES}"):
        table = pd.read_parquet(file)
        assert (table.groupby("min_samples")["distance"].diff().dropna() >= 0).all()
    for folder in steps.glob("hdbscan-*"):
        tree = pd.read_parquet(folder / CONDENSED)
        chosen = tree[tree["chosen"]].sort_values("label")
        assert chosen["size"].tolist() in sizes.values()
        assert chosen["label"].tolist() == list(range(len(chosen)))
        assert (tree.loc[~tree["chosen"], "label"] == -1).all()
        assert (tree["end"] >= tree["birth"]).all()
        assert tree["size"].iloc[0] == N_ROWS
        with np.load(folder / REACHABILITY) as stored:
            assert sorted(stored["order"].tolist()) == list(range(N_ROWS))


def test_draw_trees__draws_what_each_method_found(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folder: Path, results: list[StudyResult], *_: Any) -> None:
        draw_trees(tmp_path / "figures", results[0].spec, results[0].clusterings, True)

    monkeypatch.setattr(run, "draw_figures", draw)
    cluster = CLUSTER | {"tree": {"method": "ward", "n_clusters": 4}}
    folder = site.finished(density_job(site, cluster=cluster))
    names = ["core-distances-one-cos", "dbscan-map-one-db", "dendrogram-one-tree"]
    names += ["condensed-one-hdb-s12", "reachability-one-hdb-s20"]
    written = {file.stem for file in (tmp_path / "figures").glob("*.svg")}
    assert set(names) <= written
    labels = site.labels(folder)["hdb-s12"]
    drawn = pd.read_csv(tmp_path / "figures" / "condensed-one-hdb-s12.csv")
    named = drawn[drawn["label"] >= 0].sort_values("label")
    assert named["rows"].tolist() == np.bincount(labels + 1)[1:].tolist()


def test_run__one_pass_and_one_tree_serve_all_of_a_metric(site: Site) -> None:
    cluster = CLUSTER | {"tree": {"method": "ward", "n_clusters": 4, "n_neighbors": 3}}
    site.finished(density_job(site, cluster=cluster))
    steps = [folder.name.split("-")[0] for folder in (site.workdir / "steps").iterdir()]
    assert steps.count("neighbours") == 2
    trees = list((site.workdir / "steps").glob("density-*/manifest.json"))
    assert len(trees) == 2 + 2, "a tree and a grid for each metric"


def test_run__all_noise_is_a_result(site: Site) -> None:
    cluster = {"db": {"method": "dbscan", "eps": 1e-3, "min_samples": 5}}
    folder = site.finished(density_job(site, cluster=cluster))
    assert (site.labels(folder)["db"] == -1).all()
    row = scores_of(folder).loc["db"]
    assert (row["k"], row["noise"], row["smallest"], row["largest"]) == (0, 1.0, 0, 0)
    assert np.isnan(row["calinski_harabasz"])


def test_run__of_equal_rows_is_refused(site: Site) -> None:
    site.save("a.npy", np.ones_like(site.A))
    ended = site.run(density_job(site))
    assert ended.code == 3
    assert "all 300 rows are equal" in ended.err


def test_featured__of_what_finds_its_k(site: Site) -> None:
    only = load_job(density_job(site), workdir=str(site.workdir)).studies[0]
    assert only.featured == ("db", None)
    both = CLUSTER | {"km": {"method": "kmeans", "n_clusters": 4}}
    mixed = load_job(density_job(site, cluster=both), workdir=str(site.workdir)).studies[0]
    assert mixed.featured == ("km", 4)


def test_export__writes_a_density_clustering(site: Site, tmp_path: Path) -> None:
    from tests.job.conftest import call

    folder = site.finished(density_job(site))
    ended = call(
        "export", "csv", folder.name, "--workdir", site.workdir, "--clustering", "hdb-s12",
        "--out", tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    written = pd.read_csv(ended.out.strip())
    np.testing.assert_array_equal(written["cluster"], site.labels(folder)["hdb-s12"])


def test_plan__grows_with_min_samples(site: Site) -> None:
    def lists(q: int) -> int:
        cluster = {"db": {"method": "dbscan", "min_samples": q}}
        steps = planned(site, density_job(site, cluster=cluster))
        return steps[f"one: {q - 1} nearest rows, euclidean"].disk_bytes

    assert lists(100) > 5 * lists(10)


@pytest.mark.parametrize(
    ("clustering", "code", "said"),
    [
        ({"method": "dbscan", "min_samples": 301}, 3, "min_samples=301 but there are 300 rows"),
        ({"method": "dbscan", "eps": 0}, 2, "eps: got 0, expected a distance above 0"),
        ({"method": "dbscan", "n_clusters": 3}, 2, "n_clusters.*no meaning for method dbscan"),
        ({"method": "dbscan", "metric": "euclid"}, 2, "metric: 'euclid'.*euclidean"),
        ({"method": "hdbscan"}, 2, "min_cluster_size.*is missing"),
        ({"method": "hdbscan", "min_cluster_size": 1}, 2, "min_cluster_size.* 2"),
        ({"method": "kmeans", "n_clusters": 3, "eps": 1}, 2, "eps.*no meaning for method kmeans"),
        ({"method": "dbscan", "engine": "dask-ml"}, 2, "engine.*dask-ml"),
    ],
)
def test_job__refuses_in_one_sentence(
    site: Site, clustering: dict[str, Any], code: int, said: str
) -> None:
    import re

    ended = site.run(density_job(site, cluster={"db": clustering}))
    assert ended.code == code, ended.err
    assert re.search(said, ended.err), ended.err


def test_job__featured_names_no_k_of_what_finds_it(site: Site) -> None:
    ended = site.run(density_job(site, featured="db/4"))
    assert ended.code == 2
    assert "'db' finds its number of clusters itself; write 'db'" in ended.err


def test_outliers__take_glosh_from_the_tree(site: Site) -> None:
    job = density_job(
        site, outliers={"scores": ["glosh", "center_distance", "lof"]}, featured="hdb"
    )
    folder = site.finished(job)
    table = pd.read_parquet(folder / "tables" / "outliers-one.parquet")
    labels = site.labels(folder)
    np.testing.assert_allclose(table["glosh"], labels["glosh"])
    np.testing.assert_allclose(table["center_distance"], np.sqrt(labels["sq_dist"]))
    assert table["glosh"][table["glosh_rank"] == 1].iloc[0] == table["glosh"].max()
