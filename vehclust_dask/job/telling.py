"""Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from vehclust_dask.blocks import Progress

#: Seconds between two lines of one step where there is no terminal.
LINE_EVERY = 10.0


class Teller:
    """Tell a person how far a job is.

    Parameters
    ----------
    quiet : bool
        Say nothing but errors.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._bar: Any = None
        self._task: Any = None
        self._name = ""
        self._heard: Progress | None = None
        self._began = 0.0
        self._last = 0.0

    def __enter__(self) -> Teller:
        if self._console.is_terminal and not self._quiet:
            from rich import progress as bars

            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=30),
                bars.TextColumn("{task.completed}/{task.total}"),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TimeElapsedColumn(),
                bars.TextColumn("left"),
                bars.TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._console.print(line, markup=False, soft_wrap=True)

    def listen(self, progress: Progress) -> None:
        """Take note of a task that is done."""
        now = time.monotonic()
        if progress.name != self._name:
            self._name, self._began = progress.name, now
            self._last = self._last or now
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(progress.name, total=progress.total, rate="")
        self._heard = progress
        if self._quiet:
            return
        if progress.text:
            self._words(progress.text, now)
            return
        rate = progress.done / max(now - self._began, 1e-9)
        if self._bar is not None:
            shown = f"{rate:.1f}/s" if now - self._began > 0.5 else ""
            self._bar.update(self._task, completed=progress.done, rate=shown)
        elif now - self._last >= LINE_EVERY:
            self._last = now
            line = f"  {progress.name}: {progress.done}/{progress.total} tasks"
            if now - self._began > 1.0:
                left = (progress.total - progress.done) / max(rate, 1e-9)
                line += f", {rate:.1f} a second, {left:.0f} s left"
            self.say(line)

    def standing(self) -> dict[str, Any]:
        """Return how far the step at hand is: tasks, tasks a second, seconds left, words of its own."""
        heard, began = self._heard, self._began
        if heard is None:
            heard = Progress("", 0, 0)
        took = time.monotonic() - began
        under_way = 0 < heard.done < heard.total and took > 1.0
        rate = heard.done / took if under_way else None
        left = (heard.total - heard.done) / rate if rate else None
        return {
            "step": heard.name or None,
            "done": heard.done,
            "total": heard.total,
            "rate": rate and round(rate, 3),
            "seconds_left": left if left is None else round(left, 1),
            "words": heard.text or None,
        }

    def _words(self, text: str, now: float) -> None:
        """Show what a task tells of itself."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        elif now - self._last >= LINE_EVERY:
            self._last = now
            self.say(f"  {text}")
