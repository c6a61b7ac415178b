"""Outliers in a job: scores against their oracles, ranks, rules, photos that are broken or absent."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from tests.job.conftest import N_ROWS, Site, call
from tests.job.test_plan import planned
from vehclust_dask.errors import BadInput, UsageError
from vehclust_dask.job import photo_scores
from vehclust_dask.job.outlier_judging import questions
from vehclust_dask.job.outlier_spec import FROM_PHOTOS, SCORES
from vehclust_dask.job.plan import plan_job
from vehclust_dask.job.spec import load_job
from vehclust_dask.kernels.outliers import ranks

#: Rows of the site whose photo is spoilt, and how.
GLARE, DARK, WIDE, CUT, NO_PICTURE, ABSENT = 7, 8, 9, 10, 11, 12


def studies(outliers: Any = True, **more: Any) -> dict[str, Any]:
    cluster = {"km": {"method": "kmeans", "n_clusters": 4, "n_init": 2}}
    study = {"descriptors": ["a"], "reduce": "none", "cluster": cluster, "outliers": outliers}
    return {"one": study | more}


def with_photos(site: Site) -> dict[str, Any]:
    """Pack a photo per row, a few of them spoilt; return what the data section needs."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(site.folder / "photos.zip", "w") as packed:
        for i, path in enumerate(site.paths):
            pixels = rng.integers(60, 180, (12, 16, 3)).astype(np.uint8)
            size = (640, 60) if i == WIDE else (64, 48)
            pixels = {GLARE: np.full_like(pixels, 255), DARK: pixels // 20}.get(i, pixels)
            out = io.BytesIO()
            Image.fromarray(pixels).resize(size).save(out, "JPEG")
            content = {NO_PICTURE: b"no picture", CUT: out.getvalue()[:-40]}.get(i, out.getvalue())
            if i != ABSENT:
                packed.writestr(path, content)
    return {"photos": "photos.zip"}


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "tables" / "outliers-one.parquet")


@pytest.fixture
def spoilt(site: Site) -> Site:
    """Return a site with two rows far out, and rows that repeat others or nearly do so."""
    site.A[3] += 40
    site.A[4] -= 25
    site.A[21] = site.A[20]
    site.A[23] = site.A[22] + np.float32(1e-3)
    site.A[24] = site.A[23] + np.float32(1e-3)
    site.save("a.npy", site.A)
    return site


def test_scores__are_those_of_the_oracles(spoilt: Site) -> None:
    table = table_of(spoilt.finished(spoilt.job(studies=studies())))
    X = spoilt.A.astype(np.float64)
    lof = LocalOutlierFactor(20).fit(X)
    np.testing.assert_allclose(table["lof"], -lof.negative_outlier_factor_, rtol=1e-6)
    distances, _ = NearestNeighbors(n_neighbors=20).fit(X).kneighbors()
    np.testing.assert_allclose(table["knn_distance"], distances[:, -1], rtol=1e-6)
    forest = IsolationForest(max_samples=256, random_state=1).fit(spoilt.A)
    np.testing.assert_array_equal(table["isolation"], -forest.score_samples(spoilt.A))
    labels = spoilt.labels(spoilt.workdir / "runs" / next((spoilt.workdir / "runs").iterdir()).name)
    np.testing.assert_array_equal(
        table["center_distance"], np.sqrt(labels["sq_dist"].to_numpy(np.float64))
    )
    assert table["lof_rank"].iloc[3] == 1
    np.testing.assert_allclose(table["duplicate_distance"], distances[:, 0], rtol=1e-6)


def test_duplicates__are_grouped_by_their_first_row(spoilt: Site) -> None:
    table = table_of(spoilt.finished(spoilt.job(studies=studies({"duplicates": 0.01}))))
    grouped = table[table["duplicate_group"] >= 0]
    assert grouped["row"].tolist() == [20, 21, 22, 23, 24]
    assert grouped["duplicate_group"].tolist() == [20, 20, 22, 22, 22]
    assert table["duplicate_distance"].iloc[20] == 0
    none = table_of(spoilt.finished(spoilt.job("zero", studies=studies({"duplicates": 0}))))
    assert none[none["duplicate_group"] >= 0]["row"].tolist() == [20, 21]


def test_duplicates__say_when_lists_were_too_short_for_a_group(site: Site) -> None:
    site.A[:40] = site.A[0] + 1e-4 * site.A[:40]
    site.save("a.npy", site.A)
    ended = site.run(site.job(studies=studies({"n_neighbors": 5})))
    assert ended.code == 0
    assert "40 rows have near-duplicates in their whole list" in ended.err


def test_rows__that_are_all_alike_are_refused(site: Site) -> None:
    site.save("a.npy", np.ones_like(site.A))
    ended = site.run(site.job(studies=studies(cluster={}, descriptors=["a"])))
    assert ended.code == 3
    assert "all 300 rows are equal" in ended.err


def test_ranks__one_is_the_largest_and_ties_go_by_row() -> None:
    values = np.array([2.0, np.nan, 5.0, 2.0, -1.0])
    found = ranks(values)
    assert found.tolist() == [2, 0, 1, 3, 4]
    assert found.dtype == np.int32


def test_table__ranks_every_score(spoilt: Site) -> None:
    data = with_photos(spoilt)
    table = table_of(spoilt.finished(spoilt.job(studies=studies(), data=data)))
    assert table["row"].tolist() == list(range(N_ROWS))
    assert table["path"].tolist() == spoilt.paths
    for score in SCORES:
        np.testing.assert_array_equal(table[f"{score}_rank"], ranks(table[score].to_numpy()))
        assert table[f"{score}_rank"].dtype == np.int32
    assert not table["excluded"].any()
    assert table["reason"].isna().all()


def test_photos__each_fault_is_found_and_a_broken_one_is_no_stop(spoilt: Site) -> None:
    data = with_photos(spoilt)
    table = table_of(spoilt.finished(spoilt.job(studies=studies(), data=data)))
    assert table["glare"].iloc[GLARE] == 1
    for score, row in (("glare", GLARE), ("dark", DARK), ("blur", GLARE), ("odd_size", WIDE)):
        assert table[f"{score}_rank"].iloc[row] == 1, score
    usual = math.hypot(math.log2(640 / 60 / (64 / 48)), math.log2(640 * 60 / (64 * 48)))
    assert table["odd_size"].iloc[WIDE] == pytest.approx(usual)
    assert table["odd_size"].iloc[0] == 0
    assert table.index[table["broken"] == 1].tolist() == [CUT, NO_PICTURE]
    assert np.isnan(table["broken"].iloc[ABSENT])
    measured = [score for score in FROM_PHOTOS if score != "broken"]
    assert table.loc[[CUT, NO_PICTURE, ABSENT], measured].isna().all(axis=None)
    assert (table.loc[[ABSENT], [f"{score}_rank" for score in FROM_PHOTOS]] == 0).all(axis=None)


def test_photos__are_looked_at_once_and_an_interrupted_step_goes_on(
    spoilt: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_scores, "BLOCK_ROWS", 64)
    seen: list[int] = []
    told = photo_scores._score

    class Stopped(Exception):
        pass

    def looking(photos: Any, entry: int) -> Any:
        seen.append(entry)
        if len(seen) == 150:
            raise Stopped
        return told(photos, entry)

    monkeypatch.setattr(photo_scores, "_score", looking)
    job = spoilt.job(studies=studies(), data=with_photos(spoilt))
    with pytest.raises(Stopped):
        spoilt.run(job)
    spoilt.finished(job)
    assert len(seen) == 150 + N_ROWS - 128
    spoilt.finished(
        spoilt.job(
            "other", studies=studies({"rules": {"glare": 0.5}}), data={"photos": "photos.zip"}
        )
    )
    assert len(seen) == 150 + N_ROWS - 128
    (step,) = (spoilt.workdir / "steps").glob("photo-scores-*")
    with_photos(spoilt)
    spoilt.finished(job)
    assert len(list(step.parent.glob("photo-scores-*"))) == 2, "another zip is looked at again"


def test_photos__that_the_job_does_not_name_are_left_out_with_a_reason(spoilt: Site) -> None:
    ended = spoilt.run(spoilt.job(studies=studies()))
    assert "one: no photos in this job, so no glare, dark" in ended.err
    (folder,) = (spoilt.workdir / "runs").iterdir()
    assert not set(FROM_PHOTOS) & set(table_of(folder))


def test_rule__excludes_by_its_threshold_and_never_a_share(spoilt: Site) -> None:
    data = with_photos(spoilt)
    first = table_of(spoilt.finished(spoilt.job("free", studies=studies(), data=data)))
    limit = float(first["lof"].iloc[3])
    rules = {"glare": 0.5, "lof": limit, "dark": 0.01, "broken": 1}
    folder = spoilt.finished(spoilt.job(studies=studies({"rules": rules}), data=data))
    table = table_of(folder)
    wanted = [table.index[table[score] >= rule].tolist() for score, rule in rules.items()]
    assert wanted[:2] == [[GLARE], [3]]
    assert len(wanted[2]) == N_ROWS - 4, "a low threshold excludes as many as reach it"
    assert table.index[table["excluded"]].tolist() == sorted(set().union(*wanted))
    assert table["reason"].iloc[3] == f"lof >= {limit:g}; dark >= 0.01"
    assert table["reason"].iloc[CUT] == "broken >= 1"
    assert table["reason"].isna().sum() == (~table["excluded"]).sum()
    scores = pd.read_csv(folder / "tables" / "outlier-scores.csv").set_index("score")
    assert scores.loc["glare", ["rule", "over_rule"]].tolist() == [0.5, 1]
    assert math.isnan(scores.loc["blur", "rule"])
    strict = {"glare": 2.0, "lof": 1e6}
    none = table_of(
        spoilt.finished(spoilt.job("none", studies=studies({"rules": strict}), data=data))
    )
    assert not none["excluded"].any()


def test_judging__equals_scikit_learns_and_leaves_unknown_rows_out(spoilt: Site) -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import average_precision_score

    bad = np.isin(np.arange(N_ROWS), [3, 4, 50])
    known = pd.DataFrame({"path": spoilt.paths, "bad": np.where(bad, "yes", "no"), "kind": "x"})
    known["quality"] = np.where(bad, "glare", np.where(np.arange(N_ROWS) == 60, "night", "ok"))
    known.loc[:1, ["bad", "quality"]] = ""
    known.to_csv(spoilt.folder / "truth.csv", index=False)
    folder = spoilt.finished(spoilt.job(studies=studies(), data={"truth": "truth.csv"}))
    scores = pd.read_csv(folder / "tables" / "outlier-scores.csv")
    assert set(scores["question"]) == {"bad", "quality=glare", "quality=night", "quality!=ok"}
    table = table_of(folder)
    row = scores[(scores["question"] == "bad") & (scores["score"] == "lof")].iloc[0]
    assert row["known"] == N_ROWS - 2
    assert row["base_rate"] == pytest.approx(3 / (N_ROWS - 2))
    wanted = average_precision_score(bad[2:], table["lof"][2:])
    assert row["average_precision"] == pytest.approx(wanted)
    pairs = pd.read_csv(folder / "tables" / "outlier-agreement.csv").set_index(["score", "other"])
    pair = pairs.loc[("lof", "isolation")]
    assert pair["spearman"] == pytest.approx(spearmanr(table["lof"], table["isolation"]).statistic)
    top = [set(table.index[table[f"{s}_rank"] <= 3]) for s in ("lof", "isolation")]
    assert pair["top_overlap"] == pytest.approx(len(top[0] & top[1]) / 3)


def test_questions__are_yes_or_no_or_what_is_not_ok() -> None:
    samples = pd.DataFrame(
        {
            "row": range(4),
            "truth_vehicle": ["1", "0", None, "1"],
            "truth_never": ["no"] * 4,
            "truth_type": ["suv", "bus", "suv", "suv"],
            "truth_state": ["OK", "ok", "torn", None],
        }
    )
    found = {q.name: (q.known.tolist(), q.true.tolist()) for q in questions(samples)}
    assert found == {
        "vehicle": ([True, True, False, True], [True, False, False, True]),
        "state=torn": ([True, True, True, False], [False, False, True, False]),
    }


@pytest.mark.parametrize(
    ("outliers", "sentence"),
    [
        ({"score": ["lof"]}, "unknown key 'score'; did you mean 'scores'"),
        ({"scores": ["lov"]}, "'lov' is not known; did you mean 'lof'"),
        ({"scores": ["lof", "lof"]}, "'lof' stands here twice"),
        ({"scores": ["lof"], "rules": {"isolation": 0.6}}, "unknown key 'isolation'"),
        ({"rules": {"lof": "high"}}, "expected a number of 0 or more"),
        ({"n_neighbors": 0}, "expected a whole number of 1 or more"),
        ({"isolation_forest": {"sample": 1}}, "a whole number of 2 or more"),
        ("lof", "expected a mapping"),
    ],
)
def test_job__refuses(site: Site, outliers: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_job(site.job(studies=studies(outliers)), workdir="/w")


def test_job__refuses_centers_where_there_are_none(site: Site) -> None:
    study = studies({"scores": ["center_distance"]}, cluster={})
    with pytest.raises(UsageError, match="'center_distance' is not known"):
        load_job(site.job(studies=study), workdir="/w")


def test_plan__refuses_what_there_are_no_photos_or_rows_for(site: Site) -> None:
    site.workdir.mkdir()
    for outliers in ({"rules": {"glare": 0.5}}, {"scores": ["glare"]}):
        job = load_job(site.job(studies=studies(outliers)), workdir=str(site.workdir))
        with pytest.raises(UsageError, match="'glare' is measured on photos"):
            plan_job(job, site.workdir)
    job = load_job(site.job(studies=studies({"n_neighbors": N_ROWS})), workdir=str(site.workdir))
    with pytest.raises(BadInput, match=f"n_neighbors={N_ROWS} but there are {N_ROWS} rows"):
        plan_job(job, site.workdir)


def test_plan__names_the_steps_and_shares_lists_with_a_tree(site: Site) -> None:
    study = studies({"n_neighbors": 8}) | {}
    study["one"]["cluster"]["tree"] = {"method": "ward", "n_clusters": 3, "n_neighbors": 12}
    job = site.job(studies=study, data=with_photos(site), memory={"per_task": "128MiB"})
    steps = planned(site, job)
    assert [name for name in steps if "nearest rows" in name] == ["one: 12 nearest rows, euclidean"]
    assert {"one: outliers by lists", "one: isolation forest", "photos"} <= set(steps)
    site.finished(job)
    assert len(list((site.workdir / "steps").glob("neighbours-*"))) == 1
    for kind, name in (
        ("isolation", "one: isolation forest"),
        ("photo-scores", "photos"),
        ("lof", "one: outliers by lists"),
    ):
        (folder,) = (site.workdir / "steps").glob(f"{kind}-*")
        written = sum(f.stat().st_size for f in folder.rglob("c/*/*"))
        assert 0 < written <= steps[name].disk_bytes + 4 * 8, kind


def test_run__without_outliers_writes_none(site: Site) -> None:
    folder = site.finished(site.job(studies=studies(False)))
    assert not list((folder / "tables").glob("outlier*"))
    assert not list((site.workdir / "steps").glob("lof-*"))


def test_dropped_rows__are_absent_and_groups_keep_original_numbers(spoilt: Site) -> None:
    spoilt.A[[0, 5]] = np.nan
    spoilt.save("a.npy", spoilt.A)
    data = with_photos(spoilt) | {"on_nan": "drop"}
    table = table_of(spoilt.finished(spoilt.job(studies=studies({"duplicates": 0.01}), data=data)))
    assert table["row"].tolist() == [i for i in range(N_ROWS) if i not in (0, 5)]
    at = table.set_index("row")
    assert at.loc[[20, 21, 22], "duplicate_group"].tolist() == [20, 20, 22]
    assert at["glare"].idxmax() == GLARE
    assert at.index[at["broken"] == 1].tolist() == [CUT, NO_PICTURE]


def test_command__plans_a_job_with_outliers(site: Site) -> None:
    ended = call("plan", site.job(studies=studies()), "--workdir", site.workdir)
    assert ended.code == 0, ended.err
    assert "one: outliers by lists" in ended.out + ended.err
