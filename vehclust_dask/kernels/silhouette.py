"""Silhouettes: distances of every row to all rows of every cluster, added up by tiles or in closed form.

Rousseeuw, Silhouettes (1987): for a row of a cluster of more than one, a is the mean distance to the
other rows of its cluster, b the smallest mean distance to the rows of another cluster, and
s = (b - a) / max(a, b). A row alone in its cluster has s = 0; noise has none.

*Tiles* serve distances. A float32 product of d features gives |x - y|**2 with an error of about
sqrt(d) * u * (|x|**2 + |y|**2), u = 2**-24, since rounding errors of random sign grow by the square
root of their number (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019);
at worst it is sqrt(d) times that. A pair whose square lies below sqrt(d) * u / `PRECISION` of that sum
is measured again by float64 differences, so a distance is off by half of `PRECISION`, relative, and a
mean of many by far less. Distances are added up in float64, each once for either side. Cosine
distances are half the squares between rows of length one.

*Squared* distances need no pairs: the mean of |x - y|**2 over the rows y of a cluster of mean m is
|x - m|**2 + w, where w is the mean of |y - m|**2: products with means, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F32, F64, I32, I64, TINY32, U32, sq_distance, sq_norms
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.tiles import TILE_SIDE, TILE_WIDTH, Frame, tiles

#: Twice the relative error that a single distance of a tile may have.
PRECISION = 1e-5
#: Rows and columns that are turned over at once: a line of the cache each.
TURNED = 16
#: Share of a row's squared length below which a squared distance is the rounding of a product.
ROUNDING = 2.0**-46
#: Rows whose products with all means are made at once.
ROWS_AT_ONCE = 512


class DistanceRows(NamedTuple):
    """A group of rows made ready for tiles of distances.

    Attributes
    ----------
    exact : ndarray of shape (n_rows, n_features), float32 or float64
        The rows as they are, or rows of length one (cosine).
    tile : ndarray of shape (n_rows, n_features), float32
        Centered and scaled so that no value exceeds one.
    norms : ndarray of shape (n_rows,), float32
        Squared lengths of ``tile``.
    near : ndarray of shape (n_rows,), float32
        A square below the sum of two of these is measured again.
    lines : ndarray of shape (n_rows, n_clusterings), int32
        Line of the sums that a row's cluster has; -1 for noise.
    """

    exact: Any
    tile: F32
    norms: F32
    near: F32
    lines: I32

    @property
    def nbytes(self) -> int:
        """Return the memory of all arrays."""
        return sum(array.nbytes for array in self)


def distance_rows(frame: Frame, X: F32, lines: I32) -> DistanceRows:
    """Return rows made ready for tiles of distances."""
    exact, tile, _, _ = frame.ready(X, np.empty(0, np.int32))
    # Blocks from storage cannot be written, joined ones can: one kind for the compiler.
    exact = exact.view()
    exact.flags.writeable = False
    norms = sq_norms(tile)
    d = X.shape[1]
    # Without a root the error of a distance is not halved.
    certain = PRECISION / 2 if frame.unit else PRECISION
    near = (norms * (np.sqrt(d) * U32) + (d + 24) * TINY32) / certain
    return DistanceRows(exact, tile, norms.astype(np.float32), near.astype(np.float32), lines)


@njit
def _take_roots(
    P: Any,
    norms_a: Any,
    norms_b: Any,
    near_a: Any,
    near_b: Any,
    exact_a: Any,
    exact_b: Any,
    scale: float,
    squared: bool,
) -> None:
    """Turn -2 <x, y> into distances or their squares, in place; near pairs are measured again.

    Both rows enter every sum in the same way, so that a distance is that of the pair turned over.
    """
    n, width = P.shape
    zero = np.float32(0)
    for r in range(n):
        line, norm, near = P[r], norms_a[r], near_a[r]
        n_near: Any = np.int32(0)
        for j in range(width):
            sq = (norm + norms_b[j]) + line[j]
            # Asked this way round, what is no number is measured again.
            n_near += not sq >= near + near_b[j]
            line[j] = sq
        if n_near > 0:
            for j in range(width):
                if not line[j] >= near + near_b[j]:
                    line[j] = sq_distance(exact_a[r], exact_b[j]) * scale
        if not squared:
            for j in range(width):
                line[j] = np.sqrt(max(line[j], zero))


@njit
def _add_lines(D: Any, lines: Any, sums: Any, first: int) -> None:
    """Add every row of distances to the sums of its clusters, from position ``first`` on."""
    n, width = D.shape
    for r in range(n):
        distances = D[r]
        for s in range(lines.shape[1]):
            at = lines[r, s]
            if at >= 0:
                total = sums[at][first : first + width]
                for j in range(width):
                    total[j] += distances[j]


@njit
def _turn(D: Any, T: Any) -> None:
    """Write the transpose, by squares that stay in the cache."""
    n, width = D.shape
    for c0 in range(0, width - width % TURNED, TURNED):
        for r0 in range(0, n - n % TURNED, TURNED):
            for r in range(r0, r0 + TURNED):
                for c in range(TURNED):
                    T[c0 + c, r] = D[r, c0 + c]
    for r in range(n):
        first = 0 if r >= n - n % TURNED else width - width % TURNED
        for c in range(first, width):
            T[c, r] = D[r, c]


def within_sums(rows: DistanceRows, frame: Frame, n_lines: int) -> F64:
    """Return the sums of distances of every row of a group to the rows of every cluster in it.

    Returns
    -------
    ndarray of shape (n_lines, n_rows), float64
        Distances times the frame's scale; for rows of length one their squares, which are twice
        the cosine distances: a factor changes no silhouette.
    """
    sums = np.zeros((n_lines, len(rows.tile)))
    _add_tiles(rows, rows, frame, sums, sums)
    return sums


def between_sums(a: DistanceRows, b: DistanceRows, frame: Frame, n_lines: int) -> tuple[F64, F64]:
    """Return the sums of the rows of either group over the clusters in the other, as `within_sums`."""
    of_a, of_b = (np.zeros((n_lines, len(rows.tile))) for rows in (a, b))
    _add_tiles(a, b, frame, of_a, of_b)
    return of_a, of_b


def _add_tiles(a: DistanceRows, b: DistanceRows, frame: Frame, of_a: F64, of_b: F64) -> None:
    """Add all tiles of two groups (of one group, where ``a is b``) to the sums of both."""
    room = np.empty(TILE_SIDE * TILE_WIDTH, np.float32)
    for r, c, P in tiles(a.tile, b.tile, mirrored=a is b):
        _take_roots(
            P,
            a.norms[r],
            b.norms[c],
            a.near[r],
            b.near[c],
            a.exact[r],
            b.exact[c],
            frame.sq_scale,
            frame.unit,
        )
        _add_lines(P, a.lines[r], of_b, c.start)
        if a is b and r == c:
            continue
        T = room[: P.size].reshape(P.shape[::-1])
        _turn(P, T)
        _add_lines(T, b.lines[c], of_a, r.start)


@njit
def _compare(
    values: Any,
    factor: Any,
    norms: Any,
    shift: Any,
    rise: Any,
    counts: Any,
    offsets: Any,
    own: Any,
    floor: float,
    out: Any,
) -> None:
    """Write silhouettes from mean distances max(values * factor + norms + shift, 0) + rise.

    Lines of clusters down, rows across, so that the inner loop runs over rows in step.
    """
    n = values.shape[1]
    a, b = np.empty(n), np.empty(n)
    for s in range(len(offsets) - 1):
        a[:] = 0.0
        b[:] = np.inf
        mine = own[s]
        for c in range(offsets[s], offsets[s + 1]):
            if counts[c] == 0:
                continue
            line, times, more, up = values[c], factor[c], shift[c], rise[c]
            for r in range(n):
                mean = max((line[r] * times + norms[r]) + more, 0.0) + up
                inside = mine[r] == c
                other = np.inf if inside else mean
                a[r] = mean if inside else a[r]
                b[r] = other if other < b[r] else b[r]
        for r in range(n):
            c = mine[r]
            if c < 0:
                out[r, s] = np.nan
            elif counts[c] == 1:
                out[r, s] = 0.0
            else:
                # The row itself is no other row of its cluster.
                apart = a[r] * (counts[c] / (counts[c] - 1.0))
                top = max(apart, b[r])
                rounding = floor + ROUNDING * norms[r]
                out[r, s] = (b[r] - apart) / top if top > rounding else 0.0


def silhouettes(sums: F64, counts: I64, offsets: I64, lines: I32) -> F64:
    """Return silhouettes from sums of distances.

    Parameters
    ----------
    sums : ndarray of shape (n_lines, n_rows), float64
        Of every row over the rows of every cluster, in any unit.
    counts : ndarray of shape (n_lines,), int64
        Rows of every cluster; an empty one does not count.
    offsets : ndarray of shape (n_clusterings + 1,), int64
        Where the lines of each clustering begin.
    lines : ndarray of shape (n_rows, n_clusterings), int32
        Line of every row's own cluster; -1 for noise.

    Returns
    -------
    ndarray of shape (n_rows, n_clusterings), float64
        NaN for noise, and where there is one cluster only; 0 for a row alone in its cluster.
    """
    n_rows, none = sums.shape[1], np.zeros(len(counts))
    out = np.empty((n_rows, len(offsets) - 1))
    factor = 1.0 / np.maximum(counts, 1)
    own = np.ascontiguousarray(lines.T)
    _compare(sums, factor, np.zeros(n_rows), none, none, counts, offsets, own, 0.0, out)
    return out


class ClusterMeans(NamedTuple):
    """What squared distances to all rows of a cluster come from, for several clusterings.

    Attributes
    ----------
    means : ndarray of shape (n_lines, n_features), float64
    within : ndarray of shape (n_lines,), float64
        Sum of the squared distances of a cluster's rows to its mean.
    counts : ndarray of shape (n_lines,), int64
    offsets : ndarray of shape (n_clusterings + 1,), int64
        Where the lines of each clustering begin.
    floor : float
        A squared distance up to this may be nothing but the rounding of means.
    """

    means: F64
    within: F64
    counts: I64
    offsets: I64
    floor: float = 0.0


def squared_silhouettes(X: NDArray[Any], lines: I32, known: ClusterMeans) -> F64:
    """Return the silhouettes of squared Euclidean distances of a block, in closed form.

    Equal to those from the matrix of squared distances up to float64 rounding. O(n_rows * n_lines *
    n_features) time.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32 or float64
    lines : as in `silhouettes`
    known : ClusterMeans

    Returns
    -------
    ndarray of shape (n_rows, n_clusterings), float64
        As `silhouettes`.
    """
    counts, offsets = known.counts, known.offsets
    # Rows far off the origin: what is left of a product must not be its rounding.
    used = counts > 0
    if not used.any():
        return np.full((len(X), len(offsets) - 1), np.nan)
    center = known.means[used].mean(axis=0)
    means = np.where(used[:, None], known.means - center, 0.0)
    rise = known.within / np.maximum(counts, 1)
    shift, factor = sq_norms(means), np.full(len(means), -2.0)
    own = np.ascontiguousarray(lines.T)
    out = np.empty((len(X), len(offsets) - 1))
    for rows in _stretches(len(X)):
        Z = X[rows] - center
        one = np.ascontiguousarray(own[:, rows])
        products = means @ Z.T
        _compare(
            products,
            factor,
            sq_norms(Z),
            shift,
            rise,
            counts,
            offsets,
            one,
            known.floor,
            out[rows],
        )
    return out


def _stretches(n: int) -> Iterator[slice]:
    return (slice(i, min(i + ROWS_AT_ONCE, n)) for i in range(0, n, ROWS_AT_ONCE))


def sums_by_line(values: F64, lines: I32, n_lines: int) -> F64:
    """Return the sum of the silhouettes of every cluster's rows, float64 of shape (n_lines,)."""
    inside = lines >= 0
    sums = np.bincount(lines[inside], weights=values[inside], minlength=n_lines)
    return sums.astype(np.float64, copy=False)


def scores_of(sums: F64, counts: I64, offsets: I64) -> F64:
    """Return the mean silhouette of every clustering, over all rows but noise; NaN without rows."""
    first = offsets[:-1]
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(sums, first) / np.add.reduceat(counts, first)
