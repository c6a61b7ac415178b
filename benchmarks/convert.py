"""Converting a pickle to zarr against the disk's own copy of the same file.

    python -m benchmarks.convert --rows 416314 --keep work/bench

Ours reads the pickle in place and writes checksummed chunks, a digest of every block and statistics
of every column; the copy copies. Both end when every byte is on the disk (fsync of every file).
Measured at ``--rows`` and at four times as many: memory should not grow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import printing
from benchmarks.command import arguments, main
from benchmarks.files import Files
from benchmarks.pairs import Comparison, Found, Goal, Options, Quality, Side, Table

OURS, COPY = "vehclust convert", "copy"
TIMES = 4


def flush(path: Path) -> None:
    """Wait until every file below (or the file) is on the disk."""
    for file in [path] if path.is_file() else path.rglob("*"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def ours(options: Options) -> Callable[[], Path]:
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()
    # Storage is imported when the first set is written: a tiny one comes before the clock starts.
    first = _fresh(options)
    np.save(first / "few.npy", np.zeros((4, 4), np.float32))
    _converted(str(first / "few.npy"), first)()
    shutil.rmtree(first)
    return _converted(options["file"], _fresh(options))


def _converted(file: str, workdir: Path) -> Callable[[], Path]:
    """Return the work of converting a file as a job does, in this process."""
    from vehclust_dask.job.dataset import convert
    from vehclust_dask.job.spec import load_job

    job = workdir / "job.yaml"
    job.write_text(f"name: convert\ndata:\n  descriptors: {{a: {file}}}\n")
    spec = load_job(job, workdir=str(workdir))

    def work() -> Path:
        convert(spec.data, workdir, say=lambda line: None)
        flush(workdir)
        return workdir

    return work


def copy(options: Options) -> Callable[[], Path]:
    workdir = _fresh(options)

    def work() -> Path:
        flush(Path(shutil.copyfile(options["file"], workdir / "copy")))
        return workdir

    return work


def _fresh(options: Options) -> Path:
    folder = Path(options["scratch"]) / uuid.uuid4().hex
    folder.mkdir()
    return folder


def judge(options: Options, workdir: Path) -> Quality:
    """Return the size of what was written, and remove it."""
    written = sum(file.stat().st_size for file in workdir.rglob("*") if file.is_file())
    shutil.rmtree(workdir)
    return {"MB written": written / 1e6, "source MB": os.path.getsize(options["file"]) / 1e6}


def columns(judged: dict[str, Quality]) -> dict[str, dict[str, float]]:
    return {side: {"MB written": quality["MB written"]} for side, quality in judged.items()}


def throughput(found: Found) -> float:
    """Return our speed as a share of the copy's."""
    return 1 / found.ratio("seconds", COPY)


TABLES = {
    "convert": Table(
        (Side(OURS, ours), Side(COPY, copy)),
        judge,
        columns,
        goals=(Goal("throughput, ours / copy (wall clock)", throughput, 0.7, at_least=True),),
        ratio_of="seconds",
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    for rows in (asked.rows, TIMES * asked.rows):
        # Beyond the case's own size rows are repeated: making them takes longer than converting.
        real = bool(files.real())
        made = (
            files.features("osnet", rows) if real else files.tiled_demo("osnet", rows, asked.rows)
        )
        options = {"file": str(made.file), "scratch": str(files.scratch("convert"))}
        yield Comparison("convert", f"convert, {made.title}", options)


def run(argv: list[str] | None = None) -> Any:
    results = main("convert", TABLES, plan, arguments(__doc__, rows=416_314), argv)
    if len(results) > 1:
        peaks = [found.median(OURS, "peak_mb") for found in results]
        flat = Goal(f"peak memory, {TIMES} x the rows / once", lambda found: float("nan"), 1.1)
        print(printing.goal_line(flat, peaks[1] / peaks[0]))
    return results


if __name__ == "__main__":
    run()
