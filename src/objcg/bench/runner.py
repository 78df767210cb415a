"""What benchmarks have in common: the order of measurements, statistics, the machine, tables.

A number alone says little on a machine that others use. So the cases of a benchmark take turns: in
each round every case is measured once, in an order drawn anew from a seed, and a ratio compares two
measurements of the same round. What is reported is the median over the rounds, with the quartiles.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import random
import statistics
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Row = dict[str, Any]
"""One line of a benchmark's result: names and numbers, as ``--json`` prints them."""

Case = TypeVar("Case")

TABLE_BEGIN = "<!-- table: {} -->"
TABLE_END = "<!-- end -->"
"""Between these lines of a document stands a table that a benchmark made."""


class BenchmarkError(Exception):
    """A benchmark cannot be run here; the text says why and what to do, in one line."""


def imported(module: str, what: str, package: str) -> Any:
    """Import what is no dependency of objcg, of that package on PyPI.

    Raises:
        BenchmarkError: it cannot be imported; the text says `what` it is for and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BenchmarkError(
            f"{what}, which cannot be imported here ({error}); install it "
            f"with: {sys.executable} -m pip install {package}"
        ) from error


@dataclass(frozen=True)
class Options:
    """How a benchmark shall be run."""

    rounds: int
    """How often each case is measured."""

    seed: int = 0
    """Of the order of measurements."""

    quick: bool = False
    """Fewer operations: enough to see that it works, not to compare."""

    extra: dict[str, Any] = field(default_factory=dict)
    """The options that only this benchmark has."""

    progress: Callable[[str], None] = lambda _: None
    """Is told what is being done."""


def interleave(
    cases: Sequence[Case],
    measure: Callable[[Case], float],
    *,
    rounds: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[list[float]]:
    """Measure each case once in each round, in an order drawn anew for each.

    One round before them warms up and is not counted.

    Returns:
        For each case, in the order given, what was measured: one number for each round.
    """
    random_order = random.Random(seed)  # noqa: S311  # an order, no secret
    samples: list[list[float]] = [[] for _ in cases]
    for number in range(rounds + 1):
        progress(f"round {number} of {rounds}" if number else "warming up")
        order = list(range(len(cases)))
        random_order.shuffle(order)
        for i in order:
            samples[i].append(measure(cases[i]))
    return [values[1:] for values in samples]


# ---- Statistics ----------------------------------------------------------------------------------


def quartiles(values: Sequence[float]) -> list[float]:
    """Return the first and the third quartile; of one value, that value."""
    if len(values) == 1:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def summary(name: str, values: Sequence[float]) -> Row:
    """Return the median as `name` and the quartiles as ``name_quartiles``."""
    return {name: statistics.median(values), f"{name}_quartiles": quartiles(values)}


def nothing(name: str) -> Row:
    """Return what `summary` would, where nothing is compared."""
    return {name: None, f"{name}_quartiles": None}


def ratios(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the ratio of each round to the baseline of the same round."""
    return [value / base for value, base in zip(values, baseline, strict=True)]


def differences(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the difference of each round to the baseline of the same round."""
    return [value - base for value, base in zip(values, baseline, strict=True)]


# ---- Where it was measured -----------------------------------------------------------------------


def machine(compiler: str = "") -> str:
    """Return processor, number of processors, kernel, huge pages, load and compiler."""
    parts = [
        _processor(),
        f"{len(os.sched_getaffinity(0))} CPUs",
        f"Linux {platform.release()}",
        f"transparent huge pages: {_huge_pages()}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join([*parts, compiler] if compiler else parts)


def python() -> str:
    """Return implementation, version and build of this Python."""
    number, date = platform.python_build()
    return (
        f"{platform.python_implementation()} {platform.python_version()} "
        f"({number}, {date}), {platform.python_compiler()}"
    )


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _huge_pages() -> str:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            return file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return "none"


# ---- What was printed --------------------------------------------------------------------------


def read_result(path: str, name: str | None = None) -> dict[str, Any]:
    """Return what ``objcg bench --json`` has printed into a file.

    Raises:
        BenchmarkError: it cannot be read, or is something else; with a name, of another benchmark.
    """
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot read {path!r} as JSON: {error}") from error
    fields = {"name": str, "machine": str, "python": str, "rows": list}
    for field_name, kind in fields.items():
        if not isinstance(result, dict) or not isinstance(result.get(field_name), kind):
            raise BenchmarkError(
                f"{path!r} is not what 'objcg bench --json' prints: it has no {field_name!r}"
            )
    if not result["rows"] or not all(isinstance(row, dict) for row in result["rows"]):
        raise BenchmarkError(f"{path!r} is not what 'objcg bench --json' prints: it has no rows")
    if name is not None and result["name"] != name:
        raise BenchmarkError(f"{path!r} is of the benchmark {result['name']!r}, not of {name!r}")
    return dict(result)


# ---- What is printed -----------------------------------------------------------------------------


class Progress:
    """A line on a terminal that is rewritten; nothing where there is no terminal."""

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream = stream

    def __call__(self, text: str) -> None:
        """Show what is being done; the empty text removes the line."""
        # none that is closed; and what was measured is worth more than the line on a terminal
        if self._stream is not None and self._stream.isatty():
            with contextlib.suppress(OSError):
                print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)


def with_quartiles(row: Row, name: str, digits: int = 0, *, unit: float = 1) -> str:
    """Return a figure with its quartiles, divided by a unit; of none, nothing."""
    if row[name] is None:
        return ""
    figure, first, third = (value / unit for value in (row[name], *row[f"{name}_quartiles"]))
    return f"{figure:,.{digits}f} ({first:,.{digits}f}-{third:,.{digits}f})"


def ratio_text(row: Row, name: str = "ratio") -> str:
    """Return a ratio with its quartiles, marked where it is a loss."""
    if row[name] is None:
        return ""
    first, third = row[f"{name}_quartiles"]
    loss = " slower" if round(row[name], 2) > 1 else ""
    return f"{row[name]:.2f}x ({first:.2f}-{third:.2f}){loss}"


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return a table for a terminal: `left` columns of text, then numbers, to the right."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i >= left else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return the same as a table in Markdown."""
    rule = ["---"] * left + ["---:"] * (len(headings) - left)
    lines = [tuple(headings), tuple(rule), *(tuple(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
