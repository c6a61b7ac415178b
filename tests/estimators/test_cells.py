"""Lists by cells: exact within the cells searched, of known recall, never taken for exact ones."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from tests.estimators.test_neighbours import clustered
from tests.strategies import F32
from vehclust_dask.errors import BadInput
from vehclust_dask.estimators import Neighbours
from vehclust_dask.estimators.cells import Cells, cut_cells, search_cells
from vehclust_dask.estimators.neighbours import Known
from vehclust_dask.records import ArrayBlocks

METRICS = pytest.mark.parametrize("metric", ["euclidean", "cosine"])


@pytest.fixture(autouse=True)
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 128)
    monkeypatch.setattr("vehclust_dask.estimators.cells.POOL_ROWS", 100)


def by_cells(m: int = 7, **options: Any) -> Neighbours:
    return Neighbours(m, method="cells", **{"n_probe": 4, "n_cells": 20} | options)


def scaled(X: F32, metric: str) -> NDArray[np.float64]:
    exact = X.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True) if metric == "cosine" else exact


@METRICS
def test_fit__finds_the_nearest_within_the_cells_searched(metric: str) -> None:
    X = clustered(700, 12)
    blocks = ArrayBlocks.of(X, 90)
    cells = cut_cells(blocks, Known.of(blocks, metric), 20, seed=0, name="cells")
    found = by_cells(metric=metric).fit(blocks)
    exact = scaled(X, metric)
    centers = scaled(cells.centers, metric)
    to_centers = np.square(exact[:, None] - centers).sum(axis=2)
    np.testing.assert_array_equal(cells.cell, to_centers.argmin(axis=1))
    probes = np.argsort(to_centers, axis=1)[:, :4]
    for row in range(700):
        inside = np.flatnonzero(np.isin(cells.cell, probes[row]))
        inside = inside[inside != row]
        sq = np.square(exact[inside] - exact[row]).sum(axis=1)
        wanted = inside[np.lexsort((inside, sq))][:7]
        if len(inside) >= 7:
            np.testing.assert_array_equal(found.indices_[row], wanted)


@METRICS
@pytest.mark.parametrize("options", [{"n_probe": 20}, {"n_probe": 1, "n_cells": 1}])
def test_fit__searching_every_cell_is_exact(metric: str, options: dict[str, int]) -> None:
    X = clustered(500, 8)
    X[40:60] = X[3]
    exact = Neighbours(7, metric=metric).fit(X)
    found = by_cells(metric=metric, **options).fit(ArrayBlocks.of(X, 70))
    np.testing.assert_array_equal(found.indices_, exact.indices_)
    assert found.sq_distances_.tobytes() == exact.sq_distances_.tobytes()
    assert (found.recall_, exact.recall_) == (1.0, 1.0)


def test_fit__recall_is_that_of_the_exact_lists() -> None:
    X = clustered(900, 16)
    exact = NearestNeighbors(n_neighbors=7).fit(X.astype(np.float64)).kneighbors()[1]
    recalls = []
    for n_probe in (1, 3, 9):
        model = by_cells(n_probe=n_probe).fit(ArrayBlocks.of(X, 100))
        both = zip(model.indices_, exact, strict=True)
        hits = sum(len(np.intersect1d(a, b)) for a, b in both)
        # 900 rows are fewer than the 1,000 of the sample.
        assert model.recall_ == pytest.approx(hits / exact.size)
        recalls.append(model.recall_)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.99
    assert recalls[2] > 0.95


def test_fit__rows_of_small_cells_are_compared_with_all() -> None:
    X = clustered(300, 6)
    exact = Neighbours(40).fit(X)
    found = by_cells(40, n_probe=1, n_cells=60).fit(ArrayBlocks.of(X, 50))
    assert found.indices_.min() >= 0
    assert np.isfinite(found.sq_distances_).all()
    cells: Cells = cut_cells(ArrayBlocks.of(X, 50), Known.of(ArrayBlocks.of(X), "euclidean"), 60,
        seed=0, name="cells")  # fmt: skip
    small = np.bincount(cells.cell, minlength=60)[cells.cell] <= 40
    assert small.sum() > 100
    np.testing.assert_array_equal(found.indices_[small], exact.indices_[small])


def test_fit__another_cut_into_blocks_and_stretches_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X = clustered(600, 10)
    X[:50] = X[100]
    first = by_cells().fit(ArrayBlocks.of(X, 90))
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 77)
    for rows in (X, ArrayBlocks.of(X, 41), da.from_array(X, chunks=(130, 10))):
        other = by_cells().fit(rows)
        np.testing.assert_array_equal(other.indices_, first.indices_)
        assert other.sq_distances_.tobytes() == first.sq_distances_.tobytes()
        assert other.recall_ == first.recall_


def test_fit__defaults_to_the_square_root_of_the_rows() -> None:
    X = clustered(400, 5)
    blocks = ArrayBlocks.of(X)
    known = Known.of(blocks, "euclidean")
    found = search_cells(blocks, known, 5, n_probe=8, n_cells=None, seed=0, name="cells")
    assert (found.n_cells, found.recall_rows) == (20, 400)
    assert by_cells(5, n_cells=None, n_probe=8).fit(X).recall_ == found.recall
    assert Neighbours(3, method="cells").fit(np.ones((9, 2))).recall_ == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "cell"}, "method='cell': did you mean 'cells'"),
        ({"method": "cells", "n_probe": 0}, "n_probe=0: give a whole number"),
        ({"method": "cells", "n_cells": 2.5}, "n_cells=2.5: give a whole number"),
        ({"method": "cells", "n_cells": 31}, "n_cells=31 but only 30 rows differ"),
        ({"method": "cells", "n_cells": 5}, "n_probe=8 but there are 5 cells; lower it"),
        ({"method": "cells"}, "n_probe=8 but there are 5 cells; lower it"),
    ],
)
def test_fit__refuses_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Neighbours(3, **options).fit(clustered(30, 4))
