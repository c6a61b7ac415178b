from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from vehclust_dask.demo import descriptors, latent

N_CHUNKS = 3
NAMES = tuple(descriptors.SETS)
#: Published for the case: smallest value, mean, largest value.
RANGES = {
    "efficientnet-b7": (-0.265, 0.041, 2.020),
    "osnet": (0.0, 0.887, 33.502),
    "vdc_color": (-3.772, -0.414, 2.152),
    "vdc_type": (0.0, 0.138, 2.568),
}
#: Published for the case, unscaled: components and their share of variance.
SPECTRA = {
    "efficientnet-b7": {5: 0.151, 20: 0.237, 76: 0.41, 242: 0.675, 448: 0.792},
    "osnet": {5: 0.409, 10: 0.552, 20: 0.688, 46: 0.831, 97: 0.92, 213: 0.97},
    "vdc_color": {5: 0.658, 10: 0.718, 20: 0.774, 61: 0.89},
    "vdc_type": {5: 0.741, 10: 0.858, 20: 0.924, 122: 0.986},
}


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
            self._reduced[name] = pca.fit_transform(_standard(self.X[name]))
        return self._reduced[name]

    def __getitem__(self, field: str) -> np.ndarray:
        return np.concatenate([getattr(rows, field) for rows in self.chunks])


@pytest.fixture(scope="module")
def twin() -> Twin:
    return Twin(0, N_CHUNKS)


def _standard(X: np.ndarray) -> np.ndarray:
    spread = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(spread > 1e-12, spread, np.float32(1))


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
    low, mean, high = RANGES[name]
    assert X.dtype == np.float32
    assert X.shape == (N_CHUNKS * 1024, descriptors.SETS[name].n_features)
    assert np.isfinite(X).all()
    assert X.mean(dtype=np.float64) == pytest.approx(mean, abs=0.1 * abs(mean) + 0.01)
    assert X.max() == pytest.approx(high, rel=0.3)
    if low == 0:
        assert X.min() == 0
        assert 0.2 < (X == 0).mean() < 0.6
    else:
        assert X.min() == pytest.approx(low, rel=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_descriptor_chunk__spectrum_decays_like_that_of_the_case(name: str, twin: Twin) -> None:
    X = twin.X[name]
    pca = PCA(max(SPECTRA[name]), svd_solver="randomized", iterated_power=1, random_state=0)
    share = pca.fit(X).explained_variance_ratio_.cumsum()
    for count, published in SPECTRA[name].items():
        assert share[count - 1] == pytest.approx(published, abs=0.08), count


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
