"""What zstd does to real features in the store: size, and megabytes a second of one core.

    python -m benchmarks.compression --data FOLDER

For every pickle in the folder. Made-up features would only say how they were made up, so without a
folder nothing is measured. Speeds are megabytes of float32 per CPU second; the page cache is warm.
"""

from __future__ import annotations

import argparse
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import arguments, main
from benchmarks.files import Files, SourceBlocks
from benchmarks.pairs import Comparison, Options, Quality, Side, Table

NONE, ZSTD = "none (crc32c)", "zstd level 1"


def stored(options: Options, compress: str) -> Callable[[], Quality]:
    from vehclust_dask.cache import CACHE
    from vehclust_dask.store.matrices import create_matrix

    # Reading shall read.
    CACHE.limit = 0
    source = SourceBlocks.of(options["file"])
    grid, width = source.grid, source.n_features
    each = range(grid.n_blocks)
    blocks = [source.read(i) for i in each]
    folder = Path(options["scratch"]) / uuid.uuid4().hex

    def work() -> Quality:
        matrix = create_matrix(
            folder, "X", grid, width, "float32", digest=folder.name, compress=compress
        )
        began = time.process_time()
        for i in each:
            matrix.write(i, blocks[i])
        written = time.process_time()
        for i in each:
            matrix.read(i)
        done = time.process_time()
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        shutil.rmtree(folder)
        raw = sum(block.nbytes for block in blocks)
        return {
            "size": size / raw,
            "write MB/s": raw / 1e6 / (written - began),
            "read MB/s": raw / 1e6 / (done - written),
        }

    return work


def judge(options: Options, answer: Quality) -> Quality:
    return answer


TABLES = {
    "compression": Table(
        (
            Side(NONE, partial(stored, compress="none")),
            Side(ZSTD, partial(stored, compress="zstd")),
        ),
        judge,
    )
}


def plan(asked: argparse.Namespace, files: Files) -> Iterator[Comparison]:
    if not files.real():
        print("left out: no real features; give their folder with --data")
    for file in files.real():
        source = SourceBlocks.of(str(file)).source
        zeros, short = shares(SourceBlocks.of(str(file)))
        options = {"file": str(file), "scratch": str(files.scratch("compression"))}
        title = f"stored size, {source.n_rows:,} x {source.n_features} (real, {file.stem})"
        note = f"{zeros:.1%} of the values are zero, {short:.1%} others were rounded to 12 bits or less"
        yield Comparison("compression", title, options, (note,))


def shares(blocks: SourceBlocks) -> tuple[float, float]:
    """Return the share of zeros, and of other values whose last 12 bits are empty.

    Both compress; rounded values are a choice of whoever made the file.
    """
    zeros = short = 0
    for i in range(blocks.grid.n_blocks):
        X = blocks.read(i)
        empty = (X.view(np.uint32) & 0xFFF) == 0
        zeros += int((X == 0).sum())
        short += int((empty & (X != 0)).sum())
    n = blocks.grid.n_rows * blocks.n_features
    return zeros / n, short / n


def run(argv: list[str] | None = None) -> Any:
    return main("compression", TABLES, plan, arguments(__doc__, rows=0), argv)


if __name__ == "__main__":
    run()
