"""Programs that use objcg itself, inside a group whose charges are refused.

That an error leaves everything as it was is said by an AssertionError of theirs.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc

import objcg

PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def same_group(before):
    if objcg.current_group() is not before:
        raise AssertionError(f"the group is {objcg.current_group().path}, and not {before.path}")


@program
def entering():
    """The group's own memory pays for going into others and for coming back."""
    here = objcg.current_group()
    below = objcg.group("/faults/program/below")
    beside = objcg.group("/faults/beside")
    copies = [contextvars.copy_context() for _ in range(3)]
    try:
        with below:
            with beside, below:
                held = [bytes(100) for _ in range(10)]
            same_group(below)
            copies[0].run(objcg.current_group)
            copies.append(contextvars.copy_context())  # from here on a cell is shared
            with beside:
                held.append("x" * 100)
    finally:
        same_group(here)
    copies[1].run(enter_and_leave, beside)
    beside.run(bytes, 1000)
    beside(lambda: bytes(1000))()
    same_group(here)


def enter_and_leave(group):
    before = objcg.current_group()
    try:
        with group:
            pass
    finally:
        same_group(before)


@program
def steering():
    """Root pays for groups; for what is read of them, whoever reads."""
    group = objcg.group("/faults/program/made/deep", max="1G", high="900M")
    try:
        with group:
            data = bytes(100_000)
        memory = group.memory
        assert memory.current >= 100_000
        assert memory.stat["object"]
        assert memory.events["max"] == 0
        memory.low, memory.max = "1M", None
        memory.reset_peak()
        assert objcg.owner(data) is group
        assert repr(group)
        assert repr(memory)
        handles = [group.on("empty", print), objcg.register_shrinker(shrink, group)]
        memory.reclaim("1K")
        for handle in handles:
            handle.remove()
        assert objcg.audit().drift == 0
        assert objcg.current_task().id
    finally:
        remove(group)
        remove(group.parent)


def shrink(_group, _nbytes):
    return 0


def remove(group):
    """As a program that must succeed would: what the group has for cleaning up may be used up."""
    for _ in range(3):
        try:
            return group.remove(force=True)
        except MemoryError:
            pass
        except objcg.GroupRemoved:
            return None
    return None


@program
def moving():
    here = objcg.current_group()
    other = objcg.group("/faults/beside")

    async def step():
        with objcg.group("/faults/program/below"):
            task = objcg.current_task()
            await asyncio.sleep(0)
            task.move(other)
            held = [bytes(1000) for _ in range(5)]
            await asyncio.sleep(0)
            task.move(here)
            return len(held)

    async def both():
        return await asyncio.gather(step(), step())

    try:
        assert asyncio.run(both()) == [5, 5]
    finally:
        same_group(here)
        gc.collect()
