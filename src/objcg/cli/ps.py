"""``objcg ps``: the processes that have objcg on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from objcg import region
from objcg._sizes import format_size

from .output import say
from .process import read_all_live, tell_unread
from .table import aligned, counts, printable

if TYPE_CHECKING:
    import argparse

    from objcg.region import Region

_HEADINGS = ("pid", "state", "RSS", "charged", "groups", "tasks", "events", "command")


def run(options: argparse.Namespace) -> int:
    """Print the processes; return the exit status."""
    regions, unread = read_all_live()
    if options.all:
        regions.extend(_dead())
    if options.json:
        say(json.dumps({"processes": [_to_json(found) for found in regions]}))
    else:
        # numbers to the right
        say("\n".join(aligned([_HEADINGS, *map(_row, regions)], left={1, 6, 7})))
    return tell_unread(unread)


def _dead() -> list[Region]:
    regions = []
    for path in region.find_dead():
        try:
            regions.append(region.read(path))
        except region.RegionError:  # noqa: PERF203  # damaged, or gone: it shows no process
            pass
    return regions


def _events(found: Region) -> dict[str, int]:
    """Return the events of root, which are those of all groups."""
    return next((group.events for group in found.groups if group.path == "/"), {})


def _to_json(found: Region) -> dict[str, Any]:
    return {
        "pid": found.pid,
        "state": found.state,
        "command": found.command,
        "python": found.python,
        "rss": found.rss,
        "startup": found.startup,
        "charged": found.charged,
        "unaccounted": found.unaccounted,
        "groups": len(found.groups),
        "tasks": sum(group.tasks for group in found.groups),
        "events": _events(found),
        "file": found.path,
    }


def _row(found: Region) -> tuple[str, ...]:
    return (
        str(found.pid),
        found.state,
        "-" if found.rss is None else format_size(found.rss),
        format_size(found.charged),
        str(len(found.groups)),
        str(sum(group.tasks for group in found.groups)),
        counts(_events(found)) or "-",
        printable(found.command),
    )
