"""Stopped in the middle by kill -9, SIGTERM or Ctrl-C, a job goes on with the same bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.end_to_end.conftest import Reference, Started, digests, place_file, run_cli, run_of

pytestmark = pytest.mark.cluster

#: Save the state after every pass, and note each saved and loaded state in a file.
NOTING = """
import vehclust_dask.job.clustering as clustering
clustering.SAVE_EVERY = 0.0
save, load = clustering.save_state, clustering.load_state
def note(what, file, state):
    with open({log!r}, "a") as out:
        print(what, file.name, max(state.n_iter), file=out, flush=True)
def noting_save(file, state):
    save(file, state)
    note("saved", file, state)
def noting_load(file):
    state = load(file)
    note("loaded", file, state)
    return state
clustering.save_state, clustering.load_state = noting_save, noting_load
"""


def mtimes(folder: Path) -> dict[str, int]:
    """Return when each file was written."""
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


def notes(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def saved_passes(log: Path) -> int:
    """Return how many passes the last saved state of the sweep holds."""
    return max((int(n) for what, file, n in notes(log) if (what, file) == ("saved", "state.npz")), default=0)


def nothing_is_visible(workdir: Path, *, converted: bool) -> bool:
    """Say whether all that can be seen is whole: no run, each step and each part with its record."""
    shown = run_cli("runs", "list", "--workdir", workdir)
    assert (shown.code, shown.out.strip()) == (0, "no finished runs")
    steps = [s for s in workdir.glob("steps/*") if not s.name.endswith(".partial")]
    assert all((step / "manifest.json").is_file() for step in steps)
    parts = list(workdir.glob("datasets/*/*.zarr/part-*"))
    assert all((part / "part.json").is_file() for part in parts)
    assert bool(parts) == converted
    return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_file(tmp_path_factory.mktemp("place") / "two.yaml", 2, "dashboard: off")


Begin = Callable[[], Started]


@pytest.fixture
def begin(
    reference: Reference, place: Path, tmp_path: Path, start: Callable[..., Started]
) -> Iterator[Begin]:
    """Start the job of the reference run in another work folder."""
    before = NOTING.format(log=str(tmp_path / "states.log"))
    words = ("run", reference.job, "--workdir", tmp_path / "work", "--cluster", place)
    return lambda: start(*words, before=before)


def test_kill_9__anywhere_costs_nothing_but_time(
    reference: Reference, begin: Begin, tmp_path: Path
) -> None:
    workdir, log = tmp_path / "work", tmp_path / "states.log"

    one = begin()
    one.until(lambda: len(list(workdir.glob("datasets/small/a.zarr/.part-*/blocks/*.npz"))) > 2, "convert")
    one.kill_all()
    (partial,) = workdir.glob("datasets/small/a.zarr/.part-*.partial")
    done = {f.stem for f in (partial / "blocks").glob("[!.]*.npz")}
    chunks = {c: t for c, t in mtimes(partial / "X" / "c").items() if f"{int(c[:-2]):06d}" in done}
    assert 2 < len(chunks) < 32
    assert nothing_is_visible(workdir, converted=False)

    one = begin()
    one.until(lambda: any(workdir.glob("steps/moments-*.partial")), "moments")
    one.kill_all()
    (array,) = workdir.glob("datasets/small/a.zarr/part-*/X/c")
    kept = mtimes(array)
    assert {c: kept[c] for c in chunks} == chunks, "converted blocks are not written again"
    assert nothing_is_visible(workdir, converted=True)

    one = begin()
    one.until(lambda: saved_passes(log) >= 4, "passes")
    one.kill_all()
    passes = saved_passes(log)
    (partial,) = workdir.glob("steps/kmeans-*.partial")
    assert (partial / "state.npz").is_file()
    assert not (partial / "centers.npz").exists()
    log.unlink()

    one = begin()
    one.until(lambda: any(partial.glob("clusters.zarr/margin/part-0000/c/*/*")), "assignment")
    one.kill_all()
    first, second = notes(log)[:2]
    assert first[:2] == ["loaded", "state.npz"]
    assert int(first[2]) >= passes
    assert (second[0], int(second[2])) == ("saved", int(first[2]) + 1), "goes on with the next pass"
    assert nothing_is_visible(workdir, converted=True)
    centers = mtimes(partial)["centers.npz"]

    ended = begin().wait()
    assert ended.code == 0, ended.err
    assert "a: 4,000 x 32 already converted" in ended.err
    assert "(went on from before)" in ended.err
    assert mtimes(workdir / "steps" / partial.name.removesuffix(".partial"))["centers.npz"] == centers
    assert mtimes(array) == kept
    assert digests(workdir) == digests(reference.workdir)


def test_stop__is_one_line_and_leaves_no_process(
    reference: Reference, begin: Begin, tmp_path: Path
) -> None:
    workdir, log = tmp_path / "work", tmp_path / "states.log"

    def stop(one: Started, send: Callable[[], None], name: str) -> None:
        below = one.children()
        assert len(one.workers()) == 2
        send()
        ended = one.wait()
        assert ended.code == 130, ended.err
        assert "Traceback" not in ended.err
        (line,) = [line for line in ended.err.splitlines() if "stopped by" in line]
        assert line == (
            f"vehclust: stopped by {name}; finished work is kept, the same command goes on"
        )
        assert not [p for p in psutil.wait_procs(below, timeout=10)[1] if p.is_running()]
        assert nothing_is_visible(workdir, converted=True)

    one = begin()
    one.until(lambda: saved_passes(log) >= 2, "passes")
    stop(one, one.process.terminate, "SIGTERM")

    one = begin()
    one.until(lambda: any(workdir.glob("steps/kmeans-*.partial/clusters.zarr/labels")), "assignment")
    # A terminal sends Ctrl-C to every process of the group.
    stop(one, lambda: os.killpg(one.process.pid, signal.SIGINT), "SIGINT")

    one = begin()
    one.until(lambda: any(workdir.glob("steps/kmeans-*.partial/clusters.zarr/labels")), "assignment")
    one.workers()[0].kill()
    ended = one.wait()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert digests(workdir) == digests(reference.workdir)
    labels = np.load(next(workdir.glob("steps/kmeans-*/centers.npz")))
    assert len(labels.files) > 3
    assert run_of(workdir).name == run_of(reference.workdir).name
