"""Write a report: every page of a book, into a folder that opens by a double click."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vehclust_dask.errors import UsageError, nearest
from vehclust_dask.report.site import clusters, cross, curves, density, map, outliers, overview
from vehclust_dask.report.site.book import Book
from vehclust_dask.report.site.site import STATIC, Site, tree_size
from vehclust_dask.report.site.words import LANGUAGES, Words

#: The rooms of the report: each says which pages it has of a book, then writes them.
ROOMS = (overview, curves, cross, clusters, map, outliers, density)


@dataclass(frozen=True)
class Written:
    """What a report came to: number of files, and bytes of all of them."""

    n_files: int
    n_bytes: int


def write_site(book: Book, out: Path, language: str = "en") -> Written:
    """Write all pages of a book; a report that was there is replaced when the new one is whole.

    Parameters
    ----------
    book : Book
    out : Path
        Folder of this machine.
    language : {'en', 'ru'}

    Raises
    ------
    UsageError
        For another language, or a folder that holds something else.
    """
    if language not in LANGUAGES:
        raise UsageError(f"language '{language}': {nearest(language, LANGUAGES)}")
    if out.exists() and any(out.iterdir()) and not (out / "assets" / "report.css").exists():
        raise UsageError(f"{out} holds something else than a report; give another folder by --out")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    site = Site(book, partial, Words(language))
    for room in ROOMS:
        room.link(site)
    for room in ROOMS:
        room.write(site)
    site.copy_static(*STATIC)
    found = Written(*tree_size(partial))
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return found
