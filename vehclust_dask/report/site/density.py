"""Pages of trees and density: what every DBSCAN gives, how far rows reach, valleys, trees."""

from __future__ import annotations

from dataclasses import dataclass

from vehclust_dask.report.density import Choice, DensityMap
from vehclust_dask.report.site.book import StudyBook
from vehclust_dask.report.site.site import Site, slug

#: Figures of a clustering in the order of its page.
ORDER = ("dbscan-map", "core-distances", "reachability", "condensed", "dendrogram")


@dataclass(frozen=True, eq=False)
class Part:
    """The figures of one clustering, or of one part of the job.

    Attributes
    ----------
    name : str
    choice : Choice or None
        What to choose, of a map of settings.
    found : list of tuple of str, int and float
        Clusterings of it: name, number of clusters, share of noise.
    figures : list of tuple of str and str
        What is shown, and the file without its ending.
    """

    name: str
    choice: Choice | None
    found: list[tuple[str, int, float]]
    figures: list[tuple[str, str]]


def link(site: Site) -> None:
    """Add the pages to the navigation."""
    for study in site.book.studies:
        if study.displays:
            site.link_study(study, "density")


def write(site: Site) -> None:
    """Write the pages."""
    for study in site.book.studies:
        if study.displays:
            _write_study(site, study)


def _write_study(site: Site, study: StudyBook) -> None:
    folder = site.folder(study)
    parts = []
    for name in dict.fromkeys(name for _, name in study.displays):
        figures = []
        for word in ORDER:
            display = study.displays.get((word, name))
            if display is not None:
                stem = f"{word}-{slug(name)}"
                site.draw(display, f"{folder}/figures", stem)
                figures.append((word, stem))
        table = study.displays.get(("dbscan-map", name))
        choice = table.choice() if isinstance(table, DensityMap) else None
        parts.append(Part(name, choice, _found(study, name), figures))
    title = site.words("density.title", study=study.name)
    site.render("density.html", f"{folder}/density.html", title=title, study=study, parts=parts)


def _found(study: StudyBook, name: str) -> list[tuple[str, int, float]]:
    """Return what was found under a name: a density method may give several, a tree has no noise."""
    scores = study.scores
    if not len(scores) or "noise" not in scores:
        return []
    parts = {part for _, part in study.displays}
    told = scores[scores["noise"].notna()].to_dict("records")
    return [
        (str(row["clustering"]), int(row["k"]), float(row["noise"]))
        for row in told
        if _part(str(row["clustering"]), parts) == name
    ]


def _part(clustering: str, parts: set[str]) -> str | None:
    """Return the part of the job a clustering is of: ``db`` for ``db-m5-e0.4``."""
    of = [part for part in parts if clustering == part or clustering.startswith(f"{part}-")]
    return max(of, key=len, default=None)
