"""What a reader of a region gets: a region, its groups, its tasks."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as _quoted
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _layout, _location

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Where the fields of a group's record are that _layout.GROUP.struct unpacks.
(
    STATE,
    PARENT,
    TASKS,
    DYING,
    UID,
    USAGE,
    MAX,
    HIGH,
    LOW,
    PEAK,
    BLOCKS,
    STAT,
    EVENTS,
    SEQ,
    NAME_LEN,
) = range(15)


class _Group(NamedTuple):
    path: str
    id: int
    record: tuple[Any, ...]


class GroupInfo(_Group):
    """A group. Sizes are bytes; limits are None where unset.

    A reader makes it of a record as it is, by `_make()`: what a tool does not look at is not
    unpacked, of ten thousand groups.
    """

    __slots__ = ()

    def __new__(  # noqa: PYI034  # nothing is derived from it
        cls,
        path: str,
        id: int,  # noqa: A002  # the field's name
        uid: int,
        *,
        online: bool,
        tasks: int,
        current: int,
        peak: int,
        max: int | None,  # noqa: A002
        high: int | None,
        low: int | None,
        event_counts: tuple[int, ...],
        stat_values: tuple[int, ...],
    ) -> GroupInfo:
        """Make one by hand; the counts are in the order of `_layout.EVENTS` and `STATS`."""
        *domains, blocks, dying = stat_values
        record = (
            _layout.STATE_ONLINE if online else _layout.STATE_OFFLINE,
            0,
            tasks,
            dying,
            uid,
            current,
            _layout.NO_LIMIT if max is None else max,
            _layout.NO_LIMIT if high is None else high,
            low or 0,
            peak,
            blocks,
            tuple(domains),
            _layout.GROUP_EVENTS.pack(*event_counts),
        )
        return cls._make((path, id, record))

    @property
    def uid(self) -> int:
        """The number of the group: no other of its process ever has the same."""
        uid: int = self.record[UID]
        return uid

    @property
    def online(self) -> bool:
        """Whether the group was not removed; such ones are not read."""
        return bool(self.record[STATE] == _layout.STATE_ONLINE)

    @property
    def tasks(self) -> int:
        """How many tasks are in the group itself."""
        tasks: int = self.record[TASKS]
        return tasks

    @property
    def current(self) -> int:
        """Bytes charged to the group and all below it, without what is only in stock."""
        current: int = self.record[USAGE]
        return current

    @property
    def peak(self) -> int:
        """The most bytes charged at once."""
        peak: int = max(self.record[PEAK], self.record[USAGE])
        return peak

    @property
    def max(self) -> int | None:
        """The hard limit."""
        return _limit(self.record[MAX])

    @property
    def high(self) -> int | None:
        """What is reclaimed above."""
        return _limit(self.record[HIGH])

    @property
    def low(self) -> int | None:
        """What is protected from reclaim."""
        return self.record[LOW] or None

    @property
    def events(self) -> dict[str, int]:
        """How often each thing happened in the group or below it."""
        counts = _layout.GROUP_EVENTS.unpack(self.record[EVENTS])
        return dict(zip(_layout.EVENTS, counts, strict=True))

    @property
    def stat(self) -> dict[str, int]:
        """Bytes by allocation domain, "blocks" and "dying_descendants"."""
        record = self.record
        domains = record[STAT]
        # a tuple where what is in stock was added
        if isinstance(domains, bytes):
            domains = _layout.GROUP_STAT.unpack(domains)
        _, mem, raw, numpy, native, mapped = domains
        objects = record[USAGE] - mem - raw - numpy - native - mapped
        return {
            # the domains are read a moment after their sum
            "object": objects if objects > 0 else 0,  # noqa: FURB136  # ten thousand times
            "mem": mem,
            "raw": raw,
            "numpy": numpy,
            "native": native,
            "mmap": mapped,
            "blocks": record[BLOCKS],
            "dying_descendants": record[DYING],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the group as ``objcg tree --json`` prints it."""
        record = self.record
        return {
            "path": self.path,
            "id": self.id,
            "uid": record[UID],
            "online": record[STATE] == _layout.STATE_ONLINE,
            "tasks": record[TASKS],
            "current": record[USAGE],
            "peak": self.peak,
            "max": _limit(record[MAX]),
            "high": _limit(record[HIGH]),
            "low": record[LOW] or None,
            "events": self.events,
            "stat": self.stat,
        }

    def to_json_text(self) -> str:
        """Return what json.dumps() makes of `to_json()`, in a third of the time."""
        record = self.record
        usage, peak = record[USAGE], record[PEAK]
        domains = record[STAT]
        if isinstance(domains, bytes):
            domains = _layout.GROUP_STAT.unpack(domains)
        objects = usage - sum(domains) + domains[0]
        return (
            _GROUP_TEXT
            % (
                _quoted(self.path),
                self.id,
                record[UID],
                "true" if record[STATE] == _layout.STATE_ONLINE else "false",
                record[TASKS],
                usage,
                peak if peak > usage else usage,  # noqa: FURB136  # ten thousand times
                "null" if record[MAX] == _layout.NO_LIMIT else record[MAX],
                "null" if record[HIGH] == _layout.NO_LIMIT else record[HIGH],
                record[LOW] or "null",
                *_layout.GROUP_EVENTS.unpack(record[EVENTS]),
                objects if objects > 0 else 0,  # noqa: FURB136
                *domains[1:],
                record[BLOCKS],
                record[DYING],
            )
        )


def _text_of(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}": %s' for name in names)


_GROUP_TEXT = "{%s, %s, %s}" % (  # noqa: UP031  # of a text that is such a format itself
    _text_of(["path", "id", "uid", "online", "tasks", "current", "peak", "max", "high", "low"]),
    f'"events": {{{_text_of(_layout.EVENTS)}}}',
    f'"stat": {{{_text_of(_layout.STATS)}}}',
)


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
    """What a region file says of its process, and of the groups in it, by rising age.

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
        return self.state == "running"

    @property
    def state(self) -> str:
        """What became of the process that wrote the region.

        "running"; "exited": it came to its end by itself; "replaced": it called exec(), and is
        another program now; "killed": none of these, by the kernel, a signal, or a crash.
        """
        if self.exited:
            return "exited"
        if self.boot_id and self.boot_id != boot_id():
            return "killed"
        if _location.start_time(self.pid) != self.start_time:
            return "killed"
        if self.path is None or _location.is_running(
            _location.RegionFile(self.path, self.pid, self.start_time)
        ):
            return "running"
        return "replaced"

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
        by_parent: dict[str, list[tuple[int, str, GroupInfo]]] = {}
        for group in self.groups:
            path = group.path
            above = path.rpartition("/")[0] if path != "/" else "none"
            by_parent.setdefault(above, []).append((group.record[USAGE], path, group))
        for siblings in by_parent.values():
            siblings.sort()  # of two with as much the paths differ
        ordered: list[GroupInfo] = []
        # each list is used up from its end, the largest
        stack = [by_parent.pop("none", [])]
        while stack:
            if not stack[-1]:
                stack.pop()
                continue
            _, path, group = stack[-1].pop()
            ordered.append(group)
            below = by_parent.pop(path if path != "/" else "", None)
            if below is not None:
                stack.append(below)
        # below something that is not there
        for siblings in by_parent.values():
            ordered.extend(group for _, _, group in reversed(siblings))
        return ordered

    def to_json(self) -> dict[str, Any]:
        """Return the region as ``objcg tree --json`` prints it."""
        parsed = self._to_json()
        parsed["groups"] = [group.to_json() for group in self.tree()]
        return parsed

    def to_json_text(self, more: Mapping[str, object] = MappingProxyType({})) -> str:
        """Return what json.dumps() makes of `to_json()`, and `more`."""
        groups = ", ".join([group.to_json_text() for group in self.tree()])
        return f'{json.dumps({**self._to_json(), **more})[:-1]}, "groups": [{groups}]}}'

    def _to_json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = {
            "pid": self.pid,
            "command": self.command,
            "alive": self.alive,
            "python": self.python,
            "rss": self.rss,
            "startup": self.startup,
            "charged": self.charged,
            "unaccounted": self.unaccounted,
            "shared": self.shared,
        }
        if self.tasks is not None:
            parsed["tasks"] = [task.to_json() for task in self.tasks]
        return parsed


def boot_id() -> str:
    """Return what names this boot of the system; "" where that cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _limit(limit: int) -> int | None:
    return None if limit == _layout.NO_LIMIT else limit
