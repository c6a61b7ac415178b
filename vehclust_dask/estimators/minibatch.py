"""k-means by small batches of rows drawn across blocks: an approximation, and named as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import DaskBlocks, solo
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import check_count, rows_in
from vehclust_dask.estimators.kmeans import _CenterModel, _seed_of, last_pass
from vehclust_dask.estimators.starts import best_of_sample
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import Blocks

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Weight of a new batch in the running mean of the inertia, as a multiple of batch / rows.
SMOOTHING = 2.0


@dataclass(frozen=True)
class BatchPlan:
    """How batches are drawn and when they end."""

    batch_size: int
    max_iter: int
    max_no_improvement: int
    window_bytes: int
    seed: int


class MiniBatchKMeans(_CenterModel):
    """k-means by batches of rows drawn across blocks.

    Neighbouring rows are photos of one vehicle, so a batch of neighbours would be one vehicle: blocks
    are read in random order, as many at a time as ``window_bytes`` hold, and batches are drawn from
    all of them. Each center is the mean of the rows it was given so far (Sculley, Web-scale k-means
    clustering, 2010).

    Parameters
    ----------
    n_clusters : int, default 8
    batch_size : int, default 4096
    max_iter : int, default 100
        Passes over the rows.
    max_no_improvement : int, default 10
        Stop after so many batches without a lower running mean of the inertia.
    n_init : int, default 3
        Starts compared on the sample.
    sample_size : int, default 10000
    window_bytes : int, default 256 MiB
    random_state : int, RandomState or None, default 0

    Attributes
    ----------
    cluster_centers_, labels_, inertia_, n_features_in_ : as in `KMeans`
    n_iter_ : int
        Passes over the rows that were begun.
    n_steps_ : int
        Batches used.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        batch_size: int = 4096,
        max_iter: int = 100,
        max_no_improvement: int = 10,
        n_init: int = 3,
        sample_size: int = 10_000,
        window_bytes: int = 256 * 2**20,
        random_state: Any = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.max_no_improvement = max_no_improvement
        self.n_init = n_init
        self.sample_size = sample_size
        self.window_bytes = window_bytes
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Cluster the rows."""
        blocks = rows_in(self, X, reset=True)
        self.fit_centers(blocks)
        inertia, labels = last_pass(blocks, Segments.of([self.cluster_centers_]))
        self.inertia_ = float(inertia[0])
        if labels is not None:
            self.labels_ = np.ascontiguousarray(labels[:, 0])
        return self

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Cluster the rows and return their labels."""
        return self.fit(X).labels_

    def fit_centers(self, X: Any, *, name: str = "minibatch") -> Self:
        """Find the centers alone, without labels and inertia."""
        blocks = rows_in(self, X, reset=True)
        self._check(blocks.grid.n_rows)
        seed = _seed_of(self.random_state)
        start = best_of_sample(
            blocks,
            [int(self.n_clusters)],
            n_init=self.n_init,
            size=self.sample_size,
            tol=1e-2,
            seed=seed,
            name=name,
        )[0]
        plan = BatchPlan(
            self.batch_size, self.max_iter, self.max_no_improvement, self.window_bytes, seed
        )
        if isinstance(blocks, DaskBlocks):
            found = run_batches(blocks, start, plan)
        else:
            found = solo(run_batches, blocks, start, plan, name=f"{name}-batches", on=blocks)
        self.cluster_centers_, self.n_iter_, self.n_steps_ = found
        return self

    def _check(self, n_rows: int) -> None:
        for name in (
            "n_clusters",
            "batch_size",
            "max_iter",
            "max_no_improvement",
            "n_init",
            "sample_size",
            "window_bytes",
        ):
            check_count(name, getattr(self, name))
        if n_rows < self.n_clusters:
            raise BadInput(
                f"n_clusters={self.n_clusters} but there are {n_rows} rows (n_samples={n_rows}); "
                f"lower it to {n_rows} or less"
            )


def run_batches(blocks: Blocks, start: F64, plan: BatchPlan) -> tuple[F64, int, int]:
    """Move centers by batches until the running mean of the inertia stops falling.

    Parameters
    ----------
    blocks : Blocks
    start : ndarray of shape (n_clusters, n_features), float64
    plan : BatchPlan

    Returns
    -------
    centers : ndarray of shape (n_clusters, n_features), float64
    n_iter : int
        Passes begun.
    n_steps : int
        Batches used.

    Raises
    ------
    BadInput
        If a batch holds NaN or infinity.
    """
    rng = np.random.default_rng([plan.seed, 0xBA])
    centers, weights = start.copy(), np.zeros(len(start))
    n = blocks.grid.n_rows
    smooth = min(1.0, SMOOTHING * plan.batch_size / (n + 1))
    running = lowest = np.inf
    idle = steps = 0
    for n_iter in range(1, plan.max_iter + 1):
        for batch in _batches(blocks, plan, rng):
            inertia = _move(centers, weights, batch)
            if not np.isfinite(inertia):
                raise BadInput("some rows hold NaN or infinity: drop them, or fill them in first")
            steps += 1
            running = inertia if running == np.inf else running + (inertia - running) * smooth
            idle = 0 if running < lowest else idle + 1
            lowest = min(lowest, running)
            if idle >= plan.max_no_improvement:
                return centers, n_iter, steps
    return centers, plan.max_iter, steps


def _batches(blocks: Blocks, plan: BatchPlan, rng: np.random.Generator) -> Any:
    """Draw batches from windows of blocks in random order, without replacement within a pass."""
    per_window = max(1, plan.window_bytes // (4 * blocks.n_features * blocks.grid.block_rows))
    order = rng.permutation(blocks.grid.n_blocks)
    for first in range(0, len(order), per_window):
        rows = np.concatenate([blocks.read(int(i)) for i in order[first : first + per_window]])
        shuffled = rng.permutation(len(rows))
        for at in range(0, len(rows), plan.batch_size):
            yield rows[shuffled[at : at + plan.batch_size]]


def _move(centers: F64, weights: F64, batch: F32) -> float:
    """Move each center to the mean of all rows it was ever given; return the batch's mean inertia."""
    found = assign(batch, Segments.of([centers]))
    labels = found.labels[:, 0]
    order = np.argsort(labels, kind="stable")
    used, first = np.unique(labels[order], return_index=True)
    sums = np.add.reduceat(batch[order].astype(np.float64), first, axis=0)
    counts = np.diff(np.append(first, len(order)))
    total = weights[used] + counts
    centers[used] = (centers[used] * weights[used, None] + sums) / total[:, None]
    weights[used] = total
    return float(found.sq_dist.mean())
