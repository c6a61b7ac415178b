"""What hypothesis draws for more than one room."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# The first call of a kernel compiles it, which no deadline of a single example allows for.
settings.register_profile("vehclust", deadline=None)
settings.load_profile("vehclust")

#: Powers of two that values are multiplied by: float32 products of the largest ones overflow,
#: those of the smallest vanish, and the smallest values themselves are subnormal.
SCALES = (0, 0, 0, -20, -60, -70, -100, -140, 30, 63, 100)


class RowsAndCenters(NamedTuple):
    """Rows and the centers of several clusterings whose squared distances are exact in float64."""

    X: F32
    parts: list[F64]


@st.composite
def rows_and_centers(draw: st.DrawFn, max_rows: int = 60, max_segments: int = 3) -> RowsAndCenters:
    """Draw small whole numbers times a power of two, so that a tie is a tie and not a rounding.

    Rows and centers repeat each other, lie far from the origin, or are tiny or huge.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = draw(st.sampled_from([1, 2, 3, 7, 8, 9, 17, 33]))
    n = draw(st.integers(1, max_rows))
    step = 2.0 ** draw(st.sampled_from(SCALES))
    reach = draw(st.sampled_from([1, 3, 100]))
    far = draw(st.sampled_from([0, 0, 1000, 2**20]))

    def grid(rows: int) -> F64:
        values: F64 = (rng.integers(-reach, reach + 1, (rows, d)) + far) * step
        return values

    X = grid(n)
    X = X[rng.integers(0, n, n)] if draw(st.booleans()) else X
    parts = []
    for _ in range(draw(st.integers(1, max_segments))):
        k = draw(st.integers(1, 12))
        C = X[rng.integers(0, n, k)].copy() if draw(st.booleans()) else grid(k)
        parts.append(C[rng.integers(0, k, k)] if draw(st.booleans()) else C)
    return RowsAndCenters(X.astype(np.float32), parts)


@st.composite
def float_rows(draw: st.DrawFn, max_rows: int = 200, min_rows: int = 1) -> F32:
    """Draw float32 rows of ordinary numbers of several widths, spreads and distances from zero."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(min_rows, max_rows)), draw(st.integers(1, 20))
    spread = draw(st.sampled_from([1e-3, 1.0, 50.0]))
    middle = draw(st.sampled_from([0.0, 0.0, 10.0]))
    rows: F32 = (rng.standard_normal(shape) * spread + middle * spread).astype(np.float32)
    return rows


def cuts(n: int) -> st.SearchStrategy[list[int]]:
    """Draw the ends of consecutive pieces, none of them empty, that make up n rows."""
    inner = st.sets(st.integers(1, max(1, n - 1)), max_size=8)
    return inner.map(lambda ends: [0, *sorted(e for e in ends if e < n), n])
