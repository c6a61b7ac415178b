"""Contact sheets, looked at pixel by pixel."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.canvas import font, shorten
from vehclust_dask.report.chosen import Groups
from vehclust_dask.report.sheets import contact_sheet, overview_sheet, photo_order, write_sheets

N = 60
PATHS = [f"veriwild\\1\\{i // 3:05d}\\{i:06d}.jpg" for i in range(N)]
COLOURS = [
    (round(255 * r), round(255 * g), round(255 * b))
    for r, g, b in (colorsys.hsv_to_rgb(i / N, 0.9, 0.5 + 0.4 * (i % 2)) for i in range(N))
]
Make = Callable[..., Any]


def zipped(make_photos: Make) -> Any:
    return make_photos([path.replace("\\", "/") for path in PATHS], COLOURS)


def pixels(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture).astype(np.int64)


def near(page: NDArray[np.int64], colour: tuple[int, int, int], within: int = 6) -> int:
    """Count the pixels of about this colour."""
    return int((np.abs(page - np.array(colour)).max(axis=2) <= within).sum())


def tiles(page: NDArray[np.int64], top: int, n: int) -> list[int]:
    """Return which photo lies in each tile of a row: the nearest colour at a spot without text."""
    spots = [page[top + 80, 28 + i * 120 + 80] for i in range(n)]
    return [int(np.abs(np.array(COLOURS) - spot).sum(axis=1).argmin()) for spot in spots]


def test_photo_order__is_blake2b_of_the_path() -> None:
    # The first eight bytes that `b2sum -l 64` prints for "a/1.jpg", taken as a number.
    order = photo_order(["a/1.jpg", "a\\1.jpg"])
    assert order.dtype == np.uint64
    assert order[0] == order[1]
    assert int(order[0]) == 0x00B28D7E6A132EB3


@given(st.permutations(range(30)), st.integers(1, 5))
def test_choice__is_stable_under_a_permutation_of_the_rows(
    new_order: list[int], n_clusters: int
) -> None:
    paths = np.array([f"x/{i}.jpg" for i in range(30)])
    labels = np.arange(30) % (n_clusters + 1) - 1
    order = photo_order(list(paths))
    plain = Groups.of(labels, order, n_clusters)
    mixed = Groups.of(labels[new_order], order[new_order], n_clusters)
    for cluster in range(-1, n_clusters):
        before = paths[plain.members(cluster)]
        after = paths[new_order][mixed.members(cluster)]
        assert before.tolist() == after.tolist()
        assert sorted(before) == sorted(paths[labels == cluster])
        hashes = photo_order(list(before)).astype(object)
        assert all(a <= b for a, b in itertools.pairwise(hashes))


def test_contact_sheet__every_tile_shows_its_entry(make_photos: Make) -> None:
    photos = zipped(make_photos)
    wanted = [7, 3, 41, 12, 0, 59, 30]
    entries = photos.find([PATHS[i] for i in wanted])
    sheet = contact_sheet(photos, entries, [""] * 7, title="Seven", subtitle="photos")
    page = np.asarray(sheet).astype(np.int64)
    assert sheet.width == 28 * 2 + 10 * 120 - 8
    assert tiles(page, 104, 7) == wanted
    assert (page[104:216, 28 + 7 * 120 : -1] == 255).all()


def test_contact_sheet__a_mark_is_drawn_only_where_asked(make_photos: Make) -> None:
    photos = zipped(make_photos)
    colour = palette.rgb(palette.MARK)
    plain = contact_sheet(photos, [], [], title="a", subtitle="b")
    marked = contact_sheet(photos, [], [], title="a", subtitle="b", badge="synthetic data")
    assert near(np.asarray(plain).astype(np.int64), colour) == 0
    assert near(np.asarray(marked).astype(np.int64), colour) > 100


def test_contact_sheet__broken_and_missing_photos_are_grey_with_a_word(make_photos: Make) -> None:
    photos = make_photos(["a.jpg", "b.jpg"], [(200, 0, 0), None])
    sheet = contact_sheet(photos, [0, 1, -1], ["", "", ""], title="a", subtitle="b")
    page = np.asarray(sheet).astype(np.int64)
    grey = palette.rgb(palette.EMPTY_TILE)
    cells = [page[104:216, 28 + i * 120 : 140 + i * 120] for i in range(3)]
    assert near(cells[0], grey) == 0
    for cell in cells[1:]:
        assert 0.9 < near(cell, grey, 0) / cell[..., 0].size < 0.999
    assert not np.array_equal(cells[1], cells[2])


def test_write_sheets__shows_the_smallest_hashes_of_each_cluster(
    make_photos: Make, tmp_path: Path
) -> None:
    labels = np.arange(N) % 2
    written = write_sheets(
        tmp_path / "out",
        zipped(make_photos),
        PATHS,
        labels,
        n_clusters=2,
        title="km/2",
        photos_per_sheet=10,
        synthetic=False,
    )
    assert [path.name for path in written] == ["cluster-000.png", "cluster-001.png"]
    order = photo_order(PATHS)
    for cluster, path in enumerate(written):
        rows = np.flatnonzero(labels == cluster)
        expected = rows[np.argsort(order[rows])][:10]
        # The section's heading takes 34 pixels below the header.
        assert tiles(pixels(path), 104 + 34, 10) == expected.tolist()


def test_write_sheets__central_above_random_above_far(make_photos: Make, tmp_path: Path) -> None:
    sq_dist = np.random.default_rng(0).permutation(N).astype(np.float32)
    (path,) = write_sheets(
        tmp_path,
        zipped(make_photos),
        PATHS,
        np.zeros(N, np.int32),
        n_clusters=1,
        title="km/1",
        photos_per_sheet=10,
        synthetic=False,
        sq_dist=sq_dist,
    )
    page = pixels(path)
    by_distance = np.argsort(sq_dist)
    assert tiles(page, 104 + 34, 10) == by_distance[:10].tolist()
    # Two lines of caption (28 + 4), the gaps (8 + 10) and the tiles (112), then two headings.
    second = 104 + 34 + 162 + 34
    assert tiles(page, second, 10) == np.argsort(photo_order(PATHS))[:10].tolist()
    third = second + 112 + 18 + 8 + 10 + 34
    assert tiles(page, third, 10) == by_distance[::-1][:10].tolist()


def test_write_sheets__noise_and_empty_clusters_have_a_sheet(
    make_photos: Make, tmp_path: Path
) -> None:
    labels = np.where(np.arange(N) < 20, -1, 0)
    seen: list[tuple[int, int]] = []
    written = write_sheets(
        tmp_path,
        zipped(make_photos),
        PATHS,
        labels,
        n_clusters=3,
        title="db",
        synthetic=True,
        names={0: "красные автомобили"},
        on_progress=lambda done, of: seen.append((done, of)),
    )
    names = [path.name for path in written]
    assert names == [f"cluster-{stem}.png" for stem in ("000", "001", "002", "noise")]
    assert seen == [(i, 4) for i in range(1, 5)]
    full, empty, _, noise = (pixels(path) for path in written)
    assert empty.shape[0] < 200 < full.shape[0]
    assert min(near(page, palette.rgb(palette.MARK)) for page in (full, empty, noise)) > 100
    assert sum(near(noise, COLOURS[i]) > 2000 for i in range(20)) == 20
    assert sum(near(noise, COLOURS[i]) > 2000 for i in range(20, N)) == 0


def test_write_sheets__a_second_run_writes_the_same_bytes(
    make_photos: Make, tmp_path: Path
) -> None:
    photos = zipped(make_photos)
    labels = np.arange(N) % 3
    runs = [
        write_sheets(
            tmp_path / run, photos, PATHS, labels, n_clusters=3, title="km", synthetic=False
        )
        for run in ("a", "b")
    ]
    for one, other in zip(*runs, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_write_sheets__refuses_what_does_not_belong_together(
    make_photos: Make, tmp_path: Path
) -> None:
    photos = zipped(make_photos)
    with pytest.raises(BadInput, match="60 paths, 59 labels"):
        write_sheets(
            tmp_path, photos, PATHS, np.zeros(59, int), n_clusters=1, title="", synthetic=False
        )
    with pytest.raises(BadInput, match="labels run from 0 to 5 but n_clusters=5"):
        write_sheets(
            tmp_path, photos, PATHS, np.arange(N) % 6, n_clusters=5, title="", synthetic=False
        )


def test_overview__has_a_row_per_cluster_with_its_own_photos(
    make_photos: Make, tmp_path: Path
) -> None:
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    (path,) = overview_sheet(
        tmp_path,
        zipped(make_photos),
        PATHS,
        labels,
        n_clusters=4,
        title="km/4",
        synthetic=False,
        sq_dist=np.arange(N, dtype=np.float32),
    )
    assert path.name == "overview.png"
    page = pixels(path)
    rows = [page[116 + i * 80 : 116 + i * 80 + 72] for i in range(4)]
    for cluster, row in enumerate(rows):
        shown = {i for i in range(N) if near(row[:, 264:], COLOURS[i]) > 1500}
        assert shown <= set(np.flatnonzero(labels == cluster))
        assert len(shown) == min(12, int((labels == cluster).sum()))
        first = np.flatnonzero(labels == cluster)[:4]
        assert set(first) <= shown
    bars = [near(row[:, :264], palette.rgb(palette.color(i)), 0) for i, row in enumerate(rows)]
    assert bars[3] == 0
    assert bars[1] / bars[0] == pytest.approx(20 / 30, rel=0.02)


def test_overview__goes_on_over_pages(make_photos: Make, tmp_path: Path) -> None:
    written = overview_sheet(
        tmp_path,
        zipped(make_photos),
        PATHS,
        np.arange(N),
        n_clusters=N,
        title="km/60",
        synthetic=True,
    )
    assert [path.name for path in written] == ["overview-1.png", "overview-2.png"]
    first, second = (pixels(path) for path in written)
    assert first.shape[0] - second.shape[0] == 40 * 80


@given(st.text(max_size=60), st.integers(30, 300), st.booleans())
def test_shorten__fits_and_keeps_one_end(words: str, width: int, keep_end: bool) -> None:
    short = shorten(words, width, 10, keep_end=keep_end)
    assert font(10).getlength(short) <= width
    plain = "".join(letter if letter.isprintable() else " " for letter in words)
    if short != plain:
        kept = short[1:] if keep_end else short[:-1]
        assert plain.endswith(kept) if keep_end else plain.startswith(kept)


def oklab(code: str) -> NDArray[np.float64]:
    """Return a colour in Ottosson's OKLab, where distances are about those the eye sees."""
    srgb = np.array(palette.rgb(code)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    lab: NDArray[np.float64] = np.array(to_lab) @ np.cbrt(np.array(to_lms) @ linear)
    return lab


def test_palette__colours_are_apart_for_the_eye() -> None:
    colours = np.array([oklab(code) for code in (*palette.PALETTE, palette.NOISE)])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    # 0.02 is just to be seen between two large fields side by side.
    assert apart[:20, :20].min() > 0.09
    assert apart.min() > 0.05


def test_palette__repeats_after_fifty_and_noise_is_grey() -> None:
    assert len(set(palette.PALETTE)) == 50
    assert palette.color(53) == palette.PALETTE[3]
    assert palette.color(-1) == palette.NOISE
