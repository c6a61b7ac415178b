"""Gaussian mixtures in a job: tables, criteria, what a stop leaves, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.job.conftest import Site
from tests.job.test_plan import chunk_bytes, planned
from vehclust_dask.errors import UsageError
from vehclust_dask.estimators import GaussianMixtureSweep
from vehclust_dask.estimators.em import MixtureState
from vehclust_dask.estimators.lloyd import LloydState
from vehclust_dask.job import mixtures
from vehclust_dask.job.mixtures import load_mixtures, save_mixtures
from vehclust_dask.job.spec import load_job
from vehclust_dask.kernels.mixture import KINDS, PRECISIONS
from vehclust_dask.records import ArrayBlocks


def studies(**more: Any) -> dict[str, Any]:
    """Return a study of mixtures on the rows as they are."""
    cluster = {
        "gm": {"method": "gaussian-mixture", "n_clusters": [1, 3, 4], "n_init": 2} | more,
        "km": {"method": "kmeans", "n_clusters": 4, "n_init": 2},
    }
    return {"one": {"descriptors": ["a"], "reduce": "none", "cluster": cluster, "featured": "gm/4"}}


def fitted(site: Site, **params: Any) -> GaussianMixtureSweep:
    sweep = GaussianMixtureSweep([1, 3, 4], n_init=2, random_state=1, **params)
    return sweep.fit(ArrayBlocks.of(site.A, block_rows=64))


def test_run__places_rows_as_the_estimator_does(site: Site) -> None:
    folder = site.finished(site.job(studies=studies()))
    labels = site.labels(folder)
    places = ["second", "sq_dist", "margin", "resp", "second_resp"]
    assert list(labels) == ["row", "path", "gm_1", "gm_3", "gm_4", *places, "km_4"]
    assert labels.dtypes[["gm_4", *places]].astype(str).tolist() == ["int16"] * 2 + ["float32"] * 4
    model = fitted(site).models_[4]
    components, resp = model.top_two(site.A)
    np.testing.assert_array_equal(labels[["gm_4", "second"]], components)
    np.testing.assert_array_equal(labels[["resp", "second_resp"]], resp.astype(np.float32))
    np.testing.assert_allclose(labels["margin"], resp[:, 0] - resp[:, 1], rtol=1e-6)
    own = model.means_[components[:, 0]]
    np.testing.assert_allclose(labels["sq_dist"], np.square(site.A - own).sum(axis=1), rtol=1e-5)


def test_run__scores_have_the_criteria_of_mixtures(site: Site) -> None:
    folder = site.finished(site.job(studies=studies()))
    scores = pd.read_parquet(folder / "tables" / "scores.parquet").set_index(["clustering", "k"])
    models = fitted(site).models_
    for k, model in models.items():
        row = scores.loc["gm", k]
        assert row["bic"] == pytest.approx(model.bic(), rel=1e-12)
        assert row["aic"] == pytest.approx(model.aic(), rel=1e-12)
        assert row["log_likelihood"] == pytest.approx(model.log_likelihood_, rel=1e-12)
        assert (row["n_iter"], row["converged"]) == (model.n_iter_, model.converged_)
    assert scores.loc["km", ["bic", "aic", "log_likelihood"]].isna().all(axis=None)


@pytest.mark.parametrize("stop", [1, 3, 9, 14])
def test_stopped_run__goes_on_to_the_same_bytes(
    site: Site, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    class Stopped(Exception):
        pass

    calls = 0
    told = GaussianMixtureSweep.fit_mixtures
    given: list[Any] = []

    def stopping(self: Any, X: Any, *, on_state: Any, state: Any, **more: Any) -> Any:
        given.append(state)

        def counted(found: LloydState | MixtureState) -> None:
            nonlocal calls
            on_state(found)
            calls += 1
            if calls == stop:
                raise Stopped

        return told(self, X, on_state=counted, state=state, **more)

    monkeypatch.setattr("vehclust_dask.job.clustering.SAVE_EVERY", -1.0)
    monkeypatch.setattr(GaussianMixtureSweep, "fit_mixtures", stopping)
    job = site.job(studies=studies(tol=0, max_iter=12))
    with pytest.raises(Stopped):
        site.run(job)
    again = site.labels(site.finished(job))
    assert given[0] is None
    assert isinstance(given[1], LloydState if stop < 3 else MixtureState)
    (site.folder / "elsewhere").mkdir()
    elsewhere = Site(site.folder / "elsewhere")
    monkeypatch.setattr(GaussianMixtureSweep, "fit_mixtures", told)
    whole = elsewhere.labels(elsewhere.finished(elsewhere.job(studies=studies(tol=0, max_iter=12))))
    pd.testing.assert_frame_equal(again, whole)
    (step,) = (site.workdir / "steps").glob("mixture-*")
    assert sorted(p.name for p in step.iterdir()) == [
        "clusters.zarr",
        "manifest.json",
        "mixtures.npz",
    ]


def test_save__and_load_keep_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)).astype(np.float32)
    for kind in KINDS:
        state = GaussianMixtureSweep([1, 3], covariance_type=kind, max_iter=2).fit_mixtures(X)
        save_mixtures(tmp_path / "s.npz", state)
        again = load_mixtures(tmp_path / "s.npz")
        for a, b in zip(state.mixtures, again.mixtures, strict=True):
            assert a.kind == b.kind
            for part in ("weights", "means", "covariances", "factors"):
                assert getattr(a, part).tobytes() == getattr(b, part).tobytes()
        assert (state.n_iter, state.done, state.converged, state.lower_bound) == (
            again.n_iter,
            again.done,
            again.converged,
            again.lower_bound,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_changed_covariance__is_another_step_and_the_same_is_found(site: Site) -> None:
    site.finished(site.job(studies=studies()))
    steps = site.workdir / "steps"
    assert len(list(steps.glob("mixture-*"))) == 1
    site.finished(site.job(studies=studies(covariance="diag")))
    assert len(list(steps.glob("mixture-*"))) == 2
    ended = site.run(site.job(name="other", studies=studies()))
    assert ended.code == 0
    assert len(list(steps.glob("mixture-*"))) == 2


@pytest.mark.parametrize("covariance", KINDS)
def test_plan__is_an_upper_bound(site: Site, covariance: str) -> None:
    job = site.job(studies=studies(covariance=covariance))
    step = planned(site, job)["one/gm: gaussian-mixture"]
    site.finished(job)
    (folder,) = (site.workdir / "steps").glob("mixture-*")
    parameters = (folder / mixtures.MIXTURES).stat().st_size
    slack = 6 * 5 * 4 + 64 * 300  # checksums of chunks, names of arrays
    assert chunk_bytes(folder) + parameters <= step.disk_bytes + slack
    assert step.task_bytes >= 4 * 64 * 6 + 8 * 4 * 6


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"covariance": "round"}, ".covariance: 'round' is not known; allowed: diag, full"),
        ({"precision": "float16"}, ".precision: 'float16' is not known; did you mean"),
        ({"reg_covar": -1}, ".reg_covar: got -1, expected a number of 0 or more"),
        ({"tol": "small"}, ".tol: got 'small', expected a number of 0 or more"),
        ({"init": "k-means||"}, ".init: has no meaning for method gaussian-mixture; take it out"),
        ({"batch_size": 9}, ".batch_size: has no meaning for method gaussian-mixture"),
        ({"engine": "dask-ml"}, ".engine: 'dask-ml' is not known; allowed: vehclust"),
        ({"covarianc": "diag"}, ": unknown key 'covarianc'; did you mean 'covariance'?"),
        (
            {"method": "kmeans", "covariance": "diag"},
            ".covariance: has no meaning for method kmeans",
        ),
        ({"method": "kmeans", "reg_covar": 1}, ".reg_covar: has no meaning for method kmeans"),
    ],
)
def test_load__refuses_with_place_and_remedy(
    site: Site, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_job(site.job(studies=studies(**more)), workdir=str(site.workdir))
    assert f"studies.one.cluster.gm{sentence}" in str(caught.value)


def test_load__knows_the_defaults_of_mixtures(site: Site) -> None:
    job = load_job(site.job(studies=studies(n_init=None)), workdir=str(site.workdir))
    spec = job.studies[0].cluster[0]
    assert (spec.covariance, spec.reg_covar, spec.precision) == ("full", 1e-6, PRECISIONS[0])
    assert (spec.n_init, spec.max_iter, spec.tol) == (1, 100, 1e-3)


def test_run__of_a_component_that_collapses_is_told_in_one_sentence(site: Site) -> None:
    site.save("a.npy", np.repeat(np.eye(6, dtype=np.float32), 50, axis=0))
    ended = site.run(site.job(studies=studies(reg_covar=0)))
    assert ended.code == 3
    assert "no spread in some direction" in ended.err
    assert "raise reg_covar=0" in ended.err
