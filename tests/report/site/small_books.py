"""Small books to write reports of, and what can be read from the pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vehclust_dask.report.site.book import Book, Featured, StudyBook
from vehclust_dask.store.photos import Photos

N_ROWS = 240
#: Names that would run, close or break something if a page took them as they are.
HOSTILE = (
    "</script><script>alert(1)</script>.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    '"quoted", and a comma.jpg',
    "a & b < c > d.jpg",
    "'; alert(1); '.jpg",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "<!-- comment.jpg",
    "\u2028line\u2029.jpg",
)


def featured(labels: np.ndarray, k: int, *, name: str = "km") -> Featured:
    """Return a clustering with made-up places."""
    rng = np.random.default_rng(k)
    centers = rng.normal(size=(k, 3))
    distance = rng.random(len(labels)) + 0.1
    second = np.where(labels < 0, -1, (labels + 1) % max(k, 1))
    margin = np.where(labels < 0, np.nan, rng.random(len(labels)))
    return Featured(name, f"{name}_{k}", "kmeans", k, labels, second, distance, margin, centers)


def study(
    folder: Path, name: str, labels: np.ndarray, k: int, rows: np.ndarray | None = None, **more: Any
) -> StudyBook:
    """Return a study whose one clustering has these labels."""
    rows = np.arange(len(labels)) if rows is None else rows
    shown = featured(labels, k)
    table = folder / f"labels-{name}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"row": rows, shown.column: labels}).to_parquet(table, index=False)
    scores = pd.DataFrame({"study": [name], "clustering": ["km"], "k": [k], "noise": [np.nan]})
    return StudyBook(
        name=name,
        descriptors=("a",),
        n_features=3,
        rows=rows,
        xy=np.zeros((len(rows), 2), np.float32),
        shares=(),
        curve=None,
        featured=shown,
        table=table,
        columns={shown.column: ("km", k)},
        scores=more.pop("scores", scores),
        clusters={},
        **more,
    )


def outliers(rows: np.ndarray, paths: Sequence[str] | None, seed: int = 0) -> pd.DataFrame:
    """Return a table of outliers as a job writes it: one score with ties, one with gaps."""
    from vehclust_dask.kernels.outliers import ranks

    rng = np.random.default_rng(seed)
    n = len(rows)
    gaps = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    table: dict[str, Any] = {"row": rows}
    if paths is not None:
        table["path"] = [paths[row] for row in rows]
    for name, values in {"lof": np.round(rng.exponential(size=n), 1), "glare": gaps}.items():
        table[name] = values
        table[f"{name}_rank"] = ranks(values)
    table["duplicate_group"] = np.where(np.arange(n) < 6, rows[0], -1)
    table["duplicate_distance"] = rng.random(n)
    table["excluded"] = table["lof"] >= 2.0
    table["reason"] = None
    return pd.DataFrame(table)


def book(
    folder: Path,
    studies: Sequence[StudyBook],
    *,
    paths: Sequence[str] | None = None,
    photos: Photos | None = None,
    truth: dict[str, Sequence[Any]] | None = None,
    n_rows: int = N_ROWS,
) -> Book:
    """Return a run of these studies."""
    samples = pd.DataFrame({"row": np.arange(n_rows)})
    if paths is not None:
        samples["path"] = list(paths)
    for name, values in (truth or {}).items():
        samples[f"truth_{name}"] = list(values)
    manifest = {
        "seed": 0,
        "job_digest": "abc",
        "dataset": {"digest": "def", "rows": n_rows, "dropped": 0, "sets": {"a": 3}},
        "versions": {"vehclust": "0", "numpy": "0", "dask": "0"},
        "began": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:01:00+00:00",
        "peak_bytes": 10**8,
        "place": {"workers": 1, "kind": "local"},
    }
    scores = pd.concat([one.scores for one in studies]).assign(method="kmeans", engine="vehclust")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    return Book(
        run="run-1",
        job="job",
        folder=folder,
        manifest=manifest,
        samples=samples,
        photos=photos,
        studies=tuple(studies),
        scores=scores,
        synthetic=True,
    )


def paths_of(n: int, hostile: bool = False) -> list[str]:
    """Return paths; hostile ones come first."""
    plain = [f"w/{i % 5}/{i:05d}.jpg" for i in range(n)]
    return [*HOSTILE, *plain[len(HOSTILE) :]] if hostile else plain


def script_value(file: Path) -> Any:
    """Return what a data script sets, read as a browser would."""
    text = file.read_text(encoding="utf-8")
    assert "</" not in text, "nothing may end a script"
    assert text.isascii(), "line separators end a line of old scripts"
    _, _, value = text.partition("=")
    return json.loads(value.rstrip().removesuffix(";"))


class Page(HTMLParser):
    """What a page holds: its elements, words and tables."""

    def __init__(self, file: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table: str | None = None
        self._cell = False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element; begin a row or cell of a table that has a name."""
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "table":
            self._table = found.get("id")
            if self._table:
                self.tables[self._table] = []
        if self._table and tag == "tr":
            self.tables[self._table].append([])
        if self._table and tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        if tag in ("td", "th"):
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        """End a cell or table."""
        if tag in ("td", "th"):
            self._cell = False
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        """Keep words, and put them into the cell they are in."""
        self.words.append(data)
        if self._table and self._cell:
            self.tables[self._table][-1][-1] += data.strip()

    @property
    def text(self) -> str:
        """Return all words."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attrs for name, attrs in self.elements if name == tag]


def check_safe(file: Path) -> Page:
    """Check that nothing of the data became an element of a page; return the page."""
    page = Page(file)
    for attrs in page.of("script"):
        assert attrs.get("src"), "scripts are files of the report"
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")], "no handler in the page"
    assert all((attrs.get("src") or "").startswith("figures/") for attrs in page.of("img"))
    return page


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def check_numbers_beside_figures(folder: Path) -> None:
    """Check that every figure has its CSV beside it."""
    drawn = list(folder.rglob("*.svg"))
    assert drawn
    for file in drawn:
        assert file.with_suffix(".csv").stat().st_size > 0
