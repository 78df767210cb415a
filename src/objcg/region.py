"""Read the region: the file in which a process with objcg on keeps its counters.

The process that writes it is not asked, and no lock is taken: it may hang, be killed in the middle
of a change, or not be what it says it is. So every offset and length is checked against the file,
and a record that changes while it is read is read again, as with the kernel's seqcount.

Guarantees: a `Region` or a `RegionError`, after a bounded number of steps, whatever the file has,
and with memory in proportion to what the file takes on the disk. A file of a process at rest is
read exactly. In one that is at work each group existed, with that path, at some moment of the
reading, and each number is one that the process had, but not all are of the same moment: `current`
may be off by what is allocated meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from . import _location
from ._region_groups import GroupInfo
from ._region_parse import parse_header, parse_source
from ._region_source import BufferSource, FileSource, RegionError
from ._region_types import Region, TaskInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

__all__ = [
    "GroupInfo",
    "Region",
    "RegionError",
    "TaskInfo",
    "find",
    "find_dead",
    "find_live",
    "open_file",
    "parse",
    "read",
    "read_header",
]


def parse(data: Buffer, *, tasks: bool = False) -> Region:
    """Return what is in `data`, a region (bytes, or a mapping of one). Raises RegionError."""
    return parse_source(BufferSource(data), tasks=tasks)


def read(path: str, *, tasks: bool = False, since: Region | None = None) -> Region:
    """Return what is in the region file at `path`, of a live or dead process.

    Its tasks, of which there may be many more than groups, only if `tasks` asks for them. `since`
    is what was read before, for who reads it again and again: of a process that has charged
    meanwhile the mappings are not looked at, of which there may be tens of thousands.

    Raises RegionError, also when the file cannot be read.
    """
    with _opened(path) as fd:
        region = parse_source(FileSource(fd), tasks=tasks)
        # right after the counters: they are compared
        resident = _location.resident(region.pid)
    region = region._replace(path=os.path.abspath(path))
    # not before: the number may be another process's by now
    if resident is None or not (_has_charged(region, since) or region.alive):
        return region
    return region._replace(rss=resident[0], rss_shared=resident[1])


def _has_charged(found: Region, since: Region | None) -> bool:
    """Return whether the process runs, and has charged since.

    Then it had its region mapped, and was not another program. Should it have become one right
    after, that is seen the next time.
    """
    return (
        since is not None
        and since.created_ns == found.created_ns
        and since.updated_ns != found.updated_ns
        and not found.exited
        and _location.start_time(found.pid) == found.start_time
    )


def read_header(path: str) -> Region:
    """Return what the header of the region file at `path` says; no groups. Raises RegionError."""
    with _opened(path) as fd:
        region, _ = parse_header(FileSource(fd))
    return region._replace(path=os.path.abspath(path))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = open_file(path)
    try:
        yield fd
    except RegionError as error:
        msg = f"{path}: {error}"
        raise RegionError(msg) from error
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise RegionError(msg) from error
    finally:
        os.close(fd)


def open_file(path: str, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor for the region file at `path`. Raises RegionError.

    Root may be asked to look at a process of another user, who can put anything there: so what it
    is is looked at before it is opened, which for a device or a FIFO does something, and that very
    thing is then opened. A symbolic link is not followed.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _location.check_file(place)
            return os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            os.close(place)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise RegionError(msg) from error


def find(pid: int) -> str | None:
    """Return the region file of process `pid`, the live one first and then the newest; or None."""
    found = _files_of(pid)
    for file in found:
        if _location.is_running(file):
            return file.path
    # it may keep its file elsewhere; whoever may debug the process can see where
    for path in _location.mapped_files(pid) or ():
        if os.path.exists(path):
            return path
    return max(found, key=lambda file: file.start_time).path if found else None


def find_live() -> list[str]:
    """Return the region files of this user's running processes, by rising PID."""
    found = {file.pid: file.path for file in _files() if _location.is_running(file)}
    return [found[pid] for pid in sorted(found)]


def find_dead(pid: int | None = None) -> list[str]:
    """Return the region files of this user's dead processes, the one that charged last first.

    Only those whose number was `pid`, if that is given; root then finds those of other users, if
    there are none of its own. Whose they are, their owners tell: a user can put anything in there.
    """
    files = _files()
    if pid is not None:
        files = _files_of(pid) or _files_of_others(pid)
    found = []
    for file in files:
        if not _location.is_running(file):
            with contextlib.suppress(RegionError):
                found.append((read_header(file.path).updated_ns, file.path))
    return [path for _, path in sorted(found, reverse=True)]


def _files() -> list[_location.RegionFile]:
    return [file for folder in _location.folders() for file in _location.files(folder)]


def _files_of(pid: int) -> list[_location.RegionFile]:
    return [file for file in _files() if file.pid == pid]


def _files_of_others(pid: int) -> list[_location.RegionFile]:
    return [
        file
        for folder, owner in _location.folders_of_others()
        for file in _location.files(folder, owner=owner)
        if file.pid == pid
    ]
