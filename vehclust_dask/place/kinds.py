"""The kinds of places, and the one way to read and to open them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from vehclust_dask.errors import UsageError, nearest
from vehclust_dask.place.address import (
    AddressPlace,
    check_address,
    join_scheduler,
    show_address,
)
from vehclust_dask.place.keys import AUTO, read_key
from vehclust_dask.place.kubernetes import (
    KubernetesPlace,
    check_kubernetes,
    show_kubernetes,
    start_kubernetes,
)
from vehclust_dask.place.local import LocalPlace, show_local, start_local
from vehclust_dask.place.opened import OpenPlace, prepare_workers, quiet_driver, settings
from vehclust_dask.place.patience import giving_up
from vehclust_dask.place.slurm import SlurmPlace, check_slurm, show_slurm, start_slurm
from vehclust_dask.place.ssh import SshPlace, check_ssh, show_ssh, start_ssh

Place: TypeAlias = LocalPlace | AddressPlace | SlurmPlace | SshPlace | KubernetesPlace


def _unshown(place: Any) -> str:
    """Say that a kind has nothing to show."""
    return f"kind: {place.kind}"


@dataclass(frozen=True)
class Kind:
    """How places of a kind are read, checked and opened.

    Attributes
    ----------
    read : type
        A frozen dataclass, a field per key of the file.
    check : callable
        Given a place and what to call its file: refuse what cannot be or must not be.
    open : callable
        Given a place and the work folder: start or join the Dask cluster, give an OpenPlace.
    show : callable
        Given a place: return what would be submitted, started or typed, without doing it.
    """

    read: type[Any]
    check: Callable[[Any, str], None]
    open: Callable[[Any, Path], AbstractContextManager[OpenPlace]]
    show: Callable[[Any], str] = _unshown


def show_place(place: Place) -> str:
    """Return what opening a place would submit, start or type: a manifest, a script, commands."""
    return KINDS[place.kind].show(place)


def _anything(place: Any, label: str) -> None:
    """Refuse nothing: the keys say it all."""


KINDS = {
    "local": Kind(LocalPlace, _anything, start_local, show_local),
    "address": Kind(AddressPlace, check_address, join_scheduler, show_address),
    "ssh": Kind(SshPlace, check_ssh, start_ssh, show_ssh),
    "kubernetes": Kind(KubernetesPlace, check_kubernetes, start_kubernetes, show_kubernetes),
    "slurm": Kind(SlurmPlace, check_slurm, start_slurm, show_slurm),
}


def load_place(file: str | Path) -> Place:
    """Read a place file.

    Raises
    ------
    UsageError
        If it is missing or says something unknown; the nearest valid key is named.
    """
    path = Path(file)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"place file {path}: {error.strerror}; see cluster_config/ for examples"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"place file {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"place file {path}: keys such as 'kind: local' are needed")
    return place_from(content, str(path))


def place_from(content: dict[str, Any], label: str) -> Place:
    """Check the keys and values of a place."""
    name = content.get("kind", "local")
    if not isinstance(name, str) or name not in KINDS:
        raise UsageError(f"{label}: kind: {name!r}: {nearest(str(name), KINDS)}")
    kind = KINDS[name]
    known = {one.name: one for one in fields(kind.read)}
    values = {}
    for key, value in content.items():
        if key == "kind":
            continue
        if key not in known:
            raise UsageError(f"{label}: unknown key '{key}'; {nearest(str(key), ['kind', *known])}")
        if value not in AUTO:
            values[key] = read_key(key, known[key].metadata["reader"], value, label)
    place: Place = kind.read(**values)
    kind.check(place, label)
    return place


@contextlib.contextmanager
def open_place(place: Place, *, workdir: Path, per_task: int) -> Iterator[OpenPlace]:
    """Start or join the Dask cluster of a place; it is closed (a joined one: left) at the end.

    Parameters
    ----------
    place : Place
    workdir : Path
    per_task : int
        Bytes one task may take.
    """
    import dask
    import distributed  # noqa: F401  its defaults, before ours: else they would go with ours at the end

    with (
        quiet_driver(),
        dask.config.set(settings()),
        KINDS[place.kind].open(place, workdir) as opened,
        giving_up(opened.client),
    ):
        prepare_workers(opened, per_task)
        yield opened
