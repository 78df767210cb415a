"""Read the region: the file in which a process with objcg on keeps its counters.

The process that writes it is not asked, and no lock is taken: it may hang, be killed in the middle
of a change, or not be what it says it is. So every offset and length is checked against the file,
and a record that changes while it is read is read again, as with the kernel's seqcount.

Guarantees: a `Region` or a `RegionError`, after a bounded number of steps, whatever the file has.
A file of a process at rest is read exactly. In one that is at work each number is one the process
had, but not all are of the same moment: `current` may be off by what is allocated meanwhile.
"""

from __future__ import annotations

import operator
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _layout, _location
from ._paths import MAX_DEPTH, MAX_NAME
from ._region_source import BufferSource, FileSource, RegionError, Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from ._region_source import Source

__all__ = [
    "GroupInfo",
    "Region",
    "RegionError",
    "TaskInfo",
    "find",
    "find_live",
    "parse",
    "read",
]

# How often a record, or all, is read again before it is taken as it is, or given up.
_RECORD_ATTEMPTS = 10
_ATTEMPTS = 5
_PAUSE = 0.0002  # seconds; a writer is done after far less, unless it is dead or descheduled

# More text than the paths of groups can reasonably be.
_MOST_PATH_TEXT = 1 << 28


class GroupInfo(NamedTuple):
    """A group as its record has it. Sizes are bytes; limits are None where unset."""

    path: str
    id: int
    uid: int
    online: bool
    tasks: int
    current: int
    peak: int
    max: int | None
    high: int | None
    low: int | None
    event_counts: tuple[int, ...]
    stat_values: tuple[int, ...]

    @property
    def events(self) -> dict[str, int]:
        """How often each thing happened in the group or below it."""
        return dict(zip(_layout.EVENTS, self.event_counts, strict=True))

    @property
    def stat(self) -> dict[str, int]:
        """Bytes by allocation domain, "blocks" and "dying_descendants"."""
        return dict(zip(_layout.STATS, self.stat_values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return the group as ``objcg tree --json`` prints it."""
        return {
            "path": self.path,
            "id": self.id,
            "uid": self.uid,
            "online": self.online,
            "tasks": self.tasks,
            "current": self.current,
            "peak": self.peak,
            "max": self.max,
            "high": self.high,
            "low": self.low,
            "events": self.events,
            "stat": self.stat,
        }


class TaskInfo(NamedTuple):
    """A task as its record has it; `record` is its number, `gid` the group's."""

    id: int
    name: str
    group: str
    record: int
    gid: int

    def to_json(self) -> dict[str, Any]:
        """Return the task as ``objcg tree --tasks --json`` prints it."""
        return {"id": self.id, "name": self.name, "group": self.group}


class Region(NamedTuple):
    """What a region file says of its process, and of the groups in it, by rising id.

    `tasks` are None unless they were asked for. `startup` is what was resident (bytes) when objcg
    was enabled, and `rss` what is now: None of a process that does not run, which has no memory.
    Of each, the other two are files that are mapped (libraries) and shared memory.
    """

    pid: int
    command: str
    groups: list[GroupInfo]
    tasks: list[TaskInfo] | None = None
    uid: int = 0
    start_time: int = 0  # clock ticks since boot
    boot_id: str = ""
    created_ns: int = 0  # since the epoch
    updated_ns: int = 0  # since the epoch
    flags: int = 0
    python: str = ""
    path: str | None = None
    startup: int = 0
    rss: int | None = None
    startup_shared: int = 0
    rss_shared: int | None = None

    @property
    def exited(self) -> bool:
        """Whether the process said good-bye: it was not killed."""
        return bool(self.flags & _layout.FLAG_EXITED)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the region still runs."""
        if self.exited or (self.boot_id and self.boot_id != _boot_id()):
            return False
        if self.path is not None:
            return _location.is_running(_location.RegionFile(self.path, self.pid, self.start_time))
        return _location.start_time(self.pid) == self.start_time

    @property
    def charged(self) -> int:
        """Bytes charged to root, and so to all groups."""
        return next((group.current for group in self.groups if group.path == "/"), 0)

    @property
    def unaccounted(self) -> int | None:
        """Bytes resident beyond start-up that no group is charged for; None where `rss` is.

        Below 0 where memory is charged that was never written to, and so takes no room: a large
        calloc() that is read only, an array that is filled later.
        """
        return None if self.rss is None else self.rss - self.startup - self.charged

    @property
    def shared(self) -> int | None:
        """Bytes of `unaccounted` that are mapped files (libraries, mostly) and shared memory.

        The system has them once, however many processes map them.
        """
        return None if self.rss_shared is None else self.rss_shared - self.startup_shared

    def tree(self) -> list[GroupInfo]:
        """Return the groups with each before those below it, and the largest first of siblings."""
        by_parent: dict[str, list[GroupInfo]] = {}
        for group in self.groups:
            if group.path != "/":
                by_parent.setdefault(_parent_path(group.path), []).append(group)
        for siblings in by_parent.values():
            siblings.sort(key=lambda group: (group.current, group.path))
        ordered: list[GroupInfo] = []
        # each list is used up from its end, the largest
        stack = [[group for group in self.groups if group.path == "/"]]
        while stack:
            if not stack[-1]:
                stack.pop()
                continue
            group = stack[-1].pop()
            ordered.append(group)
            stack.append(by_parent.pop(group.path, []))
        # below something that is not there
        for siblings in by_parent.values():
            ordered.extend(reversed(siblings))
        return ordered

    def to_json(self) -> dict[str, Any]:
        """Return the region as ``objcg tree --json`` prints it."""
        json: dict[str, Any] = {
            "pid": self.pid,
            "command": self.command,
            "alive": self.alive,
            "python": self.python,
            "rss": self.rss,
            "startup": self.startup,
            "charged": self.charged,
            "unaccounted": self.unaccounted,
            "shared": self.shared,
            "groups": [group.to_json() for group in self.tree()],
        }
        if self.tasks is not None:
            json["tasks"] = [task.to_json() for task in self.tasks]
        return json


def parse(data: Buffer, *, tasks: bool = False) -> Region:
    """Return what is in `data`, a region (bytes, or a mapping of one). Raises RegionError."""
    return _parse(BufferSource(data), tasks=tasks)


def read(path: str, *, tasks: bool = False) -> Region:
    """Return what is in the region file at `path`, of a live or dead process.

    Its tasks, of which there may be many more than groups, only if `tasks` asks for them.

    Raises RegionError, also when the file cannot be read.
    """
    try:
        # a FIFO of that name must not make us wait
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise RegionError(msg) from error
    try:
        region = _parse(FileSource(fd), tasks=tasks)
        # right after the counters: they are compared
        resident = _location.resident(region.pid)
    except RegionError as error:
        msg = f"{path}: {error}"
        raise RegionError(msg) from error
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise RegionError(msg) from error
    finally:
        os.close(fd)
    region = region._replace(path=os.path.abspath(path))
    # not before: the number may be another process's by now
    if resident is None or not region.alive:
        return region
    return region._replace(rss=resident[0], rss_shared=resident[1])


def find(pid: int) -> str | None:
    """Return the region file of process `pid`, the live one first and then the newest; or None."""
    found = [
        file
        for folder in _location.folders()
        for file in _location.files(folder)
        if file.pid == pid
    ]
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
    found = {
        file.pid: file.path
        for folder in _location.folders()
        for file in _location.files(folder)
        if _location.is_running(file)
    }
    return [found[pid] for pid in sorted(found)]


class _Inconsistent(RegionError):
    """The tree makes no sense: damage, or it changed while it was being read."""


def _parse(source: Source, *, tasks: bool = False) -> Region:
    for _ in range(_ATTEMPTS - 1):
        try:
            return _parse_once(source, tasks=tasks)
        except _Inconsistent:  # noqa: PERF203  # five times at most
            time.sleep(_PAUSE)
    return _parse_once(source, tasks=tasks)


def _parse_once(source: Source, *, tasks: bool) -> Region:
    region, sections = _parse_header(source)
    groups, objcgs, task_section, cpus = sections
    records = dict(_group_records(groups))
    paths = _paths(records)
    stocks = _stocks(cpus, objcgs, records)
    region.groups.extend(
        _group_info(gid, record, paths[gid], stocks.get(gid)) for gid, record in records.items()
    )
    if tasks:
        region = region._replace(tasks=sorted(_tasks(task_section, paths)))
    return region


def _parse_header(source: Source) -> tuple[Region, list[Section]]:
    data = source.read(0, _layout.HEADER.size)
    if not data.startswith(_layout.MAGIC):
        msg = "it is not a region file of objcg"
        raise RegionError(msg)
    if len(data) < _layout.HEADER.size:
        msg = f"it has {len(data)} bytes, less than a header"
        raise RegionError(msg)
    (_, version, header_size, file_size, pid, uid, start, boot, created, flags, *rest) = (
        _layout.HEADER.unpack(data)
    )
    places, (updated, startup, startup_shared, python, command_len, command) = rest[:20], rest[20:]
    if version != _layout.VERSION or header_size != _layout.HEADER.size:
        msg = (
            f"it has layout version {version} (header of {header_size} bytes); this objcg reads "
            f"version {_layout.VERSION}"
        )
        raise RegionError(msg)
    if file_size > source.size:
        msg = f"it should have {file_size} bytes, but has {source.size}"
        raise RegionError(msg)
    if command_len > len(command):
        msg = f"its command line claims {command_len} bytes"
        raise RegionError(msg)
    names = ("group", "objcg", "task", "cpu")
    sections = [
        Section(source, name, record, tuple(places[5 * i : 5 * i + 5]))
        for i, (name, record) in enumerate(zip(names, _layout.SECTIONS, strict=True))
    ]
    region = Region(
        pid=pid,
        command=_text(command[:command_len]),
        groups=[],
        uid=uid,
        start_time=start,
        boot_id=_text(boot),
        created_ns=created,
        updated_ns=updated,
        flags=flags,
        python=_text(python),
        startup=startup,
        startup_shared=startup_shared,
    )
    return region, sections


def _group_records(groups: Section) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield (gid, fields) of the groups that exist."""
    for first, count in groups.chunks():
        data = groups.read(first, count)
        # a writer makes seq odd, changes the record, and makes it even again
        seqs = zip(_seqs(data), _seqs(groups.read(first, count)), strict=True)
        torn = {gid for gid, (seq, now) in enumerate(seqs, first) if seq & 1 or seq != now}
        for gid, record in enumerate(_layout.GROUP.struct.iter_unpack(data), first):
            if gid == 0:
                continue
            if gid in torn:
                record = _read_again(groups, gid)  # noqa: PLW2901
            state = record[0]
            if state > _layout.STATE_OFFLINE or record[-2] > MAX_NAME:
                msg = f"group record {gid} has state {state} and a name of {record[-2]} bytes"
                raise RegionError(msg)
            # an offline one waits to be used again: all it had is its parent's
            if state == _layout.STATE_ONLINE:
                yield gid, record


def _seqs(records: bytes) -> list[int]:
    at, size = _layout.GROUP.fields["seq"][0], _layout.GROUP.size
    words: list[int] = memoryview(records).cast("I")[at // 4 :: size // 4].tolist()
    return words


def _read_again(groups: Section, gid: int) -> tuple[Any, ...]:
    for _ in range(_RECORD_ATTEMPTS):
        time.sleep(_PAUSE)
        data = groups.read(gid)
        (seq,) = _seqs(data)
        if not seq & 1 and [seq] == _seqs(groups.read(gid)):
            break
    # still odd: the writer was killed in the middle of it, and this is all there is
    return _layout.GROUP.unpack(data)


def _paths(records: dict[int, tuple[Any, ...]]) -> dict[int, str]:
    root = records.get(1)
    if root is None or root[1] != 0:
        msg = "it has no root group"
        raise _Inconsistent(msg)
    # with a slash at the end, for the names of the children
    prefixes = {1: "/"}
    text = 0
    for start, record in records.items():
        # nearly always empty: a child is made after its parent
        for gid in (start,) if record[1] in prefixes else _climb(start, records, prefixes):
            record = records[gid]  # noqa: PLW2901
            prefix = prefixes[record[1]]
            name = record[-1][: record[-2]].decode(errors="replace")
            if not name or "/" in name or "\0" in name:
                msg = f"group record {gid} has the name {name!r}"
                raise _Inconsistent(msg)
            path = f"{prefix}{name}/"
            text += len(path)
            if text > _MOST_PATH_TEXT or path.count("/") > MAX_DEPTH + 1:
                msg = f"group record {gid} is deeper than {MAX_DEPTH} groups, or paths are endless"
                raise _Inconsistent(msg)
            prefixes[gid] = path
    return {gid: prefix[:-1] or "/" for gid, prefix in prefixes.items()}


def _climb(start: int, records: dict[int, tuple[Any, ...]], known: dict[int, str]) -> Iterator[int]:
    """Return the groups from the first one below a `known` one down to `start`."""
    climbed: list[int] = []
    gid = start
    while gid not in known:
        if gid not in records:
            msg = f"the parent of group record {climbed[-1]} is {gid}, which is not in use"
            raise _Inconsistent(msg)
        if len(climbed) > MAX_DEPTH:
            msg = f"group record {start} is deeper than {MAX_DEPTH} groups, or its own parent"
            raise _Inconsistent(msg)
        climbed.append(gid)
        gid = records[gid][1]
    return reversed(climbed)


def _tasks(tasks: Section, paths: dict[int, str]) -> Iterator[TaskInfo]:
    for first, count in tasks.chunks():
        data = tasks.read(first, count)
        for index, record in enumerate(_layout.TASK.struct.iter_unpack(data), first):
            gid, state, task_id, name_len, name = record
            if index == 0 or state == _layout.TASK_FREE:
                continue
            if state != _layout.TASK_LIVE or name_len >= len(name):
                msg = f"task record {index} has state {state} and a name of {name_len} bytes"
                raise RegionError(msg)
            # one that is on its way out of a removed group is in the next reading
            if gid in paths:
                text = name[:name_len].decode(errors="replace") or f"task-{task_id}"
                yield TaskInfo(task_id, text, paths[gid], index, gid)


def _stocks(
    cpus: Section, objcgs: Section, records: dict[int, tuple[Any, ...]]
) -> dict[int, list[int]]:
    """Return what threads have in stock, by group and with its subtree: bytes, blocks, stat."""
    by_objcg: dict[int, list[int]] = {}
    for index in range(cpus.used):
        data = cpus.read(index)
        if data[:4] == b"\0\0\0\0":
            continue
        for key, *amounts in _layout.STOCK.struct.iter_unpack(data[_layout.STOCKS_OFFSET :]):
            if key >> 1:
                _add(by_objcg.setdefault(key >> 1, [0] * 7), amounts)
    total: dict[int, list[int]] = {}
    for objcg, amounts in by_objcg.items():
        if objcg >= objcgs.used:
            msg = f"a stock is of objcg {objcg}, but only {objcgs.used} are in use"
            raise RegionError(msg)
        _, gid = _layout.OBJCG.unpack(objcgs.read(objcg))
        # bounded: _paths() has seen that each chain of parents ends at root, which has parent 0
        while gid in records:
            _add(total.setdefault(gid, [0] * 7), amounts)
            gid = records[gid][1]
    return total


def _add(total: list[int], amounts: Iterable[int]) -> None:
    for i, amount in enumerate(amounts):
        total[i] += amount


def _group_info(gid: int, record: tuple[Any, ...], path: str, stock: list[int] | None) -> GroupInfo:
    _, _, tasks, dying, uid, current, limit, high, low, peak, blocks = record[:11]
    mem, raw, numpy, native, mapped = record[12:17]
    if stock is not None:
        # in a process at work the stocks are read a moment after the counters
        current = max(0, current - stock[0])
        blocks += stock[1]
        mem, raw, numpy, native, mapped = map(operator.add, record[12:17], stock[2:])
    objects = current - mem - raw - numpy - native - mapped
    # by _make(): a hundred thousand of these should not be felt
    return GroupInfo._make(
        (
            path,
            gid,
            uid,
            True,  # online: the others are not read
            tasks,
            current,
            peak if peak > current else current,  # noqa: FURB136
            None if limit == _layout.NO_LIMIT else limit,
            None if high == _layout.NO_LIMIT else high,
            low or None,
            record[17:22],
            (max(0, objects), mem, raw, numpy, native, mapped, blocks, dying),
        )
    )


def _parent_path(path: str) -> str:
    return path.rsplit("/", 1)[0] or "/"


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
