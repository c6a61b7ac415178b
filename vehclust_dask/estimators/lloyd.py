"""The loop of Lloyd's algorithm over blocks, for one clustering or a whole sweep in shared passes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import forget, reduce_rows
from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput
from vehclust_dask.kernels.assignment import Farthest, farthest_rows
from vehclust_dask.kernels.columns import ColumnPass
from vehclust_dask.kernels.kmeans import (
    BlockState,
    half_gaps,
    integers_to_centers,
    lloyd_pass,
    quantum_scale,
)
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import Blocks, Span

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CenterSums:
    """Integer sums and counts of the rows of every cluster of the active segments."""

    sums: NDArray[np.int64]
    counts: NDArray[np.int64]
    measured: int

    def plus(self, other: CenterSums) -> CenterSums:
        """Add the sums of other rows: exact, in any order."""
        return CenterSums(
            self.sums + other.sums, self.counts + other.counts, self.measured + other.measured
        )


@dataclass(frozen=True, eq=False)
class LloydPass:
    """One pass: each block is assigned and added up, going on from what its worker remembers.

    Parameters
    ----------
    segments : Segments
        Centers of the active clusterings.
    ids : tuple of int
        Which clusterings these are.
    gaps : ndarray of shape (n_centers,), float32
    scale : float
    group : str
        Names this fit in the worker's cache.
    """

    segments: Segments
    ids: tuple[int, ...]
    gaps: NDArray[np.float32]
    scale: float
    group: str
    fan_in: int = 8

    def fold(self, summary: CenterSums | None, X: NDArray[np.float32], span: Span) -> CenterSums:
        """Add a block; its state is taken out of the cache while it changes."""
        kept = CACHE.take(self.group, span.row0)
        state = None if kept is None else _picked(kept[1], kept[0], self.ids, self.segments)
        state = BlockState.fresh(X, self.segments) if state is None else state.with_bounds()
        found = lloyd_pass(X, self.segments, self.gaps, self.scale, state)
        # Copies: the state goes on changing while a summary may still be on its way.
        mine = CenterSums(found.sums.copy(), found.counts.copy(), found.measured)
        self._keep(span.row0, state)
        return mine if summary is None else summary.plus(mine)

    def _keep(self, row0: int, state: BlockState) -> None:
        """Keep a state; where there is no room for its bounds, labels and sums before any rows.

        Rows come back from storage sooner than every row of a block is added up anew.
        """
        if not CACHE.put(self.group, row0, (self.ids, state), state.nbytes):
            light = state.without_bounds()
            CACHE.put(self.group, row0, (self.ids, light), light.nbytes, precious=True)

    def merge(self, left: CenterSums, right: CenterSums) -> CenterSums:
        """Add the sums of two groups of blocks."""
        return left.plus(right)


def _picked(
    state: BlockState, had: tuple[int, ...], ids: tuple[int, ...], segments: Segments
) -> BlockState | None:
    """Return the state of the clusterings still active, or None where one is missing."""
    if had == ids:
        return state
    at = {name: i for i, name in enumerate(had)}
    if any(name not in at for name in ids):
        return None
    chosen = [at[name] for name in ids]
    rows = np.concatenate([np.arange(state.offsets[i], state.offsets[i + 1]) for i in chosen])
    return replace(
        state,
        labels=state.labels[chosen],
        upper=state.upper[chosen],
        lower=state.lower[chosen],
        centers=state.centers[rows],
        offsets=segments.offsets,
        sums=state.sums[rows],
        counts=state.counts[rows],
    )


@dataclass(frozen=True)
class FarthestPass:
    """The reduction that finds the rows farthest from their center: seeds for empty clusters."""

    centers: F64
    m: int
    fan_in: int = 8

    def fold(self, summary: Farthest | None, X: NDArray[np.float32], span: Span) -> Farthest:
        """Add a block."""
        mine = farthest_rows(X, span.row0, self.centers, self.m)
        return mine if summary is None else summary.merge(mine, self.m)

    def merge(self, left: Farthest, right: Farthest) -> Farthest:
        """Keep the farthest rows of both."""
        return left.merge(right, self.m)


@dataclass(frozen=True)
class RowRange:
    """What the loop must know of the rows: how many, how spread, how large."""

    n: int
    mean_variance: float
    largest: float

    @classmethod
    def of(cls, blocks: Blocks, name: str) -> RowRange:
        """Gather it in one pass; refuse rows that have no place.

        Raises
        ------
        BadInput
            If a row holds NaN or infinity.
        """
        stats = reduce_rows(blocks, ColumnPass(), name=f"{name}-range")
        if len(stats.bad_rows):
            raise BadInput(
                f"row {stats.bad_rows[0]} and {len(stats.bad_rows) - 1} others hold NaN or "
                "infinity: drop them, or fill them in first"
            )
        return cls(stats.n, float(np.mean(stats.m2 / max(stats.n, 1))), stats.largest)


@dataclass
class LloydState:
    """Where the loop stands: enough to go on with the same result; written by whoever called it.

    Attributes
    ----------
    centers : list of ndarray of shape (n_clusters, n_features), float64
    done : list of bool
        The clustering has stopped.
    converged : list of bool
        It stopped by the tolerance, not by ``max_iter``.
    n_iter : list of int
    """

    centers: list[F64]
    done: list[bool] = field(default_factory=list)
    converged: list[bool] = field(default_factory=list)
    n_iter: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.centers)
        self.done = self.done or [False] * n
        self.converged = self.converged or [False] * n
        self.n_iter = self.n_iter or [0] * n

    @property
    def active(self) -> list[int]:
        """Return the numbers of the clusterings that go on."""
        return [i for i, done in enumerate(self.done) if not done]


def lloyd(
    blocks: Blocks,
    state: LloydState,
    rows: RowRange,
    *,
    tol: float,
    max_iter: int,
    name: str,
    on_state: Callable[[LloydState], None] | None = None,
) -> LloydState:
    """Iterate every clustering until it stops; each pass over the rows serves all of them.

    Parameters
    ----------
    blocks : Blocks
    state : LloydState
        Starts, or where an earlier call was interrupted; changed in place.
    rows : RowRange
    tol : float
        scikit-learn's meaning: stop when the squared moves of all centers add up to at most
        ``tol`` times the mean variance of a column.
    max_iter : int
    name : str
        Of the step.
    on_state : callable or None
        Called after every pass with the state.

    Returns
    -------
    LloydState
    """
    scale = quantum_scale(rows.largest, rows.n)
    limit = tol * rows.mean_variance
    group = f"{name}-{uuid.uuid4().hex}"
    iteration = max(state.n_iter, default=0)
    try:
        while state.active:
            ids = tuple(state.active)
            segments = Segments.of([state.centers[i] for i in ids])
            one = LloydPass(segments, ids, half_gaps(segments), scale, group)
            found = reduce_rows(blocks, one, name=f"{name}-pass-{iteration:03d}", exact=True)
            for s, i in enumerate(ids):
                part = segments.part(s)
                new = _next_centers(
                    blocks,
                    segments.centers[part],
                    found.sums[part],
                    found.counts[part],
                    scale,
                    name,
                )
                shift = float(np.square(new - state.centers[i]).sum())
                state.centers[i] = new
                state.n_iter[i] += 1
                state.converged[i] = shift <= limit
                state.done[i] = state.converged[i] or state.n_iter[i] >= max_iter
            iteration += 1
            if on_state is not None:
                on_state(state)
    finally:
        forget(blocks, group)
    return state


def _next_centers(
    blocks: Blocks,
    old: F64,
    sums: NDArray[np.int64],
    counts: NDArray[np.int64],
    scale: float,
    name: str,
) -> F64:
    """Return the means; an empty cluster takes the row farthest from its center, as in scikit-learn."""
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        sums, counts = sums.copy(), counts.copy()
        far: Farthest = reduce_rows(blocks, FarthestPass(old, len(empty)), name=f"{name}-empty")
        for cluster, label, row in zip(empty, far.labels, far.X, strict=False):
            quanta = np.rint(row.astype(np.float64) * scale).astype(np.int64)
            sums[label] -= quanta
            counts[label] -= 1
            sums[cluster], counts[cluster] = quanta, 1
    return integers_to_centers(sums, counts, scale, old)
