"""Agreement of labels with what is known, against scikit-learn and against counting."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from vehclust_dask.kernels.agreement import (
    adjusted_mutual_information,
    adjusted_rand,
    contingency_table,
    group_agreement,
    majority_accuracy,
)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=30),
)
def test_group_agreement__counts_pairs(rows: list[tuple[int, int]]) -> None:
    groups, labels = (np.array(column) for column in zip(*rows, strict=True))
    pairs = list(combinations(range(len(rows)), 2))
    related = [(i, j) for i, j in pairs if groups[i] == groups[j]]
    agreement, chance = group_agreement(groups, labels)
    if not related:
        assert np.isnan(agreement)
        assert np.isnan(chance)
        return
    together = [labels[i] == labels[j] for i, j in related]
    anyhow = [labels[i] == labels[j] for i, j in pairs]
    assert agreement == pytest.approx(np.mean(together))
    assert chance == pytest.approx(np.mean(anyhow))


def test_group_agreement__of_many_rows_does_not_overflow() -> None:
    groups = np.zeros(200_000, np.int32)
    assert group_agreement(groups, groups) == (1.0, 1.0)


def test_group_agreement__of_no_rows_is_not_known() -> None:
    # A clustering may call every row noise.
    none = np.empty(0, np.int64)
    assert np.isnan(group_agreement(none, none.astype(np.int32))).all()


def test_majority_accuracy__by_hand() -> None:
    # Cluster 0: two buses and a van; 1: a van; 2: a bus and two cars. That is 2 + 1 + 2 of 7.
    bus, van, car = 0, 1, 2
    truth = np.array([bus, bus, van, van, bus, car, car])
    labels = np.array([0, 0, 0, 1, 2, 2, 2])
    assert majority_accuracy(contingency_table(truth, labels)) == pytest.approx(5 / 7)
    assert majority_accuracy(contingency_table(truth, np.zeros(7, int))) == pytest.approx(3 / 7)
    assert majority_accuracy(contingency_table(truth, np.arange(7))) == 1.0


def test_contingency_table__leaves_out_values_that_do_not_occur() -> None:
    table = contingency_table(np.array([4, 4, -1, 9]), np.array([2, 2, 7, 7]))
    assert table.tolist() == [[0, 1], [2, 0], [0, 1]]


@settings(deadline=None)  # the first call compiles a kernel
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 4)), min_size=1, max_size=60))
def test_adjusted_scores__are_scikit_learns(rows: list[tuple[int, int]]) -> None:
    truth, labels = (np.array(column) for column in zip(*rows, strict=True))
    table = contingency_table(truth, labels)
    assert adjusted_rand(table) == pytest.approx(adjusted_rand_score(truth, labels), abs=1e-12)
    wanted = adjusted_mutual_info_score(truth, labels)
    assert adjusted_mutual_information(table) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("agree", [0.0, 0.02, 0.7, 1.0])
def test_adjusted_scores__of_many_rows_are_scikit_learns(agree: float) -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(10, 30_000, p=np.arange(1, 11) / 55)
    labels = np.where(rng.random(30_000) < agree, truth * 2, rng.integers(0, 30, 30_000))
    table = contingency_table(truth, labels)
    wanted = adjusted_mutual_info_score(truth, labels)
    assert adjusted_rand(table) == pytest.approx(adjusted_rand_score(truth, labels), abs=1e-12)
    assert adjusted_mutual_information(table) == pytest.approx(wanted, abs=1e-8)
