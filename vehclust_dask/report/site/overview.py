"""The first page: what was computed from what, every clustering with its scores."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vehclust_dask.budget import show_bytes
from vehclust_dask.report.site.site import Link, Site

#: Scores of the table, in order; the second says how they may be compared.
SCORES = (
    ("inertia", "space"),
    ("calinski_harabasz", "space"),
    ("davies_bouldin", "space"),
    ("silhouette", "space"),
    ("silhouette_sq", "space"),
    ("noise", "any"),
    ("group_agreement", "any"),
    ("smallest", "any"),
    ("largest", "any"),
    ("seconds", "any"),
)


def link(site: Site) -> None:
    """Add the pages to the navigation."""
    site.links.append(Link("overview", "index.html"))


def write(site: Site) -> None:
    """Write the pages."""
    book = site.book
    scores = book.scores
    shown = [(name, kind) for name, kind in SCORES if _has(scores, name)]
    agreement = [name for name in scores.columns if str(name).startswith("ami_")]
    rows = [_row(record, shown, agreement) for record in scores.to_dict("records")]
    site.render(
        "overview.html",
        "index.html",
        title=site.words("overview.title", job=book.job),
        scores=shown,
        agreement=[name.removeprefix("ami_") for name in agreement],
        rows=rows,
        featured={study.name: study.featured for study in book.studies},
        facts=_facts(site),
        studies=book.studies,
    )


def _has(scores: pd.DataFrame, name: str) -> bool:
    return name in scores and not scores[name].isna().all()


def _row(
    record: dict[Any, Any], shown: list[tuple[str, str]], agreement: list[str]
) -> dict[str, Any]:
    return {
        "study": record["study"],
        "clustering": record["clustering"],
        "method": record["method"],
        "engine": record["engine"],
        "k": int(record["k"]),
        "values": [record[name] for name, _ in shown] + [record[name] for name in agreement],
    }


def _facts(site: Site) -> list[tuple[str, str]]:
    """Return what the run is, as pairs of words."""
    manifest, t = site.book.manifest, site.words
    sets = ", ".join(f"{name} ({n})" for name, n in manifest["dataset"]["sets"].items())
    return [
        (t("fact.rows"), t.number(manifest["dataset"]["rows"])),
        (t("fact.dropped"), t.number(manifest["dataset"]["dropped"])),
        (t("fact.sets"), sets),
        (t("fact.photos"), t.number(site.book.photos.n_photos) if site.book.photos else "–"),
        (t("fact.ended"), str(manifest["ended"]).replace("T", " ").removesuffix("+00:00") + " UTC"),
        (t("fact.peak"), show_bytes(manifest["peak_bytes"])),
        (t("fact.workers"), f"{manifest['place']['workers']} ({manifest['place']['kind']})"),
    ]
