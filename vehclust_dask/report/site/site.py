"""A site under construction: its folder, its words, its frame around every page."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from vehclust_dask.report import palette
from vehclust_dask.report.figure import Display, write_figure
from vehclust_dask.report.site.book import Book, StudyBook
from vehclust_dask.report.site.describe import known_columns
from vehclust_dask.report.site.pictures import Chosen, Thumbs
from vehclust_dask.report.site.words import Words

#: Files of the frame, copied beside the pages.
STATIC = ("report.css", "report.js")


@dataclass(frozen=True)
class Link:
    """An entry of the navigation."""

    key: str
    page: str


@dataclass(eq=False)
class Site:
    """Where pages are written, and what they share.

    Parameters
    ----------
    book : Book
    out : Path
    words : Words
    links : list of Link
        Of pages of the run, in order.
    study_links : dict of str to list of Link
        Of the pages of each study.
    chosen : dict of str to list of Chosen
        The rows that stand for the clusters of a study, once a page has asked for them.
    """

    book: Book
    out: Path
    words: Words
    links: list[Link] = field(default_factory=list)
    study_links: dict[str, list[Link]] = field(default_factory=dict)
    chosen: dict[str, list[Chosen]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare templates and thumbnails."""
        self.study_links |= {study.name: [] for study in self.book.studies}
        self._known: dict[str, dict[str, NDArray[Any]]] = {}
        self.thumbs = Thumbs(self.book.photos, self.book.paths)
        self._env = Environment(
            loader=PackageLoader("vehclust_dask.report.site"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.globals.update(
            t=self.words,
            number=self.words.number,
            share=self.words.share,
            color=palette.color,
            book=self.book,
            language=self.words.language,
        )
        self._env.filters["slug"] = slug

    def render(
        self,
        template: str,
        page: str,
        *,
        title: str,
        study: StudyBook | None = None,
        **context: Any,
    ) -> None:
        """Write a page.

        Parameters
        ----------
        template : str
        page : str
            Path of the page below the site's folder.
        title : str
        study : StudyBook or None
            The study it speaks of.
        """
        depth = len(PurePosixPath(page).parents) - 1
        html = self._env.get_template(template).render(
            title=title,
            page=page,
            root="../" * depth,
            study=study,
            links=self.links,
            study_links=self.study_links.get(study.name, []) if study else [],
            all_studies=self.study_links,
            **context,
        )
        self.write(page, html)

    def draw(self, display: Display, folder: str, stem: str) -> None:
        """Write a figure as SVG and its numbers as CSV beside it."""
        write_figure(display, self.out / folder, stem, png=False)

    def known(self, study: StudyBook) -> dict[str, NDArray[Any]]:
        """Return the known columns of a study's rows; paths are taken apart once."""
        if study.name not in self._known:
            self._known[study.name] = known_columns(self.book.samples.iloc[study.rows])
        return self._known[study.name]

    def link_study(self, study: StudyBook, key: str) -> None:
        """Add the page of this key to the navigation of a study."""
        self.study_links[study.name].append(Link(key, f"{self.folder(study)}/{key}.html"))

    def write(self, path: str, text: str) -> None:
        """Write a text file below the site's folder."""
        file = self.out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def script(self, path: str, name: str, value: Any) -> None:
        """Write data as a script that sets ``window.<name>``: pages of a disk may load nothing else."""
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        # Nothing in it may end the script.
        safe = text.replace("</", "<\\/")
        self.write(path, f"window.{name}={safe};\n")

    def copy_static(self, *names: str) -> None:
        """Copy files of the frame."""
        folder = resources.files("vehclust_dask.report.site") / "static"
        for name in names:
            self.write(f"assets/{name}", (folder / name).read_text(encoding="utf-8"))

    def folder(self, study: StudyBook) -> str:
        """Return the folder of a study's pages, below the site's."""
        return f"s/{slug(study.name)}"


def slug(name: str) -> str:
    """Return a name as part of a file name or a URL: nothing in it needs escaping."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name) or "_"


def packed(values: NDArray[Any]) -> str:
    """Return the bytes of an array, little-endian, as base64."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode("ascii")


def tree_size(folder: Path) -> tuple[int, int]:
    """Return number and bytes of the files below a folder."""
    sizes = [
        os.path.getsize(os.path.join(top, name))
        for top, _, names in os.walk(folder)
        for name in names
    ]
    return len(sizes), sum(sizes)
