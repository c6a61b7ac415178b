"""A real cluster of two processes, and rows that its tasks read by themselves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import dask
import numpy as np
from distributed import Client, LocalCluster

from tests.strategies import F32
from vehclust_dask.records import RowGrid

# Workers are processes of their own and cannot import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class FileBlocks:
    """Rows in a .npy file."""

    file: str
    grid: RowGrid
    n_features: int

    @classmethod
    def of(cls, folder: Path, X: F32, block_rows: int) -> FileBlocks:
        file = folder / "rows.npy"
        np.save(file, X)
        return cls(str(file), RowGrid((len(X),), block_rows), X.shape[1])

    def read(self, i: int) -> F32:
        span = self.grid.span(i)
        rows: F32 = np.load(self.file)[span.row0 : span.row0 + span.n_rows]
        return rows


@contextlib.contextmanager
def two_processes() -> Iterator[Client]:
    """Start two workers of two threads; the client is not the default one."""
    quiet = {"logging.distributed": "critical", "distributed.comm.timeouts.connect": "20s"}
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            memory_limit=None,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
