"""One door to files: what a path and a URL have in common, and what they do not share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.components import need_module
from vehclust_dask.errors import BadInput, Conflict, UsageError
from vehclust_dask.records import RowGrid
from vehclust_dask.store import leases, storage
from vehclust_dask.store.folders import (
    open_arrays,
    open_workdir,
    owner_lock,
    partial_of,
    read_array,
    read_json,
    read_table,
    require_space,
    write_by,
    write_json,
    write_last,
    write_table,
)
from vehclust_dask.store.matrices import create_matrix
from vehclust_dask.store.paths import read_paths
from vehclust_dask.store.sources import open_source
from vehclust_dask.store.steps import Step


@pytest.fixture(params=["folder", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder of this machine, then one of a store in memory."""
    if request.param == "folder":
        yield tmp_path
        return
    need_module("upath", install="pip install 'vehclust-dask[s3]'")
    folder = storage.at(f"memory://{uuid.uuid4().hex}")
    yield folder
    storage.remove_tree(folder)


@pytest.fixture
def store(root: Path) -> Path:
    if not storage.is_url(root):
        pytest.skip("only of a store")
    return root


def test_at__takes_paths_and_urls(tmp_path: Path) -> None:
    assert storage.at(str(tmp_path)) == tmp_path
    assert storage.at(f"file://{tmp_path}") == tmp_path
    assert storage.at(tmp_path) is tmp_path
    assert not storage.is_url(tmp_path)
    assert not storage.is_url("file:///x")
    assert storage.is_url("s3://bucket/x")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://key:secret@bucket/x", "holds credentials; leave them out"),
        ("nothing://bucket/x", "give a path, or a URL like s3://bucket/folder"),
    ],
)
def test_at__refuses_in_one_sentence(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        storage.at(url)
    assert "secret@" not in str(refused.value)


def test_files__are_written_and_read_alike(root: Path) -> None:
    write_json(root / "a" / "b.json", {"x": 1})
    assert read_json(root / "a" / "b.json") == {"x": 1}
    write_by(root / "c.npz", lambda out: np.savez(out, v=np.arange(5)))
    with open_arrays(root / "c.npz") as stored:
        assert stored["v"].tolist() == [0, 1, 2, 3, 4]
    write_by(root / "d.npy", lambda out: np.save(out, np.eye(3)))
    assert np.array_equal(read_array(root / "d.npy"), np.eye(3))
    table = pd.DataFrame({"k": [1, 2], "name": ["x", "y"]})
    write_table(table, root / "t" / "e.parquet")
    assert read_table(root / "t" / "e.parquet").equals(table)
    assert set(storage.files_below(root)) == {"a/b.json", "c.npz", "d.npy", "t/e.parquet"}
    storage.remove_tree(root / "t")
    storage.remove_tree(root / "t")
    assert set(storage.files_below(root)) == {"a/b.json", "c.npz", "d.npy"}


def test_create__is_won_once(root: Path) -> None:
    assert storage.create(root / "won", b"first")
    assert not storage.create(root / "won", b"second")
    assert (root / "won").read_bytes() == b"first"
    assert set(storage.files_below(root)) == {"won"}


@given(
    content=st.binary(min_size=1, max_size=300),
    reads=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 90)), max_size=12),
)
def test_reader__reads_what_is_there(content: bytes, reads: list[tuple[int, int]]) -> None:
    file = storage.at(f"memory://{uuid.uuid4().hex}")
    file.write_bytes(content)
    with storage.Reader(file) as reader:
        assert reader.about.size == len(content)
        for offset, length in reads:
            assert reader.pread(length, offset) == content[offset : offset + length]
    file.unlink()


def test_reader__fills_a_buffer_or_says_where_the_file_ends(root: Path) -> None:
    write_by(root / "x", lambda out: out.write(bytes(range(100))) and None)
    with storage.Reader(root / "x") as reader:
        buffer = bytearray(30)
        reader.fill(memoryview(buffer), 50)
        assert buffer == bytes(range(50, 80))
        with pytest.raises(BadInput, match=r"x ends at byte 100: it changed"):
            reader.fill(memoryview(buffer), 90)


def test_matrix__of_a_store_is_the_matrix_of_a_folder(root: Path) -> None:
    grid = RowGrid((700, 300), 256)
    X = np.random.default_rng(0).normal(size=(1000, 24)).astype(np.float32)
    matrix = create_matrix(root, "X", grid, 24, "float32", digest="d")
    with pytest.raises(BadInput, match=r"block 0 of .* is missing"):
        matrix.load(0)
    with pytest.raises(BadInput, match=r"5 of 5 blocks .* are missing"):
        matrix.check_whole()
    matrix.write_rows(X)
    matrix.check_whole()
    assert np.array_equal(np.concatenate([matrix.load(i) for i in range(5)]), X)
    again = type(matrix).from_json(matrix.to_json(root), root)
    assert again == matrix


def test_step__is_visible_when_its_manifest_is(root: Path) -> None:
    step = Step(root, "moments", {"a": 1}, ("x",))
    folder = step.begin()
    write_by(folder / "v.npy", lambda out: np.save(out, np.arange(3)))
    assert not step.done
    step.finish(seconds=1.0)
    assert step.done
    assert step.manifest()["seconds"] == 1.0
    assert read_array(step.folder / "v.npy").tolist() == [0, 1, 2]
    Step.at(root, step.folder)


def test_write_last__of_two_writers_the_first_ones_stays(store: Path) -> None:
    write_last(store / "manifest.json", {"by": 1})
    write_last(store / "manifest.json", {"by": 2})
    assert read_json(store / "manifest.json") == {"by": 1}
    assert partial_of(store / "x") == store / "x"


def test_upload__makes_the_target_what_the_source_is(store: Path, tmp_path: Path) -> None:
    (store / "old.txt").write_bytes(b"old")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    (tmp_path / "manifest.json").write_text("{}")
    storage.upload(tmp_path, store, "manifest.json")
    assert set(storage.files_below(store)) == {"deep/a.txt", "manifest.json"}


@pytest.mark.parametrize("ending", ["npy", "pickle", "npz", "parquet", "safetensors", "h5"])
def test_sources__are_read_from_a_store(store: Path, tmp_path: Path, ending: str) -> None:
    X = np.random.default_rng(1).normal(size=(60, 7)).astype(np.float32)
    file = tmp_path / f"x.{ending}"
    if ending == "npy":
        np.save(file, X)
    elif ending == "npz":
        np.savez_compressed(file, x=X)
    elif ending == "pickle":
        import pickle

        file.write_bytes(pickle.dumps(X))
    elif ending == "parquet":
        pd.DataFrame(X, columns=[f"f{i}" for i in range(7)]).to_parquet(file)
    elif ending == "safetensors":
        from safetensors.numpy import save_file

        save_file({"x": X}, file)
    else:
        import h5py

        with h5py.File(file, "w") as out:
            out["x"] = X
    (store / file.name).write_bytes(file.read_bytes())
    source = open_source(str(store / file.name))
    assert (source.n_rows, source.n_features) == (60, 7)
    assert np.array_equal(source.read(10, 40), X[10:40])
    assert np.array_equal(source.take(np.array([50, 3, 4])), X[[50, 3, 4]])
    assert source.fingerprint() == open_source(str(store / file.name)).fingerprint()


def test_sources__a_missing_one_is_named_with_the_nearest(store: Path) -> None:
    (store / "osnet.npy").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"there is no file .*osnt.npy; did you mean 'osnet.npy'"):
        open_source(str(store / "osnt.npy"))


def test_sources__a_zarr_group_of_a_store(store: Path) -> None:
    import zarr

    X = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    group = zarr.open_group(str(store / "g"), mode="w", storage_options={})
    group.create_array("deep/x", data=X, chunks=(16, 6))
    source = open_source(str(store / "g"))
    assert np.array_equal(source.read(5, 45), X[5:45])


def test_paths__are_read_from_a_store(store: Path) -> None:
    (store / "paths.csv").write_bytes(b"path\na/1.jpg\na/2.jpg\n")
    assert read_paths(str(store / "paths.csv")) == ["a/1.jpg", "a/2.jpg"]


def test_workdir__of_a_store_is_probed_and_has_no_disk_to_fill(store: Path) -> None:
    folder = open_workdir(str(store))
    assert storage.files_below(folder) == {}
    require_space(folder, 10**18, "anything")


def test_lease__is_held_by_one(store: Path) -> None:
    with owner_lock(store / "locks" / "job", "job a"):
        told = r"job a is being written by process \d+ on .*forgotten after 60 s"
        with pytest.raises(Conflict, match=told), owner_lock(store / "locks" / "job", "job a"):
            pass
        assert (store / "locks" / "job").exists()
    assert not (store / "locks" / "job").exists()


def test_lease__of_a_process_that_is_gone_is_taken_over(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store / "job"
    monkeypatch.setattr(leases, "_identity", lambda: {"pid": 1, "host": "other", "boot": "b"})
    storage.create(file, leases._content("dead", 0))
    monkeypatch.undo()
    with pytest.raises(Conflict, match="process 1 on other"), owner_lock(file, "job a"):
        pass
    mine = leases._identity() | {"began": "1"}
    monkeypatch.setattr(leases, "_identity", lambda: mine)
    file.unlink()
    storage.create(file, leases._content("dead", 0))
    monkeypatch.undo()
    assert mine["pid"] == os.getpid()
    with owner_lock(file, "job a"):
        assert b'"dead"' not in file.read_bytes()


def test_lease__that_nobody_renews_is_taken_over(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store / "job"
    with owner_lock(file, "job a"):
        monkeypatch.setattr(leases, "LASTS", -1.0)
        before = file.read_bytes()
        with owner_lock(file, "job a"):
            assert file.read_bytes() != before


def test_lease__is_renewed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(leases, "RENEW_EVERY", 0.02)
    file = store / "job"
    with owner_lock(file, "job a"):
        before, end = file.read_bytes(), time.monotonic() + 10
        while file.read_bytes() == before:
            assert time.monotonic() < end
            time.sleep(0.01)
