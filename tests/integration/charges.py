"""What the tests expect a group to be charged: computed from sizes, independent of objcg.

The rule: a block is charged with the bytes it occupies, its size rounded up to a multiple of 16.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ALIGNMENT = 16
BYTES_HEADER = sys.getsizeof(b"")  # With the NUL that ends it. Bytes have no collector's header.
EMPTY_LIST = sys.getsizeof([])
POINTER = 8
MIB = 1 << 20

RESIDUE = 16 * 1024
"""What may stay charged after everything was released, in bytes.

CPython keeps some blocks of dead objects in free lists and makes some once per piece of code that
runs (3.10: the opcode caches of a hot function; all: entries of type and attribute caches). A full
collection empties the free lists, hence the rest: what the interpreter keeps of the handful of
functions that a test runs inside a group, well under 100 blocks of at most 160 bytes.
"""


def charge(size: int) -> int:
    """Return what a block of this many bytes is charged with."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def charge_of_bytes(length: int) -> int:
    """Return what a bytes object of this length, 2 or more, is charged with."""
    return charge(BYTES_HEADER + length)


def charge_of_items(items: list[bytes]) -> int:
    """Return what the pointers of a list and the bytes objects in it are charged with."""
    pointers = charge(sys.getsizeof(items) - EMPTY_LIST)
    return pointers + sum(charge_of_bytes(len(item)) for item in items)


def blocks(length: int, count: int) -> list[bytes]:
    """Allocate this many bytes objects of this length; see ``charge_of_items``."""
    return [bytes(length) for _ in range(count)]


def payload() -> list[bytes]:
    """Allocate about 4 MB in blocks of each kind: small ones, and some above 512 bytes."""
    return blocks(100, 8000) + blocks(400, 4000) + blocks(3000, 400)


def charge_of_payload() -> int:
    """Return what ``payload()`` leaves charged."""
    return charge(12_400 * POINTER) + sum(
        count * charge_of_bytes(length) for length, count in ((100, 8000), (400, 4000), (3000, 400))
    )


def fill(held: list[bytes], most: int) -> None:
    """Allocate small blocks until an error stops it, at the latest after this many bytes."""
    for _ in range(most // 1000):
        held.append(bytes(1000))


def within(part: float, actual: int, expected: int) -> bool:
    """Say whether a figure differs from the expected one by at most this part of it."""
    return abs(actual - expected) <= part * expected


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Wait until a condition that another thread brings about holds; False if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def ceiling(limit: int) -> int:
    """Return the most bytes a group with this ``memory.max`` may ever be charged with."""
    return limit + limit // 8 + 4 * MIB


def resident(field: str = "VmRSS") -> int:
    """Return a field of /proc/self/status in bytes: VmRSS, VmHWM, VmSize, VmPeak."""
    with open("/proc/self/status", encoding="utf-8") as status:
        text = status.read()
    return 1024 * int(text.partition(f"{field}:")[2].split()[0])
