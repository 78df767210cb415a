"""Small programs that allocate much, each a process of its own: processor time and peak memory.

What is measured is the whole process, with the start of the interpreter and of objcg, by what the
kernel says of it when it has ended. Other allocators that are loaded in place of malloc stand
beside where they are found; CPython then uses malloc for everything.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
from functools import partial
from typing import TYPE_CHECKING, Protocol

from . import _allocators
from ._programs import _process
from ._programs._process import STOCK, Result
from .figures import WHISKERS, Bars, Figure, Value
from .figures import left_out as left_out_notes
from .runner import BenchmarkError, markdown_table, nothing, ratios, summary, text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from .runner import Options, Row

NAME = "programs"
DESCRIPTION = "small programs that allocate much: processor time and peak memory beside stock"
ROUNDS = 5

PROGRAMS = ("dicts", "objects", "strings", "lists", "trees", "jsons", "tasks", "regex")

MEAN = "geometric mean"

Cell = tuple[str, str]
"""Program and side."""

_FOLDER = os.path.dirname(_process.__file__)
_QUICK_SCALE = 0.2


class RunSide(Protocol):
    """Runs one of the programs as a side, in a process of its own."""

    def __call__(self, command: list[str], *, hash_seed: int) -> Result:
        """Run it; the command is its path and arguments."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    add_program_options(parser)
    _allocators.add_option(parser)


def add_program_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which programs are measured, and how large."""
    parser.add_argument(
        "--only",
        metavar="PROGRAM",
        choices=PROGRAMS,
        action="append",
        help=f"measure this one only; may be repeated ({', '.join(PROGRAMS)})",
    )
    parser.add_argument(
        "--scale",
        metavar="X",
        type=parse_scale,
        help=f"how much each program does (default: 1, about 1 s; {_QUICK_SCALE} with --quick)",
    )


def parse_scale(text: str) -> float:
    """Return what an option says of how much to do.

    Raises:
        argparse.ArgumentTypeError: it is out of range.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1000")
    return number


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    libraries, skipped = _allocators.sides(options)
    sides = {side: partial(_process.run, side, library=path) for side, path in libraries.items()}
    rows = measure(NAME, sides, options)
    rows = [{**row, "library": libraries[row["side"]]} for row in rows]
    return rows + [{"program": None, **row} for row in skipped]


def measure(
    benchmark: str,
    sides: Mapping[str, RunSide],
    options: Options,
    *,
    may_fail: Collection[str] = (),
    baseline: str = STOCK,
) -> list[Row]:
    """Measure the programs asked for as all sides; return a row for each of both, and the means.

    One of the sides is the baseline of the others' ratios. The sides of one program run one after
    the other, in an order drawn anew each time. A side that may fail has a row with the reason,
    under "failed", for each program on which it does.

    Raises:
        BenchmarkError: another side failed, or not all did the same.
    """
    names = options.extra.get("only") or PROGRAMS
    names = [name for name in PROGRAMS if name in names]
    scale = options.extra.get("scale") or (_QUICK_SCALE if options.quick else 1.0)
    order = random.Random(options.seed)  # noqa: S311  # an order, no secret
    results: dict[Cell, list[Result]] = {(n, s): [] for n in names for s in sides}
    failures: dict[Cell, str] = {}
    for number in range(options.rounds + 1):
        # the first round has everything read from disk, and is not counted
        asked = scale if number else scale / 100
        for name in order.sample(names, len(names)):
            output = {}
            for side in order.sample(list(sides), len(sides)):
                if (name, side) in failures:
                    continue
                what = f"round {number} of {options.rounds}" if number else "warming up"
                options.progress(f"{benchmark}: {what}, {name}, {side}")
                command = [os.path.join(_FOLDER, f"{name}.py"), str(asked)]
                try:
                    # the same for all sides of a round
                    result = sides[side](command, hash_seed=options.seed + number)
                except BenchmarkError as error:
                    if side not in may_fail:
                        raise
                    # what warms up is short, and a profiler may see nothing of it
                    if number:
                        failures[name, side] = f"{what}: {error}"
                    continue
                output[side] = result.output
                if number:
                    results[name, side].append(result)
            if len(set(output.values())) > 1:
                raise BenchmarkError(f"the sides of {name} did not do the same: {output}")
    options.progress("")
    rows = [
        _failure(name, side, failures[name, side])
        if (name, side) in failures
        else _row(name, side, results, baseline)
        for name in names
        for side in sides
    ]
    rows += [_mean(side, rows, baseline) for side in sides if side != baseline]
    where = {"scale": scale, "rounds": options.rounds, "seed": options.seed}
    return [{**row, **where} for row in rows]


def _failure(name: str, side: str, reason: str) -> Row:
    """Return the row of a program on which a side failed."""
    none = {**nothing("ratio"), **nothing("memory_ratio"), "baseline": None}
    return {"program": name, "side": side, "failed": reason, **none}


def _row(name: str, side: str, results: dict[Cell, list[Result]], baseline: str) -> Row:
    mine, base = results[name, side], results[name, baseline]

    def compare(what: str, value: Callable[[Result], float]) -> Row:
        if side == baseline:
            return nothing(what)
        return summary(what, ratios([value(r) for r in mine], [value(r) for r in base]))

    return {
        "program": name,
        "side": side,
        **summary("cpu_seconds", [result.cpu_seconds for result in mine]),
        **summary("peak_bytes", [result.peak_bytes for result in mine]),
        **compare("ratio", lambda result: result.cpu_seconds),
        **compare("memory_ratio", lambda result: result.peak_bytes),
        "baseline": None if side == baseline else baseline,
        "group": mine[-1].group or None,
        "group_peak": statistics.median(result.group_peak for result in mine),
        "allocator": mine[-1].allocator or None,
    }


def _mean(side: str, rows: list[Row], baseline: str) -> Row:
    """Return the geometric means over the programs that the side could run."""
    of_side = [row for row in rows if row["side"] == side]
    measured = [row for row in of_side if "failed" not in row]
    if not measured:
        return _failure(MEAN, side, "no program was measured")
    return {
        "program": MEAN,
        "side": side,
        "ratio": geometric_mean(row["ratio"] for row in measured),
        "memory_ratio": geometric_mean(row["memory_ratio"] for row in measured),
        "baseline": baseline,
        "programs": len(measured),
        "programs_asked": len(of_side),
    }


def geometric_mean(values: Iterable[float]) -> float:
    """Return it; the values are above 0."""
    return math.exp(statistics.fmean(map(math.log, values)))


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios of both, program by program, all sides beside each other."""
    panels = []
    for name, title in (("ratio", "processor time"), ("memory_ratio", "peak memory")):
        values = [
            Value(row["program"], row[name], row.get(f"{name}_quartiles"), row["side"])
            for program in dict.fromkeys(row["program"] for row in rows)
            for row in rows
            if row["program"] == program and row.get(name) is not None
        ]
        panels.append(Bars(title, f"ratio to {STOCK} (above 1: worse)", values, 1.0))
    return Figure(panels, columns=2, notes=[WHISKERS, *left_out_notes(rows)])


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    head = rows[0]
    how = (
        f"{head['rounds']} rounds, scale {head['scale']:g}. User and system time and peak resident "
        f"memory of the process;\nx: ratio to {STOCK}, with quartiles; !: above 1.00, worse."
    )
    parts = [
        how,
        *(f"{text}\n{text_table(*lines)}" for _, text, lines in tables(rows)),
    ]
    parts.append("\n".join(left_out(rows)))
    return "\n\n".join(filter(None, parts))


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    return {name: markdown_table(*lines) for name, _, lines in tables(rows)}


def left_out(rows: list[Row]) -> list[str]:
    """Return a line for each side that was skipped or failed, with the reason."""
    lines = _allocators.skipped_text(rows)
    lines += [
        f"{row['side']} FAILED, {row['program']}: {row['failed']}"
        for row in rows
        if "failed" in row
    ]
    return lines


def tables(
    rows: list[Row], *, quartiles: bool = True, baseline: str = STOCK
) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    """Return name, what it shows, headings and lines of each."""
    rows = [row for row in rows if "skipped" not in row]
    names = list(dict.fromkeys(row["program"] for row in rows))
    sides = [side for side in dict.fromkeys(row["side"] for row in rows) if side != baseline]
    by_cell = {(row["program"], row["side"]): row for row in rows}

    def lines(ratio: str, base: Callable[[Row], str]) -> tuple[list[str], list[list[str]]]:
        return ["program", baseline, *sides], [
            [
                name,
                base(by_cell[name, baseline]) if name != MEAN else "",
                *(_cell(by_cell[name, side], ratio, quartiles=quartiles) for side in sides),
            ]
            for name in names
        ]

    return [
        ("time", "processor time:", lines("ratio", lambda row: f"{row['cpu_seconds']:.2f} s")),
        (
            "memory",
            "peak memory:",
            lines("memory_ratio", lambda row: f"{row['peak_bytes'] / 2**20:.1f} MiB"),
        ),
    ]


def _cell(row: Row, ratio: str, *, quartiles: bool) -> str:
    if "failed" in row:
        return "FAILED"
    text = marked(row, ratio, quartiles=quartiles)
    if row.get("programs") != row.get("programs_asked"):
        text += f" ({row['programs']} of {row['programs_asked']})"
    return text


def marked(row: Row, name: str, *, quartiles: bool = True) -> str:
    """Return a ratio with its quartiles, where it has some; one that is a loss has a mark."""
    ratio = row[name]
    text = f"{'! ' if round(ratio, 2) > 1 else ''}{ratio:.2f}x"
    if quartiles and row.get(f"{name}_quartiles"):
        first, third = row[f"{name}_quartiles"]
        text += f" ({first:.2f}-{third:.2f})"
    return text
