"""The plan of a job: its steps, tasks, memory and disk, known before the first task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vehclust_dask import budget
from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import BadInput, NotEnough
from vehclust_dask.estimators.cells import POOL_ROWS, cell_count
from vehclust_dask.estimators.silhouette import AT_ONCE, MOST_CLUSTERS
from vehclust_dask.estimators.starts import LARGE_BYTES
from vehclust_dask.job import photo_scores
from vehclust_dask.job.clustering import check_clusters
from vehclust_dask.job.neighbourhood import check_neighbours, needed_neighbours
from vehclust_dask.job.outlier_spec import OutlierSpec
from vehclust_dask.job.outliers import check_outliers
from vehclust_dask.job.reduction import check_components
from vehclust_dask.job.spec import ClusterSpec, JobSpec, NeighboursSpec, StudySpec
from vehclust_dask.job.study import DENSITY, METRICS
from vehclust_dask.kernels import mixture
from vehclust_dask.kernels.forest import EDGES_AT_ONCE
from vehclust_dask.kernels.segments import TILE_ROWS
from vehclust_dask.kernels.tiles import SLACK
from vehclust_dask.records import RowGrid
from vehclust_dask.store.folders import read_json, require_space
from vehclust_dask.store.sources import Source, open_source
from vehclust_dask.store.storage import at


@dataclass(frozen=True)
class PlannedStep:
    """A step before it is computed.

    Attributes
    ----------
    name : str
    grid : RowGrid
        Of the rows it reads.
    columns : int
    tasks : int
        Per pass.
    task_bytes : int
        Upper estimate of what one task holds at once.
    disk_bytes : int
        Upper estimate of what it writes; 0 where it is done.
    done : bool
    why : str
        What the memory is for, where that is more than blocks.
    """

    name: str
    grid: RowGrid
    columns: int
    tasks: int
    task_bytes: int
    disk_bytes: int
    done: bool = False
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """The steps of a job in order, and what they may take."""

    job: str
    steps: tuple[PlannedStep, ...]
    per_task_bytes: int

    @property
    def disk_bytes(self) -> int:
        """Return what is still to be written."""
        return sum(step.disk_bytes for step in self.steps)

    def check(self, workdir: Path) -> None:
        """Refuse a job that cannot fit.

        Raises
        ------
        NotEnough
            If a task needs more than the job grants, or the disk is too small.
        """
        for step in self.steps:
            if not step.done and step.task_bytes > self.per_task_bytes:
                why = f" ({step.why})" if step.why else ""
                raise NotEnough(
                    f"{step.name} needs {show_bytes(step.task_bytes)} per task{why}, the job grants "
                    f"{show_bytes(self.per_task_bytes)}; raise memory.per_task (and a worker's "
                    "memory_limit with it)"
                )
        require_space(workdir, self.disk_bytes, f"job {self.job}")


def plan_job(spec: JobSpec, workdir: Path) -> Plan:
    """Plan a job from the headers of its sources.

    Parameters
    ----------
    spec : JobSpec
    workdir : Path

    Raises
    ------
    BadInput
        If a source cannot be read, or fewer columns or rows are there than the job asks for.
    """
    _check_files(spec)
    folder = workdir / "datasets" / spec.data.dataset
    shapes: dict[str, tuple[tuple[int, ...], int]] = {}
    steps: list[PlannedStep] = []
    for descriptor in spec.data.descriptors:
        sources = [open_source(s.file, s.key) for s in descriptor.sources]
        width = sources[0].n_features
        shapes[descriptor.name] = tuple(s.n_rows for s in sources), width
        rows = spec.data.block_rows or budget.block_rows(width)
        grid = RowGrid(tuple(s.n_rows for s in sources), rows)
        done = all(_converted(folder / f"{descriptor.name}.zarr", s, rows) for s in sources)
        item = max(s.payload_bytes // max(1, s.n_rows * s.n_features) for s in sources)
        block = rows * width
        steps.append(
            PlannedStep(
                f"convert {descriptor.name}",
                grid,
                width,
                grid.n_blocks,
                block * (2 * max(item, 4) + 8) + 64 * width,
                0 if done else 4 * _stored_rows(grid) * width,
                done,
            )
        )
    for study in spec.studies:
        check_outliers(study, _has_photos(spec), sum(shapes[study.descriptors[0]][0]))
        steps.extend(_study_steps(study, shapes, spec.data.block_rows))
    if any(study.outliers for study in spec.studies) and _has_photos(spec):
        steps.append(_photo_step(sum(next(iter(shapes.values()))[0])))
    return Plan(spec.name, tuple(steps), spec.per_task_bytes)


def _check_files(spec: JobSpec) -> None:
    """Refuse files beside the descriptors that are not there."""
    named = [("data.paths", file) for file in spec.data.paths]
    if spec.data.photos is not None:
        named.append(("data.photos", spec.data.photos))
    if spec.data.truth is not None:
        named.append(("data.truth", spec.data.truth.file))
    for word, file in named:
        if not at(file).exists():
            raise BadInput(f"{word}: there is no {file}; correct the job, or leave {word} out")


def _has_photos(spec: JobSpec) -> bool:
    """Say whether rows can have photos: a set may bring paths of its own."""
    return spec.data.photos is not None


def _stored_rows(grid: RowGrid) -> int:
    """Return the rows there is room for on storage: the last block of a part is stored full."""
    return sum(-(-n // grid.block_rows) * min(n, grid.block_rows) for n in grid.part_rows)


def _converted(folder: Path, source: Source, block_rows: int) -> bool:
    """Say whether a source in this state was converted, however its rows were joined."""
    wanted = {
        "file": source.file,
        "key": source.key,
        "block_rows": block_rows,
        **source.fingerprint(),
    }.items()
    return any(
        wanted <= converted.items()
        for record in folder.glob("part-*/part.json")
        for converted in read_json(record)["sources"]
    )


def _study_steps(
    study: StudySpec, shapes: dict[str, tuple[tuple[int, ...], int]], block_rows: int | None
) -> Iterator[PlannedStep]:
    rows = shapes[study.descriptors[0]][0]
    width = sum(shapes[name][1] for name in study.descriptors)
    view = RowGrid(rows, block_rows) if block_rows else RowGrid.for_width(rows, width)
    block = 4 * view.block_rows * width
    kept = width
    if study.reduce.method == "pca":
        check_components(study, width, view.n_rows)
        kept = min(study.reduce.max_components or study.reduce.n_components or width, width)
        square = 8 * width * width
        yield PlannedStep(
            f"{study.name}: moments",
            view,
            width,
            len(view.leaves()),
            3 * block + 5 * square,
            square,
        )
        yield PlannedStep(f"{study.name}: components", view, width, 1, 5 * square, 8 * kept * width)
    grid = RowGrid(rows, block_rows) if block_rows else RowGrid.for_width(rows, kept)
    if study.reduce.method == "pca" or study.scale in ("standard", "minmax"):
        out = 4 * grid.block_rows * kept
        yield PlannedStep(
            f"{study.name}: reduced rows",
            view,
            width,
            grid.n_blocks,
            3 * block + 2 * out,
            4 * _stored_rows(grid) * kept,
        )
    check_neighbours(study, grid.n_rows)
    for metric in METRICS:
        if m := min(needed_neighbours(study, metric), grid.n_rows - 1):
            yield _lists_step(study, m, metric, grid, kept)
    if study.neighbours is not None and study.neighbours.method == "cells":
        yield _cells_step(study, study.neighbours, grid, kept)
    for spec in study.cluster:
        check_clusters(study, spec, grid.n_rows)
        if spec.method == "ward":
            yield _tree_step(study, spec, grid, kept)
            yield _cluster_step(study, spec, grid, kept)
            continue
        if spec.method in DENSITY:
            m = min(needed_neighbours(study, spec.metric), grid.n_rows - 1)
            yield _density_step(study, spec, m, grid, kept)
            continue
        planned = _mixture_step if spec.method == "gaussian-mixture" else _cluster_step
        yield planned(study, spec, grid, kept)
    if study.silhouette:
        yield _silhouette_step(study, grid, kept)
    if study.outliers is not None:
        yield from _outlier_steps(study, study.outliers, grid, kept)


def _cluster_step(study: StudySpec, spec: ClusterSpec, grid: RowGrid, width: int) -> PlannedStep:
    """Plan a clustering: a block, its state for every number of clusters, products of one tile."""
    n, k = len(spec.n_clusters), sum(spec.n_clusters)
    block = min(grid.block_rows, max(grid.part_rows))
    state = block * n * 12 + 2 * 8 * k * width
    products = 4 * k * TILE_ROWS + 12 * k * width
    places = block * n * 24
    whole = 3 * min(LARGE_BYTES, 4 * grid.n_rows * width)
    sample = whole if spec.method == "quick-kmeans" else 0
    return PlannedStep(
        f"{study.name}/{spec.name}: {spec.method}",
        grid,
        width,
        len(grid.leaves()),
        4 * block * width + max(2 * state, places) + products + 8 * k * width * 2 + sample,
        _stored_rows(grid) * n * 12,
    )


def _mixture_step(study: StudySpec, spec: ClusterSpec, grid: RowGrid, width: int) -> PlannedStep:
    """Plan mixtures: a block, k-means of all starts, sums and parameters of all starts, a tile."""
    starts = len(spec.n_clusters) * spec.n_init
    k = sum(spec.n_clusters) * spec.n_init
    block = min(grid.block_rows, max(grid.part_rows))
    square = {"full": k * width * width, "tied": starts * width * width}
    numbers = 8 * (square.get(spec.covariance, k * width) + 2 * k * width)
    kmeans = block * starts * 12 + 2 * 8 * k * width + 4 * k * TILE_ROWS + 28 * k * width
    tile = 8 * mixture.TILE_ROWS * (3 * spec.n_clusters[-1] + 8)
    room = 2 * 8 * mixture.CHUNK_ROWS * width
    # Parameters come in twos (covariances and factors) and once more for the products; of the sums
    # there are the ones so far, those of a block and what they add up to.
    fit = 6 * numbers + tile + room
    places = block * len(spec.n_clusters) * 60 + 3 * numbers // spec.n_init + tile + room
    return PlannedStep(
        f"{study.name}/{spec.name}: {spec.method}",
        grid,
        width,
        len(grid.leaves()),
        4 * block * width + max(2 * kmeans, fit, places),
        _stored_rows(grid) * len(spec.n_clusters) * (2 * 4 + 4 * 4) + 6 * numbers,
    )


def _lists_step(study: StudySpec, m: int, metric: str, grid: RowGrid, width: int) -> PlannedStep:
    """Plan nearest rows: tiles, and the lists of all rows, which the workers hold until they are written.

    One worker may be all there is, so that a task is planned with all lists beside it. On storage
    there are two rounds of them for a moment, and the lists themselves.
    """
    n, groups = grid.n_rows, len(grid.groups())
    group = min(budget.TILE_ROWS, n)
    # Rows of both groups as they are (float64 of length one for cosine) and as tiles, lists with
    # room for twice as many entries.
    row = (24 if metric == "cosine" else 16) * width
    tile = 2 * group * (row + 32 * (m + SLACK) + 24 * m)
    lists = n * (12 * m + 16)
    return PlannedStep(
        f"{study.name}: {m} nearest rows, {metric}",
        grid,
        width,
        groups * (groups + 1) // 2,
        4 * grid.block_rows * width + tile + lists,
        3 * lists,
        why=f"{show_bytes(lists)} for lists of {m} neighbours of {n:,} rows, 12 bytes each; "
        "fewer neighbours take less",
    )


def _cells_step(study: StudySpec, asked: NeighboursSpec, grid: RowGrid, width: int) -> PlannedStep:
    """Plan lists by cells: a stretch of rows and its lists, a pool of others, every row's cell and place."""
    n, m = grid.n_rows, min(asked.n, grid.n_rows - 1)
    stretch, pool = min(budget.TILE_ROWS, n), min(POOL_ROWS + grid.block_rows, n)
    cells = cell_count(asked.n_cells, n)
    row = (24 if asked.metric == "cosine" else 16) * width
    held = 2 * stretch * (row + 28 * m + 12 * asked.n_probe) + 2 * pool * row
    return PlannedStep(
        f"{study.name}: {m} near rows by cells, {asked.metric}",
        grid,
        width,
        -(-n // budget.TILE_ROWS),
        4 * grid.block_rows * width + held + 2 * row * cells + 44 * n,
        n * (12 * m + 24),
        why=f"{show_bytes(held)} for the rows and lists that a task searches at once",
    )


def _tree_step(study: StudySpec, spec: ClusterSpec, grid: RowGrid, width: int) -> PlannedStep:
    """Plan the tree of Ward's method: its whole state in one task."""
    n, m = grid.n_rows, min(spec.n_neighbors, grid.n_rows - 1)
    return PlannedStep(
        f"{study.name}: tree",
        grid,
        width,
        1,
        n * (8 * width + 24 * m + 120) + (64 << 20),
        n * (8 * width + 12 * m + 120),
        why=f"for each of {n:,} rows 8 bytes in each of {width} columns, 24 for each of {m} "
        "neighbours, and 120; a lower n_neighbors takes less",
    )


def _silhouette_step(study: StudySpec, grid: RowGrid, width: int) -> PlannedStep:
    """Plan exact silhouettes: tiles of distances, and a sum per row and cluster of a pass."""
    chosen = [
        k
        for spec in study.cluster
        for k in spec.n_clusters
        for word, number in study.silhouette
        if word in ("all", spec.name) and number in (None, k)
    ]
    featured = study.featured[1] if study.featured else None
    chosen = chosen or ([featured] if featured else [MOST_CLUSTERS])
    lines = min(sum(sorted(chosen)[-AT_ONCE:]), MOST_CLUSTERS)
    n, group = grid.n_rows, min(budget.TILE_ROWS, grid.n_rows)
    groups = len(grid.groups())
    passes = -(-len(chosen) // AT_ONCE)
    sums = 8 * n * lines
    return PlannedStep(
        f"{study.name}: silhouettes",
        grid,
        width,
        passes * groups * (groups + 1) // 2,
        4 * grid.block_rows * width + 2 * group * (12 * width + 24 * lines) + sums,
        3 * sums,
        why=f"{show_bytes(sums)} for a sum per row and cluster, {n:,} rows and {lines} clusters; "
        "ask for silhouettes of fewer or coarser clusterings",
    )


def _density_step(
    study: StudySpec, spec: ClusterSpec, m: int, grid: RowGrid, width: int
) -> PlannedStep:
    """Plan a density method: all lists and a stretch of their edges in one task, then places."""
    settings = max(1, len(spec.eps) or len(spec.min_cluster_size)) * max(1, len(spec.min_samples))
    n = grid.n_rows
    return PlannedStep(
        f"{study.name}/{spec.name}: {spec.method}, {spec.metric}",
        grid,
        width,
        len(grid.leaves()),
        n * (24 * m + 160) + min(n * m, 2 * EDGES_AT_ONCE) * 96 + 4 * grid.block_rows * width,
        n * (40 + 24 * settings),
    )


def _outlier_steps(
    study: StudySpec, spec: OutlierSpec, grid: RowGrid, width: int
) -> Iterator[PlannedStep]:
    """Plan outlier scores: lists unless a tree has the same, all of them in one task, a forest."""
    n, m = grid.n_rows, min(needed_neighbours(study, "euclidean"), grid.n_rows - 1)
    # The lists of distinct rows, those of all rows, a few columns.
    lists = n * (24 * m + 12 * spec.n_neighbors + 64) + (32 << 20)
    scored = 8 * _stored_rows(grid)
    yield PlannedStep(f"{study.name}: outliers by lists", grid, width, 1, lists, 4 * scored)
    if spec.scores is None or "isolation" in spec.named():
        sample = min(spec.sample, n)
        forest = spec.n_estimators * (1 << 16)
        block = 4 * grid.block_rows * width
        # Drawn rows in parts and together, and once more while trees are grown.
        fit = 3 * 4 * sample * width + block + forest
        score = 2 * block + 64 * grid.block_rows + 2 * forest
        name = f"{study.name}: isolation forest"
        yield PlannedStep(name, grid, width, grid.n_blocks, max(fit, score), scored)


def _photo_step(n_rows: int) -> PlannedStep:
    """Plan the look at every photo, one at a time, decoded small."""
    grid = RowGrid((n_rows,), photo_scores.BLOCK_ROWS)
    fields = len(photo_scores.PhotoRow._fields)
    disk = 8 * fields * _stored_rows(grid)
    return PlannedStep("photos", grid, fields, grid.n_blocks, 64 * n_rows + (32 << 20), disk)
