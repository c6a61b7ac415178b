"""What the demo's photos show: vehicles, cameras, light, bad pictures and repeated frames.

Rows come in chunks of 1,024 photos of exactly 100 vehicles (10.24 photos each, as in the case this
demo is a twin of). Everything in a chunk follows from the seed and the chunk's number alone, so any
chunk can be made without the ones before it and memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

CHUNK_ROWS = 1024
CHUNK_VEHICLES = 100

TYPES = (
    "sedan",
    "hatchback",
    "suv",
    "minivan",
    "van",
    "pickup",
    "truck",
    "bus",
    "taxi",
    "sports",
)
TYPE_SHARES = (0.33, 0.12, 0.22, 0.07, 0.07, 0.04, 0.05, 0.04, 0.04, 0.02)
COLORS = (
    "white",
    "black",
    "gray",
    "silver",
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "brown",
)
COLOR_SHARES = (0.33, 0.22, 0.13, 0.12, 0.07, 0.06, 0.015, 0.015, 0.01, 0.03)
#: Types that are painted unlike the others: color -> share.
TYPE_COLORS: dict[str, dict[str, float]] = {
    "taxi": {"yellow": 0.5, "green": 0.25, "blue": 0.15, "white": 0.1},
    "bus": {"blue": 0.4, "green": 0.25, "white": 0.15, "red": 0.1, "yellow": 0.05, "orange": 0.05},
    "truck": {"white": 0.3, "blue": 0.25, "red": 0.2, "orange": 0.1, "gray": 0.1, "green": 0.05},
    "sports": {"red": 0.4, "yellow": 0.2, "black": 0.2, "white": 0.1, "orange": 0.1},
}
VIEWS = ("front", "rear", "angled")
LIGHTS = ("day", "dusk", "night")
LIGHT_SHARES = (0.72, 0.16, 0.12)
QUALITIES = ("ok", "glare", "night", "no-vehicle")
OK, GLARE, NIGHT, NO_VEHICLE = range(4)
QUALITY_SHARES = (0.985, 0.006, 0.005, 0.004)

N_CAMERAS = 40
#: Cameras (0-based) that look through branches, and those above a yellow and black road marking.
BRANCH_CAMERAS = (4, 16, 27, 35)
MARKING_CAMERAS = (10, 22)
#: A camera shows its favourite view this often, each other view half of the rest.
FAVOURITE_SHARE = 0.76
#: A vehicle meets four cameras; they share its photos like this.
CAMERA_SLOTS = (0.45, 0.25, 0.2, 0.1)
#: Chance that a photo which may repeat the one before does; about 2 % of all rows in the end.
REPEAT_CHANCE = 0.0235
#: Shape of the gamma weights that share a chunk's photos among its vehicles: many small, few large.
PHOTO_SHAPE = 1.5

_LATENT_STREAM = 0


@dataclass(frozen=True, eq=False)
class Latents:
    """What the photos of some consecutive rows show; every array has shape (n_rows,).

    Attributes
    ----------
    row0 : int
        Global number of the first row.
    vehicle : ndarray of int64
        Identity, from 1 upwards, never falling.
    type, color, view, camera, light, quality : ndarray of int64
        Positions in ``TYPES``, ``COLORS``, ``VIEWS``, the cameras, ``LIGHTS`` and ``QUALITIES``.
    duplicate_of : ndarray of int64
        Global row that this row repeats, or -1.
    """

    row0: int
    vehicle: IntArray
    type: IntArray
    color: IntArray
    view: IntArray
    camera: IntArray
    light: IntArray
    quality: IntArray
    duplicate_of: IntArray

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return len(self.vehicle)


def generator(seed: int, stream: int, chunk: int) -> np.random.Generator:
    """Return the counter-based generator of one stream and chunk; all of them are independent."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream, chunk))))


def n_chunks(rows: int) -> int:
    """Return how many chunks hold this many rows."""
    return -(-rows // CHUNK_ROWS)


def chunk_rows(rows: int) -> Iterator[tuple[int, int]]:
    """Iterate over ``(chunk, rows used of it)``: only the last chunk is cut."""
    for chunk in range(n_chunks(rows)):
        yield chunk, min(CHUNK_ROWS, rows - chunk * CHUNK_ROWS)


def view_shares() -> NDArray[np.float64]:
    """Return how often each camera shows each view, shape (N_CAMERAS, len(VIEWS))."""
    favourite = np.array([0, 1, 0, 2, 1, 0, 1, 2, 0, 1] * (N_CAMERAS // 10))
    shares = np.full((N_CAMERAS, len(VIEWS)), (1 - FAVOURITE_SHARE) / (len(VIEWS) - 1))
    shares[np.arange(N_CAMERAS), favourite] = FAVOURITE_SHARE
    return shares


def color_shares() -> NDArray[np.float64]:
    """Return how often each type has each color, shape (len(TYPES), len(COLORS))."""
    shares = np.tile(np.array(COLOR_SHARES), (len(TYPES), 1))
    for name, paints in TYPE_COLORS.items():
        shares[TYPES.index(name)] = [paints.get(color, 0.0) for color in COLORS]
    return shares


def _draw(rng: np.random.Generator, shares: NDArray[np.float64], n: int) -> IntArray:
    """Return n levels; ``shares`` has shape (levels,) or (n, levels)."""
    bounds = np.cumsum(shares, axis=-1)[..., :-1]
    return np.asarray((rng.random((n, 1)) >= bounds).sum(axis=1), dtype=np.int64)


def _repeats(rng: np.random.Generator, vehicle: IntArray) -> NDArray[np.bool_]:
    """Choose rows that repeat the row before: same vehicle, and never a repeat of a repeat."""
    chosen = rng.random(len(vehicle)) < REPEAT_CHANCE
    chosen[0] = False
    chosen[1:] &= vehicle[1:] == vehicle[:-1]
    chosen[1:] &= ~chosen[:-1]
    return chosen


def latent_chunk(seed: int, chunk: int) -> Latents:
    """Draw what the 1,024 photos of one chunk show.

    Parameters
    ----------
    seed, chunk : int
        The result is a function of these two alone.
    """
    rng = generator(seed, _LATENT_STREAM, chunk)
    weights = rng.gamma(PHOTO_SHAPE, size=CHUNK_VEHICLES)
    photos = 1 + rng.multinomial(CHUNK_ROWS - CHUNK_VEHICLES, weights / weights.sum())
    own = np.repeat(np.arange(CHUNK_VEHICLES), photos)
    types = _draw(rng, np.array(TYPE_SHARES), CHUNK_VEHICLES)
    colors = _draw(rng, color_shares()[types], CHUNK_VEHICLES)

    cameras = rng.integers(0, N_CAMERAS, size=(CHUNK_VEHICLES, len(CAMERA_SLOTS)))
    slot_light = _draw(rng, np.array(LIGHT_SHARES), cameras.size).reshape(cameras.shape)
    slot = _draw(rng, np.array(CAMERA_SLOTS), CHUNK_ROWS)
    # Photos of one camera follow each other: sort the slots inside each vehicle.
    slot = np.sort(own * len(CAMERA_SLOTS) + slot) % len(CAMERA_SLOTS)
    camera = cameras[own, slot]
    light = slot_light[own, slot]
    view = _draw(rng, view_shares()[camera], CHUNK_ROWS)
    quality = _draw(rng, np.array(QUALITY_SHARES), CHUNK_ROWS)
    light[(quality == GLARE) | (quality == NIGHT)] = LIGHTS.index("night")
    view[quality == GLARE] = VIEWS.index("front")

    repeated = np.flatnonzero(_repeats(rng, own))
    for field in (camera, light, view, quality):
        field[repeated] = field[repeated - 1]
    row0 = chunk * CHUNK_ROWS
    duplicate_of = np.full(CHUNK_ROWS, -1)
    duplicate_of[repeated] = row0 + repeated - 1
    vehicle = own + (1 + chunk * CHUNK_VEHICLES)
    return Latents(
        row0, vehicle, types[own], colors[own], view, camera, light, quality, duplicate_of
    )


def n_vehicles(seed: int, rows: int) -> int:
    """Return the number of different vehicles among the first rows."""
    if rows == 0:
        return 0
    last = latent_chunk(seed, n_chunks(rows) - 1)
    return int(last.vehicle[(rows - 1) % CHUNK_ROWS])
