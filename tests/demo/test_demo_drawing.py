from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vehclust_dask.demo import drawing, latent, scenes
from vehclust_dask.demo.bodies import BODIES
from vehclust_dask.demo.latent import Latents
from vehclust_dask.demo.sprites import sprite

SEED = 2


def _one(**shown: str | int) -> Latents:
    """A chunk whose photos all show the same, drawn by different chances."""
    levels = {
        "type": latent.TYPES,
        "color": latent.COLORS,
        "view": latent.VIEWS,
        "light": latent.LIGHTS,
        "quality": latent.QUALITIES,
    }
    n = latent.CHUNK_ROWS
    fields = {name: np.full(n, names.index(str(shown.get(name, names[0])))) for name, names in
              levels.items()}  # fmt: skip
    camera = np.full(n, shown.get("camera", 0))
    return Latents(0, np.arange(n) // 11 + 1, **fields, camera=camera,
                   duplicate_of=np.full(n, -1))  # fmt: skip


def _draw(rows: Latents, n: int = 12) -> list[np.ndarray]:
    chances = drawing.photo_chances(SEED, 0, rows)
    paints = drawing.vehicle_paints(SEED, 0)
    return [np.asarray(drawing.draw_photo(rows, i, chances, paints), float) for i in range(n)]


@pytest.mark.parametrize("kind", latent.TYPES)
def test_sprite__shows_lamps_of_the_end_it_turns_to_the_camera(kind: str) -> None:
    front, rear = sprite(kind, 3.0), sprite(kind, 177.0)
    for drawn in (front, rear):
        assert len(drawn.lamps) == 2
        assert all(0 < x < 1 and 0 < y < 1 for x, y in drawn.lamps)
    assert (front.front, rear.front) == (True, False)
    x, y = front.lamps[0]
    wide, tall = front.parts.size
    red, _, blue = front.parts.getpixel((int(x * wide), int(y * tall)))
    assert min(red, blue) > 180
    x, y = rear.lamps[0]
    wide, tall = rear.parts.size
    red, _, blue = rear.parts.getpixel((int(x * wide), int(y * tall)))
    assert red > 120 > blue


def test_sprite__silhouettes_of_types_differ() -> None:
    shapes = {}
    for kind in BODIES:
        alpha = sprite(kind, 34.0).alpha
        shapes[kind] = np.asarray(alpha.resize((40, 40)), float) > 128
    names = list(shapes)
    for i, a in enumerate(names):
        for b in names[:i]:
            # The roof sign is all that sets a taxi apart.
            least = 0.01 if {a, b} == {"sedan", "taxi"} else 0.03
            assert (shapes[a] != shapes[b]).mean() > least, (a, b)


@pytest.mark.parametrize("color", latent.COLORS)
def test_draw_photo__paint_is_nearest_to_its_color(color: str) -> None:
    names = list(drawing.PAINTS)
    paints = np.array([drawing.PAINTS[name] for name in names], float)
    right = 0
    for picture in _draw(_one(type="van", color=color, view="rear")):
        tall, wide = picture.shape[:2]
        # The doors below the windows of a van seen from behind.
        patch = picture[int(0.6 * tall) : int(0.64 * tall), int(0.32 * wide) : int(0.42 * wide)]
        seen = np.median(patch.reshape(-1, 3), axis=0)
        right += names[int(np.linalg.norm(paints - seen, axis=1).argmin())] == color
    assert right >= 9


def test_draw_photo__sizes_vary_and_fit_the_view() -> None:
    angled = [p.shape for p in _draw(_one(type="sedan", view="angled"), 40)]
    front = [p.shape for p in _draw(_one(type="bus", view="front"), 40)]
    for tall, wide, bands in angled + front:
        assert bands == 3
        assert 96 <= wide <= 160
        assert 60 <= tall <= scenes.SCENE_SIZE[1]
    assert all(tall < wide for tall, wide, _ in angled)
    assert all(tall > wide for tall, wide, _ in front)
    assert len({shape[1] for shape in angled}) > 15


def test_draw_photo__light_and_bad_pictures_change_the_brightness() -> None:
    def mean(**shown: str) -> float:
        return float(np.mean([p.mean() for p in _draw(_one(**shown))]))

    day, dusk, dark = mean(light="day"), mean(light="dusk"), mean(light="night")
    assert day > 1.2 * dusk > 1.2 * 1.2 * dark
    assert mean(light="night", quality="night") < 0.35 * dark
    glare = _draw(_one(light="night", quality="glare"))
    assert all((p.min(axis=2) > 240).mean() > 0.12 for p in glare)


def test_draw_photo__shows_no_vehicle_where_there_is_none() -> None:
    red = _draw(_one(color="red", quality="no-vehicle"))
    blue = _draw(_one(color="blue", quality="no-vehicle"))
    for a, b in zip(red, blue, strict=True):
        np.testing.assert_array_equal(a, b)


def test_draw_photo__marks_cameras_with_stripes_and_branches() -> None:
    def yellow(picture: np.ndarray) -> float:
        r, g, b = picture.transpose(2, 0, 1)
        return float(((r > 170) & (g > 120) & (b < 90)).mean())

    def green(picture: np.ndarray) -> float:
        r, g, b = picture[: len(picture) // 4].transpose(2, 0, 1)
        return float(((g > r + 15) & (g > b + 15)).mean())

    striped = _draw(_one(color="white", camera=latent.MARKING_CAMERAS[0]))
    hidden = _draw(_one(color="white", camera=latent.BRANCH_CAMERAS[0]))
    assert min(map(yellow, striped)) > 0.02 > max(map(yellow, hidden))
    assert min(map(green, hidden)) > 0.03


def test_draw_photo__repeated_frames_look_almost_the_same() -> None:
    rows = latent.latent_chunk(SEED, 0)
    chances = drawing.photo_chances(SEED, 0, rows)
    paints = drawing.vehicle_paints(SEED, 0)

    def small(i: int) -> np.ndarray:
        picture = drawing.draw_photo(rows, i, chances, paints)
        return np.asarray(picture.resize((48, 48)), float)

    repeated = np.flatnonzero((rows.duplicate_of >= 0) & (rows.quality == latent.OK))
    same = [np.abs(small(i) - small(i - 1)).mean() for i in repeated]
    apart = [np.abs(small(i) - small(i - 2)).mean() for i in repeated]
    assert max(same) < 12
    assert np.median(same) < 0.3 * np.median(apart)
    assert min(same) > 0


def test_to_jpeg__gives_the_same_bytes_for_the_same_photo() -> None:
    rows = latent.latent_chunk(SEED, 0)
    chances = drawing.photo_chances(SEED, 0, rows)
    paints = drawing.vehicle_paints(SEED, 0)
    first, second = (
        drawing.to_jpeg(drawing.draw_photo(rows, 5, chances, paints)) for _ in range(2)
    )
    assert first == second
    with Image.open(io.BytesIO(first)) as photo:
        assert photo.format == "JPEG"
