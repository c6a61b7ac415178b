"""Eight lanes give the sum that eight running sums give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import sq_distance


def by_loop(x: NDArray[Any], c: NDArray[Any]) -> float:
    """Add up in eight sums, the rest into the first."""
    sums = [0.0] * 8
    whole = len(x) - len(x) % 8
    for j in range(len(x)):
        t = float(x[j]) - float(c[j])
        sums[j % 8 if j < whole else 0] += t * t
    a = sums
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))


@pytest.mark.parametrize("d", [1, 7, 8, 9, 16, 33, 150])
@pytest.mark.parametrize("x_type", [np.float32, np.float64])
@pytest.mark.parametrize("c_type", [np.float32, np.float64])
def test_sq_distance__adds_in_one_order_for_every_type_and_layout(
    d: int, x_type: Any, c_type: Any
) -> None:
    rng = np.random.default_rng(d)
    x, c = rng.standard_normal(2 * d).astype(x_type), rng.standard_normal(d).astype(c_type)
    wide = np.stack([c, c], axis=1)
    x.flags.writeable = False
    assert sq_distance(x[:d], c) == by_loop(x[:d], c)
    assert sq_distance(x[::2], c) == by_loop(x[::2], c)
    assert sq_distance(x[:d], wide[:, 1]) == by_loop(x[:d], c)
    assert sq_distance(c, x[:d]) == sq_distance(x[:d], c)
