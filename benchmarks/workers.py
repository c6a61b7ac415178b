"""What a second worker brings to the tile pass: the nearest rows of every row, on a Dask cluster.

    python -m benchmarks.workers --rows 100000 --keep work/bench

150 standardised components, 32 neighbours, 1 and 2 workers in turn, each in a fresh process; the
clock starts when workers have read the rows' file once and compiled kernels are loaded. Seconds are
wall clock: leave the machine alone. Beside it stands what the machine itself gives: products of the
tiles' shape in two processes at once, against one process alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import pairs, printing
from benchmarks.command import arguments
from benchmarks.files import FileBlocks, opened
from benchmarks.growth import SPEED_UP, empty_workdir
from benchmarks.measuring import tree_peak

COMPONENTS, M = 150, 32
#: Shape of a tile's product, and how many of them a process makes: about five seconds.
SIDE, WIDTH, PRODUCTS = 512, 1024, 3000


def measure_pass(file: str, workdir: Path, workers: int) -> dict[str, float]:
    """Return seconds and peak memory (MB, all processes) of one pass on a cluster of this machine."""
    from vehclust_dask.estimators import Neighbours
    from vehclust_dask.kernels.warm import warm_kernels, warm_tiles
    from vehclust_dask.place import LocalPlace, open_place

    warm_kernels()
    warm_tiles()
    blocks = FileBlocks.of(file)
    place = LocalPlace(workers=workers, dashboard=None)
    with open_place(place, workdir=workdir, per_task=1 << 29) as opened_place:
        _warm_workers(opened_place.client, blocks)
        with tree_peak(os.getpid()) as peak:
            began = time.perf_counter()
            Neighbours(M).fit(blocks)
            seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_mb": peak.n_bytes / 1e6}


def _warm_workers(client: Any, blocks: FileBlocks) -> None:
    """Let every worker load compiled kernels and read the rows once, before anything is timed."""
    client.run(_read_once, blocks)


def _read_once(blocks: FileBlocks) -> None:
    from vehclust_dask.kernels.warm import warm_tiles

    warm_tiles()
    for i in range(blocks.grid.n_blocks):
        blocks.load(i)


def in_child(**given: Any) -> dict[str, float]:
    """Measure one pass in a fresh process; what is given is what `measure_pass` takes."""
    command = [sys.executable, "-m", "benchmarks.workers"]
    command += ["--options", json.dumps(given, default=str)]
    environment = pairs.child_environment()
    done = subprocess.run(command, env=environment, cwd=pairs.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks.workers: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def products(count: int, start: Any, seconds: Any) -> None:
    """Make products of the tiles' shape, all processes at once."""
    from vehclust_dask.tasks import one_thread

    rng = np.random.default_rng(0)
    left = rng.standard_normal((SIDE, COMPONENTS), dtype=np.float32)
    right = rng.standard_normal((WIDTH, COMPONENTS), dtype=np.float32)
    out = np.empty((SIDE, WIDTH), np.float32)
    with one_thread():
        np.matmul(left, right.T, out=out)
        start.wait()
        began = time.perf_counter()
        for _ in range(count):
            np.matmul(left, right.T, out=out)
        seconds.put(time.perf_counter() - began)


def machine_gives(processes: int, count: int = PRODUCTS) -> float:
    """Return what so many processes bring to plain products, against one alone."""
    context = multiprocessing.get_context("spawn")
    took = []
    for n in (1, processes):
        start, seconds = context.Barrier(n), context.Queue()
        given = (count, start, seconds)
        several = [context.Process(target=products, args=given) for _ in range(n)]
        for one in several:
            one.start()
        took.append(max(seconds.get() for _ in several))
        for one in several:
            one.join()
    return processes * took[0] / took[1]


def page(title: str, found: dict[tuple[int, int], dict[str, float]], bound: float) -> str:
    """Return the table: a row per size and number of workers, and what the second one brings."""
    head = ["rows", "workers", "seconds", "ns per pair", "peak MB"]
    body = [
        [
            f"{rows:,}",
            str(workers),
            f"{one['seconds']:.2f}",
            f"{one['seconds'] / (rows * (rows - 1) / 2) * 1e9:.2f}",
            f"{one['peak_mb']:.0f}",
        ]
        for (rows, workers), one in found.items()
    ]
    goals = [printing.goal_line(goal, value) for goal, value in speed_ups(found)]
    goals.append(f"- plain products in two processes at once / in one: {bound:.2f}")
    return "\n".join([f"### {title}", "", *printing.grid(head, body), "", *goals, ""])


def speed_ups(
    found: dict[tuple[int, int], dict[str, float]],
) -> Iterator[tuple[pairs.Goal, float]]:
    """Yield for every size what a second worker brings."""
    for rows in sorted({rows for rows, _ in found}):
        one, two = found.get((rows, 1)), found.get((rows, 2))
        if one and two:
            words = f"tile pass, {rows:,} rows: seconds on 1 worker / on 2"
            goal = pairs.Goal(words, lambda found: float("nan"), SPEED_UP, at_least=True)
            yield goal, one["seconds"] / two["seconds"]


def measure(file: Path, scratch: Path, asked: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Measure one file with every number of workers, in turn; medians of the rounds."""
    rounds: dict[int, list[dict[str, float]]] = {workers: [] for workers in asked.workers}
    for _ in range(asked.rounds):
        for workers, several in rounds.items():
            with empty_workdir(scratch) as workdir:
                several.append(in_child(file=file, workdir=workdir, workers=workers))
    return {
        workers: {name: median(one[name] for one in several) for name in several[0]}
        for workers, several in rounds.items()
    }


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=[100_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args(argv)
    if asked.options:
        given = asked.options
        one = measure_pass(**given | {"workdir": Path(given["workdir"])})
        print(f"\n{json.dumps(one)}")
        return None
    found = {}
    with opened(asked.keep, asked.data) as files:
        print(f"{printing.machine()}\n", flush=True)
        for rows in files.sizes(asked.rows):
            made = files.features("osnet", rows)
            reduced = files.reduced(made, COMPONENTS)
            each = measure(reduced, files.scratch("workers"), asked)
            found |= {(rows, workers): one for workers, one in each.items()}
        title = f"the {M} nearest rows, {COMPONENTS} components ({made.words})"
        print(page(title, found, machine_gives(2)))
    return found


if __name__ == "__main__":
    run()
