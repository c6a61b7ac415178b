"""Project a body onto a picture and keep its layers: shade of the paint, parts, coverage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vehclust_dask.demo.bodies import Body, Point

Color = tuple[int, int, int]
Points3 = Sequence[tuple[float, float, float]]

#: Longest side of a sprite in pixels, and how many times larger it is drawn.
SPRITE_PIXELS = 150
FINE = 4
#: A shade of 128 is the paint itself; less is darker, more is nearer to white.
PLAIN_SHADE = 128
_PITCH = math.radians(17)
_EYE_METRES = 16.0
_SHADOW = 120


class Projection:
    """Metres to pixels for one yaw: 0 looks at the front, 90 at the side, 180 at the rear."""

    def __init__(self, body: Body, yaw: float) -> None:
        self._yaw = math.radians(yaw)
        self._centre = (body.length / 2, body.height / 2)
        corners = [(x, s, z) for x, z in _outline(body) for s in (-1.06, 1.06)]
        flat = self._plane([(x, s * half_width(body, x, z), z) for x, s, z in corners])
        low, high = flat.min(axis=0), flat.max(axis=0)
        self._scale = SPRITE_PIXELS * FINE * 0.94 / float((high - low).max())
        margin = 0.03 * SPRITE_PIXELS * FINE
        self._origin = low - margin / self._scale
        wide, tall = (high - low) * self._scale + 2 * margin
        self.size = (FINE * math.ceil(wide / FINE), FINE * math.ceil(tall / FINE))

    def _plane(self, points: Points3) -> NDArray[np.float64]:
        x, y, z = np.array(points, dtype=np.float64).T
        x, z = x - self._centre[0], z - self._centre[1]
        across = y * math.cos(self._yaw) + x * math.sin(self._yaw)
        depth = x * math.cos(self._yaw) - y * math.sin(self._yaw)
        up = z * math.cos(_PITCH) + depth * math.sin(_PITCH)
        depth = depth * math.cos(_PITCH) - z * math.sin(_PITCH)
        return np.stack([across, -up], axis=1) * (_EYE_METRES / (_EYE_METRES + depth))[:, None]

    def pixels(self, points: Points3) -> NDArray[np.float64]:
        """Return the pixels of points in metres, shape (n, 2)."""
        return (self._plane(points) - self._origin) * self._scale


def _outline(body: Body) -> list[Point]:
    points = [*body.profile, (0.3, 0.0), (body.length - 0.3, 0.0)]
    if body.cargo:
        points += body.cargo.profile
    if "sign" in body.extras:
        points.append((body.length / 2, body.height + 0.24))
    return points


def half_width(body: Body, x: float, z: float) -> float:
    """Return half the width at a point: narrower above the belt and a little towards the ends."""
    above = max(0.0, z - body.belt) / max(1e-6, body.height - body.belt)
    from_middle = abs(2 * x / body.length - 1)
    ends = 0.1 if body.taper < 0.9 else 0.02
    return body.width / 2 * (1 - (1 - body.taper) * min(1.0, above)) * (1 - ends * from_middle**6)


def facing(pixels: NDArray[np.float64]) -> bool:
    """Return whether a polygon's outer face is towards the camera: clockwise in pixels."""
    x, y = pixels.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) > 0


class Easel:
    """The four layers of a sprite while it is drawn, and the body's own coordinates."""

    def __init__(self, body: Body, yaw: float) -> None:
        self.body = body
        self.yaw = yaw
        self.project = Projection(body, yaw)
        size = self.project.size
        self.shade = Image.new("L", size, PLAIN_SHADE)
        self.parts = Image.new("RGBA", size, (0, 0, 0, 255))
        self.alpha = Image.new("L", size, 0)
        self._shade = ImageDraw.Draw(self.shade)
        self._parts = ImageDraw.Draw(self.parts)
        self._alpha = ImageDraw.Draw(self.alpha)
        self.lamps: list[Point] = []

    def shadow(self) -> None:
        """Lay a soft shadow on the road; before anything else."""
        body, out = self.body, 1.06
        ground = [
            (x, s * out * body.width / 2, 0.0)
            for x, s in ((0.0, -1), (0.0, 1), (body.length, 1), (body.length, -1))
        ]
        self._alpha.polygon(_tuples(self.project.pixels(ground)), fill=_SHADOW)
        soft = self.alpha.filter(ImageFilter.BoxBlur(5 * FINE))
        self.alpha.paste(soft)

    def paint(self, pixels: NDArray[np.float64], shade: float) -> None:
        """Cover a polygon with paint of this shade."""
        at = _tuples(pixels)
        self._shade.polygon(at, fill=round(min(255.0, PLAIN_SHADE * shade)))
        self._parts.polygon(at, fill=(0, 0, 0, 0))
        self._alpha.polygon(at, fill=255)

    def part(self, pixels: NDArray[np.float64], color: Color) -> None:
        """Cover a polygon with something of a color of its own."""
        at = _tuples(pixels)
        self._parts.polygon(at, fill=(*color, 255))
        self._alpha.polygon(at, fill=255)

    def crease(self, pixels: NDArray[np.float64], shade: float, width: float = 0.6) -> None:
        """Draw a line into the paint."""
        fill = round(PLAIN_SHADE * shade)
        self._shade.line(_tuples(pixels), fill=fill, width=round(width * FINE))

    def patch(self, body: Body, edge: int, along: Point, across: Point) -> NDArray[np.float64]:
        """Return the pixels of a part of the strip over one edge of the profile."""
        (x0, z0), (x1, z1) = body.profile[edge : edge + 2]
        corners = [(along[0], across[0]), (along[1], across[0])]
        corners += [(along[1], across[1]), (along[0], across[1])]
        points = [
            (x, s * half_width(body, x, z), z)
            for t, s in corners
            for x, z in [(x0 + t * (x1 - x0), z0 + t * (z1 - z0))]
        ]
        return self.project.pixels(points)

    def side(self, body: Body, outline: Sequence[Point]) -> NDArray[np.float64]:
        """Return the pixels of a polygon in the plane of the near side."""
        return self.project.pixels([(x, half_width(body, x, z), z) for x, z in outline])

    def lamp(self, pixels: NDArray[np.float64], color: Color) -> None:
        """Draw a lamp and remember where it is."""
        self.part(pixels, color)
        x, y = pixels.mean(axis=0)
        self.lamps.append((x / self.project.size[0], y / self.project.size[1]))


def _tuples(pixels: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in pixels]
