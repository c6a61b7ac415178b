"""What a worker keeps between tasks."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from vehclust_dask.cache import ByteCache

GROUPS = ("a", "b", "c")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "take", "forget"]),
            st.sampled_from(GROUPS),
            st.integers(0, 5),
            st.integers(0, 60),
        ),
        max_size=60,
    )
)
def test_byte_cache__never_holds_more_than_its_limit(
    calls: list[tuple[str, str, int, int]],
) -> None:
    cache = ByteCache(100)
    put: dict[tuple[str, int], int] = {}
    for what, group, key, size in calls:
        if what == "put":
            put[group, key] = size
            kept = cache.put(group, key, size, size)
            assert (cache.get(group, key) == size) == kept
        elif what == "forget":
            cache.forget(group)
        else:
            found = cache.get(group, key) if what == "get" else cache.take(group, key)
            assert found is None or found == put[group, key]
        held = [cache.get(g, k) for g in GROUPS for k in range(6)]
        assert cache.held == sum(v for v in held if v is not None) <= cache.limit


def test_byte_cache__keeps_what_came_first_of_a_cycle() -> None:
    cache = ByteCache(3)
    made: list[int] = []

    def read(i: int) -> int:
        made.append(i)
        return i * 10

    for _ in range(4):
        values = [cache.of("blocks", i, lambda i=i: read(i), lambda _: 1) for i in range(5)]
        assert values == [0, 10, 20, 30, 40]
    assert made == [0, 1, 2, 3, 4] + 3 * [3, 4]


def test_byte_cache__take_gives_a_value_once() -> None:
    cache = ByteCache(10)
    cache.put("states", 1, "state", 4)
    assert cache.take("states", 1) == "state"
    assert cache.take("states", 1) is None
    assert cache.take("nothing", 1) is None
    assert cache.held == 0


def test_byte_cache__a_group_left_behind_makes_room() -> None:
    cache = ByteCache(4)
    for i in range(4):
        cache.put("old fit", i, i, 1)
    for _ in range(20):
        for i in range(4):
            if cache.take("new fit", i) is None:
                pass
            cache.put("new fit", i, i, 1)
    assert [cache.get("new fit", i) for i in range(4)] == [0, 1, 2, 3]
    assert cache.get("old fit", 0) is None


def test_byte_cache__groups_in_use_side_by_side_do_not_drive_each_other_out() -> None:
    cache = ByteCache(10)
    hits = 0
    for _ in range(20):
        for i in range(8):
            hits += cache.get("blocks", i) is not None
            cache.of("blocks", i, lambda: "block", lambda _: 1)
            hits += cache.take("states", i) is not None
            cache.put("states", i, "state", 1)
    # Ten of the sixteen fit: after the first of twenty cycles they must be found.
    assert hits >= 0.9 * 19 * 10


def test_byte_cache__a_value_too_large_drives_nothing_out() -> None:
    cache = ByteCache(10)
    cache.put("a", 1, "kept", 5)
    assert not cache.put("b", 1, "too large", 11)
    assert cache.get("a", 1) == "kept"


def test_byte_cache__replaces_a_value_and_its_size() -> None:
    cache = ByteCache(10)
    cache.put("a", 1, "long", 9)
    assert cache.put("a", 1, "short", 2)
    assert cache.held == 2
    assert cache.get("a", 1) == "short"


def test_byte_cache__counts_right_when_threads_share_it() -> None:
    cache = ByteCache(50)

    def work(seed: int) -> None:
        for i in range(2000):
            group, key = GROUPS[(seed + i) % 3], i % 7
            if i % 3:
                cache.put(group, key, i, 1 + i % 5)
            else:
                cache.take(group, key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for group in GROUPS:
        cache.forget(group)
    assert cache.held == 0


def test_byte_cache__precious_values_take_the_room_of_others_in_use() -> None:
    cache = ByteCache(10)
    for i in range(5):
        assert cache.put("rows", i, i, 2)
    assert not cache.put("states", 0, "full", 4)
    assert cache.put("states", 0, "light", 3, precious=True)
    assert [cache.get("rows", i) for i in range(5)] == [0, 1, 2, None, None]
    # Nothing precious gives way to another; a value too large for all room is not kept.
    assert cache.put("states", 1, "light", 7, precious=True)
    assert not cache.put("states", 2, "light", 1, precious=True)
    assert cache.get("states", 0) == "light"
    assert cache.get("states", 1) == "light"
    assert cache.held == 10
    cache.forget("states")
    assert cache.put("rows", 9, 9, 10)
