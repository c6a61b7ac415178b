"""Where k-means starts: the best of many on a sample, k-means|| over all rows, or given centers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans as SampleKMeans

from vehclust_dask.blocks import reduce_rows, solos, take_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.lloyd import LloydState, RowRange, lloyd
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.seeding import seed_plusplus
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import ArrayBlocks, Blocks, Span

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Rounds of k-means||, and rows drawn in a round as a multiple of k.
ROUNDS = 5
OVERSAMPLING = 2
#: Passes over the sample that all starts are given, the share (one in so many) that goes on, and the
#: most passes until rest.
RACE_PASSES, RACE_KEEPS, REST = 5, 3, 300
#: Rows of a larger sample to settle on, less where they are wide.
LARGE_ROWS, LARGE_BYTES = 1 << 16, 64 << 20
#: A winner is improved by so many swaps of a center at most; each tries so many clusters to split,
#: for so many passes, and must gain this share of the inertia.
SWAP_TRIES, SWAP_WIDTH, SWAP_PASSES, SWAP_GAIN = 60, 8, 8, 1e-4


def draw_sample(blocks: Blocks, size: int, seed: int, name: str) -> F32:
    """Draw rows from all blocks without replacement, in row order; all rows where there are no more."""
    n = blocks.grid.n_rows
    rng = np.random.default_rng([seed, 0x5A])
    rows = np.arange(n) if n <= size else np.sort(rng.choice(n, size, replace=False))
    sample = take_rows(blocks, rows.astype(np.int64), name=f"{name}-sample")
    bad = np.flatnonzero(~np.isfinite(sample).all(axis=1))
    if len(bad):
        raise BadInput(
            f"row {rows[bad[0]]} holds NaN or infinity: drop such rows, or fill them in first"
        )
    return sample


def best_of_sample(
    blocks: Blocks,
    ks: list[int],
    *,
    n_init: int,
    size: int,
    tol: float,
    seed: int,
    name: str,
    settle: bool = False,
) -> list[F64]:
    """Return starts for every k: the winner of a race of seedings on a sample of all blocks, improved.

    Parameters
    ----------
    blocks : Blocks
    ks : list of int
    n_init : int
        Seedings by greedy k-means++; the best share of them is iterated until it rests.
    size : int
        Rows of the sample.
    tol : float
        Of the k-means on the sample.
    seed : int
    name : str
    settle : bool
        Let the winner come to rest on a larger sample as well.

    Returns
    -------
    list of ndarray of shape (k, n_features), float64
    """
    small = max(size, max(ks))
    large = min(LARGE_ROWS, LARGE_BYTES // (4 * blocks.n_features)) if settle else 0
    sample = draw_sample(blocks, max(small, large), seed, name)
    # The largest first: a large one that began last would keep one worker busy and the others not.
    order = sorted(range(len(ks)), key=lambda at: -ks[at])
    calls = [(ks[at], n_init, tol, seed, min(small, len(sample))) for at in order]
    found = solos(_best_start, calls, sample, name=f"{name}-start", on=blocks)
    return [start for _, start in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


def _best_start(sample: F32, k: int, n_init: int, tol: float, seed: int, small: int) -> F64:
    """Run a race, all that are left in it in shared passes, and improve its winner.

    After some passes the worse starts are dropped: what is far behind then does not catch up. Where
    the sample holds more rows than the race is run on, the winner goes on over all of them.
    """
    rows = sample
    if small < len(sample):
        chosen = np.random.default_rng([seed, 0x5B]).choice(len(sample), small, replace=False)
        rows = sample[np.sort(chosen)]
    starts = seed_plusplus(rows, k, [np.random.default_rng([seed, k, i]) for i in range(n_init)])
    course = Course.of(rows, tol)
    ahead = course.ranked(starts, RACE_PASSES)[: -(-n_init // RACE_KEEPS)]
    winner = improved(course, course.ranked(ahead, REST)[0])
    return Course.of(sample, tol).ranked([winner], REST)[0] if small < len(sample) else winner


@dataclass(frozen=True, eq=False)
class Course:
    """Rows in memory that starts are iterated on, and what is asked of all of them once.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, n_features), float32
    extent : RowRange
    tol : float
    """

    rows: F32
    extent: RowRange
    tol: float

    @classmethod
    def of(cls, rows: F32, tol: float) -> Course:
        """Measure the rows."""
        return cls(rows, RowRange.of(ArrayBlocks.of(rows), "start"), tol)

    def ranked(self, starts: list[F64], max_iter: int) -> list[F64]:
        """Iterate starts in shared passes; return where they stand, the best first."""
        state = lloyd(
            ArrayBlocks.of(self.rows),
            LloydState(starts),
            self.extent,
            tol=self.tol,
            max_iter=max_iter,
            name="start",
        )
        if len(starts) == 1:
            return state.centers
        inertia = assign(self.rows, Segments.of(state.centers)).sq_dist.sum(axis=0)
        return [state.centers[i] for i in np.argsort(inertia, kind="stable")]


def improved(course: Course, centers: F64) -> F64:
    """Move single centers from where they are least missed to where they help most, while it helps.

    Lloyd's iteration never takes a center out of one region into another. Here the two clusters
    that are cheapest to merge (Ward's cost) become one and a cluster of large spread becomes two;
    some passes tell whether that is better (after Fränti and Kivijärvi, Randomised local search
    algorithm for the clustering problem, 2000, without the chance).

    Parameters
    ----------
    course : Course
    centers : ndarray of shape (k, n_features), float64

    Returns
    -------
    ndarray of shape (k, n_features), float64
        Never of larger inertia than the centers given.
    """
    k, rows = len(centers), course.rows
    if k < 3:
        return centers
    found = assign(rows, Segments.of([centers]))
    tried = 0
    while tried < SWAP_TRIES:
        labels, sq_dist = found.labels[:, 0], found.sq_dist[:, 0]
        spread = np.bincount(labels, weights=sq_dist, minlength=k)
        kept, gone = _cheapest_merge(centers, np.bincount(labels, minlength=k))
        wide = [c for c in np.argsort(-spread, kind="stable") if c not in (kept, gone)]
        for split in wide[:SWAP_WIDTH]:
            tried += 1
            moved = _swapped(rows, labels, centers, kept, gone, int(split))
            other = course.ranked([moved], SWAP_PASSES)[0]
            there = assign(rows, Segments.of([other]))
            if there.sq_dist.sum() < (1 - SWAP_GAIN) * sq_dist.sum():
                centers, found = other, there
                break
        else:
            break
    return course.ranked([centers], REST)[0]


def _cheapest_merge(centers: F64, counts: NDArray[np.int64]) -> tuple[int, int]:
    """Return the two clusters whose merge adds least to the inertia."""
    sq = np.square(centers).sum(axis=1)
    apart = np.maximum(sq[:, None] + sq[None, :] - 2 * centers @ centers.T, 0.0)
    n = counts.astype(np.float64)
    cost = apart * (n[:, None] * n[None, :] / np.maximum(n[:, None] + n[None, :], 1.0))
    np.fill_diagonal(cost, np.inf)
    kept, gone = divmod(int(cost.argmin()), len(centers))
    return kept, gone


def _swapped(
    rows: F32, labels: NDArray[np.int32], centers: F64, kept: int, gone: int, split: int
) -> F64:
    """Return the centers with two clusters merged and one split along its longest direction."""
    moved = centers.copy()
    both = np.isin(labels, (kept, gone))
    if both.any():
        moved[kept] = rows[both].mean(axis=0, dtype=np.float64)
    away = rows[labels == split].astype(np.float64) - centers[split]
    # A few steps of the power method: any long direction will do.
    direction = away[np.square(away).sum(axis=1).argmax()] if len(away) else centers[split] * 0
    for _ in range(4):
        direction = away.T @ (away @ direction)
        direction /= max(float(np.linalg.norm(direction)), 1e-300)
    reach = np.abs(away @ direction).mean() if len(away) else 0.0
    moved[gone] = centers[split] - reach * direction
    moved[split] = centers[split] + reach * direction
    return moved


class Draw(NamedTuple):
    """Rows drawn with probability proportional to their squared distance, without replacement.

    Attributes
    ----------
    keys : ndarray of shape (m,), float64
        The m smallest of Exponential(1) / weight are a draw with these weights (Efraimidis and
        Spirakis 2006), so draws merge by keeping the smallest.
    X : ndarray of shape (m, n_features), float32
    """

    keys: F64
    X: F32

    def keep(self, m: int) -> Draw:
        """Keep the m smallest keys."""
        order = np.argsort(self.keys, kind="stable")[:m]
        order = order[np.isfinite(self.keys[order])]
        return Draw(self.keys[order], self.X[order])


@dataclass(frozen=True, eq=False)
class DrawPass:
    """One round of k-means||: draw rows far from the candidates so far."""

    candidates: F64
    m: int
    seed: tuple[int, ...]
    fan_in: int = 8

    def fold(self, summary: Draw | None, X: F32, span: Span) -> Draw:
        """Draw from a block; its random numbers belong to its rows."""
        rng = np.random.default_rng([*self.seed, span.row0])
        weight = assign(X, Segments.of([self.candidates])).sq_dist[:, 0]
        # A row that is a candidate already has weight zero and must not be drawn again.
        keys = np.full(len(X), np.inf)
        np.divide(rng.exponential(size=len(X)), weight, out=keys, where=weight > 0)
        mine = Draw(keys, X).keep(self.m)
        return mine if summary is None else self.merge(summary, mine)

    def merge(self, left: Draw, right: Draw) -> Draw:
        """Draw from two draws."""
        both = Draw(np.concatenate([left.keys, right.keys]), np.concatenate([left.X, right.X]))
        return both.keep(self.m)


@dataclass(frozen=True, eq=False)
class CountPass:
    """How many rows each candidate is nearest to."""

    candidates: F64
    fan_in: int = 8

    def fold(self, summary: NDArray[np.int64] | None, X: F32, span: Span) -> NDArray[np.int64]:
        """Count a block."""
        labels = assign(X, Segments.of([self.candidates])).labels[:, 0]
        mine = np.bincount(labels, minlength=len(self.candidates)).astype(np.int64)
        return mine if summary is None else summary + mine

    def merge(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add the counts."""
        return left + right


def parallel_start(blocks: Blocks, k: int, *, n_init: int, seed: int, name: str) -> F64:
    """Return a start by k-means||: rounds of draws over all rows, then weighted k-means of the drawn.

    Bahmani et al., Scalable k-means++ (2012), algorithm 2, with draws without replacement, so that
    a round needs one pass. Each candidate weighs as many rows as are nearest to it.
    """
    first = np.random.default_rng([seed, k, 0]).integers(blocks.grid.n_rows, size=1)
    candidates = take_rows(blocks, first, name=f"{name}-first").astype(np.float64)
    for round_ in range(ROUNDS):
        draw = DrawPass(candidates, OVERSAMPLING * k, (seed, k, round_ + 1))
        drawn: Draw = reduce_rows(blocks, draw, name=f"{name}-draw-{round_}")
        candidates = np.unique(np.vstack([candidates, drawn.X.astype(np.float64)]), axis=0)
    if len(candidates) < k:
        raise BadInput(
            f"n_clusters={k} but the rows hold only {len(candidates)} distinct values; "
            f"lower n_clusters to {len(candidates)} or less"
        )
    weights = reduce_rows(blocks, CountPass(candidates), name=f"{name}-weights")
    return _weighted_centers(candidates, weights, k, n_init, seed)


def _weighted_centers(
    candidates: F64, weights: NDArray[np.int64], k: int, n_init: int, seed: int
) -> F64:
    fitted = SampleKMeans(k, n_init=n_init, random_state=seed).fit(
        candidates, sample_weight=weights.astype(np.float64)
    )
    centers: F64 = np.ascontiguousarray(fitted.cluster_centers_, dtype=np.float64)
    return centers


def given_start(init: Any, k: int, n_features: int) -> F64:
    """Check centers a person gives."""
    centers = np.array(init, dtype=np.float64)
    if centers.shape != (k, n_features):
        raise BadInput(
            f"init has shape {centers.shape}: ({k}, {n_features}) is needed, a row per cluster"
        )
    if not np.isfinite(centers).all():
        raise BadInput("init holds NaN or infinity: give finite centers")
    return centers
