"""Rounds of tiles on storage: seen whole, removed when older, never taken for another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from vehclust_dask.errors import BadInput
from vehclust_dask.records import Group, RowGrid
from vehclust_dask.store.rounds import MARKER, Rounds


class Learnt(NamedTuple):
    count: NDArray[Any]
    values: NDArray[Any]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> tuple[Group, ...]:
    monkeypatch.setattr("vehclust_dask.budget.TILE_ROWS", 10)
    return RowGrid((35,), 10).groups()


def learnt(number: int, group: Group) -> Learnt:
    return Learnt(np.arange(group.number), np.full((group.n_rows, 2), number / 3))


def kept(folder: Path, groups: tuple[Group, ...], *numbers: int) -> Rounds:
    rounds = Rounds(str(folder / "rounds"), Learnt)
    for number in numbers:
        for group in groups:
            rounds.save(number, group, learnt(number, group))
        rounds.mark(number, groups)
    return rounds


def test_load__returns_what_was_saved(tmp_path: Path, groups: tuple[Group, ...]) -> None:
    rounds = kept(tmp_path, groups, 0, 4)
    assert rounds.saved(groups) == 4
    for group in groups:
        for found, wanted in zip(rounds.load(4, group), learnt(4, group), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)


def test_mark__removes_older_rounds(tmp_path: Path, groups: tuple[Group, ...]) -> None:
    kept(tmp_path, groups, 0, 4, 9)
    assert {f.name for f in (tmp_path / "rounds").iterdir()} == {MARKER, "round-00009"}


def test_saved__names_the_last_whole_round(tmp_path: Path, groups: tuple[Group, ...]) -> None:
    assert kept(tmp_path, groups).saved(groups) == -1
    rounds = kept(tmp_path, groups, 2)
    rounds.save(5, groups[0], learnt(5, groups[0]))
    assert rounds.saved(groups) == 2
    rounds.load(2, groups[-1])


def test_saved__is_nothing_for_other_groups(tmp_path: Path, groups: tuple[Group, ...]) -> None:
    rounds = kept(tmp_path, groups, 2)
    assert rounds.saved(RowGrid((36,), 10).groups()) == -1
    assert rounds.saved(groups[:-1]) == -1


def test_clear__leaves_nothing(tmp_path: Path, groups: tuple[Group, ...]) -> None:
    rounds = kept(tmp_path, groups, 2)
    rounds.clear()
    assert list(tmp_path.iterdir()) == []
    assert rounds.saved(groups) == -1
    rounds.clear()


@pytest.mark.parametrize("size", [0, 100])
def test_load__refuses_a_damaged_file_in_words(
    tmp_path: Path, groups: tuple[Group, ...], size: int
) -> None:
    rounds = kept(tmp_path, groups, 2)
    (file,) = (tmp_path / "rounds").glob("round-00002/*1.npz")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BadInput, match=r"cannot be read .* delete .*rounds and run again"):
        rounds.load(2, groups[1])
