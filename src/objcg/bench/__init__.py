"""The benchmarks of ``objcg bench``: one module for each, found here by its name.

A benchmark is a module with what `Benchmark` says. It is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import argparse

    from .runner import Options, Row

NAMES: tuple[str, ...] = (
    "seed",
    "programs",
    "peers",
    "alloc",
    "start",
    "limits",
    "memory",
    "native",
    "suite",
    "switch",
    "scale",
    "read",
    "instructions",
)
"""All benchmarks, in the order in which they are listed: modules of this package."""


class Benchmark(Protocol):
    """What the module of a benchmark has."""

    NAME: str
    """As it is asked for."""

    DESCRIPTION: str
    """One line."""

    ROUNDS: int
    """How often each case is measured where nothing else is said."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this benchmark has; their values end up in `Options.extra`."""

    def run(self, options: Options) -> list[Row]:
        """Measure. A row is what ``--json`` prints; one that compares has ratio and baseline.

        Raises:
            BenchmarkError: it cannot be done here.
        """

    def table(self, rows: list[Row]) -> str:
        """Return the rows for people."""

    def markdown(self, rows: list[Row]) -> dict[str, str]:
        """Return the rows as Markdown tables, by the names that documents know them by."""

    # It may have figure(rows), too; see `objcg.bench.figures`.


def load(name: str) -> Benchmark:
    """Import the benchmark of that name.

    Raises:
        KeyError: there is none.
    """
    if name not in NAMES:
        raise KeyError(name)
    return cast("Benchmark", importlib.import_module(f"{__name__}.{name}"))
