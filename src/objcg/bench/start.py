"""What it costs to start a process with objcg: time and peak memory beside plain ``python``.

Each is a whole process that does nothing, from its start until it has ended. `objcg run` is started
as ``python -m objcg run``; it imports its command line, enables objcg and prints the tree of groups
at the end.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, NamedTuple

from ._programs import _process
from .figures import WHISKERS, Bars, Figure, Value
from .programs import marked
from .runner import (
    BenchmarkError,
    markdown_table,
    nothing,
    ratios,
    summary,
    text_table,
    with_quartiles,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ._programs._process import Usage
    from .runner import Options, Row

NAME = "start"
DESCRIPTION = "starting a process with objcg: time and peak memory beside plain python"
ROUNDS = 21

BASELINE = "python"


class Case(NamedTuple):
    """A way to start a process."""

    text: str
    arguments: tuple[str, ...]
    """For the interpreter; the last is code."""
    probe: str
    """Code that stands behind that of the last argument, to see what the process is."""
    says: str


_IMPORTED = "import sys; print('objcg' in sys.modules)"
_GROUP = "import objcg; print(objcg.enabled(), objcg.current_group().path)"

CASES = {
    BASELINE: Case("python -c pass", ("-c", "pass"), _IMPORTED, "False"),
    "enable": Case(
        'python -c "import objcg; objcg.enable()"',
        ("-c", "import objcg; objcg.enable()"),
        _GROUP,
        "True /",
    ),
    "run": Case("objcg run -c pass", ("-m", "objcg", "run", "-c", "pass"), _GROUP, "True /main"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`: there are none."""


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    order = random.Random(options.seed)  # noqa: S311  # an order, no secret
    measured: dict[str, list[Usage]] = {name: [] for name in CASES}
    for name in CASES:
        _probe(name, options.seed)  # which has all read from disk as well
    for number in range(options.rounds):
        options.progress(f"start: {number} of {options.rounds} rounds")
        for name in order.sample(list(CASES), len(CASES)):
            measured[name].append(_start(CASES[name].arguments, options.seed + number))
    options.progress("")
    where = {"rounds": options.rounds, "seed": options.seed}
    return [{**_row(name, measured), **where} for name in CASES]


def _start(arguments: tuple[str, ...], hash_seed: int) -> Usage:
    return _process.launch([sys.executable, *arguments], hash_seed=hash_seed)


def _probe(name: str, hash_seed: int) -> None:
    """See that a process that is started in this way is what it is to be."""
    case = CASES[name]
    *arguments, code = case.arguments
    said = _start((*arguments, f"{code}; {case.probe}"), hash_seed).output
    if said != case.says:
        raise BenchmarkError(f"{case.text} started something else: {said!r}, not {case.says!r}")


def _row(name: str, measured: dict[str, list[Usage]]) -> Row:
    used, base = measured[name], measured[BASELINE]

    def compare(what: str, value: Callable[[Usage], float]) -> Row:
        if name == BASELINE:
            return nothing(what)
        return summary(what, ratios([value(u) for u in used], [value(u) for u in base]))

    return {
        "case": name,
        "command": CASES[name].text,
        "process": CASES[name].says,
        **summary("wall_seconds", [usage.wall_seconds for usage in used]),
        **summary("cpu_seconds", [usage.cpu_seconds for usage in used]),
        **summary("peak_bytes", [float(usage.peak_bytes) for usage in used]),
        **compare("ratio", lambda usage: usage.wall_seconds),
        **compare("cpu_ratio", lambda usage: usage.cpu_seconds),
        **compare("memory_ratio", lambda usage: usage.peak_bytes),
        "baseline": None if name == BASELINE else BASELINE,
    }


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios of elapsed time, processor time and peak memory."""
    panels = []
    for text, ratio in (
        ("elapsed time", "ratio"),
        ("processor time", "cpu_ratio"),
        ("peak memory", "memory_ratio"),
    ):
        values = [
            Value(row["command"], row[ratio], row[f"{ratio}_quartiles"])
            for row in rows
            if row[ratio] is not None
        ]
        axis = f"ratio to {CASES[BASELINE].text} (above 1: worse)"
        panels.append(Bars(text, axis, values, 1.0))
    return Figure(panels, notes=[WHISKERS])


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    how = (
        f"{rows[0]['rounds']} rounds. The process from its start to its end; "
        f"x: ratio to {CASES[BASELINE].text}, with quartiles; !: above 1.00, worse."
    )
    return f"{how}\n\n{text_table(_HEADINGS, _lines(rows))}"


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    return {NAME: markdown_table(_HEADINGS, _lines(rows))}


_TO = "to python"
_HEADINGS = ["process", "elapsed, ms", _TO, "processor, ms", _TO, "peak, MiB", _TO]


def _lines(rows: list[Row]) -> list[list[str]]:
    lines = []
    for row in rows:
        line = [row["command"]]
        for name, ratio, unit in (
            ("wall_seconds", "ratio", 1e-3),
            ("cpu_seconds", "cpu_ratio", 1e-3),
            ("peak_bytes", "memory_ratio", 2.0**20),
        ):
            line.append(with_quartiles(row, name, 1, unit=unit))
            line.append("" if row[ratio] is None else marked(row, ratio))
        lines.append(line)
    return lines
