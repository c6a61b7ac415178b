"""Stopped in the middle by kill -9, SIGTERM or Ctrl-C, a job goes on with the same bytes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.conftest import Case, Reference, Started, digests, place_file
from vehclust_dask.job.run import list_runs

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
    return {
        str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()
    }


def notes(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def saved_passes(log: Path) -> int:
    """Return how many passes the last saved state of the sweep holds."""
    return max(
        (int(n) for what, file, n in notes(log) if (what, file) == ("saved", "state.npz")),
        default=0,
    )


def check_nothing_half_is_visible(workdir: Path, *, converted: bool) -> None:
    """Check that all that can be seen is whole: no run, each step and each part with its record."""
    assert list_runs(workdir) == []
    steps = [s for s in workdir.glob("steps/*") if not s.name.endswith(".partial")]
    assert all((step / "manifest.json").is_file() for step in steps)
    parts = list(workdir.glob("datasets/*/*.zarr/part-*"))
    assert all((part / "part.json").is_file() for part in parts)
    assert bool(parts) == converted


def check_stopped(one: Started, send: Callable[[], None], name: str) -> None:
    """Stop a command; it says so in one line and leaves no process."""
    below = one.children()
    assert len(one.workers()) == 2
    send()
    ended = one.wait()
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if "stopped by" in line]
    assert line == f"vehclust: stopped by {name}; finished work is kept, the same command goes on"
    assert not [p for p in psutil.wait_procs(below, timeout=10)[1] if p.is_running()]


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


def test_stops__of_every_kind_cost_nothing_but_time(
    reference: Reference, begin: Begin, tmp_path: Path
) -> None:
    workdir, log = tmp_path / "work", tmp_path / "states.log"

    one = begin()
    one.until(
        lambda: len(list(workdir.glob("datasets/small/a.zarr/.part-*/blocks/*.npz"))) > 2, "convert"
    )
    one.kill_all()
    (partial,) = workdir.glob("datasets/small/a.zarr/.part-*.partial")
    done = {f.stem for f in (partial / "blocks").glob("[!.]*.npz")}
    chunks = {c: t for c, t in mtimes(partial / "X" / "c").items() if f"{int(c[:-2]):06d}" in done}
    assert 2 < len(chunks) < 32
    check_nothing_half_is_visible(workdir, converted=False)

    one = begin()
    one.until(lambda: any(workdir.glob("steps/moments-*.partial")), "moments")
    one.kill_all()
    (array,) = workdir.glob("datasets/small/a.zarr/part-*/X/c")
    kept = mtimes(array)
    assert {c: kept[c] for c in chunks} == chunks, "converted blocks are not written again"
    check_nothing_half_is_visible(workdir, converted=True)

    one = begin()
    one.until(lambda: saved_passes(log) >= 4, "passes")
    one.kill_all()
    passes = saved_passes(log)
    (partial,) = workdir.glob("steps/kmeans-*.partial")
    assert (partial / "state.npz").is_file()
    assert not (partial / "centers.npz").exists()
    log.unlink()

    one = begin()
    one.until(lambda: saved_passes(log) >= passes + 2, "passes")
    # A terminal sends Ctrl-C to every process of the group.
    check_stopped(one, lambda: os.killpg(one.process.pid, signal.SIGINT), "SIGINT")
    first, second = notes(log)[:2]
    assert first[:2] == ["loaded", "state.npz"]
    assert int(first[2]) >= passes
    assert (second[0], int(second[2])) == ("saved", int(first[2]) + 1), "goes on with the next pass"
    check_nothing_half_is_visible(workdir, converted=True)

    one = begin()
    one.until(lambda: any(partial.glob("clusters.zarr/margin/part-0000/c/*/*")), "assignment")
    one.kill_all()
    check_nothing_half_is_visible(workdir, converted=True)
    centers = mtimes(partial)["centers.npz"]

    one = begin()
    one.until(lambda: "reduced rows: already there" in one.stderr(), "clusters")
    one.workers()[0].kill()
    ended = one.wait()
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert "a: 4,000 x 32 already converted" in ended.err
    assert "(went on from before)" in ended.err
    assert (
        mtimes(workdir / "steps" / partial.name.removesuffix(".partial"))["centers.npz"] == centers
    )
    assert mtimes(array) == kept
    assert digests(workdir) == reference.digests


#: Small groups of rows, and each round of their tiles is kept.
ROUNDS = """
import vehclust_dask.budget as budget
import vehclust_dask.blocks as blocks
budget.TILE_ROWS, blocks.SAVE_TILES_EVERY, blocks.SAVE_TILES_SHARE = 256, 0.0, 0
"""
TREE = """
studies:
  one:
    descriptors: [a]
    reduce: none
    cluster: {tree: {method: ward, n_clusters: [2, 6], n_neighbors: 8}}
"""


def test_kill__among_the_tiles_of_neighbours_costs_rounds_alone(
    case: Case, tmp_path: Path, start: Callable[..., Started]
) -> None:
    job = case.job(tmp_path / "job.yaml", studies=TREE)
    places = [place_file(tmp_path / f"{n}.yaml", n, "dashboard: off") for n in (1, 2)]

    def begin(work: str, place: Path) -> Started:
        words = ("run", job, "--workdir", tmp_path / work, "--cluster", place)
        return start(*words, before=ROUNDS)

    def round_of(record: Path) -> int:
        return int(json.loads(record.read_text())["round"])

    undisturbed = begin("whole", places[0]).wait()
    assert undisturbed.code == 0, undisturbed.err
    records = "steps/neighbours-*.partial/rounds/round.json"
    one = begin("killed", places[1])
    one.until(lambda: any(round_of(r) >= 2 for r in (tmp_path / "killed").glob(records)), "round 2")
    one.kill_all()
    (record,) = (tmp_path / "killed").glob(records)
    assert not list(record.parents[1].glob("lists.zarr/*/part-0000/c")), "tiles were under way"
    ended = begin("killed", places[1]).wait()
    assert ended.code == 0, ended.err
    assert "(went on from before)" in ended.err
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
