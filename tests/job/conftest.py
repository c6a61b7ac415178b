"""A tiny site: files of a case, jobs on it, and the command line inside this process without a cluster."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from vehclust_dask.cli import main
from vehclust_dask.job import run
from vehclust_dask.place import OpenPlace

N_ROWS = 300


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str


def call(*args: object) -> Ended:
    """Call the command line in this process; what is no exit of its own is raised."""
    result = CliRunner().invoke(main, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


class Site:
    """Files of a case and a work folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workdir = folder / "work"
        rng = np.random.default_rng(4)
        self.kinds = rng.integers(0, 4, N_ROWS)
        self.A = ((4 * rng.normal(size=(4, 6)))[self.kinds] + rng.normal(size=(N_ROWS, 6))).astype(
            "f4"
        )
        self.B = rng.normal(size=(N_ROWS, 5)).astype("f4")
        self.paths = [f"w/{i % 5}/{i // 3:04d}/{i:05d}.jpg" for i in range(N_ROWS)]
        self.save("a.npy", self.A)
        self.save("b.npy", self.B)
        self.write_paths(self.paths)
        known = pd.DataFrame({"path": self.paths, "kind": self.kinds})
        known.to_csv(folder / "truth.csv", index=False)

    def save(self, name: str, X: np.ndarray) -> None:
        """Save an array."""
        np.save(self.folder / name, X)

    def save_dict(self, name: str, paths: list[str], X: np.ndarray) -> None:
        """Save a pickle that knows the path of every row."""
        content = dict(zip(paths, X, strict=True))
        (self.folder / name).write_bytes(pickle.dumps(content, protocol=4))

    def write_paths(self, paths: list[str], name: str = "paths.csv") -> None:
        """Write the table of paths."""
        (self.folder / name).write_text("\n".join(["path", *paths]) + "\n", encoding="utf-8")

    def job(self, name: str = "small", **changes: Any) -> Path:
        """Write a job; ``data`` is merged into its data section, other words replace sections."""
        content: dict[str, Any] = {
            "name": name,
            "seed": 1,
            "data": {
                "folder": str(self.folder),
                "dataset": "site",
                "descriptors": {"a": "a.npy", "b": "b.npy"},
                "paths": "paths.csv",
                "block_rows": 64,
            },
            "memory": {"per_task": "64MiB"},
            "studies": {
                "one": {
                    "descriptors": ["a"],
                    "scale": "standard",
                    "reduce": {"method": "pca", "n_components": 3},
                    "cluster": {"km": {"method": "kmeans", "n_clusters": [3, 4], "n_init": 2}},
                    "featured": "km/4",
                }
            },
        }
        content["data"] |= changes.pop("data", {})
        content |= changes
        content["data"] = {k: v for k, v in content["data"].items() if v is not None}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return file

    def run(self, job: Path, *more: object, command: str = "run") -> Ended:
        """Run a job in the work folder."""
        return call(command, job, "--workdir", self.workdir, *more)

    def finished(self, job: Path, *more: object) -> Path:
        """Run a job and return the folder of its run."""
        ended = self.run(job, *more)
        assert ended.code == 0, ended.err
        name = ended.out.split()[1]
        return self.workdir / "runs" / name

    def labels(self, run_folder: Path, study: str = "one") -> pd.DataFrame:
        """Return the labels of a run."""
        return pd.read_parquet(run_folder / "tables" / f"labels-{study}.parquet")


@contextlib.contextmanager
def no_cluster(*args: object, **options: object) -> Iterator[OpenPlace]:
    """Open nothing: verbs then work in this process."""
    yield OpenPlace(None, None, None, 1, 0)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a site whose jobs run in this process, without figures."""
    monkeypatch.setattr(run, "open_place", no_cluster)
    monkeypatch.setattr(run, "draw_figures", lambda *args: None)
    return Site(tmp_path)
