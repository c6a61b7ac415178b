"""The same bytes on storage, whoever computes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import Reference, digests, place_file, run_cli

pytestmark = pytest.mark.cluster


def test_run__leaves_nothing_unfinished(reference: Reference) -> None:
    names = reference.digests
    assert any(name.startswith("datasets/small/a.zarr/part-") for name in names)
    assert any("clusters.zarr/margin/part-0000/c/0/0" in name for name in names)
    assert not [name for name in names if "partial" in name]
    assert not [name for name in names if Path(name).name.startswith(".")]


def test_run__gives_the_same_bytes_on_one_worker(reference: Reference, tmp_path: Path) -> None:
    place = place_file(tmp_path / "one.yaml", 1, "dashboard: off")
    workdir = tmp_path / "work"
    done = run_cli("run", reference.job, "--workdir", workdir, "--cluster", place, "--quiet")
    assert done.code == 0, done.err
    assert digests(workdir) == reference.digests


def test_run__gives_the_same_bytes_on_workers_of_several_threads(
    reference: Reference, warm: str, tmp_path: Path
) -> None:
    workdir = tmp_path / "work"
    done = run_cli("run", reference.job, "--workdir", workdir, "--scheduler", warm, "--quiet")
    assert done.code == 0, done.err
    assert digests(workdir) == reference.digests
