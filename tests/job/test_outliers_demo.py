"""Outlier scores on the demo, whose bad pictures and repeated frames are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.job.conftest import call, no_cluster
from vehclust_dask.demo import write_demo
from vehclust_dask.job import run

JOB = Path(__file__).resolve().parents[2] / "jobs" / "what-does-not-belong.yaml"
N_ROWS = 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the house's job on a demo; return the folder of the run."""
    root = tmp_path_factory.mktemp("demo")
    write_demo(root / "work" / "demo", rows=N_ROWS, seed=0)
    job: dict[str, Any] = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    job["data"]["descriptors"] = {"osnet": "osnet.pickle"}
    file = root / "job.yaml"
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_place", no_cluster)
        patch.setattr(run, "draw_figures", lambda *args: None)
        ended = call("run", file, "--workdir", root / "work")
    assert ended.code == 0, ended.err
    (found,) = (root / "work" / "runs").iterdir()
    return found


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "tables" / "outliers-osnet-150.parquet")


@pytest.fixture(scope="module")
def truth(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder.parents[1] / "demo" / "truth.csv")


@pytest.mark.parametrize(
    ("score", "question", "least"),
    [
        ("glare", "quality=glare", 0.85),
        ("blur", "quality=glare", 0.9),
        ("dark", "quality=night", 0.95),
        ("low_contrast", "quality=night", 0.8),
        ("knn_distance", "quality=no-vehicle", 0.6),
        ("lof", "quality=no-vehicle", 0.1),
        ("knn_distance", "quality!=ok", 0.35),
    ],
)
def test_scores__find_what_is_known_to_be_wrong(
    folder: Path, score: str, question: str, least: float
) -> None:
    judged = pd.read_csv(folder / "tables" / "outlier-scores.csv")
    row = judged.set_index(["score", "question"]).loc[(score, question)]
    assert row["base_rate"] < 0.02
    assert row["average_precision"] >= least


def test_rules__exclude_bad_pictures_and_hardly_any_other(
    table: pd.DataFrame, truth: pd.DataFrame
) -> None:
    quality = truth["quality"]
    assert table.loc[quality == "night", "excluded"].all()
    assert table.loc[quality == "glare", "excluded"].mean() > 0.6
    assert table.loc[quality == "ok", "excluded"].sum() <= 3
    assert set(table.loc[quality == "night", "reason"]) == {"dark >= 0.95"}


def test_duplicates__are_the_repeated_frames(table: pd.DataFrame, truth: pd.DataFrame) -> None:
    rows = {path: i for i, path in enumerate(truth["path"])}
    repeated = truth["duplicate_of"].dropna().map(rows).dropna().astype(int)
    pairs = {tuple(sorted(pair)) for pair in repeated.items()}
    groups = table[table["duplicate_group"] >= 0].groupby("duplicate_group")["row"].apply(tuple)
    assert len(pairs) > 50
    assert set(groups) == pairs
