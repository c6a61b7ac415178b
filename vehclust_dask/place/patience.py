"""How long a job waits for others: a lost scheduler and workers that do not come back are told of."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from vehclust_dask.errors import FULL, Lost, VehclustError

#: Seconds between two looks at the workers.
LOOK_EVERY = 1.0


@contextlib.contextmanager
def giving_up(client: Any) -> Iterator[None]:
    """End what happens inside once the scheduler is lost, or all workers are for too long.

    A scheduler of another's counts by its own rules, which may be to wait for ever; so this side
    counts as well: ``distributed.scheduler.no-workers-timeout`` of this process.

    Raises
    ------
    Lost
    """
    from concurrent.futures import CancelledError

    from distributed.client import ClosedClientError

    watch = _WorkerWatch(client)
    watch.start()
    try:
        yield
    except Exception as error:
        ours = isinstance(error, VehclustError) and not isinstance(error, Lost)
        full = isinstance(error, OSError) and error.errno in FULL
        told = isinstance(error, Lost | CancelledError | ClosedClientError)
        # Whatever is asked of a scheduler that is gone fails in its own way.
        if ours or full or not (told or client.status != "running"):
            raise
        if watch.reason is not None:
            raise Lost(watch.reason) from error
        if isinstance(error, Lost):
            raise
        raise Lost(
            "the scheduler was lost; start it and run again: finished work is kept"
        ) from error
    finally:
        watch.stop()


class _WorkerWatch(threading.Thread):
    """Close the client when no worker has been there for too long: all that waits for it then ends.

    Attributes
    ----------
    reason : str or None
        Why it was closed.
    """

    def __init__(self, client: Any) -> None:
        from dask import config
        from dask.utils import parse_timedelta

        super().__init__(name="worker-watch", daemon=True)
        self.reason: str | None = None
        self._client = client
        self._patience = parse_timedelta(config.get("distributed.scheduler.no-workers-timeout"))
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        seen = time.monotonic()
        while not self._stopped.wait(LOOK_EVERY):
            # A scheduler that does not answer is told of by those who wait for it.
            with contextlib.suppress(Exception):
                if self._client.nthreads():
                    seen = time.monotonic()
                elif time.monotonic() - seen > self._patience:
                    self.reason = (
                        f"no worker was left for {self._patience:.0f} s; start workers and run "
                        "again: finished work is kept"
                    )
                    self._client.close(timeout=5)
                    return

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
