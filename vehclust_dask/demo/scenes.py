"""What the forty cameras see without a vehicle: road, lines, markings, verges, branches."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from vehclust_dask.demo import latent

#: Size of a scene; photos are cut from its lower middle.
SCENE_SIZE = (208, 300)
#: Red, green and blue of each light, as shares of daylight; for the road, and for vehicles, which
#: have light of their own and must stay recognisable.
ROAD_LIGHT = ((1.0, 1.0, 1.0), (0.66, 0.56, 0.52), (0.24, 0.27, 0.36))
PAINT_LIGHT = ((1.0, 1.0, 1.0), (0.8, 0.74, 0.7), (0.5, 0.52, 0.59))

_WORLD_SEED = 40
_GRAIN_SIZE = 512
#: Half the width of the grain in levels of 255.
_GRAIN = 5
_YELLOW = (238, 190, 24)
_DARK = (30, 30, 32)
_LINE = (218, 218, 212)


def _random(camera: int, what: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence((_WORLD_SEED, camera, what)))
    )


@lru_cache(maxsize=1)
def grain() -> Image.Image:
    """Return noise around 128, to be added to a picture with an offset of -128."""
    rng = _random(0, 9)
    fine = rng.normal(0, _GRAIN, (_GRAIN_SIZE, _GRAIN_SIZE, 1))
    tint = rng.normal(0, _GRAIN / 3, (_GRAIN_SIZE, _GRAIN_SIZE, 3))
    return Image.fromarray(np.clip(128 + fine + tint, 0, 255).astype(np.uint8), "RGB")


def light_table(light: tuple[float, float, float]) -> list[int]:
    """Return the 768 entries that ``Image.point`` needs to put a picture into this light."""
    return [round(level * share) for share in light for level in range(256)]


def _asphalt(rng: np.random.Generator) -> Image.Image:
    """Return road of one camera's own tone with patches and coarse grain."""
    wide, tall = SCENE_SIZE
    tone = rng.uniform(88, 138) + rng.uniform(-9, 9, 3)
    patches = rng.normal(0, 9, (tall // 24 + 2, wide // 24 + 2)).astype(np.float32)
    soft = np.asarray(Image.fromarray(patches).resize(SCENE_SIZE, Image.Resampling.BICUBIC))
    coarse = rng.normal(0, 4, (tall, wide))
    falling = np.linspace(14, -10, tall)[:, None]
    picture = (soft + coarse + falling)[:, :, None] + tone
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8), "RGB")


def _lane_lines(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw two lane lines that meet far away; some cameras see them dashed."""
    wide, tall = SCENE_SIZE
    lean = rng.uniform(-40, 40)
    dashed = rng.random() < 0.5
    for side in (-1, 1):
        low, high = wide / 2 + side * 92, wide / 2 + side * 38 + lean
        steps = 7 if dashed else 1
        for i in range(steps):
            a, b = i / steps, (i + (0.55 if dashed else 1)) / steps
            x0, x1 = low + (high - low) * a, low + (high - low) * b
            y0, y1 = tall * (1 - a), tall * (1 - b)
            w0, w1 = 4 - 2.5 * a, 4 - 2.5 * b
            draw.polygon([(x0 - w0, y0), (x1 - w1, y1), (x1 + w1, y1), (x0 + w0, y0)], fill=_LINE)


def _verge(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw a strip of grass or pavement with its kerb along one side."""
    wide, tall = SCENE_SIZE
    color = (84, 118, 62) if rng.random() < 0.6 else (168, 160, 148)
    mirrored = rng.random() < 0.5
    width = rng.uniform(20, 46)
    edge = [(0, 0), (width + 50, 0), (width - 6, tall), (0, tall)]
    kerb = [(width + 46, 0), (width + 54, 0), (width - 1, tall), (width - 11, tall)]
    for outline, fill in ((edge, color), (kerb, (196, 194, 188))):
        draw.polygon([(wide - x if mirrored else x, y) for x, y in outline], fill=fill)


def _crossing(draw: ImageDraw.ImageDraw) -> None:
    wide, tall = SCENE_SIZE
    for i in range(6):
        x = i * wide / 6 + 6
        top, low = tall * 0.62, tall * 0.8
        draw.polygon([(x + 4, top), (x + 20, top), (x + 18, low), (x, low)], fill=_LINE)


def _marking(draw: ImageDraw.ImageDraw) -> None:
    """Draw the yellow and black stripes that take up much of two cameras' pictures."""
    wide, tall = SCENE_SIZE
    top, low = tall - 62, tall - 8
    draw.rectangle([(0, top), (wide, low)], fill=_DARK)
    for x in range(-60, wide, 44):
        stripe = [(x, low), (x + 22, low), (x + 22 + 40, top), (x + 40, top)]
        draw.polygon(stripe, fill=_YELLOW)
    for x in (0, wide - 14):
        draw.rectangle([(x, 0), (x + 14, tall)], fill=_YELLOW)
        for y in range(0, tall, 40):
            draw.polygon([(x, y), (x + 14, y - 12), (x + 14, y + 8), (x, y + 20)], fill=_DARK)


@lru_cache(maxsize=latent.N_CAMERAS)
def _day(camera: int) -> Image.Image:
    rng = _random(camera, 0)
    scene = _asphalt(rng)
    draw = ImageDraw.Draw(scene)
    if camera % 3 != 1:
        _verge(draw, rng)
    if camera % 4 != 3:
        _lane_lines(draw, rng)
    if camera % 10 == 8:
        _crossing(draw)
    if camera in latent.MARKING_CAMERAS:
        _marking(draw)
    rough = scene.filter(ImageFilter.GaussianBlur(0.8))
    return ImageChops.add(rough, grain().crop((0, 0, *SCENE_SIZE)), offset=-128)


@lru_cache(maxsize=3 * latent.N_CAMERAS)
def scene(camera: int, light: int) -> Image.Image:
    """Return the empty road of a camera in one light, an RGB image of ``SCENE_SIZE``."""
    return _day(camera).point(light_table(ROAD_LIGHT[light]))


@lru_cache(maxsize=3 * latent.N_CAMERAS)
def branches(camera: int, light: int) -> Image.Image | None:
    """Return what hangs before a camera, anchored at the upper left; None for most cameras."""
    if camera not in latent.BRANCH_CAMERAS:
        return None
    rng = _random(camera, 1)
    fine = 3
    overlay = Image.new("RGBA", (SCENE_SIZE[0] * fine, SCENE_SIZE[1] * fine), (52, 84, 34, 0))
    draw = ImageDraw.Draw(overlay)
    for _ in range(6):
        x, y = rng.uniform(-14, 44) * fine, -6.0 * fine
        turn = rng.uniform(0.1, 1.2)
        for _ in range(6):
            x1, y1 = x + 7 * fine * np.cos(turn), y + 7 * fine * np.sin(turn)
            draw.line([(x, y), (x1, y1)], fill=(72, 54, 36, 255), width=2 * fine)
            for _ in range(4):
                lx, ly = x1 + rng.normal(0, 5 * fine), y1 + rng.normal(0, 5 * fine)
                r, g = rng.uniform(1.6, 3.6, 2) * fine
                green = (int(rng.uniform(44, 84)), int(rng.uniform(76, 112)), 46, 255)
                draw.ellipse([(lx - r, ly - g), (lx + r, ly + g)], fill=green)
            x, y, turn = x1, y1, turn + rng.normal(-0.05, 0.25)
    small = overlay.reduce(fine)
    lit = small.convert("RGB").point(light_table(ROAD_LIGHT[light]))
    lit.putalpha(small.getchannel("A"))
    return lit


@lru_cache(maxsize=64)
def glow(radius: int, front: bool) -> Image.Image:
    """Return the bloom of a lamp on black, to be added to a picture."""
    at = np.arange(-radius, radius + 1) / radius
    near = np.clip(1 - np.hypot(at[:, None], at[None, :]), 0, 1)
    core = np.clip(near**3 * 1.6, 0, 1)[:, :, None]
    color = np.array((255, 246, 214) if front else (230, 24, 20))
    return Image.fromarray((core * color).astype(np.uint8), "RGB")
