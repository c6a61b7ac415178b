"""Which photos stand for a cluster: an order of all photos by the hash of their path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.store.photos import Photos, PrefixRule

Names = Mapping[int, str] | Sequence[str] | None


def photo_order(paths: Sequence[str]) -> NDArray[np.uint64]:
    """Hash every path; photos are shown in the order of these numbers, the same in every run.

    Parameters
    ----------
    paths : sequence of str of length n_samples
        With slashes or backslashes, which makes no difference.

    Returns
    -------
    ndarray of shape (n_samples,), uint64
        BLAKE2b of the path in UTF-8, its first 8 bytes.
    """
    hashes = b"".join(
        hashlib.blake2b(path.replace("\\", "/").encode(), digest_size=8).digest() for path in paths
    )
    return np.frombuffer(hashes, dtype=">u8").astype(np.uint64)


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows by cluster and, within a cluster, by hash; noise comes first."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(
        cls, labels: NDArray[np.integer[Any]], order: NDArray[np.uint64], n_clusters: int
    ) -> Groups:
        """Sort rows by label, then by hash, then by number."""
        rows = np.lexsort((order, labels)).astype(np.int64)
        counts = np.bincount(labels.astype(np.int64) + 1, minlength=n_clusters + 1)
        return cls(rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def members(self, cluster: int) -> NDArray[np.int64]:
        """Return the rows of a cluster, or of the noise (-1), smallest hash first."""
        return self.rows[self.starts[cluster + 1] : self.starts[cluster + 2]]

    def sizes(self) -> NDArray[np.int64]:
        """Return the size of every cluster, noise left out."""
        return np.diff(self.starts)[1:]


@dataclass(frozen=True, eq=False)
class Clustering:
    """A clustering as the sheets need it."""

    photos: Photos
    paths: Sequence[str]
    rule: PrefixRule
    groups: Groups
    sq_dist: NDArray[np.floating[Any]] | None
    names: dict[int, str]
    title: str
    synthetic: bool

    @classmethod
    def of(
        cls,
        photos: Photos,
        paths: Sequence[str],
        labels: NDArray[np.integer[Any]],
        *,
        n_clusters: int,
        title: str,
        synthetic: bool,
        sq_dist: NDArray[np.floating[Any]] | None,
        names: Names,
        order: NDArray[np.uint64] | None,
    ) -> Clustering:
        """Check what belongs together and sort the rows once; raise BadInput where it does not."""
        counts = {"paths": len(paths), "labels": len(labels)}
        counts |= {} if sq_dist is None else {"distances": len(sq_dist)}
        counts |= {} if order is None else {"hashes": len(order)}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{n} {what}" for what, n in counts.items())
            raise BadInput(f"{told}: give one of each per photo, in the same order")
        if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < n_clusters:
            raise BadInput(
                f"labels run from {labels.min()} to {labels.max()} but n_clusters={n_clusters}; "
                f"allowed: -1 (noise) to {n_clusters - 1}"
            )
        hashes = photo_order(paths) if order is None else order
        return cls(
            photos=photos,
            paths=list(paths),
            rule=photos.prefix_rule(paths),
            groups=Groups.of(labels, hashes, n_clusters),
            sq_dist=sq_dist,
            names=dict(names if isinstance(names, Mapping) else enumerate(names or ())),
            title=title,
            synthetic=synthetic,
        )

    @property
    def n_samples(self) -> int:
        """Return the number of rows, noise included."""
        return len(self.groups.rows)

    def entries(self, rows: NDArray[np.int64]) -> list[int]:
        """Return the photos of some rows, -1 where one is missing."""
        found = self.photos.find([self.paths[i] for i in rows], self.rule)
        return [int(entry) for entry in found]

    def by_distance(self, cluster: int) -> NDArray[np.int64]:
        """Return the members with a known distance, nearest first, equals in hash order."""
        if self.sq_dist is None or cluster < 0:
            return np.empty(0, np.int64)
        members = self.groups.members(cluster)
        known = members[np.isfinite(self.sq_dist[members])]
        return known[np.argsort(self.sq_dist[known], kind="stable")]

    def distances(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the distances of some rows to their centre; NaN where none are known."""
        if self.sq_dist is None:
            return np.full(len(rows), np.nan)
        return np.sqrt(np.maximum(self.sq_dist[rows].astype(np.float64), 0))
