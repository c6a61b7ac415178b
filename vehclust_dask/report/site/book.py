"""What a report is written from: records and arrays of one finished run, read where they lie."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vehclust_dask.report.figure import Display
from vehclust_dask.store.photos import Photos
from vehclust_dask.store.storage import readable

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Featured:
    """The clustering of a study that gets pages of its clusters.

    Attributes
    ----------
    name : str
        Of the clustering, as in the job.
    column : str
        Of the table of labels, such as ``km_30``.
    method : str
    k : int
    labels : ndarray of shape (n_rows,), int64
        -1 for noise.
    second : ndarray of shape (n_rows,), int64
        The next nearest cluster; -1 where there is none.
    distance : ndarray of shape (n_rows,), float64
        To the center of the own cluster, of noise to the nearest; NaN where unknown.
    margin : ndarray of shape (n_rows,), float64
        By how much the own cluster is nearer than the second; small at a border. NaN where unknown.
    centers : ndarray of shape (k, n_features), float64
    """

    name: str
    column: str
    method: str
    k: int
    labels: I64
    second: I64
    distance: F64
    margin: F64
    centers: F64

    @functools.cached_property
    def sizes(self) -> I64:
        """Return the rows of every cluster, shape (k,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.k)

    @property
    def noise(self) -> int:
        """Return the rows of no cluster."""
        return int((self.labels < 0).sum())


@dataclass(frozen=True, eq=False)
class StudyBook:
    """One study of a run.

    Attributes
    ----------
    name : str
    descriptors : tuple of str
    n_features : int
        Columns of the rows that were clustered.
    rows : ndarray of shape (n_rows,), int64
        Row of the data set of every row here: dropped rows are absent.
    xy : ndarray of shape (n_rows, 2), float32
        The first two columns; zeros where there is one only.
    shares : tuple of float
        Of the variance in those two, where known.
    curve : ndarray of shape (n_components,), float64, or None
        Cumulative share of variance; None where nothing was reduced.
    featured : Featured or None
    table : Path
        Of the labels of every clustering.
    columns : dict of str to tuple of str and int
        Clustering and number of clusters of every column of labels.
    scores : DataFrame
        Of the study's clusterings.
    clusters : dict of str to DataFrame
        Of every clustering: k, cluster, size, mean_distance, nearest_cluster, nearest_distance.
    outliers : DataFrame or None
        Scores, ranks and reasons of every row, in the order of ``rows``.
    rules : dict of str to float
        Outlier scores with a threshold.
    displays : dict of (str, str) to Display
        Figures of trees and of density, by what they show and the name of the clustering.
    """

    name: str
    descriptors: tuple[str, ...]
    n_features: int
    rows: I64
    xy: F32
    shares: tuple[float, ...]
    curve: F64 | None
    featured: Featured | None
    table: Path
    columns: dict[str, tuple[str, int]]
    scores: pd.DataFrame
    clusters: dict[str, pd.DataFrame]
    outliers: pd.DataFrame | None = None
    rules: Mapping[str, float] = field(default_factory=dict)
    displays: Mapping[tuple[str, str], Display] = field(default_factory=dict)

    def labels(self, column: str) -> I64:
        """Return the labels of a clustering, -1 for noise."""
        return read_columns(self.table, [column])[column].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Book:
    """A finished run, as its report needs it.

    Attributes
    ----------
    run, job : str
    folder : Path
        Of the run.
    manifest : dict
        Provenance of the run.
    samples : DataFrame
        Of the data set: row, path, group, truth_<column>, where known.
    photos : Photos or None
    studies : tuple of StudyBook
    scores : DataFrame
    synthetic : bool
    """

    run: str
    job: str
    folder: Path
    manifest: dict[str, Any]
    samples: pd.DataFrame
    photos: Photos | None
    studies: tuple[StudyBook, ...]
    scores: pd.DataFrame
    synthetic: bool

    @property
    def n_rows(self) -> int:
        """Return the rows of the data set."""
        return len(self.samples)

    @functools.cached_property
    def paths(self) -> list[str] | None:
        """Return the path of every row, where paths are known."""
        return self.samples["path"].tolist() if "path" in self.samples else None


def read_columns(table: Path, columns: list[str]) -> dict[str, NDArray[Any]]:
    """Return columns of a parquet table."""
    found = pq.read_table(readable(table), columns=columns)
    return {name: found[name].to_numpy() for name in columns}


def nearest_column(columns: dict[str, tuple[str, int]], name: str, k: float) -> str:
    """Return the column of a clustering whose number of clusters is nearest, the smaller of two."""
    own = [(abs(n - k), n, column) for column, (one, n) in columns.items() if one == name]
    return min(own)[2]
