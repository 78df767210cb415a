"""Tasks that set no limit, run until one is stopped from outside.

Each holds up to 2 MiB, and more once there is a limit.

The argument says where the tasks of /a and /b run: "main" (/a alone), "thread", "asyncio",
"asyncio-in-a-thread", or "forked" (on threads of a child). With a second argument, /a has so many
MiB besides, which it does not give back before it is stopped.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

import objcg

HELD = 2 << 20
BLOCK = 500

objcg.enable()
stopped = threading.Event()
ballast = []


class Holder:
    """Fills and empties its group, a block in each step."""

    def __init__(self, path):
        self.path = path
        self.held = []

    def step(self):
        self.held.append(bytes(BLOCK))
        if len(self.held) * BLOCK > HELD and objcg.group(self.path).memory.max is None:
            self.held.clear()

    def report(self, error):
        self.held.clear()
        ballast.clear()
        stopped.set()
        if isinstance(error, objcg.MemoryLimitExceeded):
            print(type(error).__name__, error.group.path, error.limit, flush=True)
        else:
            print(type(error).__name__, flush=True)


def drive(path):
    holder = Holder(path)
    try:
        with objcg.group(path):
            # not "while not stopped.is_set()": CPython 3.13 leaves the jump back of such a loop out
            # of its exception table, and what is raised there passes "with" and "except" by
            while True:
                if stopped.is_set():
                    break
                holder.step()
                time.sleep(0)
    except MemoryError as error:
        holder.report(error)


async def drive_async(path):
    holder = Holder(path)
    try:
        with objcg.group(path):
            while True:
                if stopped.is_set():
                    break
                holder.step()
                await asyncio.sleep(0)
    except MemoryError as error:
        holder.report(error)


async def drive_both():
    await asyncio.gather(drive_async("/a"), drive_async("/b"))


def on_threads(paths):
    threads = [threading.Thread(target=drive, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(where):
    if where == "forked" and (child := os.fork()):
        os.waitpid(child, 0)
        return
    objcg.group("/a")
    objcg.group("/b")
    with objcg.group("/a"):
        ballast.extend(bytes(1 << 20) for _ in range(int(sys.argv[2]) if sys.argv[2:] else 0))
    print(os.getpid(), flush=True)
    if where == "main":
        drive("/a")
    elif where in {"thread", "forked"}:
        on_threads(["/a", "/b"])
    elif where == "asyncio":
        asyncio.run(drive_both())
    else:
        thread = threading.Thread(target=lambda: asyncio.run(drive_both()))
        thread.start()
        thread.join()
    print(objcg.audit().drift, flush=True)


main(sys.argv[1])
