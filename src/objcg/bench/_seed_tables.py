"""The tables of `objcg bench seed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._seed_cases import BASELINE, COUNTED, KERNEL, PATH, SCENARIOS, VARIANTS
from .figures import OURS, WHISKERS, Bars, Figure, Value
from .runner import markdown_table, text_table

if TYPE_CHECKING:
    from ._seed_cases import Scenario
    from .runner import Row

Table = tuple[str, list[str], list[list[str]]]
"""What it shows, headings, rows."""


_LEFT = {"variants": 3, "kernel": 2, "steps": 2}
"""How many columns are text, where it is not one."""


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    head = rows[0]
    how = (
        f"{len(rows)} cases, {head['rounds']} rounds in {head['processes']} processes, "
        f"{head['compiler']}. Nanoseconds of one operation with quartiles; "
        f"x: ratio to {BASELINE}."
    )
    parts = [how]
    for name, (text, headings, lines) in _tables(rows).items():
        parts.append(f"{name}: {text}\n{text_table(headings, lines, left=_LEFT.get(name, 1))}")
    return "\n\n".join(parts)


def figure(rows: list[Row]) -> Figure:
    """Return nanoseconds, a panel for each situation of each scenario that has some variants."""
    panels = []
    for scenario in SCENARIOS:
        of_scenario = [row for row in rows if row["scenario"] == scenario.name]
        one_variant = len({row["variant"] for row in of_scenario}) == 1
        by_panel: dict[str, list[Value]] = {}
        for row in of_scenario:
            heading = _heading(scenario, _situation(row))
            title = scenario.name if heading == "ns" else f"{scenario.name}, {heading}"
            by_panel.setdefault(scenario.name if one_variant else title, []).append(
                Value(
                    heading if one_variant else row["variant"],
                    row["ns_per_op"],
                    row["ns_per_op_quartiles"],
                    OURS if row["variant"] == OURS else "variants",
                )
            )
        panels += [Bars(title, "ns for one operation", bars) for title, bars in by_panel.items()]
    return Figure(panels, columns=3, notes=[WHISKERS])


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    return {
        name: markdown_table(headings, lines, left=_LEFT.get(name, 1))
        for name, (_, headings, lines) in _tables(rows).items()
    }


def _tables(rows: list[Row]) -> dict[str, Table]:
    found = {
        "variants": (
            "what is compared, each with the one it differs from by one step",
            ["variant", "is", "differs from"],
            [[name, text, step or ""] for name, (text, step) in VARIANTS.items()],
        ),
        "kernel": _kernel_table(rows),
        "steps": _step_table(rows),
    }
    if any("instructions" in row for row in rows):
        found["instructions"] = _instructions_table(rows)
    for scenario in SCENARIOS:
        found[scenario.name] = _scenario_table(
            scenario, [row for row in rows if row["scenario"] == scenario.name]
        )
    return found


def _kernel_table(rows: list[Row]) -> Table:
    """Return the kernel's figures beside ours of the same benchmark."""
    here = {
        ("user", "unaccounted"): "unaccounted",
        ("user", "original"): "original",
        ("user", "patched"): "pointer-reference",
        ("user", ""): "objcg",
        ("root", "unaccounted"): "unaccounted",
        ("root", "original"): "original-root",
        ("root", "patched"): "pointer-root",
    }
    lines = []
    for (cgroup, published), variant in here.items():
        row = _one(rows, "alloc", variant, threads=1, depth=int(cgroup == "user"))
        theirs = KERNEL[cgroup].get(published)
        ratio = None if theirs is None else theirs / KERNEL[cgroup]["unaccounted"]
        lines.append(
            [
                f"{cgroup} cgroup",
                published,
                "" if theirs is None else f"{theirs:,}".replace(",", " "),
                "" if ratio in {None, 1} else f"{ratio:.2f}x",
                variant,
                _nanoseconds(row),
                _times(row),
            ]
        )
    headings = ["where", "kernel", "as published", "ratio", "here", "ns", "ratio"]
    return "a million allocations of 64 bytes, the kernel's and these", headings, lines


def _step_table(rows: list[Row]) -> Table:
    """Return what each step makes of an allocation, and of one with its free."""
    lines = []
    for variant in VARIANTS:
        row = _one(rows, "alloc", variant, threads=1, depth=1)
        pair = _one(rows, "alloc+free-1000", variant, threads=1, depth=1)
        if row is None or pair is None or row["step_baseline"] is None:
            continue
        lines.append([variant, row["step_baseline"], _difference(row), _difference(pair)])
    headings = ["variant", "instead of", "alloc, ns", "alloc and free, ns"]
    return "the difference that one step makes, in a child of the root", headings, lines


def _instructions_table(rows: list[Row]) -> Table:
    """Return how many instructions an allocation and its free take."""
    lines = []
    for variant in PATH:
        found = [_one(rows, name, variant, threads=1, depth=1) for name in COUNTED]
        lines.append(
            [variant, *("" if row is None else f"{row['instructions']:.1f}" for row in found)]
        )
    headings = ["variant", "one at a time", "1000 at a time"]
    return "instructions of an allocation and its free, with the loop around them", headings, lines


def _scenario_table(scenario: Scenario, rows: list[Row]) -> Table:
    situations = list(dict.fromkeys(_situation(row) for row in rows))
    headings = ["variant"]
    for situation in situations:
        headings += [_heading(scenario, situation), "x"]
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        line = [variant]
        for situation in situations:
            row = next(
                (r for r in rows if r["variant"] == variant and _situation(r) == situation), None
            )
            line += [_nanoseconds(row), _times(row)]
        lines.append(line)
    if all(row["ratio"] is None for row in rows):
        headings, *lines = ([line[0], *line[1::2]] for line in (headings, *lines))
    return scenario.text, headings, lines


def _situation(row: Row) -> tuple[int, int, int]:
    # what belongs to no group stands beside what was measured in one
    return row["threads"], 1 if row["depth"] is None else row["depth"], row["allocations"]


def _heading(scenario: Scenario, situation: tuple[int, int, int]) -> str:
    threads, depth, allocations = situation
    parts = []
    if scenario.name in {"fork", "move"}:
        parts.append(f"{allocations} block{'s' * (allocations != 1)}")
    elif scenario.name in {"alloc", "depth", "batch"}:
        parts.append(f"depth {depth}" if depth else "root")
    if scenario.name == "moved":
        parts.append("1 thread, 1 mover")
    elif {s["threads"] for s in scenario.situations} != {1}:
        parts.append(f"{threads} threads" if threads > 1 else "1 thread")
    return ", ".join(parts) or "ns"


def _one(rows: list[Row], scenario: str, variant: str, *, threads: int, depth: int) -> Row | None:
    for row in rows:
        if (row["scenario"], row["variant"]) == (scenario, variant) and _situation(row)[:2] == (
            threads,
            depth,
        ):
            return row
    return None


def _nanoseconds(row: Row | None) -> str:
    if row is None:
        return ""
    first, third = row["ns_per_op_quartiles"]
    return f"{_number(row['ns_per_op'])} ({_number(first)}-{_number(third)})"


def _times(row: Row | None) -> str:
    return "" if row is None or row["ratio"] is None else f"{row['ratio']:.2f}x"


def _difference(row: Row) -> str:
    first, third = row["step_ns_quartiles"]
    return f"{row['step_ns']:+.2f} ({first:+.2f} to {third:+.2f})"


def _number(nanoseconds: float) -> str:
    return f"{nanoseconds:.2f}" if nanoseconds < 10 else f"{nanoseconds:.1f}"
