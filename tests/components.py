"""Real components that some tests need: a batch system, a browser, a server of objects.

Where one is missing, tests that need it are skipped with a reason; with VEHCLUST_TEST_ALL set they fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def need_command(*names: str, install: str) -> None:
    """Skip, or fail where all tests must run, unless every program is on this machine."""
    absent = [name for name in names if shutil.which(name) is None]
    _need(absent, install)


def need_module(*names: str, install: str) -> None:
    """Skip, or fail where all tests must run, unless every package can be imported."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    _need(absent, install)


def need_root(why: str) -> None:
    """Skip, or fail where all tests must run, unless this is the superuser."""
    _need([] if os.geteuid() == 0 else [f"the superuser, for {why}"], "run as root")


def _need(absent: list[str], install: str) -> None:
    if not absent:
        return
    reason = f"{', '.join(absent)} is missing; {install}"
    if os.environ.get("VEHCLUST_TEST_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)
