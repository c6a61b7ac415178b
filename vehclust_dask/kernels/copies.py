"""Rows that are equal in every feature: found once, then one of each stands for all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.kernels.distances import F64, I32, I64
from vehclust_dask.kernels.jit import njit
from vehclust_dask.kernels.neighbours import insert

U64 = NDArray[np.uint64]
_PRIMES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xFF51AFD7ED558CCD], np.uint64)


@njit
def _hash_words(words: Any, out: Any) -> None:
    """Mix the words of each row into two independent numbers of 64 bits (MurmurHash3's finalizer)."""
    shift = np.uint64(33)
    for i in range(words.shape[0]):
        a, b = _PRIMES[0], _PRIMES[1]
        for j in range(words.shape[1]):
            word = np.uint64(words[i, j])
            a = (a ^ word) * _PRIMES[2]
            a ^= a >> shift
            b = (b + word + np.uint64(1)) * _PRIMES[0]
            b ^= b >> np.uint64(29)
        out[i, 0] = a
        out[i, 1] = b


def hash_rows(X: NDArray[Any]) -> U64:
    """Return 128 bits per row, uint64 of shape (n_rows, 2): equal rows alike, others never in practice.

    Zero and minus zero are the same value. Two of a billion different rows share their 128 bits with
    a chance below 1e-20.
    """
    words = np.ascontiguousarray(X + X.dtype.type(0)).view(np.uint32)
    out = np.empty((len(X), 2), np.uint64)
    _hash_words(words, out)
    return out


class Copies(NamedTuple):
    """Which rows are copies of which.

    Attributes
    ----------
    first : ndarray of shape (n_distinct,), int64
        The first row of each pile of equal rows, ascending.
    pile : ndarray of shape (n_rows,), int64
        The pile each row belongs to.
    """

    first: I64
    pile: I64

    @classmethod
    def find(cls, hashes: U64) -> Copies:
        """Find the piles of equal rows; O(n log n)."""
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        ordered = hashes[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        # The sort is stable: the first of each run is the pile's first row.
        heads = order[new]
        rank = np.empty(len(heads), np.int64)
        rank[np.argsort(heads)] = np.arange(len(heads))
        pile = np.empty(len(order), np.int64)
        pile[order] = rank[np.cumsum(new) - 1]
        return cls(np.sort(heads), pile)

    @property
    def none(self) -> bool:
        """Say whether all rows differ."""
        return len(self.first) == len(self.pile)

    @property
    def counts(self) -> I64:
        """Return how many rows each pile holds."""
        return np.bincount(self.pile, minlength=len(self.first))

    def members(self) -> tuple[I64, I64]:
        """Return rows pile by pile, ascending in each, and where each pile begins."""
        starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        return np.argsort(self.pile, kind="stable"), starts


def spread(copies: Copies, rows: I32, sq_dist: F64, m: int) -> tuple[I32, F64]:
    """Turn the lists of distinct rows into the lists of all rows.

    Parameters
    ----------
    copies : Copies
    rows : ndarray of shape (n_distinct, width), int32
        Nearest distinct rows, each named by the first of its pile.
    sq_dist : ndarray of shape (n_distinct, width), float64
    m : int
        Length of the new lists, below the number of rows; ``width`` is m or all there are.

    Returns
    -------
    rows : ndarray of shape (n_rows, m), int32
    sq_dist : ndarray of shape (n_rows, m), float64
        A row's copies at distance 0 first; ties by row.
    """
    n = len(copies.pile)
    out_rows, out_sq = np.empty((n, m), np.int32), np.empty((n, m))
    members, starts = copies.members()
    _spread(copies.pile, members, starts, rows, sq_dist, out_rows, out_sq)
    return out_rows, out_sq


@njit
def _spread(
    pile: Any, members: Any, starts: Any, rows: Any, sq_dist: Any, out_rows: Any, out_sq: Any
) -> None:
    m = out_rows.shape[1]
    for r in range(pile.shape[0]):
        n = 0
        for e in range(-1, rows.shape[1]):
            u, distance = pile[r], 0.0
            if e >= 0:
                u, distance = pile[rows[pile[r], e]], sq_dist[pile[r], e]
            if n == m and distance > out_sq[r, m - 1]:
                break
            # No more than m + 1 of a pile can be among the m nearest, this row itself included.
            for k in range(starts[u], min(starts[u + 1], starts[u] + m + 1)):
                if members[k] != r:
                    n = insert(out_sq[r], out_rows[r], n, distance, members[k])
