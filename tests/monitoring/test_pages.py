"""Dask's own pages while a job runs: what a person reads there, in a real browser and as series."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.components import need_module
from tests.end_to_end.conftest import Case, Started, place_file, run_of

pytestmark = pytest.mark.cluster

STUDIES = """
studies:
  osnet-150:
    descriptors: [a]
    scale: standard
    reduce: {method: pca, n_components: 8}
    cluster:
      km: {method: kmeans, n_clusters: "2..12", n_init: 3, tol: 0}
      ward: {method: ward, n_clusters: [2, 6], n_neighbors: 8}
    featured: km/3
"""
#: What the tasks of this job may be called on a page.
STEPS = {
    "convert", "pca", "components", "reduce", "neighbours", "survey", "kmeans", "ward", "scores",
    "agreement", "plane",
}  # fmt: skip
#: Name and "done / all" of every bar of the page's progress.
BARS = """
const bars = {};
for (const page of Bokeh.documents)
  for (const model of page._all_models.values()) {
    const columns = model.data;
    if (!columns || !columns["show-name"]) continue;
    Array.from(columns["name"]).forEach((name, n) => bars[name] = columns["done"][n]);
  }
return bars;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need_module("prometheus_client", install="pip install 'vehclust-dask[metrics]'")
    with chromium() as driver:
        yield driver


def series(link: str) -> dict[str, float]:
    """Read /metrics: how many tasks of each step have been in memory so far."""
    address = link.replace("/status", "/metrics")
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    lines = re.findall(r"^dask_scheduler_prefix_state_totals_total\{(.+)\} (\S+)", text, re.M)
    named = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), count) for labels, count in lines]
    return {
        labels["task_prefix_name"]: float(count)
        for labels, count in named
        if labels["state"] == "memory"
    }


def test_pages__show_the_steps_of_a_job_and_how_far_they_are(
    case: Case, browser: Any, tmp_path: Path, start: Callable[..., Started]
) -> None:
    job = case.job(tmp_path / "main.yaml", studies=STUDIES)
    place = place_file(tmp_path / "two.yaml", 2)
    workdir = tmp_path / "work"
    one = start("run", job, "--workdir", workdir, "--cluster", place)
    one.until(lambda: "/status" in one.stderr(), "the link")
    first = one.stderr().splitlines()[0]
    assert re.fullmatch(r"dashboard  http://127\.0\.0\.1:\d+/status", first)
    link = first.split()[1]
    browser.get(link)
    seen: dict[str, set[str]] = {}
    counted: dict[str, list[float]] = {}
    while one.process.poll() is None:
        with contextlib.suppress(Exception):
            for name, done in (browser.execute_script(BARS) or {}).items():
                seen.setdefault(name, set()).add(done)
        with contextlib.suppress(OSError):
            for name, count in series(link).items():
                counted.setdefault(name, []).append(count)
        time.sleep(0.1)
    ended = one.wait()
    assert ended.code == 0, ended.err
    assert set(seen) <= STEPS, "a bar per step, whatever studies and clusterings are called"
    assert "kmeans" in seen
    assert any(len(values) > 1 for values in seen.values()), f"numbers grow: {seen}"
    assert set(counted) <= STEPS
    assert counted["kmeans"] == sorted(counted["kmeans"])
    assert counted["kmeans"][-1] > counted["kmeans"][0]

    # The live page lost its scheduler, and asks for an icon elsewhere: what it said is not the report's.
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get((run_of(workdir) / "performance.html").as_uri())
    time.sleep(2)
    drawn = browser.execute_script("return Bokeh.documents.length")
    assert drawn >= 1
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
