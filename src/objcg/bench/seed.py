"""The kernel thread that objcg comes from: its variants of one step, measured on objcg's core.

The thread discusses how a kernel allocation finds what it is charged to. lab/ has each way of it as
a change of one step of the real core; docs/thread.md says what each answer means. The kernel's own
figures, from the patch series, stand beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _lab_instructions, _lab_process
from ._lab_process import Case
from ._seed_cases import BASELINE, COUNTED, PATH, STEPS_OF_FORK, VARIANTS, cells
from ._seed_tables import figure, markdown, table
from .runner import differences, nothing, ratios, summary

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from ._lab import Request
    from ._seed_cases import Cell
    from .runner import Options, Row

__all__ = ["DESCRIPTION", "NAME", "ROUNDS", "add_options", "figure", "markdown", "run", "table"]

NAME = "seed"
DESCRIPTION = "ways to find what an allocation is charged to, each against the step before it"
ROUNDS = 15

ROUNDS_OF_PROCESS = 3
"""In how many rounds a process is used, before a new one has its code and records elsewhere."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count the instructions of an allocation and its free, too (with valgrind)",
    )


def run(options: Options) -> list[Row]:
    """Measure, in several processes; see `objcg.bench.Benchmark`."""
    asked = cells(quick=options.quick)
    samples: list[list[float]] = [[] for _ in asked]
    cases = [Case(cell.variant, cell.request) for cell in asked]
    instructions = {}
    if options.extra.get("instructions"):
        options.progress("seed: counting instructions")
        instructions = {
            name: _lab_instructions.count(list(PATH), request) for name, request in COUNTED.items()
        }
    left = options.rounds
    number = 0
    while left:
        rounds = min(left, ROUNDS_OF_PROCESS)
        options.progress(f"seed: {options.rounds - left} of {options.rounds} rounds")
        measured, compiler = _lab_process.measure(cases, rounds=rounds, seed=options.seed + number)
        for values, more in zip(samples, measured, strict=True):
            values.extend(more)
        left -= rounds
        number += 1
    options.progress("")
    by_cell = {
        (cell.scenario.name, cell.variant, cell.request): values
        for cell, values in zip(asked, samples, strict=True)
    }
    where = {
        "rounds": options.rounds,
        "processes": number,
        "seed": options.seed,
        "compiler": compiler,
    }
    rows = [{**_row(cell, by_cell), **where} for cell in asked]
    for row in rows:
        if row["threads"] == 1 and row["variant"] in instructions.get(row["scenario"], {}):
            row["instructions"] = instructions[row["scenario"]][row["variant"]]
    return rows


def _row(cell: Cell, by_cell: dict[tuple[str, str, Request], list[float]]) -> Row:
    """Return what was measured of a cell, beside the baseline and the step before it."""
    name, variant, request = cell.scenario.name, cell.variant, cell.request
    values = by_cell[name, variant, request]
    step = VARIANTS[variant].step
    if name == "fork":
        step = STEPS_OF_FORK.get(variant, step)

    def compare(
        what: str, other: str | None, how: Callable[[Sequence[float], Sequence[float]], list[float]]
    ) -> Row:
        baseline = None if other in {None, variant} else by_cell.get((name, str(other), request))
        return nothing(what) if baseline is None else summary(what, how(values, baseline))

    ratio = compare("ratio", BASELINE, ratios)
    step_ratio = compare("step_ratio", step, ratios)
    return {
        "scenario": name,
        "variant": variant,
        "threads": request.threads,
        "depth": None if variant in {"stock", "glibc"} else request.depth,
        "size": request.size,
        "allocations": request.allocations,
        "operations": request.operations,
        "clock": "processor time" if request.threads == 1 else "elapsed time",
        **summary("ns_per_op", values),
        **ratio,
        "baseline": None if ratio["ratio"] is None else BASELINE,
        **step_ratio,
        **compare("step_ns", step, differences),
        "step_baseline": None if step_ratio["step_ratio"] is None else step,
    }
