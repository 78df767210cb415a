"""From crossing ``memory.max`` to the error in the task: the time, and the bytes above the limit.

The offender notes the time before each block. All its blocks are of one size, so which of them
crosses the limit follows from what the group held before and that size, not from what objcg says.
The time runs from the note before that block until the error has been caught, outside the group;
the resolution of this clock is one turn of the loop, and is given beside it. (Asking for the
group's usage at each turn, or hearing of the event on another thread, would change what is
measured.) Where one call of C code makes all blocks, the blocks are the notes.

The bytes above the limit are those of the group's peak, with the making of the error. No more than
max/8 + 4 MiB is promised. Stock CPython has no limits, so nothing is compared.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import objcg

from ._worker import Worker, serve
from .figures import Bars, Figure, Value
from .runner import (
    interleave,
    markdown_table,
    nothing,
    summary,
    text_table,
    with_quartiles,
)

if TYPE_CHECKING:
    import argparse

    from .runner import Options, Row

NAME = "limits"
DESCRIPTION = "time from crossing memory.max to the error in the task, and bytes above the limit"
ROUNDS = 50

ROUNDS_OF_PROCESS = 10

LIMIT = 16 << 20
BOUND = LIMIT // 8 + (4 << 20)
"""How far the group may come above its limit."""
LENGTHS = (100, 1000)
"""Of the bytes objects, where the way does not say what is allocated."""

WAYS = {
    "large": "one allocation larger than the limit",
    "main": "small blocks on the main thread",
    "thread": "small blocks on another thread; the main thread waits",
    "thread-busy": "small blocks on another thread; the main thread computes",
    "task": "an asyncio task that awaits after ten small blocks, beside four of another group",
    "call": "one call of C code that makes ints",
    "call-list": "one call of C code that makes ints, into a list that grows",
}
_ONE_SIZE = frozenset({"large", "call", "call-list"})

Case = tuple[str, int]
"""Way and length."""

CASES: tuple[Case, ...] = tuple(
    (way, length) for way in WAYS for length in (LENGTHS[:1] if way in _ONE_SIZE else LENGTHS)
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--only",
        metavar="WAY",
        choices=WAYS,
        action="append",
        help=f"measure this one only; may be repeated ({', '.join(WAYS)})",
    )


def run(options: Options) -> list[Row]:
    """Measure, in several processes; see `objcg.bench.Benchmark`."""
    only = options.extra.get("only") or WAYS
    asked = [case for case in CASES if case[0] in only]
    samples: dict[Case, list[Row]] = {case: [] for case in asked}
    left = options.rounds
    number = 0
    while left:
        rounds = min(left, ROUNDS_OF_PROCESS)
        options.progress(f"limits: {options.rounds - left} of {options.rounds} rounds")
        taken: dict[Case, list[Row]] = {case: [] for case in asked}
        with Worker(NAME, None) as worker:

            def measure(
                case: Case,
                worker: Worker = worker,
                taken: dict[Case, list[Row]] = taken,
            ) -> float:
                taken[case].append(worker.ask(case))
                return 0

            interleave(asked, measure, rounds=rounds, seed=options.seed + number)
        for case, values in taken.items():
            samples[case] += values[1:]  # the first was the round that warms up
        left -= rounds
        number += 1
    options.progress("")
    where = {"rounds": options.rounds, "processes": number, "seed": options.seed}
    return [{**_row(way, samples[way, length]), **where} for way, length in asked]


def _row(way: str, samples: list[Row]) -> Row:
    def figures(name: str) -> Row:
        values = [float(sample[name]) for sample in samples if sample[name] is not None]
        if not values:
            return {**nothing(name), f"{name}_worst": None}
        return {**summary(name, values), f"{name}_worst": max(values)}

    errors = [sample["error"] for sample in samples]
    overshoot = figures("overshoot")
    return {
        "case": way,
        "what": WAYS[way],
        "block": samples[0]["block"],
        "limit": LIMIT,
        "clock": "elapsed time",
        **figures("ns"),
        **figures("step_ns"),
        **overshoot,
        "bound": BOUND,
        "bound_held": overshoot["overshoot_worst"] <= BOUND,
        **figures("blocks"),
        **figures("unexplained"),
        "errors": {error: errors.count(error) for error in sorted(set(errors))},
        "neighbour_errors": sum(len(sample["neighbour_errors"]) for sample in samples),
        "groups": sorted({sample["group"] for sample in samples}),
        **nothing("ratio"),
        "baseline": None,
    }


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the bytes above the limit, with the bound on them, and the time to the error."""
    above, times = [], []
    for row in rows:
        label = f"{row['case']}, blocks of {row['block']:,} bytes"
        worst = row["overshoot_worst"] / 1024
        above.append(Value(label, worst, goal=row["bound"] / 1024))
        quartiles = [number / 1024 for number in row["overshoot_quartiles"]]
        above.append(Value(label, row["overshoot"] / 1024, quartiles, "median"))
        if row["ns"] is not None:
            times.append(Value(label, row["ns_worst"] / 1000))
            quartiles = [number / 1000 for number in row["ns_quartiles"]]
            times.append(Value(label, row["ns"] / 1000, quartiles, "median"))
    panels = [
        Bars("above memory.max, with the bound on it", "KiB", above, logarithmic=False),
        Bars("from crossing the limit to the error", "microseconds", times, logarithmic=True),
    ]
    note = "objcg: the worst of all rounds; beside it the median, with its quartiles."
    return Figure([panel for panel in panels if panel.values], notes=[note])


_HEADINGS = [
    "way",
    "error",
    "block",
    "us",
    "worst",
    "clock, us",
    "KiB above max",
    "worst",
    "bound",
]


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    head = rows[0]
    how = (
        f"memory.max of {LIMIT >> 20} MiB, {head['rounds']} rounds in {head['processes']} "
        "processes. From crossing the limit to the error: microseconds, with quartiles and the "
        "worst of all, and the resolution of that clock; above max: the group's peak, "
        f"which is to be at most {BOUND >> 10:,} KiB. Stock CPython has no limits: "
        "nothing is compared."
    )
    ways = "\n".join(
        f"{way}: {text}" for way, text in WAYS.items() if way in {row["case"] for row in rows}
    )
    neighbours = sum(row["neighbour_errors"] for row in rows)
    said = f"Errors that a neighbour in another group got: {neighbours}"
    return f"{how}\n\n{ways}\n\n{text_table(_HEADINGS, _lines(rows), left=2)}\n\n{said}"


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    lines = [[row["what"], *line[1:]] for row, line in zip(rows, _lines(rows), strict=True)]
    return {NAME: markdown_table(_HEADINGS, lines, left=2)}


def _lines(rows: list[Row]) -> list[list[str]]:
    return [
        [
            row["case"],
            ", ".join(
                (error or "NONE") if len(row["errors"]) == 1 else f"{error or 'NONE'} ({count})"
                for error, count in row["errors"].items()
            ),
            f"{row['block']:,}",
            with_quartiles(row, "ns", 1, unit=1000),
            "" if row["ns_worst"] is None else f"{row['ns_worst'] / 1000:,.1f}",
            "" if row["step_ns"] is None else f"{row['step_ns'] / 1000:,.2f}",
            with_quartiles(row, "overshoot", 1, unit=1024),
            f"{row['overshoot_worst'] / 1024:,.1f}",
            "held" if row["bound_held"] else "EXCEEDED",
        ]
        for row in rows
    ]


# ---- The process that measures -------------------------------------------------------------------


def main(_: None) -> None:
    """Be the process that measures."""
    objcg.enable()
    offender = _load()
    serve(lambda case: offender.measure(case[0], LIMIT, case[1]))


def _load() -> Any:
    """Load the offender under a name that is not of the package: there it would not be stopped."""
    path = os.path.join(os.path.dirname(__file__), "_programs", "_offender.py")
    spec = importlib.util.spec_from_file_location("offender", path)
    assert spec is not None  # noqa: S101  # a file of ours
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
