"""What is compiled beforehand."""

from __future__ import annotations

from vehclust_dask.kernels import (
    condensed,
    copies,
    crossing,
    density,
    forest,
    linkage,
    neighbours,
    outliers,
    rescan,
    silhouette,
    tiles,
    ward,
)
from vehclust_dask.kernels.warm import warm_kernels, warm_silhouettes, warm_tiles


def test_warm_tiles__compiles_what_tasks_call() -> None:
    warm_tiles()
    for kernel in (
        tiles.scan_tile,
        neighbours._decide,
        neighbours._merge_lists,
        neighbours._search_tile,
        copies._hash_words,
        copies._spread,
        outliers._densities,
        outliers._factors,
        outliers._join_near,
        ward.local_phase,
        rescan._scan_costs,
        rescan._take_lists,
        linkage._number,
        linkage._cut,
        forest._cores,
        forest._kruskal,
        forest._listed_between,
        forest._roots,
        crossing._leaf_order,
        crossing._chain,
        crossing._scan_band,
        crossing.ceilings,
        density._joins,
        density._label,
        condensed._condense,
        condensed._leaves,
    ):
        assert kernel.signatures, f"{kernel.__name__} would be compiled by every worker"  # type: ignore[attr-defined]


def test_warm__compiles_silhouettes() -> None:
    warm_kernels()
    assert silhouette._compare.signatures  # type: ignore[attr-defined]
    warm_silhouettes()
    # Rows as they are, and rows of length one.
    assert len(silhouette._take_roots.signatures) == 2  # type: ignore[attr-defined]
    for kernel in (silhouette._add_lines, silhouette._turn, silhouette._compare):
        assert len(kernel.signatures) == 1, kernel.__name__  # type: ignore[attr-defined]
