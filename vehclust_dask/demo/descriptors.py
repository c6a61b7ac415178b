"""Four descriptor sets that four imagined networks compute from what a photo shows.

A set is linear inside: factors of the picture (type, color, view, camera, ...) and Gaussian latents
fill components whose variances follow a given curve; a fixed mixing matrix turns components into
columns; noise and the network's last activation follow. The networks are the same for every seed,
as real networks are: a model fitted on one demo labels another.

The numbers of the four records were set by hand until ranges, variance by components and k-means
scores came near what is published for the case: a curve is the published one, corrected for what
the activation does to it; the factors' shares decide how far clusters stand apart at that variance;
spread and leaning decide what a scaler before the reduction changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.demo import latent
from vehclust_dask.demo.latent import CHUNK_VEHICLES, Latents, generator

FloatMatrix = NDArray[np.float32]

#: First stream of the descriptor sets; each set adds its own number.
_SET_STREAM = 16
#: Seed of what never changes: the weights of the imagined networks.
_NETWORK_SEED = 2019

#: The bias of a rectified column lies at most this many standard deviations below zero, so that a
#: twentieth of the rows pass.
_LOWEST_BIAS = 1.6


@dataclass(frozen=True)
class SetModel:
    """One descriptor set: every number that shapes it.

    Attributes
    ----------
    name : str
        The file is ``<name>.pickle``.
    number : int
        Chooses the generators of the set.
    n_features : int
        Number of columns.
    activation : {"swish", "relu", "none"}
        The network's last function.
    curve : tuple of (int, float)
        Number of components and cumulative share of variance, before the activation; what is left
        after the last one is noise.
    factors : tuple of (str, float)
        What drives the leading components, in order: the next code of this factor, and the share
        of the component's variance that it explains. An empty name leaves the component Gaussian.
    scale, spread : float
        Median standard deviation of a column before the activation; standard deviation of its
        logarithm across the columns.
    offset, offset_spread : float
        Mean of the columns before the activation, and its standard deviation across the columns.
    identity : float
        Share of the Gaussian variance that all photos of one vehicle have in common.
    leaning : tuple of (int, float)
        How many of the first components prefer loud columns, those of large scale, and how much:
        a column whose log scale lies z times ``spread`` above the median weighs exp(how much * z)
        times more. Below zero they prefer quiet ones: standardising brings them forward.
    lowest, highest : float
        Published extremes, which no value leaves; fewer than one value in 100,000 is cut, but for
        the least of a swish.
    repeat_noise : float
        Relative change of a value in a repeated frame.
    constants : tuple of (int, float)
        Columns that hold one value in every row.
    """

    name: str
    number: int
    n_features: int
    activation: Literal["swish", "relu", "none"]
    curve: tuple[tuple[int, float], ...]
    factors: tuple[tuple[str, float], ...]
    scale: float
    spread: float
    offset: float
    offset_spread: float
    identity: float
    leaning: tuple[int, float] = (0, 0.0)
    lowest: float = -np.inf
    highest: float = np.inf
    repeat_noise: float = 0.01
    constants: tuple[tuple[int, float], ...] = ()

    @property
    def file(self) -> str:
        """Return the name of the file."""
        return f"{self.name}.pickle"


_EFFICIENTNET = SetModel(
    name="efficientnet-b7",
    number=0,
    n_features=2560,
    activation="swish",
    curve=(
        (1, 0.071),
        (2, 0.102),
        (5, 0.156),
        (10, 0.192),
        (20, 0.233),
        (76, 0.400),
        (148, 0.547),
        (242, 0.670),
        (448, 0.770),
    ),
    factors=(
        ("view", 0.8),
        ("view", 0.55),
        ("camera", 0.8),
        ("light", 0.6),
        ("camera", 0.6),
        ("camera", 0.6),
        ("type", 0.5),
        *((("camera", 0.6),) * 8),
        ("type", 0.4),
        ("light", 0.5),
        ("color", 0.4),
        ("type", 0.4),
        ("color", 0.4),
        ("quality", 0.7),
        ("quality", 0.7),
        ("quality", 0.7),
    ),
    scale=0.33,
    spread=0.15,
    offset=0.014,
    offset_spread=0.15,
    identity=0.1,
    lowest=-0.265,
    highest=2.02,
)
_OSNET = SetModel(
    name="osnet",
    number=1,
    n_features=512,
    activation="relu",
    curve=(
        (1, 0.190),
        (2, 0.300),
        (5, 0.482),
        (10, 0.612),
        (20, 0.763),
        (46, 0.902),
        (97, 0.951),
        (152, 0.955),
        (213, 0.957),
    ),
    factors=(
        ("view", 0.8),
        ("color", 0.82),
        ("type", 0.76),
        ("view", 0.7),
        ("type", 0.76),
        ("color", 0.76),
        ("color", 0.76),
        ("type", 0.7),
        ("quality", 0.87),
        ("type", 0.6),
        ("color", 0.7),
        ("quality", 0.87),
        ("type", 0.6),
        ("color", 0.6),
        ("quality", 0.87),
        ("color", 0.6),
        ("type", 0.6),
        ("camera", 0.46),
        ("color", 0.6),
        ("type", 0.5),
        ("light", 0.56),
    ),
    scale=1.3,
    spread=0.6,
    offset=0.46,
    offset_spread=0.6,
    identity=0.45,
    leaning=(21, 0.1),
    highest=33.502,
    constants=((101, 0.0), (317, 5.3e-40)),
)
_COLOR = SetModel(
    name="vdc_color",
    number=2,
    n_features=128,
    activation="none",
    curve=(
        (1, 0.455),
        (2, 0.540),
        (5, 0.663),
        (10, 0.701),
        (20, 0.724),
        (37, 0.742),
        (61, 0.762),
    ),
    factors=(
        ("color", 0.8),
        ("color", 0.75),
        ("color", 0.63),
        ("color", 0.63),
        ("light", 0.63),
        ("color", 0.53),
        ("color", 0.53),
        ("quality", 0.7),
        ("color", 0.53),
        ("color", 0.43),
        ("color", 0.43),
    ),
    scale=0.37,
    spread=0.22,
    offset=-0.43,
    offset_spread=0.35,
    identity=0.3,
    leaning=(11, 0.05),
    lowest=-3.772,
    highest=2.152,
)
_TYPE = SetModel(
    name="vdc_type",
    number=3,
    n_features=512,
    activation="relu",
    curve=(
        (1, 0.381),
        (2, 0.598),
        (5, 0.770),
        (7, 0.883),
        (10, 0.916),
        (20, 0.969),
        (122, 0.979),
        (255, 0.981),
    ),
    factors=(
        ("type", 0.72),
        ("type", 0.7),
        ("type", 0.6),
        ("type", 0.6),
        ("type", 0.55),
        ("view", 0.4),
        ("type", 0.55),
        ("quality", 0.5),
        ("type", 0.5),
        ("type", 0.45),
        ("type", 0.45),
    ),
    scale=0.1,
    spread=0.8,
    offset=0.11,
    offset_spread=0.03,
    identity=0.3,
    leaning=(2, -0.8),
    highest=2.568,
)
#: The four sets in the order they are written.
SETS: dict[str, SetModel] = {m.name: m for m in (_EFFICIENTNET, _OSNET, _COLOR, _TYPE)}

#: What networks see first of a factor, one column per code, one row per level.
_ANCHORS: dict[str, NDArray[np.float64]] = {
    "type": np.array(
        [  # height, length, cargo
            [-1.0, 0.5, 0.0],
            [-0.6, -1.2, 0.2],
            [0.8, -0.4, 0.0],
            [0.9, 0.3, 0.3],
            [1.1, 0.6, 0.8],
            [0.5, 0.8, 1.0],
            [1.4, 1.8, 1.6],
            [1.5, 2.0, -1.0],
            [-0.9, 0.5, -0.9],
            [-1.4, -0.8, 0.0],
        ]
    ),
    "color": np.array(
        [  # lightness, redness, yellow against blue, green
            [1.0, 0.0, 0.0, 0.0],
            [-1.0, 0.0, 0.0, 0.0],
            [-0.5, 0.0, 0.0, 0.3],
            [0.6, 0.0, 0.0, 0.3],
            [-0.1, 1.0, 0.0, 0.0],
            [-0.4, -0.2, -1.0, 0.0],
            [-0.2, -0.3, 0.2, 1.0],
            [0.7, 0.1, 1.0, 0.0],
            [0.2, 0.7, 0.8, 0.0],
            [-0.7, 0.4, 0.3, 0.0],
        ]
    ),
    "view": np.array([[1.0], [-1.0], [0.7]]),
    "camera": np.array(
        [
            [float(c in latent.MARKING_CAMERAS), float(c in latent.BRANCH_CAMERAS)]
            for c in range(latent.N_CAMERAS)
        ]
    ),
    "light": np.array([[1.0], [0.2], [-1.0]]),
    "quality": np.eye(4)[:, 1:],
}


def factor_shares() -> dict[str, NDArray[np.float64]]:
    """Return how often every level of every factor occurs."""
    types = np.array(latent.TYPE_SHARES)
    return {
        "type": types,
        "color": types @ latent.color_shares(),
        "view": latent.view_shares().mean(axis=0),
        "camera": np.full(latent.N_CAMERAS, 1 / latent.N_CAMERAS),
        "light": np.array(latent.LIGHT_SHARES),
        "quality": np.array(latent.QUALITY_SHARES),
    }


def orthonormal_codes(
    anchors: NDArray[np.float64],
    shares: NDArray[np.float64],
    n_codes: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Give every level of a factor a code, uncorrelated and of unit variance over the rows.

    Parameters
    ----------
    anchors : ndarray of shape (levels, m)
        What the first codes should follow; further ones are random.
    shares : ndarray of shape (levels,)
        How often each level occurs.
    n_codes : int
        At most levels - 1.

    Returns
    -------
    ndarray of shape (levels, n_codes), float64
        With weights ``shares``: columns of mean 0 and an identity as covariance.
    """
    levels = len(shares)
    wanted = np.hstack([np.ones((levels, 1)), anchors, rng.standard_normal((levels, levels))])
    root = np.sqrt(shares)[:, None]
    Q, R = np.linalg.qr(wanted[:, :levels] * root)
    codes = (Q * np.sign(np.diag(R)) / root)[:, 1 : 1 + n_codes]
    return np.asarray(codes, dtype=np.float64)


def component_variances(curve: tuple[tuple[int, float], ...]) -> NDArray[np.float64]:
    """Return the share of variance of every component, falling, read off a cumulative curve."""
    counts, totals = np.array(curve, dtype=np.float64).T
    at = np.arange(1, int(counts[-1]) + 1)
    # Straight lines over the logarithm of the count: variances fall inside a segment, too.
    cumulative = np.interp(np.log(at), np.log(counts), totals)
    return np.sort(np.diff(cumulative, prepend=0.0))[::-1]


@dataclass(frozen=True, eq=False)
class Network:
    """The fixed weights of one imagined network.

    Attributes
    ----------
    mixing : ndarray of shape (n_components, n_features), float32
    codes : dict of str to ndarray of shape (levels + 1, n_components), float32
        What each level of a factor adds to the components; the last row is nothing at all.
    within : ndarray of shape (n_components,), float32
        Standard deviation that the factors leave to the Gaussian latents.
    noise, bias : ndarray of shape (n_features,), float32
    """

    mixing: FloatMatrix
    codes: dict[str, FloatMatrix]
    within: FloatMatrix
    noise: FloatMatrix
    bias: FloatMatrix


def _factor_codes(
    model: SetModel, n_components: int, rng: np.random.Generator
) -> tuple[dict[str, FloatMatrix], FloatMatrix]:
    shares = factor_shares()
    codes: dict[str, FloatMatrix] = {}
    within = np.ones(n_components)
    for name in sorted({name for name, _ in model.factors if name}):
        at = [k for k, (factor, _) in enumerate(model.factors) if factor == name]
        part = np.array([model.factors[k][1] for k in at])
        table = np.zeros((len(shares[name]) + 1, n_components))
        table[:-1, at] = orthonormal_codes(_ANCHORS[name], shares[name], len(at), rng)
        table[:-1, at] *= np.sqrt(part)
        within[at] = np.sqrt(1 - part)
        codes[name] = table.astype(np.float32)
    return codes, within.astype(np.float32)


@lru_cache(maxsize=4)
def network(model: SetModel) -> Network:
    """Return the network of a set; the same for every seed. 0.3 s for the widest."""
    rng = generator(_NETWORK_SEED, _SET_STREAM + model.number, 0)
    variances = component_variances(model.curve)
    d, r = model.n_features, len(variances)
    codes, within = _factor_codes(model, r, rng)
    basis = np.linalg.qr(rng.standard_normal((d, r)))[0].T
    loudness = rng.standard_normal(d)
    column = model.scale * np.exp(model.spread * loudness)
    mixing = np.sqrt(variances * d)[:, None] * basis * column
    n_leaning, power = model.leaning
    leaning = column * np.exp(power * loudness)
    # The same sum of squares over the columns: a component keeps its variance.
    mixing[:n_leaning] *= leaning / column * np.linalg.norm(column) / np.linalg.norm(leaning)
    noise = np.sqrt(1 - variances.sum()) * column
    bias = model.offset + model.offset_spread * rng.standard_normal(d)
    if model.activation == "relu":
        # No column but those of ``constants`` may be dead.
        bias = np.maximum(bias, -_LOWEST_BIAS * column)
    return Network(
        mixing.astype(np.float32),
        codes,
        within,
        noise.astype(np.float32),
        bias.astype(np.float32),
    )


def _levels(rows: Latents, factor: str, n_levels: int) -> NDArray[np.int64]:
    """Return the level each photo shows; the level after the last where it shows none."""
    levels: NDArray[np.int64] = getattr(rows, factor)
    if factor in ("type", "color"):
        return np.where(rows.quality == latent.OK, levels, n_levels)
    if factor == "view":
        return np.where(rows.quality == latent.NO_VEHICLE, n_levels, levels)
    return levels


def _components(
    model: SetModel, weights: Network, rows: Latents, rng: np.random.Generator
) -> FloatMatrix:
    r = len(weights.within)
    own = rng.standard_normal((CHUNK_VEHICLES, r), dtype=np.float32)
    H = rng.standard_normal((rows.n_rows, r), dtype=np.float32)
    H *= np.float32(np.sqrt(1 - model.identity))
    H += np.float32(np.sqrt(model.identity)) * own[(rows.vehicle - 1) % CHUNK_VEHICLES]
    H *= weights.within
    for factor, table in weights.codes.items():
        H += table[_levels(rows, factor, len(table) - 1)]
    return H


def _activate(X: FloatMatrix, activation: str) -> None:
    """Apply the last function of a network in place."""
    if activation == "relu":
        np.maximum(X, 0, out=X)
    elif activation == "swish":
        gate = np.exp(-X)
        gate += 1
        X /= gate


def _repeat(model: SetModel, X: FloatMatrix, rows: Latents, rng: np.random.Generator) -> None:
    """Overwrite the rows of repeated frames by almost the rows they repeat."""
    at = np.flatnonzero(rows.duplicate_of >= 0)
    noise = np.abs(rng.standard_normal((len(at), X.shape[1]), dtype=np.float32))
    # Towards zero only, so that no value leaves the range of the activation.
    X[at] = X[rows.duplicate_of[at] - rows.row0] * (1 - np.float32(model.repeat_noise) * noise)


def descriptor_chunk(model: SetModel, rows: Latents, seed: int) -> FloatMatrix:
    """Compute the descriptors of one whole chunk of photos.

    Parameters
    ----------
    model : SetModel
    rows : Latents
        A whole chunk, as ``latent_chunk`` returns it.
    seed : int
        Seed of the noise; that of the latents.

    Returns
    -------
    ndarray of shape (CHUNK_ROWS, n_features), float32
    """
    rng = generator(seed, _SET_STREAM + model.number, rows.row0 // latent.CHUNK_ROWS)
    weights = network(model)
    H = _components(model, weights, rows, rng)
    X = rng.standard_normal((rows.n_rows, model.n_features), dtype=np.float32)
    X *= weights.noise
    X += weights.bias
    X += H @ weights.mixing
    _activate(X, model.activation)
    np.clip(X, model.lowest, model.highest, out=X)
    _repeat(model, X, rows, rng)
    for column, value in model.constants:
        X[:, column] = value
    return X
