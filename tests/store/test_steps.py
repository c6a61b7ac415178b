"""Steps are named by what decides them, written beside and seen whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vehclust_dask.store.steps import Step


def step(
    root: Path, kind: str = "moments", made_from: tuple[str, ...] = ("a",), **params: int
) -> Step:
    return Step(root, kind, params, made_from)


def tree(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*")}


def test_digest__depends_on_all_that_decides_the_result_and_not_on_the_place(
    tmp_path: Path,
) -> None:
    one = step(tmp_path, k=3, seed=0)
    assert step(tmp_path / "elsewhere", seed=0, k=3).digest == one.digest
    others = [
        step(tmp_path, k=4, seed=0),
        step(tmp_path, k=3),
        step(tmp_path, kind="pca", k=3, seed=0),
        step(tmp_path, made_from=("b",), k=3, seed=0),
        step(tmp_path, made_from=("a", "b"), k=3, seed=0),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 6


def test_digest__changes_with_the_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vehclust_dask.store import steps

    before = step(tmp_path).digest
    monkeypatch.setitem(steps.ALGORITHM_VERSIONS, "moments", 10**6)
    assert step(tmp_path).digest != before


def test_finish__shows_everything_at_once_without_the_state(tmp_path: Path) -> None:
    one = step(tmp_path, k=3)
    folder = one.begin()
    (folder / "result.npy").write_bytes(b"1")
    (folder / "state.npz").write_bytes(b"2")
    assert not one.done
    assert not one.folder.exists()
    one.finish(rows=7)
    assert one.done
    assert tree(one.folder) == {"result.npy", "manifest.json"}
    assert not one.partial.exists()
    manifest = one.manifest()
    assert (manifest["rows"], manifest["params"], manifest["made_from"]) == (7, {"k": 3}, ["a"])


def test_finish__leaves_no_temporary_file_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    one = step(tmp_path)
    folder = one.begin()
    for name in (".state.npz", ".manifest.json.77.partial", "Z/c/0/0.0a1b.partial", "Z/c/0/0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")
    one.finish()
    assert tree(one.folder) == {"manifest.json", "Z", "Z/c", "Z/c/0", "Z/c/0/0"}


def test_begin__finds_what_an_interrupted_run_left(tmp_path: Path) -> None:
    (step(tmp_path).begin() / "state.npz").write_bytes(b"2")
    again = step(tmp_path)
    assert (again.begin() / "state.npz").read_bytes() == b"2"


def test_finish__of_two_writers_keeps_the_first_whole(tmp_path: Path) -> None:
    first, second = step(tmp_path), step(tmp_path)
    first.begin()
    second.begin()
    np.save(first.partial / "a.npy", np.arange(3))
    first.finish(writer=1)
    second.finish(writer=2)
    assert second.manifest()["writer"] == 1
    assert np.load(second.folder / "a.npy").tolist() == [0, 1, 2]
    assert not second.partial.exists()
