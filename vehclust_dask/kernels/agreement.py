"""How well a clustering agrees with something else that is known of the rows: from tables of counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from vehclust_dask.kernels.distances import F64, I64
from vehclust_dask.kernels.jit import njit

#: Terms of an expectation smaller than this share of the largest cannot change its last digit.
LAST_DIGIT = 1e-19


def _pair_counts(a: NDArray[Any], b: NDArray[Any]) -> tuple[I64, I64, I64]:
    """Return cells, row sums and column sums of the table of two labelings (cells above zero only)."""
    _, a_codes = np.unique(a, return_inverse=True)
    _, b_codes = np.unique(b, return_inverse=True)
    width = int(b_codes.max(initial=0)) + 1
    _, cells = np.unique(a_codes.astype(np.int64) * width + b_codes, return_counts=True)
    return cells.astype(np.int64), np.bincount(a_codes), np.bincount(b_codes)


def group_agreement(groups: NDArray[Any], labels: NDArray[Any]) -> tuple[float, float]:
    """Return how often two rows of one group share a cluster, and how often any two rows do.

    Photos of one vehicle must agree on type and colour: a quality figure that needs no labels. The
    second number is what chance alone would give.

    Parameters
    ----------
    groups : ndarray of shape (n_samples,)
    labels : ndarray of shape (n_samples,)

    Returns
    -------
    agreement, chance : float
        NaN where no group has two rows.
    """
    cells, group_sizes, cluster_sizes = _pair_counts(groups, labels)
    pairs = float((group_sizes * (group_sizes - 1)).sum())
    n = float(group_sizes.sum())
    if pairs == 0:
        return float("nan"), float("nan")
    together = float((cells * (cells - 1)).sum())
    chance = float((cluster_sizes * (cluster_sizes - 1.0)).sum()) / (n * (n - 1))
    return together / pairs, chance


def contingency_table(a: NDArray[Any], b: NDArray[Any]) -> I64:
    """Return how often each value of ``a`` meets each value of ``b``; values are whole numbers.

    Parameters
    ----------
    a, b : ndarray of shape (n_samples,)

    Returns
    -------
    ndarray of shape (n_a, n_b), int64
        A row per value that occurs in ``a``, ascending, and a column per value of ``b``.
    """
    low_a, low_b = int(a.min()), int(b.min())
    width = int(b.max()) - low_b + 1
    codes = (a.astype(np.int64) - low_a) * width + (b.astype(np.int64) - low_b)
    cells = np.bincount(codes, minlength=(int(a.max()) - low_a + 1) * width).reshape(-1, width)
    used: I64 = cells[cells.any(axis=1)][:, cells.any(axis=0)].astype(np.int64)
    return used


def majority_accuracy(table: I64) -> float:
    """Return the share of rows named right if every cluster were named by its majority.

    Parameters
    ----------
    table : ndarray of shape (n_truth, n_clusters), int64
        From `contingency_table`.
    """
    return float(table.max(axis=0).sum() / table.sum())


def adjusted_rand(table: I64) -> float:
    """Return the adjusted Rand index: 1 for equal partitions, 0 for what chance gives.

    Hubert and Arabie, Comparing partitions (1985), eq. 5.

    Parameters
    ----------
    table : ndarray of shape (n_a, n_b), int64
        From `contingency_table`.
    """
    n = float(table.sum())
    cells = float((table.astype(np.float64) * (table - 1)).sum())
    rows, columns = table.sum(axis=1).astype(np.float64), table.sum(axis=0).astype(np.float64)
    of_a, of_b = float((rows * (rows - 1)).sum()), float((columns * (columns - 1)).sum())
    if of_a == of_b == cells:
        return 1.0
    expected = of_a * of_b / (n * (n - 1))
    return (cells - expected) / (0.5 * (of_a + of_b) - expected)


def adjusted_mutual_information(table: I64) -> float:
    """Return the mutual information beyond chance, as a share of the mean entropy beyond chance.

    Vinh, Epps and Bailey, Information theoretic measures for clusterings comparison (2010), with
    the arithmetic mean, as scikit-learn has it.

    Parameters
    ----------
    table : ndarray of shape (n_a, n_b), int64
        From `contingency_table`.
    """
    n = float(table.sum())
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    i, j = np.nonzero(table)
    # Equal partitions agree wholly, also where chance could do no worse; one cluster tells nothing.
    if len(i) == len(rows) == len(columns):
        return 1.0
    if min(len(rows), len(columns)) == 1:
        return 0.0
    together = table[i, j].astype(np.float64)
    apart = rows[i].astype(np.float64) * columns[j]
    shared = float((together / n * (np.log(together) + np.log(n) - np.log(apart))).sum())
    size = np.arange(int(n) + 1, dtype=np.float64)
    log_size = np.log(np.maximum(size, 1.0))
    chance = _expected_information(rows, columns, gammaln(size + 1), log_size)
    mean = 0.5 * (_entropy(rows / n) + _entropy(columns / n))
    return (shared - chance) / (mean - chance)


def _entropy(shares: F64) -> float:
    return float(-(shares * np.log(shares)).sum())


@njit
def _expected_information(rows: Any, columns: Any, log_factorial: Any, log_size: Any) -> float:
    """Add up the information of every cell over its hypergeometric chances (Vinh et al., eq. 24a).

    The chances of a cell rise and fall around their largest: it is computed, its neighbours follow
    by their ratios until they no longer count.
    """
    n = log_factorial.shape[0] - 1
    total = 0.0
    for a in rows:
        for b in columns:
            low, high = max(0, a + b - n), min(a, b)
            top = min(max((a + 1) * (b + 1) // (n + 2), low), high)
            peak = np.exp(
                log_factorial[a] + log_factorial[b] + log_factorial[n - a] + log_factorial[n - b]
                - log_factorial[n] - log_factorial[top] - log_factorial[a - top]
                - log_factorial[b - top] - log_factorial[n - a - b + top]
            )  # fmt: skip
            base = log_size[n] - log_size[a] - log_size[b]
            chance = peak
            for m in range(top, high + 1):
                total += chance * m * (base + log_size[m])
                chance *= (a - m) / (m + 1) * ((b - m) / (n - a - b + m + 1))
                if chance < LAST_DIGIT * peak:
                    break
            chance = peak
            for m in range(top, low, -1):
                chance *= m / (a - m + 1) * ((n - a - b + m) / (b - m + 1))
                if chance < LAST_DIGIT * peak:
                    break
                total += chance * (m - 1) * (base + log_size[m - 1])
    return total / n
