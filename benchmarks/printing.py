"""A comparison as markdown, and the machine it was made on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from benchmarks.pairs import MEASURES, Comparison, Found, Goal, Table

PACKAGES = (
    "vehclust-dask", "numpy", "scipy", "scikit-learn", "dask", "dask-ml", "numba", "zarr",
    "faiss-cpu", "scikit-learn-intelex", "fastcluster", "hdbscan",
)  # fmt: skip


def page(one: Comparison, table: Table, found: Found) -> str:
    """Return title, table, goals and notes."""
    names = list(dict.fromkeys(name for side in found.columns.values() for name in side))
    ratio = f"ours / it ({MEASURES[table.ratio_of]})"
    head = ["side", "seconds", "CPU s", ratio, "peak MB", "start CPU s", "start MB", *names]
    body = [
        [
            side,
            f"{found.median(side, 'seconds'):.2f}",
            f"{found.median(side, 'cpu'):.2f}",
            f"{found.ratio(table.ratio_of, side):.2f}",
            f"{found.median(side, 'peak_mb'):.0f}",
            f"{found.median(side, 'start_cpu'):.1f}",
            f"{found.median(side, 'start_mb'):.0f}",
            *(number(found.columns[side].get(name)) for name in names),
        ]
        for side in found.rounds
    ]
    below = [goal_line(goal, goal.value(found)) for goal in table.goals]
    notes = (*told_lines(table, found), *found.left_out, *one.notes, *library_lines(found))
    below += [f"- {line}" for line in notes]
    return "\n".join([f"### {one.title}", "", *grid(head, body), "", *below, ""])


def grid(head: list[str], body: list[list[str]]) -> list[str]:
    """Return a markdown table, a line per row."""
    rows = [head, ["---"] * len(head), *body]
    return [f"| {' | '.join(row)} |" for row in rows]


def number(value: float | None) -> str:
    """Write a value of a column; nothing where there is none."""
    return "" if value is None else f"{value:.6g}"


def goal_line(goal: Goal, value: float) -> str:
    """Say whether a goal is met."""
    return f"- goal {goal.words} {goal.sign} {goal.limit:.4g}: {value:.4g}, {goal.verdict(value)}"


def told_lines(table: Table, found: Found) -> list[str]:
    """Say which sides did not choose the kernel of their own BLAS."""
    told = [side for side in found.rounds if table.side(side).told_kernel]
    why = "its own BLAS may not know this processor: told the kernel that numpy's chose"
    return [f"{side}: {why}" for side in told]


def library_lines(found: Found) -> list[str]:
    """Say which BLAS ran with which kernel; where one ran with several, in which sides."""
    sides: dict[str, list[str]] = {}
    for side, records in found.rounds.items():
        for name in records[-1].libraries:
            sides.setdefault(name, []).append(side)
    owners = [name.split(":")[0] for name in sides]
    words = [
        name if owners.count(owner) == 1 else f"{name} in {' and '.join(sides[name])}"
        for name, owner in zip(sides, owners, strict=True)
    ]
    return [f"BLAS: {'; '.join(words)}"] if words else []


def machine() -> str:
    """Return processor and versions in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    known = {d.metadata["Name"] for d in metadata.distributions()}
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES if name in known)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"
