"""What it costs to look: to read a process's region, and what the process notices of that.

- "region": the region file of a process with so many groups (``--groups``) is read, as all commands
  read it, in this process.
- "tree": ``python -m objcg tree --json PID``, a process of its own from its start to its end,
  beside ``python -c pass``. What is compared with the goal is what it takes beyond that.
- "watched": the process itself, which allocates in its groups, while ``objcg record`` reads it ten
  times a second; beside the same work with nobody looking.

All is processor time: of the reader, of the command, of the process that is watched. What a watcher
takes from others by keeping a processor busy is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

import objcg
from objcg import region

from ._programs import _process
from ._worker import Worker, serve
from .figures import WHISKERS, Bars, Figure, Value
from .runner import (
    BenchmarkError,
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
    from collections.abc import Iterator

    from .runner import Options, Row

NAME = "read"
DESCRIPTION = "reading the groups of a process: the reader, objcg tree, and what a watcher costs it"
ROUNDS = 15

GROUPS, _MOST_GROUPS, _QUICK_GROUPS = 10_000, 1_000_000, 300
REGION_GOAL = 0.010
TREE_GOAL = 0.15
"""The most seconds, of that many groups: to read the region; of the command beyond Python's start.
"""

HERTZ = 10
"""How often a second the watcher reads."""

_BELOW = 100
"""So many groups have one above them."""
_READS = 5
"""Of the region, in one measurement."""
_STEPS, _QUICK_STEPS = 3_000, 600
_BLOCKS = 1_000
"""Of one step of the process that is watched."""
_TIMEOUT = 120.0


class Case(NamedTuple):
    """What is measured."""

    text: str
    baseline: str | None = None
    """The case that it stands beside."""
    goal: float | None = None
    """The most seconds: of what it takes, or beyond the baseline."""


CASES = {
    "region": Case("reading the region", goal=REGION_GOAL),
    "python": Case("python -c pass"),
    "tree": Case("objcg tree --json PID", baseline="python", goal=TREE_GOAL),
    "alone": Case("a process that allocates"),
    "watched": Case(f"the same, recorded {HERTZ} times a second", baseline="alone"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--groups",
        metavar="N",
        type=_groups,
        help=f"how many groups the process has (default: {GROUPS:,}, or {_QUICK_GROUPS} with "
        "--quick); the goals are for the default",
    )


def _groups(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= number <= _MOST_GROUPS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST_GROUPS:,}")
    return number


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    groups = options.extra.get("groups") or (_QUICK_GROUPS if options.quick else GROUPS)
    steps = _QUICK_STEPS if options.quick else _STEPS
    with Worker(NAME, groups) as worker:
        target = _Target(worker, steps)
        samples = interleave(
            list(CASES),
            target.measure,
            rounds=options.rounds,
            seed=options.seed,
            progress=lambda text: options.progress(f"{NAME}: {text}"),
        )
        target.check()
    options.progress("")
    measured = dict(zip(CASES, samples, strict=True))
    where = {
        "groups": target.groups,
        "asked": groups,
        # of the rounds; the first warms up
        "readings": sum(target.readings[1:]),
        "rounds": options.rounds,
        "seed": options.seed,
    }
    return [{**_row(name, measured, groups), **where} for name in CASES]


def _row(name: str, measured: dict[str, list[float]], groups: int) -> Row:
    case = CASES[name]
    taken = measured[name]
    row: Row = {"case": name, "operation": case.text, **summary("cpu_seconds", taken)}
    figure = "cpu_seconds"
    if case.baseline is None:
        row |= {**nothing("beyond_seconds"), **nothing("ratio"), "baseline": None}
    else:
        base = measured[case.baseline]
        row |= summary("beyond_seconds", differences(taken, base))
        row |= {**summary("ratio", ratios(taken, base)), "baseline": CASES[case.baseline].text}
        figure = "beyond_seconds"
    has_goal = case.goal is not None and groups == GROUPS
    row["goal"] = {"of": figure, "most": case.goal} if has_goal else None
    row["goal_met"] = row[figure] <= case.goal if has_goal and case.goal is not None else None
    return row


class _Target:
    """The process that is read, and all that is done to it."""

    def __init__(self, worker: Worker, steps: int) -> None:
        self.readings: list[int] = []
        self._worker = worker
        self._steps = steps
        facts = worker.ask(None)
        self.pid: int = facts["pid"]
        self.groups: int = facts["groups"]
        path = region.find(self.pid)
        if path is None:
            raise BenchmarkError(
                "the process has no region file that could be read; its folder is $OBJCG_DIR, "
                "$XDG_RUNTIME_DIR/objcg or /dev/shm/objcg-UID"
            )
        self.path = path

    def measure(self, case: str) -> float:
        """Return the seconds of processor time that a case takes."""
        if case == "region":
            return self._read()
        if case == "python":
            return _process.launch([sys.executable, "-c", "pass"], hash_seed=1).cpu_seconds
        if case == "tree":
            return self._tree()
        if case == "alone":
            return self._work()
        with self._recorded():
            return self._work()

    def check(self) -> None:
        """See that the process was what it should be.

        Raises:
            BenchmarkError: it was not.
        """
        facts = self._worker.ask(None)
        if facts["drift"] != 0 or facts["groups"] != self.groups:
            raise BenchmarkError(f"the process that was read is not as it was: {facts}")
        if min(self.readings) == 0:
            raise BenchmarkError(f"the watcher did not look: {self.readings} samples")

    def _read(self) -> float:
        start = time.process_time()
        for _ in range(_READS):
            found = region.read(self.path)
        seconds = (time.process_time() - start) / _READS
        self._see(len(found.groups))
        return seconds

    def _tree(self) -> float:
        command = [sys.executable, "-m", "objcg", "tree", "--json", str(self.pid)]
        used = _process.launch(command, hash_seed=1, timeout=_TIMEOUT)
        self._see(len(json.loads(used.output)["groups"]))
        return used.cpu_seconds

    def _see(self, groups: int) -> None:
        if groups != self.groups:
            raise BenchmarkError(f"{groups} groups were read of a process that has {self.groups}")

    def _work(self) -> float:
        return float(self._worker.ask(self._steps)["cpu_seconds"])

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Have the process recorded meanwhile, and count how often it was read."""
        with tempfile.TemporaryDirectory(prefix="objcg-bench-") as folder:
            output = os.path.join(folder, "recording.db")
            command = [sys.executable, "-m", "objcg", "record", self.path, "-o", output]
            with subprocess.Popen(  # noqa: S603  # this interpreter, and code from here
                [*command, "--interval", str(1 / HERTZ)],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=_process.environment(),
            ) as recorder:
                assert recorder.stderr is not None  # noqa: S101  # see above
                try:
                    # the first sample is there when it says that it records
                    begun = recorder.stderr.readline()
                    if "recording process" not in begun:
                        raise BenchmarkError(f"it cannot be recorded: {begun.strip()}")
                    yield
                    # not SIGINT, which stays ignored in what a shell runs in the background
                    recorder.send_signal(signal.SIGTERM)
                    said = recorder.communicate(timeout=_TIMEOUT)[1]
                except subprocess.TimeoutExpired:
                    raise BenchmarkError("the recording did not end when it was told to") from None
                finally:
                    recorder.kill()
        counted = re.search(r"(\d+) samples", said)
        if recorder.returncode != 0 or counted is None:
            raise BenchmarkError(f"the recording ended with: {said.strip()}")
        # but the first sample and the last, when the work is not yet or no longer done
        self.readings.append(max(0, int(counted[1]) - 2))


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the times with their goals, and the ratio of the process that is watched."""
    times = [
        Value(
            row["operation"],
            1e3 * row[row["goal"]["of"]],
            [1e3 * bound for bound in row[f"{row['goal']['of']}_quartiles"]],
            goal=1e3 * row["goal"]["most"],
        )
        for row in rows
        if row["goal"] is not None
    ]
    watched = [
        Value(row["operation"], row["ratio"], row["ratio_quartiles"])
        for row in rows
        if row["case"] == "watched"
    ]
    panels = [
        Bars(f"{rows[0]['groups']:,} groups", "processor time, ms", times),
        Bars(
            "the process that is watched",
            f"ratio to {CASES['alone'].text} (above 1: worse)",
            watched,
            1.0,
        ),
    ]
    return Figure([panel for panel in panels if panel.values], notes=[WHISKERS])


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    return f"{_how(rows)}\n\n{text_table(_HEADINGS, _lines(rows))}"


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    return {NAME: markdown_table(_HEADINGS, _lines(rows))}


def _how(rows: list[Row]) -> str:
    head = rows[0]
    return (
        f"{head['groups']:,} groups, {head['rounds']} rounds; the process was read "
        f"{head['readings']:,} times while it worked. Processor time, medians with quartiles."
    )


_HEADINGS = ["what", "ms", "ms beyond the baseline", "ratio", "baseline", "goal"]


def _lines(rows: list[Row]) -> list[list[str]]:
    return [
        [
            row["operation"],
            with_quartiles(row, "cpu_seconds", 2, unit=1e-3),
            with_quartiles(row, "beyond_seconds", 2, unit=1e-3),
            ratio_text(row) if row["case"] == "watched" else "",
            row["baseline"] or "",
            _goal_text(row),
        ]
        for row in rows
    ]


def _goal_text(row: Row) -> str:
    if row["goal"] is None:
        return ""
    verdict = "met" if row["goal_met"] else "MISSED"
    return f"<= {1e3 * row['goal']['most']:,.0f} ms: {verdict}"


# ---- The process that is read --------------------------------------------------------------------


def main(groups: int) -> None:
    """Be the process that is read: it has so many groups, each of which has been charged."""
    objcg.enable()
    paths = [f"/bench/above-{i // _BELOW:04}/group-{i % _BELOW:03}" for i in range(groups)]
    made = [objcg.group(path, max="1G") for path in paths]
    held = []
    for i, group in enumerate(made):
        with group:
            held.append(bytes(100 + i % 50))

    def answer(steps: int | None) -> Row:
        if steps is None:
            audit = objcg.audit()
            return {"pid": os.getpid(), "groups": len(audit.groups), "drift": audit.drift}
        start = time.process_time()
        for step in range(steps):
            with made[step % len(made)]:
                blocks = [bytes(16 + 8 * (i % 60)) for i in range(_BLOCKS)]
        seconds = time.process_time() - start
        assert len(blocks) == _BLOCKS  # noqa: S101  # it is what was measured
        return {"cpu_seconds": seconds}

    serve(answer)
