"""Groups of the same path in several processes, added up: a pre-forked server's tenants, say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from objcg._sizes import format_size

from .table import aligned, counts, indented

if TYPE_CHECKING:
    from collections.abc import Iterable

    from objcg.region import Region


class Sum(NamedTuple):
    """What the groups of one path have in all `processes` that have such a group.

    Limits are not added up: each process has its own, and none is of the sum. `peak` is what they
    would have had at most, if all had been at their peaks at once.
    """

    path: str
    processes: int
    tasks: int
    current: int
    peak: int
    events: dict[str, int]
    stat: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as ``objcg tree --json`` prints it."""
        return self._asdict()


def add_up(regions: Iterable[Region]) -> list[Sum]:
    """Return the sums, each group before those below it, the largest first of siblings."""
    found: dict[str, Sum] = {}
    for region in regions:
        for group in region.groups:
            sofar = found.get(group.path, Sum(group.path, 0, 0, 0, 0, {}, {}))
            found[group.path] = Sum(
                path=group.path,
                processes=sofar.processes + 1,
                tasks=sofar.tasks + group.tasks,
                current=sofar.current + group.current,
                peak=sofar.peak + group.peak,
                events=_added(sofar.events, group.events),
                stat=_added(sofar.stat, group.stat),
            )
    return _in_order(found)


def sum_table(sums: list[Sum]) -> list[str]:
    """Return the lines of the table, as `table()` for one process."""
    rows = [
        (
            indented(each.path),
            str(each.processes),
            format_size(each.current),
            str(each.tasks),
            counts(each.events),
        )
        for each in sums
    ]
    return aligned([("group", "processes", "current", "tasks", "events"), *rows], left={0, 4})


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    # not "+" of two Counters, which leaves out what is not above 0
    total = Counter(one)
    total.update(other)
    return dict(total)


def _in_order(found: dict[str, Sum]) -> list[Sum]:
    below: dict[str, list[Sum]] = {}
    for path, each in found.items():
        if path != "/":
            below.setdefault(path.rpartition("/")[0] or "/", []).append(each)
    for siblings in below.values():
        siblings.sort(key=lambda each: (each.current, each.path))
    ordered = []
    stack = [found["/"]] if "/" in found else []
    while stack:
        each = stack.pop()
        ordered.append(each)
        # the largest is at the end, and so the next
        stack.extend(below.get(each.path, ()))
    return ordered
