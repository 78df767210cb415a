"""What it costs to go from group to group: entries, steps of an event loop, moves, new groups.

What stock CPython can do, too, is measured there, by the same code in a process of its own that
never enables objcg.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import objcg

from ._worker import Worker, serve
from .figures import WHISKERS, Bars, Figure, Value
from .runner import (
    interleave,
    markdown_table,
    nothing,
    ratio_text,
    ratios,
    summary,
    text_table,
    with_quartiles,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from .runner import Options, Row

NAME = "switch"
DESCRIPTION = "entering a group, steps of asyncio in one, moves, new groups; beside stock CPython"
ROUNDS = 21

ROUNDS_OF_PROCESS = 3
"""In how many rounds a pair of processes is used: where things lie in memory is drawn for each."""

SIDES = ("stock", "objcg")
TASKS = 100
"""How many asyncio tasks take turns, each in a group of its own."""


class Case(NamedTuple):
    """An operation."""

    text: str
    operations: int
    goal: tuple[str, float] | None = None
    """A figure of the row, and the most it should be."""
    stock: str | None = None
    """What stock CPython does instead; None: it has nothing of the kind."""


CASES = {
    "enter": Case(
        "with group: (from root)", 200_000, ("ns_per_op", 250), "with contextlib.nullcontext():"
    ),
    "enter-nested": Case(
        "with group: (in a group)", 200_000, ("ns_per_op", 250), "with contextlib.nullcontext():"
    ),
    "step": Case(
        "await asyncio.sleep(0), one task", 40_000, ("ratio", 1.02), "the same without a group"
    ),
    "step-many": Case(
        f"await asyncio.sleep(0), {TASKS} tasks in turns, each in its group",
        100_000,
        ("ratio", 1.02),
        "the same without groups",
    ),
    "create-task": Case("await asyncio.create_task(...)", 20_000, None, "the same without a group"),
    "move": Case("task.move(group), between two groups", 100_000, ("ns_per_op", 1000)),
    "create-remove": Case("objcg.group(path).remove()", 5_000, ("ns_per_op", 3000)),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`: there are none."""


def run(options: Options) -> list[Row]:
    """Measure, in several pairs of processes; see `objcg.bench.Benchmark`."""
    asked = [
        (name, side)
        for name, case in CASES.items()
        for side in SIDES
        if side == "objcg" or case.stock is not None
    ]
    samples: dict[tuple[str, str], list[float]] = {cell: [] for cell in asked}
    facts: dict[tuple[str, str], Row] = {}
    divisor = 4 if options.quick else 1
    left = options.rounds
    number = 0
    while left:
        rounds = min(left, ROUNDS_OF_PROCESS)
        options.progress(f"switch: {options.rounds - left} of {options.rounds} rounds")
        with Worker(NAME, "stock") as stock, Worker(NAME, "objcg") as ours:
            workers = {"stock": stock, "objcg": ours}

            def measure(cell: tuple[str, str], workers: dict[str, Worker] = workers) -> float:
                name, side = cell
                answer = workers[side].ask([name, CASES[name].operations // divisor])
                facts[cell] = {key: answer[key] for key in ("enabled", "groups")}
                return float(answer["ns"])

            measured = interleave(asked, measure, rounds=rounds, seed=options.seed + number)
        for cell, values in zip(asked, measured, strict=True):
            samples[cell].extend(values)
        left -= rounds
        number += 1
    options.progress("")
    where = {"rounds": options.rounds, "processes": number, "seed": options.seed}
    return [
        {
            **_row(name, samples[name, "objcg"], samples.get((name, "stock"))),
            "operations": case.operations // divisor,
            "measured": {side: facts[name, side] for side in SIDES if (name, side) in facts},
            **where,
        }
        for name, case in CASES.items()
    ]


def _row(name: str, values: list[float], stock: list[float] | None) -> Row:
    case = CASES[name]
    row: Row = {
        "case": name,
        "operation": case.text,
        "clock": "processor time",
        **summary("ns_per_op", values),
        **(nothing("stock_ns") if stock is None else summary("stock_ns", stock)),
        **(nothing("ratio") if stock is None else summary("ratio", ratios(values, stock))),
        "baseline": None if stock is None else f"stock CPython: {case.stock}",
        "goal": None,
        "goal_met": None,
    }
    if case.goal is not None:
        figure, most = case.goal
        row |= {"goal": {"of": figure, "most": most}, "goal_met": row[figure] <= most}
    return row


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return what an operation takes on both sides, and the ratios, with the goals."""
    times, compared = [], []
    for row in rows:
        goals = {row["goal"]["of"]: row["goal"]["most"]} if row["goal"] else {}
        label, quartiles = row["operation"], row["ns_per_op_quartiles"]
        times.append(Value(label, row["ns_per_op"], quartiles, goal=goals.get("ns_per_op")))
        if row["stock_ns"] is not None:
            times.append(Value(label, row["stock_ns"], row["stock_ns_quartiles"], "stock"))
            value = Value(label, row["ratio"], row["ratio_quartiles"], goal=goals.get("ratio"))
            compared.append(value)
    panels = [
        Bars("processor time", "ns for one operation", times, logarithmic=True),
        Bars("beside stock CPython", "ratio to stock (above 1: worse)", compared, 1.0),
    ]
    return Figure(panels, notes=[WHISKERS])


_HEADINGS = ["operation", "stock, ns", "objcg, ns", "ratio", "goal"]


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    head = rows[0]
    how = (
        f"{head['rounds']} rounds in {head['processes']} pairs of processes. Nanoseconds of "
        "processor time for one operation, with quartiles; the loop around it is in them."
    )
    return f"{how}\n\n{text_table(_HEADINGS, _lines(rows))}\n\n{_baselines(rows)}"


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    return {NAME: markdown_table(_HEADINGS, _lines(rows))}


def _lines(rows: list[Row]) -> list[list[str]]:
    return [
        [
            row["operation"],
            with_quartiles(row, "stock_ns"),
            with_quartiles(row, "ns_per_op"),
            ratio_text(row),
            _goal_text(row),
        ]
        for row in rows
    ]


def _baselines(rows: list[Row]) -> str:
    return "\n".join(
        f"{row['operation']}: against {row['baseline']}" for row in rows if row["baseline"]
    )


def _goal_text(row: Row) -> str:
    if row["goal"] is None:
        return ""
    most = row["goal"]["most"]
    limit = f"{most:.2f}x" if row["goal"]["of"] == "ratio" else f"{most:,} ns"
    return f"<= {limit}: {'met' if row['goal_met'] else 'MISSED'}"


# ---- Processes that measure ----------------------------------------------------------------------


def main(side: str) -> None:
    """Be the process of one side."""
    if side == "objcg":
        objcg.enable()
    serve(lambda question: _measure(side, *question))


def _measure(side: str, name: str, operations: int) -> Row:
    """Return the nanoseconds of one operation, and where it was done."""
    groups: set[str] = set()
    ns = _OPERATIONS[name](side, operations, groups) / operations
    return {"ns": ns, "enabled": objcg.enabled(), "groups": sorted(groups)}


def _context(side: str, path: str) -> contextlib.AbstractContextManager[object]:
    return objcg.group(path) if side == "objcg" else contextlib.nullcontext()


def _see(side: str, groups: set[str]) -> None:
    """Take down the group that this code runs in."""
    if side == "objcg":
        groups.add(objcg.current_group().path)


def _enter(side: str, operations: int, groups: set[str]) -> int:
    context = _context(side, "/bench/entered")
    with context:
        _see(side, groups)
    turns = repeat(None, operations)  # no int is made for a turn
    start = time.process_time_ns()
    for _ in turns:
        with context:
            pass
    return time.process_time_ns() - start


def _enter_nested(side: str, operations: int, groups: set[str]) -> int:
    with _context(side, "/bench/outer"):
        _see(side, groups)
        return _enter(side, operations, groups)


def _step(side: str, operations: int, groups: set[str]) -> int:
    async def steps() -> int:
        with _context(side, "/bench/loop"):
            _see(side, groups)
            turns = repeat(None, operations)
            start = time.process_time_ns()
            for _ in turns:
                await asyncio.sleep(0)
            return time.process_time_ns() - start

    return asyncio.run(steps())


def _step_many(side: str, operations: int, groups: set[str]) -> int:
    async def steps(number: int, begin: asyncio.Event) -> None:
        with _context(side, f"/bench/loop/{number}"):
            _see(side, groups)
            await begin.wait()
            for _ in repeat(None, operations // TASKS):
                await asyncio.sleep(0)

    async def all_of_them() -> int:
        begin = asyncio.Event()
        tasks = [asyncio.create_task(steps(i, begin)) for i in range(TASKS)]
        await asyncio.sleep(0)  # all stand in their groups
        start = time.process_time_ns()
        begin.set()
        await asyncio.gather(*tasks)
        return time.process_time_ns() - start

    return asyncio.run(all_of_them())


def _create_task(side: str, operations: int, groups: set[str]) -> int:
    async def nothing_to_do() -> None:
        pass

    async def look() -> None:
        _see(side, groups)

    async def creations() -> int:
        with _context(side, "/bench/loop"):
            await asyncio.create_task(look())
            turns = repeat(None, operations)
            start = time.process_time_ns()
            for _ in turns:
                await asyncio.create_task(nothing_to_do())
            return time.process_time_ns() - start

    return asyncio.run(creations())


def _move(side: str, operations: int, groups: set[str]) -> int:
    here, there = objcg.group("/bench/here"), objcg.group("/bench/there")
    with here:
        task = objcg.current_task()
        _see(side, groups)
        task.move(there)
        _see(side, groups)
        turns = repeat(None, operations // 2)
        start = time.process_time_ns()
        for _ in turns:
            task.move(here)
            task.move(there)
        return time.process_time_ns() - start


def _create_remove(side: str, operations: int, groups: set[str]) -> int:
    made = objcg.group("/bench/made")
    with made:
        _see(side, groups)
    made.remove()
    turns = repeat(None, operations)
    start = time.process_time_ns()
    for _ in turns:
        objcg.group("/bench/made").remove()
    return time.process_time_ns() - start


_OPERATIONS: dict[str, Callable[[str, int, set[str]], int]] = {
    "enter": _enter,
    "enter-nested": _enter_nested,
    "step": _step,
    "step-many": _step_many,
    "create-task": _create_task,
    "move": _move,
    "create-remove": _create_remove,
}
