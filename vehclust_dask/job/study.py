"""The studies of a job file: which descriptors, how they are reduced and how they are clustered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vehclust_dask.errors import nearest
from vehclust_dask.job.counts import MAX_COUNTS, parse_counts
from vehclust_dask.job.outlier_spec import OutlierSpec, read_outliers
from vehclust_dask.job.reading import Place, refuse_repeats

ENGINES = ("vehclust", "dask-ml")
SCALES = ("none", "standard", "minmax", "l2")
METHODS = (
    "kmeans",
    "quick-kmeans",
    "minibatch-kmeans",
    "gaussian-mixture",
    "ward",
    "dbscan",
    "hdbscan",
)
#: Methods that find their own number of clusters.
DENSITY = ("dbscan", "hdbscan")
METRICS = ("euclidean", "cosine")
SELECTIONS = ("eom", "leaf")
LIST_METHODS = ("exact", "cells")
INITS = ("best-of-sample", "k-means||")
_OF_MIXTURES = ("covariance", "reg_covar", "precision")
_OF_TREES = ("n_neighbors",)
_OF_DENSITY = ("metric", "min_samples", "eps", "min_cluster_size", "selection")
_NOT_OF_DENSITY = (
    "n_clusters", "init", "n_init", "max_iter", "tol", "batch_size", *_OF_MIXTURES, *_OF_TREES,
)  # fmt: skip
#: Keys of a clustering that a method has no use for.
FOREIGN_KEYS = {
    "kmeans": ("batch_size", *_OF_MIXTURES, *_OF_TREES, *_OF_DENSITY),
    "quick-kmeans": (
        "batch_size", "init", "max_iter", "tol", *_OF_MIXTURES, *_OF_TREES, *_OF_DENSITY,
    ),
    "minibatch-kmeans": ("init", "tol", *_OF_MIXTURES, *_OF_TREES, *_OF_DENSITY),
    "gaussian-mixture": ("init", "batch_size", *_OF_TREES, *_OF_DENSITY),
    "ward": ("batch_size", "init", "n_init", "max_iter", "tol", *_OF_MIXTURES, *_OF_DENSITY),
    "dbscan": (*_NOT_OF_DENSITY, "min_cluster_size", "selection"),
    "hdbscan": (*_NOT_OF_DENSITY, "eps"),
}  # fmt: skip
#: What a method takes where the job does not say: starts, passes, tolerance.
DEFAULTS: dict[str, tuple[int, int, float]] = {
    "kmeans": (10, 300, 1e-4),
    "quick-kmeans": (10, 300, 1e-4),
    "minibatch-kmeans": (10, 300, 1e-4),
    "gaussian-mixture": (1, 100, 1e-3),
    "ward": (1, 1, 0.0),
    "dbscan": (1, 1, 0.0),
    "hdbscan": (1, 1, 0.0),
}
COVARIANCES = ("full", "tied", "diag", "spherical")
PRECISIONS = ("float64", "float32")
#: PCA without a count keeps this share of the variance, in at most this many components.
DEFAULT_VARIANCE, DEFAULT_MAX_COMPONENTS = 0.9, 200
#: The featured clustering's k is the one nearest to this unless the job names another.
FEATURED_K = 30
#: min_samples of DBSCAN unless the job names others, and how many settings one may name.
DBSCAN_SAMPLES, MAX_SETTINGS = (5, 10, 32), 60


@dataclass(frozen=True)
class ReduceSpec:
    """How many columns remain.

    Parameters
    ----------
    method : str
        ``pca`` or ``none``.
    n_components : int or None
        Columns to keep; exactly one of this and `variance` is given for ``pca``.
    variance : float or None
        Share of the variance to keep, in (0, 1].
    max_components : int or None
        Upper bound; with it a count above the set's width means the whole set.
    solver : str
        ``gram`` (one pass over a Gram matrix) or ``qr`` (tall QR, for tiny variances).
    engine : str
        ``vehclust`` or ``dask-ml``.
    """

    method: str
    n_components: int | None
    variance: float | None
    max_components: int | None
    solver: str
    engine: str


@dataclass(frozen=True)
class ClusterSpec:
    """One clustering of a study, for one k or a sweep.

    Parameters
    ----------
    name : str
    method : str
        ``kmeans``, ``quick-kmeans`` (settles on a sample, then two passes over all rows),
        ``minibatch-kmeans``, ``gaussian-mixture``, ``ward``, ``dbscan`` or ``hdbscan``.
    n_clusters : tuple of int
        Sorted, each once; empty for ``dbscan`` and ``hdbscan``, which find it.
    engine : str
        ``vehclust`` or ``dask-ml``.
    init : str
        ``best-of-sample`` or ``k-means||``; engine ``dask-ml`` knows the second alone.
    n_init : int
        Starts, of which the best is kept; 1 for ``kmeans`` by engine ``dask-ml``.
    max_iter : int
        Passes at most.
    tol : float
        scikit-learn's: relative to the mean variance of the columns; for ``gaussian-mixture`` the
        gain in mean log-likelihood. Not for ``minibatch-kmeans``, which stops when batches no
        longer improve.
    batch_size : int
        Rows of a batch of ``minibatch-kmeans``.
    covariance : str
        Of ``gaussian-mixture``: ``full``, ``tied``, ``diag`` or ``spherical``.
    reg_covar : float
        Added to every variance of ``gaussian-mixture``.
    precision : str
        Of the products of its fit: ``float64``, or ``float32`` for the faster one.
    n_neighbors : int
        Length of the lists that the tree of ``ward`` grows from.
    metric : str
        Of ``dbscan`` and ``hdbscan``: ``euclidean`` or ``cosine``.
    min_samples : tuple of int
        Rows that make a row a core row, itself included; a clustering for each. Empty for
        ``hdbscan``: as many as ``min_cluster_size``.
    eps : tuple of float
        Of ``dbscan``, in the metric's own unit; empty: a grid of all that matter, and the labels of
        its best value for each ``min_samples``.
    min_cluster_size : tuple of int
        Of ``hdbscan``.
    selection : str
        Of ``hdbscan``: ``eom`` or ``leaf``.
    """

    name: str
    method: str
    n_clusters: tuple[int, ...]
    engine: str
    init: str
    n_init: int = 10
    max_iter: int = 300
    tol: float = 1e-4
    batch_size: int = 4096
    covariance: str = "full"
    reg_covar: float = 1e-6
    precision: str = "float64"
    n_neighbors: int = 32
    metric: str = "euclidean"
    min_samples: tuple[int, ...] = ()
    eps: tuple[float, ...] = ()
    min_cluster_size: tuple[int, ...] = ()
    selection: str = "eom"

    @property
    def largest_samples(self) -> int:
        """Return the largest ``min_samples`` of a density method."""
        return max((*self.min_samples, *(() if self.min_samples else self.min_cluster_size)))


@dataclass(frozen=True)
class NeighboursSpec:
    """Lists of nearest rows that a study keeps, whatever its clusterings need.

    Parameters
    ----------
    n : int
        Neighbours of each row.
    metric : str
        ``euclidean`` or ``cosine``.
    method : str
        ``exact``, or ``cells``: an approximation whose recall is measured.
    n_probe : int
        Cells that a row searches.
    n_cells : int or None
        None: about the square root of the number of rows.
    """

    n: int
    metric: str = "euclidean"
    method: str = "exact"
    n_probe: int = 8
    n_cells: int | None = None


@dataclass(frozen=True)
class StudySpec:
    """Descriptors, scaled, joined side by side, reduced and clustered.

    Parameters
    ----------
    name : str
    descriptors : tuple of str
        Names of sets, in the order they are joined.
    scale : str
        ``none``, ``standard``, ``minmax`` or ``l2``.
    reduce : ReduceSpec
    cluster : tuple of ClusterSpec
        May be empty: a study may end with its variance curve.
    featured : tuple of (str, int or None) or None
        Clustering and k that get cluster pages and stored distances. Unless the job names it: the
        first clustering, and of its k the one nearest to 30 (the smaller of two equally near).
        None only for a study without clusterings.
    outliers : OutlierSpec or None
        None for a study that asks for no outlier scores.
    neighbours : NeighboursSpec or None
        Lists that are asked for beside those of the clusterings.
    silhouette : tuple of (str, int or None)
        Clusterings whose exact silhouettes are computed; ``featured`` or ``all`` for a name, None
        for every k of one.
    """

    name: str
    descriptors: tuple[str, ...]
    scale: str
    reduce: ReduceSpec
    cluster: tuple[ClusterSpec, ...]
    featured: tuple[str, int | None] | None
    outliers: OutlierSpec | None = None
    neighbours: NeighboursSpec | None = None
    silhouette: tuple[tuple[str, int | None], ...] = ()


def read_study(name: str, place: Place, sets: tuple[str, ...]) -> StudySpec:
    """Return the study at this place of a job file.

    Parameters
    ----------
    name : str
    place : Place
    sets : tuple of str
        Names of the job's descriptor sets.

    Raises
    ------
    UsageError
        If anything in it is unknown, of the wrong kind or contradicts the rest.
    """
    place = place.mapping(
        (
            "descriptors",
            "scale",
            "reduce",
            "cluster",
            "featured",
            "outliers",
            "neighbours",
            "silhouette",
        )
    )
    items = place["descriptors"].items()
    if not items:
        place["descriptors"].refuse(f"is missing; name one or more of {', '.join(sets)}")
    descriptors = tuple(item.choice(sets) for item in items)
    refuse_repeats(place["descriptors"], descriptors)
    cluster = tuple(_cluster(word, there) for word, there in place["cluster"].named("clustering"))
    return StudySpec(
        name=name,
        descriptors=descriptors,
        scale=place["scale"].choice(SCALES, "none"),
        reduce=_reduce(place["reduce"]),
        cluster=cluster,
        featured=_featured(place["featured"], cluster),
        outliers=read_outliers(
            place["outliers"],
            centers=bool(cluster),
            more=("glosh",) if any(one.method == "hdbscan" for one in cluster) else (),
        ),
        neighbours=place["neighbours"].maybe(_neighbours),
        silhouette=tuple(_silhouette(item, cluster) for item in place["silhouette"].items()),
    )


def _silhouette(place: Place, cluster: tuple[ClusterSpec, ...]) -> tuple[str, int | None]:
    """Read ``km/30``, ``km`` for all its clusterings, ``featured`` or ``all``."""
    if place.value in ("all", "featured"):
        return place.value, None
    return _of_clustering(place, place.text(), cluster)


def _neighbours(place: Place) -> NeighboursSpec:
    """Read a mapping, or a number of neighbours."""
    if not isinstance(place.value, dict):
        return NeighboursSpec(place.whole(least=1))
    place = place.mapping(field.name for field in dataclasses.fields(NeighboursSpec))
    method = place["method"].choice(LIST_METHODS, "exact")
    for key in ("n_probe", "n_cells"):
        if method == "exact" and place[key].given:
            place[key].refuse(
                "has no meaning for exact lists; take it out, or write 'method: cells'"
            )
    n_probe = place["n_probe"].whole(8, least=1)
    n_cells = place["n_cells"].maybe(lambda there: there.whole(least=1))
    if n_cells is not None and n_probe > n_cells:
        place["n_probe"].refuse(f"{n_probe} is above n_cells={n_cells}; lower it")
    return NeighboursSpec(
        n=place["n"].whole(32, least=1),
        metric=place["metric"].choice(METRICS, "euclidean"),
        method=method,
        n_probe=n_probe,
        n_cells=n_cells,
    )


def _reduce(place: Place) -> ReduceSpec:
    """Read a mapping, ``pca``, ``none``, a number of components or a share of the variance."""
    if isinstance(place.value, int) and not isinstance(place.value, bool):
        return ReduceSpec("pca", place.whole(least=1), None, None, "gram", "vehclust")
    if isinstance(place.value, float):
        return ReduceSpec("pca", None, _variance(place), None, "gram", "vehclust")
    if isinstance(place.value, str):
        place = dataclasses.replace(place, value={"method": place.choice(("pca", "none"))})
    place = place.mapping(field.name for field in dataclasses.fields(ReduceSpec))
    method = place["method"].choice(("pca", "none"), "pca")
    if method == "none":
        for key in place.value:
            if key != "method" and place[key].given:
                place[key].refuse("has no meaning with 'method: none'; take one of them out")
        return ReduceSpec("none", None, None, None, "gram", "vehclust")
    return _pca(place)


def _variance(place: Place) -> float:
    share = place.number()
    if not 0 < share <= 1:
        place.wrong("a share of the variance above 0 and at most 1")
    return share


def _pca(place: Place) -> ReduceSpec:
    n_components = place["n_components"].maybe(lambda there: there.whole(least=1))
    variance = place["variance"].maybe(_variance)
    most = place["max_components"].maybe(lambda there: there.whole(least=1))
    engine = place["engine"].choice(ENGINES, "vehclust")
    if n_components and variance:
        place.refuse("gives both n_components and variance; keep one of them")
    if most and not n_components and not variance:
        place["max_components"].refuse("needs n_components or variance beside it")
    if most and n_components and most < n_components:
        place.refuse(f"n_components={n_components} is above max_components={most}; lower it")
    if engine == "dask-ml" and not n_components:
        place.refuse("engine dask-ml takes a number of components; write n_components")
    if engine == "dask-ml" and place["solver"].given:
        place["solver"].refuse("belongs to engine vehclust; take it out, or the engine")
    if not n_components and not variance:
        variance, most = DEFAULT_VARIANCE, DEFAULT_MAX_COMPONENTS
    solver = place["solver"].choice(("gram", "qr"), "gram")
    return ReduceSpec("pca", n_components, variance, most, solver, engine)


def _cluster(name: str, place: Place) -> ClusterSpec:
    # A method of another version has other keys: the method is the thing to speak of.
    if isinstance(place.value, dict):
        place["method"].maybe(lambda there: there.choice(METHODS))
    place = place.mapping(field.name for field in dataclasses.fields(ClusterSpec)[1:])
    method = place["method"].choice(METHODS)
    engines = ENGINES if method.endswith("kmeans") else ENGINES[:1]
    engine = place["engine"].choice(engines, "vehclust")
    for key in FOREIGN_KEYS[method]:
        if place[key].given:
            place[key].refuse(f"has no meaning for method {method}; take it out")
    if engine == "dask-ml" and method == "quick-kmeans":
        place["engine"].refuse("dask-ml has no quick-kmeans; take the engine out, or write kmeans")
    dask_ml_kmeans = engine == "dask-ml" and method == "kmeans"
    if dask_ml_kmeans and place["n_init"].value not in (None, 1):
        place["n_init"].refuse("engine dask-ml starts k-means once; take it out or write 1")
    inits = INITS[1:] if dask_ml_kmeans else INITS
    n_init, max_iter, tol = DEFAULTS[method]
    return ClusterSpec(
        name=name,
        method=method,
        n_clusters=() if method in DENSITY else _counts(place["n_clusters"]),
        engine=engine,
        init=place["init"].choice(inits, inits[0]),
        n_init=place["n_init"].whole(1 if dask_ml_kmeans else n_init, least=1),
        max_iter=place["max_iter"].whole(max_iter, least=1),
        tol=place["tol"].number(tol),
        batch_size=place["batch_size"].whole(4096, least=1),
        covariance=place["covariance"].choice(COVARIANCES, "full"),
        reg_covar=place["reg_covar"].number(1e-6),
        precision=place["precision"].choice(PRECISIONS, "float64"),
        n_neighbors=place["n_neighbors"].whole(32, least=1),
        **(_density(method, place) if method in DENSITY else {}),
    )


def _density(method: str, place: Place) -> dict[str, Any]:
    """Read what density methods take: each number alone or in a list."""
    samples = _each(place["min_samples"], lambda one: one.whole(least=1))
    read: dict[str, Any] = {"metric": place["metric"].choice(METRICS, "euclidean")}
    if method == "dbscan":
        eps = _each(place["eps"], _distance)
        return read | {"min_samples": samples or DBSCAN_SAMPLES, "eps": eps}
    sizes = _each(place["min_cluster_size"], lambda one: one.whole(least=2))
    if not sizes:
        place["min_cluster_size"].refuse("is missing; write how many rows a cluster has at least")
    selection = place["selection"].choice(SELECTIONS, "eom")
    return read | {"min_samples": samples, "min_cluster_size": sizes, "selection": selection}


def _each(place: Place, read: Callable[[Place], Any]) -> tuple[Any, ...]:
    """Read one value or a list of them, sorted, each once; empty where there is none."""
    found = tuple(sorted({read(item) for item in place.items()}))
    if len(found) > MAX_SETTINGS:
        place.refuse(f"names {len(found)} values, {MAX_SETTINGS} at most")
    return found


def _distance(place: Place) -> float:
    value = place.number()
    if not value > 0:
        place.wrong("a distance above 0")
    return value


def _counts(place: Place) -> tuple[int, ...]:
    """Read a count, a text of counts and ranges, or a list of both."""
    items = place.items()
    if not items:
        place.refuse('is missing; write 30, [10, 30], "2..50" or "2..50 step 4"')
    counts: set[int] = set()
    for item in items:
        if not isinstance(item.value, str):
            counts.add(item.whole(least=1))
            continue
        try:
            counts.update(parse_counts(item.value))
        except ValueError as error:
            item.refuse(str(error))
    if len(counts) > MAX_COUNTS:
        place.refuse(f"names {len(counts)} counts, {MAX_COUNTS} at most; use a larger step")
    return tuple(sorted(counts))


def _featured(place: Place, cluster: tuple[ClusterSpec, ...]) -> tuple[str, int | None] | None:
    """Read ``km/30`` or ``km``; the default is the first clustering at the k nearest to 30."""
    if not cluster:
        if place.given:
            place.refuse("names a clustering, but the study has none")
        return None
    first = next((spec for spec in cluster if spec.n_clusters), cluster[0])
    name, k = _of_clustering(place, place.text(first.name), cluster)
    counts = next(spec.n_clusters for spec in cluster if spec.name == name)
    if k is None and counts:
        k = min(counts, key=lambda count: (abs(count - FEATURED_K), count))
    return name, k


def _of_clustering(
    place: Place, text: str, cluster: tuple[ClusterSpec, ...]
) -> tuple[str, int | None]:
    """Return clustering and k of ``km/30`` or ``km``, whose k is then None."""
    by_name = {spec.name: spec for spec in cluster}
    name, slash, k = text.partition("/")
    if name not in by_name:
        place.refuse(f"'{name}' is no clustering of this study; {nearest(name, by_name)}")
    counts = by_name[name].n_clusters
    if not slash:
        return name, None
    if not counts:
        place.refuse(f"'{name}' finds its number of clusters itself; write '{name}'")
    if not k.isdecimal() or int(k) not in counts:
        place.refuse(f"'{name}' is not made for k={k}; k is one of {_listed(counts)}")
    return name, int(k)


def _listed(counts: tuple[int, ...]) -> str:
    if len(counts) > 12:
        return f"{', '.join(map(str, counts[:4]))}, ... {counts[-1]}"
    return ", ".join(map(str, counts))
