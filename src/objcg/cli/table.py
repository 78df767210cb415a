"""The tree of groups as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objcg._sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from objcg.region import GroupInfo, Region

_HEADINGS = ("group", "current", "peak", "max", "high", "tasks", "events")
_COUNTS = ("blocks", "dying_descendants")


def printable(text: str) -> str:
    """Return `text` with what could move the cursor or change colours escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def heading(region: Region) -> str:
    """Return the lines above the table: which process it is, and what is not seen of it."""
    state = "" if region.alive else "  (not running)"
    first = f"pid {region.pid}  {printable(region.command)}{state}"
    return first if region.rss is None else f"{first}\n{_resident(region, region.rss)}"


def _resident(region: Region, rss: int) -> str:
    unaccounted = rss - region.startup - region.charged
    share = 100 * unaccounted / rss if rss else 0
    return (
        f"RSS {format_size(rss)}: {format_size(region.startup)} at start-up, "
        f"{format_size(region.charged)} charged, {format_size(unaccounted)} unaccounted "
        f"({share:.0f} %, {format_size(region.shared or 0)} of it shared)"
    )


def table(region: Region) -> list[str]:
    """Return the lines of the table: the tree indented, the largest first of siblings."""
    last = len(_HEADINGS) - 1
    # names and events to the left, numbers to the right
    return _aligned([_HEADINGS, *(_row(group) for group in region.tree())], left={0, last})


def stat_table(region: Region) -> list[str]:
    """Return the lines of a table of what each group's memory is made of, in the tree's order."""
    groups = region.tree()
    names = list(groups[0].stat)
    rows = [
        (
            _indented(group.path),
            *(
                str(value) if name in _COUNTS else format_size(value)
                for name, value in group.stat.items()
            ),
        )
        for group in groups
    ]
    return ["", *_aligned([("group", *(name.split("_")[0] for name in names)), *rows], left={0})]


def task_table(region: Region) -> list[str]:
    """Return the lines of the table of tasks; none, if they were not read."""
    if region.tasks is None:
        return []
    rows = [
        (str(task.id), printable(task.name), printable(task.group))
        for task in sorted(region.tasks, key=lambda task: (task.group, task.id))
    ]
    return ["", *_aligned([("task", "name", "group"), *rows], left={1, 2})]


def _aligned(rows: Sequence[tuple[str, ...]], left: set[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _row(group: GroupInfo) -> tuple[str, ...]:
    return (
        _indented(group.path),
        format_size(group.current),
        format_size(group.peak),
        _limit(group.max),
        _limit(group.high),
        str(group.tasks),
        ", ".join(f"{event} {count}" for event, count in group.events.items() if count),
    )


def _indented(path: str) -> str:
    if path == "/":
        return path
    depth = path.count("/")
    return "  " * depth + printable(path.rsplit("/", 1)[1])


def _limit(limit: int | None) -> str:
    return "-" if limit is None else format_size(limit)
