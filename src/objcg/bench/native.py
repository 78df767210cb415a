"""What it costs that malloc() is charged, in code of C that calls it much, and in programs.

- "working-set": some 10,000 blocks of 16 to 4095 bytes live together, half of them below 32 bytes.
  One operation reads a random one, frees it, allocates another in its place and writes all of that.
- "pair-64", "pair-1024": nothing but malloc() of so many bytes and free() of the same block, which
  glibc takes from a list of the thread and puts back. There is no code of which more is malloc().

Each side is a process of its own: "plain" is without the preload library, "preloaded" has it and
does not enable objcg, as a child has it that inherits LD_PRELOAD, and "charged" has it and enables
objcg, in a child group. C code runs between two readings of the clock, and nothing else; the clock
is the processor time of the thread. A round is a set of such processes, which measure each case
several times, in turns.

- "programs": those of `objcg bench programs`, in which Python allocates and C code little. There
  both sides enable objcg, with the library and without.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import objcg
from objcg import _core
from objcg.cli import preload

from . import programs
from ._programs import _process
from ._programs._process import OBJCG
from ._worker import Worker, serve
from .figures import OURS, WHISKERS, Bars, Figure, Value
from .runner import (
    BenchmarkError,
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
    from collections.abc import Iterator

    from .programs import RunSide
    from .runner import Options, Row

NAME = "native"
DESCRIPTION = "malloc() in C code: the preload library loaded, and charging, beside without it"
ROUNDS = 5

TURNS = 9
"""How often the processes of a round measure each case of C code."""

PLAIN, PRELOADED, CHARGED = "plain", "preloaded", "charged"
SIDES = (PLAIN, PRELOADED, CHARGED)

LOADED = "loaded"
"""Of the programs: the side beside `OBJCG`, which is without the library."""

MALLOC, PROGRAMS = "malloc", "programs"
"""Kinds of rows."""

BLOCKS = 10_000
"""Of the working set."""

GOAL = 1.10
"""The most that the working set may take on the sides that have the library."""
PROGRAMS_GOAL = 1.00
"""The most that the programs may take, their mean."""

_OPERATIONS, _QUICK_OPERATIONS = 1_000_000, 20_000
_QUICK_SCALE = 0.05


class Case(NamedTuple):
    """What is called in C."""

    text: str
    size: int | None
    """Of the blocks, where they have one size."""
    goal: float | None = None


CASES = {
    "working-set": Case(f"{BLOCKS:,} blocks replaced at random, and written", None, GOAL),
    "pair-64": Case("malloc(64) and free", 64),
    "pair-1024": Case("malloc(1024) and free", 1024),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    names = (*CASES, PROGRAMS)
    parser.add_argument(
        "--only",
        metavar="CASE",
        choices=names,
        action="append",
        help=f"measure this one only; may be repeated ({', '.join(names)})",
    )
    parser.add_argument(
        "--scale",
        metavar="X",
        type=programs.parse_scale,
        help=f"how much each program does (default: 1, about 1 s; {_QUICK_SCALE} with --quick)",
    )


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    library = preload.path()
    if library is None:
        raise BenchmarkError(f"{preload.LIBRARY} is not installed beside {_core.__file__}")
    only = options.extra.get("only") or (*CASES, PROGRAMS)
    cases = [case for case in CASES if case in only]
    rows = _malloc(cases, library, options) if cases else []
    return rows + (_programs(library, options) if PROGRAMS in only else [])


# ---- Calls from C --------------------------------------------------------------------------------


def _malloc(cases: list[str], library: str, options: Options) -> list[Row]:
    samples: dict[tuple[str, str], list[Row]] = {(c, s): [] for c in cases for s in SIDES}
    operations = _QUICK_OPERATIONS if options.quick else _OPERATIONS
    turns = 1 if options.quick else TURNS
    for number in range(options.rounds):
        options.progress(f"{NAME}: {number} of {options.rounds} rounds")
        with contextlib.ExitStack() as stack:
            workers = {
                side: stack.enter_context(
                    Worker(NAME, side, library=None if side == PLAIN else library, for_python=False)
                )
                for side in SIDES
            }
            for case in cases:
                taken = _turns(workers, case, operations, turns, options.seed + number)
                for side, answers in taken.items():
                    samples[case, side] += answers
    options.progress("")
    where = {"rounds": options.rounds, "turns": turns, "seed": options.seed}
    return [{**_row(*cell, samples, operations), **where} for cell in samples]


def _turns(
    workers: dict[str, Worker], case: str, operations: int, turns: int, seed: int
) -> dict[str, list[Row]]:
    """Measure a case that many times, the sides in turns; return the answers of each.

    Raises:
        BenchmarkError: a process was not its side, or the sides did not do the same.
    """
    taken: dict[str, list[Row]] = {side: [] for side in SIDES}

    def measure(side: str) -> float:
        answer = workers[side].ask((case, operations))
        _check(side, answer["measured"])
        taken[side].append(answer)
        return 0

    interleave(SIDES, measure, rounds=turns, seed=seed)
    for i in range(turns + 1):
        did = {side: (answers[i]["sum"], answers[i]["held"]) for side, answers in taken.items()}
        if len(set(did.values())) > 1:
            raise BenchmarkError(f"the sides of {case} did not do the same: {did}")
    # the first warms up
    return {side: answers[1:] for side, answers in taken.items()}


def _check(side: str, facts: Row) -> None:
    charged = side == CHARGED
    right = {
        "loaded": side != PLAIN,
        "enabled": charged,
        "charging": charged,
        "group": "/bench" if charged else None,
        "drift": 0 if charged else None,
    }
    same = {name: facts[name] for name in right} == right
    # The blocks that are there are charged, and there is nothing else to charge that comes near.
    if charged:
        same &= facts["held"] <= facts["native"] <= 2 * facts["held"]
    else:
        same &= facts["native"] is None
    if not same:
        raise BenchmarkError(f"the process of the side {side!r} was something else: {facts}")


def _row(case: str, side: str, samples: dict[tuple[str, str], list[Row]], operations: int) -> Row:
    ns = {of: [answer["ns"] for answer in samples[case, of]] for of in (PLAIN, side)}
    compared = side != PLAIN
    goal = CASES[case].goal if compared else None
    row: Row = {
        "kind": MALLOC,
        "case": case,
        "what": CASES[case].text,
        "side": side,
        "clock": "processor time",
        **summary("ns", ns[side]),
        **(summary("ratio", ratios(ns[side], ns[PLAIN])) if compared else nothing("ratio")),
        "baseline": PLAIN if compared else None,
        "goal": None if goal is None else {"of": "ratio", "most": goal},
        "goal_met": None,
        "operations": operations,
        "measured": samples[case, side][-1]["measured"],
    }
    if goal is not None:
        row["goal_met"] = row["ratio"] <= goal
    return row


# ---- Programs ------------------------------------------------------------------------------------


def _programs(library: str, options: Options) -> list[Row]:
    sides: dict[str, RunSide] = {
        OBJCG: partial(_process.run, OBJCG),
        LOADED: partial(_process.run, OBJCG, library=library, for_python=False),
    }
    scale = options.extra.get("scale") or (_QUICK_SCALE if options.quick else 1.0)
    asked = dataclasses.replace(options, extra={"scale": scale})
    rows = programs.measure(NAME, sides, asked, baseline=OBJCG)
    return [{"kind": PROGRAMS, **row, "native": row["side"] == LOADED} for row in rows]


# ---- Picture and tables --------------------------------------------------------------------------


def _of(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def figure(rows: list[Row]) -> Figure:
    """Return the ratios of the calls from C, and those of the programs."""
    calls = [
        Value(
            row["what"],
            row["ratio"],
            row["ratio_quartiles"],
            row["side"],
            goal=row["goal"] and row["goal"]["most"],
        )
        for row in _of(rows, MALLOC)
        if row["ratio"] is not None
    ]
    panels = [Bars("malloc and free", f"ratio to {PLAIN} (above 1: worse)", calls, 1.0)]
    for name, title in (("ratio", "processor time"), ("memory_ratio", "peak memory")):
        values = [
            Value(row["program"], row[name], row.get(f"{name}_quartiles"), OURS)
            for row in _of(rows, PROGRAMS)
            if row[name] is not None
        ]
        axis = "ratio to objcg without the library (above 1: worse)"
        panels.append(Bars(f"programs: {title}", axis, values, 1.0))
    return Figure([panel for panel in panels if panel.values], notes=[WHISKERS])


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    parts = []
    calls, of_programs = _of(rows, MALLOC), _of(rows, PROGRAMS)
    if calls:
        head = calls[0]
        parts += [
            (
                "malloc and free: nanoseconds of an operation, processor time, of "
                f"{head['operations']:,} each time; {head['rounds']} rounds, each of "
                f"{head['turns']} turns of processes of its own; x: ratio to {PLAIN}, with "
                "quartiles."
            ),
            text_table(_HEADINGS, _lines(calls), left=2),
        ]
    if of_programs:
        head = of_programs[0]
        parts.append(
            f"Programs with objcg enabled: {LOADED} beside not loaded; {head['rounds']} rounds, "
            f"scale {head['scale']:g}. User and system time and peak resident memory of the "
            "process; !: above 1.00, worse."
        )
        parts += [
            f"{text}\n{text_table(*lines)}"
            for _, text, lines in programs.tables(of_programs, baseline=OBJCG)
        ]
    return "\n\n".join(parts)


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    found = {}
    calls, of_programs = _of(rows, MALLOC), _of(rows, PROGRAMS)
    if calls:
        found[MALLOC] = markdown_table(_HEADINGS, _lines(calls), left=2)
    if of_programs:
        for name, _, lines in programs.tables(of_programs, baseline=OBJCG):
            found[f"{PROGRAMS}, {name}"] = markdown_table(*lines)
    return found


_HEADINGS = ["case", "side", "ns", f"to {PLAIN}", "goal"]


def _lines(rows: list[Row]) -> Iterator[list[str]]:
    for row in rows:
        goal = ""
        if row["goal"] is not None:
            goal = f"<= {row['goal']['most']:.2f}x: {'met' if row['goal_met'] else 'MISSED'}"
        yield [row["what"], row["side"], with_quartiles(row, "ns", 1), ratio_text(row), goal]


# ---- The processes that measure ------------------------------------------------------------------


def main(side: str) -> None:
    """Be the process of one side."""
    if side == CHARGED:
        objcg.enable()
    with objcg.group("/bench") if side == CHARGED else contextlib.nullcontext():
        working_set = _core.new_working_set(BLOCKS)
        serve(lambda question: _measure(working_set, *question))


def _measure(working_set: Any, case: str, operations: int) -> Row:
    """Return nanoseconds of an operation, what was done, and where."""
    size = CASES[case].size
    if size is None:
        ns, seen, held = _core.time_working_set(working_set, operations)
    else:
        ns = _core.time_native_pair(operations, size)
        # the blocks of the working set are there all the same
        _, seen, held = _core.time_working_set(working_set, 1)
    enabled = objcg.enabled()
    group = objcg.current_group() if enabled else None
    return {
        "ns": ns,
        "sum": seen,
        "held": held,
        "measured": {
            "loaded": _core.native_loaded(),
            "enabled": enabled,
            "charging": _core.native_state() is None,
            "group": group and group.path,
            "native": group and group.memory.stat["native"],
            "held": held,
            "drift": objcg.audit().drift if enabled else None,
        },
    }
