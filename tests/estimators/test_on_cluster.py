"""Estimators on two processes: the bytes that one process gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client
from numpy.typing import NDArray

from tests.strategies import F32
from tests.two_processes import FileBlocks, two_processes
from vehclust_dask.estimators import (
    HDBSCAN,
    PCA,
    DensityTree,
    GaussianMixture,
    GaussianMixtureSweep,
    KMeans,
    KMeansSweep,
    MiniBatchKMeans,
    Neighbours,
    Ward,
    daskml,
    silhouette_samples,
)

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with two_processes() as client:
        yield client


@pytest.fixture(scope="module")
def rows() -> F32:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((7, 6)) * 3
    values: F32 = (middles[rng.integers(0, 7, 3000)] + rng.standard_normal((3000, 6))).astype(
        np.float32
    )
    return values


def sweep_centers(model: KMeansSweep) -> NDArray[Any]:
    return np.concatenate([m.cluster_centers_ for m in model.models_.values()])


def mixture_means(sweep: GaussianMixtureSweep) -> NDArray[Any]:
    return np.concatenate([m.means_ for m in sweep.models_.values()])


@pytest.mark.parametrize(
    ("estimator", "result"),
    [
        (DensityTree(3), lambda m: m.linkage(3)),
        (HDBSCAN(5, 2, metric="cosine"), lambda m: m.single_linkage_),
        (PCA(3, scale="standard"), lambda m: m.components_),
        (PCA(0.9, scale="l2", solver="qr"), lambda m: m.components_),
        (KMeans(5, sample_size=400, max_iter=4), lambda m: m.cluster_centers_),
        (KMeans(5, init="k-means||", n_init=2, max_iter=3), lambda m: m.cluster_centers_),
        (KMeansSweep([2, 3, 7], sample_size=400, n_init=2, max_iter=4), sweep_centers),
        (MiniBatchKMeans(5, batch_size=256, sample_size=400), lambda m: m.cluster_centers_),
        (GaussianMixture(4, sample_size=400, n_init=2, max_iter=4), lambda m: m.covariances_),
        (
            GaussianMixtureSweep([2, 5], covariance_type="tied", precision="float32", max_iter=3),
            mixture_means,
        ),
        (Neighbours(6), lambda m: np.hstack([m.indices_, m.sq_distances_])),
        (
            Ward(3, n_neighbors=8),
            lambda m: np.concatenate([m.linkage_.ravel(), m.centers(4).ravel()]),
        ),
        (
            Neighbours(6, metric="cosine", method="cells", n_cells=30, n_probe=3),
            lambda m: np.hstack([m.indices_, m.sq_distances_]),
        ),
        (Neighbours(6, metric="cosine"), lambda m: np.hstack([m.indices_, m.sq_distances_])),
    ],
    ids=lambda value: repr(value) if hasattr(value, "fit") else "",
)
def test_fit__two_processes_give_the_same_bytes(
    client: Client,
    tmp_path: Path,
    rows: F32,
    estimator: Any,
    result: Callable[[Any], NDArray[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 800)
    blocks = FileBlocks.of(tmp_path, rows, 400)
    alone = result(estimator.fit(blocks)).tobytes()
    with client.as_current():
        together = result(estimator.fit(blocks)).tobytes()
    assert together == alone


def test_silhouettes__two_processes_give_the_same_bytes(
    client: Client, tmp_path: Path, rows: F32, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 800)
    blocks = FileBlocks.of(tmp_path, rows, 400)
    labels = np.random.default_rng(1).integers(-1, 5, (len(rows), 2))
    alone = silhouette_samples(blocks, labels)
    with client.as_current():
        together = silhouette_samples(blocks, labels)
        lazy = silhouette_samples(da.from_array(rows, chunks=(400, 6)), labels)
    assert together.tobytes() == alone.tobytes()
    np.testing.assert_allclose(lazy, alone, rtol=0, atol=1e-6)


def test_fit__of_a_dask_array_uses_the_cluster(client: Client, rows: F32) -> None:
    X = np.tile(rows, (45, 1))
    wanted = KMeans(4, sample_size=500, max_iter=2).fit(X)
    with client.as_current():
        lazy = da.from_array(X, chunks=(50_000, 6))
        found = KMeans(4, sample_size=500, max_iter=2).fit(lazy)
        labels = found.predict(lazy).compute()
    assert found.cluster_centers_.tobytes() == wanted.cluster_centers_.tobytes()
    np.testing.assert_array_equal(labels, wanted.labels_)


def test_neighbours__of_a_dask_array_are_searched_on_the_cluster(
    client: Client, rows: F32, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 800)
    for options in ({}, {"method": "cells", "n_cells": 30, "n_probe": 3}):
        wanted = Neighbours(6, **options).fit(rows)
        with client.as_current():
            found = Neighbours(6, **options).fit(da.from_array(rows, chunks=(700, 6)))
        np.testing.assert_array_equal(found.indices_, wanted.indices_)
        assert found.sq_distances_.tobytes() == wanted.sq_distances_.tobytes()


def test_minibatch_kmeans__of_dask_ml_runs_on_the_cluster(
    client: Client, tmp_path: Path, rows: F32
) -> None:
    blocks = FileBlocks.of(tmp_path, rows, 512)
    with client.as_current():
        centers, n_steps = daskml.minibatch_kmeans(blocks, 4, batch_size=256, seed=0)
    assert centers.shape == (4, 6)
    assert np.isfinite(centers).all()
    assert n_steps >= 1
