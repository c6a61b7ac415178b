"""Lists of paths as people have them, and rows found by path."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vehclust_dask.errors import BadInput
from vehclust_dask.store.paths import find_column, match_rows, normalise_path, read_paths

part = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=4)
a_path = st.lists(part, min_size=1, max_size=4).map("/".join)


@pytest.fixture
def write(tmp_path: Path):
    def put(content: str | bytes, name: str = "images_paths.csv") -> Path:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return put


WANTED = ["veriwild/1/00001/000001.jpg", "veriwild/1/00001/000002.jpg"]
BODY = "veriwild\\1\\00001\\000001.jpg\nveriwild\\1\\00001\\000002.jpg\n"
LISTS = {
    "header": "paths\n" + BODY,
    "header in capitals": "PATH\n" + BODY,
    "other header": "0\n" + BODY,
    "no header": BODY,
    "windows": ("paths\n" + BODY).replace("\n", "\r\n"),
    "old mac": ("paths\n" + BODY).replace("\n", "\r"),
    "byte order mark": b"\xef\xbb\xbf" + ("paths\n" + BODY).encode(),
    "utf-16": ("paths\n" + BODY).encode("utf-16"),
    "blank lines at the end": "paths\n" + BODY + "\n\n  \n",
    "no newline at the end": "paths\n" + BODY.rstrip(),
    "forward": "paths\n" + BODY.replace("\\", "/"),
    "dot": "paths\n" + "".join(f".\\{line}\n" for line in BODY.split()),
    "quotes": '"paths"\n' + "".join(f'"{line}"\n' for line in BODY.split()),
    "index of pandas": ",paths\n" + "".join(f"{i},{x}\n" for i, x in enumerate(BODY.split())),
    "several columns": "id;image;label\n" + "".join(f'1;"{x}";car\n' for x in BODY.split()),
    "tabs": "file\tn\n" + "".join(f"{x}\t1\n" for x in BODY.split()),
    "spaces": "paths \n" + "".join(f" {x} \n" for x in BODY.split()),
}


@pytest.mark.parametrize("name", LISTS)
def test_paths__as_people_have_them(write, name):
    assert read_paths(write(LISTS[name])) == WANTED
    assert read_paths(write(LISTS[name], "list.txt")) == WANTED


def test_paths__of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": [1, 2], "Image": BODY.split()}), file)
    assert read_paths(file) == WANTED
    pq.write_table(pa.table({"anything": BODY.split()}), file)
    assert read_paths(file) == WANTED
    pq.write_table(pa.table({"a": BODY.split(), "b": [1, 2]}), file)
    with pytest.raises(BadInput, match="no column of paths"):
        read_paths(file)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a\\b.jpg", "a/b.jpg"),
        ("./a/b.jpg", "a/b.jpg"),
        (".\\.\\a.jpg", "a.jpg"),
        ("a//b/./c.jpg", "a/b/c.jpg"),
        ("/data/x.jpg", "/data/x.jpg"),
        ("/data//x.jpg", "/data/x.jpg"),
        ("..\\x.jpg", "../x.jpg"),
        ("C:\\x\\y.jpg", "C:/x/y.jpg"),
        ("\\\\server\\share\\x.jpg", "//server/share/x.jpg"),
        (" a b.jpg\t", "a b.jpg"),
        (".hidden.jpg", ".hidden.jpg"),
    ],
)
def test_normalise_path__by_hand(path, expected):
    assert normalise_path(path) == expected


@given(st.text("ab./\\ ", max_size=12))
def test_normalise_path__twice_is_once(path):
    once = normalise_path(path)
    assert normalise_path(once) == once
    assert "\\" not in once


def test_paths__commas_belong_to_a_path_under_a_heading(write):
    assert read_paths(write("paths\na,b/1.jpg\nc/2.jpg\n")) == ["a,b/1.jpg", "c/2.jpg"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("paths\na/1.jpg\nb/2.jpg\na\\1.jpg\n", "'a/1.jpg' twice, in line 2 and line 4"),
        ("a/1.jpg\na/1.jpg\n", "in line 1 and line 2"),
        ("n,path\n1,a/1.jpg\n2,a/1.jpg\n", "in line 2 and line 3"),
        ("paths\na/1.jpg\n\nb/1.jpg\n", "no path in line 3"),
        ("n,path\n1,a\n2\n", "too few columns in line 3"),
        ("n,path\n1,a\n2,\n", "no path in line 3"),
        ("n,picture\n1,a.jpg\n", "several columns.*call the one with paths"),
        ("", "holds no paths"),
        ("paths\n", "holds no paths"),
        (b"paths\na/\xe9\xe8.jpg\n", "no UTF-8 text: line 2"),
        (b"paths\0", "zero bytes"),
        ('n,path\n1,"a\n', "damaged|no path|twice|columns"),
    ],
)
def test_paths__what_is_no_list_is_refused(write, content, reason):
    if content == 'n,path\n1,"a\n':  # an open quote takes up the rest of the file, as csv says
        assert read_paths(write(content)) == ["a"]
        return
    with pytest.raises(BadInput, match=reason):
        read_paths(write(content))


def test_paths__missing_file(tmp_path):
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_paths(tmp_path / "x.csv")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(a_path.map(lambda p: p + ".jpg"), min_size=1, max_size=20, unique=True))
def test_paths__round_trip(write, paths):
    for text in ("paths\n" + "\n".join(paths), "\r\n".join(["n;path", *(f"1;{p}" for p in paths)])):
        assert read_paths(write(text)) == paths


def many(n: int) -> list[str]:
    return [f"veriwild\\{1 + i % 10}\\{i // 10:05d}\\{i:06d}.jpg" for i in range(n)]


def test_paths__416314_rows_in_about_a_second(write):
    file = write("paths\n" + "\n".join(many(416_314)) + "\n")
    start = time.process_time()
    paths = read_paths(file)
    rows = match_rows(paths[::-1], paths)
    assert time.process_time() - start < 5  # far above what is usual, far below a square
    assert len(paths) == 416_314
    np.testing.assert_array_equal(rows, np.arange(416_314)[::-1])


def test_paths__real_list():
    folder = Path(__file__).resolve().parents[2] / "../shared/data/roadside"
    if not folder.is_dir():
        pytest.skip("the real data do not lie beside the project")
    paths = read_paths(folder / "images_paths.csv")
    assert len(paths) == 17_760
    assert paths[0] == "roadside/vehicles/GTI_Far/image0000.jpg"
    assert paths == read_paths(folder / "truth.csv")


def test_find_column__prefers_the_most_telling():
    assert find_column(["image", "n", " Path "]) == " Path "
    assert find_column(["a", "b"]) is None


@given(st.lists(a_path, min_size=1, max_size=30, unique=True), st.randoms())
def test_match_rows__exact_in_any_order(have, random):
    wanted = random.choices(have, k=10)
    assert [have[i] for i in match_rows(wanted, have)] == wanted


PREFIXES = ["veriwild/", "/data/veriwild/", "C:/x/", "../"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("side", ["wanted", "have"])
def test_match_rows__leading_folders_may_differ(prefix, side):
    short = [path.replace("\\", "/").removeprefix("veriwild/") for path in many(500)]
    order = np.random.default_rng(0).permutation(500)
    wanted, have = [short[i] for i in order], short
    if side == "wanted":
        wanted = [prefix + path for path in wanted]
    else:
        have = [prefix + path for path in have]
    np.testing.assert_array_equal(match_rows(wanted, have), order)


def test_match_rows__two_absolute_lists():
    wanted = [f"/home/a/photos/1/{i}.jpg" for i in range(20)]
    have = [f"/mnt/photos/1/{i}.jpg" for i in range(20)][::-1]
    np.testing.assert_array_equal(match_rows(wanted, have), np.arange(20)[::-1])


def test_match_rows__another_folder_is_not_another_prefix():
    with pytest.raises(BadInput, match=r"20 of 20 paths are missing, the first is '1/0.jpg'"):
        match_rows([f"1/{i}.jpg" for i in range(20)], [f"2/{i}.jpg" for i in range(20)])


def test_match_rows__counts_what_is_missing():
    have = [f"veriwild/1/{i}.jpg" for i in range(100)]
    wanted = [f"1/{i}.jpg" for i in range(103)]
    with pytest.raises(BadInput, match=r"3 of 103 paths are missing, the first is '1/100.jpg'"):
        match_rows(wanted, have)
    with pytest.raises(BadInput, match=r"1 of 2 paths are missing, the first is 'x.jpg'"):
        match_rows(["x.jpg", "veriwild/1/3.jpg"], have)


def test_match_rows__refuses_to_choose():
    with pytest.raises(BadInput, match="2 of 2 paths stand for more than one row"):
        match_rows(["1.jpg", "2.jpg"], ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"])
    with pytest.raises(BadInput, match=r"1 of 2 paths stand for more than one row.*'a'"):
        match_rows(["a", "b"], ["a", "b", "a"])


def test_match_rows__an_exact_list_goes_before_any_rule():
    have = ["1.jpg", "2.jpg", "a/1.jpg", "a/2.jpg"]
    np.testing.assert_array_equal(match_rows(["2.jpg", "1.jpg"], have), [1, 0])


def test_match_rows__one_rule_decides_where_names_repeat():
    have = [f"x/{i}/{j}.jpg" for i in range(30) for j in range(30)]
    wanted = [f"{i}/{j}.jpg" for i in range(30) for j in range(30)]
    np.testing.assert_array_equal(match_rows(wanted, have), np.arange(900))


def test_match_rows__nothing_is_wanted():
    assert match_rows([], ["a"]).shape == (0,)
