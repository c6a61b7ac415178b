"""Joined sets without dropped rows equal the same made by numpy, however they are cut."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import F32
from vehclust_dask.records import RowGrid
from vehclust_dask.store.views import RowsView, blocks_between, original_rows


@dataclass(frozen=True)
class Rows:
    """Rows in memory that look like a stored matrix."""

    X: F32
    grid: RowGrid
    digest: str = ""

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    def read(self, i: int) -> F32:
        span = self.grid.span(i)
        return self.X[span.row0 : span.row0 + span.n_rows]

    load = read


@st.composite
def joined(draw: st.DrawFn) -> tuple[list[Rows], tuple[int, ...]]:
    """Draw one to three sets of the same rows, cut into other parts and blocks, and rows to drop."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sets = []
    for _ in range(draw(st.integers(1, 3))):
        ends = sorted(draw(st.sets(st.integers(1, max(1, n - 1)), max_size=3)) - {n})
        parts = np.diff([0, *ends, n]).tolist()
        X = rng.normal(size=(n, draw(st.integers(1, 4)))).astype(np.float32)
        sets.append(Rows(X, RowGrid(tuple(parts), draw(st.integers(1, 12)))))
    dropped = draw(st.sets(st.integers(0, n - 1), max_size=n - 1))
    return sets, tuple(sorted(dropped))


@given(data=joined(), block_rows=st.integers(1, 12), unit=st.booleans())
def test_read__equals_numpy(
    data: tuple[list[Rows], tuple[int, ...]], block_rows: int, unit: bool
) -> None:
    sets, dropped = data
    view = RowsView.of(tuple(sets), dropped=dropped, unit=unit, block_rows=block_rows)
    kept = np.setdiff1d(np.arange(len(sets[0].X)), dropped)
    expected = [s.X[kept].astype(np.float64) for s in sets]
    if unit:
        expected = [X / np.linalg.norm(X, axis=1, keepdims=True) for X in expected]
    found = [view.read(i) for i in range(view.grid.n_blocks)]
    assert all(block.dtype == np.float32 for block in found)
    np.testing.assert_allclose(np.concatenate(found), np.hstack(expected), rtol=1e-6 if unit else 0)
    rows = [original_rows(span, dropped) for span in view.grid.spans()]
    assert np.concatenate(rows).tolist() == kept.tolist()
    assert view.grid.n_rows == len(kept)
    assert view.n_features == sum(s.n_features for s in sets)


@given(data=joined())
def test_of__counts_the_kept_rows_of_every_part(data: tuple[list[Rows], tuple[int, ...]]) -> None:
    sets, dropped = data
    view = RowsView.of(tuple(sets), dropped=dropped)
    bounds = np.cumsum([0, *sets[0].grid.part_rows])
    expected = [
        sum(1 for r in range(low, high) if r not in dropped)
        for low, high in itertools.pairwise(bounds)
    ]
    assert list(view.grid.part_rows) == expected


@given(parts=st.lists(st.integers(0, 9), min_size=1, max_size=5), block_rows=st.integers(1, 5))
def test_blocks_between__finds_just_the_blocks_that_hold_the_rows(
    parts: list[int], block_rows: int
) -> None:
    grid = RowGrid(tuple(parts), block_rows)
    spans = list(grid.spans())
    for first in range(grid.n_rows):
        for last in range(first + 1, grid.n_rows + 1):
            expected = [s.block for s in spans if s.row0 < last and s.row0 + s.n_rows > first]
            assert [b for b, _ in blocks_between(grid, first, last)] == expected


def test_digest__names_content_choice_and_cut() -> None:
    X = np.ones((6, 2), np.float32)
    a, b = Rows(X, RowGrid((6,), 2), "a"), Rows(X, RowGrid((6,), 2), "b")
    views = [
        RowsView.of((a,)),
        RowsView.of((b,)),
        RowsView.of((a, b)),
        RowsView.of((b, a)),
        RowsView.of((a,), dropped=(1,)),
        RowsView.of((a,), dropped=(2,)),
        RowsView.of((a,), unit=True),
        RowsView.of((a,), block_rows=3),
    ]
    assert len({view.digest for view in views}) == len(views)
    assert RowsView.of((a,), dropped=(1,)).digest == RowsView.of((a,), dropped=(1,)).digest
