"""Estimators with scikit-learn's contract: on numpy without a cluster, on Dask arrays and blocks with one."""

from __future__ import annotations

from vehclust_dask.estimators.density import DBSCAN, HDBSCAN, DensityTree
from vehclust_dask.estimators.kmeans import KMeans, KMeansSweep
from vehclust_dask.estimators.minibatch import MiniBatchKMeans
from vehclust_dask.estimators.mixture import GaussianMixture, GaussianMixtureSweep
from vehclust_dask.estimators.nearest import Neighbours
from vehclust_dask.estimators.outliers import LocalOutlierFactor
from vehclust_dask.estimators.pca import PCA
from vehclust_dask.estimators.silhouette import silhouette_samples, silhouette_score
from vehclust_dask.estimators.ward import Ward

__all__ = [
    "DBSCAN",
    "HDBSCAN",
    "PCA",
    "DensityTree",
    "GaussianMixture",
    "GaussianMixtureSweep",
    "KMeans",
    "KMeansSweep",
    "LocalOutlierFactor",
    "MiniBatchKMeans",
    "Neighbours",
    "Ward",
    "silhouette_samples",
    "silhouette_score",
]
