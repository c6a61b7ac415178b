from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vehclust_dask.demo import latent
from vehclust_dask.demo.latent import Latents

N_CHUNKS = 40


@pytest.fixture(scope="module")
def many() -> list[Latents]:
    return [latent.latent_chunk(3, chunk) for chunk in range(N_CHUNKS)]


def _all(many: list[Latents], field: str) -> np.ndarray:
    return np.concatenate([getattr(rows, field) for rows in many])


def test_latent_chunk__is_a_function_of_seed_and_chunk() -> None:
    first, second = latent.latent_chunk(5, 2), latent.latent_chunk(5, 2)
    other = latent.latent_chunk(6, 2)
    for field in dataclasses.fields(Latents):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert not np.array_equal(first.type, other.type)


def test_latent_chunk__holds_whole_vehicles_in_order(many: list[Latents]) -> None:
    for chunk, rows in enumerate(many):
        assert rows.n_rows == latent.CHUNK_ROWS
        ids = np.unique(rows.vehicle)
        np.testing.assert_array_equal(ids, 1 + chunk * 100 + np.arange(100))
        assert (np.diff(rows.vehicle) >= 0).all()
    counts = np.bincount(_all(many, "vehicle"))[1:]
    assert counts.min() >= 1
    assert counts.max() > 25


@pytest.mark.parametrize("field", ["type", "color"])
def test_latent_chunk__vehicles_keep_type_and_color(many: list[Latents], field: str) -> None:
    vehicle, level = _all(many, "vehicle"), _all(many, field)
    pairs = np.unique(np.stack([vehicle, level]), axis=1)
    assert pairs.shape[1] == len(np.unique(vehicle))


def test_latent_chunk__vehicles_meet_several_cameras_and_views(many: list[Latents]) -> None:
    vehicle = _all(many, "vehicle")
    for field, least in (("camera", 2.5), ("view", 2.0)):
        pairs = np.unique(np.stack([vehicle, _all(many, field)]), axis=1)
        assert pairs.shape[1] / len(np.unique(vehicle)) > least


def test_latent_chunk__shares_are_those_asked_for(many: list[Latents]) -> None:
    quality, n = _all(many, "quality"), N_CHUNKS * latent.CHUNK_ROWS
    assert 0.012 < (quality != latent.OK).mean() < 0.018
    assert 0.015 < (_all(many, "duplicate_of") >= 0).mean() < 0.025
    for level in range(1, 4):
        assert abs((quality == level).mean() - latent.QUALITY_SHARES[level]) < 0.0015
    sizes = np.bincount(_all(many, "type"), minlength=10) / n
    np.testing.assert_allclose(sizes, latent.TYPE_SHARES, atol=0.03)
    assert set(_all(many, "color")) == set(range(len(latent.COLORS)))


def test_latent_chunk__repeated_frames_show_what_they_repeat(many: list[Latents]) -> None:
    repeated = np.flatnonzero(_all(many, "duplicate_of") >= 0)
    source = _all(many, "duplicate_of")[repeated]
    np.testing.assert_array_equal(source, repeated - 1)
    assert not np.isin(source, repeated).any()
    for field in ("vehicle", "view", "camera", "light", "quality"):
        level = _all(many, field)
        np.testing.assert_array_equal(level[repeated], level[source])


def test_n_vehicles__counts_the_first_rows() -> None:
    vehicle = np.concatenate([latent.latent_chunk(1, chunk).vehicle for chunk in range(3)])
    for rows in (1, 2, 500, 1024, 1025, 3000):
        assert latent.n_vehicles(1, rows) == len(np.unique(vehicle[:rows]))


def test_shares__add_up_to_one() -> None:
    for shares in (latent.color_shares(), latent.view_shares()):
        np.testing.assert_allclose(shares.sum(axis=1), 1)
    for shares in (latent.TYPE_SHARES, latent.LIGHT_SHARES, latent.QUALITY_SHARES):
        assert sum(shares) == pytest.approx(1)
