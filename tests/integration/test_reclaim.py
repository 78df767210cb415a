"""Before an error is raised, memory is reclaimed; ``high`` only reclaims, ``low`` protects."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

import objcg

from .charges import MIB, RESIDUE, blocks, charge_of_items, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Caches = Callable[[objcg.Group], "Cache"]


class Cache:
    """A cache of one group, whose shrinker drops it."""

    def __init__(self, group: objcg.Group) -> None:
        self.group = group
        self.entries: list[bytes] = []
        self.asked: list[int] = []
        self.handle = objcg.register_shrinker(self.shrink, group)

    def fill(self, count: int) -> None:
        """Add entries of 1 KB, from within the group."""
        with self.group:
            self.entries += blocks(1000, count)

    def shrink(self, group: objcg.Group, nbytes: int) -> int:
        """Free all entries."""
        assert group == self.group or group.path == self.group.path.rpartition("/")[0]
        self.asked.append(nbytes)
        freed = charge_of_items(self.entries) if self.entries else 0
        self.entries.clear()
        return freed


@pytest.fixture
def caches() -> Iterator[Caches]:
    """Make caches whose shrinkers do not outlive the test: those of a removed group would."""
    made: list[Cache] = []

    def make(group: objcg.Group) -> Cache:
        made.append(Cache(group))
        return made[-1]

    yield make
    for cache in made:
        cache.handle.remove()


@pytest.fixture
def no_automatic_collection() -> Iterator[None]:
    """Keep the garbage collector from running by itself."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def overrun(group: objcg.Group, nbytes: int = 4 * MIB) -> None:
    """Run over the limit of a group, and catch the error."""
    held: list[bytes] = []
    with pytest.raises(objcg.MemoryLimitExceeded), group:
        for _ in range(nbytes // 1000):
            held.append(bytes(1000))


# ---- memory.max reclaims before it raises --------------------------------------------------------
def test_a_shrinker_that_frees_enough_prevents_the_error(
    fresh_group: objcg.Group, caches: Caches
) -> None:
    fresh_group.memory.max = 4 * MIB
    cache = caches(fresh_group)
    for _ in range(40):
        cache.fill(500)  # 20 MB in all.
    assert len(cache.asked) >= 3
    assert all(nbytes > 0 for nbytes in cache.asked)
    assert fresh_group.memory.events["raised"] == 0
    assert fresh_group.memory.events["max"] >= 3


def test_a_large_allocation_reclaims_before_it_is_refused(
    fresh_group: objcg.Group, caches: Caches
) -> None:
    """It fails at once, but makes room for the next."""
    fresh_group.memory.max = 4 * MIB
    cache = caches(fresh_group)
    cache.fill(3000)
    with pytest.raises(MemoryError), fresh_group:
        bytes(3 * MIB)
    assert eventually(lambda: cache.asked)
    assert eventually(lambda: fresh_group.memory.current < MIB)
    with fresh_group:
        assert len(bytes(3 * MIB)) == 3 * MIB


def test_a_shrinker_that_is_unregistered_is_not_called(
    fresh_group: objcg.Group, caches: Caches
) -> None:
    fresh_group.memory.max = MIB
    cache = caches(fresh_group)
    cache.handle.remove()
    overrun(fresh_group)
    assert cache.asked == []


def test_a_shrinker_that_fails_does_not_stop_the_others(
    fresh_group: objcg.Group, caches: Caches, caught_unraisable: list[BaseException]
) -> None:
    def fail(group: objcg.Group, nbytes: int) -> int:
        raise ZeroDivisionError(group.path, nbytes)

    fresh_group.memory.max = 4 * MIB
    handle = objcg.register_shrinker(fail, fresh_group)
    cache = caches(fresh_group)
    for _ in range(20):
        cache.fill(500)
    assert fresh_group.memory.events["raised"] == 0
    assert any(isinstance(error, ZeroDivisionError) for error in caught_unraisable)
    handle.remove()


@pytest.mark.usefixtures("no_automatic_collection", "frozen_heap")
def test_garbage_in_cycles_is_collected_before_an_error_is_raised(
    fresh_group: objcg.Group,
) -> None:
    fresh_group.memory.max = 2 * MIB
    with fresh_group:
        for _ in range(10_000):  # 20 MB in all.
            cycle: list[object] = [bytes(2000)]
            cycle.append(cycle)
    assert fresh_group.memory.events["raised"] == 0
    assert fresh_group.memory.events["max"] >= 5


@pytest.mark.usefixtures("no_automatic_collection")
def test_reclaim_frees_and_says_how_much(fresh_group: objcg.Group) -> None:
    with fresh_group:
        for _ in range(1000):
            cycle: list[object] = [bytes(2000)]
            cycle.append(cycle)
    before = fresh_group.memory.current
    freed = fresh_group.memory.reclaim(MIB)
    assert before > 2_000_000
    assert fresh_group.memory.current <= RESIDUE
    assert abs(freed - (before - fresh_group.memory.current)) <= RESIDUE


# ---- memory.high ---------------------------------------------------------------------------------
def test_high_calls_back_and_never_raises(fresh_group: objcg.Group) -> None:
    called, callers = threading.Event(), []

    def note(group: objcg.Group, event: str) -> None:
        callers.append((group, event, threading.get_ident()))
        called.set()

    fresh_group.memory.high = MIB
    handle = fresh_group.on("high", note)
    with fresh_group:
        held = blocks(1000, 3000)
    assert called.wait(20)
    group, event, thread = callers[0]
    assert (group, event) == (fresh_group, "high")
    assert thread != threading.get_ident(), "callbacks come from the reclaimer thread"
    assert fresh_group.memory.events["high"] >= 1
    assert fresh_group.memory.events["raised"] == fresh_group.memory.events["max"] == 0
    assert fresh_group.memory.current > 3_000_000
    handle.remove()
    del held


def test_high_reclaims(fresh_group: objcg.Group, caches: Caches) -> None:
    fresh_group.memory.high = MIB
    cache = caches(fresh_group)
    cache.fill(3000)
    assert eventually(lambda: cache.asked)
    assert eventually(lambda: fresh_group.memory.current < MIB)


def test_throttle_holds_a_coroutine_back_until_the_group_is_below_high(
    fresh_group: objcg.Group,
) -> None:
    fresh_group.memory.high = MIB
    held = fresh_group.run(blocks, 1000, 3000)
    order = []

    async def throttled() -> None:
        with fresh_group:
            order.append("waits")
            await fresh_group.throttle()
            order.append("goes on")

    async def main() -> None:
        task = asyncio.create_task(throttled())
        for _ in range(100):
            await asyncio.sleep(0)
        order.append("released")
        held.clear()
        await asyncio.wait_for(task, 20)

    asyncio.run(main())
    assert order == ["waits", "released", "goes on"]


# ---- memory.low ----------------------------------------------------------------------------------
def test_low_protects_from_reclaim_while_a_sibling_can_give(
    fresh_group: objcg.Group, caches: Caches
) -> None:
    protected = caches(objcg.group(f"{fresh_group.path}/protected", low="8M"))
    other = caches(objcg.group(f"{fresh_group.path}/other"))
    protected.fill(3000)
    other.fill(3000)
    freed = fresh_group.memory.reclaim(2 * MIB)
    assert freed >= 2 * MIB
    assert other.asked
    assert not protected.asked
    assert protected.group.memory.events["low"] == 0


def test_low_is_given_up_and_counted_when_nothing_else_is_left(
    fresh_group: objcg.Group, caches: Caches
) -> None:
    protected = caches(objcg.group(f"{fresh_group.path}/protected", low="8M"))
    protected.fill(3000)
    freed = fresh_group.memory.reclaim(2 * MIB)
    assert freed >= 2 * MIB
    assert protected.asked
    assert protected.group.memory.events["low"] >= 1


# ---- Events and callbacks ------------------------------------------------------------------------
def test_events_are_counted_in_the_ancestors_too(fresh_group: objcg.Group) -> None:
    child = objcg.group(f"{fresh_group.path}/child", max=MIB)
    other = objcg.group(f"{fresh_group.path}/other")
    overrun(child)
    assert child.memory.events["max"] >= 1
    assert child.memory.events["raised"] == 1
    for event in ("max", "raised"):
        assert fresh_group.memory.events[event] == child.memory.events[event]
        assert other.memory.events[event] == 0


@pytest.mark.parametrize("event", ["max", "raised", "empty"])
def test_a_callback_is_called_when_its_event_happens(fresh_group: objcg.Group, event: Any) -> None:
    called, others = threading.Event(), []
    fresh_group.on(event, lambda _group, _event: called.set())
    objcg.root.on("ceiling", lambda _group, name: others.append(name)).remove()
    fresh_group.memory.max = MIB
    overrun(fresh_group)
    assert called.wait(20)
    assert others == []


def test_a_callback_that_was_taken_back_is_not_called(fresh_group: objcg.Group) -> None:
    called = []
    second = threading.Event()
    fresh_group.memory.max = MIB
    fresh_group.on("raised", lambda group, _event: called.append(group)).remove()
    fresh_group.on("raised", lambda _group, _event: second.set())
    overrun(fresh_group)
    assert second.wait(20)
    assert called == []


@pytest.mark.parametrize("event", ["hihg", "", "low"])
def test_an_unknown_event_is_refused_by_name(fresh_group: objcg.Group, event: Any) -> None:
    with pytest.raises(ValueError, match=repr(event)):
        fresh_group.on(event, lambda _group, _event: None)
