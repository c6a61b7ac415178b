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


class ByteCache:
    """Keep values up to a number of bytes, by group.

    Blocks are visited in cycles, so throwing out the oldest entry would always throw out the one
    needed next. A group therefore keeps what came first and refuses the rest; only entries of
    groups that have not been used for longer make room.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._groups: OrderedDict[str, dict[Hashable, tuple[Any, int]]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Return the bytes held."""
        return self._held

    def get(self, group: str, key: Hashable) -> Any | None:
        """Return a kept value, or None."""
        with self._lock:
            entries = self._groups.get(group)
            if entries is None:
                return None
            self._groups.move_to_end(group)
            entry = entries.get(key)
            return None if entry is None else entry[0]

    def put(self, group: str, key: Hashable, value: Any, n_bytes: int) -> bool:
        """Keep a value if there is room, or room can be made from other groups; say whether it is kept."""
        with self._lock:
            entries = self._groups.setdefault(group, {})
            self._groups.move_to_end(group)
            old = entries.pop(key, None)
            if old is not None:
                self._held -= old[1]
            while self._held + n_bytes > self.limit and len(self._groups) > 1:
                _, dropped = self._groups.popitem(last=False)
                self._held -= sum(size for _, size in dropped.values())
            if self._held + n_bytes > self.limit:
                return False
            entries[key] = (value, n_bytes)
            self._held += n_bytes
            return True

    def take(self, group: str, key: Hashable) -> Any | None:
        """Return a kept value and stop keeping it: it can then be changed by its taker alone."""
        with self._lock:
            entry = self._groups.get(group, {}).pop(key, None)
            if entry is None:
                return None
            self._held -= entry[1]
            return entry[0]

    def of(self, group: str, key: Hashable, make: Callable[[], T], n_bytes: Callable[[T], int]) -> T:
        """Return the kept value, or make it and keep it if there is room."""
        value: T | None = self.get(group, key)
        if value is None:
            value = make()
            self.put(group, key, value, n_bytes(value))
        return value

    def forget(self, group: str) -> None:
        """Drop a group."""
        with self._lock:
            dropped = self._groups.pop(group, {})
            self._held -= sum(size for _, size in dropped.values())


#: The cache of this process; `blocks.prepare_worker` sets its limit on workers.
CACHE = ByteCache(1024 * budget.MIB)
