"""Centers of many clusterings in one tall matrix, so that one product serves them all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vehclust_dask.kernels.distances import F32, F64, I64

#: Rows of a tile: its products with all centers stay in the processor's cache.
TILE_ROWS = 512


class Segments(NamedTuple):
    """Centers of several clusterings, one below the other.

    Attributes
    ----------
    centers : ndarray of shape (n_centers, n_features), float64
    offsets : ndarray of shape (n_segments + 1,), int64
        Segment ``s`` owns the centers ``offsets[s]:offsets[s + 1]``.
    """

    centers: F64
    offsets: I64

    @classmethod
    def of(cls, parts: list[F64]) -> Segments:
        """Stack the centers of several clusterings."""
        offsets = np.cumsum([0, *(len(p) for p in parts)]).astype(np.int64)
        return cls(np.ascontiguousarray(np.concatenate(parts), dtype=np.float64), offsets)

    @property
    def n_segments(self) -> int:
        """Return the number of clusterings."""
        return len(self.offsets) - 1

    def part(self, s: int) -> slice:
        """Return the rows of ``centers`` that segment ``s`` owns."""
        return slice(int(self.offsets[s]), int(self.offsets[s + 1]))

    def pick(self, chosen: list[int]) -> Segments:
        """Return some of the segments."""
        return Segments.of([self.centers[self.part(s)] for s in chosen])


class Products(NamedTuple):
    """Centers made ready for float32 products."""

    centers: F64
    centers32: F32
    half: F32
    offsets: I64
    longest: float

    @classmethod
    def of(cls, segments: Segments) -> Products:
        """Round the centers and measure them."""
        sq = np.einsum("ij,ij->i", segments.centers, segments.centers)
        with np.errstate(over="ignore"):
            return cls(
                segments.centers,
                segments.centers.astype(np.float32),
                (0.5 * sq).astype(np.float32),
                segments.offsets,
                float(np.sqrt(sq.max(initial=0.0))),
            )

    def room(self, n_rows: int) -> F32:
        """Return working memory for the products of up to so many rows: asking for it once is cheap."""
        return np.empty(len(self.centers) * n_rows, np.float32)

    def with_rows(self, X: F32, room: F32) -> F32:
        """Multiply centers and rows into the given memory, shape (n_centers, n_rows).

        What overflows is measured otherwise (see `score_error`).
        """
        k, n = len(self.centers), X.shape[0]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.matmul(self.centers32, X.T, out=room[: k * n].reshape(k, n))
