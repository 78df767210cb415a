"""``objcg autopsy``: the last state of a dead process, from the region file that it left.

A process that comes to its end by itself takes its file away, so what is found was killed: by the
kernel for want of memory, by a signal, or by a crash. The file does not say by which of them, nor
when; but counters are in it up to the last one that was changed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from objcg import _location, region
from objcg._sizes import format_size

from .output import say
from .parser import CliError
from .process import is_pid, no_region, number, read_process
from .table import counts, heading, printable, stat_table, table, task_table

if TYPE_CHECKING:
    import argparse

    from objcg.region import GroupInfo, Region

_STATES = {
    "killed": "killed",
    "exited": "exited by itself",
    "replaced": "became another program (exec)",
}
# Those that are named in text; JSON has all.
_NAMED = 10


class Over(NamedTuple):
    """A group that was over a limit of its own: `knob` is which."""

    group: GroupInfo
    knob: str
    limit: int

    def to_json(self) -> dict[str, Any]:
        """Return it as ``objcg autopsy --json`` prints it."""
        return {
            "path": self.group.path,
            "knob": self.knob,
            "limit": self.limit,
            "current": self.group.current,
            "events": self.group.events,
        }


def run(options: argparse.Namespace) -> int:
    """Print the last state that was asked for; return the exit status."""
    found = _find(options.process)
    state = found.state
    if state == "running":
        msg = f"process {found.pid} is still running: use 'objcg tree {found.pid}'"
        raise CliError(msg)
    over = over_limits(found)
    own = largest(found)
    if options.json:
        report = {
            "state": state,
            "created": found.created_ns / 1e9,
            "updated": found.updated_ns / 1e9,
            "age": _age(found),
            "over": [each.to_json() for each in over],
            "largest": [{"path": path, "own": size} for path, size in own],
        }
        say(found.to_json_text(report))
        return 0
    stat = stat_table(found) if options.stat else []
    lines = [heading(found), *_summary(found, state, over, own)]
    say("\n".join([*lines, "", *table(found), *stat, *task_table(found)]))
    return 0


def over_limits(found: Region) -> list[Over]:
    """Return the groups that were over a limit when the process died, max first, then the largest.

    At a limit to within 1/64 is over it: what was given back last, to the collector say, may be
    what was wanted.
    """
    over = [
        Over(group, knob, limit)
        for knob in ("max", "high")
        for group in found.groups
        if (limit := getattr(group, knob)) is not None and group.current > limit - limit // 64
    ]
    over.sort(key=lambda each: (each.knob != "max", -each.group.current, each.group.path))
    return over


def largest(found: Region) -> list[tuple[str, int]]:
    """Return the groups by what they had themselves (bytes), without those below; largest first."""
    own = {group.path: group.current for group in found.groups}
    for group in found.groups:
        if group.path != "/":
            own[group.path.rpartition("/")[0] or "/"] -= group.current
    ranked = sorted(own.items(), key=lambda item: (-item[1], item[0]))
    return [(path, max(0, size)) for path, size in ranked[:_NAMED]]


def _find(process: str | None) -> Region:
    if process is not None and not is_pid(process):
        return read_process(process, tasks=True)
    dead = region.find_dead(None if process is None else number(process))
    if len(set(map(_owner, dead))) > 1:
        # of other users, for root: one may have made it up
        msg = f"several users have left a file of such a process; name one: {' '.join(dead)}"
        raise CliError(msg)
    for path in dead:
        try:
            return region.read(path, tasks=True)
        except region.RegionError as error:  # noqa: PERF203
            if len(dead) == 1:
                raise CliError(str(error)) from error
    if process is None:
        msg = "no dead process of this user has left a region: one that exits by itself does not"
        raise CliError(msg)
    if region.find(number(process)) is not None:
        return read_process(process)
    reason = no_region(process)
    msg = (
        f"{reason}; nor has it left one, which only a process that was killed does, in "
        f"{' or '.join(_location.folders())}; of what it left elsewhere, name the file"
    )
    raise CliError(msg)


def _owner(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _age(found: Region) -> float:
    """Return how long ago anything was charged (seconds)."""
    return max(0.0, (time.time_ns() - found.updated_ns) / 1e9)


def _summary(found: Region, state: str, over: list[Over], own: list[tuple[str, int]]) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.updated_ns / 1e9))
    ran = max(0, found.updated_ns - found.created_ns) / 1e9
    lines = [
        f"{_STATES[state]}; last charge {when}, {_ago(_age(found))} ago, {_ago(ran)} after start"
    ]
    for each in over[:_NAMED]:
        happened = counts(each.group.events)
        lines.append(
            f"over memory.{each.knob}: {printable(each.group.path)}, "
            f"{format_size(each.group.current)} of {format_size(each.limit)}"
            + (f" ({happened})" if happened else "")
        )
    if len(over) > _NAMED:
        lines.append(f"and {len(over) - _NAMED} more groups were over a limit")
    if not over:
        lines.append("no group was over a limit")
    path, size = own[0]
    lines.append(f"largest: {printable(path)}, {format_size(size)} of its own")
    return lines


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} days"
