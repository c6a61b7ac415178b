"""What the map is told: every row, its place, its colours, its thumbnail."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.site.conftest import Report
from tests.report.site.drawn import BROKEN_ROW, make_book, read_bits, rough_photos
from tests.report.site.test_packing import read_paths, read_varints, unpacked
from vehclust_dask.report import palette
from vehclust_dask.report.chosen import photo_order
from vehclust_dask.report.site import map as map_page
from vehclust_dask.report.site.build import write_site


def told(file: Path) -> dict[str, Any]:
    """Return the value that a script sets."""
    found = re.fullmatch(r"window\.\w+=(.*);\n", file.read_text())
    assert found is not None
    value: dict[str, Any] = json.loads(found[1])
    return value


def codes(coloring: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(unpacked(coloring["codes"]), np.uint8).astype(np.int64)


def by_title(report: Report) -> dict[str, dict[str, Any]]:
    """Return the colourings by the words of their choice."""
    page = (report.study / "map.html").read_text()
    titles = re.findall(r'<option value="(\d+)">([^<]*)<', page)
    first = told(report.study / "map-data.js")["own"]
    return {
        title: told(report.study / f"map-color-{i}.js") if int(i) else first for i, title in titles
    }


def test_map__holds_every_row_with_its_path_and_its_place(report: Report) -> None:
    study = report.book.studies[0]
    data = told(report.study / "map-data.js")
    rows = np.cumsum(read_varints(unpacked(data["rows"])))
    assert rows.tolist() == study.rows.tolist()
    paths = report.book.paths
    assert paths is not None
    assert read_paths(data["paths"]) == [paths[row] for row in rows]
    planes = np.frombuffer(unpacked(data["positions"]), np.uint8).astype(int).reshape(3, -1)
    x, y = planes[0] << 4 | planes[2] >> 4, planes[1] << 4 | planes[2] & 15
    for place, ends, values in ((x, data["x"], study.xy[:, 0]), (y, data["y"], study.xy[:, 1])):
        step = (ends[1] - ends[0]) / 4095
        assert np.abs(ends[0] + place * step - values).max() <= step / 2 * (1 + 1e-9)


def test_map__colours_by_clusters_values_and_numbers(report: Report) -> None:
    study = report.book.studies[0]
    assert study.featured is not None
    found = by_title(report)
    assert list(found)[:3] == ["km_5", "ward_5", "km_3"]
    own = found["km_5"]
    want = np.where(study.featured.labels < 0, 5, study.featured.labels)
    assert codes(own).tolist() == want.tolist()
    assert own["counts"] == np.bincount(want, minlength=6).tolist()
    assert own["colors"] == [*palette.PALETTE[:5], palette.NOISE]
    sizes = [own["counts"][code] for code in own["shown"][:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert own["shown"][-1] == 5, "noise stands last"
    kinds = found["color"]
    values = report.book.samples["truth_color"].to_numpy()[study.rows]
    assert [kinds["names"][code] for code in codes(kinds)] == [v or "unknown" for v in values]
    assert kinds["colors"][kinds["names"].index("red")] == "#d23b3f", "red looks red"
    assert study.outliers is not None
    lof = study.outliers["lof"].to_numpy()
    score = found["lof"]
    told_codes = codes(score)
    assert ((told_codes == 255) == np.isnan(lof)).all()
    assert score["unknown"] == np.isnan(lof).sum()
    inside = (lof >= score["low"]) & (lof <= score["high"])
    back = score["low"] + told_codes * (score["high"] - score["low"]) / 254
    assert np.abs(back - lof)[inside].max() <= (score["high"] - score["low"]) / 508 * (1 + 1e-9)
    assert (told_codes[lof > score["high"]] == 254).all()


def test_map__of_many_clusters_gives_no_colour_twice() -> None:
    sizes = np.arange(80)[::-1] + 1
    labels = np.repeat(np.arange(80), sizes)
    found = map_page._clusters(labels, 80, "noise", None)
    assert len(found["shown"]) == map_page.MOST_SHOWN
    assert len({found["colors"][code] for code in found["shown"]}) == map_page.MOST_SHOWN
    rest = set(range(80)) - set(found["shown"])
    assert {found["colors"][code] for code in rest} == {map_page.OTHERS}
    assert sum(found["counts"]) == len(labels)


def test_map__thumbnails_are_those_of_their_rows(report: Report) -> None:
    study = report.book.studies[0]
    tiles = told(report.study / "map-data.js")["tiles"]
    rows = np.frombuffer(unpacked(tiles["rows"]), "<i4")
    assert len(rows) == sum(tiles["counts"])
    at = 0
    for sprite, many in zip(tiles["sprites"], tiles["counts"], strict=True):
        picture = Image.open(report.study / sprite)
        for i in range(many):
            left, top = 96 * (i % tiles["columns"]), 96 * (i // tiles["columns"])
            original = int(study.rows[rows[at]])
            if original != BROKEN_ROW:
                shown = picture.crop((left, top, left + 96, top + 96))
                assert read_bits(shown) == original, f"{sprite}, place {i}"
            at += 1


def test_map__has_the_same_bytes_again(report: Report, tmp_path: Path) -> None:
    write_site(report.book, tmp_path / "again")
    again = tmp_path / "again" / "s" / "one"
    files = sorted(file.name for file in report.study.glob("map*"))
    assert len(files) > 5
    assert files == sorted(file.name for file in again.glob("map*"))
    for name in files:
        assert (again / name).read_bytes() == (report.study / name).read_bytes(), name


def test_map__without_photos_has_no_thumbnails(bare: Report) -> None:
    assert told(bare.study / "map-data.js")["tiles"] is None


def test_map__without_paths_says_row_numbers(tmp_path: Path) -> None:
    book = make_book(tmp_path, 60, photos=False)
    without = dataclasses.replace(book, samples=book.samples.drop(columns="path"))
    write_site(without, tmp_path / "site")
    assert told(tmp_path / "site" / "s" / "one" / "map-data.js")["paths"] is None


def test_map__of_too_many_rows_is_a_sample_on_their_density(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_page, "MOST_POINTS", 500)
    monkeypatch.setattr(map_page, "SAMPLE", 100)
    write_site(report.book, tmp_path / "site")
    study = report.book.studies[0]
    folder = tmp_path / "site" / "s" / "one"
    data = told(folder / "map-data.js")
    assert (data["n"], data["total"]) == (100, len(study.rows))
    paths = np.array(report.book.paths)[study.rows]
    first = np.sort(np.argsort(photo_order(paths.tolist()), kind="stable")[:100])
    assert np.cumsum(read_varints(unpacked(data["rows"]))).tolist() == study.rows[first].tolist()
    assert sum(data["own"]["counts"]) == len(study.rows), "counts are of all rows"
    assert "100 of 597 rows are drawn" in (folder / "map.html").read_text()
    tiles = np.frombuffer(unpacked(data["tiles"]["rows"]), "<i4")
    chosen = np.frombuffer(unpacked(told(report.study / "map-data.js")["tiles"]["rows"]), "<i4")
    want = [int(np.flatnonzero(first == row)[0]) if row in first else -1 for row in chosen]
    assert tiles.tolist() == want
    shade = np.asarray(Image.open(folder / data["density"]))
    place = [np.rint((v - v.min()) / (v.max() - v.min()) * 4095) for v in study.xy.T.astype(float)]
    x, y = (one.astype(int) // 4 for one in place)
    assert (shade[1023 - y, x] < 255).all()
    assert (shade < 255).sum() == len(set(zip(x, y, strict=True)))


def test_report__of_fifty_clusters_is_small(tmp_path: Path) -> None:
    """Below 200 files and 25 MB, with every thumbnail of every page and 6 bytes a row of the map."""
    book = make_book(tmp_path, 7000, 50, photos=False, noise=200)
    assert book.paths is not None
    book = dataclasses.replace(book, photos=rough_photos(tmp_path, book.paths))
    found = write_site(book, tmp_path / "site")
    assert found.n_files < 200
    assert found.n_bytes < 25e6
    sprites = list((tmp_path / "site" / "s" / "one" / "sprites").iterdir())
    tiles = told(tmp_path / "site" / "s" / "one" / "map-data.js")["tiles"]
    assert sum(tiles["counts"]) > 4500
    thumbs = sum(file.stat().st_size for file in sprites if not file.name.startswith("wall"))
    assert 2500 < thumbs / sum(tiles["counts"]) < 4500, "as large as thumbnails of real photos"


def test_map__takes_six_bytes_a_row(tmp_path: Path) -> None:
    """Places without any pattern, labels of fifty clusters, paths like those of the case."""
    n = 30_000
    book = make_book(tmp_path, n, 50, photos=False, noise=200)
    scattered = np.random.default_rng(1).random((len(book.studies[0].rows), 2), np.float32)
    study = dataclasses.replace(book.studies[0], xy=scattered)
    write_site(dataclasses.replace(book, studies=(study,)), tmp_path / "site")
    assert (tmp_path / "site" / "s" / "one" / "map-data.js").stat().st_size < 6 * n
