"""Workers that do not have our code, in an environment of their own that has all else."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import digests, run_cli
from tests.places.conftest import free_port, listening, until

pytestmark = pytest.mark.cluster
LISTEN = ("--host", "127.0.0.1", "--no-dashboard")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has every package but ours.

    A folder named in a .pth file is searched, but the .pth files in it are not read: one of them
    would lead back to our sources.
    """
    folder = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def scheduler(
    bare: Path, dask: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return the address of a scheduler with two workers that know nothing of us."""
    home = tmp_path_factory.mktemp("home")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    given = {"python": bare, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    dask("scheduler", "--port", port, *LISTEN, **given)
    until(lambda: listening(port), "a scheduler")
    for _ in range(2):
        dask("worker", address, "--nthreads", 1, "--memory-limit", "1GiB", *LISTEN, **given)
    return address


def place(file: Path, address: str, *more: str) -> Path:
    file.write_text("\n".join(["kind: address", f"address: {address}", *more]) + "\n")
    return file


def test_bare_environment__does_not_have_our_code(bare: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [bare, "-c", "import dask_ml, numba, zarr; import vehclust_dask"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={},
    )
    assert "No module named 'vehclust_dask'" in ended.stderr


def test_code__that_is_missing_is_refused_before_any_work(
    scheduler: str, job: Path, tmp_path: Path
) -> None:
    file = place(tmp_path / "place.yaml", scheduler)
    ended = run_cli("run", job, "--workdir", tmp_path / "work", "--cluster", file)
    assert ended.code == 1
    (sentence,) = [line for line in ended.err.splitlines() if line.startswith("vehclust:")]
    assert "cannot import vehclust_dask, this is 0.1.0" in sentence
    assert "'code: upload'" in sentence
    assert not (tmp_path / "work" / "datasets").exists()


def test_code__is_uploaded_and_gives_the_same_bytes(
    scheduler: str, job: Path, expected: dict[str, str], bare: Path, tmp_path: Path
) -> None:
    file = place(tmp_path / "place.yaml", scheduler, "code: upload")
    ended = run_cli("run", job, "--workdir", tmp_path / "work", "--cluster", file)
    assert ended.code == 0, ended.err
    assert digests(tmp_path / "work") == expected
