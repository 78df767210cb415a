"""A program that holds many small objects, then few, then none; for `objcg bench memory`.

``_holder.py KIND N SEED SETTLE`` prints, as JSON, its resident memory in bytes at each of these
stages, SETTLE seconds after a free; ``_holder.py KIND N`` the bytes of N objects, as CPython asks
for them.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 0.1
"""The share of objects that is kept, drawn at random, when the others go."""


class Point:
    """An instance with two attributes."""

    def __init__(self, x: int, y: None) -> None:
        self.x = x
        self.y = y


# What they refer to is there already: small ints, None.
KINDS: dict[str, Callable[[int], object]] = {
    "ints": lambda i: 1_000 + i,
    "tuples": lambda i: (i & 255, None),
    "instances": lambda i: Point(i & 255, None),
    "dicts": lambda i: {"x": i & 255, "y": None},
    "strs": lambda i: "x" * (20 + i % 41),
}


def resident() -> int:
    """Return the bytes of resident memory; of a kernel without smaps_rollup, to some pages."""
    try:
        with open("/proc/self/smaps_rollup", encoding="utf-8") as file:
            (line,) = (line for line in file if line.startswith("Rss:"))
    except FileNotFoundError:
        with open("/proc/self/status", encoding="utf-8") as file:
            (line,) = (line for line in file if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def live(kind: str, n: int) -> int:
    """Return what n objects ask for, in bytes."""
    held: list[object] = [None] * n
    make = KINDS[kind]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for i in range(n):
        held[i] = make(i)
    after, _ = tracemalloc.get_traced_memory()
    return after - before


def stages(kind: str, n: int, seed: int, settle: float) -> dict[str, int]:
    """Go through the stages; return the resident memory at each, and how many objects were kept."""
    draw = random.Random(seed).random  # noqa: S311  # no secret
    make = KINDS[kind]
    # the collector costs time, and there is nothing to collect
    gc.disable()
    held: list[object] = [None] * n
    make(0)
    found = {"before": resident()}
    for i in range(n):
        held[i] = make(i)
    found["held"] = resident()
    kept = 0
    for i in range(n):
        if draw() < KEPT:
            kept += 1
        else:
            held[i] = None
    found["few"] = settled(settle)
    for i in range(n):
        held[i] = None
    found["none"] = settled(settle)
    return {**found, "kept": kept}


def settled(seconds: float) -> int:
    """Return the resident memory some time later, in which the program goes on a little.

    Some allocators return memory later, and only when they are called.
    """
    for _ in range(max(int(seconds / 0.05), 1)):
        time.sleep(0.05)
        for length in range(0, 1024, 16):
            bytes(length)
    gc.collect()
    return resident()


def main(kind: str, n: int, *how: str) -> None:
    """Print what was asked for."""
    answer: object = stages(kind, n, int(how[0]), float(how[1])) if how else live(kind, n)
    sys.stdout.write(f"{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
