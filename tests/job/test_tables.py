"""Notes of a person beside the scores, labels of every row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.job.conftest import Site
from vehclust_dask.errors import BadInput
from vehclust_dask.job.tables import (
    read_notes,
    update_notes,
    without_notes,
    write_scores,
)


def scores(*ks: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"study": "s", "clustering": "km", "k": list(ks), "inertia": [1.0] * len(ks)}
    )


def test_update_notes__begins_with_a_row_for_every_clustering(tmp_path: Path) -> None:
    file = tmp_path / "notes" / "job.csv"
    noted = update_notes(file, scores(2, 3))
    assert noted[["interpretation", "quality"]].to_numpy().tolist() == [["", ""], ["", ""]]
    assert file.read_text() == "study,clustering,k,interpretation,quality\ns,km,2,,\ns,km,3,,\n"


def test_update_notes__adds_rows_and_changes_none(tmp_path: Path) -> None:
    file = tmp_path / "job.csv"
    lines = ["study,clustering,k,mine,quality", 's,km,3,"a, b",NA', "s,gone,9,x,", ""]
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    noted = update_notes(file, scores(2, 3))
    assert noted["k"].tolist() == [2, 3]
    assert noted["quality"].tolist() == ["", "NA"]
    assert noted["mine"].tolist() == ["", "a, b"]
    assert list(noted)[-3:] == ["interpretation", "quality", "mine"]
    kept = pd.read_csv(file, keep_default_na=False)
    assert kept["k"].tolist() == [3, 9, 2]
    assert kept["mine"].tolist() == ["a, b", "x", ""]
    assert len(update_notes(file, scores(2, 3))) == 2


def test_update_notes__does_not_let_a_note_hide_a_score(tmp_path: Path) -> None:
    file = tmp_path / "job.csv"
    file.write_text("study,clustering,k,inertia\ns,km,2,good\n")
    noted = update_notes(file, scores(2))
    assert noted["inertia"].tolist() == [1.0]
    assert file.read_text().endswith("s,km,2,good\n")


def test_without_notes__undoes_what_update_notes_added(tmp_path: Path) -> None:
    file = tmp_path / "job.csv"
    file.write_text("study,clustering,k,mine\ns,km,2,x\n")
    plain = scores(2, 3)
    assert without_notes(update_notes(file, plain)).equals(plain)
    assert without_notes(plain).equals(plain)


def test_read_notes__refuses_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "job.csv"
    file.write_bytes("study,clustering,k,quality\ns,km,2,schön\n".encode("cp1252"))
    with pytest.raises(BadInput, match=r"job.csv cannot be read .* mend it, or move it away"):
        read_notes(file)


def test_write_scores__writes_the_same_table_twice(tmp_path: Path) -> None:
    table = scores(2, 3)
    write_scores(tmp_path, table)
    assert pd.read_parquet(tmp_path / "scores.parquet").equals(table)
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == "s,km,2,1.0"


def test_write_labels__gives_a_column_each_and_places_of_the_featured_one(site: Site) -> None:
    cluster = {
        "km": {"method": "kmeans", "n_clusters": [2, 4], "n_init": 2},
        "mbk": {"method": "minibatch-kmeans", "n_clusters": 3, "n_init": 2},
    }
    studies = {
        "one": {"descriptors": ["a"], "reduce": "none", "cluster": cluster, "featured": "km/2"}
    }
    labels = site.labels(site.finished(site.job(studies=studies)))
    assert list(labels) == ["row", "path", "km_2", "km_4", "second", "sq_dist", "margin", "mbk_3"]
    assert labels["row"].tolist() == list(range(300))
    assert labels.dtypes[["km_2", "second", "sq_dist", "margin"]].astype(str).tolist() == [
        "int16",
        "int16",
        "float32",
        "float32",
    ]
    assert (labels["second"] == 1 - labels["km_2"]).all()
    assert np.isfinite(labels["margin"]).all()
