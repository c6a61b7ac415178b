"""Pages of curves: variance by components, scores against k, and which cluster splits into which."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from vehclust_dask.report.curves import ExplainedVariance, ScoresAgainstK
from vehclust_dask.report.site.book import StudyBook
from vehclust_dask.report.site.describe import flow, votes
from vehclust_dask.report.site.site import Link, Site

#: Numbers of clusters that the flow shows at most, and clusters of the last of them.
MOST_STEPS, MOST_CLUSTERS = 12, 60
#: Shares of the variance that are marked.
MARKS = (0.8, 0.9, 0.95)


def link(site: Site) -> None:
    """Add the pages to the navigation."""
    if any(study.curve is not None for study in site.book.studies):
        site.links.append(Link("pca", "pca.html"))
    for study in site.book.studies:
        if _sweeps(study):
            site.link_study(study, "k")


def write(site: Site) -> None:
    """Write the pages."""
    curves = {s.name: s.curve for s in site.book.studies if s.curve is not None}
    if curves:
        chosen = {s.name: s.n_features for s in site.book.studies if s.curve is not None}
        display = ExplainedVariance(curves, chosen, synthetic=site.book.synthetic)
        site.draw(display, "figures", "explained-variance")
        rows = [
            {
                "study": name,
                "chosen": chosen[name],
                "share": float(curve[min(chosen[name], len(curve)) - 1]),
                "marks": [_reached(curve, mark) for mark in MARKS],
                "known": len(curve),
            }
            for name, curve in curves.items()
        ]
        title = site.words("pca.title")
        site.render("pca.html", "pca.html", title=title, rows=rows, marks=MARKS)
    for study in site.book.studies:
        if _sweeps(study):
            _write_k(site, study)


def _reached(curve: Any, share: float) -> int | None:
    """Return with how many components a share of the variance is reached."""
    at = int(np.searchsorted(curve, share - 1e-12)) + 1
    return at if at <= len(curve) else None


def _sweeps(study: StudyBook) -> list[str]:
    """Return the clusterings of several numbers of clusters."""
    counts: dict[str, int] = {}
    for name, _ in study.columns.values():
        counts[name] = counts.get(name, 0) + 1
    return [name for name, n in counts.items() if n > 1]


def _write_k(site: Site, study: StudyBook) -> None:
    folder = site.folder(study)
    display = ScoresAgainstK(study.scores, synthetic=site.book.synthetic)
    site.draw(display, f"{folder}/figures", "scores")
    told = []
    for name in _sweeps(study):
        part = study.scores[study.scores["clustering"] == name].sort_values("k")
        told.append((name, votes(part["k"].tolist(), part), _range(part)))
    site.script(f"{folder}/flow.js", "FLOW", _flows(study))
    title = site.words("k.title", study=study.name)
    site.render("k.html", f"{folder}/k.html", title=title, study=study, told=told)


def _range(part: pd.DataFrame) -> tuple[int, int]:
    return int(part["k"].min()), int(part["k"].max())


def _flows(study: StudyBook) -> list[dict[str, Any]]:
    """Return, for every sweep, sizes at some numbers of clusters and the rows between neighbours."""
    found = []
    for name in _sweeps(study):
        columns = sorted((k, column) for column, (one, k) in study.columns.items() if one == name)
        columns = [(k, column) for k, column in columns if k <= MOST_CLUSTERS] or columns[:1]
        picked = np.unique(np.linspace(0, len(columns) - 1, MOST_STEPS).round().astype(int))
        columns = [columns[i] for i in picked]
        labels = [study.labels(column) for _, column in columns]
        sizes = [
            np.bincount(one[one >= 0], minlength=k)
            for one, (k, _) in zip(labels, columns, strict=True)
        ]
        found.append(
            {
                "name": name,
                "ks": [k for k, _ in columns],
                "sizes": [one.tolist() for one in sizes],
                "flows": [flow(a, b) for a, b in itertools.pairwise(labels)],
            }
        )
    return found
