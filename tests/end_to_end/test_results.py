"""A whole job on a running scheduler, checked against numpy and scikit-learn on the same rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from tests.end_to_end.conftest import Case, Reference, digests, run_cli, run_of

pytestmark = pytest.mark.cluster

STUDIES = """
studies:
  plain:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: "2..5", n_init: 2}
      dml: {method: kmeans, n_clusters: 2, max_iter: 3, engine: dask-ml}
      dmb: {method: minibatch-kmeans, n_clusters: 3, batch_size: 512, engine: dask-ml}
    featured: km/5
  plain-dask-ml:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8, engine: dask-ml}
    cluster:
      km: {method: kmeans, n_clusters: 3, n_init: 2}
  none: {descriptors: [b], reduce: none, cluster: &one {km: {method: kmeans, n_clusters: 3, n_init: 2}}}
  minmax: {descriptors: [b, a], scale: minmax, reduce: none, cluster: *one}
  unit: {descriptors: [a, b], scale: l2, reduce: {method: pca, variance: 0.9}, cluster: *one}
"""


@dataclass(frozen=True)
class Whole:
    """A finished run of many studies, beside the one of the reference."""

    workdir: Path
    folder: Path
    manifest: dict[str, Any]
    scores: pd.DataFrame
    err: str

    def labels(self, study: str) -> pd.DataFrame:
        """Return the labels of a study."""
        return pd.read_parquet(self.folder / "tables" / f"labels-{study}.parquet")

    def centers(self, study: str, clustering: str, k: int) -> np.ndarray:
        """Return the centers of a clustering."""
        record = self.manifest["studies"][study]["clusterings"][clustering]
        with np.load(self.workdir / "steps" / record["step"] / "centers.npz") as stored:
            return stored[f"centers_{record['k'].index(k)}"]

    def rows(self, study: str) -> np.ndarray:
        """Return the rows a study clustered, as any tool would read them."""
        (step,) = [s for s in self.manifest["studies"][study]["steps"] if s.startswith("reduced")]
        return zarr.open_array(
            self.workdir / "steps" / step / "reduced.zarr/Z/part-0000", mode="r"
        )[:]


@pytest.fixture(scope="module")
def whole(
    case: Case, reference: Reference, warm: str, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    file = tmp_path_factory.mktemp("whole") / "whole.yaml"
    job = case.job(file, name="whole", data="  photos: photos.zip\n", studies=STUDIES)
    file.write_text(
        job.read_text().replace("sheets: none", "sheets: featured, photos_per_sheet: 6")
    )
    done = run_cli("run", file, "--workdir", reference.workdir, "--scheduler", warm)
    assert done.code == 0, done.err
    folder = run_of(reference.workdir, "whole")
    manifest = json.loads((folder / "manifest.json").read_text())
    scores = pd.read_csv(folder / "tables" / "scores.csv", keep_default_na=False)
    return Whole(reference.workdir, folder, manifest, scores, done.err)


def standard(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float64)
    return (X - X.mean(axis=0)) / X.std(axis=0)


def numpy_rows(case: Case, study: str) -> np.ndarray:
    """Return a study's rows before components, made by numpy."""
    A, B = case.A.astype(np.float64), case.B.astype(np.float64)
    if study == "unit":
        return np.hstack([X / np.linalg.norm(X, axis=1, keepdims=True) for X in (A, B)])
    if study == "minmax":
        joined = np.hstack([B, A])
        low, high = joined.min(axis=0), joined.max(axis=0)
        return (joined - low) / (high - low)
    return B if study == "none" else standard(A)


def clustered_rows(case: Case, whole: Whole, study: str) -> np.ndarray:
    return case.B if study == "none" else whole.rows(study)


def test_steps__that_other_jobs_made_are_shared(whole: Whole) -> None:
    assert "a: 4,000 x 32 already converted" in whole.err
    assert "plain: moments of a: already there" in whole.err
    assert "plain: 4,000 x 8 reduced rows: already there" in whole.err


def test_scale__equals_numpy(case: Case, whole: Whole) -> None:
    np.testing.assert_allclose(whole.rows("minmax"), numpy_rows(case, "minmax"), atol=2e-6)


def test_rows__that_do_not_change_are_not_written_again(case: Case, whole: Whole) -> None:
    assert whole.manifest["studies"]["none"]["steps"] == []
    sizes = {f.parent.parent.name for f in whole.workdir.glob("steps/*/reduced.zarr/Z")}
    assert sizes == {
        s for r in whole.manifest["studies"].values() for s in r["steps"] if "reduced" in s
    }


@pytest.mark.parametrize("study", ["plain", "unit"])
def test_pca__equals_scikit_learns_full_svd(case: Case, whole: Whole, study: str) -> None:
    X = numpy_rows(case, study)
    oracle = PCA(svd_solver="full").fit(X)
    (step,) = [s for s in whole.manifest["studies"][study]["steps"] if s.startswith("pca")]
    with np.load(whole.workdir / "steps" / step / "pca.npz") as stored:
        kept = {name: stored[name] for name in stored.files}
    n = whole.manifest["studies"][study]["columns"]
    if study == "unit":
        assert n == int(np.searchsorted(np.cumsum(oracle.explained_variance_ratio_), 0.9)) + 1
    spectrum = kept["spectrum"] if "spectrum" in kept else kept["spectrum_"]
    np.testing.assert_allclose(spectrum, oracle.explained_variance_, rtol=1e-4)
    Z = (X - oracle.mean_) @ oracle.components_[:n].T
    mine = whole.rows(study)
    sign = np.sign((mine * Z).sum(axis=0))
    np.testing.assert_allclose(mine * sign, Z, atol=2e-4 * np.abs(Z).max())


def test_pca__by_dask_ml_keeps_about_the_same_variance(whole: Whole) -> None:
    mine, theirs = whole.rows("plain").var(axis=0), whole.rows("plain-dask-ml").var(axis=0)
    np.testing.assert_allclose(theirs.sum(), mine.sum(), rtol=0.02)


@pytest.mark.parametrize(
    ("study", "clustering", "ks"),
    [
        ("plain", "km", (2, 3, 4, 5)),
        ("plain", "dml", (2,)),
        ("plain", "dmb", (3,)),
        ("plain-dask-ml", "km", (3,)),
        ("minmax", "km", (3,)),
        ("unit", "km", (3,)),
        ("none", "km", (3,)),
    ],
)
def test_labels__are_those_of_the_nearest_centers(
    case: Case, whole: Whole, study: str, clustering: str, ks: tuple[int, ...]
) -> None:
    X = clustered_rows(case, whole, study).astype(np.float64)
    labels = whole.labels(study)
    assert labels["row"].tolist() == list(range(len(X)))
    assert labels["path"].tolist() == case.paths
    featured = whole.manifest["studies"][study]["featured"]
    for k in ks:
        sq = np.square(X[:, None] - whole.centers(study, clustering, k)[None]).sum(axis=2)
        assert (labels[f"{clustering}_{k}"] == sq.argmin(axis=1)).all()
        score = whole.scores.query("study == @study and clustering == @clustering and k == @k")
        np.testing.assert_allclose(score["inertia"], [sq.min(axis=1).sum()], rtol=1e-6)
        if [clustering, k] != featured:
            continue
        order = np.argsort(sq, axis=1)
        near, next_ = (np.take_along_axis(sq, order[:, i : i + 1], axis=1)[:, 0] for i in (0, 1))
        assert (labels["second"] == order[:, 1]).all()
        np.testing.assert_allclose(labels["sq_dist"], near, rtol=1e-5)
        np.testing.assert_allclose(
            labels["margin"], np.sqrt(next_) - np.sqrt(near), rtol=1e-3, atol=1e-4
        )


def test_scores__equal_those_of_scikit_learn(case: Case, whole: Whole) -> None:
    X = whole.rows("plain").astype(np.float64)
    labels = whole.labels("plain")
    for k in (2, 5):
        row = whole.scores.query("study == 'plain' and clustering == 'km' and k == @k").iloc[0]
        mine = labels[f"km_{k}"].to_numpy()
        np.testing.assert_allclose(
            row["calinski_harabasz"], calinski_harabasz_score(X, mine), rtol=1e-5
        )
        np.testing.assert_allclose(row["davies_bouldin"], davies_bouldin_score(X, mine), rtol=1e-5)


def test_clusters__are_at_rest_for_scikit_learn_as_well(whole: Whole) -> None:
    X = whole.rows("plain").astype(np.float64)
    for k in (2, 5):
        centers = whole.centers("plain", "km", k)
        oracle = KMeans(k, init=centers, n_init=1).fit(X)
        mine = whole.scores.query("study == 'plain' and clustering == 'km' and k == @k")["inertia"]
        np.testing.assert_allclose(mine, [oracle.inertia_], rtol=1e-3)
        assert (oracle.labels_ == whole.labels("plain")[f"km_{k}"]).mean() > 0.99
        assert float(mine.iloc[0]) <= 1.05 * KMeans(k, n_init=10, random_state=0).fit(X).inertia_


def test_scores__show_both_engines(whole: Whole) -> None:
    engines = whole.scores.set_index(["study", "clustering"])["engine"].to_dict()
    assert engines["plain", "km"] == "vehclust"
    assert engines["plain", "dml"] == engines["plain", "dmb"] == "dask-ml"
    for column in ("seconds", "peak_mb", "inertia", "calinski_harabasz", "davies_bouldin"):
        assert (whole.scores[column] > 0).all()


def test_manifest__tells_where_results_come_from(case: Case, whole: Whole) -> None:
    m = whole.manifest
    assert (m["job"], m["seed"], m["dataset"]["rows"], m["dataset"]["dropped"]) == (
        "whole",
        3,
        4000,
        0,
    )
    assert m["place"] == {"kind": "address", "workers": 3}
    assert {"dask", "numpy", "zarr", "vehclust", "python"} <= set(m["versions"])
    assert m["peak_bytes"] > 0
    assert set(m["studies"]) == {"plain", "plain-dask-ml", "minmax", "unit", "none"}


def test_figures__are_drawn(whole: Whole) -> None:
    figures = whole.folder / "figures"
    for pattern in (
        "explained-variance.png",
        "scores-plain.png",
        "over-k-plain.gif",
        "sheets/plain/km-k5/overview*.png",
        "sheets/plain/km-k5/cluster-004.png",
    ):
        assert any(f.stat().st_size > 500 for f in figures.glob(pattern)), pattern


def test_export__writes_path_and_cluster(case: Case, whole: Whole, tmp_path: Path) -> None:
    asked = ("--workdir", whole.workdir, "--study", "plain", "--out", tmp_path)
    done = run_cli("export", "csv", "whole", *asked)
    assert done.out == f"{tmp_path / 'plain_KMeans_k5.csv'}\n"
    written = pd.read_csv(tmp_path / "plain_KMeans_k5.csv")
    assert written["path"].tolist() == case.paths
    assert written["cluster"].tolist() == whole.labels("plain")["km_5"].tolist()


def test_run__of_another_job_leaves_the_first_as_it_was(reference: Reference, whole: Whole) -> None:
    again = run_cli("run", reference.job, "--workdir", reference.workdir)
    assert "is finished already" in again.err
    assert [name for name in digests(whole.workdir) if ".partial" in name] == []
