"""What a worker process keeps between tasks: blocks it has read, states of iterations.

Everything here can be lost at any moment: it is read or computed again, with the same result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from vehclust_dask import budget

T = TypeVar("T")


#: A group that was not used while so many calls went by is left behind; tasks side by side, which
#: read a block and take a state each, come round far sooner.
IDLE_CALLS = 64


class ByteCache:
    """Keep values up to a number of bytes, by group.

    Blocks are visited in cycles, so throwing out the oldest entry would always throw out the one
    needed next. A group therefore keeps what came first and refuses the rest; only groups left
    behind make room, never one that is in use as well.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._groups: OrderedDict[str, dict[Hashable, tuple[Any, int]]] = OrderedDict()
        self._used: dict[str, int] = {}
        self._precious: set[str] = set()
        self._calls = 0
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Return the bytes held."""
        return self._held

    def get(self, group: str, key: Hashable) -> Any | None:
        """Return a kept value, or None."""
        with self._lock:
            entry = self._entries(group).get(key)
            return None if entry is None else entry[0]

    def put(
        self, group: str, key: Hashable, value: Any, n_bytes: int, *, precious: bool = False
    ) -> bool:
        """Keep a value if there is room, or groups left behind make it; say whether it is kept.

        For a precious one, groups that hold nothing precious make room as well, the latest entries
        first: a cycle meets those last.
        """
        with self._lock:
            entries = self._entries(group)
            self._remove(entries, key)
            if precious:
                self._precious.add(group)
            if n_bytes > self.limit or not self._make_room(n_bytes, precious):
                return False
            entries[key] = (value, n_bytes)
            self._held += n_bytes
            return True

    def take(self, group: str, key: Hashable) -> Any | None:
        """Return a kept value and stop keeping it: it can then be changed by its taker alone."""
        with self._lock:
            return self._remove(self._entries(group), key)

    def of(
        self, group: str, key: Hashable, make: Callable[[], T], n_bytes: Callable[[T], int]
    ) -> T:
        """Return the kept value, or make it and keep it if there is room."""
        value: T | None = self.get(group, key)
        if value is None:
            value = make()
            self.put(group, key, value, n_bytes(value))
        return value

    def forget(self, group: str) -> None:
        """Drop a group."""
        with self._lock:
            self._drop(group)

    def _entries(self, group: str) -> dict[Hashable, tuple[Any, int]]:
        """Return the entries of a group, which is thereby in use."""
        self._calls += 1
        self._used[group] = self._calls
        entries = self._groups.setdefault(group, {})
        self._groups.move_to_end(group)
        return entries

    def _remove(self, entries: dict[Hashable, tuple[Any, int]], key: Hashable) -> Any | None:
        value, n_bytes = entries.pop(key, (None, 0))
        self._held -= n_bytes
        return value

    def _make_room(self, n_bytes: int, precious: bool) -> bool:
        """Drop groups left behind, the longest first, until so many bytes fit; say if they do."""
        while self._held + n_bytes > self.limit:
            oldest = next(iter(self._groups))
            if self._calls - self._used[oldest] < IDLE_CALLS:
                return precious and self._take_room(n_bytes)
            self._drop(oldest)
        return True

    def _take_room(self, n_bytes: int) -> bool:
        """Drop single entries of groups that hold nothing precious; say if so many bytes fit then."""
        for group in [name for name in self._groups if name not in self._precious]:
            entries = self._groups[group]
            while entries and self._held + n_bytes > self.limit:
                self._remove(entries, next(reversed(entries)))
        return self._held + n_bytes <= self.limit

    def _drop(self, group: str) -> None:
        dropped = self._groups.pop(group, {})
        self._used.pop(group, None)
        self._precious.discard(group)
        self._held -= sum(size for _, size in dropped.values())


#: The cache of this process; `blocks.prepare_worker` sets its limit on workers.
CACHE = ByteCache(1024 * budget.MIB)
