"""Pages of two clusterings: counts, agreement and lists equal what numpy and scikit-learn find."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, v_measure_score

from tests.report.conftest import MakePhotos
from tests.report.site import small_books as books
from vehclust_dask.report.site.book import Book
from vehclust_dask.report.site.build import write_site
from vehclust_dask.report.site.cross import (
    ABSENT,
    SIDE,
    Crossed,
    Side,
    arranged,
    cap,
    heavy_order,
    sides,
    with_pages,
)

K_A, K_B = 5, 4
#: Labels of two sides, noise and absent rows among them.
both = st.integers(2, 120).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(ABSENT, K_A - 1), min_size=n, max_size=n),
        st.lists(st.integers(ABSENT, K_B - 1), min_size=n, max_size=n),
    )
)


def side(labels: list[int] | np.ndarray, k: int, study: str | None = "s") -> Side:
    return Side(study, f"km_{k}", np.asarray(labels, np.int64), [str(c) for c in range(k)])


@settings(deadline=None)
@given(both)
def test_crossed__agrees_with_scikit_learn(labels: tuple[list[int], list[int]]) -> None:
    a, b = (np.array(one) for one in labels)
    found = Crossed.of(side(a, K_A), side(b, K_B)).agreement
    inside = (a >= 0) & (b >= 0)
    assert found.rows == inside.sum()
    if not found.rows:
        assert np.isnan([found.ami, found.ari, found.v]).all()
        return
    a, b = a[inside], b[inside]
    # scikit-learn calls two single clusters the same only by luck of its formula: compare where told.
    assert found.v == pytest.approx(v_measure_score(a, b), abs=1e-9)
    if found.rows > 1:
        assert found.ari == pytest.approx(adjusted_rand_score(a, b), abs=1e-9)
    if len(np.unique(a)) > 1 and len(np.unique(b)) > 1:
        assert found.ami == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-8)


@settings(deadline=None)
@given(both)
def test_crossed__counts_every_row_that_both_know(labels: tuple[list[int], list[int]]) -> None:
    a, b = (np.array(one) for one in labels)
    found = Crossed.of(side(a, K_A), side(b, K_B))
    known = (a > ABSENT) & (b > ABSENT)
    assert found.rows.tolist() == np.flatnonzero(known).tolist()
    for i in range(-1, K_A):
        for j in range(-1, K_B):
            assert found.counts[i, j] == (known & (a == i) & (b == j)).sum()
    shown = arranged(found)
    assert shown.counts.sum() == found.counts.sum(), "nothing is left out of a small table"
    assert len(set(shown.a.tolist())) == len(shown.a)


tables = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 9), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(lambda rows: np.array(rows, np.int64))
)


@settings(deadline=None)
@given(tables)
def test_heavy_order__keeps_all_and_matches_the_most_rows(counts: np.ndarray) -> None:
    rows, columns = heavy_order(counts)
    assert sorted(rows.tolist()) == list(range(counts.shape[0]))
    assert sorted(columns.tolist()) == list(range(counts.shape[1]))
    if counts.shape[0] == counts.shape[1]:
        a, b = linear_sum_assignment(counts, maximize=True)
        diagonal = np.diagonal(counts[np.ix_(rows, columns)])
        assert diagonal.sum() == counts[a, b].sum()
        assert (np.diff(diagonal) <= 0).all(), "the heaviest pair stands first"


def test_heavy_order__finds_a_hidden_diagonal() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([90, 70, 50, 30, 10])
    hidden = np.diag(sizes)[rng.permutation(5)][:, rng.permutation(5)]
    rows, columns = heavy_order(hidden)
    np.testing.assert_array_equal(hidden[np.ix_(rows, columns)], np.diag(sizes))


def test_heavy_order__what_is_left_over_stands_behind_its_partner() -> None:
    counts = np.array([[0, 50], [9, 1], [40, 0], [1, 20]])
    rows, columns = heavy_order(counts)
    assert columns.tolist() == [1, 0]
    assert rows.tolist() == [0, 3, 2, 1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 500), max_size=40), st.integers(0, 300), st.integers(0, 3000))
def test_cap__is_the_most_that_fits(counts: list[int], each: int, all_in_all: int) -> None:
    table = np.array(counts, np.int64)
    most = cap(table, each, all_in_all)
    assert most <= each
    assert np.minimum(table, most).sum() <= all_in_all or most == 0
    if most < each:
        assert np.minimum(table, most + 1).sum() > all_in_all


def make(
    folder: Path, *, hostile: bool = False, photos: MakePhotos | None = None, paths: bool = True
) -> Book:
    """Return two studies, one with noise and without some rows, and two known columns."""
    rng = np.random.default_rng(5)
    n = books.N_ROWS
    kinds = rng.integers(0, 4, n)
    kept = np.setdiff1d(np.arange(n), [0, 9, 100])
    noisy = np.where(
        rng.random(len(kept)) < 0.1, -1, (kinds[kept] + (rng.random(len(kept)) < 0.2)) % 4
    )
    named = books.paths_of(n, hostile) if paths else None
    colours = [tuple(int(c) for c in rng.integers(40, 216, 3)) for _ in range(n)]
    words = ["bus", "car</script>" if hostile else "car", "<b>van", "truck"]
    return books.book(
        folder,
        [
            books.study(folder, "one", kinds, 4),
            books.study(folder, "two", noisy.astype(np.int64), 4, kept),
        ],
        paths=named,
        photos=None if photos is None or named is None else photos(named, colours),
        truth={
            "type": [None if i % 7 == 0 else words[kind] for i, kind in enumerate(kinds)],
            "same": ["x"] * n,
        },
    )


def test_sides__are_joined_by_row_and_known_columns_of_one_value_are_none(tmp_path: Path) -> None:
    found = sides(make(tmp_path))
    assert [one.name for one in found] == ["one / km_4", "two / km_4", "type"]
    assert found[1].labels[[0, 9, 100]].tolist() == [ABSENT] * 3
    assert (found[2].labels[::7] == ABSENT).all()


def test_pages__tell_counts_lift_and_rows(tmp_path: Path) -> None:
    book = make(tmp_path)
    write_site(book, tmp_path / "out")
    one, two, known = sides(book)
    pages = {("one / km_4", "two / km_4"): (one, two)}
    pages |= {(a.name, "type"): (a, known) for a in (one, two)}
    for file in sorted((tmp_path / "out/cross").glob("[0-9]*.js")):
        data = books.script_value(file)
        a, b = pages.pop((data["a"]["name"], data["b"]["name"]))
        there = (a.labels > ABSENT) & (b.labels > ABSENT)
        assert data["total"] == there.sum()
        names_a, names_b = ([*s.names, None] for s in (a, b))
        csv = pd.read_csv(file.with_suffix(".csv"), dtype={"a": str, "b": str})
        by = {(row.a, row.b): row for row in csv.itertuples()}
        assert csv["rows"].sum() == data["total"]
        for i, name_a in enumerate(data["a"]["clusters"]):
            in_a = there & (a.labels == (-1 if name_a is None else names_a.index(name_a)))
            assert data["a"]["sizes"][i] == in_a.sum()
            for j, name_b in enumerate(data["b"]["clusters"]):
                in_b = there & (b.labels == (-1 if name_b is None else names_b.index(name_b)))
                cell = in_a & in_b
                assert data["counts"][i][j] == cell.sum()
                listed = data["lists"].get(f"{i},{j}", [])
                assert sorted(listed) == np.flatnonzero(cell).tolist()
                if cell.any():
                    row = by[name_a or "-1", name_b or "-1"]
                    lift = cell.sum() * there.sum() / (in_a.sum() * in_b.sum())
                    assert row.rows == cell.sum()
                    assert row.lift == pytest.approx(lift)
        assert all(data["paths"][str(row)] == book.samples["path"][row] for row in listed)
    assert not pages, "every pair has its page"


def test_pages__show_what_scikit_learn_finds(tmp_path: Path) -> None:
    book = make(tmp_path)
    write_site(book, tmp_path / "out")
    one, two, _ = sides(book)
    inside = (one.labels >= 0) & (two.labels >= 0)
    a, b = one.labels[inside], two.labels[inside]
    page = books.Page(tmp_path / "out/cross.html")
    measured = (adjusted_mutual_info_score, adjusted_rand_score, v_measure_score)
    numbers = [f"{measure(a, b):.3f}" for measure in measured]
    assert page.tables["pairs"][1] == [
        "one / km_4",
        "two / km_4",
        str(inside.sum()),
        *numbers,
        "open",
    ]
    assert page.tables["agreement"][1][2] == f"{adjusted_mutual_info_score(a, b):.2f}"
    table = pd.read_csv(tmp_path / "out/cross/agreement.csv")
    assert table["v_measure"][0] == pytest.approx(v_measure_score(a, b))


def test_pages__all_rows_lie_beside_them(tmp_path: Path) -> None:
    book = make(tmp_path)
    write_site(book, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/cross/rows.csv")
    assert len(table) == books.N_ROWS
    for found in sides(book)[:2]:
        told = table[found.name.replace(" / ", "/")]
        np.testing.assert_array_equal(told.fillna(ABSENT).astype(int), found.labels)


def test_pages__a_thumbnail_is_that_of_its_cell(tmp_path: Path, make_photos: MakePhotos) -> None:
    book = make(tmp_path, photos=make_photos)
    write_site(book, tmp_path / "out")
    data = books.script_value(tmp_path / "out/cross/01.js")
    assert book.photos is not None
    assert book.paths is not None
    entries = book.photos.find(book.paths, book.photos.prefix_rule(book.paths))
    assert 0 < len(data["thumbs"]) <= 60
    with Image.open(tmp_path / "out/cross" / data["sprite"]) as sprite:
        for cell, at in data["thumbs"].items():
            row = data["lists"][cell][0]
            x, y = at % data["columns"] * SIDE, at // data["columns"] * SIDE
            photo = book.photos.thumbnail(int(entries[row]), SIDE).resize((1, 1))
            shown = sprite.getpixel((x + SIDE // 2, y + SIDE - 16))
            assert np.abs(np.subtract(shown, photo.getpixel((0, 0)))).max() < 24


def test_pages__hostile_names_stay_words_and_a_second_writing_is_the_same(tmp_path: Path) -> None:
    book = make(tmp_path / "run", hostile=True)
    write_site(book, tmp_path / "out", "ru")
    for file in [tmp_path / "out/cross.html", *(tmp_path / "out/cross").glob("*.html")]:
        books.check_safe(file)
    named = {
        name
        for file in (tmp_path / "out/cross").glob("[0-9]*.js")
        for name in books.script_value(file)["b"]["clusters"]
    }
    assert "car</script>" in named
    first = books.tree_bytes(tmp_path / "out")
    write_site(book, tmp_path / "out", "ru")
    assert books.tree_bytes(tmp_path / "out") == first


def test_pages__go_without_photos_and_paths(tmp_path: Path) -> None:
    write_site(make(tmp_path, paths=False), tmp_path / "out")
    data = books.script_value(tmp_path / "out/cross/01.js")
    assert data["paths"] == {}
    assert data["sprite"] is None
    assert sum(map(len, data["lists"].values())) == data["total"]


def test_pages__one_study_and_nothing_known_have_none(tmp_path: Path) -> None:
    study = books.study(tmp_path, "one", np.arange(books.N_ROWS) % 3, 3)
    write_site(books.book(tmp_path, [study]), tmp_path / "out")
    assert not (tmp_path / "out/cross.html").exists()


def test_with_pages__takes_ten_pairs_and_the_known_that_agree_most() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 300)
    a = side(labels, 3)
    known = [
        Side(
            None,
            str(i),
            np.where(rng.random(300) < i / 15, labels, rng.integers(0, 3, 300)),
            list("xyz"),
        )
        for i in range(15)
    ]
    clusterings = [Crossed.of(a, side(rng.integers(0, 3, 300), 3)) for _ in range(12)]
    shown = with_pages(clusterings + [Crossed.of(a, b) for b in known])
    assert shown[:10] == clusterings[:10]
    scores = [one.agreement.ami for one in shown[10:]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 10
    assert scores[0] == max(Crossed.of(a, b).agreement.ami for b in known)


def test_arranged__large_tables_show_the_largest_clusters(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(80), np.arange(1, 81))
    found = Crossed.of(side(labels, 80), side(labels % 3, 3))
    shown = arranged(found)
    assert sorted(shown.a.tolist()) == list(range(20, 80))
    assert shown.counts.shape == (60, 3)
