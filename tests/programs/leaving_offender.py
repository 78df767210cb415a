"""Goes over its limit in the body of an `async with`, again and again.

The body ends right after the allocation, so that the first place where an error could come is
the end of the `async with`. The arguments: whose lock it is, on which thread, and how many times.
"""

import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import objcg

LIBRARY, WHERE, ROUNDS = sys.argv[1], sys.argv[2], int(sys.argv[3])
BLOCK = b"x" * 1000

library = importlib.import_module(LIBRARY)


async def allocate(entered: Callable[[], AbstractAsyncContextManager], held: list[bytes]) -> None:
    """Allocate while the lock is held, or in nurseries."""
    while True:
        async with entered():
            held += (BLOCK + BLOCK,)
        async with entered():
            held.append(bytes(2000))


async def main() -> None:
    """Be stopped so many times; end at the first lock that is not given back."""
    group = objcg.group("/offender", max="256K")
    lock = library.Lock()
    stopped = 0
    for turn in range(ROUNDS):
        held: list[bytes] = []
        nursery = LIBRARY == "trio" and turn % 2
        try:
            with group:
                await allocate(library.open_nursery if nursery else lambda: lock, held)
        except Exception as error:  # a nursery gives them in a group
            # a plain MemoryError is one of the ceiling, where another thread has got so far
            (inner,) = getattr(error, "exceptions", [error])
            stopped += isinstance(inner, MemoryError)
        if lock.locked():
            sys.exit(f"a lock is left after {stopped} errors")
        held.clear()
    print("stopped", stopped)


objcg.enable()
start = library.run if LIBRARY == "trio" else lambda fn: library.run(fn())
if WHERE == "main":
    start(main)
else:
    thread = threading.Thread(target=start, args=(main,))
    thread.start()
    thread.join()
print("drift", objcg.audit().drift)
