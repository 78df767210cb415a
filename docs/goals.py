"""What objcg shall cost at most, and what the results say of it.

A goal is compared with the figure as it was measured, not as it is printed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from objcg.bench import alloc, limits, native, programs, read, suite, switch
from objcg.bench.runner import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Row = dict[str, Any]

MET, MISSED, NOT_MEASURED = "met", "**MISSED**", "not measured"


class NotMeasuredError(Exception):
    """A result has nothing about a goal; the text says what is not there."""


class Figure(NamedTuple):
    """What was measured."""

    value: float
    quartiles: Sequence[float] | None = None
    what: str = ""
    """Which of several it is."""


class Goal(NamedTuple):
    """A figure of a benchmark, and the most it should be."""

    benchmark: str
    text: str
    most: float
    figure: Callable[[list[Row]], Figure]
    """Finds it in the rows.

    Raises:
        NotMeasuredError: it is not there.
    """
    unit: str = "x"


def the_row(rows: list[Row], **fields: Any) -> Row:
    """Return the row with these fields.

    Raises:
        NotMeasuredError: there is none.
    """
    for row in rows:
        if all(row.get(name) == value for name, value in fields.items()):
            return row
    raise NotMeasuredError(f"no row with {', '.join(f'{k} {v}' for k, v in fields.items())}")


def of_row(name: str, rows: list[Row], **fields: Any) -> Figure:
    """Return a figure of one row."""
    row = the_row(rows, **fields)
    if row.get(name) is None:
        raise NotMeasuredError(f"no {name}")
    return Figure(row[name], row.get(f"{name}_quartiles"))


def of_programs(rows: list[Row], other: str | None = None) -> Figure:
    """Return the mean over all programs beside stock, or beside another side."""
    mean = _mean(rows, "objcg")
    if other is None:
        return Figure(mean["ratio"])
    return Figure(mean["ratio"] / the_row(rows, program=programs.MEAN, side=other)["ratio"])


def _mean(rows: list[Row], side: str) -> Row:
    mean = the_row(rows, program=programs.MEAN, side=side)
    if mean["programs"] != len(programs.PROGRAMS):
        raise NotMeasuredError(f"{mean['programs']} of {len(programs.PROGRAMS)} programs only")
    return mean


def programs_with_native(rows: list[Row]) -> Figure:
    """Return the mean over all programs with the preload library beside those without it."""
    return Figure(_mean(rows, native.LOADED)["ratio"])


def of_suite(name: str, rows: list[Row], benchmark: str) -> Figure:
    """Return a figure over all of the suite."""
    _whole_suite(rows)
    return of_row(name, rows, benchmark=benchmark)


def _whole_suite(rows: list[Row]) -> None:
    asked, known = rows[0]["scripts"], rows[0]["scripts_known"]
    if asked != known:
        raise NotMeasuredError(f"{asked} of {known} scripts only")


def failed_with_objcg(rows: list[Row]) -> Figure:
    """Return how many benchmarks of the suite failed on one side only."""
    _whole_suite(rows)
    names = [row["benchmark"] for row in rows if row["status"] == suite.FAILED]
    return Figure(len(names), what=", ".join(names))


def worst_pattern(rows: list[Row]) -> Figure:
    """Return the largest ratio to stock of the rows that have a goal: a pattern has one."""
    found = [row for row in rows if row.get("goal") is not None]
    patterns = {row["pattern"] for row in found}
    if patterns != set(alloc.PATTERNS):
        raise NotMeasuredError(f"{len(patterns)} of {len(alloc.PATTERNS)} patterns only")
    worst = max(found, key=lambda row: float(row["ratio"]))
    return Figure(worst["ratio"], worst["ratio_quartiles"], str(worst["pattern"]))


def worst_overshoot(rows: list[Row]) -> Figure:
    """Return by how many bytes a group came above its limit, at most, in all ways and rounds."""
    ways = {row["case"] for row in rows}
    if ways != set(limits.WAYS):
        raise NotMeasuredError(f"{len(ways)} of {len(limits.WAYS)} ways only")
    worst = max(rows, key=lambda row: float(row["overshoot_worst"]))
    return Figure(worst["overshoot_worst"], what=str(worst["case"]))


def neighbour_errors(rows: list[Row]) -> Figure:
    """Return how many errors a task of another group got."""
    return Figure(sum(row["neighbour_errors"] for row in rows))


def in_ms(name: str, rows: list[Row], **fields: Any) -> Figure:
    """Return seconds of one row, as milliseconds."""
    figure = of_row(name, rows, **fields)
    return Figure(1e3 * figure.value, [1e3 * bound for bound in figure.quartiles or ()])


def first_quartile(rows: list[Row], **fields: Any) -> Figure:
    """Return that of a ratio: above 1 there is something that can be measured."""
    figure = of_row("ratio", rows, **fields)
    assert figure.quartiles is not None  # every ratio has them
    return Figure(figure.quartiles[0], what=f"median {figure.value:.3f}x")


def _of_read() -> list[Goal]:
    groups = f"{read.GROUPS:,} groups"
    return [
        Goal(
            read.NAME,
            f"{groups}: reading the region",
            1e3 * read.REGION_GOAL,
            partial(in_ms, "cpu_seconds", case="region", asked=read.GROUPS),
            " ms",
        ),
        Goal(
            read.NAME,
            f"{groups}: objcg tree --json PID, beyond python -c pass",
            1e3 * read.TREE_GOAL,
            partial(in_ms, "beyond_seconds", case="tree", asked=read.GROUPS),
            " ms",
        ),
        Goal(
            read.NAME,
            f"a process that is read {read.HERTZ} times a second: the first quartile of its time",
            1.00,
            partial(first_quartile, case="watched"),
        ),
    ]


def _of_switch() -> list[Goal]:
    goals = []
    for name, case in switch.CASES.items():
        if case.goal is not None:
            figure, most = case.goal
            unit = "x" if figure == "ratio" else " ns"
            goals.append(
                Goal(switch.NAME, case.text, most, partial(of_row, figure, case=name), unit)
            )
    return goals


def _of_native() -> list[Goal]:
    goals = [
        Goal(
            native.NAME,
            f"{case.text}: {side}",
            case.goal,
            partial(of_row, "ratio", case=name, side=side),
        )
        for name, case in native.CASES.items()
        for side in native.SIDES
        if case.goal is not None and side != native.PLAIN
    ]
    text = "programs with the library loaded, geometric mean"
    return [*goals, Goal(native.NAME, text, native.PROGRAMS_GOAL, programs_with_native)]


GOALS = [
    Goal("suite", "time, geometric mean", 1.00, partial(of_suite, "ratio", benchmark=suite.MEAN)),
    Goal("suite", "time, the worst", 1.05, partial(of_suite, "ratio", benchmark=suite.WORST)),
    Goal(
        "suite",
        "peak memory, geometric mean",
        1.03,
        partial(of_suite, "memory_ratio", benchmark=suite.MEAN),
    ),
    Goal(
        "suite",
        "peak memory, the worst",
        1.10,
        partial(of_suite, "memory_ratio", benchmark=suite.WORST),
    ),
    Goal("suite", "benchmarks that fail on one side only", 0, failed_with_objcg, ""),
    Goal("programs", "time, geometric mean", 0.90, of_programs),
    Goal(
        "programs",
        "time beside mimalloc, preloaded: quotient of the geometric means",
        1.08,
        partial(of_programs, other="mimalloc"),
    ),
    Goal(
        "alloc",
        f"{alloc.GOAL_COUNT:,} blocks of {alloc.GOAL_SIZE} bytes, the worst pattern",
        alloc.GOAL,
        worst_pattern,
    ),
    Goal(
        "limits",
        f"above memory.max of {limits.LIMIT >> 20} MiB, the worst of all",
        limits.BOUND,
        worst_overshoot,
        " bytes",
    ),
    Goal("limits", "errors in a task of another group", 0, neighbour_errors, ""),
    *_of_native(),
    *_of_switch(),
    *_of_read(),
    *(
        Goal(
            "scale",
            f"1,000,000 groups beside one, {text}",
            1.05,
            partial(of_row, "ratio", kind=kind, n=1_000_000),
        )
        for kind, text in (("groups", "blocks in all"), ("groups-one", "blocks in one of them"))
    ),
]


def state(goal: Goal, rows: list[Row] | None) -> tuple[str, str]:
    """Return `MET`, `MISSED` or `NOT_MEASURED`, and the figure as text."""
    if rows is None:
        return NOT_MEASURED, NOT_MEASURED
    try:
        figure = goal.figure(rows)
    except NotMeasuredError as reason:
        return NOT_MEASURED, f"{NOT_MEASURED} ({reason})"
    digits = {"x": 3, " ns": 0, " ms": 1}.get(goal.unit, 0)
    text = f"{figure.value:,.{digits}f}{goal.unit}"
    if figure.quartiles:
        text += f" ({' to '.join(f'{number:,.{digits}f}' for number in figure.quartiles)})"
    if figure.what:
        text += f", {figure.what}"
    return (MET, text) if figure.value <= goal.most else (MISSED, f"**{text}**")


def summary(results: Mapping[str, Mapping[str, list[Row]]], goals: Sequence[Goal] = GOALS) -> str:
    """Return the table of all goals; the results are rows by version and benchmark."""
    lines = []
    for goal in goals:
        states = {minor: state(goal, rows.get(goal.benchmark)) for minor, rows in results.items()}
        digits = 2 if goal.unit == "x" else 0
        most = f"at most {goal.most:,.{digits}f}{goal.unit}"
        verdicts = {minor: verdict for minor, (verdict, _) in states.items()}
        lines.append(
            [
                f"`{goal.benchmark}`: {goal.text}",
                most,
                *(text for _, text in states.values()),
                _verdict(verdicts),
            ]
        )
    return markdown_table(["goal", "", *results, "met"], lines, left=2)


def _verdict(verdicts: Mapping[str, str]) -> str:
    if len(set(verdicts.values())) == 1:
        return next(iter(verdicts.values()))
    return "; ".join(f"{minor}: {verdict}" for minor, verdict in verdicts.items())
