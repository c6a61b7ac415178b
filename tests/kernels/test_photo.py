"""Scores of photos: by hand, and what must grow when a photo is spoilt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vehclust_dask.kernels.photo import luma, score_photo

U8 = NDArray[np.uint8]


def scene(seed: int) -> U8:
    """Draw boxes of many colours, none of them near black or white."""
    rng = np.random.default_rng(seed)
    picture = np.full((60, 80, 3), rng.integers(60, 160), np.uint8)
    for _ in range(25):
        y, x, h, w = rng.integers(0, 60), rng.integers(0, 80), *rng.integers(3, 25, 2)
        picture[y : y + h, x : x + w] = rng.integers(40, 200, 3)
    return picture


seeds = st.integers(0, 2**32 - 1)


def test_luma__of_pure_colours() -> None:
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luma(pure), [[0.299, 0.587, 0.114, 1.0]], rtol=1e-15)


@pytest.mark.parametrize("level", [0, 51, 255])
def test_score__of_an_even_picture(level: int) -> None:
    scores = score_photo(np.full((20, 30, 3), level, np.uint8))
    assert scores.glare == (level == 255)
    assert scores.dark == pytest.approx(1 - level / 255)
    assert scores.low_contrast == 1
    assert np.isfinite(scores.blur)
    assert scores.blur > score_photo(scene(0)).blur


@given(seeds, st.integers(1, 40))
def test_glare__is_the_share_of_blinded_pixels(seed: int, rows: int) -> None:
    spoilt = scene(seed)
    assert score_photo(spoilt).glare == 0
    spoilt[:rows] = 255
    assert score_photo(spoilt).glare == rows / 60


@given(seeds, st.floats(0.1, 0.8))
def test_dark_and_low_contrast__grow_as_light_goes(seed: int, left: float) -> None:
    whole = scene(seed)
    before, after = score_photo(whole), score_photo((whole * left).astype(np.uint8))
    assert after.dark > before.dark
    assert after.low_contrast > before.low_contrast


@given(seeds)
def test_blur__grows_with_the_radius_and_hardly_depends_on_light(seed: int) -> None:
    whole = scene(seed)
    picture = Image.fromarray(whole)
    blurs = [
        score_photo(np.asarray(picture.filter(ImageFilter.GaussianBlur(r)))).blur for r in (0, 1, 2)
    ]
    assert blurs[0] + 0.3 < blurs[1]
    assert blurs[1] + 0.2 < blurs[2]
    # Half the light loses a bit of every value, which moves the score a little.
    assert score_photo(whole // 2).blur == pytest.approx(blurs[0], abs=0.1)


@given(seeds)
def test_score__does_not_depend_on_how_a_photo_is_turned(seed: int) -> None:
    whole = scene(seed)
    turned = score_photo(np.ascontiguousarray(np.rot90(whole)))
    assert turned == pytest.approx(score_photo(whole), rel=1e-12)
