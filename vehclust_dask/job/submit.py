"""The driver itself as a job of Slurm's queue: submitted, stopped in time and put back."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vehclust_dask.budget import MIB
from vehclust_dask.errors import Conflict, UsageError, VehclustError
from vehclust_dask.job.plan import plan_job
from vehclust_dask.job.spec import JobSpec
from vehclust_dask.job.status import first_record, read_status, status_file, write_status
from vehclust_dask.place import Place, SlurmPlace
from vehclust_dask.place.slurm import LOGS, require_slurm, said, shared_folder, slurm_time

#: Seconds before its walltime at which a driver is asked to stop, and how often it goes back into the
#: queue at most: a job that never gets on would do so for ever.
STOP_BEFORE, MOST_TIMES = 180, 50

SCRIPT = """#!/bin/bash
#SBATCH -J {name}
#SBATCH -o "{log}"
#SBATCH --open-mode=append
#SBATCH -n 1
#SBATCH --cpus-per-task=1
#SBATCH --mem={memory}M
#SBATCH -t {walltime}
#SBATCH --signal=B:USR1@{before}
#SBATCH {requeue}
{more}
{command} &
driver=$!
ending=
# Near the end of the walltime: stop so that the job can go on, here or in another place of the queue.
trap 'ending=1; kill -TERM $driver 2>/dev/null' USR1
trap 'kill -TERM $driver 2>/dev/null' TERM INT
wait $driver
code=$?
while kill -0 $driver 2>/dev/null; do wait $driver; code=$?; done
{again}exit $code
"""
#: A person's scancel and a preemption end the job by themselves; only the walltime puts it back from here.
AGAIN = """if [ -n "$ending" ] && [ $code -eq 130 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {times} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
"""


@dataclass(frozen=True)
class Submission:
    """What goes into the queue.

    Attributes
    ----------
    job_file, place_file, workdir, shared : Path
        Absolute; what the driver prints lies below the last.
    job : str
        Name of the job.
    place : SlurmPlace
    """

    job_file: Path
    place_file: Path
    workdir: Path
    shared: Path
    job: str
    place: SlurmPlace

    @property
    def log(self) -> str:
        """Return the file of what the driver prints; %j is the number of the job."""
        return str(self.shared / LOGS / f"{self.job}-%j.log")

    def script(self) -> str:
        """Return the script of the driver's job."""
        place = self.place
        python = place.python or sys.executable
        words = (
            *(python, "-m", "vehclust_dask.cli", "run", str(self.job_file)),
            *("--workdir", str(self.workdir), "--cluster", str(self.place_file)),
        )
        named = {"-p": place.driver_partition or place.partition, "-A": place.account}
        directives = [f"#SBATCH {option} {value}" for option, value in named.items() if value]
        before = min(STOP_BEFORE, place.driver_walltime // 2)
        return SCRIPT.format(
            name=f"vehclust-{self.job}",
            log=self.log,
            memory=place.driver_memory // MIB,
            walltime=slurm_time(place.driver_walltime),
            before=before,
            requeue="--requeue" if place.driver_requeue else "--no-requeue",
            more="\n".join([*directives, "", *place.job_script_prologue]),
            command=" ".join(shlex.quote(word) for word in words),
            again=AGAIN.format(times=MOST_TIMES) if place.driver_requeue else "",
        )


def submit_job(
    spec: JobSpec, job_file: Path, place_file: Path, place: Place, workdir: Path
) -> tuple[str, str]:
    """Put the driver of a job into Slurm's queue; return the number of its job there and its log.

    Raises
    ------
    UsageError
        If the place is no Slurm cluster, or this machine cannot submit.
    NotEnough
        If the plan of the job cannot fit.
    Conflict
        If the job is in the queue or running already.
    """
    if not isinstance(place, SlurmPlace):
        raise UsageError(
            f"{place_file}: kind: {place.kind}: only a driver of a Slurm cluster goes into a queue; "
            "use 'vehclust run', or a place file of 'kind: slurm'"
        )
    require_slurm()
    shared = shared_folder(place, workdir)
    _refuse_twice(workdir, spec.name)
    plan_job(spec, workdir).check(workdir)
    asked = Submission(job_file.resolve(), place_file.resolve(), workdir, shared, spec.name, place)
    (shared / LOGS).mkdir(parents=True, exist_ok=True)
    number = _sbatch(asked.script())
    known = read_status(workdir, spec.name) if status_file(workdir, spec.name).exists() else []
    if number not in [record["slurm_job"] for record in known]:
        # Else the driver was quick, and has written its own.
        write_status(workdir, first_record(spec.name, "queued", slurm_job=number))
    return number, asked.log.replace("%j", number)


def _refuse_twice(workdir: Path, job: str) -> None:
    if not status_file(workdir, job).exists():
        return
    for record in read_status(workdir, job):
        if record["state"] in ("queued", "running"):
            number = record["slurm_job"]
            where = (
                f"Slurm job {number}" if number else f"process {record['pid']} on {record['host']}"
            )
            raise Conflict(
                f"job {job} is {record['state']} already ({where}); wait until it is done, or stop it"
            )


def _sbatch(script: str) -> str:
    """Submit a script."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            ["sbatch", "--parsable", file.name], capture_output=True, text=True, timeout=120
        )
    if done.returncode:
        raise VehclustError(f"Slurm refuses the driver's job ({said(done.stderr)})")
    # A federation adds its name after a semicolon.
    return done.stdout.strip().split(";")[0]
