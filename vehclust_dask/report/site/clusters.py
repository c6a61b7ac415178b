"""The wall of all clusters, and a page of each: photos, size, neighbours, what it is mixed up with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.report.chosen import photo_order
from vehclust_dask.report.site.book import Featured, StudyBook, nearest_column
from vehclust_dask.report.site.describe import (
    Confounder,
    confounders,
    look_alike_order,
    nearest_centers,
)
from vehclust_dask.report.site.pictures import KINDS, THUMB, Chosen, choose_rows, per_kind
from vehclust_dask.report.site.site import Site

I64 = NDArray[np.int64]

#: Clusters on one page of the wall, and thumbnails a cluster has there.
WALL_CLUSTERS, WALL_THUMBS, WALL_SIDE = 100, 10, 72
#: Clusters whose wall thumbnails share a file.
WALL_SHARED = 10
#: Thumbnails in a line of a sprite.
COLUMNS = 12
#: Bars of the histogram of distances.
BARS = 40
#: Other clusterings that a page names clusters of, and clusters it names of each.
MOST_OTHERS, MOST_PARTS = 4, 3


@dataclass(frozen=True, eq=False)
class Portrait:
    """Everything a page says of one cluster.

    Attributes
    ----------
    cluster : int
        -1 for the noise.
    page : str
        File name of its page.
    size : int
    share : float
        Of all rows.
    spread : float
        Mean distance to the center.
    nearest : int or None
    nearest_distance : float
    confounders : list of Confounder
    agreement : float or None
        Share of its rows whose group lies in it for the most part.
    chip : str or None
        Mean colour of its photos.
    chosen : Chosen
    """

    cluster: int
    page: str
    size: int
    share: float
    spread: float
    nearest: int | None
    nearest_distance: float
    confounders: list[Confounder]
    agreement: float | None
    chip: str | None
    chosen: Chosen


def page_name(cluster: int) -> str:
    """Return the file of a cluster's page."""
    return "noise.html" if cluster < 0 else f"{cluster:03d}.html"


def link(site: Site) -> None:
    """Add the pages to the navigation."""
    for study in site.book.studies:
        if study.featured is not None:
            site.link_study(study, "clusters")


def write(site: Site) -> None:
    """Write the pages."""
    for study in site.book.studies:
        if study.featured is not None:
            _write_study(site, study, study.featured)


def _write_study(site: Site, study: StudyBook, featured: Featured) -> None:
    samples = site.book.samples.iloc[study.rows]
    chosen = chosen_rows(site, study, featured)
    mixed = confounders(featured.labels, featured.k, site.known(study))
    nearest, distance = nearest_centers(featured.centers)
    agreement = group_agreement(featured, samples.get("group"))
    portraits = []
    folder = site.folder(study)
    for cluster in [*range(featured.k), *([-1] if featured.noise else [])]:
        chip = None
        if site.thumbs.any:
            sprite = site.out / folder / "sprites" / page_name(cluster).replace(".html", ".jpg")
            rows = study.rows[chosen[cluster].all()]
            site.thumbs.sprite(rows, COLUMNS, sprite)
            chip = site.thumbs.mean_color(sprite)
        portraits.append(
            _portrait(featured, cluster, chosen[cluster], mixed, nearest, distance, agreement, chip)
        )
    _write_wall(site, study, featured, portraits)
    others = _overlaps(study, featured)
    for portrait in portraits:
        _write_cluster(site, study, featured, portrait, others)


def chosen_rows(site: Site, study: StudyBook, featured: Featured) -> list[Chosen]:
    """Return the rows that the sprites of a study show, by cluster, noise last; chosen once."""
    if study.name not in site.chosen:
        paths = site.book.paths
        hashes = (
            photo_order([paths[row] for row in study.rows.tolist()])
            if paths is not None
            else np.arange(len(study.rows), dtype=np.uint64)
        )
        site.chosen[study.name] = choose_rows(featured, hashes, per_kind(featured.k))
    return site.chosen[study.name]


def _portrait(
    featured: Featured,
    cluster: int,
    chosen: Chosen,
    mixed: list[list[Confounder]],
    nearest: I64,
    distance: NDArray[np.float64],
    agreement: NDArray[np.float64] | None,
    chip: str | None,
) -> Portrait:
    mine = featured.labels == cluster
    size = int(mine.sum())
    known = featured.distance[mine]
    spread = float(np.nanmean(known)) if np.isfinite(known).any() else float("nan")
    noise = cluster < 0
    near = None if noise or nearest[cluster] < 0 else int(nearest[cluster])
    return Portrait(
        cluster=cluster,
        page=page_name(cluster),
        size=size,
        share=size / len(featured.labels),
        spread=spread,
        nearest=near,
        nearest_distance=float("nan") if near is None else float(distance[cluster]),
        confounders=[] if noise else mixed[cluster],
        agreement=None if noise or agreement is None else float(agreement[cluster]),
        chip=chip,
        chosen=chosen,
    )


def group_agreement(featured: Featured, groups: Any) -> NDArray[np.float64] | None:
    """Return for every cluster the share of its rows whose group lies mostly in it, shape (k,)."""
    if groups is None:
        return None
    codes = groups.astype("category").cat.codes.to_numpy().astype(np.int64)
    known = (codes >= 0) & (featured.labels >= 0)
    if not known.any():
        return None
    pairs, counts = np.unique(
        codes[known] * featured.k + featured.labels[known], return_counts=True
    )
    group, cluster = pairs // featured.k, pairs % featured.k
    most = np.zeros(int(codes.max()) + 1, np.int64)
    np.maximum.at(most, group, counts)
    home = counts == most[group]
    inside = np.bincount(cluster[home], counts[home], featured.k)
    share: NDArray[np.float64] = inside / np.maximum(np.bincount(cluster, counts, featured.k), 1)
    return share


def _write_wall(
    site: Site, study: StudyBook, featured: Featured, portraits: list[Portrait]
) -> None:
    """Write the wall, look-alikes side by side, in pages of so many clusters."""
    folder = site.folder(study)
    order = [p for p in look_alike_order(featured.centers) if p < featured.k]
    ranked = [portraits[i] for i in order] + portraits[featured.k :]
    strips = _strips(site, study, ranked) if site.thumbs.any else {}
    pages = [ranked[i : i + WALL_CLUSTERS] for i in range(0, len(ranked), WALL_CLUSTERS)]
    names = ["clusters.html", *(f"clusters-{i + 1}.html" for i in range(1, len(pages)))]
    for name, part in zip(names, pages, strict=True):
        site.render(
            "clusters.html",
            f"{folder}/{name}",
            title=site.words("clusters.title", study=study.name, k=featured.k),
            study=study,
            featured=featured,
            portraits=part,
            strips=strips,
            side=WALL_SIDE,
            pages=names if len(names) > 1 else [],
            here=name,
            largest=max(1, int(featured.sizes.max(initial=1))),
        )


def _strips(
    site: Site, study: StudyBook, portraits: list[Portrait]
) -> dict[int, tuple[str, int, int]]:
    """Write wall thumbnails, several clusters a file; return file, line and number by cluster."""
    found = {}
    for i in range(0, len(portraits), WALL_SHARED):
        shared = portraits[i : i + WALL_SHARED]
        name = f"sprites/wall-{i // WALL_SHARED:02d}.jpg"
        lines = [_wall_rows(portrait) for portrait in shared]
        padded = np.concatenate(
            [
                np.resize(rows, WALL_THUMBS) if len(rows) else np.zeros(WALL_THUMBS, np.int64)
                for rows in lines
            ]
        )
        site.thumbs.sprite(
            study.rows[padded], WALL_THUMBS, site.out / site.folder(study) / name, WALL_SIDE
        )
        for line, (portrait, rows) in enumerate(zip(shared, lines, strict=True)):
            found[portrait.cluster] = (name, line, len(rows))
    return found


def _wall_rows(portrait: Portrait) -> I64:
    """Return half central, half random rows, none twice."""
    rows = portrait.chosen.rows
    half = WALL_THUMBS // 2
    both = np.concatenate([rows["central"][:half], rows["random"]])
    _, first = np.unique(both, return_index=True)
    return both[np.sort(first)][:WALL_THUMBS]


def _overlaps(study: StudyBook, featured: Featured) -> list[tuple[str, I64]]:
    """Return contingency tables with other clusterings: one of each method, near in number."""
    names = dict.fromkeys(name for name, _ in study.columns.values() if name != featured.name)
    found = []
    for name in list(names)[:MOST_OTHERS]:
        column = nearest_column(study.columns, name, featured.k)
        labels = study.labels(column)
        shifted = labels + 1
        wide = int(shifted.max(initial=0)) + 1
        mine = np.where(featured.labels < 0, featured.k, featured.labels)
        counts = np.bincount(mine * wide + shifted, minlength=(featured.k + 1) * wide)
        found.append((column, counts.reshape(featured.k + 1, wide)))
    return found


def _write_cluster(
    site: Site,
    study: StudyBook,
    featured: Featured,
    portrait: Portrait,
    others: list[tuple[str, I64]],
) -> None:
    folder = site.folder(study)
    cluster = portrait.cluster
    paths = site.book.paths
    sheets, at = [], 0
    for kind in KINDS:
        tiles = []
        for row in portrait.chosen.rows[kind].tolist():
            original = int(study.rows[row])
            tiles.append(
                {
                    "at": at,
                    "row": original,
                    "path": paths[original] if paths is not None else f"row {original}",
                    "distance": float(featured.distance[row]),
                    "second": int(featured.second[row]) if kind == "border" else None,
                }
            )
            at += 1
        sheets.append((kind, tiles))
    overlap = []
    for column, table in others:
        counts = table[cluster]
        parts = np.argsort(-counts, kind="stable")[:MOST_PARTS]
        shares = [
            (int(p) - 1, float(counts[p] / max(1, portrait.size))) for p in parts if counts[p]
        ]
        overlap.append((column, shares))
    near = [int(c) for c in _near(featured, cluster)]
    site.render(
        "cluster.html",
        f"{folder}/c/{portrait.page}",
        title=_title(site, cluster),
        study=study,
        featured=featured,
        portrait=portrait,
        sheets=sheets,
        columns=COLUMNS,
        side=THUMB,
        pictures=site.thumbs.any,
        histogram=_histogram(featured, cluster),
        overlap=overlap,
        near=[(c, page_name(c)) for c in near],
        before=page_name((cluster - 1) % featured.k) if featured.k else None,
        after=page_name((cluster + 1) % featured.k) if featured.k else None,
    )


def _title(site: Site, cluster: int) -> str:
    return site.words("cluster.noise") if cluster < 0 else site.words("cluster.title", n=cluster)


def _near(featured: Featured, cluster: int) -> I64:
    """Return the clusters with the nearest centers."""
    if cluster < 0 or featured.k < 2:
        return np.empty(0, np.int64)
    away = np.linalg.norm(featured.centers - featured.centers[cluster], axis=1)
    return np.argsort(away, kind="stable")[1:6].astype(np.int64)


def _histogram(featured: Featured, cluster: int) -> list[float]:
    """Return the heights of the bars of distances to the center, from 0 to 1; all clusters' range."""
    known = featured.distance[np.isfinite(featured.distance)]
    mine = featured.distance[(featured.labels == cluster) & np.isfinite(featured.distance)]
    if not len(mine):
        return []
    counts, _ = np.histogram(mine, bins=BARS, range=(0.0, float(known.max()) or 1.0))
    return [float(n) for n in counts / max(1, counts.max())]
