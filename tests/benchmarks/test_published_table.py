"""The published table: the job holds every published row, parts are cut and run, scores compare."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks import full_case, published_table
from benchmarks.published import PUBLISHED
from benchmarks.published_table import Part, beside, columns_of, cut, read_published
from tests.benchmarks.test_smoke import no_cluster
from vehclust_dask.cli import main
from vehclust_dask.job import run
from vehclust_dask.job.spec import load_job

JOB = load_job(published_table.JOB, workdir="work")


def test_job__holds_every_published_row_and_nothing_else() -> None:
    made = {
        (study.name, one.name, one.method, k)
        for study in JOB.studies
        for one in study.cluster
        for k in one.n_clusters
    }
    published = read_published()
    named = published[~published["method"].isin(published_table.FINDS_K)]
    wanted = set(
        named[["study", "clustering", "method", "k"]].astype({"k": int}).itertuples(False, None)
    )
    assert len(wanted) == len(named), "a figure stands there twice"
    assert made == wanted
    dense = published[published["method"].isin(published_table.FINDS_K)]
    found = {
        (study.name, one.method)
        for study in JOB.studies
        for one in study.cluster
        if not one.n_clusters
    }
    assert found == set(dense[["study", "method"]].itertuples(False, None))


def test_job__a_study_is_what_its_name_says() -> None:
    for study in JOB.studies:
        sets = "-".join(study.descriptors)
        assert study.name == f"{sets}-{study.reduce.n_components}-{study.scale}"


def test_published__the_calibration_has_the_same_figures() -> None:
    table = read_published()
    table = table[(table["source"] == "summary") & (table["method"] == "kmeans")]
    values = table.set_index(["sets", "scale", "k"])[list(published_table.SCORES)]
    for name, figures in PUBLISHED.items():
        for (scale, k), both in figures.scores.items():
            own = name.removesuffix("-b7")
            assert tuple(values.loc[(own, scale, k)]) == both


def test_cut__keeps_the_order_and_the_room() -> None:
    studies = {f"s{n}": {"reduce": n} for n in (3, 4, 5, 20, 1)}
    parts = list(cut(studies, rows=10, room=4 * 10 * 8))
    assert [list(part.studies) for part in parts] == [["s3", "s4"], ["s5"], ["s20"], ["s1"]]
    assert [part.name for part in parts] == [f"published-0{n}" for n in (1, 2, 3, 4)]
    assert columns_of({"reduce": {"method": "pca", "n_components": 7}}) == 7


def test_beside__scores_are_as_of_the_published_rows() -> None:
    published = pd.DataFrame(
        {
            "rows": pd.array([1000], "Int64"),
            "study": ["s"],
            "clustering": ["km"],
            "method": ["kmeans"],
            "k": pd.array([5], "Int64"),
            "calinski_harabasz": [199.0],
            "davies_bouldin": [2.0],
        }
    )
    ours = published.assign(k=5, calinski_harabasz=19.0, davies_bouldin=1.0)
    (row,) = beside(published, ours, rows=100).to_dict("records")
    assert row["our_calinski_harabasz"] == pytest.approx(199.0)
    assert row["calinski_harabasz_ratio"] == pytest.approx(1)
    assert row["davies_bouldin_ratio"] == 0.5


def test_command__on_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []

    def call(name: str, job: Path, place: Path, workdir: Path) -> full_case.Command:
        called.append(job.name)
        words = [name, job, "--workdir", workdir, "--cluster", place, "--quiet"]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return full_case.Command(name, 1.0, 100.0)

    monkeypatch.setattr(run, "open_place", no_cluster)
    monkeypatch.setattr(run, "draw_figures", lambda *args: None)
    monkeypatch.setattr(full_case, "call", call)
    words = ["--rows", "300", "--workdir", str(tmp_path), "--room", "30kB"]
    words += ["--only", "vdc_type-(20-.*|5-none|1536-.*)"]
    table = published_table.run(words)
    assert called == ["published-01.yaml", "published-02.yaml", "published-03.yaml"]
    methods = {"minibatch-kmeans", "gaussian-mixture", "ward", "kmeans"}
    assert set(table["method"]) == methods
    assert table["calinski_harabasz_ratio"].between(0.3, 3).all()
    assert not list((tmp_path / "steps").glob("reduced-*")), "reduced rows are left behind"
    said = capsys.readouterr().out
    assert "| vdc_type-20-standard | hdb | one cluster |" in said
    assert "| vdc_type-20-standard | db-m5 | 1.29% noise |" in said
    published_table.run(words)
    assert len(called) == 3, "what is done is done again"


def test_command__refuses_what_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no study matches --only 'x'"):
        published_table.run(["--only", "x", "--workdir", str(tmp_path)])


def test_part__its_job_can_be_read(tmp_path: Path) -> None:
    studies = published_table.chosen(300, "vdc_color-5-none")
    file = tmp_path / "job.yaml"
    published_table.write_job(Part("p", studies), tmp_path, file)
    spec = load_job(file, workdir=str(tmp_path))
    assert [study.name for study in spec.studies] == ["vdc_color-5-none"]
    assert spec.data.synthetic
