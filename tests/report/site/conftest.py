"""A written report with photos, and one without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.report.site.drawn import make_book
from vehclust_dask.report.site.book import Book
from vehclust_dask.report.site.build import write_site


@dataclass(frozen=True)
class Report:
    """A report and what it was written from."""

    book: Book
    folder: Path

    @property
    def study(self) -> Path:
        return self.folder / "s" / "one"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    book = make_book(folder)
    write_site(book, folder / "site")
    return Report(book, folder / "site")


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("bare")
    book = make_book(folder, photos=False)
    write_site(book, folder / "site")
    return Report(book, folder / "site")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver
