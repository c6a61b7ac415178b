"""What every step is given: where the work lies, the seed, whom to tell, who watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vehclust_dask.job.watch import Watch
from vehclust_dask.store.folders import owner_lock
from vehclust_dask.store.steps import Step


@dataclass(frozen=True)
class Work:
    """The surroundings of a run.

    Attributes
    ----------
    root : Path
        The work folder.
    seed : int
    say : callable
        Told a line when something is done.
    watch : Watch
    """

    root: Path
    seed: int
    say: Callable[[str], None]
    watch: Watch

    def step(self, kind: str, params: dict[str, Any], *made_from: str) -> Step:
        """Name a step by what it is made from."""
        return Step(self.root, kind, params, made_from)

    def ensure(self, step: Step, label: str, compute: Callable[[Path], dict[str, Any]]) -> Step:
        """Compute a step unless its result is there.

        Parameters
        ----------
        step : Step
        label : str
            For people.
        compute : callable
            Given the folder to write into; returns facts for the manifest.
        """
        if step.done:
            self.say(f"{label}: already there ({step.kind}-{step.digest[:8]})")
            return step
        # Jobs share steps: two that wrote one at the same time would take it from each other.
        with owner_lock(self.root / "locks" / f"{step.kind}-{step.digest}", label):
            resumed = step.partial.exists()
            with self.watch.measure() as measure:
                facts = compute(step.begin())
            step.finish(
                seconds=round(measure.seconds, 3),
                peak_bytes=measure.peak_bytes,
                resumed=resumed,
                **facts,
            )
        self.say(f"{label}: {measure.seconds:.1f} s{' (went on from before)' if resumed else ''}")
        return step
