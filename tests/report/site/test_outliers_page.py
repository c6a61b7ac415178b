"""The page of outliers: exact counts for every threshold, the right rows, nothing of the data runs."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from tests.report.conftest import MakePhotos
from tests.report.site import small_books as books
from vehclust_dask.job.outlier_judging import write_judgements
from vehclust_dask.job.outliers import Duplicates, Outliers
from vehclust_dask.report.site.book import Book
from vehclust_dask.report.site.build import write_site
from vehclust_dask.report.site.outliers import COLUMNS, SIDE, Thresholds, strip_ranks

SCRIPT = resources.files("vehclust_dask.report.site") / "static" / "outliers.js"
PAGE, DATA = "s/one/outliers.html", "s/one/outliers-data.js"

#: Values with many ties, some missing.
scores = st.lists(
    st.one_of(
        st.integers(-3, 3).map(float),
        st.floats(-1e6, 1e6, allow_subnormal=False),
        st.just(float("nan")),
    ),
    min_size=1,
    max_size=80,
).map(lambda values: np.array(values, np.float64))


def count(values: np.ndarray, threshold: float) -> int:
    return int((values >= threshold).sum())


def asked(values: np.ndarray) -> list[float]:
    """Return thresholds at, between, above and below all values."""
    known = np.unique(values[~np.isnan(values)])
    between = (known[1:] + known[:-1]) / 2
    ends = [known[0] - 1, known[-1] + 1] if len(known) else [0.0]
    return [float(t) for t in np.concatenate([known, between, ends])]


@settings(deadline=None)
@given(scores)
def test_thresholds__a_whole_table_counts_exactly(values: np.ndarray) -> None:
    table = Thresholds.of(values)
    for threshold in asked(values):
        assert table.beyond(threshold) == (count(values, threshold),) * 2


@settings(deadline=None)
@given(scores, st.integers(1, 12), st.integers(2, 6))
def test_thresholds__a_thinned_table_brackets_and_is_exact_where_it_says_so(
    values: np.ndarray, most: int, more: int
) -> None:
    table = Thresholds.of(values, most, more)
    assert len(table.values) <= most + more
    for threshold in asked(values):
        low, high = table.beyond(threshold)
        assert low <= count(values, threshold) <= high
    for at, value in enumerate(table.values.tolist()):
        # Every position of the slider below the kept values is one of these.
        assert table.beyond(value) == (count(values, value),) * 2
        if at < table.complete:
            assert table.beyond(np.nextafter(value, -np.inf))[0] == count(values, value)
    if table.exact is not None:
        assert table.beyond(table.exact) == (count(values, table.exact),) * 2
        assert len(np.unique(values[values >= table.exact])) == most
    if len(table.values):
        assert table.counts[-1] == (~np.isnan(values)).sum(), "the smallest value is kept"


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the script of the page")
def test_script__counts_as_numpy_does_at_every_position_of_the_slider(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cases = []
    for values in (
        np.round(rng.exponential(size=3000), 2),
        rng.normal(size=2500),
        np.where(rng.random(400) < 0.3, np.nan, rng.integers(0, 5, 400)),
        np.zeros(9),
        np.array([2.5]),
        -rng.random(300) * 1e-7,
    ):
        for most, more in ((20_000, 2_000), (200, 50)):
            table = Thresholds.of(values, most, more)
            cases.append(
                (values, {**table.script(), "asked": asked(values)[:: len(values) // 40 + 1]})
            )
    program = """
    const {Thresholds} = require(process.argv[1]);
    const cases = JSON.parse(require("fs").readFileSync(0));
    const out = cases.map(one => {
      const t = new Thresholds(one), stops = [];
      for (let p = 0; p <= 1000; p++) {
        const x = t.at(p ? Math.round(Math.pow(t.known, p / 1000)) : 0);
        stops.push([x, ...t.beyond(x)]);
      }
      return {known: t.known, stops, asked: one.asked.map(x => t.beyond(x))};
    });
    console.log(JSON.stringify(out));
    """
    given = json.dumps([told for _, told in cases])
    ran = subprocess.run(
        ["node", "-e", program, str(SCRIPT)],
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    for (values, told), found in zip(cases, json.loads(ran.stdout), strict=True):
        known = int((~np.isnan(values)).sum())
        assert found["known"] == known
        for threshold, low, high in found["stops"]:
            assert low == high == count(values, threshold)
        reached = [stop[1] for stop in found["stops"]]
        assert reached == sorted(reached)
        assert (reached[0], reached[-1]) == (0, known)
        for threshold, (low, high) in zip(told["asked"], found["asked"], strict=True):
            assert low <= count(values, threshold) <= high
            if told["complete"] == len(np.unique(values[~np.isnan(values)])):
                assert low == high


@settings(deadline=None)
@given(st.integers(0, 10**7))
def test_strip_ranks__begin_at_the_top_and_end_at_the_last(known: int) -> None:
    shown = strip_ranks(known)
    assert len(shown) == min(known, 60)
    assert (np.diff(shown) > 0).all()
    if known:
        assert (shown[0], shown[-1]) == (1, known)


def make(folder: Path, *, hostile: bool = False, photos: MakePhotos | None = None) -> Book:
    """Return a run with outliers whose second study lacks some rows of the data set."""
    rows = np.setdiff1d(np.arange(books.N_ROWS), [3, 17, 40])
    rng = np.random.default_rng(1)
    paths = books.paths_of(books.N_ROWS, hostile)
    colours = [tuple(int(c) for c in rng.integers(40, 216, 3)) for _ in paths]
    table = books.outliers(rows, paths)
    study = books.study(
        folder,
        "one",
        rng.integers(0, 3, len(rows)),
        3,
        rows,
        outliers=table,
        rules={"lof": 2.0},
    )
    wrong = np.zeros(books.N_ROWS, int)
    wrong[rows[table["lof"].to_numpy() > 1.5]] = 1
    wrong[rng.integers(0, books.N_ROWS, 20)] = 1
    found = books.book(
        folder,
        [study],
        paths=paths,
        photos=None if photos is None else photos(paths, colours),
        truth={"broken": [str(value) for value in wrong]},
    )
    judged = Outliers(
        "one",
        SimpleNamespace(rules=(("lof", 2.0),)),  # type: ignore[arg-type]
        rows,
        {name: table[name].to_numpy() for name in ("lof", "glare")},
        Duplicates(
            table["duplicate_group"].to_numpy(), table["duplicate_distance"].to_numpy(), 1.0
        ),
        (),
    )
    write_judgements(folder / "tables", [judged], found.samples)
    return found


@pytest.fixture
def told(tmp_path: Path) -> tuple[Book, Path]:
    """Return a run and the folder of its report."""
    found = make(tmp_path / "run")
    write_site(found, tmp_path / "out")
    return found, tmp_path / "out"


def test_page__lists_the_rows_of_the_largest_values_and_counts_all(told: tuple[Book, Path]) -> None:
    found, out = told
    table = found.studies[0].outliers
    assert table is not None
    data = books.script_value(out / DATA)
    assert [one["score"] for one in data["scores"]] == ["lof", "glare"]
    for one in data["scores"]:
        values = table[one["score"]].to_numpy()
        known = np.flatnonzero(~np.isnan(values))
        order = known[np.argsort(-values[known], kind="stable")]
        assert one["known"] == len(known)
        assert one["rows"] == table["row"].to_numpy()[order].tolist()
        assert all(data["paths"][str(row)] == found.samples["path"][row] for row in one["rows"])
    page = books.Page(out / PAGE)
    over = int((table["lof"] >= 2.0).sum())
    assert f"The rules of the job exclude {over} rows" in page.text
    assert f"rule of the job: 2.0, {over} rows" in page.text


def test_page__shows_what_scikit_learn_and_scipy_find(told: tuple[Book, Path]) -> None:
    found, out = told
    study = found.studies[0]
    assert study.outliers is not None
    true = found.samples["truth_broken"].iloc[study.rows] == "1"
    page = books.Page(out / PAGE)
    shown = {line[0]: line[1] for line in page.tables["precision"][1:]}
    for score in ("lof", "glare"):
        values = study.outliers[score].to_numpy()
        last = np.nan_to_num(values, nan=np.nanmin(values) - 1)
        assert shown[score] == f"{average_precision_score(true, last):.2f}"
    lof, glare = study.outliers["lof"], study.outliers["glare"]
    both = glare.notna()
    correlation = spearmanr(lof[both], glare[both]).statistic
    assert page.tables["agreement"][1] == ["lof", "", f"{correlation:.2f}"]


def test_page__every_figure_has_its_numbers_and_a_second_writing_its_bytes(
    told: tuple[Book, Path], tmp_path: Path
) -> None:
    found, out = told
    books.check_numbers_beside_figures(out)
    for name in ("outlier-precision", "outlier-agreement", "near-duplicates"):
        assert len(pd.read_csv(out / "s/one/figures" / f"{name}.csv"))
    first = books.tree_bytes(out)
    write_site(found, tmp_path / "out")
    assert books.tree_bytes(out) == first


def test_page__groups_are_told_largest_first(told: tuple[Book, Path]) -> None:
    found, out = told
    assert "1 groups hold 6 rows" in books.Page(out / PAGE).text
    members = pd.read_csv(out / "s/one/figures/near-duplicates.csv")
    assert members["row"].tolist() == found.studies[0].rows[:6].tolist()


@pytest.mark.parametrize("language", ["en", "ru"])
def test_page__hostile_names_stay_words(tmp_path: Path, language: str) -> None:
    found = make(tmp_path / "run", hostile=True)
    write_site(found, tmp_path / "out", language)
    page = books.check_safe(tmp_path / "out" / PAGE)
    data = books.script_value(tmp_path / "out" / DATA)
    assert set(books.HOSTILE) - {books.HOSTILE[3]} <= set(data["paths"].values())
    assert "alert(1)" in page.text
    assert page.of("html")[0]["lang"] == language


def test_page__a_thumbnail_is_that_of_its_row(tmp_path: Path, make_photos: MakePhotos) -> None:
    found = make(tmp_path / "run", photos=make_photos)
    write_site(found, tmp_path / "out")
    page = books.Page(tmp_path / "out" / PAGE)
    tiles = [attrs for attrs in page.of("div") if "data-value" in attrs][: len(strip_ranks(237))]
    assert found.photos is not None
    assert found.paths is not None
    entries = found.photos.find(found.paths, found.photos.prefix_rule(found.paths))
    with Image.open(tmp_path / "out/s/one/sprites/outliers-lof.jpg") as sprite:
        assert sprite.width == COLUMNS * SIDE
        for at, tile in enumerate(tiles):
            row = int(tile["data-row"] or -1)
            assert tile["title"] == found.paths[row]
            middle = (at % COLUMNS * SIDE + SIDE // 2, at // COLUMNS * SIDE + SIDE - 16)
            photo = found.photos.thumbnail(int(entries[row]), SIDE).resize((1, 1))
            shown, wanted = sprite.getpixel(middle), photo.getpixel((0, 0))
            assert np.abs(np.subtract(shown, wanted)).max() < 24


def test_page__goes_without_photos_paths_and_judgements(tmp_path: Path) -> None:
    rows = np.arange(books.N_ROWS)
    study = books.study(tmp_path, "one", rows % 3, 3, outliers=books.outliers(rows, None))
    write_site(books.book(tmp_path, [study]), tmp_path / "out")
    page = books.check_safe(tmp_path / "out" / PAGE)
    assert "The job has no rules" in page.text
    assert books.script_value(tmp_path / "out" / DATA)["paths"] == {}
    assert not (tmp_path / "out/s/one/sprites").exists()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_thresholds__script_leaves_counts_out_only_where_they_count_up(seed: int) -> None:
    values = np.round(np.random.default_rng(seed).normal(size=30), seed % 3)
    told = Thresholds.of(values).script()
    assert (told["counts"] is None) == (len(np.unique(values)) == 30)
