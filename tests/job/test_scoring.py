"""What is known of rows as numbers, and scores that scikit-learn gives as well."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
)

from tests.job.conftest import Site
from vehclust_dask.job.scoring import Known


def samples() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": range(5),
            "group": pd.array(["x", None, "y", "x", "y"], dtype="string"),
            "truth_kind": pd.array(["a", "b", None, "a", "c"], dtype="string"),
        }
    )


def test_known__numbers_values_and_marks_what_is_not_known() -> None:
    known = Known.of(samples(), ())
    assert known.group is not None
    assert known.group.tolist() == [0, -1, 1, 0, 1]
    assert known.truth["kind"].tolist() == [0, 1, -1, 0, 2]
    assert not known.empty


def test_known__leaves_dropped_rows_out() -> None:
    known = Known.of(samples(), (0, 2))
    assert known.group is not None
    assert known.group.tolist() == [-1, 0, 1]
    assert known.truth["kind"].tolist() == [0, 1, 2]


def test_known__digest_depends_on_every_value() -> None:
    changed = samples()
    changed.loc[4, "truth_kind"] = "a"
    renamed = samples().rename(columns={"truth_kind": "truth_type"})
    tables = [samples(), changed, renamed, samples().drop(columns="group")]
    assert len({Known.of(table, ()).digest for table in tables}) == 4
    assert Known.of(samples(), ()).digest == Known.of(samples(), ()).digest


def test_known__of_nothing_is_empty() -> None:
    assert Known.of(pd.DataFrame({"row": [0, 1]}), ()).empty


def test_scores__equal_those_of_scikit_learn(site: Site) -> None:
    table = pd.DataFrame({"path": site.paths, "kind": site.kinds, "some": np.arange(300) % 3})
    table["some"] = table["some"].astype(str).where(np.arange(300) % 4 > 0, "")
    table.to_csv(site.folder / "truth.csv", index=False)
    cluster = {"km": {"method": "kmeans", "n_clusters": [2, 3, 5], "n_init": 2, "max_iter": 1}}
    studies = {"one": {"descriptors": ["b"], "reduce": "none", "cluster": cluster}}
    data = {"truth": "truth.csv", "group": r"w/\d/(\d+)/"}
    folder = site.finished(site.job(studies=studies, data=data))
    scores = pd.read_csv(folder / "tables" / "scores.csv").set_index("k")
    labels = site.labels(folder)
    sizes = pd.read_parquet(folder / "tables" / "clusters-one-km.parquet")
    X, groups = site.B.astype(np.float64), np.arange(300) // 3
    for k in (2, 3, 5):
        mine, row = labels[f"km_{k}"].to_numpy(), scores.loc[k]
        np.testing.assert_allclose(
            row["calinski_harabasz"], calinski_harabasz_score(X, mine), rtol=1e-6
        )
        np.testing.assert_allclose(row["davies_bouldin"], davies_bouldin_score(X, mine), rtol=1e-6)
        told = table["some"].to_numpy() != ""
        for column, keep in (("kind", np.full(300, True)), ("some", told)):
            truth = table[column].to_numpy()[keep].astype(str)
            found = mine[keep]
            np.testing.assert_allclose(
                row[f"ari_{column}"], adjusted_rand_score(truth, found), atol=1e-12
            )
            ami = adjusted_mutual_info_score(truth, found)
            np.testing.assert_allclose(row[f"ami_{column}"], ami, atol=1e-9)
            most = pd.crosstab(found, truth).max(axis=1).sum() / keep.sum()
            np.testing.assert_allclose(row[f"accuracy_{column}"], most)
        same = [mine[i] == mine[j] for i in range(300) for j in range(i) if groups[i] == groups[j]]
        np.testing.assert_allclose(row["group_agreement"], np.mean(same))
        counts = np.bincount(mine, minlength=k)
        assert (row["smallest"], row["largest"], row["empty"]) == (counts.min(), counts.max(), 0)
        part = sizes[sizes["k"] == k]
        assert part["size"].tolist() == counts.tolist()
        means = np.array([X[mine == c].mean(axis=0) for c in range(k)])
        spread = [np.linalg.norm(X[mine == c] - means[c], axis=1).mean() for c in range(k)]
        np.testing.assert_allclose(part["mean_distance"], spread, rtol=1e-6)
        apart = np.linalg.norm(means[:, None] - means[None], axis=2) + np.diag(np.full(k, np.inf))
        assert part["nearest_cluster"].tolist() == apart.argmin(axis=1).tolist()
        np.testing.assert_allclose(part["nearest_distance"], apart.min(axis=1), rtol=1e-6)
