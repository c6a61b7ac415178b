"""The command of a table: options, files, the comparison, the page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import printing
from benchmarks.files import Files, opened
from benchmarks.pairs import Comparison, Found, SideFailed, Table, compare, run_side

Plan = Callable[[argparse.Namespace, Files], Iterator[Comparison]]


def arguments(
    description: str | None, rows: int | list[int], rounds: int = 3
) -> argparse.ArgumentParser:
    """Return the options that every table has; several numbers of rows where a list is given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    several = "+" if isinstance(rows, list) else None
    parser.add_argument(
        "--rows", type=int, nargs=several, default=rows, help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    parser.add_argument("--slow", action="store_true", help="with the slow sides")
    parser.add_argument("--data", type=Path, help="folder with real features, *.pickle")
    parser.add_argument("--keep", type=Path, help="folder to keep files in between tables")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    return parser


def main(
    module: str,
    tables: dict[str, Table],
    plan: Plan,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> list[Found]:
    """Measure and print the tables of a module, or run one side of one, as a child is told to."""
    asked = parser.parse_args(argv)
    if asked.side:
        record = run_side(tables[asked.options["table"]], asked.side, asked.options)
        print(f"\n{json.dumps(record.plain())}")
        return []
    results = []
    with opened(asked.keep, asked.data) as files:
        print(f"{printing.machine()}\n", flush=True)
        for one in plan(asked, files):
            table = tables[one.table]
            try:
                found = compare(module, one, table, rounds=asked.rounds, slow=asked.slow)
            except SideFailed as error:
                raise SystemExit(f"benchmarks.{module}: {error}") from None
            print(printing.page(one, table, found), flush=True)
            results.append(found)
    return results
