"""Gaussian mixtures: one pass over a block does the E step and gathers all that the M step needs.

Rows are whitened by the Cholesky factors of the precisions; scatters are taken about the *old*
means, so that nothing large is subtracted from something large, in float32 either. Two savings
change no digit that float64 could show:

- a component whose density at a row is below ``NEGLIGIBLE`` of the mixture's is left out there, so
  what is left out of a component is below ``NEGLIGIBLE`` of its rows;
- a factor is triangular, so the squares of the first whitened columns belong to the first features
  alone and bound the distance from below: most components are left out after a fraction of the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from vehclust_dask.kernels.distances import F32, F64, I32, sq_distance
from vehclust_dask.kernels.jit import njit

KINDS = ("full", "tied", "diag", "spherical")
PRECISIONS = ("float64", "float32")
#: Densities below this share of the mixture's are left out: less than the precision rounds away.
NEGLIGIBLE = {"float64": 1e-16, "float32": 1e-8}
#: Rows of a tile: it is read once per component and stays in the processor's cache.
TILE_ROWS = 8192
#: Rows of one product of a scatter: in float32 no sum is longer before it is added up in float64.
CHUNK_ROWS = 1024
#: Multiplications of one whitening product: OpenBLAS multiplies small matrices without packing them.
SMALL_PRODUCT = 10**6
#: From so many features on the distance is bounded by the first of them: one in so many.
LEAD_FROM, LEAD_SHARE = 16, 2
#: scikit-learn's guard of an empty component: it is given so many rows at the origin.
GUARD = 10 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The parameters of a mixture of Gaussians.

    Attributes
    ----------
    kind : {'full', 'tied', 'diag', 'spherical'}
        How the covariances are shared and shaped; below, the shapes in this order.
    weights : ndarray of shape (n_components,), float64
    means : ndarray of shape (n_components, n_features), float64
    covariances : ndarray, float64
        (n_components, n_features, n_features), (n_features, n_features),
        (n_components, n_features) or (n_components,).
    factors : ndarray, float64
        Upper triangular U with ``precision = U @ U.T``, or inverse standard deviations; same shapes.
    """

    kind: str
    weights: F64
    means: F64
    covariances: F64
    factors: F64

    @property
    def n_parameters(self) -> int:
        """Return how many numbers are free: weights sum to one, covariances are symmetric."""
        k, d = self.means.shape
        square = d * (d + 1) // 2
        free = {"full": k * square, "tied": square, "diag": k * d, "spherical": k}
        return free[self.kind] + k * d + k - 1

    @property
    def nbytes(self) -> int:
        """Return the size of all parameters, bytes."""
        arrays = self.weights, self.means, self.covariances, self.factors
        return sum(a.nbytes for a in arrays)


@dataclass(frozen=True, eq=False)
class MixtureSums:
    """What the M step needs of rows, about the means of the mixture they were measured with.

    Attributes
    ----------
    n : int
        Rows.
    log_likelihood : float
        Sum over rows.
    mass : ndarray of shape (n_components,), float64
        Sums of responsibilities.
    shifts : ndarray of shape (n_components, n_features), float64
        Sums of responsibility times (row - old mean).
    scatter : ndarray, float64
        'full': (n_components, n_features, n_features), responsibility times the outer product of
        (row - old mean) with itself. 'tied': (n_features, n_features), the same of all rows about
        the mean of the old mixture. Otherwise (n_components, n_features): squares alone.
    """

    n: int
    log_likelihood: float
    mass: F64
    shifts: F64
    scatter: F64

    @property
    def finite(self) -> bool:
        """Say whether every sum is a number: nothing overflowed."""
        return bool(np.isfinite(self.log_likelihood) and np.isfinite(self.scatter).all())

    def plus(self, other: MixtureSums) -> MixtureSums:
        """Add the sums of other rows."""
        return MixtureSums(
            self.n + other.n,
            self.log_likelihood + other.log_likelihood,
            self.mass + other.mass,
            self.shifts + other.shifts,
            self.scatter + other.scatter,
        )


class Densities(NamedTuple):
    """A mixture made ready for products in one precision.

    Attributes
    ----------
    kind : str
    dtype : dtype
        Of the products; distances are summed up in float64.
    constants : ndarray of shape (n_components,), float64
        Log density at the mean.
    log_weights : ndarray of shape (n_components,), float64
    means : ndarray of shape (n_components, n_features), float64
    factors : ndarray
        In the precision of the products; those of 'spherical' are shaped as those of 'diag', which
        both need no products and stay in float64.
    middle : ndarray of shape (n_features,), float64
        Mean of the mixture.
    lead : int
        Features that bound the distance first.
    threshold : float
        A log density so far below the mixture's, or further, is left out.
    """

    kind: str
    dtype: Any
    constants: F64
    log_weights: F64
    means: F64
    factors: NDArray[Any]
    middle: F64
    lead: int
    threshold: float

    @classmethod
    def of(cls, mixture: Mixture, precision: str) -> Densities:
        """Round the parameters and take what depends on them alone."""
        k, d = mixture.means.shape
        dtype = np.dtype(precision if mixture.kind in ("full", "tied") else "float64")
        factors = mixture.factors
        if mixture.kind == "spherical":
            factors = np.repeat(factors[:, None], d, axis=1)
        square = mixture.kind in ("full", "tied")
        diagonals = np.diagonal(factors, 0, -2, -1) if square else factors
        log_dets = np.log(diagonals).sum(axis=-1)
        with np.errstate(divide="ignore"):
            log_weights = np.log(mixture.weights)
        return cls(
            mixture.kind,
            dtype,
            np.broadcast_to(log_dets - 0.5 * d * math.log(2 * math.pi), (k,)),
            log_weights,
            mixture.means,
            np.ascontiguousarray(factors, dtype=dtype),
            _middle(mixture),
            d if k == 1 or d < LEAD_FROM else -(-d // LEAD_SHARE),
            math.log(NEGLIGIBLE[precision]),
        )


def _middle(mixture: Mixture) -> F64:
    """Return the mean of a mixture."""
    middle: F64 = mixture.weights @ mixture.means / mixture.weights.sum()
    return middle


@njit
def _centered(X: Any, rows: Any, mean: Any, out: Any) -> None:
    """Write some rows less a vector, as many columns as the room has; rounded after the difference."""
    for i in range(rows.shape[0]):
        r = rows[i]
        for j in range(out.shape[1]):
            out[i, j] = X[r, j] - mean[j]


@njit
def _weighted(X: Any, rows: Any, resp: Any, mean: Any, out: Any, shift: Any) -> float:
    """Write some rows less a mean times the root of their responsibility; add to the first moments."""
    mass = 0.0
    for i in range(rows.shape[0]):
        r = rows[i]
        mass += resp[r]
        root = np.sqrt(resp[r])
        for j in range(out.shape[1]):
            value = root * (X[r, j] - mean[j])
            out[i, j] = value
            shift[j] += root * value
    return mass


@njit
def _subtract_squares(Y: Any, rows: Any, out: Any) -> None:
    """Take half the squares of every column of Y, summed up in float64, from places of ``out``."""
    d, n = Y.shape
    sums = np.zeros(n)
    for j in range(d):
        for i in range(n):
            t = np.float64(Y[j, i])
            sums[i] += t * t
    for i in range(n):
        out[rows[i]] -= 0.5 * sums[i]


class _Room(NamedTuple):
    """Working memory of one chunk: asked for once, since fresh memory costs as much as the work."""

    rows: NDArray[Any]
    products: NDArray[Any]
    step: int

    @classmethod
    def of(cls, n_features: int, dtype: Any) -> _Room:
        """Make room for a chunk of rows and of whitened rows; choose how many are whitened at once."""
        size = CHUNK_ROWS * n_features
        step = min(max(SMALL_PRODUCT // n_features**2 // 16 * 16, 64), CHUNK_ROWS)
        return cls(np.empty(size, dtype), np.empty(size, dtype), step)


def _whiten(X: F32, rows: I32, mean: F64, factor: NDArray[Any], logs: F64, room: _Room) -> None:
    """Take from the log densities of some rows half the squares of some whitened columns.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    rows : ndarray of shape (m,), int32
    mean : ndarray of shape (n_features,), float64
    factor : ndarray of shape (width, n_columns)
        Columns of a factor, as far down as they have entries.
    logs : ndarray of shape (n_rows,), float64
        Changed.
    room : _Room
    """
    width, columns = factor.shape
    for start in range(0, len(rows), room.step):
        some = rows[start : start + room.step]
        m = len(some)
        D = room.rows[: m * width].reshape(m, width)
        _centered(X, some, mean, D)
        with np.errstate(over="ignore", invalid="ignore"):
            Y = np.matmul(factor.T, D.T, out=room.products[: m * columns].reshape(columns, m))
        _subtract_squares(Y, some, logs)


@njit
def _likeliest(logs: Any, log_weights: Any, best: Any) -> None:
    """Write the component of the largest weighted density of every row; ties: lowest index."""
    k, n = logs.shape
    top = np.full(n, -np.inf)
    best[:] = 0
    for c in range(k):
        weight = log_weights[c]
        for i in range(n):
            v = logs[c, i] + weight
            larger = v > top[i]
            top[i] = v if larger else top[i]
            best[i] = c if larger else best[i]


@njit
def _still_in(logs: Any, floor: Any, best: Any, c: int, rows: Any) -> int:
    """Write the rows a component is not left out at; where it is, its log density becomes -inf."""
    m = 0
    for i in range(logs.shape[0]):
        if best[i] == c:
            continue
        if logs[i] < floor[i]:
            logs[i] = -np.inf
        else:
            rows[m] = i
            m += 1
    return m


def _full_logs(X: F32, at: Densities, room: _Room, near: bool) -> F64:
    """Return the log density of every component at every row; -inf where it is left out.

    The first whitened columns bound the density of every pair from above; the likeliest component
    of each row is then measured whole, and after it those that are not left out.
    """
    k, n, lead = len(at.means), len(X), at.lead if near else X.shape[1]
    logs = np.repeat(at.constants[:, None], n, axis=1)
    rows = np.arange(n, dtype=np.int32)
    for c in range(k):
        _whiten(X, rows, at.means[c], at.factors[c, :lead, :lead], logs[c], room)
    if lead == X.shape[1]:
        return logs
    best, floor = np.empty(n, np.int32), np.empty(n)
    _likeliest(logs, at.log_weights, best)
    for c in range(k):
        own = np.flatnonzero(best == c).astype(np.int32)
        _whiten(X, own, at.means[c], at.factors[c, :, lead:], logs[c], room)
        floor[own] = logs[c, own] + (at.log_weights[c] + at.threshold)
    for c in range(k):
        m = _still_in(logs[c], floor, best, c, rows)
        _whiten(X, rows[:m], at.means[c], at.factors[c, :, lead:], logs[c], room)
    return logs


def _tied_logs(X: F32, at: Densities, room: _Room) -> F64:
    """Whiten the rows once; distances are then those between whitened rows and means."""
    n = len(X)
    sq_dist = np.empty((len(at.means), n))
    means = ((at.means - at.middle) @ at.factors).astype(at.dtype)
    rows = np.arange(n, dtype=np.int32)
    for start in range(0, n, room.step):
        some = rows[start : start + room.step]
        size = len(some) * X.shape[1]
        D = room.rows[:size].reshape(len(some), -1)
        _centered(X, some, at.middle, D)
        with np.errstate(over="ignore", invalid="ignore"):
            Y = np.matmul(at.factors.T, D.T, out=room.products[:size].reshape(-1, len(some)))
        _distances_between(Y, means, sq_dist[:, start : start + room.step])
    logs: F64 = at.constants[:, None] - 0.5 * sq_dist
    return logs


@njit
def _distances_between(Y: Any, means: Any, out: Any) -> None:
    """Write the squared distances of every column of Y to every mean."""
    d, n = Y.shape
    for c in range(means.shape[0]):
        for i in range(n):
            out[c, i] = 0.0
        for j in range(d):
            for i in range(n):
                t = np.float64(Y[j, i] - means[c, j])
                out[c, i] += t * t


@njit
def _scaled_distances(X: Any, means: Any, scales: Any, out: Any) -> None:
    """Write the squared distances of every row to every mean, each feature times its scale."""
    n, d = X.shape
    k = means.shape[0]
    for start in range(0, n, 256):
        stop = min(start + 256, n)
        # Features down: the inner loop runs over rows in step.
        turned = X[start:stop].T.copy()
        for c in range(k):
            row = out[c, start:stop]
            row[:] = 0.0
            for j in range(d):
                mean, scale = means[c, j], scales[c, j]
                for i in range(stop - start):
                    t = (np.float64(turned[j, i]) - mean) * scale
                    row[i] += t * t


def _logs(X: F32, at: Densities, room: _Room, near: bool) -> F64:
    """Return log densities, shape (n_components, n_rows); -inf where negligible and ``near``."""
    if at.kind == "full":
        return _full_logs(X, at, room, near)
    if at.kind == "tied":
        return _tied_logs(X, at, room)
    sq_dist = np.empty((len(at.means), len(X)))
    _scaled_distances(X, at.means, at.factors, sq_dist)
    logs: F64 = at.constants[:, None] - 0.5 * sq_dist
    return logs


@njit
def _share_out(logs: Any, log_weights: Any, threshold: float, totals: Any) -> None:
    """Turn log densities into responsibilities, by the sum of exponentials about the largest.

    A component whose log density lies further below the mixture's than ``threshold`` gets nothing.
    """
    k, n = logs.shape
    for i in range(n):
        top = -np.inf
        for c in range(k):
            top = max(top, logs[c, i] + log_weights[c])
        total = 0.0
        for c in range(k):
            share = np.exp(logs[c, i] + log_weights[c] - top)
            total += share
            # Compared with the largest term, which is no more than the mixture's density.
            logs[c, i] = share if logs[c, i] - top >= threshold else 0.0
        totals[i] = top + np.log(total)
        for c in range(k):
            logs[c, i] /= total


def responsibilities(X: F32, mixture: Mixture, precision: str = "float64") -> tuple[F64, F64]:
    """Return the chance that each component made each row, and the log-likelihood of each row.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    mixture : Mixture
    precision : {'float64', 'float32'}

    Returns
    -------
    resp : ndarray of shape (n_components, n_rows), float64
        Nothing is left out.
    log_likelihood : ndarray of shape (n_rows,), float64
    """
    at = Densities.of(mixture, precision)
    room = _Room.of(X.shape[1], at.dtype)
    resp, totals = np.empty((len(mixture.means), len(X))), np.empty(len(X))
    for start in range(0, len(X), TILE_ROWS):
        rows = slice(start, start + TILE_ROWS)
        logs = _logs(X[rows], at, room, near=False)
        _share_out(logs, at.log_weights, -np.inf, totals[rows])
        resp[:, rows] = logs
    return resp, totals


class Membership(NamedTuple):
    """The two components that most likely made each row.

    Attributes
    ----------
    labels, second : ndarray of shape (n_rows,), int32
        ``second`` is -1 where there is one component only. Ties: lowest index.
    resp, second_resp : ndarray of shape (n_rows,), float64
        Their responsibilities; 0 for no second.
    sq_dist : ndarray of shape (n_rows,), float64
        Squared Euclidean distance to the mean of the first.
    log_likelihood : ndarray of shape (n_rows,), float64
    """

    labels: I32
    second: I32
    resp: F64
    second_resp: F64
    sq_dist: F64
    log_likelihood: F64


@njit
def _two_largest(logs: Any, log_weights: Any, labels: Any, second: Any) -> None:
    """Write the components of the two largest weighted densities of every row."""
    k, n = logs.shape
    for i in range(n):
        one, two, at, runner = -np.inf, -np.inf, 0, -1
        for c in range(k):
            v = logs[c, i] + log_weights[c]
            if c == 0 or v > one:
                two, runner = one, (at if c > 0 else -1)
                one, at = v, c
            elif runner < 0 or v > two:
                two, runner = v, c
        labels[i], second[i] = at, runner


@njit
def _to_means(X: Any, means: Any, labels: Any, out: Any) -> None:
    for i in range(X.shape[0]):
        out[i] = sq_distance(X[i], means[labels[i]])


def membership(X: F32, mixture: Mixture) -> Membership:
    """Find the two likeliest components of every row, in float64.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    mixture : Mixture
    """
    n, at = len(X), Densities.of(mixture, "float64")
    room = _Room.of(X.shape[1], at.dtype)
    labels, second = np.empty(n, np.int32), np.empty(n, np.int32)
    shares, sq_dist, totals = np.zeros((2, n)), np.empty(n), np.empty(n)
    for start in range(0, n, TILE_ROWS):
        rows = slice(start, start + TILE_ROWS)
        logs = _logs(X[rows], at, room, near=False)
        _two_largest(logs, at.log_weights, labels[rows], second[rows])
        _share_out(logs, at.log_weights, -np.inf, totals[rows])
        each = np.arange(logs.shape[1])
        shares[0, rows] = logs[labels[rows], each]
        if len(logs) > 1:
            shares[1, rows] = logs[second[rows], each]
        _to_means(X[rows], at.means, labels[rows], sq_dist[rows])
    return Membership(labels, second, shares[0], shares[1], sq_dist, totals)


def mixture_sums(X: F32, mixture: Mixture, precision: str = "float64") -> MixtureSums:
    """Do the E step on a block and gather what the M step needs.

    Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm (1977),
    section 4.3. Per row and component that is not left out: one triangular product and one half of
    an outer product, d**2 multiplications each ('full').

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    mixture : Mixture
    precision : {'float64', 'float32'}
        Of the products; every sum of more than ``CHUNK_ROWS`` rows is in float64.
    """
    at = Densities.of(mixture, precision)
    sums, room = _no_sums(at), _Room.of(X.shape[1], at.dtype)
    total = 0.0
    for start in range(0, len(X), TILE_ROWS):
        tile = X[start : start + TILE_ROWS]
        resp, totals = _logs(tile, at, room, near=True), np.empty(len(tile))
        _share_out(resp, at.log_weights, at.threshold, totals)
        _add_rows(tile, resp, at, room, sums)
        total += float(totals.sum())
    return replace(sums, n=len(X), log_likelihood=total)


def log_likelihood(X: F32, mixture: Mixture) -> float:
    """Return the log-likelihood of all rows of a block, in float64: an E step and no more.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    mixture : Mixture
    """
    at = Densities.of(mixture, "float64")
    room, total = _Room.of(X.shape[1], at.dtype), 0.0
    for start in range(0, len(X), TILE_ROWS):
        tile = X[start : start + TILE_ROWS]
        totals = np.empty(len(tile))
        _share_out(_logs(tile, at, room, near=True), at.log_weights, at.threshold, totals)
        total += float(totals.sum())
    return total


def hard_sums(X: F32, labels: I32, mixture: Mixture, precision: str = "float64") -> MixtureSums:
    """Gather what the M step needs where every row belongs to one component alone: a start.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), float32
    labels : ndarray of shape (n_rows,), int32
    mixture : Mixture
        About whose means the sums are taken.
    precision : {'float64', 'float32'}
    """
    at = Densities.of(mixture, precision)
    sums, room = _no_sums(at), _Room.of(X.shape[1], at.dtype)
    for start in range(0, len(X), TILE_ROWS):
        rows = slice(start, start + TILE_ROWS)
        resp = (labels[rows] == np.arange(len(at.means))[:, None]).astype(np.float64)
        _add_rows(X[rows], resp, at, room, sums)
    return replace(sums, n=len(X))


def _no_sums(at: Densities) -> MixtureSums:
    k, d = at.means.shape
    shape = {"full": (k, d, d), "tied": (d, d)}.get(at.kind, (k, d))
    return MixtureSums(0, 0.0, np.zeros(k), np.zeros((k, d)), np.zeros(shape))


def _add_rows(X: F32, resp: F64, at: Densities, room: _Room, sums: MixtureSums) -> None:
    """Add the rows of a tile, with their responsibilities, to the arrays of the sums."""
    if at.kind == "full":
        for c in range(len(resp)):
            moments = sums.mass[c : c + 1], sums.shifts[c], sums.scatter[c]
            _add_scatter(X, resp[c], at.means[c], *moments, room)
        return
    squares = sums.scatter if at.kind != "tied" else np.empty((0, 0))
    _add_moments(X, resp, at.means, sums.mass, sums.shifts, squares)
    if at.kind == "tied":
        ones, unused = np.ones(len(X)), np.empty(X.shape[1])
        _add_scatter(X, ones, at.middle, np.empty(1), unused, sums.scatter, room)


def _add_scatter(
    X: F32, resp: F64, mean: F64, mass: F64, shift: F64, scatter: F64, room: _Room
) -> None:
    """Add the moments of one component: chunk by chunk a product of a matrix with itself."""
    rows = np.flatnonzero(resp).astype(np.int32)
    for start in range(0, len(rows), CHUNK_ROWS):
        some = rows[start : start + CHUNK_ROWS]
        D = room.rows[: len(some) * len(mean)].reshape(len(some), -1)
        mass += _weighted(X, some, resp, mean, D, shift)
        # What overflows is no number in the sums, where whoever reads them finds it.
        with np.errstate(over="ignore", invalid="ignore"):
            scatter += D.T @ D


@njit
def _add_moments(X: Any, resp: Any, means: Any, mass: Any, shifts: Any, squares: Any) -> None:
    """Add first moments and, where there is room for them, squares of every feature."""
    k, n = resp.shape
    squared = squares.shape[0] == k
    for i in range(n):
        for c in range(k):
            weight = resp[c, i]
            if weight == 0.0:
                continue
            mass[c] += weight
            for j in range(X.shape[1]):
                t = np.float64(X[i, j]) - means[c, j]
                shifts[c, j] += weight * t
                if squared:
                    squares[c, j] += weight * t * t


def next_mixture(old: Mixture, sums: MixtureSums, reg_covar: float) -> Mixture:
    """Return the mixture of the greatest likelihood for these responsibilities: the M step.

    Parameters
    ----------
    old : Mixture
        Which the sums were gathered with.
    sums : MixtureSums
        Of all rows.
    reg_covar : float
        Added to every variance.

    Raises
    ------
    LinAlgError
        If a covariance is not positive definite.
    """
    mass = sums.mass + GUARD
    means = (sums.shifts + sums.mass[:, None] * old.means) / mass[:, None]
    covariances = _covariances(old, sums, mass, means - old.means, reg_covar)
    factors = factors_of(covariances, old.kind)
    return Mixture(old.kind, mass / mass.sum(), means, covariances, factors)


def _covariances(old: Mixture, sums: MixtureSums, mass: F64, moved: F64, reg: float) -> F64:
    """Take scatters from the old means to the new ones."""
    d = moved.shape[1]
    if old.kind == "tied":
        middle = _middle(old)
        means = old.means + moved - middle
        tied: F64 = (sums.scatter - (mass[:, None] * means).T @ means) / mass.sum()
        tied.flat[:: d + 1] += reg
        return tied
    if old.kind == "full":
        cross = sums.shifts[:, :, None] * moved[:, None, :]
        cross += cross.transpose(0, 2, 1).copy()
        outer = moved[:, :, None] * moved[:, None, :]
        full: F64 = sums.scatter - cross + sums.mass[:, None, None] * outer
        full /= mass[:, None, None]
        full.reshape(len(full), -1)[:, :: d + 1] += reg
        return full
    squares = sums.scatter - 2 * sums.shifts * moved + sums.mass[:, None] * np.square(moved)
    diag: F64 = np.maximum(squares / mass[:, None], 0.0) + reg
    return diag if old.kind == "diag" else diag.mean(axis=1)


def factors_of(covariances: F64, kind: str) -> F64:
    """Return the factors of the precisions of these covariances.

    Raises
    ------
    LinAlgError
        If a covariance is not positive definite.
    """
    if kind in ("diag", "spherical"):
        if not (covariances > 0).all():
            raise np.linalg.LinAlgError("a variance is zero")
        return 1.0 / np.sqrt(covariances)
    if kind == "full":
        return np.stack([factors_of(one, "tied") for one in covariances])
    lower = np.linalg.cholesky(covariances)
    inverse: F64 = solve_triangular(lower, np.eye(len(lower)), lower=True)
    return np.ascontiguousarray(inverse.T)


def given_mixture(kind: str, weights: F64, means: F64, precisions: F64) -> Mixture:
    """Return the mixture of given precisions.

    Raises
    ------
    LinAlgError
        If a precision is not positive definite.
    """
    if kind in ("diag", "spherical"):
        if not (precisions > 0).all():
            raise np.linalg.LinAlgError("a precision is zero or below")
        return Mixture(kind, weights, means, 1.0 / precisions, np.sqrt(precisions))
    # U @ U.T with U upper triangular is Cholesky's product of the matrix turned upside down.
    turned = np.linalg.cholesky(precisions[..., ::-1, ::-1])
    factors = np.ascontiguousarray(turned[..., ::-1, ::-1])
    covariances = np.asarray(np.linalg.inv(precisions), dtype=np.float64)
    return Mixture(kind, weights, means, covariances, factors)
