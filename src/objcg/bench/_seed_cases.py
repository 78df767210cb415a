"""What `objcg bench seed` measures: variants, scenarios, and the kernel's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import _lab_process
from ._lab import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

BASELINE = "unaccounted"

SIZE = 64

KERNEL = {
    "user": {"unaccounted": 29764, "original": 84548, "patched": 59078},
    "root": {"unaccounted": 29742, "original": 48342, "patched": 31501},
}
"""A million allocations of 64 bytes, as published with the patches."""


class Variant(NamedTuple):
    """One way, and the variant that it differs from by one step (None: not by one)."""

    text: str
    step: str | None


VARIANTS = {
    "unaccounted": Variant("the slabs, nothing charged", None),
    "original": Variant(
        "walk from the task to an objcg, a reference for it and one per block", BASELINE
    ),
    "original-plain-rcu": Variant("its section without a fence, as the kernel's", "original"),
    "original-root": Variant("it, the root not charged, as in the kernel", "original"),
    "pointer-spinlock": Variant("pointer on the task, updated under a spinlock", "original"),
    "pointer-reference": Variant("updated without a lock", "pointer-spinlock"),
    "pointer-root": Variant("it, the root not charged, as in the kernel", "pointer-reference"),
    "pointer-atomic-reference": Variant("references in one shared counter", "pointer-reference"),
    "objcg": Variant("as shipped: bytes are the reference", "pointer-reference"),
    "memcg-pointer": Variant("pointer to the group, with a second look", "objcg"),
    "memcg-pointer-section": Variant("pointer to the group, in a section", "memcg-pointer"),
    "no-migration": Variant("the reference is a constant", "objcg"),
    "no-block-count": Variant("blocks are not counted", "objcg"),
    "fork-lazy": Variant(
        "bytes are the reference; a new task looks at its first allocation", "pointer-reference"
    ),
    "fork-reference": Variant(
        "a new task copies its parent's pointer and takes a reference", "pointer-reference"
    ),
    "fork-reference-locked": Variant(
        "it takes one of its group's, under the lock", "fork-reference"
    ),
    "stock": Variant("CPython's own allocator, called", None),
    "glibc": Variant("the C library's, called", None),
    "objcg-called": Variant("objcg, called as stock is", "stock"),
}

# At a fork the shipped core differs from pointer-reference by two steps.
STEPS_OF_FORK = {"objcg": "fork-lazy"}

PATH = (
    "unaccounted",
    "original",
    "original-plain-rcu",
    "pointer-spinlock",
    "pointer-reference",
    "pointer-atomic-reference",
    "objcg",
    "memcg-pointer",
    "memcg-pointer-section",
    "no-migration",
    "no-block-count",
)
_CALLED = tuple(_lab_process.CALLED)

# Enough that what happens once does not show.
COUNTED = {
    "alloc+free": Request("pair", 100_000, size=SIZE),
    "alloc+free-1000": Request("batches", 100_000, size=SIZE, allocations=1000),
}

_MOVES = (
    "unaccounted",
    "original",
    "pointer-spinlock",
    "pointer-reference",
    "objcg",
    "memcg-pointer",
)
_FORKS = (
    "unaccounted",
    "original",
    "pointer-spinlock",
    "pointer-reference",
    "fork-reference",
    "fork-reference-locked",
    "fork-lazy",
    "objcg",
)


class Scenario(NamedTuple):
    """What is measured under one name."""

    name: str
    text: str
    operation: str
    variants: tuple[str, ...]
    situations: tuple[dict[str, int], ...]
    operations: int
    """Of all threads together."""

    resident: bool = False
    in_root: tuple[str, ...] = ()
    """Further variants, where the group is the root."""


SCENARIOS = (
    Scenario(
        "alloc",
        "one of a million allocations of 64 bytes, all kept, in memory that the process has",
        "alloc",
        PATH,
        (
            {"depth": 0, "threads": 1},
            {"depth": 1, "threads": 1},
            {"depth": 0, "threads": 2},
            {"depth": 1, "threads": 2},
        ),
        1_000_000,
        resident=True,
        in_root=("original-root", "pointer-root"),
    ),
    Scenario(
        "depth",
        "the same, in a group further down",
        "alloc",
        ("unaccounted", "original", "pointer-reference", "objcg"),
        tuple({"depth": depth, "threads": 1} for depth in (1, 2, 4, 8)),
        1_000_000,
        resident=True,
    ),
    Scenario(
        "batch",
        "16 KiB charged to a group and uncharged, which is what an empty stock costs",
        "charge",
        ("objcg",),
        tuple({"depth": depth, "threads": n} for n in (1, 2) for depth in (0, 1, 2, 4, 8)),
        200_000,
    ),
    Scenario(
        "alloc-cold",
        "one of a million allocations of 64 bytes, all kept, in memory new from the system",
        "alloc",
        ("unaccounted", "original", "pointer-reference", "objcg", *_CALLED),
        ({"depth": 1, "threads": 1},),
        1_000_000,
    ),
    Scenario(
        "alloc+free",
        "an allocation of 64 bytes and its free",
        "pair",
        (*PATH, *_CALLED),
        ({"depth": 1, "threads": 1}, {"depth": 1, "threads": 2}),
        1_000_000,
    ),
    Scenario(
        "alloc+free-1000",
        "the same, 1000 allocations and then their frees, the newest first",
        "batches",
        (*PATH, *_CALLED),
        (
            {"depth": 1, "threads": 1, "allocations": 1000},
            {"depth": 1, "threads": 2, "allocations": 1000},
        ),
        1_000_000,
    ),
    Scenario(
        "fork",
        "a task is made, allocates and frees some blocks, and ends",
        "fork",
        _FORKS,
        tuple({"depth": 1, "threads": n, "allocations": k} for n in (1, 2) for k in (0, 1, 10)),
        50_000,
    ),
    Scenario(
        "move",
        "a task is moved between two groups, then allocates some blocks",
        "move",
        _MOVES,
        tuple({"depth": 1, "threads": 1, "allocations": k} for k in (1, 10, 100)),
        20_000,
    ),
    Scenario(
        "moved",
        "an allocation and its free, while another thread moves the task every microsecond",
        "moved",
        _MOVES,
        ({"depth": 1, "threads": 2},),
        500_000,
    ),
)


class Cell(NamedTuple):
    """What one row of the result is about."""

    scenario: Scenario
    variant: str
    request: Request


def cells(*, quick: bool) -> list[Cell]:
    """Return all that is measured."""
    return list(_cells(quick=quick))


def _cells(*, quick: bool) -> Iterator[Cell]:
    for scenario in SCENARIOS:
        for situation in scenario.situations:
            operations = scenario.operations // situation["threads"]
            if quick:
                operations //= 50
            if scenario.operation == "move":
                # the same number of blocks, however many there are to a move
                operations = operations * 5 // situation["allocations"] + 1
            in_root = () if situation["depth"] else scenario.in_root
            for variant in (*scenario.variants, *in_root):
                # CPython's needs the GIL, and our function has one task
                if variant in _CALLED and variant != "glibc" and situation["threads"] > 1:
                    continue
                request = Request(
                    scenario.operation,
                    operations,
                    size=SIZE,
                    resident=scenario.resident,
                    **situation,
                )
                yield Cell(scenario, variant, request)
