"""Commands about places: look, check, make certificates."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

FILE = click.argument("file", type=click.Path(dir_okay=False))


@click.group()
def cluster() -> None:
    """Look at a place to compute: what it starts, whether a job can run there, certificates."""


@cluster.command()
@FILE
def show(file: str) -> None:
    """Print what the place FILE would start or submit, without doing it."""
    from vehclust_dask.place import load_place, show_place

    click.echo(show_place(load_place(file)))


@cluster.command()
@FILE
@click.option(
    "--workdir",
    envvar="WORKDIR",
    default="work",
    show_default=True,
    help="Folder that driver and workers must share.",
)
@click.option(
    "--job",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Job whose data every worker must read, and whose tasks must fit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: str, workdir: str, job: Path | None, as_json: bool) -> None:
    """Start or join the place FILE and check workers, versions, storage and memory."""
    from vehclust_dask.job.place_check import check_for_job

    found = check_for_job(file, workdir, job)
    click.echo(json.dumps(found.record(), indent=2) if as_json else "\n".join(found.lines()))
    sys.exit(0 if found.well else 1)


@cluster.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", "hosts", multiple=True, help="Name or address; may be repeated.")
def certs(folder: Path, hosts: tuple[str, ...]) -> None:
    """Make an authority and certificates of scheduler, worker and client in DIR."""
    from vehclust_dask.place.certs import certs_lines, make_certs

    for file in make_certs(folder, hosts):
        click.echo(f"wrote {file}", err=True)
    click.echo("\n".join(certs_lines(folder, hosts)))
