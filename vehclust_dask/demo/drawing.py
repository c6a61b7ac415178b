"""Draw one photo from what it shows, as JPEG bytes; well below a millisecond each."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from vehclust_dask.demo import latent, scenes
from vehclust_dask.demo.easel import PLAIN_SHADE
from vehclust_dask.demo.latent import CHUNK_VEHICLES, Latents, generator
from vehclust_dask.demo.sprites import Sprite, sprite

_PHOTO_STREAM = 1
#: What a photo draws by chance, one column each.
_COLUMNS = ("size", "margin", "tall", "left", "mirror", "yaw", "scene", "grain", "bright")
_JPEG_QUALITY = 82
#: How far the brightest shade of a paint goes towards white.
_SHINE = 0.6
#: A color differs from vehicle to vehicle by this many levels of 255.
_PAINT_SPREAD = 9

Paint = tuple[int, int, int]

PAINTS: dict[str, Paint] = {
    "white": (234, 236, 238),
    "black": (26, 27, 30),
    "gray": (116, 119, 123),
    "silver": (184, 189, 194),
    "red": (192, 26, 30),
    "blue": (34, 76, 170),
    "green": (34, 126, 62),
    "yellow": (242, 200, 28),
    "orange": (240, 122, 22),
    "brown": (106, 68, 40),
}
_NO_LIGHT = scenes.light_table((0.16, 0.17, 0.24))
_FLIP = Image.Transpose.FLIP_LEFT_RIGHT
#: Degrees from which a view is seen; 0 is the front, 180 the rear.
_YAWS = {"front": (3.0, 9.0), "rear": (177.0, 171.0), "angled": (34.0, 48.0, 146.0, 134.0)}


def photo_chances(seed: int, chunk: int, rows: Latents) -> NDArray[np.float64]:
    """Return the chances of a chunk's photos, shape (CHUNK_ROWS, number of columns).

    A repeated frame has those of the photo it repeats but for its grain and a nudge.
    """
    rng = generator(seed, _PHOTO_STREAM, chunk)
    chances = rng.random((latent.CHUNK_ROWS, len(_COLUMNS)))
    at = np.flatnonzero(rows.duplicate_of >= 0)
    own = chances[at]
    chances[at] = chances[rows.duplicate_of[at] - rows.row0]
    grain, left = _COLUMNS.index("grain"), _COLUMNS.index("left")
    chances[at, grain] = own[:, grain]
    chances[at, left] = np.clip(chances[at, left] + 0.1 * (own[:, left] - 0.5), 0, 1)
    return chances


def vehicle_paints(seed: int, chunk: int) -> NDArray[np.float64]:
    """Return how each vehicle's paint differs from its color, shape (CHUNK_VEHICLES, 3)."""
    rng = generator(seed, _PHOTO_STREAM + 1, chunk)
    together = rng.normal(0, _PAINT_SPREAD, (CHUNK_VEHICLES, 1))
    apart = rng.normal(0, _PAINT_SPREAD / 3, (CHUNK_VEHICLES, 3))
    return np.clip(together + apart, -2 * _PAINT_SPREAD, 2 * _PAINT_SPREAD)


@lru_cache(maxsize=1024)
def _palette(paint: Paint, light: int) -> bytes:
    """Return the color of every shade of a paint in one light: 256 times red, green, blue."""
    shade = np.arange(256)[:, None]
    levels = np.array(paint)
    dark = levels * shade / PLAIN_SHADE
    pale = levels + _SHINE * (255 - levels) * (shade - PLAIN_SHADE) / (255 - PLAIN_SHADE)
    colors = np.where(shade <= PLAIN_SHADE, dark, pale) * scenes.PAINT_LIGHT[light]
    return colors.astype(np.uint8).tobytes()


@lru_cache(maxsize=512)
def _lit_parts(kind: str, yaw: float, light: int) -> Image.Image:
    parts = sprite(kind, yaw).parts
    return parts.point(scenes.light_table(scenes.PAINT_LIGHT[light]))


def _painted(kind: str, yaw: float, paint: Paint, light: int) -> Image.Image:
    """Return the vehicle in its paint and light, RGB with black around it."""
    drawn = sprite(kind, yaw)
    # A palette colors all shades in one pass; three tables of a list each take twice as long.
    shades = drawn.shade.copy()
    shades.putpalette(_palette(paint, light))
    whole = shades.convert("RGB")
    whole.paste(_lit_parts(kind, yaw, light), mask=drawn.parts_mask)
    return whole


def _add_glow(photo: Image.Image, x: float, y: float, radius: int, front: bool) -> None:
    left, top = round(x) - radius, round(y) - radius
    box = (left, top, left + 2 * radius + 1, top + 2 * radius + 1)
    # Adding to a cut that reaches beyond the photo and pasting it back clips by itself.
    photo.paste(ImageChops.add(photo.crop(box), scenes.glow(radius, front)), (left, top))


class _Frame:
    """Where the vehicle and the scene lie in one photo."""

    def __init__(self, drawn: Sprite, chance: dict[str, float]) -> None:
        wide, tall = drawn.alpha.size
        self.width = 96 + int(chance["size"] * 65)
        scale = self.width / (1.12 + 0.2 * chance["margin"]) / wide
        self.vehicle = (max(1, round(wide * scale)), max(1, round(tall * scale)))
        grown = self.vehicle[1] * (1.12 + 0.22 * chance["tall"])
        self.height = min(scenes.SCENE_SIZE[1] - 8, max(64, round(grown)))
        free = self.width - self.vehicle[0]
        self.left = round(free * (0.2 + 0.6 * chance["left"]))
        self.top = round((self.height - self.vehicle[1]) * 0.6)
        self.mirrored = chance["mirror"] < 0.5

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the photo."""
        return (self.width, self.height)

    def lamps(self, drawn: Sprite) -> list[tuple[float, float]]:
        """Return where the lamps are in the photo, in pixels."""
        wide, tall = self.vehicle
        return [
            (self.left + (1 - x if self.mirrored else x) * wide, self.top + y * tall)
            for x, y in drawn.lamps
        ]


def _background(camera: int, light: int, frame: _Frame, chance: float) -> Image.Image:
    wide, tall = scenes.SCENE_SIZE
    left = int((wide - frame.width) * (0.25 + 0.5 * chance))
    top = tall - frame.height - int(8 * chance)
    return scenes.scene(camera, light).crop((left, top, left + frame.width, top + frame.height))


def _place(
    photo: Image.Image, vehicle: Image.Image, drawn: Sprite, frame: _Frame, light: int
) -> None:
    """Put the vehicle into the photo, and light its lamps unless it is day."""
    mask = drawn.alpha.resize(frame.vehicle, Image.Resampling.BILINEAR)
    small = vehicle.resize(frame.vehicle, Image.Resampling.BILINEAR)
    if frame.mirrored:
        small, mask = small.transpose(_FLIP), mask.transpose(_FLIP)
    photo.paste(small, (frame.left, frame.top), mask)
    if light == 0:
        return
    radius = round(frame.vehicle[0] * (0.1 if light == 1 else 0.17))
    for x, y in frame.lamps(drawn):
        _add_glow(photo, x, y, radius, drawn.front)


def _spoil(photo: Image.Image, drawn: Sprite, frame: _Frame, quality: int) -> Image.Image:
    """Blind the camera with headlights, or leave almost no light."""
    if quality == latent.NIGHT:
        return photo.point(_NO_LIGHT)
    radius = round(frame.width * 0.75)
    for x, y in frame.lamps(drawn):
        _add_glow(photo, x, y, radius, True)
        _add_glow(photo, x, y, radius // 2, True)
    return photo


def draw_photo(
    rows: Latents, i: int, chances: NDArray[np.float64], paints: NDArray[np.float64]
) -> Image.Image:
    """Draw the photo of one row.

    Parameters
    ----------
    rows : Latents
        A whole chunk.
    i : int
        Row inside the chunk.
    chances : ndarray of shape (CHUNK_ROWS, number of columns), float64
        Of ``photo_chances``.
    paints : ndarray of shape (CHUNK_VEHICLES, 3), float64
        Of ``vehicle_paints``.

    Returns
    -------
    image "RGB"
        96 to 160 pixels wide.
    """
    chance = dict(zip(_COLUMNS, chances[i].tolist(), strict=True))
    camera, light, quality = int(rows.camera[i]), int(rows.light[i]), int(rows.quality[i])
    kind, yaws = latent.TYPES[rows.type[i]], _YAWS[latent.VIEWS[rows.view[i]]]
    yaw = yaws[int(chance["yaw"] * len(yaws))]
    drawn = sprite(kind, yaw)
    frame = _Frame(drawn, chance)
    photo = _background(camera, light, frame, chance["scene"])
    if quality != latent.NO_VEHICLE:
        own = paints[(int(rows.vehicle[i]) - 1) % CHUNK_VEHICLES]
        paint = _paint(PAINTS[latent.COLORS[rows.color[i]]], own)
        _place(photo, _painted(kind, yaw, paint, light), drawn, frame, light)
    hanging = scenes.branches(camera, light)
    if hanging is not None:
        cut = hanging.crop((0, 0, *frame.size))
        photo.paste(cut, (0, 0), cut)
    if quality in (latent.GLARE, latent.NIGHT):
        photo = _spoil(photo, drawn, frame, quality)
    return _with_grain(photo, chance)


def _paint(base: Paint, own: NDArray[np.float64]) -> Paint:
    """Return the paint of one vehicle, inside what a camera can tell apart."""
    red, green, blue = np.clip(np.array(base) + own, 6, 250).astype(int).tolist()
    return (red, green, blue)


def _with_grain(photo: Image.Image, chance: dict[str, float]) -> Image.Image:
    noise = scenes.grain()
    left = int(chance["grain"] * (noise.width - photo.width))
    top = int(chance["grain"] * 97) % (noise.height - photo.height)
    cut = noise.crop((left, top, left + photo.width, top + photo.height))
    return ImageChops.add(photo, cut, offset=round(8 * chance["bright"]) - 132)


def to_jpeg(photo: Image.Image) -> bytes:
    """Encode a photo; the same bytes for the same picture and libjpeg."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
