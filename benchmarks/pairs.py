"""Run sides of a comparison in turn, each as a process of its own, and print medians as a table."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


@dataclass
class Side:
    """One side of a comparison: a name and what it did in every round."""

    name: str
    seconds: list[float]
    cpu: list[float]
    peak_mb: list[float]
    quality: list[float]


def in_child(script: str, side: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run one side in a fresh process with one thread; return what it printed."""
    env = os.environ | ONE_THREAD
    command = [sys.executable, script, "--side", side, "--options", json.dumps(options)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: Callable[[], float], warm: Callable[[], object] | None = None) -> None:
    """Do the work of one side and print seconds, CPU seconds, peak memory and quality as JSON."""
    if warm is not None:
        warm()
    base = _cpu()
    began = time.perf_counter()
    quality = work()
    seconds = time.perf_counter() - began
    cpu = _cpu() - base
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": _peak_mb(), "quality": quality}))


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mb() -> float:
    """Return the largest resident size of this process so far, MB (VmHWM: its own, not its parent's)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def compare(script: str, sides: list[str], options: dict[str, Any], rounds: int) -> list[Side]:
    """Run all sides in turn, ``rounds`` times."""
    found = {name: Side(name, [], [], [], []) for name in sides}
    for _ in range(rounds):
        for name in sides:
            record = in_child(script, name, options)
            side = found[name]
            side.seconds.append(record["seconds"])
            side.cpu.append(record["cpu"])
            side.peak_mb.append(record["peak_mb"])
            side.quality.append(record["quality"])
    return list(found.values())


def table(title: str, sides: list[Side], quality: str) -> str:
    """Return the medians as a markdown table; ratios are to the first side, round by round."""
    first = sides[0]
    lines = [
        f"### {title}",
        "",
        f"| side | seconds | CPU s | ratio | peak MB | {quality} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for side in sides:
        ratio = statistics.median(a / b for a, b in zip(side.cpu, first.cpu, strict=True))
        lines.append(
            f"| {side.name} | {statistics.median(side.seconds):.2f} | "
            f"{statistics.median(side.cpu):.2f} | {ratio:.2f} | "
            f"{statistics.median(side.peak_mb):.0f} | {statistics.median(side.quality):.6g} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Return processor and versions in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    names = ("numpy", "scipy", "scikit-learn", "dask", "dask-ml", "numba", "zarr")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"
