"""Draw a body from one side, once: paint as shade alone, so that any color can be put on later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from vehclust_dask.demo.bodies import BODIES, Body, Point
from vehclust_dask.demo.easel import FINE, Color, Easel, facing

_GLASS: Color = (34, 44, 56)
_SHEEN: Color = (92, 112, 130)
_TYRE: Color = (24, 24, 27)
_RIM: Color = (158, 161, 166)
_TRIM: Color = (38, 39, 42)
_PLATE: Color = (236, 238, 240)
_HEADLIGHT: Color = (255, 252, 228)
_TAILLIGHT: Color = (214, 16, 24)
_AMBER: Color = (250, 170, 40)


@dataclass(frozen=True, eq=False)
class Sprite:
    """A drawn body without its color.

    Attributes
    ----------
    shade : image "L"
        How bright the paint is at each pixel.
    parts : image "RGB"
        Glass, lamps, tyres: what has a color of its own; its shadow is black.
    parts_mask, alpha : image "L"
        Where the parts cover the paint; where anything is, shadow included.
    lamps : tuple of (x, y)
        Centres of the lamps that face the camera, as shares of the width and height.
    front : bool
        Whether these are headlights.
    """

    shade: Image.Image
    parts: Image.Image
    parts_mask: Image.Image
    alpha: Image.Image
    lamps: tuple[Point, ...]
    front: bool


def _circle(x: float, z: float, radius: float, n: int = 20) -> list[Point]:
    turn = [2 * math.pi * i / n for i in range(n)]
    return [(x + radius * math.cos(a), z + radius * math.sin(a)) for a in turn]


def _glass(easel: Easel, body: Body, edge: int, along: Point, across: Point) -> None:
    easel.part(easel.patch(body, edge, along, across), _GLASS)
    middle = (across[0] + across[1]) / 2
    width = across[1] - across[0]
    low, high = along
    sheen = easel.patch(body, edge, along, (middle - 0.32 * width, middle - 0.08 * width))
    slant = easel.patch(body, edge, (low, high), (middle - 0.18 * width, middle + 0.06 * width))
    easel.part(np.stack([sheen[0], slant[1], slant[2], sheen[3]]), _SHEEN)


def _front_face(easel: Easel, body: Body, edge: int) -> None:
    easel.part(easel.patch(body, edge, (0.3, 0.85), (-0.5, 0.5)), _TRIM)
    for bar in (0.42, 0.62):
        easel.part(easel.patch(body, edge, (bar, bar + 0.07), (-0.5, 0.5)), _RIM)
    for s in (-1, 1):
        across = (min(s * 0.58, s * 0.94), max(s * 0.58, s * 0.94))
        easel.part(easel.patch(body, edge, (0.28, 0.98), across), _TRIM)
        inner = (min(s * 0.62, s * 0.9), max(s * 0.62, s * 0.9))
        easel.lamp(easel.patch(body, edge, (0.38, 0.9), inner), _HEADLIGHT)


def _front_bumper(easel: Easel, body: Body, edge: int) -> None:
    easel.part(easel.patch(body, edge, (0.0, 0.35), (-0.86, 0.86)), _TRIM)
    easel.part(easel.patch(body, edge, (0.3, 0.95), (-0.24, 0.24)), _PLATE)
    easel.part(easel.patch(body, edge, (0.55, 0.7), (-0.18, 0.18)), _TRIM)


def _rear_face(easel: Easel, body: Body, edge: int) -> None:
    for s in (-1, 1):
        across = (min(s * 0.6, s * 0.98), max(s * 0.6, s * 0.98))
        if body.taper >= 0.8:  # tall bodies carry their lamps upright at the corners
            across = (min(s * 0.78, s * 0.98), max(s * 0.78, s * 0.98))
        easel.lamp(easel.patch(body, edge, (0.03, 0.62), across), _TAILLIGHT)
        outer = (min(s * 0.8, s * 0.96), max(s * 0.8, s * 0.96))
        easel.part(easel.patch(body, edge, (0.42, 0.55), outer), _AMBER)
    easel.part(easel.patch(body, edge, (0.38, 0.8), (-0.34, 0.34)), _PLATE)
    easel.part(easel.patch(body, edge, (0.54, 0.66), (-0.26, 0.26)), _TRIM)


def _rear_doors(easel: Easel, body: Body, edge: int) -> None:
    for s in (-1, 1):
        across = (min(s * 0.12, s * 0.8), max(s * 0.12, s * 0.8))
        easel.part(easel.patch(body, edge, (0.15, 0.65), across), _GLASS)
    easel.part(easel.patch(body, edge, (0.0, 1.0), (-0.015, 0.015)), _TRIM)


def _cargo_doors(easel: Easel, body: Body, edge: int) -> None:
    for middle in (-0.96, 0.0, 0.96):
        easel.part(easel.patch(body, edge, (0.02, 0.98), (middle - 0.02, middle + 0.02)), _TRIM)
    for bar in (-0.5, 0.5):
        easel.part(easel.patch(body, edge, (0.05, 0.95), (bar - 0.015, bar + 0.015)), _RIM)
    for i in range(8):
        color = _TAILLIGHT if i % 2 else _PLATE
        across = (-0.98 + i * 0.245, -0.98 + (i + 1) * 0.245)
        easel.part(easel.patch(body, edge, (0.93, 1.0), across), color)


def _bed(easel: Easel, body: Body, edge: int) -> None:
    easel.part(easel.patch(body, edge, (0.06, 0.94), (-0.84, 0.84)), _TRIM)
    easel.part(easel.patch(body, edge, (0.2, 0.9), (-0.74, 0.74)), (62, 63, 66))


def _board(easel: Easel, body: Body, edge: int) -> None:
    easel.part(easel.patch(body, edge, (0.1, 0.85), (-0.8, 0.8)), _TRIM)
    for i in range(7):
        across = (-0.6 + i * 0.18, -0.5 + i * 0.18)
        easel.part(easel.patch(body, edge, (0.3, 0.65), across), _AMBER)


def _decorate(easel: Easel, body: Body, edge: int, role: str, front: bool) -> None:
    """Draw what lies on one strip of the body."""
    if role == "screen":
        _glass(easel, body, edge, (0.08, 0.94), (-0.88, 0.88))
    elif role in ("rearglass", "cabglass"):
        _glass(easel, body, edge, (0.1, 0.8), (-0.84, 0.84))
    elif role == "doors":
        _rear_doors(easel, body, edge)
    elif role == "cargodoors":
        _cargo_doors(easel, body, edge)
    elif role == "front":
        _front_face(easel, body, edge)
    elif role == "rear":
        _rear_face(easel, body, edge)
    elif role == "bumper" and front:
        _front_bumper(easel, body, edge)
    elif role == "bumper":
        easel.part(easel.patch(body, edge, (0.45, 1.0), (-0.9, 0.9)), _TRIM)
    elif role == "bed":
        _bed(easel, body, edge)
    elif role == "board":
        _board(easel, body, edge)


def _strip_shade(body: Body, edge: int) -> float:
    (x0, z0), (x1, z1) = body.profile[edge : edge + 2]
    upward = (x1 - x0) / math.hypot(x1 - x0, z1 - z0)
    return 0.94 + 0.24 * max(0.0, upward)


def _strips(easel: Easel, body: Body) -> None:
    """Draw the strips that face the camera, the farthest first."""
    toward = math.cos(math.radians(easel.yaw))
    edges = range(len(body.roles))
    middle = {i: sum(x for x, _ in body.profile[i : i + 2]) * toward for i in edges}
    for edge in sorted(edges, key=lambda i: -middle[i]):
        pixels = easel.patch(body, edge, (0.0, 1.0), (-1.0, 1.0))
        if not facing(pixels):
            continue
        easel.paint(pixels, _strip_shade(body, edge))
        easel.crease(np.vstack([pixels, pixels[:1]]), 0.6)
        _decorate(easel, body, edge, body.roles[edge], front=edge < len(body.roles) // 2)


def _near_side(easel: Easel, body: Body) -> None:
    """Draw the side that faces the camera, its windows and what runs along it."""
    pixels = easel.side(body, body.profile)
    if not facing(pixels) or abs(math.sin(math.radians(easel.yaw))) < 0.05:
        return
    easel.paint(pixels, 0.74)
    if body.taper < 1:
        shoulder = [p for p in body.profile if p[1] >= body.belt - 0.01]
        easel.paint(easel.side(body, shoulder), 0.86)
    low = min(z for _, z in body.profile)
    ends = (body.profile[0][0], body.profile[-1][0])
    if "cladding" in body.extras:
        band = [(ends[0], low), (ends[0], low + 0.2), (ends[1], low + 0.2), (ends[1], low)]
        easel.part(easel.side(body, band), _TRIM)
    if "stripe" in body.extras:
        band = [(1.3, 0.95), (1.3, 1.15), (ends[1] - 0.1, 1.15), (ends[1] - 0.1, 0.95)]
        easel.part(easel.side(body, band), _PLATE)
    if "ribs" in body.extras:
        for x in np.linspace(ends[0] + 0.4, ends[1] - 0.4, 8):
            easel.crease(easel.side(body, [(x, low + 0.1), (x, body.height - 0.1)]), 0.6)
    if "panels" in body.extras:
        for x in (2.15, 3.5):
            easel.crease(easel.side(body, [(x, 0.5), (x, 2.1)]), 0.55)
    for window in body.windows:
        easel.part(easel.side(body, window), _GLASS)
    waist = body.belt * 0.78
    easel.crease(easel.side(body, [(ends[0] + 0.15, waist), (ends[1] - 0.15, waist)]), 0.95)
    if "checker" in body.extras:
        _checker(easel, body)


def _checker(easel: Easel, body: Body) -> None:
    for i in range(16):
        x, z = 1.0 + i * 0.16, 0.7 + 0.1 * (i % 2)
        square = [(x, z), (x, z + 0.1), (x + 0.16, z + 0.1), (x + 0.16, z)]
        easel.part(easel.side(body, square), _TRIM)


def _wheels_below(easel: Easel, body: Body) -> None:
    """Draw tyres as seen from the ends, before the body covers their upper halves."""
    for x in body.wheels:
        for s in (-0.86, 0.86):
            y, r = s * body.width / 2, body.radius
            box = [(x, y - 0.13, 0.0), (x, y + 0.13, 0.0)]
            box += [(x, y + 0.13, 2 * r), (x, y - 0.13, 2 * r)]
            for dx in (-r, r):
                at = easel.project.pixels([(px + dx, py, pz) for px, py, pz in box])
                easel.part(at, _TYRE)


def _near_wheels(easel: Easel, body: Body) -> None:
    if abs(math.sin(math.radians(easel.yaw))) < 0.3:
        return
    r = body.radius
    for x in body.wheels:
        arch = [p for p in _circle(x, r, 1.18 * r) if p[1] >= 0.3 * r]
        easel.part(easel.side(body, arch), _TRIM)
        easel.part(easel.side(body, _circle(x, r, r)), _TYRE)
        easel.part(easel.side(body, _circle(x, r, 0.6 * r)), _RIM)
        easel.part(easel.side(body, _circle(x, r, 0.2 * r)), _TRIM)


def _block(
    easel: Easel, x: Point, y: Point, z: Point, color: Color | None, shade: float = 1.0
) -> None:
    """Draw a small box: its top and the two walls that can be seen."""
    near = x[0] if math.cos(math.radians(easel.yaw)) > 0 else x[1]
    walls = [
        [(near, y[0], z[0]), (near, y[0], z[1]), (near, y[1], z[1]), (near, y[1], z[0])],
        [(x[0], y[1], z[0]), (x[0], y[1], z[1]), (x[1], y[1], z[1]), (x[1], y[1], z[0])],
        [(x[0], y[0], z[1]), (x[0], y[1], z[1]), (x[1], y[1], z[1]), (x[1], y[0], z[1])],
    ]
    for wall, bright in zip(walls, (0.9, 0.72, 1.15), strict=True):
        pixels = easel.project.pixels(wall)
        if color is None:
            easel.paint(pixels, bright * shade)
        else:
            red, green, blue = (min(255, round(c * bright)) for c in color)
            easel.part(pixels, (red, green, blue))


def _mirrors(easel: Easel, body: Body) -> None:
    screen = body.roles.index("screen")
    x, z = body.profile[screen]
    for s in (-1, 1):
        y = sorted((s * (body.width / 2 - 0.05), s * (body.width / 2 + 0.15)))
        at = (x + 0.25, x + 0.4)
        _block(easel, at, (y[0], y[1]), (z + 0.02, z + 0.02 + 0.11 * body.height), None)


def _extras(easel: Easel, body: Body) -> None:
    if "sign" in body.extras:
        top = body.height
        _block(easel, (2.35, 2.75), (-0.42, 0.42), (top, top + 0.24), (255, 214, 60))
        near = 2.35 if math.cos(math.radians(easel.yaw)) > 0 else 2.75
        word = [(near, y, z) for y, z in ((-0.26, 0.06), (-0.26, 0.17), (0.26, 0.17), (0.26, 0.06))]
        easel.part(easel.project.pixels([(x, y, top + z) for x, y, z in word]), _TRIM)
    if "rails" in body.extras:
        for s in (-1, 1):
            y = s * body.width / 2 * body.taper * 0.95
            top = body.height
            rail = (min(y, y * 0.94), max(y, y * 0.94))
            _block(easel, (1.95, 4.0), rail, (top, top + 0.06), _TRIM)
    if "wing" in body.extras:
        half = body.width / 2 * 0.86
        for strut in (-0.6, 0.6):
            _block(easel, (4.05, 4.15), (strut * half, strut * half + 0.06), (0.8, 1.0), _TRIM)
        _block(easel, (4.0, 4.3), (-half, half), (0.98, 1.05), None)
    if "tailbar" in body.extras and math.cos(math.radians(easel.yaw)) < 0:
        _tail_bar(easel, body)


def _tail_bar(easel: Easel, body: Body) -> None:
    x, half = body.length, body.width / 2
    bar = [(x, -half, 0.5), (x, -half, 0.8), (x, half, 0.8), (x, half, 0.5)]
    easel.part(easel.project.pixels(bar), _TRIM)
    plate = [(x, -0.3, 0.5), (x, -0.3, 0.74), (x, 0.3, 0.74), (x, 0.3, 0.5)]
    easel.part(easel.project.pixels(plate), _PLATE)
    for s in (-1, 1):
        at = [(s * half * 0.6, 0.55), (s * half * 0.6, 0.78), (s * half, 0.78), (s * half, 0.55)]
        easel.lamp(easel.project.pixels([(x, y, z) for y, z in at]), _TAILLIGHT)


def _whole(easel: Easel, body: Body) -> None:
    """Draw body and cargo, whichever is farther away first."""
    members = [body, body.cargo] if body.cargo else [body]
    from_front = math.cos(math.radians(easel.yaw)) > 0
    if from_front:
        members.reverse()
    else:
        _mirrors(easel, body)
    for member in members:
        _strips(easel, member)
        _near_side(easel, member)
    if from_front:
        _mirrors(easel, body)


@lru_cache(maxsize=256)
def sprite(kind: str, yaw: float) -> Sprite:
    """Return one type of vehicle seen from one yaw in degrees, 0 to 180. 10 ms the first time."""
    body = BODIES[kind]
    easel = Easel(body, yaw)
    easel.shadow()
    _wheels_below(easel, body)
    _whole(easel, body)
    _near_wheels(easel, body)
    _extras(easel, body)
    parts = easel.parts.reduce(FINE)
    return Sprite(
        shade=easel.shade.reduce(FINE),
        parts=parts.convert("RGB"),
        parts_mask=parts.getchannel("A"),
        alpha=easel.alpha.reduce(FINE),
        lamps=tuple(easel.lamps),
        front=yaw < 90,
    )
