"""The process that a verb is about, as it is named on the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from objcg import region

from .output import tell
from .parser import CliError

if TYPE_CHECKING:
    from objcg.region import GroupInfo, Region

_LARGEST_PID = 2**22
# of a number with 64 bits, and fewer than 2**64 has
_MOST_DIGITS = 19


def is_pid(process: str) -> bool:
    """Return whether `process` is the number of one, and not the name of a file.

    A folder of that name is none: in /proc each process has one.
    """
    return process.isascii() and process.isdigit() and not os.path.isfile(process)


def number(digits: str) -> int:
    """Return the number of a process or a task that `digits` are; 2**64, which none has, for more.

    int() takes no more than some thousand digits.
    """
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MOST_DIGITS else 2**64


def no_region(pid: str) -> CliError:
    """Return the error for a process that has no region."""
    owner = _other_owner(pid)
    if owner is not None:
        msg = f"process {pid} belongs to user {owner}: only that user and root may look into it"
        return CliError(msg)
    return CliError(f"no region of process {pid}: it does not run, or not with objcg on")


def find_process(process: str) -> str:
    """Return the region file of `process`, a PID or the path of one. Raises CliError."""
    path: str | None = process
    if is_pid(process):
        path = region.find(number(process)) if number(process) <= _LARGEST_PID else None
        if path is None:
            raise no_region(process)
    assert path is not None  # noqa: S101
    return path


def read_process(process: str, *, tasks: bool = False) -> Region:
    """Return the region of `process`, a PID or the path of a region file. Raises CliError."""
    path = find_process(process)
    try:
        return region.read(path, tasks=tasks)
    except region.RegionError as error:
        raise CliError(str(error)) from error


def read_all_live(*, tasks: bool = False) -> tuple[list[Region], list[str]]:
    """Return the regions of all running processes of this user, and why some cannot be read.

    One process, of another version of objcg say, must not hide the others.
    """
    regions = []
    unread = []
    for path in region.find_live():
        try:
            regions.append(region.read(path, tasks=tasks))
        except region.RegionError as error:  # noqa: PERF203  # a process may end at any time
            # no file: the process ended meanwhile, and took it with it
            if os.path.exists(path):
                unread.append(str(error))
    return regions, unread


def tell_unread(unread: list[str]) -> int:
    """Say of each process why it is not shown; return the exit status."""
    for why in unread:
        tell(f"a process is not shown: {why}")
    return 1 if unread else 0


def find_group(found: Region, path: str) -> GroupInfo:
    """Return the group of `found` with this path. Raises CliError."""
    for group in found.groups:
        if group.path == path:
            return group
    msg = f"process {found.pid} has no group {path} (see 'objcg tree {found.pid}')"
    raise CliError(msg)


def _other_owner(pid: str) -> int | None:
    """Return whose process it is, unless we may look into it or it does not run."""
    try:
        owner = os.stat(f"/proc/{int(pid)}").st_uid
    except (OSError, ValueError):
        return None
    return owner if os.geteuid() not in {0, owner} else None
