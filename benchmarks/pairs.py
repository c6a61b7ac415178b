"""A comparison: sides on the same files, in turn, each in a fresh process; medians as a table.

A table module names its sides, judges their answers and says what to measure; `command` does the rest.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import Record, measured

Options = dict[str, Any]
Quality = dict[str, Any]
Columns = dict[str, dict[str, float]]

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
#: Settings of a machine that would choose kernels for BLAS: it shall choose by itself.
CHOOSING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
MEASURES = {"cpu": "CPU s", "seconds": "seconds", "peak_mb": "peak memory"}


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes
    ----------
    name : str
    prepare : callable
        Imports what it needs and returns the work; only the work is measured.
    needs : str
        Module that must be installed.
    slow : bool
        Takes part only when slow sides are asked for.
    told_kernel : bool
        Its own BLAS may be too old to know the processor: it is told the kernel that numpy's chose.
    at_most : int
        Takes part with so many rows at most (``rows`` among the options); 0: with any number.
    """

    name: str
    prepare: Callable[[Options], Callable[[], Any]]
    needs: str = ""
    slow: bool = False
    told_kernel: bool = False
    at_most: int = 0

    @property
    def installed(self) -> bool:
        """Say whether it can run here."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


@dataclass(frozen=True)
class Found:
    """What a comparison found; the first side is ours.

    Attributes
    ----------
    rounds : dict of str to list of Record
    columns : dict of str to dict of str to float
        Of every side, what stands beside the times.
    left_out : list of str
        Sides that did not take part, and why.
    rows : int
        That were compared on, where the comparison says so; else 0.
    """

    rounds: dict[str, list[Record]]
    columns: Columns
    left_out: list[str]
    rows: int = 0

    @property
    def ours(self) -> str:
        """Return the name of our side."""
        return next(iter(self.rounds))

    def median(self, side: str, measure: str) -> float:
        """Return the median over rounds."""
        return statistics.median(getattr(r, measure) for r in self.rounds[side])

    def ratio(self, measure: str, peer: str) -> float:
        """Return ours / peer, the median of the rounds' ratios; NaN where the peer is missing."""
        if peer not in self.rounds:
            return float("nan")
        ours, theirs = self.rounds[self.ours], self.rounds[peer]
        pairs = zip(ours, theirs, strict=True)
        return statistics.median(getattr(a, measure) / getattr(b, measure) for a, b in pairs)


@dataclass(frozen=True)
class Goal:
    """A number that should be at most (or at least) a limit; NaN where it could not be measured."""

    words: str
    value: Callable[[Found], float]
    limit: float
    at_least: bool = False

    @property
    def sign(self) -> str:
        """Return the sign of comparison."""
        return ">=" if self.at_least else "<="

    def verdict(self, value: float) -> str:
        """Return whether the goal is met."""
        if value != value:
            return "not measured"
        reached = value >= self.limit if self.at_least else value <= self.limit
        return "met" if reached else "missed"


def ratio_goal(measure: str, peer: str, limit: float) -> Goal:
    """Return the goal that ours / peer is at most ``limit``."""
    words = f"{MEASURES[measure]}, ours / {peer}"
    return Goal(words, lambda found: found.ratio(measure, peer), limit)


def column_goal(column: str, limit: float, *, side: str = "", at_least: bool = False) -> Goal:
    """Return the goal that a column, of our side unless another is named, has at most a value."""

    def value(found: Found) -> float:
        return found.columns.get(side or found.ours, {}).get(column, float("nan"))

    return Goal(f"{column} ({side})" if side else column, value, limit, at_least)


def as_judged(judged: dict[str, Quality]) -> Columns:
    """Return every side's own quality as its columns."""
    return {side: dict(quality) for side, quality in judged.items()}


@dataclass(frozen=True)
class Table:
    """What is compared.

    Attributes
    ----------
    sides : tuple of Side
        Ours first.
    judge : callable
        Given options and the answer of a side, in its process but not measured: its quality.
    columns : callable
        Given the quality of all sides: the columns beside the times.
    goals : tuple of Goal
    ratio_of : str
        What the column of ratios compares.
    """

    sides: tuple[Side, ...]
    judge: Callable[[Options, Any], Quality]
    columns: Callable[[dict[str, Quality]], Columns] = as_judged
    goals: tuple[Goal, ...] = ()
    ratio_of: str = "cpu"

    def side(self, name: str) -> Side:
        """Return a side by its name."""
        return next(side for side in self.sides if side.name == name)


@dataclass(frozen=True)
class Comparison:
    """One table to measure: its name, a title, what its sides are given, notes to print below."""

    table: str
    title: str
    options: Options
    notes: tuple[str, ...] = ()


def run_side(table: Table, side: str, options: Options) -> Record:
    """Run one side here and judge its answer."""
    record, answer = measured(functools.partial(table.side(side).prepare, options))
    record.quality = table.judge(options, answer)
    return record


def child_environment() -> dict[str, str]:
    """Return the environment of a side: one thread, and BLAS chooses its kernels."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOOSING}
    # This repository comes first, whatever is installed.
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    return kept | ONE_THREAD | {"PYTHONPATH": path}


def in_child(module: str, name: str, table: Table, side: Side, options: Options) -> Record:
    """Run one side in a fresh process."""
    env = child_environment()
    if side.told_kernel and numpy_kernel():
        env["OPENBLAS_CORETYPE"] = numpy_kernel()
    command = [sys.executable, "-m", f"benchmarks.{module}", "--side", side.name]
    command += ["--options", json.dumps({"table": name} | options)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SideFailed(f"{side.name}: {last}")
    return Record(**json.loads(done.stdout.splitlines()[-1]))


class SideFailed(RuntimeError):
    """A side ended with an error."""


@functools.cache
def numpy_kernel() -> str:
    """Return the kernel that numpy's OpenBLAS chooses on this processor by itself; '' without one."""
    code = (
        "import numpy, threadpoolctl\n"
        "pools = threadpoolctl.threadpool_info()\n"
        "print(*[p['architecture'] for p in pools if p['internal_api'] == 'openblas'][:1])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    return done.stdout.strip()


def compare(module: str, one: Comparison, table: Table, *, rounds: int, slow: bool) -> Found:
    """Run all sides in turn, forwards and backwards by rounds; what ours found is told to the peers.

    A peer that fails is left out with its error; ours must not fail.
    """
    rows = one.options.get("rows", 0)
    sides, left_out = _chosen(table, slow, rows)
    records: dict[str, list[Record]] = {side.name: [] for side in sides}
    ours = sides[0].name
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            if side.name not in records:
                continue
            told = {"ours": records[ours][-1].quality} if records[ours] else {}
            try:
                found = in_child(module, one.table, table, side, one.options | told)
                records[side.name].append(found)
            except SideFailed as error:
                if side.name == ours:
                    raise
                del records[side.name]
                left_out.append(f"left out: {error}")
    judged = {side: several[-1].quality for side, several in records.items()}
    return Found(records, table.columns(judged), left_out, rows)


def _chosen(table: Table, slow: bool, rows: int) -> tuple[list[Side], list[str]]:
    """Return the sides that take part, and a line for each that does not."""
    sides, left_out = [], []
    for side in table.sides:
        if side.slow and not slow:
            left_out.append(f"left out: {side.name}: slow (--slow)")
        elif side.at_most and rows > side.at_most:
            left_out.append(f"left out: {side.name}: {side.at_most:,} rows at most")
        elif not side.installed:
            left_out.append(
                f"left out: {side.name}: {side.needs} is not installed (pip install -e '.[bench]')"
            )
        else:
            sides.append(side)
    return sides, left_out
