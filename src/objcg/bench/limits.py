"""From crossing ``memory.max`` to the error in the task: the time, and the bytes above the limit.

A task allocates blocks one after the other and notes the time before each. Which of them crosses
the limit follows from what the group held before and the size of a block, not from what objcg says.
Stock CPython has no limits, so nothing is compared.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from array import array
from collections import deque
from itertools import repeat
from time import perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import objcg

from .runner import interleave, markdown_table, nothing, summary, text_table
from .switch import Worker, serve, with_quartiles

if TYPE_CHECKING:
    import argparse

    from .runner import Options, Row

NAME = "limits"
DESCRIPTION = "time from crossing memory.max to the error in the task, and bytes above the limit"
ROUNDS = 60

ROUNDS_OF_PROCESS = 20

LIMIT = 16 << 20
MOST = 2
"""How many times the limit is allocated at most, if nothing stops it."""
BLOCKS = (100, 1000)
"""Lengths of the bytes objects."""

CASES = {
    "main": "main thread",
    "main-c": "main thread, in one call of C code",
    "asyncio": "asyncio task that does not wait",
    "asyncio-waits": "asyncio task that waits after each 10 blocks, beside one of another group",
    "thread": "another thread; the main thread waits",
    "thread-busy": "another thread; the main thread computes",
}


class Sample(NamedTuple):
    """What happened once."""

    ns: int | None
    """From before the block that crossed the limit until the task had its error."""
    overshoot: int
    """The group's peak above its limit, the handling of the error included."""
    blocks: int
    """How many blocks were allocated from the crossing on."""
    error: str
    where: str
    """The path of the group that it ran in."""
    neighbour: str
    """The error that a task of another group got meanwhile: empty."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`: there are none."""


def run(options: Options) -> list[Row]:
    """Measure, in several processes; see `objcg.bench.Benchmark`."""
    asked = [(name, length) for name in CASES for length in BLOCKS]
    samples: dict[tuple[str, int], list[Sample]] = {case: [] for case in asked}
    left = options.rounds
    number = 0
    while left:
        rounds = min(left, ROUNDS_OF_PROCESS)
        options.progress(f"limits: {options.rounds - left} of {options.rounds} rounds")
        taken: dict[tuple[str, int], list[Sample]] = {case: [] for case in asked}
        with Worker(NAME, None) as worker:

            def measure(
                case: tuple[str, int],
                worker: Worker = worker,
                taken: dict[tuple[str, int], list[Sample]] = taken,
            ) -> float:
                taken[case].append(Sample(*worker.ask(case)))
                return 0

            interleave(asked, measure, rounds=rounds, seed=options.seed + number)
        for case, values in taken.items():
            samples[case] += values[1:]  # the first was the round that warms up
        left -= rounds
        number += 1
    options.progress("")
    where = {"rounds": options.rounds, "processes": number, "seed": options.seed}
    return [{**_row(name, length, samples[name, length]), **where} for name, length in asked]


def _row(name: str, length: int, samples: list[Sample]) -> Row:
    times = [sample.ns for sample in samples if sample.ns is not None]
    overshoots = [float(sample.overshoot) for sample in samples]
    errors = [sample.error for sample in samples]
    return {
        "case": name,
        "where": CASES[name],
        "block": length,
        "limit": LIMIT,
        "clock": "elapsed time",
        **(summary("us", [ns / 1000 for ns in times]) if times else nothing("us")),
        "us_worst": max(times) / 1000 if times else None,
        **summary("overshoot", overshoots),
        "overshoot_worst": max(overshoots),
        **summary("blocks", [float(sample.blocks) for sample in samples]),
        "errors": {error: errors.count(error) for error in sorted(set(errors))},
        "neighbour_errors": sum(bool(sample.neighbour) for sample in samples),
        "groups": sorted({sample.where for sample in samples}),
        **nothing("ratio"),
        "baseline": None,
    }


# ---- Tables --------------------------------------------------------------------------------------


_HEADINGS = ["where", "error", "block", "us", "worst", "KiB above max", "worst", "blocks"]


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    head = rows[0]
    how = (
        f"memory.max of {LIMIT >> 20} MiB, {head['rounds']} rounds in {head['processes']} "
        "processes. From crossing the limit to the error: microseconds and blocks allocated, with "
        "quartiles and the worst of all; above max: the group's peak, the handler included. "
        "Stock CPython has no limits: nothing is compared."
    )
    return f"{how}\n\n{text_table(_HEADINGS, _lines(rows), left=2)}"


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    return {NAME: markdown_table(_HEADINGS, _lines(rows), left=2)}


def _lines(rows: list[Row]) -> list[list[str]]:
    return [
        [
            row["where"],
            ", ".join(
                error if len(row["errors"]) == 1 else f"{error} ({count})"
                for error, count in row["errors"].items()
            ),
            f"{row['block']:,}",
            with_quartiles(row, "us", 1),
            "" if row["us_worst"] is None else f"{row['us_worst']:,.1f}",
            _kib(row["overshoot"], *row["overshoot_quartiles"]),
            f"{row['overshoot_worst'] / 1024:,.1f}",
            with_quartiles(row, "blocks"),
        ]
        for row in rows
    ]


def _kib(median: float, first: float, third: float) -> str:
    return f"{median / 1024:,.1f} ({first / 1024:,.1f}-{third / 1024:,.1f})"


# ---- The process that measures -------------------------------------------------------------------


def main(_: None) -> None:
    """Be the process that measures."""
    objcg.enable()
    serve(lambda question: _measure(*question))


class _Run:
    """One task's way to the limit, and over it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.charge = -(-sys.getsizeof(bytes(length)) // 16) * 16
        # made at root: neither is charged to the group
        self.most = MOST * LIMIT // self.charge
        self.held: list[object] = [None] * self.most
        self.stamps = array("q", bytes(8 * self.most))
        self.group = objcg.group("/bench", max=LIMIT)
        self.before = 0
        self.count = 0
        self.end: int | None = None
        self.error = ""
        self.where = ""
        self.neighbour = ""

    def begin(self) -> None:
        """Note where the task is, in the group."""
        self.where = objcg.current_group().path
        self.before = self.group.memory.current

    def stopped(self, error: MemoryError, end: int) -> None:
        """Note the error."""
        self.end = end
        self.error = type(error).__name__

    def sample(self) -> Sample:
        """Return what was measured, and remove the group."""
        overshoot = self.group.memory.peak - LIMIT
        crossing = (LIMIT - self.before) // self.charge
        ns = None
        if self.end is not None and self.stamps[self.count]:
            ns = self.end - self.stamps[min(crossing, self.count)]
        self.held.clear()
        self.group.remove()
        return Sample(
            ns, overshoot, max(self.count - crossing, 0), self.error, self.where, self.neighbour
        )


def _measure(name: str, length: int) -> Sample:
    gc.collect()
    case = _Run(length)
    _OUTSIDE[_FUNCTIONS[name]](case)
    gc.collect()
    return case.sample()


def _fill(case: _Run) -> None:
    """Allocate until an error stops it."""
    case.begin()
    held, stamps, length = case.held, case.stamps, case.length
    i = 0
    try:
        for i in range(case.most):
            stamps[i] = perf_counter_ns()
            held[i] = bytes(length)
    except MemoryError as error:
        case.stopped(error, perf_counter_ns())
    case.count = i


def _main(case: _Run) -> None:
    with case.group:
        _fill(case)


def _main_c(case: _Run) -> None:
    with case.group:
        case.begin()
        try:
            # one call, which comes to no place where the interpreter looks for errors of others
            blocks = map(bytes, repeat(case.length))
            deque(map(case.held.__setitem__, range(case.most), blocks), maxlen=0)
        except MemoryError as error:
            case.stopped(error, perf_counter_ns())
    case.count = sum(block is not None for block in case.held)


def _asyncio(case: _Run) -> None:
    async def offender() -> None:
        with case.group:
            _fill(case)

    asyncio.run(offender())


def _asyncio_waits(case: _Run) -> None:
    async def offender() -> None:
        with case.group:
            case.begin()
            held, stamps, length = case.held, case.stamps, case.length
            i = 0
            try:
                for i in range(case.most):
                    stamps[i] = perf_counter_ns()
                    held[i] = bytes(length)
                    if i % 10 == 0:
                        await asyncio.sleep(0)
            except MemoryError as error:
                case.stopped(error, perf_counter_ns())
            case.count = i

    async def neighbour(ended: list[bool]) -> None:
        with objcg.group("/neighbour"):
            try:
                while not ended:
                    bytes(case.length)
                    await asyncio.sleep(0)
            except MemoryError as error:
                case.neighbour = type(error).__name__

    async def both() -> None:
        ended: list[bool] = []
        beside = asyncio.create_task(neighbour(ended))
        await asyncio.create_task(offender())
        ended.append(True)
        await beside

    asyncio.run(both())


def _thread(case: _Run) -> None:
    thread = threading.Thread(target=_main, args=(case,))
    thread.start()
    thread.join()


def _thread_busy(case: _Run) -> None:
    thread = threading.Thread(target=_main, args=(case,))
    thread.start()
    try:
        with objcg.group("/neighbour"):
            while thread.is_alive():
                sum(range(100))
    except MemoryError as error:
        case.neighbour = type(error).__name__
    thread.join()


_FUNCTIONS = {
    "main": "_main",
    "main-c": "_main_c",
    "asyncio": "_asyncio",
    "asyncio-waits": "_asyncio_waits",
    "thread": "_thread",
    "thread-busy": "_thread_busy",
}

# No task gets its error in code of objcg itself, which this would be by the name of its module.
_OUTSIDE: dict[str, Any] = {**globals(), "__name__": "program"}
for _name in ("_fill", *_FUNCTIONS.values()):
    _OUTSIDE[_name] = FunctionType(_OUTSIDE[_name].__code__, _OUTSIDE)
