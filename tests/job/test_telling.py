"""What a person is told while a job runs: lines on stderr where there is no terminal."""

from __future__ import annotations

import pytest

from vehclust_dask.blocks import Progress
from vehclust_dask.job import telling
from vehclust_dask.job.telling import Teller


def test_listen__shows_words_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "LINE_EVERY", 0.0)
    with Teller() as teller:
        teller.listen(Progress("ward-one", 0, 1, "the tree: 1,200 of 3,400 clusters left"))
        teller.listen(Progress("ward-one", 1, 1))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "  the tree: 1,200 of 3,400 clusters left"
    assert second.startswith("  ward-one: 1/1 tasks")


def test_listen__says_a_line_now_and_then_and_nothing_when_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet in (False, True):
        with Teller(quiet) as teller:
            for left in range(100):
                teller.listen(Progress("ward-one", 0, 1, f"{left} left"))
    assert capsys.readouterr().err == ""
