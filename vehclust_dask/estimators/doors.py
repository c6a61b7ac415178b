"""What every estimator checks of its input, and how a map over rows comes back."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from vehclust_dask.blocks import DaskBlocks, as_blocks
from vehclust_dask.errors import BadInput, nearest
from vehclust_dask.records import Blocks


def is_dask(X: Any) -> bool:
    """Say whether X is a Dask array."""
    return hasattr(X, "dask") and hasattr(X, "to_delayed")


def rows_in(estimator: Any, X: Any, *, reset: bool) -> Blocks:
    """Check rows at an estimator's door and return them as blocks.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_`` when ``reset``, is compared with it otherwise.
    X : array-like, Dask array or Blocks of shape (n_samples, n_features)
    reset : bool

    Raises
    ------
    ValueError
        If X is no finite matrix of the right width.
    """
    if isinstance(X, Blocks) or is_dask(X):
        blocks = as_blocks(X)
        _check_width(estimator, blocks.n_features, reset)
        if blocks.grid.n_rows == 0:
            raise BadInput("there are 0 rows: at least one is needed")
        return blocks
    checked = validate_data(estimator, X, dtype=[np.float32, np.float64], order="C", reset=reset)
    largest = np.abs(checked).max(initial=0.0)
    if largest > np.finfo(np.float32).max:
        raise BadInput(f"the largest value is {largest:g}: it does not fit into float32; scale it")
    return as_blocks(checked)


def _check_width(estimator: Any, n_features: int, reset: bool) -> None:
    if reset:
        estimator.n_features_in_ = n_features
    elif n_features != estimator.n_features_in_:
        raise BadInput(
            f"X has {n_features} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )


def check_count(name: str, value: Any) -> None:
    """Refuse a parameter that is no whole number of at least 1."""
    if not isinstance(value, Integral) or value < 1:
        raise BadInput(f"{name}={value!r}: give a whole number of at least 1")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a parameter that is none of the allowed words."""
    if value not in allowed:
        raise BadInput(f"{name}={value!r}: {nearest(str(value), allowed)}")


def by_rows(
    X: Any,
    blocks: Blocks,
    function: Callable[[NDArray[np.float32]], NDArray[Any]],
    width: int,
    dtype: Any,
) -> Any:
    """Apply a function of rows: a Dask array gives a lazy Dask array, everything else a numpy array.

    Parameters
    ----------
    X : what the person gave
    blocks : Blocks
        The same rows.
    function : callable
        Block in, array of as many rows out.
    width : int
        Columns of the result; 0 for a vector.
    dtype : dtype of the result
    """
    if isinstance(blocks, DaskBlocks):
        shape: dict[str, Any] = (
            {"drop_axis": 1} if width == 0 else {"chunks": (blocks.X.chunks[0], (width,))}
        )
        return blocks.X.map_blocks(
            lambda chunk: function(np.ascontiguousarray(chunk, dtype=np.float32)).astype(dtype),
            dtype=dtype,
            meta=np.empty((0,) if width == 0 else (0, 0), dtype),
            **shape,
        )
    parts = [function(blocks.read(i)) for i in range(blocks.grid.n_blocks)]
    return np.concatenate(parts).astype(dtype, copy=False)
