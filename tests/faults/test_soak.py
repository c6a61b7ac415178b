"""Random kills, seeded: three of those that `make soak` does by the dozen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.soak import Soak

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    one = Soak(tmp_path_factory.mktemp("soak"))
    try:
        one.calibrate()
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_job__killed_at_random_ends_with_the_same_bytes(soak: Soak, number: int) -> None:
    print(f"\n{soak.once(number, seed=0)}")
