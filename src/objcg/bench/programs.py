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
from typing import TYPE_CHECKING

from . import _allocators
from ._programs import _process
from ._programs._process import STOCK, Result
from .runner import BenchmarkError, markdown_table, nothing, ratios, summary, text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .runner import Options, Row

NAME = "programs"
DESCRIPTION = "small programs that allocate much: processor time and peak memory beside stock"
ROUNDS = 5

PROGRAMS = ("dicts", "objects", "strings", "lists", "trees", "jsons", "tasks", "regex")

MEAN = "geometric mean"

_FOLDER = os.path.dirname(_process.__file__)
_QUICK_SCALE = 0.2


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
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
    _allocators.add_option(parser)


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
    names = options.extra.get("only") or PROGRAMS
    names = [name for name in PROGRAMS if name in names]
    scale = options.extra.get("scale") or (_QUICK_SCALE if options.quick else 1.0)
    libraries, skipped = _allocators.sides(options)
    results = _measure(names, libraries, scale, options)
    where = {"scale": scale, "rounds": options.rounds, "seed": options.seed}
    rows = [
        {**_row(name, side, results), "library": path, **where}
        for name in names
        for side, path in libraries.items()
    ]
    for side, path in libraries.items():
        if side != STOCK:
            rows.append({**_mean(side, rows), "library": path, **where})
    return rows + [{"program": None, **row} for row in skipped]


def _measure(
    names: list[str], libraries: dict[str, str | None], scale: float, options: Options
) -> dict[tuple[str, str], list[Result]]:
    """Run the sides of one program one after the other, in an order drawn anew each time."""
    order = random.Random(options.seed)  # noqa: S311  # an order, no secret
    results: dict[tuple[str, str], list[Result]] = {(n, s): [] for n in names for s in libraries}
    for number in range(options.rounds + 1):
        # the first round has everything read from disk, and is not counted
        asked = scale if number else scale / 100
        for name in order.sample(names, len(names)):
            output = {}
            for side in order.sample(list(libraries), len(libraries)):
                what = f"round {number} of {options.rounds}" if number else "warming up"
                options.progress(f"programs: {what}, {name}, {side}")
                result = _process.run(
                    side,
                    [os.path.join(_FOLDER, f"{name}.py"), str(asked)],
                    # the same for all sides of a round
                    hash_seed=options.seed + number,
                    library=libraries[side],
                )
                output[side] = result.output
                if number:
                    results[name, side].append(result)
            if len(set(output.values())) > 1:
                raise BenchmarkError(f"the sides of {name} did not do the same: {output}")
    options.progress("")
    return results


def _row(name: str, side: str, results: dict[tuple[str, str], list[Result]]) -> Row:
    mine, stock = results[name, side], results[name, STOCK]

    def compare(what: str, value: Callable[[Result], float]) -> Row:
        if side == STOCK:
            return nothing(what)
        return summary(what, ratios([value(r) for r in mine], [value(r) for r in stock]))

    return {
        "program": name,
        "side": side,
        **summary("cpu_seconds", [result.cpu_seconds for result in mine]),
        **summary("peak_bytes", [result.peak_bytes for result in mine]),
        **compare("ratio", lambda result: result.cpu_seconds),
        **compare("memory_ratio", lambda result: result.peak_bytes),
        "baseline": None if side == STOCK else STOCK,
        "group": mine[-1].group or None,
        "group_peak": statistics.median(result.group_peak for result in mine),
        "allocator": mine[-1].allocator or None,
    }


def _mean(side: str, rows: list[Row]) -> Row:
    """Return the geometric means over the programs."""
    of_side = [row for row in rows if row["side"] == side]
    return {
        "program": MEAN,
        "side": side,
        "ratio": geometric_mean(row["ratio"] for row in of_side),
        "memory_ratio": geometric_mean(row["memory_ratio"] for row in of_side),
        "baseline": STOCK,
    }


def geometric_mean(values: Iterable[float]) -> float:
    """Return it; the values are above 0."""
    return math.exp(statistics.fmean(map(math.log, values)))


# ---- Tables --------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    head = rows[0]
    how = (
        f"{head['rounds']} rounds, scale {head['scale']:g}. User and system time and peak resident "
        f"memory of the process;\nx: ratio to {STOCK}, with quartiles; !: above 1.00, worse."
    )
    parts = [
        how,
        *(f"{text}\n{text_table(*lines)}" for _, text, lines in _tables(rows)),
    ]
    parts += _allocators.skipped_text(rows)
    return "\n\n".join(parts)


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    return {name: markdown_table(*lines) for name, _, lines in _tables(rows)}


def _tables(rows: list[Row]) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    """Return name, what it shows, headings and lines of each."""
    rows = [row for row in rows if "skipped" not in row]
    names = list(dict.fromkeys(row["program"] for row in rows))
    sides = [side for side in dict.fromkeys(row["side"] for row in rows) if side != STOCK]
    by_cell = {(row["program"], row["side"]): row for row in rows}

    def lines(ratio: str, stock: Callable[[Row], str]) -> tuple[list[str], list[list[str]]]:
        return ["program", STOCK, *sides], [
            [
                name,
                stock(by_cell[name, STOCK]) if name != MEAN else "",
                *(marked(by_cell[name, side], ratio) for side in sides),
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


def marked(row: Row, name: str) -> str:
    """Return a ratio with its quartiles, where it has some; one that is a loss has a mark."""
    ratio = row[name]
    text = f"{'! ' if round(ratio, 2) > 1 else ''}{ratio:.2f}x"
    if row.get(f"{name}_quartiles"):
        first, third = row[f"{name}_quartiles"]
        text += f" ({first:.2f}-{third:.2f})"
    return text
