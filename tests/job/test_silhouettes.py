"""Silhouettes in a job: scikit-learn's values, noise, what is asked for and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score
from sklearn.metrics.pairwise import euclidean_distances

from tests.job.conftest import Site
from tests.job.test_plan import planned
from vehclust_dask.job.spec import load_job

CLUSTER = {
    "km": {"method": "kmeans", "n_clusters": [2, 3, 4], "n_init": 2},
    "hdb": {"method": "hdbscan", "min_cluster_size": 6, "selection": "leaf"},
}


def job_of(site: Site, asked: Any, name: str = "small", cluster: Any = CLUSTER) -> Path:
    study = {"descriptors": ["a"], "reduce": "none", "cluster": cluster, "featured": "km/3"}
    studies = {"one": study | {"silhouette": asked}}
    return site.job(name, studies=studies, memory={"per_task": "96MiB"})


def scores_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "tables" / "scores.parquet").set_index(["clustering", "k"])


def test_run__values_are_scikit_learns(site: Site) -> None:
    folder = site.finished(job_of(site, "all"))
    labels, scores, X = site.labels(folder), scores_of(folder), site.A.astype(np.float64)
    for k in (2, 3, 4):
        wanted = silhouette_score(X, labels[f"km_{k}"])
        assert scores.loc[("km", k), "silhouette"] == pytest.approx(wanted, abs=1e-6)
    np.testing.assert_allclose(
        labels["silhouette"], silhouette_samples(X, labels["km_3"]), atol=1e-5
    )
    noise = labels["hdb"] < 0
    assert noise.any()
    there = silhouette_score(X[~noise], labels["hdb"][~noise])
    row = scores.loc["hdb"].iloc[0]
    assert row["silhouette"] == pytest.approx(there, abs=1e-6)


def test_run__squared_ones_have_a_name_of_their_own(site: Site) -> None:
    folder = site.finished(job_of(site, []))
    labels, scores = site.labels(folder), scores_of(folder)
    assert "silhouette" not in scores
    D = euclidean_distances(site.A.astype(np.float64)) ** 2
    np.fill_diagonal(D, 0.0)
    for k in (2, 3, 4):
        wanted = silhouette_score(D, labels[f"km_{k}"], metric="precomputed")
        assert scores.loc[("km", k), "silhouette_sq"] == pytest.approx(wanted, abs=1e-9)


def test_run__means_of_clusters_are_those_of_their_rows(site: Site) -> None:
    folder = site.finished(job_of(site, "featured"))
    labels = site.labels(folder)
    table = pd.read_parquet(folder / "tables" / "clusters-one-km.parquet")
    by_cluster = table[table["k"] == 3].set_index("cluster")["silhouette"]
    wanted = labels.groupby("km_3")["silhouette"].mean()
    np.testing.assert_allclose(by_cluster, wanted, atol=1e-6)
    assert table[table["k"] != 3]["silhouette"].isna().all()
    scores = scores_of(folder)["silhouette"]
    assert scores.notna().sum() == 1


def test_run__of_the_same_clusterings_shares_the_pass(site: Site) -> None:
    site.finished(job_of(site, ["km/2", "km/3"]))
    (step,) = (site.workdir / "steps").glob("silhouette-*/manifest.json")
    before = step.stat().st_mtime_ns
    site.finished(job_of(site, ["km/3", "km/2"], "again"))
    assert step.stat().st_mtime_ns == before
    assert len(list((site.workdir / "steps").glob("silhouette-*"))) == 1


def test_plan__counts_a_sum_per_row_and_cluster(site: Site) -> None:
    wide = {"km": {"method": "kmeans", "n_clusters": [3, 200], "n_init": 1}}

    def task(asked: Any) -> int:
        steps = planned(site, job_of(site, asked, cluster=wide))
        return steps["one: silhouettes"].task_bytes

    assert task("km/200") - task("km/3") > 8 * 300 * 197


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("kn/3", "silhouette: 'kn' is no clustering of this study"),
        (["km/9"], "silhouette.*'km' is not made for k=9; k is one of 2, 3, 4"),
        ("hdb/3", "'hdb' finds its number of clusters itself; write 'hdb'"),
    ],
)
def test_job__refuses_in_one_sentence(site: Site, asked: Any, said: str) -> None:
    import re

    ended = site.run(job_of(site, asked))
    assert ended.code == 2
    assert re.search(said, ended.err), ended.err


def test_job__reads_what_is_asked(site: Site) -> None:
    asked = load_job(job_of(site, ["km/3", "hdb"]), workdir="/w").studies[0].silhouette
    assert asked == (("km", 3), ("hdb", None))
