"""Components against scikit-learn's full decomposition of a float64 copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA as FullPCA  # noqa: N811
from sklearn.preprocessing import MinMaxScaler, StandardScaler, normalize

from tests.strategies import F32, F64
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import PCA
from vehclust_dask.kernels.moments import MomentsPass, merge_moments
from vehclust_dask.records import ArrayBlocks

SCALERS: dict[str, Any] = {
    "none": lambda X: X,
    "standard": lambda X: StandardScaler().fit_transform(X),
    "minmax": lambda X: MinMaxScaler().fit_transform(X),
    "l2": normalize,
}


@pytest.fixture
def rows() -> F32:
    """Correlated columns of different sizes, two of them constant."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((900, 12)) * np.geomspace(1, 0.05, 12)
    X = (mixed @ rng.standard_normal((12, 12)) + rng.standard_normal(12)).astype(np.float32)
    X[:, 3] *= 30
    X[:, 5], X[:, 8] = 0.0, 5.3e-40
    return X


def oracle(X: F32, scale: str, **params: Any) -> tuple[FullPCA, F64]:
    scaled = SCALERS[scale](X.astype(np.float64))
    return FullPCA(svd_solver="full", **params).fit(scaled), scaled


def assert_same_up_to_signs(A: NDArray[Any], B: NDArray[Any], atol: float) -> None:
    signs = np.sign((A * B).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(A * signs, B, rtol=0, atol=atol)


@pytest.mark.parametrize("solver", ["gram", "qr"])
@pytest.mark.parametrize("scale", list(SCALERS))
def test_fit__is_scikit_learns_full_decomposition(rows: F32, scale: str, solver: str) -> None:
    wanted, scaled = oracle(rows, scale)
    found = PCA(scale=scale, solver=solver).fit(ArrayBlocks.of(rows, block_rows=128))
    real = 10  # Two columns are constant.
    size = wanted.explained_variance_[0]
    np.testing.assert_allclose(
        found.explained_variance_, wanted.explained_variance_, rtol=1e-5, atol=1e-7 * size
    )
    np.testing.assert_allclose(
        found.explained_variance_ratio_, wanted.explained_variance_ratio_, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        found.singular_values_[:real], wanted.singular_values_[:real], rtol=1e-4
    )
    assert_same_up_to_signs(found.components_[:real], wanted.components_[:real], atol=1e-3)
    Z = found.transform(rows)
    assert Z.dtype == np.float32
    reference = wanted.transform(scaled)
    bound = 2e-3 * float(np.abs(reference).max())
    assert_same_up_to_signs(Z.T[:real], reference.T[:real], atol=bound)


def test_components__have_unit_length_and_a_positive_largest_entry(rows: F32) -> None:
    C = PCA(scale="standard").fit(rows).components_
    np.testing.assert_allclose(C @ C.T, np.eye(12), atol=1e-12)
    assert (C[np.arange(12), np.abs(C).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.95, 0.999])
def test_n_components__as_a_share_is_scikit_learns(rows: F32, share: float) -> None:
    for scale in ("none", "standard"):
        wanted, _ = oracle(rows, scale, n_components=share)
        found = PCA(share, scale=scale).fit(rows)
        assert found.n_components_ == wanted.n_components_
        assert PCA(scale=scale).fit(rows).count_for(share) == wanted.n_components_
        assert found.explained_variance_ratio_.sum() >= share
        assert found.spectrum_.shape == (12,)


def test_n_components__of_all_variance_is_every_component(rows: F32) -> None:
    assert PCA(1.0).fit(rows).n_components_ == 12
    assert PCA(None).fit(rows).n_components_ == 12


def test_max_components__is_a_limit(rows: F32) -> None:
    assert PCA(40, max_components=40).fit(rows).n_components_ == 12
    assert PCA(40, max_components=5).fit(rows).n_components_ == 5
    assert PCA(3, max_components=5).fit(rows).n_components_ == 3
    assert PCA(0.999, max_components=2).fit(rows).n_components_ == 2
    assert PCA(max_components=4).fit(rows).n_components_ == 4


@pytest.mark.parametrize("solver", ["gram", "qr"])
def test_partial_fit__in_pieces_is_fit(rows: F32, solver: str) -> None:
    whole = PCA(4, scale="standard", solver=solver).fit(rows)
    pieces = PCA(4, scale="standard", solver=solver)
    for piece in np.array_split(rows, [3, 7, 500]):
        pieces.partial_fit(piece)
    assert pieces.n_samples_seen_ == len(rows)
    np.testing.assert_allclose(pieces.spectrum_, whole.spectrum_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pieces.components_, whole.components_, atol=1e-3)
    np.testing.assert_allclose(pieces.mean_, whole.mean_, rtol=1e-12)


def test_partial_fit__refuses_a_piece_and_keeps_what_it_had(rows: F32) -> None:
    pca = PCA(2).fit(rows)
    before = pca.transform(rows)
    for bad in (rows[:, :5], np.full_like(rows, np.nan)):
        with pytest.raises(ValueError, match=r"12 features|NaN"):
            pca.partial_fit(bad)
    with pytest.raises(BadInput, match="NaN"):
        pca.partial_fit(ArrayBlocks.of(np.full_like(rows, np.nan)))
    np.testing.assert_array_equal(pca.transform(rows), before)
    assert pca.n_samples_seen_ == len(rows)


def test_partial_fit__of_one_row_is_refused_as_by_fit(rows: F32) -> None:
    with pytest.raises(BadInput, match="there is 1 sample: components need at least 2"):
        PCA().partial_fit(rows[:1])


def test_fit_moments__is_fit(rows: F32) -> None:
    blocks = ArrayBlocks.of(rows, block_rows=450)
    one = MomentsPass()
    moments = merge_moments(*(one.fold(None, blocks.read(i), None) for i in (0, 1)))
    found, wanted = PCA(3).fit_moments(moments), PCA(3).fit(blocks)
    np.testing.assert_array_equal(found.components_, wanted.components_)
    np.testing.assert_array_equal(found.transform(rows), wanted.transform(rows))


@pytest.mark.parametrize("scale", ["none", "standard", "l2"])
def test_save__and_load_give_the_same_projection(rows: F32, tmp_path: Path, scale: str) -> None:
    pca = PCA(np.int64(4), scale=scale, max_components=np.int32(6)).fit(rows)
    pca.save(tmp_path / "pca.npz")
    loaded = PCA.load(tmp_path / "pca.npz")
    assert loaded.get_params() == pca.get_params()
    for name, value in vars(pca).items():
        if name.endswith("_") and name != "moments_":
            np.testing.assert_array_equal(getattr(loaded, name), value, err_msg=name)
    np.testing.assert_array_equal(loaded.transform(rows), pca.transform(rows))
    with np.load(tmp_path / "pca.npz", allow_pickle=False) as stored:
        assert set(stored) == {"params", "components_", "spectrum_", "mean_", "factor_"}


def test_load__refuses_to_go_on_without_moments(rows: F32, tmp_path: Path) -> None:
    PCA(4).fit(rows).save(tmp_path / "pca.npz")
    loaded = PCA.load(tmp_path / "pca.npz")
    with pytest.raises(BadInput, match="moments"):
        loaded.partial_fit(rows)
    assert loaded.fit(rows).n_components_ == 4


@pytest.mark.parametrize("scale", ["none", "standard", "minmax"])
def test_inverse_transform__gives_the_rows_back(rows: F32, scale: str) -> None:
    pca = PCA(scale=scale).fit(rows)
    back = pca.inverse_transform(pca.transform(rows))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, rows, rtol=0, atol=1e-4 * float(np.abs(rows).max()))


def test_inverse_transform__of_few_components_is_scikit_learns(rows: F32) -> None:
    wanted, scaled = oracle(rows, "none", n_components=3)
    pca = PCA(3).fit(rows)
    reference = wanted.inverse_transform(wanted.transform(scaled))
    np.testing.assert_allclose(
        pca.inverse_transform(pca.transform(rows)), reference, rtol=0, atol=1e-3
    )
    with pytest.raises(BadInput, match=r"shape \(2, 5\): a matrix of 3 columns"):
        pca.inverse_transform(np.zeros((2, 5)))


def test_transform__far_from_the_origin_is_centered() -> None:
    rng = np.random.default_rng(0)
    X = (4e4 / 3 + rng.standard_normal((3000, 4)) * 0.05).astype(np.float32)
    exact = X.astype(np.float64)
    pca = PCA(scale="standard", solver="qr").fit(X)
    Z = pca.transform(X)
    wanted = ((exact - exact.mean(axis=0)) / exact.std(axis=0)) @ pca.components_.T
    np.testing.assert_allclose(Z, wanted, rtol=0, atol=1e-5)


def test_qr__keeps_small_variances() -> None:
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    X = (rng.standard_normal((2000, 5)) * [1, 1e-2, 1e-4, 1e-5, 1e-6] @ basis).astype(np.float32)
    wanted, _ = oracle(X, "none")
    found = PCA(solver="qr").fit(ArrayBlocks.of(X, block_rows=256))
    np.testing.assert_allclose(found.explained_variance_, wanted.explained_variance_, rtol=1e-6)


def test_fit__of_fewer_rows_than_columns(rows: F32) -> None:
    wanted, _ = oracle(rows[:5], "none")
    for solver in ("gram", "qr"):
        found = PCA(solver=solver).fit(rows[:5])
        assert found.n_components_ == 5
        np.testing.assert_allclose(
            found.explained_variance_[:4], wanted.explained_variance_[:4], rtol=1e-4
        )


def test_fit__of_equal_rows_has_no_variance() -> None:
    pca = PCA(0.9, scale="standard").fit(np.ones((10, 3)))
    assert pca.n_components_ == 1
    assert pca.explained_variance_ratio_.tolist() == [0.0]
    assert not pca.transform(np.ones((10, 3))).any()


def test_fit__of_a_dask_array_is_that_of_the_numpy_array(rows: F32) -> None:
    X = np.tile(rows, (80, 1))
    wanted = PCA(3).fit(X)
    lazy = da.from_array(X, chunks=(7000, 5))
    found = PCA(3).fit(lazy)
    np.testing.assert_array_equal(found.components_, wanted.components_)
    Z = found.transform(lazy)
    assert isinstance(Z, da.Array)
    assert Z.shape == (len(X), 3)
    assert Z.dtype == np.float32
    np.testing.assert_allclose(Z.compute(), wanted.transform(X), rtol=1e-4, atol=1e-4)


def test_fit__of_another_block_grid_is_the_same_within_rounding(rows: F32) -> None:
    first = PCA(3).fit(ArrayBlocks.of(rows, block_rows=64))
    second = PCA(3).fit(ArrayBlocks.of(rows, block_rows=1024))
    np.testing.assert_allclose(first.spectrum_, second.spectrum_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.components_, second.components_, atol=1e-4)
