"""Local outlier factors of the estimator against scikit-learn's; the isolation forest's sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import neighbors
from sklearn.ensemble import IsolationForest

from tests.estimators.test_neighbours import clustered
from tests.strategies import F32, float_rows
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import LocalOutlierFactor
from vehclust_dask.estimators.outliers import fit_forest, isolation, sample_rows
from vehclust_dask.records import ArrayBlocks


def with_outliers(n: int, d: int, copies: bool, seed: int = 0) -> F32:
    """Draw groups of rows with a few rows far from all; rows stand once, or up to four times."""
    rng = np.random.default_rng(seed)
    X = clustered(n, d, seed)
    X[:9] += 8 * rng.standard_normal((9, d)).astype(np.float32)
    return np.repeat(X, rng.integers(1, 5, n), axis=0) if copies else X


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("copies", "k"), [(False, 1), (False, 5), (False, 20), (True, 5), (True, 20)]
)
def test_lof__equals_scikit_learns(metric: str, copies: bool, k: int) -> None:
    X = with_outliers(500, 8, copies)
    theirs = neighbors.LocalOutlierFactor(k, metric=metric, algorithm="auto")
    wanted = theirs.fit_predict(X.astype(np.float64))
    mine = LocalOutlierFactor(k, metric=metric)
    found = mine.fit_predict(X)
    np.testing.assert_allclose(
        mine.negative_outlier_factor_, theirs.negative_outlier_factor_, rtol=1e-6
    )
    clear = np.abs(theirs.negative_outlier_factor_ + 1.5) > 1e-5
    np.testing.assert_array_equal(found[clear], wanted[clear])
    assert mine.offset_ == theirs.offset_
    assert (found == -1).any()


def test_lof__of_rows_with_more_copies_than_neighbours_equals_scikit_learns() -> None:
    X = np.repeat(clustered(12, 3), 9, axis=0)
    with pytest.warns(UserWarning, match="Duplicate values"):
        theirs = neighbors.LocalOutlierFactor(5).fit(
            np.vstack([X, clustered(40, 3, 1)]).astype(np.float64)
        )
    mine = LocalOutlierFactor(5).fit(np.vstack([X, clustered(40, 3, 1)]))
    np.testing.assert_allclose(
        mine.negative_outlier_factor_, theirs.negative_outlier_factor_, rtol=1e-6
    )


def test_lof__of_a_share_finds_that_share() -> None:
    X = with_outliers(400, 5, False)
    found = LocalOutlierFactor(10, contamination=0.05).fit_predict(X)
    wanted = neighbors.LocalOutlierFactor(10, contamination=0.05).fit_predict(X)
    np.testing.assert_array_equal(found, wanted)
    assert (found == -1).sum() == 20


@given(float_rows(min_rows=3, max_rows=80), st.integers(0, 2**32 - 1), st.data())
def test_lof__follows_its_rows_whatever_their_order_and_blocks(
    X: F32, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(X) - 1))
    order = np.random.default_rng(seed).permutation(len(X))
    whole = LocalOutlierFactor(k).fit(X).negative_outlier_factor_
    cut = ArrayBlocks.of(X[order], data.draw(st.integers(1, len(X))))
    found = LocalOutlierFactor(k).fit(cut).negative_outlier_factor_
    # Only the order of a sum may differ, where rows are equally far away.
    np.testing.assert_allclose(found, whole[order], rtol=1e-9)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"n_neighbors": 0}, "n_neighbors=0: give a whole number of at least 1"),
        ({"n_neighbors": 9}, "there are 9 rows"),
        ({"metric": "cosin"}, "did you mean 'cosine'"),
        ({"contamination": 0.7}, "contamination=0.7: give 'auto', or a share"),
        ({"contamination": "aut"}, "contamination='aut'"),
    ],
)
def test_lof__refuses(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        LocalOutlierFactor(**({"n_neighbors": 3} | params)).fit(clustered(9, 3))


def test_forest__of_all_rows_is_scikit_learns() -> None:
    X = with_outliers(600, 5, False)
    theirs = IsolationForest(n_estimators=50, max_samples=128, random_state=3).fit(X)
    forest = fit_forest(ArrayBlocks.of(X, 70), 50, 10_000, 128, seed=3)
    np.testing.assert_array_equal(isolation(forest, X), -theirs.score_samples(X))


def test_forest__does_not_depend_on_blocks() -> None:
    X = with_outliers(600, 5, False)
    forests = [fit_forest(ArrayBlocks.of(X, rows), 20, 200, 64, seed=5) for rows in (600, 64, 7)]
    scores = [isolation(forest, X) for forest in forests]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert scores[0][:9].mean() > np.quantile(scores[0], 0.95)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_sample__is_drawn_once_each_by_seed(n: int, sample: int, seed: int) -> None:
    chosen = sample_rows(n, sample, seed)
    assert len(chosen) == min(n, sample)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < n
    np.testing.assert_array_equal(chosen, sample_rows(n, sample, seed))
