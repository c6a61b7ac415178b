"""What can be wrong with a photo, measured on its pixels; each the larger, the worse.

All of them look at one photo alone, at a fixed size: what is measured does not depend on other
photos. Values are luma (ITU-R BT.601) in shares of full white.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: From this luma on, of 255, a pixel is blinded.
BLINDED = 250
#: Shares of pixels left out at either end of the luma where the contrast is measured.
LEFT_OUT = 0.05
#: Grain of a sensor and of JPEG: luma that is no detail.
GRAIN = 0.01


class PhotoScores(NamedTuple):
    """Scores of one photo.

    Attributes
    ----------
    glare : float
        Share of the pixels that are blinded, from 0 to 1.
    dark : float
        1 less the median luma, from 0 to 1.
    low_contrast : float
        1 less the spread of luma between its 5th and 95th percentile, from 0 to 1.
    blur : float
        -log10 of the variance of the Laplacian over the variance of luma: 1 more is a tenth of the
        fine detail for the same contrast.
    """

    glare: float
    dark: float
    low_contrast: float
    blur: float


def luma(rgb: NDArray[np.uint8]) -> F64:
    """Return the luma of a picture of shape (height, width, 3) from 0 to 1, the same on any machine."""
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    whole: F64 = (299 * red + 587 * green + 114 * blue) / 255_000
    return whole


def score_photo(rgb: NDArray[np.uint8]) -> PhotoScores:
    """Measure one photo.

    Parameters
    ----------
    rgb : ndarray of shape (height, width, 3), uint8
        At least 3 pixels wide and high; all photos at about the same size.
    """
    Y = luma(rgb)
    low, middle, high = np.quantile(Y, [LEFT_OUT, 0.5, 1 - LEFT_OUT])
    return PhotoScores(
        glare=float(np.count_nonzero(Y >= BLINDED / 255) / Y.size),
        dark=float(1 - middle),
        low_contrast=float(1 - (high - low)),
        blur=blur(Y),
    )


def blur(Y: F64) -> float:
    """Return how little of the variance of luma is fine detail: -log10(var(Laplacian) / var(luma)).

    Grain is added to the variance of luma, so that an even surface counts as blurred, and far below
    that to the detail, so that the value is finite.
    """
    inner = Y[1:-1, 1:-1]
    laplacian = Y[:-2, 1:-1] + Y[2:, 1:-1] + Y[1:-1, :-2] + Y[1:-1, 2:] - 4 * inner
    detail = float(laplacian.var()) + GRAIN**4
    return float(-np.log10(detail / (float(Y.var()) + GRAIN**2)))
