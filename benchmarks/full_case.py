"""The whole case through the command line: four sets, four reductions, four sweeps, two workers.

    python -m benchmarks.full_case --rows 416314 --keep work/bench
    python -m benchmarks.full_case --data DEMO_FOLDER

``--data`` is a folder that ``vehclust demo`` wrote; without it one is made (no photos). Runs
``vehclust convert`` and ``vehclust run`` in an empty work folder and prints the seconds of every
step from the steps' own manifests. Peak memory is the private memory (RssAnon) of all processes of
the command together, looked at five times a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import pairs, printing
from benchmarks.command import arguments
from benchmarks.files import Files, demo_folder, opened
from benchmarks.growth import empty_workdir
from benchmarks.measuring import tree_peak

#: Sets with their file and the components that people chose for the case.
SETS = {
    "efficientnet": ("efficientnet-b7.pickle", 250),
    "osnet": ("osnet.pickle", 150),
    "vdc_color": ("vdc_color.pickle", 70),
    "vdc_type": ("vdc_type.pickle", 20),
}
MINUTES, GIGABYTES = 10, 4
PLACE = "kind: local\nworkers: {workers}\n"


@dataclass(frozen=True)
class Command:
    """What one command took."""

    name: str
    seconds: float
    peak_mb: float


def job_text(folder: Path, last_k: int) -> str:
    """Return the job of the case on a demo folder."""
    sets = "\n".join(f"    {name}: {file}" for name, (file, _) in SETS.items())
    studies = "\n".join(
        f"  {name}-{n}:\n"
        f"    descriptors: [{name}]\n"
        "    scale: standard\n"
        f"    reduce: {{method: pca, n_components: {n}}}\n"
        "    cluster:\n"
        f'      km: {{method: kmeans, n_clusters: "2..{last_k}", max_iter: 100, tol: 1e-4}}'
        for name, (_, n) in SETS.items()
    )
    return (
        f"name: case\nseed: 0\ndata:\n  folder: {folder}\n  descriptors:\n{sets}\n"
        "  paths: images_paths.csv\n  group: 'veriwild/\\d+/(\\d+)/'\n"
        "  truth: {file: truth.csv, columns: [type, color, view, quality]}\n  synthetic: true\n"
        f"memory: {{per_task: 512MiB}}\nreport: {{pages: false}}\nstudies:\n{studies}\n"
    )


def call(name: str, job: Path, place: Path, workdir: Path) -> Command:
    """Run one command of the command line and watch its processes."""
    command = [sys.executable, "-m", "vehclust_dask.cli", name, str(job)]
    command += ["--workdir", str(workdir), "--cluster", str(place), "--quiet"]
    log = workdir.parent / f"{workdir.name}-{name}.log"
    began = time.perf_counter()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, env=pairs.child_environment(), cwd=pairs.ROOT, stdout=out, stderr=out
        )
        with tree_peak(process.pid) as peak:
            code = process.wait()
    said = log.read_text(errors="replace")
    log.unlink()
    if code:
        raise SystemExit(f"vehclust {name} ended with {code}: {said[-2000:]}")
    return Command(f"vehclust {name}", time.perf_counter() - began, peak.n_bytes / 1e6)


def step_rows(workdir: Path) -> list[list[str]]:
    """Return study, step, seconds and peak of every step, as the manifests tell."""
    (manifest,) = (workdir / "runs").glob("*/manifest.json")
    rows, told = [], set()
    for name, study in json.loads(manifest.read_text())["studies"].items():
        steps = [*study["steps"], *(one["step"] for one in study["clusterings"].values())]
        told.update(steps)
        rows += [_step_row(workdir / "steps" / step, name) for step in steps]
    others = sorted(p.name for p in (workdir / "steps").iterdir() if p.name not in told)
    return rows + [_step_row(workdir / "steps" / step, "") for step in others]


def _step_row(folder: Path, study: str) -> list[str]:
    step = json.loads((folder / "manifest.json").read_text())
    return [
        study,
        folder.name.split("-")[0],
        f"{step['seconds']:.1f}",
        f"{step['peak_bytes'] / 1e6:.0f}",
    ]


def page(title: str, commands: list[Command], steps: list[list[str]]) -> str:
    """Return steps, commands and goals."""
    total = sum(one.seconds for one in commands)
    in_steps = sum(float(row[2]) for row in steps)
    peak = max(one.peak_mb for one in commands)
    whole = [
        ["", f"**{one.name}**", f"{one.seconds:.1f}", f"{one.peak_mb:.0f}"] for one in commands
    ]
    whole.append(["", "**both**", f"{total:.1f}", f"{peak:.0f}"])
    goals = [
        printing.goal_line(pairs.Goal("minutes", lambda found: 0.0, MINUTES), total / 60),
        printing.goal_line(
            pairs.Goal("GB of all processes", lambda found: 0.0, GIGABYTES), peak / 1e3
        ),
        f"- not in a step (start of processes, converting, tables, figures): {total - in_steps:.1f} s",
    ]
    head = ["study", "step", "seconds", "peak MB"]
    return "\n".join([f"### {title}", "", *printing.grid(head, steps + whole), "", *goals, ""])


def run(argv: list[str] | None = None) -> Any:
    parser = arguments(__doc__, rows=416_314, rounds=1)
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--last", type=int, default=50, help="largest k; default: %(default)s")
    asked = parser.parse_args(argv)
    with opened(asked.keep, None) as files:
        print(f"{printing.machine()}\n", flush=True)
        folder = asked.data.absolute() if asked.data else make_demo(files, asked.rows)
        results = []
        for _ in range(asked.rounds):
            with empty_workdir(files.scratch("full_case")) as workdir:
                job, place = workdir / "case.yaml", workdir / "place.yaml"
                job.write_text(job_text(folder, asked.last))
                place.write_text(PLACE.format(workers=asked.workers))
                commands = [call(name, job, place, workdir) for name in ("convert", "run")]
                rows = json.loads((folder / "demo.json").read_text())["rows"]
                title = f"the whole case, {rows:,} rows (synthetic), {asked.workers} workers"
                print(page(title, commands, step_rows(workdir)), flush=True)
                results.append(commands)
    return results


def make_demo(files: Files, rows: int) -> Path:
    """Make the demo without photos by its command, or find it."""
    folder = demo_folder(files.folder, "all", rows)
    command = [sys.executable, "-m", "vehclust_dask.cli", "demo", "--rows", str(rows)]
    command += ["--no-photos", "--out", str(folder)]
    subprocess.run(
        command, check=True, env=pairs.child_environment(), cwd=pairs.ROOT, capture_output=True
    )
    return folder


if __name__ == "__main__":
    run()
