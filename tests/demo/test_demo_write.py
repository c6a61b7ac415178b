from __future__ import annotations

import csv
import io
import pickle
import shutil
import tracemalloc
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vehclust_dask import errors
from vehclust_dask.demo import DemoSummary, descriptors, latent, write, write_demo


def _load(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        array = pickle.load(file)
    assert isinstance(array, np.ndarray)
    return array


def _table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_write_demo__writes_what_the_case_has(demo: DemoSummary) -> None:
    names = {path.name for path in demo.files}
    sets = {f"{name}.pickle" for name in descriptors.SETS}
    assert names == sets | {"images_paths.csv", "truth.csv", "veriwild.zip"}
    assert {path.name for path in demo.out.iterdir()} == names | {"demo.json"}
    assert (demo.rows, demo.seed) == (1500, 7)


@pytest.mark.parametrize("name", list(descriptors.SETS))
def test_write_demo__pickles_hold_the_computed_rows(demo: DemoSummary, name: str) -> None:
    model = descriptors.SETS[name]
    chunks = [
        descriptors.descriptor_chunk(model, latent.latent_chunk(7, chunk), 7) for chunk in (0, 1)
    ]
    X = _load(demo.out / model.file)
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, np.concatenate(chunks)[:1500])


def test_write_demo__paths_have_the_form_of_the_case(demo: DemoSummary) -> None:
    lines = (demo.out / "images_paths.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "paths"
    assert lines[1] == r"veriwild\1\00001\000001.jpg"
    assert len(lines) == 1501
    parts = [line.split("\\") for line in lines[1:]]
    assert all(len(part) == 4 and part[0] == "veriwild" for part in parts)
    order = [(int(folder), vehicle, image) for _, folder, vehicle, image in parts]
    assert order == sorted(order)
    assert {folder for folder, _, _ in order} == set(range(1, 11))
    folders: dict[str, set[int]] = {}
    for folder, vehicle, _ in order:
        folders.setdefault(vehicle, set()).add(folder)
    assert all(len(found) == 1 for found in folders.values())


def test_write_demo__every_path_is_a_photo_in_the_zip(demo: DemoSummary) -> None:
    paths = [row["paths"].replace("\\", "/") for row in _table(demo.out / "images_paths.csv")]
    sizes = set()
    with zipfile.ZipFile(demo.out / "veriwild.zip") as archive:
        assert archive.namelist() == paths
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        for path in paths[::3]:
            with Image.open(io.BytesIO(archive.read(path))) as photo:
                photo.load()
                assert (photo.format, photo.mode) == ("JPEG", "RGB")
                sizes.add(photo.size)
    assert len(sizes) > 100
    assert any(w > h for w, h in sizes)
    assert any(w < h for w, h in sizes)


def test_write_demo__truth_joins_paths_and_counts(demo: DemoSummary) -> None:
    truth = _table(demo.out / "truth.csv")
    paths = [row["paths"].replace("\\", "/") for row in _table(demo.out / "images_paths.csv")]
    assert [row["path"] for row in truth] == paths
    place = {path: i for i, path in enumerate(paths)}
    for i, row in enumerate(truth):
        assert int(row["path"].split("/")[2]) == int(row["vehicle"])
        assert row["type"] in latent.TYPES
        assert row["color"] in latent.COLORS
        assert (row["view"] == "") == (row["quality"] == "no-vehicle")
        assert 1 <= int(row["camera"]) <= latent.N_CAMERAS
        if row["duplicate_of"]:
            assert place[row["duplicate_of"]] == i - 1
    assert demo.n_vehicles == len({row["vehicle"] for row in truth})
    assert demo.n_bad == sum(row["quality"] != "ok" for row in truth) > 5
    assert demo.n_duplicates == sum(row["duplicate_of"] != "" for row in truth) > 10


def test_write_demo__same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    a = write_demo(tmp_path / "a", rows=130, seed=3)
    b = write_demo(tmp_path / "deep" / "b", rows=130, seed=3)
    c = write_demo(tmp_path / "c", rows=130, seed=4)
    assert _bytes(a.out) == _bytes(b.out)
    other = _bytes(c.out)
    assert all(other[name] != content for name, content in _bytes(a.out).items() if "csv" not in
               name or name == "truth.csv")  # fmt: skip


def test_write_demo__first_rows_do_not_depend_on_how_many_follow(
    demo: DemoSummary, tmp_path: Path
) -> None:
    less = write_demo(tmp_path / "less", rows=200, seed=7, photos=False)
    for name in descriptors.SETS:
        few, many = (_load(d.out / f"{name}.pickle") for d in (less, demo))
        np.testing.assert_array_equal(few, many[:200])
    few_truth, many_truth = (_table(d.out / "truth.csv") for d in (less, demo))
    for a, b in zip(few_truth, many_truth[:200], strict=True):
        assert {k: a[k] for k in a if k not in ("path", "duplicate_of")} == {
            k: b[k] for k in b if k not in ("path", "duplicate_of")
        }


def test_write_demo__writes_chosen_sets_only(tmp_path: Path) -> None:
    summary = write_demo(tmp_path / "one", rows=1, photos=False, sets=["vdc_color"])
    assert [p.name for p in summary.files] == ["images_paths.csv", "truth.csv", "vdc_color.pickle"]
    assert _load(tmp_path / "one" / "vdc_color.pickle").shape == (1, 128)
    assert (summary.n_vehicles, summary.n_duplicates) == (1, 0)


def test_write_demo__keeps_a_whole_demo_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "twin"
    first = write_demo(out, rows=20, photos=False, sets=["vdc_color"])
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    calls: list[str] = []
    again = write_demo(
        out,
        rows=20,
        photos=False,
        sets=["vdc_color"],
        on_progress=lambda stage, done, total: calls.append(stage),
    )
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    assert calls == []


def test_write_demo__refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    out = tmp_path / "twin"
    write_demo(out, rows=20, photos=False, sets=["vdc_color"])
    with pytest.raises(errors.Conflict, match=r"another demo .*rows=20.*remove"):
        write_demo(out, rows=21, photos=False, sets=["vdc_color"])
    (out / "truth.csv").write_text("", encoding="utf-8")
    with pytest.raises(errors.Conflict, match=r"truth\.csv was changed"):
        write_demo(out, rows=20, photos=False, sets=["vdc_color"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(errors.Conflict, match="holds no demo"):
        write_demo(other, rows=20)
    with pytest.raises(errors.Conflict, match="holds no demo"):
        write_demo(other / "mine.txt", rows=20)
    assert (other / "mine.txt").read_text(encoding="utf-8") == "x"


def test_write_demo__fills_an_empty_folder(tmp_path: Path) -> None:
    summary = write_demo(tmp_path, rows=5, photos=False, sets=[])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*(p.name for p in summary.files), "demo.json"]
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"rows": 0}, "rows=0"),
        ({"seed": -1}, "seed=-1"),
        ({"sets": ["osnett"]}, "did you mean 'osnet'"),
    ],
)
def test_write_demo__says_what_cannot_be_asked(
    tmp_path: Path, asked: dict[str, object], words: str
) -> None:
    with pytest.raises(errors.UsageError, match=words):
        write_demo(tmp_path / "x", **asked)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_write_demo__refuses_what_the_disk_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 10**9))
    with pytest.raises(errors.NotEnough, match=r"416314 rows need .* GB"):
        write_demo(tmp_path / "x", rows=416_314)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["truth.csv", "osnet.pickle", "veriwild.zip"])
def test_write_demo__interrupted_leaves_nothing(tmp_path: Path, stage: str) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "x", rows=10, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_write_demo__appears_only_when_whole(tmp_path: Path) -> None:
    seen: list[bool] = []
    stages: dict[str, tuple[int, int]] = {}

    def look(name: str, done: int, total: int) -> None:
        seen.append((tmp_path / "x").exists())
        stages[name] = (done, total)

    write_demo(tmp_path / "x", rows=1100, photos=False, sets=["vdc_color"], on_progress=look)
    assert seen
    assert not any(seen)
    assert stages == {"truth.csv": (1100, 1100), "vdc_color.pickle": (1100, 1100)}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_write_demo__folder_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def appear(name: str, done: int, total: int) -> None:
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / "theirs").touch()

    with pytest.raises(errors.Conflict, match="appeared"):
        write_demo(tmp_path / "x", rows=5, photos=False, sets=[], on_progress=appear)
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "theirs"]


def test_write_demo__memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    write_demo(tmp_path / "warm", rows=1, photos=False, sets=["vdc_color"])
    peaks = []
    for rows in (2048, 8 * 2048):
        tracemalloc.start()
        write_demo(tmp_path / str(rows), rows=rows, photos=False, sets=["vdc_color"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_version__is_part_of_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo(tmp_path / "x", rows=5, photos=False, sets=[])
    monkeypatch.setattr(write, "VERSION", write.VERSION + 1)
    with pytest.raises(errors.Conflict, match="version="):
        write_demo(tmp_path / "x", rows=5, photos=False, sets=[])
