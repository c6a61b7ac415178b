"""How time grows with rows: exponents fitted to what was measured, and what they say of more rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.pairs import Found

#: Rows of the case, and how the names of our sides begin.
FULL, OURS = 416_314, "vehclust"


def fitted(rows: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Return exponent and factor of seconds = factor * rows ** exponent, by least squares of logarithms."""
    exponent, level = np.polyfit(np.log(rows), np.log(seconds), 1)
    return float(exponent), float(np.exp(level))


def lines(results: Sequence[Found], full: int = FULL) -> list[str]:
    """Return a line for each side that was measured at two sizes or more: CPU seconds by rows.

    For a peer beyond the sizes it was measured at a figure follows, called extrapolated: what is
    small beside the square at many rows flattens the line, so it is rather too short. Ours is not
    extrapolated: it can be measured. Two sizes fit any line: take three.
    """
    sides = dict.fromkeys(side for found in results for side in found.rounds)
    said = []
    for side in sides:
        took = {one.rows: one.median(side, "cpu") for one in results if side in one.rounds}
        if len(took) < 2:
            continue
        first, *_, last = rows = sorted(took)
        exponent, factor = fitted(rows, [took[n] for n in rows])
        line = f"- {side}: CPU seconds grow as rows ** {exponent:.2f} ({first:,} to {last:,} rows)"
        if last < full and not side.startswith(OURS):
            line += f"; at {full:,} rows {words(factor * full**exponent)}, extrapolated"
        said.append(line)
    return said


def words(seconds: float) -> str:
    """Write a long time for people."""
    if seconds < 600:
        return f"{seconds:.0f} CPU s"
    return f"{seconds / 60:.0f} CPU min" if seconds < 7200 else f"{seconds / 3600:.1f} CPU h"


def told(results: list[Found]) -> list[Found]:
    """Print how every side grows, below the tables, and hand the results on; a child has none."""
    for line in lines(results):
        print(line)
    return results
