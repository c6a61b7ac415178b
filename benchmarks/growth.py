"""Time per row and memory as rows grow, and what a second worker brings, through the steps of a job.

    python -m benchmarks.growth --rows 100000 1000000 10000000 --keep work/bench

A set of 128 columns (`--set` names a wider one) is converted, reduced to 64 and swept for
k = 2..50, on a Dask cluster of this machine with 1 and with 2 workers, in a fresh process and an
empty work folder each time. The sweep makes a fixed number of passes (tol 0), so that the time per
row is comparable. Rows beyond 200,000 repeat with noise. Seconds are wall clock: leave the machine
alone. Peak memory is the private memory (RssAnon) of driver, scheduler, nannies and workers
together, looked at five times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import pairs, printing
from benchmarks.command import arguments
from benchmarks.files import Features, opened
from benchmarks.measuring import tree_peak

COMPONENTS, PASSES = 64, 10
#: Rows of the demo that longer files repeat.
AT_MOST = 200_000
#: What two workers should bring.
SPEED_UP = 1.7
JOB = """name: growth
data:
  descriptors: {{a: {file}}}
memory: {{per_task: 512MiB}}
studies:
  grown:
    descriptors: [a]
    scale: standard
    reduce: {{method: pca, n_components: {n}}}
    cluster:
      km: {{method: kmeans, n_clusters: "2..{k}", max_iter: {passes}, tol: 0}}
report: {{sheets: none, pages: false}}
"""


@dataclass
class Measured:
    """Seconds of the parts of one job, and its peak memory.

    Attributes
    ----------
    seconds : dict of str to float
        ``convert``, ``pca`` (moments, components and projection), ``range`` (a pass for the range
        of the rows), ``start`` (choosing starts on a sample of fixed size), ``pass`` (all passes of
        Lloyd's iteration), ``assign``.
    passes : int
        That were made.
    peak_mb : float
    """

    seconds: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    peak_mb: float = 0.0


@dataclass
class Laps:
    """Seconds of every verb: from the end of the one before to its own end."""

    last: float = field(default_factory=time.perf_counter)
    found: list[tuple[str, float]] = field(default_factory=list)

    def listen(self, progress: Any) -> None:
        """Take note of the end of a verb."""
        if progress.done == progress.total:
            self.lap(progress.name)

    def lap(self, name: str) -> None:
        """Begin anew; what came before belongs to ``name``."""
        now = time.perf_counter()
        self.found.append((name, now - self.last))
        self.last = now


def measure_job(file: str, workdir: Path, workers: int, last_k: int, components: int) -> Measured:
    """Take a file through the steps of a job."""
    from vehclust_dask import blocks
    from vehclust_dask.job.clustering import cluster_rows
    from vehclust_dask.job.dataset import convert
    from vehclust_dask.job.reduction import reduce_study
    from vehclust_dask.job.spec import load_job
    from vehclust_dask.job.watch import Watch
    from vehclust_dask.job.work import Work
    from vehclust_dask.kernels.warm import warm_kernels
    from vehclust_dask.place import LocalPlace, open_place
    from vehclust_dask.store.views import RowsView

    job = workdir / "job.yaml"
    job.write_text(JOB.format(file=file, n=components, k=last_k, passes=PASSES))
    spec = load_job(job, workdir=str(workdir))
    warm_kernels()
    place = LocalPlace(workers=workers, dashboard=None)
    with open_place(place, workdir=workdir, per_task=spec.per_task_bytes) as opened_place:
        _warm_workers(opened_place.client)
        watch = Watch()  # Steps write what it measures; peaks are taken by `tree_peak`.
        work = Work(workdir, spec.seed, lambda line: None, watch)
        (study,) = spec.studies
        laps = Laps()
        with tree_peak(os.getpid()) as peak, blocks.listening(laps.listen):
            dataset = convert(spec.data, workdir, say=lambda line: None)
            laps.lap("convert-end")
            view = RowsView.of((dataset.sets["a"],), dropped=dataset.dropped)
            reduced = reduce_study(study, view, work, None)
            laps.lap("pca-end")
            cluster_rows(study, study.cluster[0], reduced, work)
            laps.lap("assign-end")
    return summed(laps.found, peak.n_bytes / 1e6)


def _warm_workers(client: Any) -> None:
    """Let every worker import and load compiled kernels before anything is timed."""
    from vehclust_dask.kernels.warm import warm_kernels

    client.run(warm_kernels)


def summed(laps: Sequence[tuple[str, float]], peak_mb: float) -> Measured:
    """Add up laps by the part of the job they belong to, as the order of its verbs tells."""
    measured = Measured(peak_mb=peak_mb)
    part = "convert"
    for name, seconds in laps:
        mine = name.startswith("kmeans-")
        if mine and name.endswith("-range"):
            part = "range"
        elif part == "range":
            part = "start"
        # Starts that are sought in this process make passes over their sample, under another name.
        if mine and "-pass-" in name:
            part = "pass"
            measured.passes += 1
        elif mine and name.endswith("-assign"):
            part = "assign"
        measured.seconds[part] = measured.seconds.get(part, 0.0) + seconds
        if name == "convert-end":
            part = "pca"
    return measured


@contextmanager
def empty_workdir(parent: Path) -> Iterator[Path]:
    """Return a work folder that is removed at the end."""
    folder = parent / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_child(**given: Any) -> Measured:
    """Measure one job in a fresh process; what is given is what `measure_job` takes."""
    options = json.dumps(given, default=str)
    command = [sys.executable, "-m", "benchmarks.growth", "--options", options]
    environment = pairs.child_environment()
    done = subprocess.run(command, env=environment, cwd=pairs.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks.growth: {done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def per_row(one: Measured, part: str, rows: int) -> float:
    """Return microseconds per row; for passes, per row and pass."""
    times = max(one.passes, 1) if part == "pass" else 1
    return one.seconds.get(part, 0.0) / rows / times * 1e6


def middle(several: list[Measured]) -> Measured:
    """Return the medians of rounds."""
    parts = several[0].seconds
    seconds = {part: median(one.seconds[part] for one in several) for part in parts}
    return Measured(seconds, several[0].passes, median(one.peak_mb for one in several))


def page(title: str, found: dict[tuple[int, int], Measured]) -> str:
    """Return the table: a row per size and number of workers."""
    head = ["rows", "workers", "convert µs/row", "PCA µs/row", "range µs/row"]
    head += ["starts s", "passes", "µs/row and pass", "assign µs/row", "peak MB"]
    body = [
        [
            f"{rows:,}",
            str(workers),
            f"{per_row(one, 'convert', rows):.3f}",
            f"{per_row(one, 'pca', rows):.3f}",
            f"{per_row(one, 'range', rows):.3f}",
            f"{one.seconds.get('start', 0.0):.2f}",
            str(one.passes),
            f"{per_row(one, 'pass', rows):.3f}",
            f"{per_row(one, 'assign', rows):.3f}",
            f"{one.peak_mb:.0f}",
        ]
        for (rows, workers), one in found.items()
    ]
    goals = [printing.goal_line(goal, value) for goal, value in speed_ups(found)]
    return "\n".join([f"### {title}", "", *printing.grid(head, body), "", *goals, ""])


def speed_ups(found: dict[tuple[int, int], Measured]) -> Iterator[tuple[pairs.Goal, float]]:
    """Yield for every size what a second worker brings."""
    for rows in sorted({rows for rows, _ in found}):
        one, two = found.get((rows, 1)), found.get((rows, 2))
        if one is None or two is None:
            continue
        for part, words in (("pca", "PCA"), ("pass", "passes of the sweep")):
            goal = pairs.Goal(
                f"{words}, {rows:,} rows: seconds on 1 worker / on 2",
                lambda found: float("nan"),
                SPEED_UP,
                at_least=True,
            )
            yield goal, one.seconds[part] / two.seconds[part]


def measure(made: Features, scratch: Path, asked: argparse.Namespace) -> dict[int, Measured]:
    """Measure one file with every number of workers, in turn."""
    rounds: dict[int, list[Measured]] = {workers: [] for workers in asked.workers}
    for _ in range(asked.rounds):
        for workers, several in rounds.items():
            with empty_workdir(scratch) as workdir:
                one = in_child(
                    file=made.file,
                    workdir=workdir,
                    workers=workers,
                    last_k=asked.last,
                    components=asked.components,
                )
                several.append(one)
    return {workers: middle(several) for workers, several in rounds.items()}


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=[100_000, 1_000_000, 10_000_000], rounds=1)
    parser.add_argument("--last", type=int, default=50, help="largest k; default: %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--set", default="vdc_color", help="of the demo; default: %(default)s")
    parser.add_argument("--components", type=int, default=COMPONENTS, help="default: %(default)s")
    asked = parser.parse_args(argv)
    if asked.options:
        given = asked.options
        one = measure_job(**given | {"workdir": Path(given["workdir"])})
        print(f"\n{json.dumps(asdict(one))}")
        return None
    found = {}
    with opened(asked.keep, None) as files:
        print(f"{printing.machine()}\n", flush=True)
        for rows in asked.rows:
            made = files.tiled_demo(asked.set, rows, AT_MOST)
            each = measure(made, files.scratch("growth"), asked)
            found |= {(rows, workers): one for workers, one in each.items()}
        title = f"growth, {made.width} -> {asked.components} columns, k = 2..{asked.last} ({made.words})"
        print(page(title, found))
    return found


if __name__ == "__main__":
    run()
