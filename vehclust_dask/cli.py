"""The command line: stdout is data, stderr is progress; every heavy import waits for its command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vehclust_dask import __version__
from vehclust_dask.cli_cluster import cluster as cluster_commands
from vehclust_dask.errors import VehclustError, refused_by_system

if TYPE_CHECKING:
    from vehclust_dask.job.run import Asked
    from vehclust_dask.job.spec import JobSpec

F = TypeVar("F", bound=Callable[..., Any])

WORKDIR = click.option(
    "--workdir",
    envvar="WORKDIR",
    default="work",
    show_default=True,
    help="Folder or URL (s3://bucket/folder) for data sets, steps and runs; every worker must see it.",
)


def place_options(command: F) -> F:
    """Add the options that say where a job is computed."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress, errors only."),
        click.option("--keep", is_flag=True, help="Leave the Dask cluster open after the job."),
        click.option(
            "--scheduler",
            envvar=["SCHEDULER", "DASK_SCHEDULER_ADDRESS"],
            help="Address of a running scheduler, tcp://host:port or tls://host:port.",
        ),
        click.option(
            "--cluster",
            type=click.Path(dir_okay=False),
            help="Place file (cluster_config/*.yaml); default: this machine.",
        ),
    ):
        command = option(command)
    return command


class Group(click.Group):
    """A group of commands that tells a person's mistake in one sentence, without a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; errors become exit codes."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except VehclustError as error:
            click.echo(f"vehclust: {error}", err=True)
            sys.exit(error.exit_code)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("vehclust: interrupted", err=True)
            sys.exit(130)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except OSError as error:
            told = refused_by_system(error)
            click.echo(f"vehclust: {told}", err=True)
            sys.exit(told.exit_code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vehclust")
def main() -> None:
    """Exact clusters of millions of image descriptors, on one machine or a Dask cluster."""
    # Whatever is written may be shared with a group, but others must not change it.
    os.umask(os.umask(0o022) | 0o002)


main.add_command(cluster_commands)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Job file to write; default: jobs/<folder>.yaml"
)
@click.option("--name", help="Name of the job; default: the folder's.")
@click.option("--force", is_flag=True, help="Overwrite an existing job file.")
def init(folder: Path, out: Path | None, name: str | None, force: bool) -> None:
    """Look into FOLDER and write a job for what lies there."""
    from vehclust_dask.job.init import recognise, write_job

    found = recognise(folder)
    target = out or Path("jobs") / f"{folder.resolve().name}.yaml"
    file = write_job(found, target, name=name, force=force)
    click.echo(f"wrote {file}; look it over, then: vehclust run {file}", err=True)
    click.echo(file)


@main.command()
@click.option("--rows", default=5000, show_default=True, help="Number of photos.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", required=True, help="Folder or URL to write.")
@click.option("--once", is_flag=True, help="Leave what is there already.")
@click.option("--photos/--no-photos", default=True, show_default=True)
@click.option("--set", "sets", multiple=True, help="Only this descriptor set; may be repeated.")
def demo(rows: int, seed: int, out: str, once: bool, photos: bool, sets: tuple[str, ...]) -> None:
    """Write demo data: a synthetic twin of the case, with drawn vehicles and the truth about them."""
    from vehclust_dask.demo import write_demo
    from vehclust_dask.demo.write import RECORD
    from vehclust_dask.store import storage

    place = storage.at(out)
    if once and (place / RECORD).exists():
        click.echo(f"{out} is there already", err=True)
        click.echo(out)
        return
    with storage.here(place, RECORD) as folder:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = write_demo(folder, rows=rows, seed=seed, photos=photos, sets=sets or None)
    click.echo(
        f"{made.rows:,} photos of {made.n_vehicles:,} vehicles in {out} (synthetic)", err=True
    )
    click.echo(out)


@main.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@WORKDIR
@place_options
@click.option("--verify", is_flag=True, help="Read every source again and compare.")
def convert(job: Path, verify: bool, **options: Any) -> None:
    """Convert the descriptors of JOB into chunked zarr; what is converted is skipped."""
    from vehclust_dask.job.run import convert_job
    from vehclust_dask.job.telling import Teller

    spec, asked = _asked(job, verify=verify, **options)
    with Teller(options["quiet"]) as teller:
        dataset = convert_job(spec, asked, teller)
    for name, matrix in dataset.sets.items():
        for path in matrix.paths:
            click.echo(f"{name}\t{path}")


@main.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@WORKDIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(job: Path, workdir: str, as_json: bool) -> None:
    """Print the steps of JOB with tasks, memory and disk; refuse what cannot fit."""
    from vehclust_dask.job.plan import plan_job
    from vehclust_dask.job.show import plan_lines, plan_record
    from vehclust_dask.job.spec import load_job
    from vehclust_dask.store.folders import open_workdir

    root = open_workdir(workdir)
    planned = plan_job(load_job(job, workdir=str(root)), root)
    if as_json:
        click.echo(json.dumps(plan_record(planned), indent=2))
    else:
        click.echo("\n".join(plan_lines(planned)))
    planned.check(root)


@main.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@WORKDIR
@place_options
@click.option("--verify", is_flag=True, help="Read every source again and compare.")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def run(
    context: click.Context, /, job: Path, verify: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Run JOB from files to labels, scores and a report; what is finished is skipped."""
    from vehclust_dask.job.report import ensure_report
    from vehclust_dask.job.run import run_job
    from vehclust_dask.job.show import run_lines, run_record
    from vehclust_dask.job.telling import Teller

    if dry_run:
        context.invoke(plan, job=job, workdir=options["workdir"], as_json=as_json)
        return
    spec, asked = _asked(job, verify=verify, **options)
    with Teller(options["quiet"]) as teller:
        folder = run_job(spec, asked, teller)
        if spec.report.pages:
            ensure_report(asked.workdir, folder, spec.report.language, say=teller.say)
    if as_json:
        click.echo(json.dumps(run_record(folder), indent=2))
    else:
        click.echo("\n".join(run_lines(folder, asked.workdir)))


@main.command()
@click.argument("job", type=click.Path(dir_okay=False, path_type=Path))
@WORKDIR
@click.option(
    "--cluster",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Place file of kind slurm.",
)
def submit(job: Path, workdir: str, cluster: Path) -> None:
    """Put the driver of JOB into Slurm's queue and return; print the number of its job there."""
    from vehclust_dask.job.spec import load_job
    from vehclust_dask.job.submit import submit_job
    from vehclust_dask.place import load_place
    from vehclust_dask.store.folders import open_workdir

    place = load_place(cluster)
    root = open_workdir(workdir)
    spec = load_job(job, workdir=str(root))
    number, log = submit_job(spec, job, cluster, place, root)
    click.echo(f"submitted; watch it: vehclust status {spec.name} --workdir {root}", err=True)
    click.echo(f"its output:         {log}", err=True)
    click.echo(number)


@main.command()
@click.argument("name", metavar="[RUN|JOB]", required=False)
@WORKDIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str | None, workdir: str, as_json: bool) -> None:
    """Say where the jobs of a work folder stand, from any machine that sees it."""
    from vehclust_dask.job.status import read_status, status_lines
    from vehclust_dask.store.storage import at

    records = read_status(at(workdir), name)
    if as_json:
        click.echo(json.dumps(records[0] if name else records, indent=2))
    else:
        lines = [line for record in records for line in status_lines(record)]
        click.echo("\n".join(lines or [f"no job has run in {workdir}"]))


@main.command()
@click.argument("name", metavar="RUN")
@WORKDIR
@click.option("--out", help="Folder or URL to write; default: the folder of the run.")
@click.option("--language", type=click.Choice(["en", "ru"]), default="en", show_default=True)
@click.option("--zip", "zipped", is_flag=True, help="Also write it as one zip, for sending.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(
    name: str, workdir: str, out: str | None, language: str, zipped: bool, as_json: bool
) -> None:
    """Write the report of the run RUN: pages that open by a double click, without a network."""
    from vehclust_dask.job.report import report_run, reported_record, zip_report
    from vehclust_dask.store.storage import at

    def say(line: str) -> None:
        click.echo(line, err=True)

    found = report_run(at(workdir), name, out=at(out) if out else None, language=language, say=say)
    say(found.told())
    packed = zip_report(found) if zipped else None
    if as_json:
        click.echo(json.dumps(reported_record(found, packed), indent=2))
    else:
        click.echo(packed or found.page)


@main.group()
def runs() -> None:
    """Look at finished runs."""


@runs.command("list")
@WORKDIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs_list(workdir: str, as_json: bool) -> None:
    """List the finished runs."""
    from vehclust_dask.job.run import list_runs
    from vehclust_dask.job.show import list_lines, run_record
    from vehclust_dask.store.storage import at

    folders = list_runs(at(workdir))
    if as_json:
        click.echo(json.dumps([run_record(folder) for folder in folders], indent=2))
    else:
        click.echo("\n".join(list_lines(folders)))


@runs.command("show")
@click.argument("name")
@WORKDIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs_show(name: str, workdir: str, as_json: bool) -> None:
    """Show the run NAME (or the only one whose name begins so): scores, files, provenance."""
    from vehclust_dask.job.run import read_run
    from vehclust_dask.job.show import run_lines, run_record
    from vehclust_dask.store.storage import at

    folder, _ = read_run(at(workdir), name)
    if as_json:
        click.echo(json.dumps(run_record(folder), indent=2))
    else:
        click.echo("\n".join(run_lines(folder, at(workdir))))


@main.command()
@click.argument("name", metavar="RUN")
@click.argument("path", required=False)
@WORKDIR
@click.option("--row", type=int, help="Row number of the photo, instead of its path.")
@click.option("--study", help="Study of the run; default: the only one with lists.")
@click.option("--metric", help="euclidean or cosine; default: the only one there is.")
@click.option("-n", "count", default=10, show_default=True, help="Number of photos.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def similar(
    name: str,
    path: str | None,
    workdir: str,
    row: int | None,
    study: str | None,
    metric: str | None,
    count: int,
    as_json: bool,
) -> None:
    """List the photos nearest to the photo PATH, from the lists of the run RUN."""
    from vehclust_dask.job.show import similar_lines, similar_record
    from vehclust_dask.job.similar import similar_rows
    from vehclust_dask.store.storage import at

    found = similar_rows(at(workdir), name, path=path, row=row, study=study, metric=metric, n=count)
    if as_json:
        click.echo(json.dumps(similar_record(found), indent=2))
    else:
        click.echo("\n".join(similar_lines(found)))


@main.group()
def export() -> None:
    """Hand results on."""


@export.command("csv")
@click.argument("name")
@WORKDIR
@click.option("--study", help="Study of the run; default: every study.")
@click.option("--clustering", help="Clustering of the study; default: the featured one.")
@click.option("-k", "--n-clusters", type=int, help="Number of clusters; default: the featured one.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder or .csv file; default: here.",
)
def export_csv(
    name: str,
    workdir: str,
    study: str | None,
    clustering: str | None,
    n_clusters: int | None,
    out: Path,
) -> None:
    """Write path,cluster files of the run NAME, named like osnet_KMeans_k30.csv."""
    from vehclust_dask.job.show import export_clusterings
    from vehclust_dask.store.storage import at

    for file in export_clusterings(at(workdir), name, study, clustering, n_clusters, out):
        click.echo(file)


@main.command()
@WORKDIR
def doctor(workdir: str) -> None:
    """Check this machine: versions, memory, disk, compiled kernels, folder, ports."""
    from vehclust_dask.job.doctor import examine

    findings = examine(workdir)
    for line in findings.lines:
        click.echo(line)
    sys.exit(0 if findings.well else 1)


def _asked(
    job: Path,
    *,
    verify: bool,
    workdir: str,
    cluster: str | None,
    scheduler: str | None,
    keep: bool,
    quiet: bool,
) -> tuple[JobSpec, Asked]:
    """Read job and place; a place file wins over a scheduler from the environment."""
    from vehclust_dask.job.run import Asked
    from vehclust_dask.job.spec import load_job
    from vehclust_dask.place import LocalPlace, Place, load_place, scheduler_place
    from vehclust_dask.store.folders import open_workdir

    place: Place = LocalPlace()
    if cluster:
        place = load_place(cluster)
    elif scheduler:
        place = scheduler_place(scheduler)
    root = open_workdir(workdir)
    spec = load_job(job, workdir=str(root))
    return spec, Asked(job, root, place, keep=keep, verify=verify)


if __name__ == "__main__":
    main()
