"""The animation over k: frames, colours, points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vehclust_dask.errors import BadInput
from vehclust_dask.report import palette
from vehclust_dask.report.animation import animate_over_k, spaced_k, stable_slots


def blobs(n: int = 600, k: int = 6) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    labels = np.arange(n) % k
    angle = labels * 2 * np.pi / k
    centers = 10 * np.column_stack([np.cos(angle), np.sin(angle)])
    return (centers + rng.normal(size=(n, 2))).astype(np.float32), labels


def frames(path: Path) -> list[NDArray[np.int64]]:
    with Image.open(path) as picture:
        shown = []
        for i in range(picture.n_frames):
            picture.seek(i)
            shown.append(np.asarray(picture.convert("RGB")).astype(np.int64))
        return shown


def where(frame: NDArray[np.int64], code: str) -> NDArray[np.bool_]:
    """Tell where a colour stands in the plane, the bar of shares above it left out."""
    found: NDArray[np.bool_] = (frame[97:] == np.array(palette.rgb(code))).all(axis=2)
    return found


def test_animate__has_a_frame_per_k_and_points_stay(tmp_path: Path) -> None:
    xy, labels = blobs()
    by_k = {2: labels // 3, 3: labels // 2, 6: labels}
    out = animate_over_k(xy, by_k, tmp_path / "a.gif", explained=(0.4, 0.2), synthetic=True)
    shown = frames(out)
    assert len(shown) == 3
    coloured = []
    for frame, k in zip(shown, by_k, strict=True):
        seen = [where(frame, code) for code in palette.PALETTE]
        assert sum(part.any() for part in seen) == k
        coloured.append(np.logical_or.reduce(seen))
    # Only the numbers on the centres may cover points in one frame and not in another.
    both = coloured[0] & coloured[2]
    assert both.sum() > 0.85 * coloured[0].sum()
    assert all((frame == np.array(palette.rgb(palette.MARK))).all(axis=2).any() for frame in shown)


def test_animate__of_many_k_shows_twenty_five_below_three_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xy = rng.normal(size=(30_000, 2)).astype(np.float32)
    # Labels without any order in the plane: the worst case for the file's size.
    by_k = {k: rng.integers(0, k, len(xy)) for k in range(2, 51)}
    out = animate_over_k(xy, by_k, tmp_path / "a.gif", explained=(0.1, 0.1), synthetic=False)
    with Image.open(out) as picture:
        assert picture.n_frames == 25
        assert picture.info["loop"] == 0
    assert out.stat().st_size < 3_000_000


def test_animate__draws_the_smallest_hashes_alone(tmp_path: Path) -> None:
    xy, labels = blobs(600, 2)
    order = np.arange(600, dtype=np.uint64)
    order[labels == 1] += np.uint64(1000)
    out = animate_over_k(
        xy,
        {2: labels},
        tmp_path / "a.gif",
        explained=(0.4, 0.2),
        synthetic=False,
        order=order,
        max_points=300,
    )
    (frame,) = frames(out)
    assert where(frame, palette.PALETTE[0]).any()
    assert not where(frame, palette.PALETTE[1]).any()


def test_animate__noise_is_grey_and_far_points_leave_the_frame(tmp_path: Path) -> None:
    xy, labels = blobs(3000, 3)
    labels[::7] = -1
    plain = animate_over_k(
        xy, {3: labels}, tmp_path / "a.gif", explained=(0.4, 0.2), synthetic=False
    )
    far = np.concatenate([xy, np.array([[1e5, 1e5], [-1e5, -1e5]], np.float32)])
    more = np.append(labels, [0, 1])
    other = animate_over_k(
        far, {3: more}, tmp_path / "b.gif", explained=(0.4, 0.2), synthetic=False
    )
    counts = []
    for path in (plain, other):
        (frame,) = frames(path)
        assert where(frame, palette.NOISE).sum() > 300
        counts.append(sum(int(where(frame, palette.PALETTE[i]).sum()) for i in range(3)))
    # Far points must not press all others into a corner.
    assert counts[1] > 0.8 * counts[0]


def test_animate__a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    xy, labels = blobs()
    runs = [
        animate_over_k(
            xy, {2: labels // 3, 6: labels}, tmp_path / name, explained=(0.4, 0.2), synthetic=False
        )
        for name in ("a.gif", "b.gif")
    ]
    assert runs[0].read_bytes() == runs[1].read_bytes()


@pytest.mark.parametrize("bad", [np.zeros(5, int), np.full(600, 2), np.full(600, -2)])
def test_animate__refuses_labels_that_do_not_fit(bad: NDArray[np.int64], tmp_path: Path) -> None:
    xy, _ = blobs()
    with pytest.raises(BadInput, match="k=2 has"):
        animate_over_k(xy, {2: bad}, tmp_path / "a.gif", explained=(0.4, 0.2), synthetic=False)


@given(st.sets(st.integers(2, 500), min_size=1, max_size=120), st.integers(2, 30))
def test_spaced_k__keeps_ends_and_order(counts: set[int], at_most: int) -> None:
    chosen = spaced_k(sorted(counts), at_most)
    assert len(chosen) == min(len(counts), at_most)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= counts
    assert (chosen[0], chosen[-1]) == (min(counts), max(counts))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(2, 12), min_size=2, max_size=5, unique=True))
def test_stable_slots__are_different_and_few(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    counts = sorted(counts)
    labels = [rng.integers(-1, k, 40) for k in counts]
    for k, slots in zip(counts, stable_slots(labels, counts), strict=True):
        assert len(slots) == k == len(set(slots.tolist()))
        assert slots.min() >= 0
        assert slots.max() < counts[-1]


@given(st.permutations(range(7)))
def test_stable_slots__renumbered_clusters_keep_their_colours(numbers: list[int]) -> None:
    labels = np.arange(70) % 7
    renumbered = np.array(numbers)[labels]
    first, second = stable_slots([labels, renumbered], [7, 7])
    assert np.array_equal(first[labels], second[renumbered])


def test_stable_slots__a_split_gives_the_new_colour_to_the_smaller_part() -> None:
    labels = np.repeat([0, 1], [40, 60])
    split = np.repeat([2, 0, 1], [40, 45, 15])
    _, slots = stable_slots([labels, split], [2, 3])
    assert slots.tolist() == [1, 2, 0]
