"""The engine dask-ml: its estimators on the same rows, set up so that they work (see docs/design.md)."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import DaskBlocks
from vehclust_dask.errors import BadInput
from vehclust_dask.records import Blocks

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Components:
    """What dask-ml's PCA found.

    Attributes
    ----------
    components : ndarray of shape (n_components, n_features), float64
    variances : ndarray of shape (n_components,), float64
    total_variance : float
    mean : ndarray of shape (n_features,), float64
    """

    components: F64
    variances: F64
    total_variance: float
    mean: F64


def as_dask(blocks: Blocks) -> Any:
    """Return rows as a Dask array, a chunk per block, read by the tasks themselves."""
    import dask.array as da
    from dask import delayed

    if isinstance(blocks, DaskBlocks):
        return blocks.X
    read = delayed(_read, pure=True)
    parts = [
        da.from_delayed(read(blocks, i), (span.n_rows, blocks.n_features), dtype=np.float32)
        for i, span in enumerate(blocks.grid.spans())
    ]
    return da.concatenate(parts, axis=0)


def _read(blocks: Blocks, i: int) -> NDArray[np.float32]:
    return blocks.read(i)


def incremental_pca(
    blocks: Blocks, n_components: int, shift: F64, factor: F64, seed: int
) -> Components:
    """Fit dask-ml's IncrementalPCA on ``(X - shift) * factor``.

    With ``svd_solver="full"`` and batches of whole blocks; its default solver loses the tail.

    Parameters
    ----------
    blocks : Blocks
    n_components : int
    shift, factor : ndarray of shape (n_features,), float64
        Of the columns, as its own scalers would find them.
    seed : int
    """
    from dask_ml.decomposition import IncrementalPCA

    X = as_dask(blocks)
    if (shift != 0).any() or (factor != 1).any():
        X = (X - shift.astype(np.float32)) * factor.astype(np.float32)
    batch = blocks.grid.block_rows * max(1, -(-n_components // blocks.grid.block_rows))
    last = blocks.grid.n_rows % batch
    if 0 < last < n_components:
        raise BadInput(
            f"engine dask-ml: the last batch has {last} rows, fewer than n_components={n_components}; "
            f"lower n_components to {last} or less, or use engine: vehclust"
        )
    model = IncrementalPCA(
        n_components=n_components, batch_size=batch, svd_solver="full", random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X)
    variances = np.asarray(model.explained_variance_, dtype=np.float64)
    ratio = np.asarray(model.explained_variance_ratio_, dtype=np.float64)
    total = float(variances.sum() / ratio.sum()) if ratio.sum() > 0 else 0.0
    mean = np.asarray(model.mean_, dtype=np.float64)
    return Components(np.asarray(model.components_, dtype=np.float64), variances, total, mean)


def kmeans(
    blocks: Blocks, k: int, max_iter: int, tol: float, spread: float, seed: int
) -> tuple[F64, int]:
    """Fit dask-ml's KMeans on persisted rows; return centers and iterations.

    ``oversampling_factor=2k, init_max_iter=5`` give its k-means|| enough candidates. Its ``tol`` is
    absolute, so scikit-learn's is multiplied by the spread here.

    Parameters
    ----------
    blocks : Blocks
    k : int
    max_iter : int
    tol : float
        Relative to the mean variance of a column.
    spread : float
        That variance.
    seed : int
    """
    from dask_ml.cluster import KMeans

    logging.getLogger("dask_ml").setLevel(logging.WARNING)
    X = as_dask(blocks).persist()
    model = KMeans(
        n_clusters=k,
        init="k-means||",
        oversampling_factor=2 * k,
        init_max_iter=5,
        max_iter=max_iter,
        tol=tol * spread,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X)
    return np.asarray(model.cluster_centers_, dtype=np.float64), int(model.n_iter_)


def minibatch_kmeans(blocks: Blocks, k: int, batch_size: int, seed: int) -> tuple[F64, int]:
    """Fit scikit-learn's MiniBatchKMeans through dask-ml's Incremental, one pass over the blocks."""
    from dask_ml.wrappers import Incremental
    from sklearn.cluster import MiniBatchKMeans

    model = Incremental(
        MiniBatchKMeans(n_clusters=k, batch_size=batch_size, random_state=seed, n_init=3),
        shuffle_blocks=True,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(as_dask(blocks))
    fitted = model.estimator_
    return np.asarray(fitted.cluster_centers_, dtype=np.float64), int(fitted.n_steps_)
