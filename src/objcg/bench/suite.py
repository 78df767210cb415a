"""The benchmarks of pyperformance that the running interpreter has, beside stock CPython.

pyperformance is no dependency of objcg. Each of its benchmarks is a script that measures itself
and, told that it is a worker, does so in one process; here, one as it is and one in a child group
take turns. Those whose requirements are not installed are listed with what they miss.

Of a hundred ratios that are measured a few times each, the largest are those with the most bad
luck. So whatever comes out above `AGAIN_ABOVE` gets a second look, of more rounds, and the worst is
the worst of these: what a value was chosen by is not what it is judged by. The mean is of the first
looks, since to look again at bad luck only would make it better than it is.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ._programs._process import OBJCG, STOCK
from ._programs._process import run as run_process
from .figures import WHISKERS, Bars, Figure, Value
from .programs import geometric_mean, marked
from .runner import BenchmarkError, imported, markdown_table, ratios, summary, text_table

if TYPE_CHECKING:
    import argparse

    from ._programs._process import Result
    from .runner import Options, Row

NAME = "suite"
DESCRIPTION = "pyperformance's benchmarks, where it is installed: time beside stock"
ROUNDS = 3

MEASURED, NOT_RUNNABLE, FAILED, LEFT_OUT = "measured", "not runnable", "failed", "left out"
"""What can become of a benchmark: "failed" is on one side only, "left out" for lack of time."""

MEAN, WORST = "geometric mean", "worst"

AGAIN_ABOVE = 1.05
"""A ratio above it gets a second look: the goal for the worst."""

_SIDES = (STOCK, OBJCG)
_QUICK_STEP = 6
"""Of the manifest, every how many-th with --quick: nobody chose them."""
_QUICK_SECONDS = 480.0
"""After which --quick begins no further benchmark."""
_TIMEOUT = 120.0
_QUICK_TIMEOUT = 20.0
"""Of one process, in seconds."""

_VALUES = ("--values", "3", "--warmups", "1")


class Script(NamedTuple):
    """One entry of pyperformance's manifest."""

    name: str
    path: str
    arguments: tuple[str, ...]
    reason: str = ""
    """Why it cannot be run, if that is known beforehand."""


class _Part(NamedTuple):
    """One of the benchmarks that a script has, and how often each value repeats it."""

    number: int
    name: str
    loops: int


class _Plan(NamedTuple):
    """How to measure."""

    rounds: int
    seed: int
    order: random.Random
    minimum: float
    """Seconds that a value takes at least."""
    again: int
    """Rounds of a second look."""
    timeout: float
    """Of one process."""
    end: float | None
    """By the monotonic clock: after it nothing more is begun."""

    def is_over(self) -> bool:
        """Say whether nothing more is to be begun."""
        return self.end is not None and time.monotonic() > self.end


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="measure this benchmark of pyperformance only; may be repeated",
    )


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    known = scripts()
    chosen = _choose(known, options)
    plan = _Plan(
        rounds=options.rounds,
        again=2 * options.rounds + 1,
        seed=options.seed,
        order=random.Random(options.seed),  # noqa: S311  # an order, no secret
        minimum=0.02 if options.quick else 0.1,
        timeout=_QUICK_TIMEOUT if options.quick else _TIMEOUT,
        end=time.monotonic() + _QUICK_SECONDS if options.quick else None,
    )
    found: dict[str, list[Row]] = {}
    for number, script in enumerate(plan.order.sample(chosen, len(chosen))):
        options.progress(f"suite: {number} of {len(chosen)} done, {script.name}")
        found[script.name] = [{**row, "script": script.name} for row in _measure(script, plan)]
    options.progress("")
    rows = [row for script in chosen for row in found[script.name]]
    measured = [row for row in rows if row["status"] == MEASURED]
    if measured:
        rows += _summaries(measured)
    where = {
        "rounds": options.rounds,
        "seed": options.seed,
        "scripts": len(chosen),
        "scripts_known": len(known),
        "pyperformance": getattr(_import("pyperformance"), "__version__", None),
    }
    return [{**row, **where} for row in rows]


def _choose(all_of_them: list[Script], options: Options) -> list[Script]:
    only = options.extra.get("only")
    if not only:
        return all_of_them[:: _QUICK_STEP if options.quick else 1]
    names = {script.name for script in all_of_them}
    for name in only:
        if name not in names:
            raise BenchmarkError(
                f"pyperformance has no benchmark {name!r}; it has {', '.join(sorted(names))}"
            )
    return [script for script in all_of_them if script.name in only]


# ---- pyperformance -------------------------------------------------------------------------------


def _import(name: str) -> Any:
    return imported(name, "the suite is pyperformance's", "pyperformance")


def scripts() -> list[Script]:
    """Return what pyperformance's manifest lists, in its order.

    Raises:
        BenchmarkError: it is not installed, or of a version that is made in another way.
    """
    manifest = _import("pyperformance._manifest")
    try:
        return [_script(entry) for entry in manifest.load_manifest(None).benchmarks]
    except (AttributeError, TypeError, OSError) as error:
        raise BenchmarkError(f"this version of pyperformance is not understood: {error}") from error


def _script(entry: Any) -> Script:
    path = str(entry.runscript)
    reason = ""
    version = ".".join(map(str, sys.version_info[:3]))
    if version not in entry.python:
        reason = f"it is for Python {entry.python}"
    else:
        with open(path, encoding="utf-8") as file:
            if ".bench_command(" in file.read():
                reason = "it measures other processes, which would be in no group"
    return Script(str(entry.name), path, tuple(map(str, entry.extra_opts)), reason)


# ---- Measuring -----------------------------------------------------------------------------------


def _measure(script: Script, plan: _Plan) -> list[Row]:
    """Run one script; return a row for each benchmark that it has."""
    if script.reason:
        return [_without(script.name, NOT_RUNNABLE, script.reason)]
    if plan.is_over():
        return [_left_out(script.name)]
    once = ("--values", "1", "--warmups", "1")
    calibrate = ("--calibrate-loops", *once, "--min-time", str(plan.minimum))
    # both sides try, so that what fails on both can be told from what objcg breaks
    tried = {side: _try(side, script, calibrate, plan.seed, plan.timeout) for side in _SIDES}
    reasons = {side: text for side, text in tried.items() if isinstance(text, str)}
    stock = tried[STOCK]
    if reasons or isinstance(stock, str):
        return [_failure(script.name, reasons)]
    parts = [_Part(i, part.get_name(), _loops(part)) for i, part in enumerate(stock[0])]
    return [_measure_part(script, part, plan) for part in parts]


def _loops(calibrated: Any) -> int:
    """Return how many loops the calibration came to: those of its last value."""
    return int(calibrated.get_runs()[0].warmups[-1][0])


def _measure_part(script: Script, part: _Part, plan: _Plan) -> Row:
    first = _look(script, part, plan)
    if first["status"] != MEASURED or first["ratio"] <= AGAIN_ABOVE:
        return first
    # other hash seeds, too
    again = _look(script, part, plan._replace(rounds=plan.again, seed=plan.seed + plan.rounds))
    if again["status"] == FAILED:
        return again
    if again["status"] != MEASURED:
        return first
    names = ("ratio", "ratio_quartiles")
    return {**first, **{f"again_{name}": again[name] for name in names}, "again": plan.again}


def _look(script: Script, part: _Part, plan: _Plan) -> Row:
    if plan.is_over():
        return _left_out(part.name)
    arguments = ("--loops", str(part.loops), "--worker-task", str(part.number), *_VALUES)
    seconds: dict[str, list[float]] = {side: [] for side in _SIDES}
    peaks: dict[str, list[float]] = {side: [] for side in _SIDES}
    group = ""
    for turn in range(plan.rounds):
        reasons = {}
        for side in plan.order.sample(_SIDES, len(_SIDES)):
            done = _try(side, script, arguments, plan.seed + turn, plan.timeout)
            if isinstance(done, str):
                reasons[side] = done
                continue
            benchmarks, process = done
            if [measured.get_name() for measured in benchmarks] != [part.name]:
                reasons[side] = f"as its part {part.number} it did not measure {part.name} alone"
                continue
            seconds[side].append(statistics.median(benchmarks[0].get_values()))
            peaks[side].append(process.peak_bytes)
            group = process.group or group
        if reasons:
            return _failure(part.name, reasons)
    return {
        "benchmark": part.name,
        "side": OBJCG,
        "status": MEASURED,
        "reason": None,
        **summary("seconds", seconds[OBJCG]),
        **summary("baseline_seconds", seconds[STOCK]),
        **summary("ratio", ratios(seconds[OBJCG], seconds[STOCK])),
        **summary("memory_ratio", ratios(peaks[OBJCG], peaks[STOCK])),
        "baseline": STOCK,
        "loops": part.loops,
        "group": group,
    }


def _try(
    side: str, script: Script, arguments: tuple[str, ...], hash_seed: int, timeout: float
) -> tuple[list[Any], Result] | str:
    """Run a script once; return what pyperf read and what the process took, or what went wrong."""
    pyperf = _import("pyperf")
    with tempfile.TemporaryDirectory(prefix="objcg-bench-") as folder:
        output = os.path.join(folder, "values.json")
        command = [script.path, *script.arguments, "--worker", *arguments, "--append", output]
        try:
            process = run_process(
                side, command, hash_seed=hash_seed, timeout=timeout, is_script=True
            )
        except BenchmarkError as error:
            # the process failed, or did what makes it none of that side
            return str(error)
        if not os.path.exists(output):
            return "it measured nothing"
        return list(pyperf.BenchmarkSuite.load(output).get_benchmarks()), process


def _failure(name: str, reasons: dict[str, str]) -> Row:
    if len(reasons) == len(_SIDES):
        return _without(name, NOT_RUNNABLE, reasons[STOCK])
    ((side, reason),) = reasons.items()
    return _without(name, FAILED, f"on the side {side} only: {reason}")


def _without(name: str, status: str, reason: str) -> Row:
    """Return the row of a benchmark without figures."""
    return {
        "benchmark": name,
        "side": OBJCG,
        "status": status,
        "reason": reason,
        "ratio": None,
        "baseline": None,
    }


def _left_out(name: str) -> Row:
    return _without(name, LEFT_OUT, f"the {_QUICK_SECONDS:.0f} s of --quick were over")


def _last(row: Row) -> Row:
    """Return a row with the ratio of its second look, if it had one."""
    prefix = "again_" if "again_ratio" in row else ""
    names = ("ratio", "ratio_quartiles")
    return {**row, **{name: row[prefix + name] for name in names if prefix + name in row}}


def _summaries(measured: list[Row]) -> list[Row]:
    worst = max(map(_last, measured), key=lambda row: float(row["ratio"]))
    common = {"side": OBJCG, "status": "summary", "baseline": STOCK}
    return [
        {
            "benchmark": MEAN,
            "reason": f"{len(measured)} benchmarks",
            "ratio": geometric_mean(row["ratio"] for row in measured),
            "memory_ratio": geometric_mean(row["memory_ratio"] for row in measured),
            **common,
        },
        {
            "benchmark": WORST,
            "reason": worst["benchmark"],
            "ratio": worst["ratio"],
            "ratio_quartiles": worst["ratio_quartiles"],
            "memory_ratio": max(row["memory_ratio"] for row in measured),
            **common,
        },
    ]


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios of time and of peak memory, the worst first of each."""
    measured = [row for row in rows if row["status"] == MEASURED]
    panels = []
    for name, title in (("ratio", "time"), ("memory_ratio", "peak memory")):
        values = [
            Value(row["benchmark"], _last(row)[name], _last(row)[f"{name}_quartiles"])
            for row in sorted(measured, key=lambda row: float(_last(row)[name]), reverse=True)
        ]
        means = [row[name] for row in rows if row["benchmark"] == MEAN]
        with_mean = title + "".join(f", {MEAN} {mean:.3f}" for mean in means)
        panels.append(Bars(with_mean, f"ratio to {STOCK} (above 1: worse)", values, 1.0, dots=True))
    failed = [row["benchmark"] for row in rows if row["status"] == FAILED]
    left = sum(row["status"] in {NOT_RUNNABLE, LEFT_OUT} for row in rows)
    notes = [WHISKERS]
    if failed:
        notes.append(f"FAILED on one side only: {', '.join(failed)}.")
    if left:
        notes.append(f"{left} more were not measured, for reasons that the tables name.")
    return Figure(panels if measured else [], columns=2, notes=notes)


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    head = rows[0]
    failed = sum(row["status"] == FAILED for row in rows)
    parts = [
        f"pyperformance {head['pyperformance']}, {head['rounds']} rounds, medians; "
        f"x: {OBJCG} to {STOCK}, with quartiles; !: above 1.00, worse.\n"
        f"Above {AGAIN_ABOVE:.2f} a second look, of {2 * int(head['rounds']) + 1} rounds; "
        "the mean is of the first.\n"
        + (f"ERROR: {failed} failed on one side only" if failed else "None failed on one side only")
    ]
    parts += [f"{text}\n{text_table(*lines)}" for text, lines in _tables(rows).values()]
    return "\n\n".join(parts)


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    return {name: markdown_table(*lines) for name, (_, lines) in _tables(rows).items()}


def _tables(rows: list[Row]) -> dict[str, tuple[str, tuple[list[str], list[list[str]]]]]:
    """Return what each shows, headings and lines, by name."""
    measured = [row for row in rows if row["status"] == MEASURED]
    ranked = sorted(measured, key=lambda row: float(_last(row)["ratio"]), reverse=True)
    summaries = [row for row in rows if row["status"] == "summary"]
    others = [row for row in rows if row["status"] not in {MEASURED, "summary"}]
    found = {}
    if measured:
        lines = [[row["benchmark"], _time(row["baseline_seconds"]), *_both(row)] for row in ranked]
        lines += [[f"{row['benchmark']}: {row['reason']}", "", *_both(row)] for row in summaries]
        headings = ["benchmark", STOCK, OBJCG, "second look", "peak memory"]
        found["suite"] = ("the worst first:", (headings, lines))
    for status in (FAILED, NOT_RUNNABLE, LEFT_OUT):
        lines = [[row["benchmark"], row["reason"]] for row in others if row["status"] == status]
        if lines:
            text = "failed on one side only: ERROR" if status == FAILED else f"{status}:"
            found[status.replace(" ", "-")] = (text, (["benchmark", "reason"], lines))
    return found


def _both(row: Row) -> list[str]:
    first, again = marked(row, "ratio"), ""
    if row["benchmark"] == WORST:
        # of last looks
        first, again = "", first
    elif "again_ratio" in row:
        again = marked(row, "again_ratio")
    return [first, again, marked(row, "memory_ratio")]


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
