"""What an allocation costs with objcg on, beside stock CPython in the same run.

    python bench/alloc.py [--json] [--rounds N] [--quick] [--only KIND] [--no-huge-pages] [--worn]

Two kinds of rows:

- ``blocks``: n blocks of one size are allocated one after the other, then freed, by calls of the
  object allocator from C; charged to a child group in the case of objcg. The order of the frees is
  the pattern: the oldest first ("fifo"), the newest first ("lifo"), a fixed shuffle ("random").
  "pair" frees each block before it allocates the next. Nanoseconds per call.
- ``programs``: Python code in a process of its own, without objcg and in a child group. Seconds,
  without the start of the interpreter; for "start" nothing but that.

The baseline is stock CPython in another process, which never enables objcg. The two take turns, and
the side that goes first changes with every round. (Not in one process: a stock pymalloc that grows
beside objcg calls objcg's own hooks, above 512 bytes for each block, and for its table of arenas,
which looks like a new interpreter to objcg and makes it check more from then on.) Where things lie
in memory differs between processes and matters, so each case is measured in several pairs of fresh
ones. With --worn all cases share one pair: the C library gives memory back only from the end of its
heap, and something that has come to lie there makes it keep what it would return in a fresh
process.

A ratio is the median, over the rounds, of objcg's time divided by the baseline's in the same
round; in brackets are the quartiles. Above 1 objcg is slower.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import objcg
from objcg import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

SIZES = (64, 16, 32, 128, 512, 1024, 4096)
COUNTS = (1_000_000, 10_000)
PATTERNS = ("fifo", "lifo", "random", "pair")
MOST_BYTES = 512 << 20
"""What the blocks of one measurement may come to: of larger blocks fewer are allocated."""

PAIRS = 3
"""How many pairs of processes each case is measured in."""

FEW = 100_000
"""Below this many blocks a measurement is repeated within a round, and the median is taken."""

BASELINE = "stock CPython, another process"

# repeat() allocates nothing at each turn, range() makes an int.
PROGRAMS = {
    "list: append 10 million": """
from itertools import repeat
items = []
append = items.append
for item in repeat(None, 10_000_000):
    append(item)
""",
    "bytearray: add 1000 bytes 200,000 times": """
from itertools import repeat
data = bytearray()
for piece in repeat(bytes(1000), 200_000):
    data += piece
""",
    "loop: 10 million turns of range()": """
for _ in range(10_000_000):
    pass
""",
    "objects: 5 times 200,000 instances": """
class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = (y, x)
for _ in range(5):
    points = [Point(i, float(i)) for i in range(200_000)]
""",
    "dicts: 5 times 200,000 of 3 items": """
for _ in range(5):
    rows = [{"id": i, "name": str(i), "value": i / 3} for i in range(200_000)]
""",
    "json: load and dump 20,000 records, 10 times": """
import json
rows = [{"id": i, "tags": ["a", str(i)], "at": {"x": i, "y": -i}} for i in range(20_000)]
text = json.dumps(rows)
for _ in range(10):
    text = json.dumps(json.loads(text))
""",
}

# A program's time and peak resident memory are taken inside it, without its interpreter's start.
PROLOGUE = {
    "stock": "",
    "objcg": "import objcg; objcg.enable(); objcg.group('/bench').__enter__()",
}
BODY = """
{prologue}
import gc, time
gc.collect()
start = time.perf_counter()
def work():
{work}
work()
seconds = time.perf_counter() - start
# not ru_maxrss: that one begins with what our parent had when it forked
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(seconds, peak)
"""


# ---- Blocks --------------------------------------------------------------------------------------


def time_blocks(which: str, n: int, size: int, pattern: str) -> tuple[float, float]:
    """Return nanoseconds per allocation and per free."""
    if n >= FEW:
        return _core.time_malloc(which, n, size, pattern)
    times = [_core.time_malloc(which, n, size, pattern) for _ in range(FEW // n)]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


class Worker:
    """A process that measures what it is told to: "stock", or "objcg" in a child group."""

    def __init__(self, which: str) -> None:
        self._which = which

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, __file__, "--worker", self._which],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def time_blocks(self, size: int, n: int, pattern: str) -> tuple[float, float]:
        """Return what `time_blocks` says in that process."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps([size, n, pattern]), file=self._child.stdin, flush=True)
        alloc, free = json.loads(self._child.stdout.readline())
        return alloc, free

    def __exit__(self, *_: object) -> None:
        self._child.communicate()


def work(which: str) -> None:
    """Be the process of a `Worker`."""
    if which == "objcg":
        objcg.enable()
        objcg.group("/bench").__enter__()
    for line in sys.stdin:
        size, n, pattern = json.loads(line)
        print(json.dumps(time_blocks(which, n, size, pattern)), flush=True)


def bench_blocks(
    rounds: int, sizes: tuple[int, ...], progress: Progress, *, worn: bool
) -> Iterator[dict[str, Any]]:
    """Yield a row for each size, number and pattern, and of those for each phase."""
    cases = [
        (size, min(count, MOST_BYTES // size), pattern)
        for size in sizes
        for count in COUNTS
        for pattern in PATTERNS
        # a pair holds one block at a time, however many there are
        if pattern != "pair" or count == COUNTS[0]
    ]
    rounds_of: dict[tuple[int, int, str], list[Pair]] = defaultdict(list)
    for some in [cases] if worn else [[case] for case in cases]:
        for _ in range(1 if worn else PAIRS):
            with Worker("stock") as stock, Worker("objcg") as other:
                for case in some:
                    size, n, pattern = case
                    progress(f"{n:,} blocks of {size} bytes, {pattern}")
                    rounds_of[case] += take_turns(
                        PAIRS * rounds if worn else rounds,
                        partial(stock.time_blocks, *case),
                        partial(other.time_blocks, *case),
                    )
        for case in some:
            yield from block_rows(*case, rounds_of[case])


Pair = tuple[tuple[float, float], tuple[float, float]]


def take_turns(
    rounds: int,
    stock: Callable[[], tuple[float, float]],
    other: Callable[[], tuple[float, float]],
) -> list[Pair]:
    """Call both in turns, for that many rounds and one before them that is not counted."""
    pairs = []
    for number in range(rounds + 1):
        if number % 2:
            first = stock()
            pairs.append((first, other()))
        else:
            first = other()
            pairs.append((stock(), first))
    return pairs[1:]


def block_rows(size: int, n: int, pattern: str, pairs: list[Pair]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one case: the two phases, and both together."""
    phases: dict[str, Callable[[tuple[float, float]], float]] = {"sum": sum}
    if pattern != "pair":
        phases = {"alloc": itemgetter(0), "free": itemgetter(1), **phases}
    for phase, of in phases.items():
        yield {
            "kind": "blocks",
            "size": size,
            "n": n,
            "pattern": pattern,
            "phase": phase,
            "unit": "ns",
            **compare([of(a) for a, _ in pairs], [of(b) for _, b in pairs]),
            "baseline": BASELINE,
        }


def compare(stock: list[float], other: list[float]) -> dict[str, Any]:
    """Return medians and quartiles of both, and of the ratio round by round."""
    ratios = [b / a for a, b in zip(stock, other, strict=True)]
    return {
        "stock": statistics.median(stock),
        "stock_quartiles": quartiles(stock),
        "objcg": statistics.median(other),
        "objcg_quartiles": quartiles(other),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": quartiles(ratios),
        "rounds": len(ratios),
    }


def quartiles(values: list[float]) -> list[float]:
    """Return the first and the third quartile."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


# ---- Programs ------------------------------------------------------------------------------------


def run_program(which: str, code: str) -> tuple[float, float]:
    """Run code in a process of its own; return its seconds and its peak resident bytes."""
    work = "".join(f"    {line}\n" for line in code.strip().splitlines())
    source = BODY.format(prologue=PROLOGUE[which], work=work)
    done = subprocess.run(
        [sys.executable, "-c", source], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, kilobytes = done.stdout.split()
    return float(seconds), 1024 * float(kilobytes)


def time_start(which: str) -> tuple[float, float]:
    """Start an interpreter that does nothing; return the seconds until it has ended, and 0."""
    command = [sys.executable, "-c", "pass"]
    if which == "objcg":
        command[1:1] = ["-m", "objcg", "run"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, 0.0


def bench_programs(rounds: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield two rows for each program, of its time and its memory; and one for the start."""
    for name, code in PROGRAMS.items():
        progress(name)
        pairs = take_turns(
            rounds, partial(run_program, "stock", code), partial(run_program, "objcg", code)
        )
        for i, (phase, unit) in enumerate((("time", "s"), ("peak memory", "bytes"))):
            yield program_row(name, phase, unit, [(a[i], b[i]) for a, b in pairs])
    name = "start: python -c pass, objcg run -c pass"
    progress(name)
    pairs = take_turns(rounds, partial(time_start, "stock"), partial(time_start, "objcg"))
    yield program_row(name, "time", "s", [(a[0], b[0]) for a, b in pairs])


def program_row(
    name: str, phase: str, unit: str, pairs: list[tuple[float, float]]
) -> dict[str, Any]:
    """Return a row that compares the two sides of these pairs."""
    return {
        "kind": "programs",
        "program": name,
        "phase": phase,
        "unit": unit,
        **compare([a for a, _ in pairs], [b for _, b in pairs]),
        "baseline": BASELINE,
    }


# ---- What is printed -----------------------------------------------------------------------------


class Progress:
    """A line that is rewritten, if there is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, text: str) -> None:
        """Show what is being measured; nothing ends it."""
        if self._stream.isatty():
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)


def machine(*, huge_pages: bool) -> str:
    """Return processor, number of processors, kernel and its setting for huge pages."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    try:
        setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
        pages = setting.partition("[")[2].partition("]")[0]
    except OSError:
        pages = "none"
    return (
        f"{model}, {len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}, "
        f"transparent huge pages: {pages if huge_pages else 'off for this run'}"
    )


def forbid_huge_pages() -> None:
    """Keep this process and its children from getting transparent huge pages (prctl(2))."""
    pr_set_thp_disable = 41
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_thp_disable, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def ratio_text(row: dict[str, Any]) -> str:
    """Return a ratio with its quartiles."""
    first, third = row["ratio_quartiles"]
    return f"{row['ratio']:.2f} ({first:.2f}-{third:.2f})"


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Print the rows for people, the phases of a case on one line."""
    blocks: dict[tuple[int, int, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    programs = []
    for row in rows:
        if row["kind"] == "blocks":
            blocks[row["size"], row["n"], row["pattern"]][row["phase"]] = row
        else:
            programs.append(row)
    if blocks:
        print_blocks(blocks)
    if programs:
        width = max(len(row["program"]) for row in programs)
        print(f"\n{'program':{width}}  {'':11}  {'stock':>11}  {'objcg':>11}  ratio")
        for row in programs:
            scale, unit = (1, "s  ") if row["unit"] == "s" else (1 << 20, "MiB")
            print(
                f"{row['program']:{width}}  {row['phase']:11}  {row['stock'] / scale:7.3f} {unit}"
                f" {row['objcg'] / scale:7.3f} {unit} {ratio_text(row)}"
            )


def print_blocks(blocks: dict[tuple[int, int, str], dict[str, dict[str, Any]]]) -> None:
    """Print the rows of kind "blocks"."""
    sides = f"  {'stock, ns':>18}  {'objcg, ns':>18}  ratio, objcg / stock"
    phase_names = f"  {'alloc':>8}  {'free':>8}" * 2 + f"  {'alloc':17}  {'free':17}  sum"
    print(f"\n{'':24}{sides}\n{'size':>4}  {'n':>9}  {'pattern':7}{phase_names}")
    for (size, n, pattern), phases in blocks.items():
        if pattern == "pair":
            both = phases["sum"]
            times = "".join(f"  {both[side]:>18.1f}" for side in ("stock", "objcg"))
            ratios = " " * 38
        else:
            times = "".join(
                f"  {phases[phase][side]:8.1f}"
                for side in ("stock", "objcg")
                for phase in ("alloc", "free")
            )
            ratios = "".join(f"{ratio_text(phases[phase]):17}  " for phase in ("alloc", "free"))
        print(f"{size:4}  {n:9,}  {pattern:7}{times}  {ratios}{ratio_text(phases['sum'])}")


def main() -> int:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help=f"in each of {PAIRS} pairs of processes (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="of blocks, those of 64 bytes only")
    parser.add_argument("--only", choices=("blocks", "programs"), help="one kind of rows")
    parser.add_argument(
        "--no-huge-pages", action="store_true", help="measure without transparent huge pages"
    )
    parser.add_argument(
        "--worn", action="store_true", help="measure all blocks in processes that were used before"
    )
    parser.add_argument("--worker", choices=("stock", "objcg"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return 0
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.no_huge_pages:
        forbid_huge_pages()
    progress = Progress(sys.stderr)
    rows: list[dict[str, Any]] = []
    if options.only != "programs":
        rows += bench_blocks(
            options.rounds, SIZES[:1] if options.quick else SIZES, progress, worn=options.worn
        )
    if options.only != "blocks":
        rows += bench_programs(PAIRS * options.rounds, progress)
    progress("")
    where = machine(huge_pages=not options.no_huge_pages)
    version = f"{platform.python_implementation()} {platform.python_version()}"
    if options.json:
        print(json.dumps({"name": "alloc", "machine": where, "python": version, "rows": rows}))
    else:
        print(f"{version} on {where}; {PAIRS * options.rounds} rounds")
        print_tables(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
