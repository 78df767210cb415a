"""One task or thread over its limit, among many that are not: only it is stopped.

OBJCG_TEST_ROUNDS says how many times each is tried: 100, in a long run 1000.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import time
from collections import deque

import pytest

import objcg

from .charges import MIB, ceiling, fill
from .programs import run

ROUNDS = int(os.environ.get("OBJCG_TEST_ROUNDS", "100"))


async def neighbour(group: objcg.Group, number: int) -> int:
    """Work with small objects at every turn; return a figure that shows that all was done."""
    done = 0
    with group:
        for turn in range(20):
            objects = [(number, turn, item) for item in range(10)]
            await asyncio.sleep(0)
            done += len({item for _, _, item in objects})
    return done


async def offender(group: objcg.Group, held: list[bytes]) -> objcg.MemoryLimitExceeded:
    """Allocate, awaiting now and then, until the limit stops it."""
    with group:
        try:
            for _ in range(1000):
                fill(held, 20_000)
                await asyncio.sleep(0)
        except objcg.MemoryLimitExceeded as error:
            held.clear()
            return error.with_traceback(None)
    pytest.fail("the offender was not stopped")


@pytest.mark.usefixtures("frozen_heap")
def test_one_offender_among_50_tasks_of_an_event_loop(fresh_group: objcg.Group) -> None:
    limit = 256 * 1024
    groups = [objcg.group(f"{fresh_group.path}/{number}", max=limit) for number in range(50)]

    async def play(chosen: int) -> list[int | objcg.MemoryLimitExceeded]:
        held: list[bytes] = []
        return await asyncio.gather(
            *(
                offender(group, held) if number == chosen else neighbour(group, number)
                for number, group in enumerate(groups)
            )
        )

    async def play_all() -> None:
        for turn in range(ROUNDS):
            chosen = turn * 7 % 50
            results = await asyncio.wait_for(play(chosen), 60)
            error = results.pop(chosen)
            assert isinstance(error, objcg.MemoryLimitExceeded)
            assert error.group == groups[chosen]
            assert error.limit == limit
            assert error.usage > limit
            assert results == [200] * 49
            assert groups[chosen].memory.peak <= ceiling(limit)
            groups[chosen].memory.reset_peak()

    asyncio.run(play_all())
    assert fresh_group.memory.events["raised"] == ROUNDS


@pytest.mark.parametrize("how", ["enter", "inherit"])
def test_an_offender_that_awaits_at_every_step_does_not_hang_its_event_loop(how: str) -> None:
    """In a process of its own, as an event loop that has lost a task cannot be left either."""
    result = run([sys.executable, "awaiting_offender.py", how, str(ROUNDS)])
    assert result.stderr == ""
    assert result.stdout.split() == ["stopped", str(ROUNDS)]


@pytest.mark.parametrize(
    ("library", "where"),
    [("asyncio", "main"), ("asyncio", "thread"), ("trio", "main"), ("trio", "thread")],
)
def test_an_async_with_ends_where_its_body_went_over_the_limit(library: str, where: str) -> None:
    """The error comes after its end, or the lock would stay locked, and trio would break down."""
    # 3.10 may leave what an __aenter__ was about to await, and warns of that
    python = [sys.executable, "-W", "ignore::RuntimeWarning"]
    result = run([*python, "leaving_offender.py", library, where, str(ROUNDS)])
    assert result.stderr == ""
    assert result.stdout.split() == ["stopped", str(ROUNDS), "drift", "0"]


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_tasks_of_an_event_loop_in_a_thread_are_stopped_below_the_ceiling(
    library: str, fresh_group: objcg.Group
) -> None:
    """Nearly all of what such a thread runs is the event loop's, where nothing may be raised."""
    loop = pytest.importorskip(library)
    fresh_group.memory.max = 4 * MIB
    stopped: list[type[BaseException]] = []
    interval = sys.getswitchinterval()

    async def offend() -> None:
        held: deque[bytes] = deque()  # in small blocks, unlike a list
        try:
            with fresh_group:
                while True:
                    held.append(bytes(100))
                    await loop.sleep(0)
        except MemoryError as error:
            stopped.append(type(error))

    async def main() -> None:
        for _ in range(10):
            await offend()

    start = loop.run if library == "trio" else lambda fn: loop.run(fn())
    thread = threading.Thread(target=start, args=(main,))
    thread.start()
    thread.join()
    events = fresh_group.memory.events
    assert stopped == [objcg.MemoryLimitExceeded] * 10
    assert (events["raised"], events["ceiling"]) == (10, 0)
    # what was shortened for it is put back: at once, or where the last look is still going on
    deadline = time.monotonic() + 10
    while sys.getswitchinterval() != interval and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sys.getswitchinterval() == interval


@pytest.mark.usefixtures("frozen_heap")
def test_one_offender_among_8_threads(fresh_group: objcg.Group) -> None:
    limit = 256 * 1024
    groups = [objcg.group(f"{fresh_group.path}/{number}", max=limit) for number in range(8)]

    def offend(group: objcg.Group, outcome: list[object]) -> None:
        # The blocks are held and the error is caught outside of the group. There no second error
        # can arrive, from a reclaimer that saw the group while this thread stood at the ceiling.
        held: list[bytes] = []
        try:
            with group:
                fill(held, 64 * MIB)
        except MemoryError as error:
            outcome.append(type(error))
        held.clear()

    def work(group: objcg.Group, stop: threading.Event, outcome: list[object]) -> None:
        done = 0
        with group:
            while not stop.is_set():
                objects = [(done, item) for item in range(100)]
                done += len(objects)
        outcome.append(done)

    for turn in range(ROUNDS):
        chosen = turn % 8
        stop = threading.Event()
        outcomes: list[list[object]] = [[] for _ in groups]
        threads = [
            threading.Thread(target=offend, args=(group, outcome))
            if number == chosen
            else threading.Thread(target=work, args=(group, stop, outcome))
            for number, (group, outcome) in enumerate(zip(groups, outcomes, strict=True))
        ]
        for thread in threads:
            thread.start()
        threads[chosen].join(60)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        (stopped_by,) = outcomes.pop(chosen)
        assert stopped_by in (objcg.MemoryLimitExceeded, MemoryError)
        assert all(len(outcome) == 1 and isinstance(outcome[0], int) for outcome in outcomes)
        assert groups[chosen].memory.peak <= ceiling(limit)
        groups[chosen].memory.reset_peak()


def test_a_thread_that_pauses_over_its_limit_is_raised_in_by_the_reclaimer(
    fresh_group: objcg.Group,
) -> None:
    """Not the ceiling: it allocates little, and then runs on without allocating."""
    fresh_group.memory.max = MIB
    outcome: list[BaseException] = []

    def work() -> None:
        held: list[bytes] = []
        try:
            with fresh_group:
                fill(held, MIB + 64 * 1024)
                for _ in itertools.repeat(None, 2_000_000_000):
                    pass
        except MemoryError as error:
            outcome.append(error.with_traceback(None))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    (error,) = outcome
    assert isinstance(error, objcg.MemoryLimitExceeded)
    assert error.group == fresh_group
    assert error.limit == MIB
    assert error.usage > MIB
    assert fresh_group.path in str(error)
