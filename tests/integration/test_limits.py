"""``memory.max``: who runs over it gets an error it can catch, and nobody else notices."""

from __future__ import annotations

import gc
import itertools
from collections import deque
from pathlib import Path

import pytest

import objcg

from .charges import MIB, blocks, ceiling, charge_of_items, eventually, fill, resident
from .programs import run_checked


# ---- A large allocation --------------------------------------------------------------------------
def test_a_large_allocation_over_max_is_refused_before_memory_is_taken(
    fresh_group: objcg.Group,
) -> None:
    fresh_group.memory.max = "8M"
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Makes VmHWM start anew.
    resident_before, charged_before = resident("VmHWM"), fresh_group.memory.current
    refused = None
    with fresh_group:
        try:
            b"x" * (256 * MIB)
        except MemoryError as error:
            refused = type(error)
    assert refused is MemoryError
    assert fresh_group.memory.current - charged_before <= 4096
    assert resident("VmHWM") - resident_before < 16 * MIB
    assert fresh_group.memory.events["max"] >= 1


def test_the_refusal_of_a_large_allocation_leaves_the_group_usable(
    fresh_group: objcg.Group,
) -> None:
    fresh_group.memory.max = "8M"
    with fresh_group:
        for _ in range(1000):
            with pytest.raises(MemoryError):
                bytes(9 * MIB)
            assert len(bytes(7 * MIB)) == 7 * MIB
    assert fresh_group.memory.peak <= 8 * MIB


def test_an_allocation_that_fits_exactly_is_granted(fresh_group: objcg.Group) -> None:
    """No room is lost to stocks: near the limit exactly what is asked for is charged."""
    fresh_group.memory.max = MIB
    with fresh_group:
        room = MIB - fresh_group.memory.current
        held = bytes(room - 4096)
    assert len(held) == room - 4096


def test_growing_a_list_past_the_limit_fails_and_leaves_the_list_whole(
    fresh_group: objcg.Group,
) -> None:
    fresh_group.memory.max = MIB
    items: list[None] = []
    with pytest.raises(MemoryError), fresh_group:
        for _ in range(MIB):
            items.append(None)
    assert 0 < len(items) * 8 <= MIB
    assert set(items) == {None}


# ---- Whose limit, and which ----------------------------------------------------------------------
def test_the_error_names_the_ancestor_whose_limit_it_is(fresh_group: objcg.Group) -> None:
    fresh_group.memory.max = MIB
    child = objcg.group(f"{fresh_group.path}/child/grandchild", max="1G")
    held: list[bytes] = []
    caught = None
    with child:
        task = objcg.current_task()
        try:
            fill(held, 4 * MIB)
        except objcg.MemoryLimitExceeded as error:
            caught = error.with_traceback(None)
            held.clear()
    assert caught is not None
    assert caught.group == fresh_group
    assert caught.task == task
    assert caught.limit == MIB
    assert caught.usage > MIB


def test_max_set_below_what_is_charged_stops_the_next_allocation(
    fresh_group: objcg.Group,
) -> None:
    held: list[bytes] = []
    with fresh_group:
        fill(held, 2 * MIB)
    fresh_group.memory.max = MIB
    assert fresh_group.memory.current > MIB
    with pytest.raises(MemoryError), fresh_group:
        bytes(MIB)
    with pytest.raises(objcg.MemoryLimitExceeded), fresh_group:
        fill(held, MIB)
    fresh_group.memory.max = None
    with fresh_group:
        fill(held, 2 * MIB)


def test_the_ceiling_stops_c_code_that_never_checks_for_exceptions(
    fresh_group: objcg.Group,
) -> None:
    limit = MIB
    fresh_group.memory.max = limit
    # 144 MB in small blocks, kept by the other end of the tee, and not one eval-breaker.
    ahead, behind = itertools.tee(map(bytes, itertools.repeat(100, 1_000_000)))
    with pytest.raises(MemoryError), fresh_group:
        all(ahead)
    del ahead, behind
    assert limit < fresh_group.memory.peak <= ceiling(limit)
    assert fresh_group.memory.events["ceiling"] >= 1


def test_a_neighbour_can_allocate_while_an_offender_stands_at_its_ceiling(
    fresh_group: objcg.Group,
) -> None:
    full = objcg.group(f"{fresh_group.path}/full", max=MIB)
    held: deque[bytes] = deque()
    with pytest.raises(MemoryError), full:
        held.extend(map(bytes, itertools.repeat(100, 1_000_000)))
    with objcg.group(f"{fresh_group.path}/other"):
        other = blocks(1000, 10_000)
    assert len(other) == 10_000


# ---- The reserve ---------------------------------------------------------------------------------
def test_the_reserve_lets_the_handler_work(fresh_group: objcg.Group) -> None:
    """Of max / 16, at least 64 KiB and at most 1 MiB."""
    fresh_group.memory.max = MIB
    held: list[bytes] = []
    report: list[bytes] = []
    with fresh_group:
        try:
            fill(held, 4 * MIB)
        except objcg.MemoryLimitExceeded:
            report = blocks(100, 300)
            assert fresh_group.memory.current > MIB, "it is still over: only the reserve helps"
    assert charge_of_items(report) > 40_000
    assert len(report) == 300


def test_who_uses_up_the_reserve_is_stopped_again(fresh_group: objcg.Group) -> None:
    fresh_group.memory.max = MIB
    held: list[bytes] = []
    errors = 0
    for _ in range(3):
        try:
            with fresh_group:
                fill(held, MIB * 2)
        except objcg.MemoryLimitExceeded:
            errors += 1
    assert errors == 3
    assert fresh_group.memory.current <= ceiling(MIB)


def test_a_group_that_stays_over_its_limit_does_not_creep_up_to_its_ceiling(
    fresh_group: objcg.Group,
) -> None:
    """The reserve is for handling an error, not for the requests that come after it."""
    limit = 4 * MIB
    fresh_group.memory.max = limit
    leaked: list[bytes] = []
    refused = 0
    for _ in range(500):
        try:
            with fresh_group:
                leaked += blocks(1000, 20)
        except objcg.MemoryLimitExceeded:
            refused += 1
    assert refused > 250
    # One reserve, and what a request allocates before it is interrupted or a stock holds.
    assert fresh_group.memory.peak <= limit + limit // 16 + 128 * 1024


def test_no_error_comes_once_the_group_is_below_its_limit_again(fresh_group: objcg.Group) -> None:
    fresh_group.memory.max = 4 * MIB
    held: list[bytes] = []
    with fresh_group:
        for _ in range(20):
            with pytest.raises(objcg.MemoryLimitExceeded):
                fill(held, 16 * MIB)
            held.clear()
            gc.collect(0)
            fill(held, 3 * MIB)
            held.clear()
    assert eventually(lambda: fresh_group.memory.current < MIB)


# ---- The reclaimer -------------------------------------------------------------------------------
def test_threads_that_set_the_first_limit_at_once_all_return() -> None:
    """Each starts the reclaimer, and waits until it runs."""
    words = run_checked("""
        import sys, threading
        import objcg
        objcg.enable()
        sys.setswitchinterval(1e-6)
        barrier = threading.Barrier(16)
        def limit(number):
            barrier.wait()
            objcg.group(f"/{number}", max="8M")
        threads = [threading.Thread(target=limit, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        print(sum(thread.is_alive() for thread in threads), objcg.group("/3").memory.max)
        print(objcg.audit().drift)
    """)
    assert words == ["0", str(8 * MIB), "0"]
