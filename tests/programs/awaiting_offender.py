"""Runs over its limit, again and again, in tasks that await at every step.

What runs in a task's context is not only its own code: the event loop's also is. An error that
comes there is lost, and with it the turn of the task, or the news of its end: then a task waits
for ever. The arguments: how the tasks get into the group, and how many times.
"""

import asyncio
import os
import sys

import objcg


async def allocate(held: list[bytes]) -> None:
    """Allocate a little, await, and so on."""
    for _ in range(100_000):
        held.append(bytes(20))
        await asyncio.sleep(0)


async def enter_and_allocate(group: objcg.Group, held: list[bytes]) -> None:
    """Allocate in the group."""
    with group:
        await allocate(held)


async def main() -> None:
    """Try many times; end at the first task that does not end."""
    group = objcg.group("/offender", max="64K")
    stopped = 0
    for _ in range(int(sys.argv[2])):
        held: list[bytes] = []
        if sys.argv[1] == "inherit":
            with group:
                task = asyncio.create_task(allocate(held))
        else:
            task = asyncio.create_task(enter_and_allocate(group, held))
        done, _ = await asyncio.wait({task}, timeout=10)
        if not done:
            print(f"a task hangs after {stopped} others were stopped", file=sys.stderr, flush=True)
            os._exit(1)
        stopped += isinstance(task.exception(), objcg.MemoryLimitExceeded)
        held.clear()
    print("stopped", stopped)


objcg.enable()
asyncio.run(main())
