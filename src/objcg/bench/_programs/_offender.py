"""A task that runs into its limit, in one of several ways; for `objcg bench limits`.

objcg does not interrupt its own code, so this is loaded under a name outside the package.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from array import array
from collections import deque
from itertools import pairwise, repeat, starmap
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import objcg

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 2
"""How many times the limit is allocated at most, if nothing stops it."""
NEIGHBOURS = 4
"""How many tasks take turns with the offender."""


def charge(nbytes: int) -> int:
    """Return what a block of that many bytes counts as."""
    return -(-nbytes // 16) * 16


class Offender:
    """One way to the limit, and over it."""

    def __init__(self, limit: int, length: int) -> None:
        self.limit = limit
        self.length = length
        self.charge = charge(sys.getsizeof(bytes(length)))
        self.most = MOST * limit // self.charge
        # made at root: neither is charged to the group
        self.held: list[object] = [None] * self.most
        self.stamps = array("q", bytes(8 * self.most))
        self.group = objcg.group("/bench", max=limit)
        self.before = 0
        self.more = 0
        """What is charged beside the blocks."""
        self.count = 0
        self.end: int | None = None
        self.error = ""
        self.path = ""
        self.neighbour_errors: list[str] = []

    def begin(self) -> None:
        """Note where the task is, in the group."""
        self.path = objcg.current_group().path
        self.before = self.group.memory.current

    def stopped(self, error: MemoryError, end: int) -> None:
        """Note the error."""
        self.end = end
        self.error = type(error).__name__

    def result(self) -> dict[str, Any]:
        """Return what was measured, and remove the group."""
        peak = self.group.memory.peak
        stamps = self.stamps[: self.count + 1]
        while stamps and not stamps[-1]:
            stamps.pop()
        # the block with which the charge is above the limit, as all are of one size; if there was
        # none, what was refused is what crossed it
        crossing = (self.limit - self.before - self.more) // self.charge
        at = min(crossing, len(stamps) - 1)
        ns = None if self.end is None else self.end - stamps[at]
        some = stamps[max(at - 1000, 0) : at + 1]
        steps = sorted(later - sooner for sooner, later in pairwise(some))
        counted = self.before + self.more + self.count * self.charge
        self.held.clear()
        gc.collect()
        self.group.remove()
        return {
            "ns": ns,
            "step_ns": steps[len(steps) // 2] if steps else None,
            "overshoot": max(peak - self.limit, 0),
            "blocks": max(self.count - crossing, 0),
            "block": self.charge,
            "unexplained": abs(peak - counted),
            "error": self.error,
            "group": self.path,
            "neighbour_errors": self.neighbour_errors,
        }


def measure(name: str, limit: int, length: int) -> dict[str, Any]:
    """Run into the limit in the way that is called so; return what was seen."""
    gc.collect()
    offender = Offender(limit, length)
    WAYS[name](offender)
    return offender.result()


# The error is caught outside the group: inside, the task could be interrupted again as soon as the
# handler has ended, since what was allocated is still there.


def large(offender: Offender) -> None:
    """One allocation that is larger than the limit."""
    offender.charge = 2 * offender.limit
    try:
        with offender.group:
            offender.begin()
            offender.stamps[0] = perf_counter_ns()
            bytes(offender.charge)
    except MemoryError as error:
        offender.stopped(error, perf_counter_ns())


def small(offender: Offender) -> None:
    """One small block after the other, until an error stops it."""
    held, stamps, length = offender.held, offender.stamps, offender.length
    i = 0
    try:
        with offender.group:
            offender.begin()
            for i in range(offender.most):
                stamps[i] = perf_counter_ns()
                held[i] = bytes(length)
    except MemoryError as error:
        offender.stopped(error, perf_counter_ns())
    offender.count = i


def one_call(offender: Offender) -> None:
    """One call of C code, which comes to no place where the interpreter looks for what is pending.

    The blocks are ints: the times at which they are made.
    """
    offender.charge = charge(sys.getsizeof(perf_counter_ns()))
    offender.most = MOST * offender.limit // offender.charge
    offender.held = [None] * offender.most
    try:
        with offender.group:
            offender.begin()
            stamps = starmap(perf_counter_ns, repeat(()))
            deque(map(offender.held.__setitem__, range(offender.most), stamps), maxlen=0)
    except MemoryError as error:
        offender.stopped(error, perf_counter_ns())
    use_held(offender, offender.held)


def one_list(offender: Offender) -> None:
    """The same, into a list that grows."""
    offender.charge = charge(sys.getsizeof(perf_counter_ns()))
    held: list[int] = []
    try:
        with offender.group:
            offender.begin()
            held.extend(starmap(perf_counter_ns, repeat(())))
    except MemoryError as error:
        offender.stopped(error, perf_counter_ns())
    # the array as it was since it grew last: growing above the limit is what fails
    offender.more = charge(sys.getsizeof(held) - sys.getsizeof([]))
    use_held(offender, held)


def use_held(offender: Offender, held: list[Any]) -> None:
    """Take the times from the blocks."""
    offender.stamps = array("q", (stamp for stamp in held if stamp is not None))
    offender.count = len(offender.stamps)


def thread(offender: Offender) -> None:
    """`small`, on another thread, while the main thread waits."""
    started = threading.Thread(target=small, args=(offender,))
    started.start()
    started.join()


def thread_busy(offender: Offender) -> None:
    """`small`, on another thread, while the main thread computes in another group."""
    started = threading.Thread(target=small, args=(offender,))
    started.start()
    try:
        with objcg.group("/neighbour"):
            while started.is_alive():
                sum(range(100))
    except MemoryError as error:
        offender.neighbour_errors.append(type(error).__name__)
    started.join()


def task(offender: Offender) -> None:
    """One of several asyncio tasks, that lets the others go on after every ten blocks."""

    async def offend() -> None:
        held, stamps, length = offender.held, offender.stamps, offender.length
        i = 0
        try:
            with offender.group:
                offender.begin()
                for i in range(offender.most):
                    stamps[i] = perf_counter_ns()
                    held[i] = bytes(length)
                    if i % 10 == 0:
                        await asyncio.sleep(0)
        except MemoryError as error:
            offender.stopped(error, perf_counter_ns())
        offender.count = i

    async def neighbour(ended: list[bool]) -> None:
        with objcg.group("/neighbour"):
            try:
                while not ended:
                    bytes(offender.length)
                    await asyncio.sleep(0)
            except MemoryError as error:
                offender.neighbour_errors.append(type(error).__name__)

    async def all_of_them() -> None:
        ended: list[bool] = []
        beside = [asyncio.create_task(neighbour(ended)) for _ in range(NEIGHBOURS)]
        await asyncio.create_task(offend())
        ended.append(True)
        await asyncio.gather(*beside)

    asyncio.run(all_of_them())


WAYS: dict[str, Callable[[Offender], None]] = {
    "large": large,
    "main": small,
    "thread": thread,
    "thread-busy": thread_busy,
    "task": task,
    "call": one_call,
    "call-list": one_list,
}
