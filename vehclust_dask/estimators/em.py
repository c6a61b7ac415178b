"""The loop of expectation and maximisation over blocks, for one mixture or many in shared passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.blocks import reduce_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.kernels.assignment import assign
from vehclust_dask.kernels.mixture import (
    Mixture,
    MixtureSums,
    given_mixture,
    hard_sums,
    log_likelihood,
    mixture_sums,
    next_mixture,
)
from vehclust_dask.kernels.segments import Segments
from vehclust_dask.records import Blocks, Span

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixturesSums:
    """Sums of the same rows for several mixtures."""

    parts: tuple[MixtureSums, ...]

    def plus(self, other: MixturesSums) -> MixturesSums:
        """Add the sums of other rows."""
        return MixturesSums(tuple(a.plus(b) for a, b in zip(self.parts, other.parts, strict=True)))


@dataclass(frozen=True, eq=False)
class MixturePass:
    """One E step and all that the M step needs, for several mixtures of the same rows.

    Parameters
    ----------
    mixtures : tuple of Mixture
    precision : {'float64', 'float32'}
    """

    mixtures: tuple[Mixture, ...]
    precision: str
    fan_in: int = 2

    def fold(self, summary: MixturesSums | None, X: F32, span: Span) -> MixturesSums:
        """Add a block."""
        mine = MixturesSums(tuple(mixture_sums(X, one, self.precision) for one in self.mixtures))
        return mine if summary is None else summary.plus(mine)

    def merge(self, left: MixturesSums, right: MixturesSums) -> MixturesSums:
        """Add the sums."""
        return left.plus(right)


@dataclass(frozen=True, eq=False)
class HardPass:
    """Sums where every row belongs to its nearest center alone: where mixtures start.

    Parameters
    ----------
    segments : Segments
        Centers of several clusterings.
    mixtures : tuple of Mixture
        About whose means the sums are taken: these centers.
    """

    segments: Segments
    mixtures: tuple[Mixture, ...]
    fan_in: int = 2

    def fold(self, summary: MixturesSums | None, X: F32, span: Span) -> MixturesSums:
        """Add a block."""
        labels = assign(X, self.segments).labels
        mine = MixturesSums(
            tuple(
                hard_sums(X, np.ascontiguousarray(labels[:, s]), one)
                for s, one in enumerate(self.mixtures)
            )
        )
        return mine if summary is None else summary.plus(mine)

    def merge(self, left: MixturesSums, right: MixturesSums) -> MixturesSums:
        """Add the sums."""
        return left.plus(right)


@dataclass
class MixtureState:
    """Where the loop stands: enough to go on with the same result; written by whoever called it.

    Attributes
    ----------
    mixtures : list of Mixture
    lower_bound : list of float
        Mean log-likelihood of the rows before the last step.
    done : list of bool
    converged : list of bool
        It stopped by the tolerance, not by ``max_iter``.
    n_iter : list of int
    """

    mixtures: list[Mixture]
    lower_bound: list[float] = field(default_factory=list)
    done: list[bool] = field(default_factory=list)
    converged: list[bool] = field(default_factory=list)
    n_iter: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.mixtures)
        self.lower_bound = self.lower_bound or [-np.inf] * n
        self.done = self.done or [False] * n
        self.converged = self.converged or [False] * n
        self.n_iter = self.n_iter or [0] * n

    @property
    def active(self) -> list[int]:
        """Return the numbers of the mixtures that go on."""
        return [i for i, done in enumerate(self.done) if not done]


def hard_mixtures(
    blocks: Blocks, centers: list[F64], kind: str, reg_covar: float, name: str
) -> list[Mixture]:
    """Return a mixture per clustering: means, covariances and shares of the rows nearest to each center.

    Raises
    ------
    BadInput
        If a covariance has no inverse.
    """
    about = tuple(_unit_mixture(kind, C) for C in centers)
    one = HardPass(Segments.of(centers), about)
    found = reduce_rows(blocks, one, name=f"{name}-start")
    return [_next(old, sums, reg_covar, name) for old, sums in zip(about, found.parts, strict=True)]


def _unit_mixture(kind: str, means: F64) -> Mixture:
    k, d = means.shape
    eye = np.eye(d)
    square = {"full": np.repeat(eye[None], k, axis=0), "tied": eye, "diag": np.ones((k, d))}
    return given_mixture(kind, np.full(k, 1 / k), means, square.get(kind, np.ones(k)))


def em(
    blocks: Blocks,
    state: MixtureState,
    *,
    tol: float,
    max_iter: int,
    reg_covar: float,
    precision: str,
    name: str,
    on_state: Callable[[MixtureState], None] | None = None,
) -> MixtureState:
    """Iterate every mixture until it stops; each pass over the rows serves all of them.

    Parameters
    ----------
    blocks : Blocks
    state : MixtureState
        Starts, or where an earlier call was interrupted; changed in place.
    tol : float
        scikit-learn's meaning: stop when the mean log-likelihood changed by less.
    max_iter : int
    reg_covar : float
    precision : {'float64', 'float32'}
    name : str
        Of the step.
    on_state : callable or None
        Called after every pass with the state.

    Raises
    ------
    BadInput
        If a component collapses, or the rows are too large for the precision.
    """
    while state.active:
        ids = state.active
        one = MixturePass(tuple(state.mixtures[i] for i in ids), precision)
        iteration = max(state.n_iter)
        found = reduce_rows(blocks, one, name=f"{name}-pass-{iteration:03d}")
        for i, sums in zip(ids, found.parts, strict=True):
            bound = sums.log_likelihood / sums.n
            if not sums.finite:
                raise BadInput(
                    f"precision={precision!r}: the rows are too large or too far apart for it; scale "
                    "them" + (", or take 'float64'" if precision == "float32" else "")
                )
            state.mixtures[i] = _next(state.mixtures[i], sums, reg_covar, name)
            state.n_iter[i] += 1
            state.converged[i] = abs(bound - state.lower_bound[i]) < tol
            state.lower_bound[i] = bound
            state.done[i] = state.converged[i] or state.n_iter[i] >= max_iter
        if on_state is not None:
            on_state(state)
    return state


def _next(old: Mixture, sums: MixtureSums, reg_covar: float, name: str) -> Mixture:
    """Do the M step; say in a sentence that a component has collapsed."""
    try:
        return next_mixture(old, sums, reg_covar)
    except np.linalg.LinAlgError:
        raise BadInput(
            f"a component of the mixture of {len(old.means)} has no spread in some direction (few or "
            f"equal rows, or columns that repeat each other): raise reg_covar={reg_covar:g}, take "
            "fewer components or covariances of fewer numbers"
        ) from None


@dataclass(frozen=True, eq=False)
class LikelihoodPass:
    """Log-likelihood of the rows under several mixtures, in float64."""

    mixtures: tuple[Mixture, ...]
    fan_in: int = 8

    def fold(self, summary: F64 | None, X: F32, span: Span) -> F64:
        """Add a block."""
        mine = np.array([log_likelihood(X, one) for one in self.mixtures])
        return mine if summary is None else summary + mine

    def merge(self, left: F64, right: F64) -> F64:
        """Add the sums."""
        return left + right


def log_likelihoods(blocks: Blocks, mixtures: list[Mixture], name: str) -> F64:
    """Return the log-likelihood of all rows under each mixture."""
    return reduce_rows(blocks, LikelihoodPass(tuple(mixtures)), name=f"{name}-likelihood")


def bic(total: float, n: int, mixture: Mixture) -> float:
    """Return Schwarz's criterion of n rows of a total log-likelihood; the lower the better.

    Schwarz, Estimating the dimension of a model (1978).
    """
    return -2 * total + mixture.n_parameters * float(np.log(n))


def aic(total: float, mixture: Mixture) -> float:
    """Return Akaike's criterion of rows of a total log-likelihood; the lower the better.

    Akaike, A new look at the statistical model identification (1974).
    """
    return -2 * total + 2 * mixture.n_parameters
