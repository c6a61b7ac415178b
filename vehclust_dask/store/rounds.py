"""What groups of rows have learnt after a whole round of tiles: an interrupted pass goes on from there."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vehclust_dask.errors import BadInput
from vehclust_dask.records import Group
from vehclust_dask.store.folders import open_arrays, read_json, write_by, write_json
from vehclust_dask.store.storage import at, remove_tree

#: Names the round that is there for all groups; written last.
MARKER = "round.json"


@dataclass(frozen=True)
class Rounds:
    """A folder with a file per group, and a marker that names the round they belong to.

    Parameters
    ----------
    folder : str
    kind : type
        Of a summary: a NamedTuple of arrays.
    """

    folder: str
    kind: type[Any]

    def saved(self, groups: Sequence[Group]) -> int:
        """Return the last round that is there for just these groups; -1 for none."""
        marker = at(self.folder) / MARKER
        if not marker.exists():
            return -1
        record = read_json(marker)
        return int(record["round"]) if record["groups"] == _extents(groups) else -1

    def save(self, number: int, group: Group, summary: Any) -> None:
        """Write what a group knows after a round, whole or not at all."""
        write_by(self._file(number, group), lambda out: np.savez(out, **summary._asdict()))

    def load(self, number: int, group: Group) -> Any:
        """Read what a group knew after a round."""
        file = self._file(number, group)
        try:
            with open_arrays(file) as stored:
                return self.kind(**{name: stored[name] for name in self.kind._fields})
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BadInput(
                f"{file} cannot be read ({error}); delete {self.folder} and run again"
            ) from error

    def mark(self, number: int, groups: Sequence[Group]) -> None:
        """Note that a round is there for all groups, then remove other rounds."""
        folder = at(self.folder)
        write_json(folder / MARKER, {"round": number, "groups": _extents(groups)})
        for other in folder.iterdir():
            if other.is_dir() and other.name != _name(number):
                remove_tree(other)

    def clear(self) -> None:
        """Remove all that was kept: the pass is over."""
        folder = at(self.folder)
        # Without its marker a folder that is removed by halves is none.
        (folder / MARKER).unlink(missing_ok=True)
        remove_tree(folder)

    def _file(self, number: int, group: Group) -> Path:
        return at(self.folder) / _name(number) / f"group-{group.number:05d}.npz"


def _name(number: int) -> str:
    return f"round-{number:05d}"


def _extents(groups: Sequence[Group]) -> list[list[int]]:
    """Return where groups begin and how many rows they hold, as plain values."""
    return [[group.row0, group.n_rows] for group in groups]
