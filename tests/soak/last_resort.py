#!/usr/bin/env python3
"""The MemoryError that CPython raises when it cannot make one, and what it keeps.

CPython keeps 16 MemoryErrors ready.  While more than those are alive, 3.12 and 3.13 raise one and
the same object again and again, and never take its traceback away: each time adds another, with
all its frames and what their variables hold, for good.  Without objcg, too:

    python tests/soak/last_resort.py
"""

from __future__ import annotations

import gc
import sys
import types

READY = 16


def caught() -> MemoryError:
    """Return a MemoryError that the interpreter has raised."""
    try:
        bytearray(sys.maxsize - 64)
    except MemoryError as error:
        return error
    raise AssertionError


def last_resort() -> MemoryError | None:
    """Return the one that is raised again and again; None where each is another (3.10, 3.11)."""
    alive = [caught() for _ in range(READY + 2)]
    return alive[-1] if alive[-1] is alive[-2] else None


def tracebacks() -> int:
    gc.collect()
    return sum(isinstance(one, types.TracebackType) for one in gc.get_objects())


def main() -> None:
    alive = [caught() for _ in range(READY + 2)]
    before = tracebacks()
    for _ in range(1000):
        caught()
    print(f"{tracebacks() - before} tracebacks left of 1000 errors that nobody has any more")
    if alive[-1] is alive[-2]:
        alive[-1].__traceback__ = None
        print(f"{tracebacks() - before} once that of the last is taken away")


if __name__ == "__main__":
    main()
