"""A look at the machine before a job: what is there, what is missing, what to do."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from vehclust_dask.budget import show_bytes
from vehclust_dask.errors import VehclustError


@dataclass
class Findings:
    """What was found.

    Attributes
    ----------
    lines : list of str
    well : bool
        False where a job would fail.
    """

    lines: list[str] = field(default_factory=list)
    well: bool = True

    def note(self, good: bool, line: str) -> None:
        """Add a finding."""
        self.lines.append(f"{'ok  ' if good else 'BAD '} {line}")
        self.well = self.well and good


def examine(workdir: str) -> Findings:
    """Look at versions, cores, memory, work folder, disk, kernels and the dashboard's port."""
    import shutil

    import psutil

    from vehclust_dask.job.run import versions
    from vehclust_dask.place import WORKER_BASE_BYTES, LocalPlace, free_port, local_size
    from vehclust_dask.store.folders import open_workdir
    from vehclust_dask.store.storage import is_url

    found = Findings()
    known = versions()
    found.note(True, ", ".join(f"{name} {version}" for name, version in known.items()))
    workers, limit = local_size(LocalPlace())
    memory = psutil.virtual_memory()
    found.note(
        limit > 2 * WORKER_BASE_BYTES,
        f"{workers} workers of {show_bytes(limit)} each on this machine "
        f"({show_bytes(memory.available)} of {show_bytes(memory.total)} memory free)",
    )
    try:
        root = open_workdir(workdir)
        if is_url(root):
            found.note(True, f"work folder {root} can be written and read")
        else:
            free = shutil.disk_usage(root).free
            found.note(free > 10**9, f"work folder {root} can be written, {show_bytes(free)} free")
    except VehclustError as error:
        found.note(False, str(error))
    began = time.perf_counter()
    _warm()
    found.note(
        True, f"kernels are compiled ({time.perf_counter() - began:.1f} s), kept in {_cache()}"
    )
    port = free_port(8787)
    found.note(True, f"the dashboard would be at http://127.0.0.1:{port}/status")
    return found


def _warm() -> None:
    from vehclust_dask.kernels.warm import warm_kernels

    warm_kernels()


def _cache() -> Path:
    import numba

    from vehclust_dask.kernels import jit

    assert jit.njit is not None, "importing the kernels sets the folder"
    return Path(os.environ.get("NUMBA_CACHE_DIR", numba.config.CACHE_DIR))
