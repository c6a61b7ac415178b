"""Invented photos for every test of the report."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from vehclust_dask.store.photos import Photos, open_photos

Colour = tuple[int, int, int]
MakePhotos = Callable[[Sequence[str], Sequence[Colour | None]], Photos]


@pytest.fixture
def make_photos(tmp_path: Path) -> MakePhotos:
    """Return a function that packs one-coloured photos with a digit; None makes a broken one."""

    def make(paths: Sequence[str], colours: Sequence[Colour | None]) -> Photos:
        where = tmp_path / "photos.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for i, (path, colour) in enumerate(zip(paths, colours, strict=True)):
                kept = io.BytesIO()
                picture = Image.new("RGB", (64, 64), colour or (0, 0, 0))
                ImageDraw.Draw(picture).text((2, 2), str(i), fill="white")
                picture.save(kept, "JPEG")
                archive.writestr(path, kept.getvalue() if colour else b"no picture")
        return open_photos(where, tmp_path / "index.parquet")

    return make
