"""What an allocation costs, by size and by the order of the frees, beside stock CPython.

All calls are those of the object allocator, from C; charged to a child group in the case of objcg.

- "fifo", "lifo", "random": n blocks of one size are allocated one after the other, then freed, the
  oldest first, the newest first, or in a fixed shuffle.
- "pair": each block is freed before the next is allocated.
- "threads": one thread allocates, another frees what it gets, in batches. Handing them over is not
  in the time. Under CPython the two hold the GIL in turns.
- "realloc-list", "realloc-bytearray": blocks grow in turns to 16 times their size, by the steps of
  a list and of a bytearray that are appended to. n calls of realloc(), each with one write to each
  page that it added.

The baseline is stock CPython in another process, which never enables objcg. (Not in the same: a
stock pymalloc that grows beside objcg calls objcg's own hooks, above 512 bytes for each block, and
for its table of arenas, which looks like a new interpreter to objcg and makes it check more from
then on.) Where things lie in memory differs between processes and matters, so each case is measured
in several sets of fresh ones. With --worn all cases share one set: the C library gives memory back
only from the end of its heap, and something that has come to lie there makes it keep what it would
return in a fresh process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import statistics
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import objcg
from objcg import _core

from . import _alloc_tables, _allocators
from ._programs._process import OBJCG, STOCK
from ._worker import Worker, serve
from .runner import BenchmarkError, interleave, ratios, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .figures import Figure
    from .runner import Options, Row

NAME = "alloc"
DESCRIPTION = "nanoseconds of an allocation by size and order of frees, beside stock CPython"
ROUNDS = 9

ROUNDS_OF_PROCESS = 3

SIZES = (16, 32, 64, 128, 256, 512, 1024, 4096, 32768)
COUNTS = (1_000_000, 10_000)
ORDERS = ("fifo", "lifo", "random")
"""Patterns that hold n blocks; the others do n operations, of the largest n only."""
PATTERNS = (*ORDERS, "pair", "threads", "realloc-list", "realloc-bytearray")
MOST_BYTES = 512 << 20
"""What the blocks of one measurement may come to: of larger blocks fewer are allocated. A pair is
one block."""
MOST_SIZE, MOST_COUNT = 1 << 20, 100_000_000

FEW = 100_000
"""Below this many blocks, and below `MOST_BYTES` of them, a measurement is repeated within a round,
and the median is taken."""

BATCH = 1_000
"""How many blocks a thread hands over at a time; there are two batches."""

BASELINE = "stock CPython, another process"

GOAL_SIZE, GOAL_COUNT, GOAL = 64, 1_000_000, 1.00
"""objcg is to take no more than this many times stock's time, in every pattern."""

_QUICK_SIZES, _QUICK_COUNTS = (64, 1024), (10_000,)


class Case(NamedTuple):
    """What is measured."""

    size: int
    n: int
    pattern: str
    asked: int
    """What n would be if memory had no bounds."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--sizes",
        metavar="BYTES[,...]",
        type=_numbers(MOST_SIZE),
        help=f"measure blocks of these sizes only (default: {_joined(SIZES)})",
    )
    parser.add_argument(
        "--patterns",
        metavar="NAME[,...]",
        type=_patterns,
        help=f"measure these patterns only (default: {_joined(PATTERNS)})",
    )
    parser.add_argument(
        "--counts",
        metavar="N[,...]",
        type=_numbers(MOST_COUNT),
        help=f"numbers of blocks, of all at most {MOST_BYTES >> 20} MiB "
        f"(default: {_joined(COUNTS)})",
    )
    parser.add_argument(
        "--no-huge-pages", action="store_true", help="measure without transparent huge pages"
    )
    parser.add_argument(
        "--worn", action="store_true", help="measure all cases in processes that were used before"
    )
    _allocators.add_option(parser)


def _joined(values: tuple[object, ...]) -> str:
    return ",".join(map(str, values))


def _numbers(most: int) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        numbers = []
        for part in text.split(","):
            if not (part.isascii() and part.isdigit() and 0 < int(part) <= most):
                raise argparse.ArgumentTypeError(f"{part!r} is not a number from 1 to {most}")
            numbers.append(int(part))
        return tuple(dict.fromkeys(numbers))

    return parse


def _patterns(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in PATTERNS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is not a pattern; there are {', '.join(PATTERNS)}"
            )
    return names


def cases(options: Options) -> list[Case]:
    """Return what is to be measured."""
    sizes = options.extra.get("sizes") or (_QUICK_SIZES if options.quick else SIZES)
    counts = options.extra.get("counts") or (_QUICK_COUNTS if options.quick else COUNTS)
    patterns = options.extra.get("patterns") or PATTERNS
    return [
        # a pair holds one block at a time, however many there are
        Case(size, count if pattern == "pair" else min(count, MOST_BYTES // size), pattern, count)
        for size in sizes
        for count in counts
        for pattern in patterns
        if pattern in ORDERS or count == max(counts)
    ]


def run(options: Options) -> list[Row]:
    """Measure, in several sets of processes; see `objcg.bench.Benchmark`."""
    libraries, skipped = _allocators.sides(options)
    worn = bool(options.extra.get("worn"))
    huge_pages = not options.extra.get("no_huge_pages")
    wanted = cases(options)
    samples: dict[Case, _Samples] = {case: _Samples(tuple(libraries)) for case in wanted}
    with contextlib.nullcontext() if huge_pages else without_huge_pages():
        for some in [wanted] if worn else [[case] for case in wanted]:
            left = options.rounds
            while left:
                rounds = left if worn else min(left, ROUNDS_OF_PROCESS)
                done = options.rounds - left
                with contextlib.ExitStack() as stack:
                    workers = {
                        side: stack.enter_context(Worker(NAME, side, library=path))
                        for side, path in libraries.items()
                    }
                    for case in some:
                        options.progress(
                            f"alloc: {case.n:,} blocks of {case.size} bytes, {case.pattern}, "
                            f"{done} of {options.rounds} rounds"
                        )
                        samples[case].add(case, workers, libraries, rounds, options.seed + done)
                left -= rounds
    options.progress("")
    where = {
        "rounds": options.rounds,
        "processes": 1 if worn else -(-options.rounds // ROUNDS_OF_PROCESS),
        "worn": worn,
        "huge_pages": huge_pages,
        "seed": options.seed,
    }
    rows = [
        {**row, "library": libraries[row["side"]], **where}
        for case in wanted
        for row in samples[case].rows(case)
    ]
    return rows + skipped


class _Samples:
    """The measurements of one case."""

    def __init__(self, sides: tuple[str, ...]) -> None:
        self._sides = sides
        self._of: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        """For each side and round: nanoseconds by phase."""
        self._facts: dict[str, Row] = {}

    def add(
        self,
        case: Case,
        workers: dict[str, Worker],
        libraries: dict[str, str | None],
        rounds: int,
        seed: int,
    ) -> None:
        """Measure that many rounds more, the sides in turns."""
        taken: dict[str, list[dict[str, float]]] = {side: [] for side in self._sides}

        def measure(side: str) -> float:
            answer = workers[side].ask(case)
            self._facts[side] = answer["measured"]
            _check(side, answer["measured"], libraries[side])
            taken[side].append(answer["ns"])
            return 0

        interleave(self._sides, measure, rounds=rounds, seed=seed)
        for side in self._sides:
            self._of[side] += taken[side][1:]  # the first was the round that warms up

    def rows(self, case: Case) -> Iterator[Row]:
        """Yield a row for each side but stock and each phase."""
        for side in self._sides:
            if side == STOCK:
                continue
            for phase in self._of[STOCK][0]:
                stock = [ns[phase] for ns in self._of[STOCK]]
                values = [ns[phase] for ns in self._of[side]]
                row: Row = {
                    **case._asdict(),
                    "phase": phase,
                    "unit": "ns",
                    "clock": "elapsed time",
                    "side": side,
                    **summary("ns", values),
                    **summary("stock_ns", stock),
                    **summary("ratio", ratios(values, stock)),
                    "baseline": BASELINE,
                    "goal": None,
                    "goal_met": None,
                    "measured": {name: self._facts[name] for name in (STOCK, side)},
                }
                whole = phase in {"sum", "realloc"}
                if side == OBJCG and whole and (case.size, case.n) == (GOAL_SIZE, GOAL_COUNT):
                    row |= {"goal": {"of": "ratio", "most": GOAL}, "goal_met": row["ratio"] <= GOAL}
                yield row


def _check(side: str, facts: Row, library: str | None) -> None:
    right = {
        "enabled": side == OBJCG,
        "groups": ["/bench"] if side == OBJCG else [],
        "library": library,
    }
    if {key: facts[key] for key in right} != right:
        raise BenchmarkError(f"the process of the side {side!r} was something else: {facts}")


@contextlib.contextmanager
def without_huge_pages() -> Iterator[None]:
    """Keep processes that are started from getting transparent huge pages (prctl(2)).

    Raises:
        BenchmarkError: the kernel cannot do that.
    """
    set_disable, get_disable = 41, 42
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = prctl(get_disable, 0, 0, 0, 0)
    if before < 0 or prctl(set_disable, 1, 0, 0, 0):
        reason = os.strerror(ctypes.get_errno())
        raise BenchmarkError(f"huge pages cannot be switched off here: {reason}")
    try:
        yield
    finally:
        prctl(set_disable, before, 0, 0, 0)


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios by size, a panel for each pattern and number of blocks."""
    return _alloc_tables.figure(rows)


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    return _alloc_tables.table(rows)


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown, and the ratios alone, a table for each side."""
    return _alloc_tables.markdown(rows)


# ---- Processes that measure ----------------------------------------------------------------------


def main(side: str) -> None:
    """Be the process of one side."""
    if side == OBJCG:
        objcg.enable()
    with objcg.group("/bench") if side == OBJCG else contextlib.nullcontext():
        serve(lambda question: _measure(side, Case(*question)))


def _measure(side: str, case: Case) -> Row:
    """Return nanoseconds of an operation by phase, and where it was done."""
    groups: set[str] = set()
    which = OBJCG if side == OBJCG else STOCK  # what is loaded in place of malloc is stock's, then
    once = _PATTERNS.get(case.pattern, _time_order)
    often = max(min(FEW // case.n, MOST_BYTES // (case.n * case.size)), 1)
    times = [once(which, case, groups) for _ in range(often)]
    return {
        "ns": {phase: statistics.median(ns[phase] for ns in times) for phase in times[0]},
        "measured": {
            "enabled": objcg.enabled(),
            "groups": sorted(groups),
            "library": _loaded(),
            "huge_pages": _may_have_huge_pages(),
        },
    }


def _see(which: str, groups: set[str]) -> None:
    """Take down the group that this code runs in."""
    if which == OBJCG:
        groups.add(objcg.current_group().path)


def _loaded() -> str | None:
    library = os.environ.get("LD_PRELOAD")
    if library is not None:
        with open("/proc/self/maps", encoding="utf-8") as file:
            if library not in file.read():
                return None
    return library


def _may_have_huge_pages() -> bool | None:
    """Say whether this process may have some; None: this kernel does not tell."""
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("THP_enabled:"):
                return line.split()[1] == "1"
    return None


def _time_order(which: str, case: Case, groups: set[str]) -> dict[str, float]:
    _see(which, groups)
    alloc, free = _core.time_malloc(which, case.n, case.size, case.pattern)
    return {"alloc": alloc, "free": free, "sum": alloc + free}


def _time_pair(which: str, case: Case, groups: set[str]) -> dict[str, float]:
    return {"sum": _time_order(which, case, groups)["sum"]}


def _time_threads(which: str, case: Case, groups: set[str]) -> dict[str, float]:
    empty: SimpleQueue[Any] = SimpleQueue()
    full: SimpleQueue[Any] = SimpleQueue()
    turns = max(case.n // BATCH, 1)
    free: list[float] = []

    def consume() -> None:
        _see(which, groups)
        for _ in range(turns):
            batch = full.get()
            free.append(_core.time_batch_free(batch))
            empty.put(batch)

    for _ in range(2):
        empty.put(_core.new_batch(min(BATCH, case.n)))
    consumer = threading.Thread(target=consume)
    consumer.start()
    _see(which, groups)
    alloc = []
    for _ in range(turns):
        batch = empty.get()
        alloc.append(_core.time_batch_malloc(batch, which, case.size))
        full.put(batch)
    consumer.join()
    phases = {"alloc": statistics.fmean(alloc), "free": statistics.fmean(free)}
    return {**phases, "sum": sum(phases.values())}


def _time_realloc(which: str, case: Case, groups: set[str]) -> dict[str, float]:
    _see(which, groups)
    growth = case.pattern.partition("-")[2]
    return {"realloc": _core.time_realloc(which, case.n, case.size, growth)}


_PATTERNS: dict[str, Callable[[str, Case, set[str]], dict[str, float]]] = {
    "pair": _time_pair,
    "threads": _time_threads,
    "realloc-list": _time_realloc,
    "realloc-bytearray": _time_realloc,
}
