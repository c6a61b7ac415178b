"""What lies in a folder, and the job that is written for it."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vehclust_dask.errors import BadInput, Conflict, UsageError
from vehclust_dask.job.found import clean_name, group_pattern
from vehclust_dask.job.init import Found, FoundSet, recognise, write_job
from vehclust_dask.job.reading import NAME
from vehclust_dask.job.spec import JobSpec, load_job

ROADSIDE = Path(__file__).resolve().parents[2] / "../shared/data/roadside"

CASE_PATHS = [
    f"veriwild\\{v % 10 + 1}\\{v:05d}\\{3 * v + i:06d}.jpg" for v in range(8) for i in range(3)
]


@pytest.fixture
def roadside() -> Path:
    if not ROADSIDE.is_dir():
        pytest.skip("the folder of real photos is not beside the project")
    return ROADSIDE


def matrix(path: Path, shape: tuple[int, int] = (60, 300)) -> None:
    """Write a tiny descriptor file of the kind its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    X = np.zeros(shape, dtype=np.float32)
    if path.suffix in (".pickle", ".pkl"):
        path.write_bytes(pickle.dumps(X, protocol=4))
    elif path.suffix == ".npz":
        np.savez(path, X=X)
    else:
        np.save(path, X)


def table(path: Path, column: str = "paths", rows: list[str] = CASE_PATHS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([column, *rows]) + "\n", encoding="utf-8")


def archive(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("veriwild/1/00001/000001.jpg", b"")


def written(found: Found, tmp_path: Path, **options: Any) -> JobSpec:
    """Return the written job, loaded again."""
    return load_job(write_job(found, tmp_path / "out" / "job.yaml", **options), workdir="/w")


def test_recognise__finds_the_case_as_people_keep_it(tmp_path: Path) -> None:
    case = tmp_path / "case"
    for name in ("efficientnet-b7", "osnet", "mdc_color", "vdc_type"):
        matrix(case / f"descriptors/{name}.pickle")
    table(case / "images_paths.csv")
    archive(case / "raw_data/veriwild.zip")
    archive(case / "raw_data/backup.zip")
    table(case / "truth.csv", "path,type,color", [f"{path},bus,red" for path in CASE_PATHS])

    found = recognise(case)
    assert [known.name for known in found.sets] == [
        "efficientnet",
        "osnet",
        "vdc_color",
        "vdc_type",
    ]
    assert found.sets[2] == FoundSet("vdc_color", "descriptors/mdc_color.pickle", 60, 300)
    assert (found.paths, found.photos) == ("images_paths.csv", "raw_data/veriwild.zip")
    assert (found.truth, found.truth_columns) == ("truth.csv", ("type", "color"))
    assert found.group == r"veriwild/\d+/(\d+)/"
    assert found.others == ("raw_data/backup.zip",)
    assert not found.synthetic

    job = written(found, tmp_path)
    assert job.name == "case"
    assert {study.name: study.reduce.n_components for study in job.studies} == {
        "efficientnet-60": 60,  # no more components than rows
        "osnet-60": 60,
        "vdc_color-60": 60,
        "vdc_type-20": 20,
    }
    assert {study.scale for study in job.studies} == {"standard"}
    assert all(study.featured == ("km", 30) for study in job.studies)
    assert all(study.cluster[0].n_clusters == tuple(range(2, 51)) for study in job.studies)
    assert job.data.group == found.group
    assert job.data.photos == str(case / "raw_data/veriwild.zip")
    assert job.data.truth is not None
    assert job.data.truth.file == str(case / "truth.csv")


def test_write__gives_the_known_sets_what_people_chose(tmp_path: Path) -> None:
    for name, width in (("effnet", 2560), ("osnet", 512), ("color", 128), ("type", 512)):
        matrix(tmp_path / f"case/{name}.npy", (400, width))
    job = written(recognise(tmp_path / "case"), tmp_path)
    assert [study.name for study in job.studies] == [
        "efficientnet-250",
        "osnet-150",
        "vdc_color-70",
        "vdc_type-20",
    ]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("efficientnet-b7.pickle", "efficientnet"),
        ("efficientnet_b7.pkl", "efficientnet"),
        ("EffNet.npy", "efficientnet"),
        ("effnetb7_features.npy", "efficientnet"),
        ("osnet.npy", "osnet"),
        ("OSNet-descriptors.npy", "osnet"),
        ("vdc_color.npz", "vdc_color"),
        ("mdc_colour.npy", "vdc_color"),
        ("color.npy", "vdc_color"),
        ("vdc-type.npy", "vdc_type"),
        ("mdc_type.npy", "vdc_type"),
        ("efficientnet-lite0.npy", "efficientnet-lite0"),
        ("typewriter.npy", "typewriter"),
        ("my set (2).npy", "my-set-2-"),
        ("2024.npy", "2024"),
        ("null.npy", "null"),
    ],
)
def test_recognise__names_sets_by_their_usual_names_or_stems(
    tmp_path: Path, file: str, name: str
) -> None:
    matrix(tmp_path / "in" / file)
    found = recognise(tmp_path / "in")
    assert [known.name for known in found.sets] == [name]
    assert [known.name for known in written(found, tmp_path).data.descriptors] == [name]


def test_write__takes_unknown_sets_by_their_variance(tmp_path: Path) -> None:
    matrix(tmp_path / "in/clip.npy", (60, 40))
    (study,) = written(recognise(tmp_path / "in"), tmp_path).studies
    assert (study.name, study.scale) == ("clip-90", "none")
    assert (study.reduce.variance, study.reduce.max_components) == (0.9, 200)


@pytest.mark.parametrize(
    ("n_rows", "counts", "featured"), [(40, range(2, 41), 30), (12, range(2, 13), 12), (1, [1], 1)]
)
def test_write__asks_for_no_more_clusters_than_rows(
    tmp_path: Path, n_rows: int, counts: Any, featured: int
) -> None:
    matrix(tmp_path / "in/clip.npy", (n_rows, 40))
    (study,) = written(recognise(tmp_path / "in"), tmp_path).studies
    assert study.cluster[0].n_clusters == tuple(counts)
    assert study.featured == ("km", featured)


def test_recognise__looks_two_levels_deep_and_no_deeper(tmp_path: Path) -> None:
    matrix(tmp_path / "in/a/b/near.npy")
    matrix(tmp_path / "in/a/b/c/far.npy")
    matrix(tmp_path / "in/.hidden/osnet.npy")
    assert [known.file for known in recognise(tmp_path / "in").sets] == ["a/b/near.npy"]


def test_recognise__takes_a_set_found_twice_from_the_usual_folder(tmp_path: Path) -> None:
    matrix(tmp_path / "in/a_copy/osnet.npy")
    matrix(tmp_path / "in/descriptors/osnet.npy")
    found = recognise(tmp_path / "in")
    assert [known.file for known in found.sets] == ["descriptors/osnet.npy"]
    assert found.others == ("a_copy/osnet.npy",)
    path = write_job(found, tmp_path / "job.yaml")
    assert '# also there, not used: "a_copy/osnet.npy"' in path.read_text()


def test_recognise__keeps_sets_that_differ_in_case_apart(tmp_path: Path) -> None:
    matrix(tmp_path / "in/Clip.npy")
    matrix(tmp_path / "in/b/clip.npy")
    found = recognise(tmp_path / "in")
    assert len(found.sets) == len(found.others) == 1
    written(found, tmp_path)


def test_recognise__leaves_out_what_is_no_matrix_and_says_why(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    np.save(tmp_path / "in/labels.npy", np.zeros(60))
    found = recognise(tmp_path / "in")
    assert [known.name for known in found.sets] == ["osnet"]
    assert len(found.unreadable) == 1
    text = write_job(found, tmp_path / "job.yaml").read_text()
    assert "# left out: " in text
    assert "labels.npy has shape (60,)" in text
    (tmp_path / "in/osnet.npy").unlink()
    with pytest.raises(BadInput, match=r"no descriptors that can be read: .*labels\.npy"):
        recognise(tmp_path / "in")


def test_recognise__says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadInput, match=r"looked for files that end in \.pickle, .*\.h5"):
        recognise(tmp_path)
    with pytest.raises(BadInput, match="is no folder"):
        recognise(tmp_path / "absent")


def test_recognise__tells_made_up_data_by_their_record(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    assert not written(recognise(tmp_path / "in"), tmp_path).data.synthetic
    (tmp_path / "in/demo.json").write_text("{}")
    assert written(recognise(tmp_path / "in"), tmp_path, force=True).data.synthetic


@pytest.mark.parametrize("column", ["path", "paths", "image_path", "ID,Path"])
def test_recognise__takes_another_csv_with_a_path_column(tmp_path: Path, column: str) -> None:
    matrix(tmp_path / "in/osnet.npy")
    table(tmp_path / "in/list.csv", column, ["1,a.jpg"] if "," in column else ["a.jpg"])
    table(tmp_path / "in/other.csv", "names", ["a.jpg"])
    found = recognise(tmp_path / "in")
    assert found.paths == "list.csv"
    assert found.others == ()
    assert written(found, tmp_path).data.paths == (str(tmp_path / "in/list.csv"),)


def test_recognise__prefers_the_usual_table_of_paths(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    table(tmp_path / "in/a.csv")
    table(tmp_path / "in/images_paths.csv")
    found = recognise(tmp_path / "in")
    assert (found.paths, found.others) == ("images_paths.csv", ("a.csv",))


def test_write__without_paths_offers_photos_and_truth_in_comments(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    archive(tmp_path / "in/photos.zip")
    table(tmp_path / "in/truth.csv", "path,type", ["a.jpg,bus"])
    found = recognise(tmp_path / "in")
    assert (found.paths, found.photos, found.truth) == (None, "photos.zip", "truth.csv")
    data = written(found, tmp_path).data
    assert (data.paths, data.photos, data.truth, data.group) == ((), None, None, None)


@pytest.mark.parametrize(
    ("inside", "photos"),
    [
        ("veriwild/1/00000/000000.jpg", "."),
        ("photos/veriwild/1/00000/000000.jpg", "photos"),
        ("photos/1/00000/000000.jpg", "photos"),
        ("elsewhere/x.png", "elsewhere"),
        ("elsewhere/x.txt", None),
    ],
)
def test_recognise__finds_the_folder_below_which_the_photos_lie(
    tmp_path: Path, inside: str, photos: str | None
) -> None:
    matrix(tmp_path / "in/osnet.npy")
    table(tmp_path / "in/images_paths.csv")
    (tmp_path / "in" / inside).parent.mkdir(parents=True)
    (tmp_path / "in" / inside).touch()
    found = recognise(tmp_path / "in")
    assert found.photos == photos
    where = written(found, tmp_path).data.photos
    assert where == (None if photos is None else str(tmp_path / "in" / photos).rstrip("/."))


def test_recognise__does_not_choose_between_zips(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    archive(tmp_path / "in/one.zip")
    assert recognise(tmp_path / "in").photos == "one.zip"
    archive(tmp_path / "in/two.zip")
    found = recognise(tmp_path / "in")
    assert (found.photos, found.others) == (None, ("one.zip", "two.zip"))


# --- the vehicle's identity ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        ([path.replace("\\", "/") for path in CASE_PATHS], r"veriwild/\d+/(\d+)/"),
        (["v.1/07/1.JPG", "v.1/07/2.JPG"], r"v\.1/(\d+)/"),
        (["a/1/1.jpg", "a/2/2.jpg"], None),  # one photo of each
        (["a/1/1.jpg", "b/1/2.jpg"], None),  # another first folder
        (["a/1/1.jpg", "a/1/x.jpg"], None),  # a name that is no number
        (["1/1.jpg", "1/2.jpg"], None),  # too few folders
        ([], None),
    ],
)
def test_group__by_hand(paths: list[str], pattern: str | None) -> None:
    assert group_pattern(tuple(paths)) == pattern


@given(
    st.text(alphabet="abcXYZ-_. +()[0-9]", min_size=1, max_size=8).filter(str.strip),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), min_size=1, max_size=20),
)
def test_group__pattern_reads_the_last_folder_of_every_path(
    first: str, photos: list[tuple[int, int]]
) -> None:
    paths = tuple(f"{first}/{shelf}/{car:05d}/{i:06d}.jpg" for i, (shelf, car) in enumerate(photos))
    pattern = group_pattern(paths)
    if len({car for _, car in photos}) == len(photos):
        assert pattern is None
    else:
        assert pattern is not None
        matches = [re.search(pattern, path) for path in paths]
        assert [match and int(match[1]) for match in matches] == [car for _, car in photos]


# --- writing -------------------------------------------------------------------------------


@given(st.text(max_size=80))
def test_clean_name__is_always_a_name(text: str) -> None:
    assert NAME.fullmatch(clean_name(text))


@settings(deadline=None, max_examples=60)  # it writes files
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
def test_write__survives_any_file_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("odd")
    found = Found(
        folder=folder,
        sets=(FoundSet("osnet", f"d/{name}", 60, 300),),
        paths=f"d/{name}",
        photos=None,
        truth=f"d/{name}",
        truth_columns=(name,),
        group="(it's)",
        synthetic=False,
        others=(name,),
        unreadable=(name,),
    )
    data = written(found, folder).data
    expected = str(folder if name == ".." else folder / "d" / name)
    assert data.descriptors[0].sources[0].file == expected
    assert data.paths == (expected,)
    assert data.group == "(it's)"


def test_init__takes_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    odd = tmp_path / os.fsdecode(b"in/p\xff.csv")
    table(odd)
    assert written(recognise(tmp_path / "in"), tmp_path).data.paths == (str(odd),)


def test_write__does_not_overwrite_without_force(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    found = recognise(tmp_path / "in")
    out = tmp_path / "job.yaml"
    out.write_text("mine")
    with pytest.raises(Conflict, match=r"job\.yaml is there already; use --force"):
        write_job(found, out)
    assert out.read_text() == "mine"
    assert load_job(write_job(found, out, force=True), workdir="/w").name == "in"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_write__takes_a_name_and_refuses_a_bad_one(tmp_path: Path) -> None:
    matrix(tmp_path / "in/osnet.npy")
    found = recognise(tmp_path / "in")
    assert written(found, tmp_path, name="autumn-2").name == "autumn-2"
    with pytest.raises(UsageError, match="'a/b' cannot name a job"):
        write_job(found, tmp_path / "other.yaml", name="a/b")


def test_init__recognises_real_photos(roadside: Path, tmp_path: Path) -> None:
    found = recognise(roadside)
    assert [known.name for known in found.sets] == ["efficientnet-lite0", "vehicle-attributes"]
    assert [(known.n_rows, known.n_features) for known in found.sets] == [
        (17760, 1280),
        (17760, 128),
    ]
    assert (found.paths, found.photos) == ("images_paths.csv", "roadside.zip")
    assert found.truth_columns == ("vehicle", "view", "model_color", "model_type")
    assert (found.truth, found.group, found.synthetic) == ("truth.csv", None, False)
    job = written(found, tmp_path)
    assert job.name == "roadside"
    assert Path(job.data.paths[0]).samefile(roadside / "images_paths.csv")
    assert [study.featured for study in job.studies] == [("km", 30), ("km", 30)]
