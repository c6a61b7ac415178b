"""Steps: results named by what they are made from, so that finished work is found and never redone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vehclust_dask.store.folders import (
    digest_of,
    partial_of,
    publish,
    read_json,
    remove_leftovers,
    write_last,
)

#: Raised by one when a kind of step computes something else from the same input.
ALGORITHM_VERSIONS = {
    "moments": 2,
    "pca": 2,
    "reduced": 1,
    "kmeans": 2,
    "mixture": 1,
    "neighbours": 1,
    "cells": 1,
    "ward": 2,
    "density": 1,
    "density-grid": 2,
    "dbscan": 1,
    "hdbscan": 2,
    "cut": 1,
    "scores": 2,
    "silhouette": 1,
    "agreement": 2,
    "lof": 1,
    "isolation": 1,
    "duplicates": 1,
    "photo-scores": 1,
}


@dataclass(frozen=True)
class Step:
    """One step: what it computes, from what, and where its result lies.

    Attributes
    ----------
    root : Path
        The work folder.
    kind : str
    params : dict
        Everything that decides the result, plain values.
    made_from : tuple of str
        Digests of the inputs.
    """

    root: Path
    kind: str
    params: dict[str, Any]
    made_from: tuple[str, ...]

    @classmethod
    def at(cls, root: Path, folder: Path) -> Step:
        """Return the finished step of a folder, as its manifest names it."""
        stored = read_json(folder / "manifest.json")
        return cls(root, stored["method"], stored["params"], tuple(stored["made_from"]))

    @property
    def digest(self) -> str:
        """Return the name of the result."""
        version = ALGORITHM_VERSIONS[self.kind]
        return digest_of([self.kind, version, self.params, list(self.made_from)])

    @property
    def folder(self) -> Path:
        """Return where the finished result lies."""
        return self.root / "steps" / f"{self.kind}-{self.digest}"

    @property
    def partial(self) -> Path:
        """Return where the result is written; always the same, so that an interrupted run goes on."""
        return partial_of(self.folder)

    @property
    def done(self) -> bool:
        """Say whether the result is there."""
        return (self.folder / "manifest.json").exists()

    def manifest(self) -> dict[str, Any]:
        """Return what was written about a finished step."""
        manifest: dict[str, Any] = read_json(self.folder / "manifest.json")
        return manifest

    def begin(self) -> Path:
        """Return the folder to write into, with what an interrupted run left there."""
        self.partial.mkdir(parents=True, exist_ok=True)
        return self.partial

    def provenance(self) -> dict[str, Any]:
        """Return what every result carries: where it comes from, no times."""
        return {
            "method": self.kind,
            "params": self.params,
            "made_from": list(self.made_from),
            "algorithm_version": ALGORITHM_VERSIONS[self.kind],
        }

    def finish(self, **facts: Any) -> None:
        """Write the manifest last and make the folder visible at once."""
        (self.partial / "state.npz").unlink(missing_ok=True)
        remove_leftovers(self.partial)
        manifest = {"schema": "vehclust-step", "schema_version": 1, **self.provenance(), **facts}
        write_last(self.partial / "manifest.json", manifest)
        publish(self.partial, self.folder)
