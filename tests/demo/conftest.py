from __future__ import annotations

import pytest

from vehclust_dask.demo import DemoSummary, write_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoSummary:
    """A whole demo of two chunks, the second one cut."""
    return write_demo(tmp_path_factory.mktemp("demo") / "twin", rows=1500, seed=7)
