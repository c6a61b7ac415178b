"""Exact silhouettes of all rows: the mean distances of every row to every cluster, by tiles."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from vehclust_dask.blocks import forget, reduce_rows, reduce_tiles
from vehclust_dask.budget import show_bytes
from vehclust_dask.cache import CACHE
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators.doors import check_choice, rows_in
from vehclust_dask.estimators.neighbours import SurveyPass
from vehclust_dask.kernels.silhouette import (
    DistanceRows,
    between_sums,
    distance_rows,
    silhouettes,
    within_sums,
)
from vehclust_dask.kernels.tiles import Frame
from vehclust_dask.records import Blocks, Group
from vehclust_dask.tasks import Keep

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

METRICS = ("euclidean", "cosine")
#: Clusterings that share one pass over all pairs.
AT_ONCE = 4
#: Clusters of all clusterings of a pass over pairs: each holds a float64 sum for every row.
MOST_CLUSTERS = 1024


class Lines(NamedTuple):
    """Labels of several clusterings as lines of one table of clusters.

    Attributes
    ----------
    of_rows : ndarray of shape (n_rows, n_clusterings), int32
        Line of every row's cluster; -1 for noise.
    counts : ndarray of shape (n_lines,), int64
    offsets : ndarray of shape (n_clusterings + 1,), int64
        Where the lines of each clustering begin.
    """

    of_rows: I32
    counts: I64
    offsets: I64

    @classmethod
    def of(cls, labels: NDArray[Any], ks: tuple[int, ...]) -> Lines:
        """Return the clusters of all clusterings numbered one after the other.

        Parameters
        ----------
        labels : ndarray of shape (n_rows, n_clusterings), integers
            From 0 on; -1 is noise.
        ks : tuple of int
            Clusters of each, empty ones included.
        """
        offsets = np.cumsum([0, *ks]).astype(np.int64)
        lines = np.where(labels < 0, -1, labels + offsets[:-1]).astype(np.int32)
        counts = np.bincount(lines[lines >= 0], minlength=int(offsets[-1])).astype(np.int64)
        return cls(lines, counts, offsets)

    @property
    def n_lines(self) -> int:
        """Return the clusters of all clusterings."""
        return len(self.counts)

    def rows(self, row0: int, n_rows: int) -> I32:
        """Return the lines of consecutive rows."""
        return self.of_rows[row0 : row0 + n_rows]


class Sums(NamedTuple):
    """Sums of distances of a group's rows, float64 of shape (n_lines, n_rows)."""

    sums: F64


@dataclass(frozen=True, eq=False)
class TilePass:
    """The tile reduction that adds up distances of every row to every cluster.

    It holds n_rows * n_lines float64 numbers in all, so many of a group's rows in a task.

    Parameters
    ----------
    frame : Frame
    lines : Lines
    group : str
        Names this pass in the worker's cache.
    """

    frame: Frame
    lines: Lines
    group: str = field(default_factory=lambda: f"silhouette-{uuid.uuid4().hex[:12]}")

    def ready(self, X: F32, group: Group) -> DistanceRows:
        """Return a group made ready for tiles, kept for its next tile."""
        return CACHE.of(
            self.group,
            group.number,
            lambda: distance_rows(self.frame, X, self.lines.rows(group.row0, group.n_rows)),
            lambda rows: rows.nbytes,
        )

    def within(self, X: F32, group: Group) -> Sums:
        """Add up the distances inside a group."""
        return Sums(within_sums(self.ready(X, group), self.frame, self.lines.n_lines))

    def hint(self, summary: Sums, group: Group) -> None:
        """Return nothing: every pair counts."""

    def between(
        self, left: tuple[F32, Group, None], right: tuple[F32, Group, None]
    ) -> tuple[Sums, Sums]:
        """Add up the distances between two groups, for the rows of either."""
        a, b = self.ready(*left[:2]), self.ready(*right[:2])
        of_a, of_b = between_sums(a, b, self.frame, self.lines.n_lines)
        return Sums(of_a), Sums(of_b)

    def merge(self, left: Sums, right: Sums) -> Sums:
        """Add the sums over other rows."""
        return Sums(left.sums + right.sums)

    def finish(self, summary: Sums, group: Group) -> F64:
        """Return the silhouettes of a group's rows."""
        of_rows = self.lines.rows(group.row0, group.n_rows)
        return silhouettes(summary.sums, self.lines.counts, self.lines.offsets, of_rows)


def row_silhouettes(
    blocks: Blocks, lines: Lines, metric: str, *, name: str, keep: Keep[Sums] | None = None
) -> F64:
    """Return the silhouettes of all rows by one pass over all pairs.

    O(n_rows**2 * n_features) time, n_rows * n_lines float64 numbers of memory over all workers.

    Parameters
    ----------
    blocks : Blocks
    lines : Lines
    metric : {'euclidean', 'cosine'}
    name : str
        Of the step, as the dashboard shows it.
    keep : Keep or None
        Where the pass keeps its sums, to go on from.

    Returns
    -------
    ndarray of shape (n_rows, n_clusterings), float64
        NaN for noise.
    """
    unit = metric == "cosine"
    seen = reduce_rows(blocks, SurveyPass(unit), name=f"{name}-survey")
    mean = seen.total / blocks.grid.n_rows
    frame = Frame.of(mean, seen.largest + float(np.abs(mean).max()), unit)
    one = TilePass(frame, lines)
    try:
        parts: list[F64] = reduce_tiles(blocks, one, name=name, keep=keep)
    finally:
        forget(blocks, one.group)
    return np.concatenate(parts)


def silhouette_samples(X: Any, labels: Any, *, metric: str = "euclidean") -> F64:
    """Return the silhouette of every row, exact: from its distances to all other rows.

    Parameters
    ----------
    X : array-like, Dask array or Blocks of shape (n_samples, n_features)
    labels : array-like of shape (n_samples,) or (n_samples, n_clusterings), integers
        Up to four clusterings share one pass over all pairs. -1 is noise, which scikit-learn takes
        for a cluster: it is left out of every sum and has no silhouette.
    metric : {'euclidean', 'cosine'}, default 'euclidean'

    Returns
    -------
    ndarray of the shape of ``labels``, float64
        Within 1e-5 of the values from float64 distances, mostly within 1e-7; NaN for noise, 0 for a
        row alone in its cluster. The same bytes for any number of workers; for other blocks the
        same within that error.

    Raises
    ------
    BadInput
        If there are not 2 to n_samples - 1 clusters, or too many to hold their sums.

    Notes
    -----
    O(n_samples**2 * n_features) time; n_samples float64 numbers for each cluster in memory.
    """
    blocks = _checked_rows(X, metric)
    columns, flat = _columns(labels, blocks.grid.n_rows)
    values = row_silhouettes(blocks, _lines(columns), metric, name="silhouette")
    return values[:, 0] if flat else values


def silhouette_score(X: Any, labels: Any, *, metric: str = "euclidean") -> Any:
    """Return the mean silhouette of all rows but noise, a number or an array of one per clustering.

    Parameters
    ----------
    X, labels, metric : as for `silhouette_samples`
    """
    scores = np.nanmean(silhouette_samples(X, labels, metric=metric), axis=0)
    return float(scores) if scores.ndim == 0 else scores


class _Door(BaseEstimator):
    """Silhouettes at the door that all estimators share."""


def _checked_rows(X: Any, metric: str) -> Blocks:
    check_choice("metric", metric, METRICS)
    return rows_in(_Door(), X, reset=True)


def _columns(labels: Any, n_rows: int) -> tuple[NDArray[Any], bool]:
    """Return labels as columns, and whether a single one was given without."""
    given = np.asarray(labels)
    if given.dtype.kind not in "iu":
        raise BadInput(f"labels are {given.dtype}: give whole numbers, -1 for noise")
    columns = given[:, None] if given.ndim == 1 else given
    if columns.ndim != 2 or len(columns) != n_rows:
        raise BadInput(
            f"labels have the shape {given.shape}, but there are {n_rows} rows: give ({n_rows},), or "
            f"({n_rows}, n_clusterings) for several clusterings"
        )
    if not 1 <= columns.shape[1] <= AT_ONCE:
        raise BadInput(f"{columns.shape[1]} clusterings: give 1 to {AT_ONCE} of them at a time")
    if len(columns) and columns.min() < -1:
        raise BadInput(f"a label is {columns.min()}: give numbers from 0 on, -1 for noise")
    return columns, given.ndim == 1


def _lines(columns: NDArray[Any]) -> Lines:
    """Return the clusters that occur as lines; refuse what has no silhouette."""
    codes = np.full(columns.shape, -1, np.int64)
    ks = []
    for s, column in enumerate(columns.T):
        kept = column >= 0
        names, found = np.unique(column[kept], return_inverse=True)
        codes[kept, s] = found
        if not 2 <= len(names) < kept.sum():
            raise BadInput(
                f"{len(names)} clusters of {kept.sum()} rows: silhouettes compare clusters and need 2 "
                "of them or more, and fewer than rows"
            )
        ks.append(len(names))
    check_sums(ks, len(columns))
    return Lines.of(codes, tuple(ks))


def check_sums(ks: Sequence[int], n_rows: int) -> None:
    """Refuse more clusters than sums are held for."""
    if sum(ks) > MOST_CLUSTERS:
        held = show_bytes(8 * n_rows * sum(ks))
        raise BadInput(
            f"{sum(ks)} clusters of {n_rows} rows would hold {held} of sums; give at most "
            f"{MOST_CLUSTERS} clusters at a time"
        )
