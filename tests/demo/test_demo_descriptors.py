from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import CLUSTERS, COMPONENTS, PUBLISHED, ROWS, SCALERS
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
)
from threadpoolctl import threadpool_limits

from vehclust_dask.demo import descriptors, latent

N_CHUNKS = 3
NAMES = tuple(descriptors.SETS)
#: Score of k-means within this factor of the published one.
FACTOR = 1.3


class Twin:
    """The first rows of every set and what they show."""

    def __init__(self, seed: int, n_chunks: int, names: tuple[str, ...] = NAMES) -> None:
        self.chunks = [latent.latent_chunk(seed, chunk) for chunk in range(n_chunks)]
        self.X = {
            name: np.concatenate(
                [
                    descriptors.descriptor_chunk(descriptors.SETS[name], rows, seed)
                    for rows in self.chunks
                ]
            )
            for name in names
        }

        self._reduced: dict[str, np.ndarray] = {}

    def reduced(self, name: str) -> np.ndarray:
        """Return 60 principal components of the standardised rows, computed once."""
        if name not in self._reduced:
            pca = PCA(60, svd_solver="randomized", iterated_power=3, random_state=0)
            self._reduced[name] = pca.fit_transform(_scaled(self.X[name], "standard"))
        return self._reduced[name]

    def __getitem__(self, field: str) -> np.ndarray:
        return np.concatenate([getattr(rows, field) for rows in self.chunks])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads wait for each other longer than so few rows take."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def twin() -> Twin:
    return Twin(0, N_CHUNKS)


def _scaled(X: np.ndarray, scaler: str) -> np.ndarray:
    spread = X.std(axis=0) if scaler == "standard" else np.ptp(X, axis=0)
    return (X - X.mean(axis=0)) / np.where(spread > 1e-12, spread, np.float32(1))


def _shares(X: np.ndarray, most: int) -> np.ndarray:
    pca = PCA(most, svd_solver="randomized", iterated_power=2, random_state=0)
    return pca.fit(X).explained_variance_ratio_.cumsum()


@given(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=12),
    st.integers(0, 2),
    st.data(),
)
def test_orthonormal_codes__are_uncorrelated_over_the_rows(
    weights: list[float], n_anchors: int, data: st.DataObject
) -> None:
    shares = np.array(weights) / sum(weights)
    rng = np.random.default_rng(0)
    anchors = rng.standard_normal((len(shares), n_anchors))
    n_codes = data.draw(st.integers(1, len(shares) - 1))
    codes = descriptors.orthonormal_codes(anchors, shares, n_codes, rng)
    assert codes.shape == (len(shares), n_codes)
    np.testing.assert_allclose(shares @ codes, 0, atol=1e-8)
    np.testing.assert_allclose((codes.T * shares) @ codes, np.eye(n_codes), atol=1e-8)


def test_component_variances__follow_the_curve_at_its_knots() -> None:
    variances = descriptors.component_variances(((1, 0.3), (4, 0.6), (20, 0.9)))
    assert len(variances) == 20
    assert (np.diff(variances) <= 0).all()
    for count, total in ((1, 0.3), (4, 0.6), (20, 0.9)):
        assert variances[:count].sum() == pytest.approx(total)


@pytest.mark.parametrize("name", NAMES)
def test_descriptor_chunk__values_lie_where_those_of_the_case_do(name: str, twin: Twin) -> None:
    X = twin.X[name]
    low, mean, high = PUBLISHED[name].values
    assert X.dtype == np.float32
    assert X.shape == (N_CHUNKS * 1024, descriptors.SETS[name].n_features)
    assert np.isfinite(X).all()
    assert X.mean(dtype=np.float64) == pytest.approx(mean, rel=0.1)
    # Of all rows the extremes lie farther out, and never beyond those of the case.
    assert 0.75 * high < X.max() <= np.float32(high)
    if low == 0:
        assert X.min() == 0
        assert 0.1 < (X == 0).mean() < 0.6
    else:
        assert np.float32(low) <= X.min() < 0.75 * low


@pytest.mark.parametrize("name", NAMES)
def test_descriptor_chunk__spectrum_is_that_of_the_case(name: str, twin: Twin) -> None:
    # So few rows lie nearer to a subspace than all of them do, the more so the wider the set.
    most = 300 if name == "efficientnet-b7" else 512
    published = {n: share for n, share in PUBLISHED[name].variance.items() if n <= most}
    shares = _shares(twin.X[name], max(published))
    for count, share in published.items():
        assert shares[count - 1] == pytest.approx(share, abs=0.04), count


@pytest.mark.parametrize("name", NAMES)
def test_descriptor_chunk__standardised_spectrum_is_that_of_the_case(name: str, twin: Twin) -> None:
    published = {n: share for n, share in PUBLISHED[name].standard_variance.items() if n <= 200}
    shares = _shares(_scaled(twin.X[name], "standard"), max(published))
    for count, share in published.items():
        assert shares[count - 1] == pytest.approx(share, abs=0.04), count


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("name", NAMES)
def test_k_means__scores_are_those_of_the_case(name: str, scaler: str, twin: Twin) -> None:
    X = _scaled(twin.X[name], scaler)
    pca = PCA(min(COMPONENTS, X.shape[1]), svd_solver="randomized", iterated_power=2,
              random_state=0)  # fmt: skip
    Z = pca.fit_transform(X)
    for k in CLUSTERS:
        labels = KMeans(k, n_init=2, random_state=0).fit_predict(Z)
        ch, db = PUBLISHED[name].scores[scaler, k]
        found = calinski_harabasz_score(Z, labels) * ROWS / len(Z)
        assert ch / FACTOR < found < ch * FACTOR, k
        assert db / FACTOR < davies_bouldin_score(Z, labels) < db * FACTOR, k


def test_descriptor_chunk__osnet_has_a_zero_and_a_subnormal_column(twin: Twin) -> None:
    X = twin.X["osnet"]
    constant = np.flatnonzero(X.min(axis=0) == X.max(axis=0))
    assert len(constant) == 2
    assert X[0, constant[0]] == 0
    assert X[0, constant[1]] == np.float32(5.3e-40)
    assert 0 < X[0, constant[1]] < np.finfo(np.float32).tiny


@pytest.mark.parametrize("name", NAMES)
def test_descriptor_chunk__repeated_frames_lie_near_what_they_repeat(name: str, twin: Twin) -> None:
    X, source = twin.X[name], twin["duplicate_of"]
    repeated = np.flatnonzero(source >= 0)
    assert len(repeated) > 20
    near = np.linalg.norm(X[repeated] - X[source[repeated]], axis=1)
    other = np.linalg.norm(X[repeated] - X[repeated - 2], axis=1)
    assert near.min() > 0
    assert near.max() < 0.1 * np.median(other)


@pytest.mark.parametrize(
    ("name", "n_clusters", "factor", "least"),
    [
        ("osnet", 5, "view", 0.4),
        ("vdc_color", 5, "color", 0.4),
        ("vdc_type", 10, "type", 0.3),
        ("efficientnet-b7", 4, "view", 0.5),
    ],
)
def test_k_means__finds_what_a_set_is_known_to_separate(
    twin: Twin, name: str, n_clusters: int, factor: str, least: float
) -> None:
    Z = twin.reduced(name)
    labels = KMeans(n_clusters, n_init=2, random_state=0).fit_predict(Z)
    ok = twin["quality"] == latent.OK
    assert adjusted_rand_score(twin[factor][ok], labels[ok]) > least
    shuffled = np.random.default_rng(0).permutation(labels)
    assert adjusted_rand_score(twin[factor][ok], shuffled[ok]) < 0.05


def test_k_means__on_vdc_type_with_many_clusters_gives_clusters_of_one_type(twin: Twin) -> None:
    labels = KMeans(30, n_init=1, random_state=0).fit_predict(twin.reduced("vdc_type"))
    counts = np.zeros((30, 10))
    np.add.at(counts, (labels, twin["type"]), 1)
    assert counts.max(axis=1).sum() / counts.sum() > 0.8


def test_k_means__on_osnet_separates_type_view_and_color_better_with_more_clusters(
    twin: Twin,
) -> None:
    Z = twin.reduced("osnet")
    ok = twin["quality"] == latent.OK
    shares = []
    for n_clusters in (5, 40):
        labels = KMeans(n_clusters, n_init=1, random_state=0).fit_predict(Z)[ok]
        row = []
        for factor in ("type", "color", "view"):
            counts = np.zeros((n_clusters, 10))
            np.add.at(counts, (labels, twin[factor][ok]), 1)
            row.append(counts.max(axis=1).sum() / ok.sum())
        shares.append(row)
    few, many = shares
    assert many[0] > few[0] + 0.15
    assert many[1] > few[1] + 0.15
    assert min(many) > 0.55
    assert many[2] > 0.85


@pytest.mark.parametrize("name", ["osnet", "efficientnet-b7"])
def test_descriptor_chunk__bad_pictures_lie_apart(name: str, twin: Twin) -> None:
    Z = twin.reduced(name)
    quality = twin["quality"]
    centers = np.stack([Z[quality == level].mean(axis=0) for level in range(4)])
    # Distance to the good rows' centre, in units of a good row's typical one.
    reach = np.linalg.norm(Z - centers[0], axis=1)
    typical = np.quantile(reach[quality == latent.OK], 0.95)
    for level in range(1, 4):
        assert np.quantile(reach[quality == level], 0.2) > typical


def test_network__is_the_same_for_every_seed(twin: Twin) -> None:
    other = Twin(1, 1, ("vdc_type",))
    ok = twin["quality"] == latent.OK
    X, kinds = twin.X["vdc_type"][ok], twin["type"][ok]
    centers = np.stack([X[kinds == kind].mean(axis=0) for kind in range(10)])
    new = other.X["vdc_type"][other["quality"] == latent.OK]
    distances = ((new[:, None, :] - centers[None]) ** 2).sum(axis=2)
    truth = other["type"][other["quality"] == latent.OK]
    assert (distances.argmin(axis=1) == truth).mean() > 0.9
    assert not np.array_equal(twin.X["vdc_type"][:1024], other.X["vdc_type"])
