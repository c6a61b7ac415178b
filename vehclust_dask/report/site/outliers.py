"""What stands out: rows sorted by every score, how many lie beyond a threshold, near-duplicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vehclust_dask.report.outliers import ScoreHistograms
from vehclust_dask.report.site.book import Book, StudyBook
from vehclust_dask.report.site.site import Site, packed, slug
from vehclust_dask.store.storage import whole

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Rows in the strip of a score: so many from the top, all in all.
STRIP_TOP, STRIP = 24, 60
#: Thumbnails in a line of a sprite, and their side in pixels.
COLUMNS, SIDE = 12, 72
#: Values up to which every one is kept: any threshold above the last has an exact count.
MOST_VALUES = 20_000
#: Further values below them, at equal ranks.
MORE_VALUES = 2_000
#: Rows of a score that are listed with their paths.
LISTED = 2_000
#: Groups of near-duplicates, and thumbnails of each.
GROUPS, GROUP_ROWS = 12, 12


@dataclass(frozen=True, eq=False)
class Thresholds:
    """How many rows reach a threshold.

    Attributes
    ----------
    values : ndarray of shape (n_values,), float64
        Different values, falling.
    counts : ndarray of shape (n_values,), int64
        Rows of this value or a larger one.
    complete : int
        So many of the values, from the first, leave none out between them.
    """

    values: F64
    counts: I64
    complete: int

    @classmethod
    def of(cls, scores: F64, most: int = MOST_VALUES, more: int = MORE_VALUES) -> Thresholds:
        """Count the rows of a score; rows without one (NaN) count nowhere.

        Parameters
        ----------
        scores : ndarray of shape (n_rows,), float64
        most : int
            Different values kept from the largest down.
        more : int
            Values kept below them, 2 or more, at equal ranks; the smallest is one of them.
        """
        known = scores[~np.isnan(scores)]
        rising, counted = np.unique(known, return_counts=True)
        values, counts = rising[::-1], np.cumsum(counted[::-1], dtype=np.int64)
        n = len(values)
        if n > most + more:
            wanted = np.linspace(counts[most], counts[-1], more)
            below = np.unique(np.searchsorted(counts, wanted))
            kept = np.concatenate([np.arange(most), below[below >= most]])
            values, counts, n = values[kept], counts[kept], most
        return cls(values, counts, n)

    @property
    def exact(self) -> float | None:
        """Return the value down to which any threshold has an exact count; None for all values."""
        whole = self.complete == len(self.values)
        return None if whole else float(self.values[self.complete - 1])

    def beyond(self, threshold: float) -> tuple[int, int]:
        """Return the fewest and the most rows that may have this value or more; equal if exact."""
        at = int(np.searchsorted(-self.values, -threshold, side="right"))
        fewest = int(self.counts[at - 1]) if at else 0
        met = at > 0 and self.values[at - 1] == threshold
        if met or at < self.complete or at == len(self.values):
            return fewest, fewest
        # Where all values are kept down to this one, no other can lie above the threshold.
        return fewest, int(self.counts[at]) - 1

    def script(self) -> dict[str, Any]:
        """Return the table as a script reads it; counts are left out where they count up by one."""
        plain = np.array_equal(self.counts, np.arange(1, len(self.counts) + 1))
        return {
            "values": packed(self.values),
            "counts": None if plain else packed(self.counts.astype(np.uint32)),
            "complete": self.complete,
        }


@dataclass(frozen=True, eq=False)
class Strip:
    """What the page says of one score.

    Attributes
    ----------
    score : str
    known : int
        Rows that have one.
    rule : float or None
    over_rule : int
        Rows that the rule excludes.
    tiles : list of dict
        Of the strip: at (in the sprite), row, path, rank, value.
    sprite : str or None
    exact : float or None
        The value down to which any threshold has an exact count; None if it is every threshold.
    """

    score: str
    known: int
    rule: float | None
    over_rule: int
    tiles: list[dict[str, Any]]
    sprite: str | None
    exact: float | None


def link(site: Site) -> None:
    """Add the pages to the navigation."""
    for study in site.book.studies:
        if study.outliers is not None:
            site.link_study(study, "outliers")


def write(site: Site) -> None:
    """Write the pages."""
    for study in site.book.studies:
        if study.outliers is not None:
            _write_study(site, study, study.outliers)


def score_names(table: pd.DataFrame) -> list[str]:
    """Return the scores of a table of outliers."""
    return [str(name) for name in table.columns if f"{name}_rank" in table.columns]


def strip_ranks(known: int, top: int = STRIP_TOP, all_in_all: int = STRIP) -> I64:
    """Return the ranks shown: the first ones, then ever farther apart down to the last."""
    if known <= all_in_all:
        return np.arange(1, known + 1)
    rest = np.geomspace(top + 1, known, all_in_all - top).round().astype(np.int64)
    # Close to the top the steps of the row are smaller than one: each rank once, none left out.
    floor = top + 1 + np.arange(len(rest))
    return np.concatenate([np.arange(1, top + 1), np.minimum(np.maximum(rest, floor), known)])


def _write_study(site: Site, study: StudyBook, table: pd.DataFrame) -> None:
    folder = site.folder(study)
    scores = {name: table[name].to_numpy(np.float64) for name in score_names(table)}
    strips, told = [], []
    listed: dict[str, str] = {}
    for name, values in scores.items():
        order = np.argsort(table[f"{name}_rank"].to_numpy(), kind="stable")
        ranked = order[np.isnan(values).sum() :]
        thresholds = Thresholds.of(values)
        strips.append(_strip(site, study, name, values, ranked, thresholds.exact))
        top = ranked[:LISTED]
        listed |= _named(site.book, study.rows[top])
        about = {"score": name, "rows": study.rows[top].tolist(), "known": len(ranked)}
        told.append(about | {"top": packed(values[top]), "rule": study.rules.get(name)})
        told[-1] |= thresholds.script()
    data = {
        "scores": told,
        "paths": listed,
        "all": len(table),
        "table": f"tables/outliers-{study.name}.parquet",
        "words": site.words.part("outliers.js."),
        "language": site.words.language,
    }
    site.script(f"{folder}/outliers-data.js", "OUTLIERS", data)
    display = ScoreHistograms(scores, study.rules, study.name, site.book.synthetic)
    site.draw(display, f"{folder}/figures", "outliers")
    site.copy_static("outliers.js")
    excluded = (
        table["excluded"].to_numpy(np.bool_) if "excluded" in table else np.zeros(0, np.bool_)
    )
    site.render(
        "outliers.html",
        f"{folder}/outliers.html",
        title=site.words("outliers.title", study=study.name),
        study=study,
        strips=strips,
        excluded=int(excluded.sum()),
        columns=COLUMNS,
        side=SIDE,
        abouts=_abouts(site),
        listed=LISTED,
        precision=_precision(site, study),
        agreement=_agreement(site, study, list(scores)),
        groups=_groups(site, study, table),
    )


def _abouts(site: Site) -> dict[str, str]:
    """Return in words what scores measure, by their names."""
    prefix = "outliers.about."
    return {key.removeprefix(prefix): text for key, text in site.words.part(prefix).items()}


def _named(book: Book, rows: I64) -> dict[str, str]:
    """Return the paths of rows of the data set, by row; none where none are known."""
    if book.paths is None:
        return {}
    return {str(row): book.paths[row] for row in rows.tolist()}


def _path(book: Book, row: int) -> str:
    return book.paths[row] if book.paths is not None else f"row {row}"


def _strip(
    site: Site, study: StudyBook, name: str, values: F64, ranked: I64, exact: float | None
) -> Strip:
    shown = strip_ranks(len(ranked))
    rows = ranked[shown - 1]
    sprite = None
    if site.thumbs.any and len(rows):
        sprite = f"sprites/outliers-{slug(name)}.jpg"
        file = site.out / site.folder(study) / sprite
        site.thumbs.sprite(study.rows[rows], COLUMNS, file, SIDE)
    tiles = [
        {
            "at": at,
            "row": int(study.rows[row]),
            "path": _path(site.book, int(study.rows[row])),
            "rank": int(rank),
            "value": float(values[row]),
        }
        for at, (rank, row) in enumerate(zip(shown, rows, strict=True))
    ]
    rule = study.rules.get(name)
    over = 0 if rule is None else int((values >= rule).sum())
    return Strip(name, len(ranked), rule, over, tiles, sprite, exact)


def _read(book: Book, name: str, study: str) -> pd.DataFrame:
    """Read a table of judgements of the run, the rows of one study; empty where there is none."""
    file: Path = book.folder / "tables" / name
    if not file.exists():
        return pd.DataFrame()
    with whole(file) as opened:
        table = pd.read_csv(opened)
    return table[table["study"] == study]


def _precision(site: Site, study: StudyBook) -> dict[str, Any] | None:
    """Return how well every score finds what is known to be wrong, a row per score."""
    table = _read(site.book, "outlier-scores.csv", study.name)
    if not len(table) or table["question"].isna().all():
        return None
    table = table.dropna(subset=["question"])
    _numbers(site, study, table, "outlier-precision.csv")
    asked = list(dict.fromkeys(table["question"]))
    by = {(row["score"], row["question"]): row for row in table.to_dict("records")}
    scores = list(dict.fromkeys(table["score"]))
    first = {question: by[scores[0], question] for question in asked}
    best = {q: max(_order(by[s, q]["average_precision"]) for s in scores) for q in asked}
    return {
        "questions": [
            (question, first[question]["base_rate"], int(first[question]["known"]))
            for question in asked
        ],
        "rows": [
            (score, [(by[score, q]["average_precision"], by[score, q], best[q]) for q in asked])
            for score in scores
        ],
    }


def _order(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _agreement(site: Site, study: StudyBook, scores: list[str]) -> dict[str, Any] | None:
    """Return how far scores order the rows alike: correlation above, common top below the diagonal."""
    table = _read(site.book, "outlier-agreement.csv", study.name)
    if not len(table):
        return None
    _numbers(site, study, table, "outlier-agreement.csv")
    pairs = {(row["score"], row["other"]): row for row in table.to_dict("records")}
    cells: list[tuple[str, list[float | None]]] = []
    for i, one in enumerate(scores):
        line: list[float | None] = []
        for j, other in enumerate(scores):
            pair = pairs.get((one, other)) if i < j else pairs.get((other, one))
            word = "spearman" if i < j else "top_overlap"
            line.append(None if i == j or pair is None else float(pair[word]))
        cells.append((one, line))
    return {"names": scores, "rows": cells}


def _numbers(site: Site, study: StudyBook, table: pd.DataFrame, name: str) -> None:
    text = table.to_csv(index=False, lineterminator="\n")
    site.write(f"{site.folder(study)}/figures/{name}", text)


def _groups(site: Site, study: StudyBook, table: pd.DataFrame) -> dict[str, Any] | None:
    """Return the largest groups of near-duplicates, with thumbnails of their first rows."""
    if "duplicate_group" not in table:
        return None
    group = table["duplicate_group"].to_numpy(np.int64)
    names, sizes = np.unique(group[group >= 0], return_counts=True)
    largest = np.lexsort((names, -sizes))[:GROUPS]
    members = [np.flatnonzero(group == names[at]) for at in largest]
    distance = table["duplicate_distance"].to_numpy(np.float64)
    told = table.iloc[np.concatenate([*members, np.empty(0, np.int64)])]
    columns = [c for c in ("duplicate_group", "row", "path", "duplicate_distance") if c in told]
    _numbers(site, study, told[columns], "near-duplicates.csv")
    shown, at = [], 0
    for name, rows in zip(names[largest].tolist(), members, strict=True):
        first = rows[:GROUP_ROWS]
        tiles = [
            {"at": at + i, "row": row, "path": _path(site.book, row)}
            for i, row in enumerate(study.rows[first].tolist())
        ]
        at += len(first)
        spread = float(distance[rows].max())
        shown.append({"group": name, "size": len(rows), "tiles": tiles, "spread": spread})
    sprite = None
    if site.thumbs.any and shown:
        sprite = "sprites/near-duplicates.jpg"
        rows = np.concatenate([m[:GROUP_ROWS] for m in members])
        file = site.out / site.folder(study) / sprite
        site.thumbs.sprite(study.rows[rows], COLUMNS, file, SIDE)
    return {
        "n": len(names),
        "rows": int((group >= 0).sum()),
        "shown": shown,
        "sprite": sprite,
    }
