"""The file that people hand on: its name and what is in it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vehclust_dask.errors import RunMissing
from vehclust_dask.labels.export import export_csv

PATHS = ["a/1.jpg", 'b/"two", 2.jpg', "c/ä 3.jpg", "d/4.jpg", "e/5.jpg"]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Write a table of labels in two row groups; row 2 was dropped."""
    file = tmp_path / "labels-osnet.parquet"
    table = pa.table(
        {
            "row": pa.array([0, 1, 3, 4], pa.int64()),
            "path": [PATHS[i] for i in (0, 1, 3, 4)],
            "km_3": pa.array([2, 0, 1, 0], pa.int16()),
            "sq_dist": pa.array([0.5] * 4, pa.float32()),
        }
    )
    pq.write_table(table, file, row_group_size=3)
    return file


def test_export__names_the_file_as_people_do(labels: Path, tmp_path: Path) -> None:
    file = export_csv(labels, "osnet", "kmeans", "km_3", 3, tmp_path / "out")
    assert file == tmp_path / "out" / "osnet_KMeans_k3.csv"
    file = export_csv(labels, "osnet", "minibatch-kmeans", "km_3", 3, tmp_path)
    assert file == tmp_path / "osnet_MiniBatchKMeans_k3.csv"
    file = export_csv(labels, "osnet", "kmeans", "km_3", 3, tmp_path / "mine.CSV")
    assert file == tmp_path / "mine.CSV"


def test_export__writes_path_and_cluster_of_every_kept_row(labels: Path, tmp_path: Path) -> None:
    file = export_csv(labels, "osnet", "kmeans", "km_3", 3, tmp_path)
    expected = 'path,cluster\na/1.jpg,2\n"b/""two"", 2.jpg",0\nd/4.jpg,1\ne/5.jpg,0\n'
    assert file.read_bytes().decode() == expected


def test_export__without_paths_writes_row_numbers(labels: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(labels).drop(["path"]), labels)
    file = export_csv(labels, "osnet", "kmeans", "km_3", 3, tmp_path)
    assert file.read_text() == "row,cluster\n0,2\n1,0\n3,1\n4,0\n"


def test_export__names_the_nearest_clustering(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(RunMissing, match="no clustering 'km_4'; did you mean 'km_3'"):
        export_csv(labels, "osnet", "kmeans", "km_4", 4, tmp_path / "out")
    with pytest.raises(RunMissing, match="no labels of study 'vdc'"):
        export_csv(tmp_path / "absent.parquet", "vdc", "kmeans", "km_3", 3, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export__leaves_the_old_file_where_writing_fails(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export_csv(labels, "osnet", "kmeans", "km_3", 3, tmp_path)
    before = file.read_bytes()

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    with pytest.raises(OSError, match="No space"):
        export_csv(labels, "osnet", "kmeans", "km_3", 3, tmp_path)
    assert file.read_bytes() == before
