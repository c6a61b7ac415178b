"""Whether a place suits a job: its workers read the data and hold the tasks."""

from __future__ import annotations

from pathlib import Path

from vehclust_dask.job.plan import plan_job
from vehclust_dask.job.spec import JobSpec, load_job
from vehclust_dask.place import load_place
from vehclust_dask.place.checking import Checked, check_place
from vehclust_dask.store.folders import open_workdir, scratch_root
from vehclust_dask.store.storage import is_url


def check_for_job(place_file: str, workdir: str, job: Path | None) -> Checked:
    """Check the place of a file, for a job where one is given.

    Raises
    ------
    VehclustError
        If the place file, the work folder or the job itself is wrong.
    """
    place = load_place(place_file)
    root = open_workdir(workdir)
    if job is None:
        return check_place(place, root, scratch=scratch_root(root))
    spec = load_job(job, workdir=str(root))
    plan_job(spec, root).check(root)
    return check_place(
        place,
        root,
        scratch=scratch_root(root),
        per_task=spec.per_task_bytes,
        files=read_by_workers(spec),
    )


def read_by_workers(spec: JobSpec) -> list[str]:
    """Return the files and folders of a job that tasks read."""
    files = [source.file for one in spec.data.descriptors for source in one.sources]
    if spec.data.photos is not None:
        files.append(spec.data.photos)
    # What lies behind a URL is reached by its own keys, or not: opening it here would not tell.
    return [file for file in files if not is_url(file)]
