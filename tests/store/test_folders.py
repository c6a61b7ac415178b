"""Files and folders that are seen whole or not at all, locks, digests, free space."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask.errors import Conflict, NotEnough, UsageError
from vehclust_dask.store.folders import (
    digest_of,
    open_workdir,
    owner_lock,
    publish,
    read_json,
    require_space,
    write_bytes,
    write_json,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain))
def test_digest_of__does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert digest_of(turned) == digest_of(value)
    assert len(digest_of(value)) == 16


def test_digest_of__tells_values_apart() -> None:
    values = [1, "1", [1], {"1": 1}, None, True, 1.5, [], {}]
    assert len({digest_of(value) for value in values}) == len(values)


def test_write_bytes__leaves_the_old_file_where_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a" / "file"
    write_bytes(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(file, b"new and longer")
    assert file.read_bytes() == b"old"


def test_write_bytes__readers_see_one_content_or_the_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    contents = [bytes([65 + i]) * 200_000 for i in range(2)]
    write_bytes(file, contents[0])
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(file.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100):
        write_bytes(file, contents[i % 2])
    stop.set()
    reader.join()
    assert seen <= set(contents)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


@given(value=st.dictionaries(st.text(), plain))
def test_write_json__is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]
) -> None:
    file = tmp_path_factory.mktemp("json") / "a.json"
    write_json(file, value)
    assert read_json(file) == value


def test_publish__keeps_the_folder_of_who_was_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    publish(tmp_path / "first", tmp_path / "final")
    publish(tmp_path / "second", tmp_path / "final")
    assert (tmp_path / "final" / "who").read_text() == "first"
    assert [f.name for f in tmp_path.iterdir()] == ["final"]


def test_publish__does_not_swallow_other_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        publish(tmp_path / "absent", tmp_path / "final")


HOLD = """
import sys, time
from pathlib import Path
from vehclust_dask.store.folders import owner_lock
with owner_lock(Path(sys.argv[1]), "job a"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_owner_lock__names_the_owner_and_ends_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "locks" / "job-a"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        words = f"job a is being written by process {owner.pid} on"
        with pytest.raises(Conflict, match=words), owner_lock(file, "job a"):
            pass
    finally:
        owner.kill()
        owner.wait()
    with owner_lock(file, "job a"):
        assert file.read_text().startswith(f"process {os.getpid()} on ")


def test_open_workdir__refuses_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gopher://bucket/work: .*give a path, or a URL"):
        open_workdir("gopher://bucket/work")
    with pytest.raises(UsageError, match=r"holds credentials; leave them out"):
        open_workdir("s3://key:secret@bucket/work")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written.*--workdir"):
        open_workdir(tmp_path / "file" / "work")
    made = open_workdir(tmp_path / "new" / "work")
    assert made.is_dir()
    assert not list(made.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_open_workdir__refuses_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        open_workdir(tmp_path / "work")


def test_require_space__names_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, 10**6))
    require_space(tmp_path, 10**6, "converting")
    with pytest.raises(NotEnough, match=r"converting needs 1.5 MB .* 1.0 MB are free; free some"):
        require_space(tmp_path, 1_500_000, "converting")
