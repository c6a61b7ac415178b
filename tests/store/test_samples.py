"""The table of rows: numbers, paths, groups and what is known of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from vehclust_dask.errors import BadInput
from vehclust_dask.store.samples import build_samples, read_samples, write_samples

PATHS = [
    "veriwild/1/00001/000001.jpg",
    "veriwild/1/00001/000002.jpg",
    "veriwild/2/00002/000003.jpg",
]


def truth_file(folder: Path, text: str) -> Path:
    file = folder / "truth.csv"
    file.write_text(text, encoding="utf-8")
    return file


def values(column: pd.Series) -> list[str | None]:
    return [None if pd.isna(v) else v for v in column]


def test_build__without_paths_numbers_the_rows() -> None:
    table = build_samples(None, 3, group=None, truth=None)
    assert table.to_dict("list") == {"row": [0, 1, 2]}


def test_build__finds_groups_and_leaves_others_empty() -> None:
    table = build_samples([*PATHS, "elsewhere.jpg"], 4, group=r"veriwild/\d+/(\d+)/", truth=None)
    assert values(table["group"]) == ["00001", "00001", "00002", None]


def test_build__refuses_a_group_that_fits_no_path() -> None:
    with pytest.raises(
        BadInput, match=r"'cam\(\\d\)' fits none of the 3 paths .*000001.jpg.*mend it"
    ):
        build_samples(PATHS, 3, group=r"cam(\d)", truth=None)


def test_build__joins_truth_by_path_whatever_its_order_and_slashes(tmp_path: Path) -> None:
    lines = ["Path,type,color", f"{PATHS[2]},bus,", f"{PATHS[0]},car,red".replace("/", "\\")]
    table = build_samples(PATHS, 3, group=None, truth=truth_file(tmp_path, "\n".join(lines)))
    assert values(table["truth_type"]) == ["car", None, "bus"]
    assert values(table["truth_color"]) == ["red", None, None]


def test_build__takes_only_the_columns_that_are_named(tmp_path: Path) -> None:
    text = "path,type,color\n" + "\n".join(f"{p},car,red" for p in PATHS)
    file = truth_file(tmp_path, text)
    table = build_samples(PATHS, 3, group=None, truth=file, truth_columns=["color"])
    assert list(table) == ["row", "path", "truth_color"]
    with pytest.raises(BadInput, match="has no column 'colour': it has path, type, color"):
        build_samples(PATHS, 3, group=None, truth=file, truth_columns=["colour"])


def test_build__keeps_numbers_as_they_are_written(tmp_path: Path) -> None:
    text = "path,code\n" + "\n".join(f"{p},007" for p in PATHS)
    table = build_samples(PATHS, 3, group=None, truth=truth_file(tmp_path, text))
    assert values(table["truth_code"]) == ["007"] * 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,type\na,b\n", "has no column with paths"),
        ('path,type\n"a,b\n', "cannot be read as CSV"),
        ("", "cannot be read as CSV"),
    ],
)
def test_build__refuses_a_truth_file_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        build_samples(PATHS, 3, group=None, truth=truth_file(tmp_path, text))


def test_build__refuses_a_truth_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no truth file .*absent.csv; correct data.truth"):
        build_samples(PATHS, 3, group=None, truth=tmp_path / "absent.csv")


def test_write__gives_the_same_table_and_the_same_bytes(tmp_path: Path) -> None:
    table = build_samples(PATHS, 3, group=r"veriwild/\d+/(\d+)/", truth=None)
    for name in "ab":
        write_samples(table, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_samples(tmp_path / "a")
    assert again.astype(object).equals(table.astype(object))
