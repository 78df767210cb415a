"""How costs grow: with the number of groups, with their depth, with the number of threads.

The number of groups should cost nothing: an allocation finds its group without looking for it. The
depth costs once for each batch that is charged ahead, which walks up the tree. Each row has two
ratios: to the smallest case of its kind in the same round, and to stock CPython, measured by the
same calls in a process of its own that never enables objcg.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import objcg
from objcg import _core

from ._worker import Worker, serve
from .figures import Curve, Curves, Figure
from .runner import (
    differences,
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

    from .runner import Options, Row

NAME = "scale"
DESCRIPTION = "cost of an allocation by number of groups, depth and threads"
ROUNDS = 8

ROUNDS_OF_PROCESS = 4

GROUPS = (1, 10, 100, 1_000, 10_000, 100_000)
MOST_GROUPS = 1_000_000
MOST_GROUPS_NEED = 4 << 30
"""Bytes that must be free for `MOST_GROUPS`: two processes do not have them at a time."""
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
THREADS = (1, 2, 4, 8, 16, 32, 64)

SIZE = 64
LARGE = 40_000
"""More than a stock holds, less than malloc() takes from mmap(): each is charged up the tree."""

KINDS = {
    "groups": f"{SIZE}-byte blocks, 100 in each group in turns, in random order, then freed; "
    "n groups exist",
    "groups-one": f"{SIZE}-byte blocks, all in one group; n groups exist",
    "depth": f"{SIZE}-byte blocks, 10,000 at a time, then freed; the group at depth n",
    "depth-batch": f"a block of {LARGE:,} bytes and its free, each charged by itself up the tree; "
    "the group at depth n",
    "threads": f"{SIZE}-byte blocks, 200 at a time, then freed; n threads, each in its group, "
    "which take turns after each 200",
    "threads-shared": "the same, all threads in one group",
}
"""What is measured; an operation is an allocation with its free."""

Cell = tuple[str, int]
"""Kind and n."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--most-groups",
        metavar="N",
        type=int,
        help=f"leave out cases with more groups (default: {MOST_GROUPS:,} where memory allows, "
        f"or {GROUPS[-1]:,} with --quick)",
    )


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    counts = _counts(options)
    cells: list[Cell] = [
        *((kind, n) for kind in ("groups", "groups-one") for n in counts),
        *((kind, n) for kind in ("depth", "depth-batch") for n in DEPTHS),
        *((kind, n) for kind in ("threads", "threads-shared") for n in THREADS),
    ]
    # stock CPython has no groups and no depth: there it is one case
    stock = [(kind, n) for kind, n in cells if kind.startswith("threads") or n == 1]
    asked = [("objcg", cell) for cell in cells] + [("stock", cell) for cell in stock]
    samples: dict[tuple[str, Cell], list[float]] = {case: [] for case in asked}
    facts: dict[tuple[str, Cell], Row] = {}
    left = options.rounds
    number = 0
    while left:
        rounds = min(left, ROUNDS_OF_PROCESS)
        with contextlib.ExitStack() as stack:
            workers = {}
            # a process for each number of groups: they are there from its beginning
            for side, n in [("stock", 0), *(("objcg", n) for n in counts)]:
                options.progress(f"scale: making {n:,} groups")
                workers[side, n] = stack.enter_context(Worker(NAME, [side, n, options.seed]))
                workers[side, n].ask(["ready", 0, 0])

            def measure(
                case: tuple[str, Cell], workers: dict[tuple[str, int], Worker] = workers
            ) -> float:
                side, (kind, n) = case
                groups = n if kind.startswith("groups") else 1
                worker = workers[side, groups if side == "objcg" else 0]
                answer = worker.ask([kind, n, 10 if options.quick else 1])
                facts[case] = answer
                return float(answer["ns"])

            measured = interleave(
                asked,
                measure,
                rounds=rounds,
                seed=options.seed + number,
                progress=lambda text: options.progress(f"scale: {text}"),
            )
        for case, values in zip(asked, measured, strict=True):
            samples[case].extend(values)
        left -= rounds
        number += 1
    options.progress("")
    where = {"rounds": options.rounds, "processes": number, "seed": options.seed}
    return [{**_row(cell, samples, facts), **where} for cell in cells]


def _counts(options: Options) -> list[int]:
    most = options.extra.get("most_groups")
    if most is None:
        most = MOST_GROUPS
        if options.quick or _available() < MOST_GROUPS_NEED:
            most = GROUPS[-1]
    return [n for n in (*GROUPS, MOST_GROUPS) if n <= max(most, 1)]


def _available() -> int:
    """Return how many bytes of memory can be had."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return 0


def _row(
    cell: Cell,
    samples: dict[tuple[str, Cell], list[float]],
    facts: dict[tuple[str, Cell], Row],
) -> Row:
    kind, n = cell
    values = samples["objcg", cell]
    least = samples["objcg", (kind, 1)]
    stock_cell = cell if ("stock", cell) in samples else (kind, 1)
    stock = samples["stock", stock_cell]
    row: Row = {
        "kind": kind,
        "n": n,
        "clock": "elapsed time",
        **summary("ns_per_op", values),
        **(nothing("ratio") if n == 1 else summary("ratio", ratios(values, least))),
        "baseline": None if n == 1 else f"{kind}, n = 1",
        **summary("stock_ns", stock),
        **summary("stock_ratio", ratios(values, stock)),
        "stock_baseline": "stock CPython, another process",
        "measured": {"objcg": facts["objcg", cell], "stock": facts["stock", stock_cell]},
    }
    if kind == "depth-batch" and n > 1:
        per_level = [more / (n - 1) for more in differences(values, least)]
        row |= summary("ns_per_level", per_level)
    return row


# ---- Picture and tables --------------------------------------------------------------------------


_COUNTED = {"groups": "groups", "depth": "depth", "threads": "threads"}


def figure(rows: list[Row]) -> Figure:
    """Return nanoseconds against n, a panel for each kind."""
    panels = []
    for kind, text in KINDS.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        curves = [
            Curve(side, [(row["n"], row[name], row[f"{name}_quartiles"]) for row in of_kind])
            for side, name in (("objcg", "ns_per_op"), ("stock", "stock_ns"))
        ]
        x_axis = f"n: {_COUNTED[kind.partition('-')[0]]}"
        if of_kind:
            panels.append(Curves(f"{kind}: {text}", x_axis, "ns, allocation and free", curves))
    note = (
        "Upright lines: from the first to the third quartile. Stock CPython has neither groups nor "
        "depth: there it was measured once, and stands at every n."
    )
    return Figure(panels, columns=2, notes=[note])


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal, a table for each kind."""
    head = rows[0]
    how = (
        f"{head['rounds']} rounds, {head['processes']} times with new processes. Nanoseconds of "
        "an allocation with its free, with quartiles; to n = 1: the ratio to the first line."
    )
    parts = [how]
    for kind, text in KINDS.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        parts.append(f"{kind}: {text}\n{text_table(_headings(kind), _lines(of_kind))}")
        parts += _fit_text(of_kind)
    return "\n\n".join(parts)


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    return {
        kind: markdown_table(_headings(kind), _lines([row for row in rows if row["kind"] == kind]))
        for kind in KINDS
    }


def _headings(kind: str) -> list[str]:
    headings = ["n", "stock, ns", "objcg, ns", "to stock", "to n = 1"]
    return [*headings, "ns for each level more"] if kind == "depth-batch" else headings


def _lines(rows: list[Row]) -> list[list[str]]:
    lines = []
    for row in rows:
        line = [
            f"{row['n']:,}",
            with_quartiles(row, "stock_ns", 1),
            with_quartiles(row, "ns_per_op", 1),
            ratio_text(row, "stock_ratio"),
            ratio_text(row),
        ]
        if row["kind"] == "depth-batch":
            line.append(with_quartiles(row, "ns_per_level", 1) if "ns_per_level" in row else "")
        lines.append(line)
    return lines


def _fit_text(rows: list[Row]) -> list[str]:
    if not rows or rows[0]["kind"] != "depth-batch":
        return []
    slope, at_zero, correlation = fit(
        [row["n"] for row in rows], [row["ns_per_op"] for row in rows]
    )
    text = (
        f"least squares: {at_zero:.0f} ns and {slope:.1f} ns for each level; "
        f"r2 = {correlation**2:.4f} (1: a straight line)"
    )
    return [text]


def fit(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Return slope, intercept and correlation of a straight line through the points."""
    line = statistics.linear_regression(x, y)
    return line.slope, line.intercept, statistics.correlation(x, y)


# ---- Processes that measure ----------------------------------------------------------------------


class _Measured:
    """What a process has: its side, and its groups."""

    def __init__(self, side: str, groups: int, seed: int) -> None:
        self.side = side
        self.groups: list[contextlib.AbstractContextManager[object]] = []
        self.order = random.Random(seed)  # noqa: S311  # an order, no secret
        if side == "objcg":
            objcg.enable()
            self.groups += [objcg.group(f"/bench/{i}") for i in range(groups)]
        else:
            self.groups.append(contextlib.nullcontext())

    def answer(self, kind: str, n: int, divisor: int) -> Row:
        """Measure one case; say where it was done."""
        paths: set[str] = set()
        ns = 0.0
        if kind == "groups":
            ns = self._in_turns(self.order.choices(self.groups, k=10_000 // divisor), paths)
        elif kind == "groups-one":
            ns = self._in_turns([self.groups[0]] * (10_000 // divisor), paths)
        elif kind.startswith("depth"):
            ns = self._at_depth(n, kind == "depth-batch", divisor, paths)
        elif kind.startswith("threads"):
            shared = kind == "threads-shared"
            ns = self._in_threads(n, 6_400 // divisor, paths, shared=shared)
        made = objcg.root.children[0].children if self.side == "objcg" else ()
        return {
            "ns": ns,
            "enabled": objcg.enabled(),
            "groups_made": len(made),
            "groups_used": len(paths),
            "group": min(paths, default=None),
        }

    def _see(self, paths: set[str]) -> None:
        if self.side == "objcg":
            paths.add(objcg.current_group().path)

    def _in_turns(
        self, visited: list[contextlib.AbstractContextManager[object]], paths: set[str]
    ) -> float:
        total = 0.0
        for group in visited:
            with group:
                alloc, free = _core.time_malloc(self.side, 100, SIZE, "fifo")
            total += alloc + free
        for group in set(visited):
            with group:
                self._see(paths)
        return total / len(visited)

    def _at_depth(self, depth: int, large: bool, divisor: int, paths: set[str]) -> float:  # noqa: FBT001
        path = "/deep" + "".join(f"/{i}" for i in range(2, depth + 1))
        with objcg.group(path) if self.side == "objcg" else contextlib.nullcontext():
            self._see(paths)
            if large:
                return _core.time_malloc(self.side, 50_000 // divisor, LARGE, "pair")[0]
            times = [
                sum(_core.time_malloc(self.side, 10_000, SIZE, "fifo"))
                for _ in range(50 // divisor)
            ]
            return statistics.fmean(times)

    def _in_threads(self, threads: int, turns: int, paths: set[str], *, shared: bool) -> float:
        begin = threading.Barrier(threads)
        times: list[float] = []

        def work(number: int) -> None:
            path = "/threads/shared" if shared else f"/threads/{number}"
            with objcg.group(path) if self.side == "objcg" else contextlib.nullcontext():
                self._see(paths)
                begin.wait()
                for _ in range(turns // threads):
                    times.append(sum(_core.time_malloc(self.side, 200, SIZE, "fifo")))
                    time.sleep(0)  # another thread's turn

        started = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        return statistics.fmean(times)


def main(setup: list[Any]) -> None:
    """Be the process of one side, with a number of groups."""
    measured = _Measured(*setup)
    serve(lambda question: measured.answer(*question))
