"""How many instructions the same programs run with objcg and without, counted by valgrind.

A count says less than a time: instructions that wait for memory or for each other count as any
others, and what the kernel does does not count. But it is the same each time, whatever else the
machine does, so that a difference of a hundredth is one. Each side runs in a process of its own;
what is counted of it lies between two marks, after a run at a tenth of the scale.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from . import _callgrind, _counted
from ._programs import _process
from ._programs._process import OBJCG, STOCK
from .figures import Bars, Figure, Value
from .runner import BenchmarkError, markdown_table, text_table

if TYPE_CHECKING:
    from .runner import Options, Row

NAME = "instructions"
DESCRIPTION = "instructions of small programs beside stock, counted by valgrind and not timed"
ROUNDS = 2

SPREAD = 0.001
"""Counts of the same that differ by more are no counts that can be compared."""

SIDES = (STOCK, OBJCG)

START = "start"
"""The program that does nothing: all of its process is counted, from its start to its end."""

_FOLDER = os.path.dirname(_counted.__file__)
_PROGRAMS_FOLDER = os.path.dirname(_process.__file__)


class Program(NamedTuple):
    """What is run."""

    scale: float
    """Of full size: some hundred million instructions."""
    folder: str = _PROGRAMS_FOLDER
    operation: str | None = None
    """What it does many times, if it is one thing; it says how often."""


PROGRAMS = {
    START: Program(0),
    "pair": Program(0.5, _FOLDER, "a block of 64 bytes, and its free"),
    "enter": Program(0.2, _FOLDER, "with group:"),
    "step": Program(0.2, _FOLDER, "await asyncio.sleep(0)"),
    "dicts": Program(0.04),
    "objects": Program(0.01),
    "strings": Program(0.02),
    "lists": Program(0.067),  # one of each size
    "jsons": Program(0.04),
    "tasks": Program(0.02),
}

_QUICK = 0.1

_MARK = "sched_get_priority_min"

_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    # a count with the writing of a file in it is not the count of the next run
    "PYTHONDONTWRITEBYTECODE": "1",
}

# Where the interpreter and objcg find what they need; all else would only be copied by them.
_KEPT = ("LD_LIBRARY_PATH", "OBJCG_DIR", "XDG_RUNTIME_DIR")

_HOOKS = ("malloc", "calloc", "realloc")
_DOMAINS = ("object", "mem", "raw")


class Count(NamedTuple):
    """What was counted of one process."""

    by_object: dict[str, int]
    allocations: int | None
    """Calls of objcg's hooks; None without objcg, or where their names were stripped."""
    output: str

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.by_object.values())


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--only",
        metavar="PROGRAM",
        choices=PROGRAMS,
        action="append",
        help=f"count this one only; may be repeated ({', '.join(PROGRAMS)})",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        help="count so many processes at once (default: one for each CPU)",
    )


def _jobs(text: str) -> int:
    number = int(text)
    if not 0 < number <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1024")
    return number


def run(options: Options) -> list[Row]:
    """Count; see `objcg.bench.Benchmark`."""
    valgrind = _callgrind.find(f"objcg bench {NAME}")
    only = options.extra.get("only") or PROGRAMS
    jobs = options.extra.get("jobs") or len(os.sched_getaffinity(0))
    factor = _QUICK if options.quick else 1.0
    asked = [
        (name, side, PROGRAMS[name].scale * factor)
        for name in PROGRAMS
        if name in only
        for _ in range(options.rounds)
        for side in SIDES
    ]
    done = 0

    def one(what: tuple[str, str, float]) -> Count:
        nonlocal done
        options.progress(f"{NAME}: {done} of {len(asked)} processes, {what[0]}, {what[1]}")
        count = _count(*what, valgrind=valgrind, hash_seed=options.seed)
        done += 1
        return count

    for name, program in PROGRAMS.items():
        if name in only:
            for side in SIDES:
                # whatever is compiled or found on the first run only
                _count(name, side, program.scale * _QUICK**2, hash_seed=options.seed)
    counts: dict[tuple[str, str], list[Count]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for (name, side, _), count in zip(asked, pool.map(one, asked), strict=True):
            counts.setdefault((name, side), []).append(count)
    options.progress("")
    where = {"rounds": options.rounds, "seed": options.seed, "hash_seed": options.seed}
    return [
        {**_row(name, counts[name, STOCK], counts[name, OBJCG]), **where}
        for name in PROGRAMS
        if name in only
    ]


def _row(name: str, stock: list[Count], ours: list[Count]) -> Row:
    """Return the counts of both sides: of each, the median, with what was counted in it."""
    program = PROGRAMS[name]
    outputs = {count.output for count in stock + ours}
    if len(outputs) > 1:
        raise BenchmarkError(f"the sides of {name} did not do the same: {sorted(outputs)}")
    chosen = {STOCK: _median(stock), OBJCG: _median(ours)}
    totals = {side: chosen[side].total for side in SIDES}
    allocations = chosen[OBJCG].allocations
    operations = int(chosen[OBJCG].output) if program.operation else None
    return {
        "program": name,
        "operation": program.operation,
        "stock_instructions": totals[STOCK],
        "objcg_instructions": totals[OBJCG],
        "ratio": totals[OBJCG] / totals[STOCK],
        "baseline": STOCK,
        "stock_spread": _spread(stock),
        "objcg_spread": _spread(ours),
        "stock_by_object": chosen[STOCK].by_object,
        "objcg_by_object": chosen[OBJCG].by_object,
        "operations": operations,
        "allocations": allocations,
        "extra_per_allocation": (totals[OBJCG] - totals[STOCK]) / allocations
        if allocations
        else None,
        "core_per_allocation": chosen[OBJCG].by_object.get("_core", 0) / allocations
        if allocations
        else None,
    }


def _median(counts: list[Count]) -> Count:
    """Return the count in the middle."""
    middle = statistics.median_low(count.total for count in counts)
    return next(count for count in counts if count.total == middle)


def _spread(counts: list[Count]) -> float | None:
    """Return by which part counts of the same differed; of one, nothing is known."""
    if len(counts) == 1:
        return None
    totals = [count.total for count in counts]
    return max(totals) / min(totals) - 1


# ---- One process ---------------------------------------------------------------------------------


def _count(
    name: str, side: str, scale: float, *, hash_seed: int, valgrind: str | None = None
) -> Count:
    """Run a program as that side; without valgrind nothing is counted."""
    command = [os.path.join(_FOLDER, "between_marks.py")]
    if name != START:
        command += [os.path.join(PROGRAMS[name].folder, f"{name}.py"), str(scale)]
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ} | _ENVIRONMENT
    if valgrind is None:
        del environment["PYTHONDONTWRITEBYTECODE"]
        result = _process.run(side, command, hash_seed=hash_seed, environ=environment)
        return Count({}, None, result.output)
    with tempfile.TemporaryDirectory(prefix="objcg-bench-") as folder:
        written = os.path.join(folder, "callgrind.out")
        # a folder with files of processes that died makes enable() look through them
        environment["OBJCG_DIR"] = os.path.join(folder, "regions")
        # callgrind knows it by one of its two names in the C library
        marks = [f"--dump-before={prefix}{_MARK}" for prefix in ("", "__")]
        output = _process.run(
            side,
            command,
            hash_seed=hash_seed,
            under=_callgrind.command(valgrind, written, *marks),
            environ=environment,
        ).output
        return _read(written, name, side, output)


def _read(result: str, name: str, side: str, output: str) -> Count:
    """Read what callgrind wrote: a file at each mark, of what came before, and one at the end."""
    at_marks = sum(os.path.exists(f"{result}.{number}") for number in (1, 2, 3))
    if at_marks != (0 if name == START else 2):
        raise BenchmarkError(f"valgrind saw {at_marks} marks of {name}, {side}, and not 2")
    with open(result if name == START else f"{result}.2", encoding="utf-8") as file:
        text = file.read()
    by_object: dict[str, int] = {}
    for path, instructions in _callgrind.by_object(text).items():
        by_object[_short(path)] = by_object.get(_short(path), 0) + instructions
    if not by_object:
        raise BenchmarkError(f"valgrind counted nothing of {name}, {side}")
    allocations = sum(
        calls
        for called, calls in _callgrind.calls(text).items()
        if _short(called.file) == "_core" and called.function in _hooks()
    )
    ordered = dict(sorted(by_object.items(), key=lambda item: -item[1]))
    return Count(ordered, allocations or None, output)


def _hooks() -> set[str]:
    return {f"{domain}_{hook}" for domain in _DOMAINS for hook in _HOOKS}


def _short(file: str) -> str:
    """Return what a file is: "python", be it the program or a library, or its name alone."""
    if file.startswith("libpython") or file == os.path.basename(os.path.realpath(sys.executable)):
        return "python"
    if file.startswith("ld-"):
        return "ld.so"
    return file.partition(".")[0]


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios, and the instructions of one operation where a program repeats one."""
    ratios = [Value(row["program"], row["ratio"]) for row in rows]
    operations = [
        Value(row["operation"], row[f"{side}_instructions"] / row["operations"], series=side)
        for row in rows
        if row["operations"]
        for side in SIDES
    ]
    panels = [Bars("whole program", f"ratio to {STOCK} (above 1: more)", ratios, 1.0)]
    if operations:
        text = "instructions, with the loop around it"
        panels.append(Bars("one operation", text, operations, logarithmic=False))
    note = f"Instructions, not time. {_repeatable(rows)}"
    return Figure(panels, notes=[note])


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    how = (
        f"Each process counted {rows[0]['rounds']} times. !: more than stock. Instructions that "
        "the kernel runs are not counted; nor is\nwaiting, so a ratio here is not one of times. "
        "For an allocation: its free, and all that it costs otherwise, is in it."
    )
    parts = [how, *(f"{text}\n{text_table(*lines)}" for _, text, lines in _tables(rows))]
    return "\n\n".join([*parts, _repeatable(rows)])


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    return {name: markdown_table(*lines) for name, _, lines in _tables(rows)}


def _repeatable(rows: list[Row]) -> str:
    """Say whether the counts can be compared."""
    spreads = [
        (row[f"{side}_spread"], row["program"], side)
        for row in rows
        for side in SIDES
        if row[f"{side}_spread"] is not None
    ]
    if not spreads:
        return "Counted once: whether a count is the same again is not known."
    worst, program, side = max(spreads)
    text = f"Counts of the same differed by at most {worst:.4%} ({program}, {side})"
    if worst < SPREAD:
        return f"{text}."
    return f"ERROR: {text}; from {SPREAD:.1%} on they cannot be compared."


def _tables(rows: list[Row]) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    """Return name, what it shows, headings and lines of each."""
    files = [
        (row["program"], side, row[f"{side}_by_object"], row[f"{side}_instructions"])
        for row in rows
        for side in SIDES
    ]
    most: dict[str, float] = {}
    for _, _, by_object, total in files:
        for file, count in by_object.items():
            most[file] = max(most.get(file, 0), count / total)
    shown = sorted((file for file in most if most[file] >= 0.01), key=lambda file: -most[file])
    per_operation = [row for row in rows if row["operations"]]
    tables = [
        (
            "instructions",
            "millions of instructions, and how many more objcg's side runs for an allocation:",
            (
                ["program", STOCK, OBJCG, "ratio", "allocations", "more for each", "of _core"],
                [
                    [
                        row["program"],
                        _millions(row["stock_instructions"]),
                        _millions(row["objcg_instructions"]),
                        f"{'! ' if round(row['ratio'], 3) > 1 else ''}{row['ratio']:.3f}x",
                        f"{row['allocations']:,}" if row["allocations"] else "",
                        _one_digit(row["extra_per_allocation"]),
                        _one_digit(row["core_per_allocation"]),
                    ]
                    for row in rows
                ],
            ),
        ),
        (
            "files",
            "of which in each file, in millions:",
            (
                ["program", "side", *shown, "others"],
                [
                    [
                        program,
                        side,
                        *(_millions(by_object.get(file, 0)) for file in shown),
                        _millions(total - sum(by_object.get(file, 0) for file in shown)),
                    ]
                    for program, side, by_object, total in files
                ],
            ),
        ),
    ]
    if per_operation:
        lines = [
            [
                row["operation"],
                *(_one_digit(row[f"{side}_instructions"] / row["operations"]) for side in SIDES),
            ]
            for row in per_operation
        ]
        tables.append(
            (
                "operations",
                "instructions of one operation, with the loop around it:",
                (["operation", *SIDES], lines),
            )
        )
    return tables


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}"


def _one_digit(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
