"""What a reader of a region gets: a region and its tasks; for groups see `_region_groups.py`."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _layout, _location
from ._region_groups import USAGE, GroupInfo, Groups, in_tree_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
    groups: Sequence[GroupInfo]
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
    def native(self) -> bool:
        """Whether the process charges what C libraries allocate, too."""
        return bool(self.flags & _layout.FLAG_NATIVE)

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
        if isinstance(self.groups, Groups):
            return self.groups.root().current
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
        below: dict[str, list[tuple[int, str, str, GroupInfo]]] = {}
        for group in self.groups:
            path = group.path
            above = path.rpartition("/")[0] if path != "/" else "none"
            named = path if path != "/" else ""
            below.setdefault(above, []).append((group.record[USAGE], path, named, group))
        ordered = in_tree_order(below, "none")
        # below something that is not there
        for siblings in below.values():
            ordered.extend(group for *_, group in reversed(siblings))
        return ordered

    def to_json(self) -> dict[str, Any]:
        """Return the region as ``objcg tree --json`` prints it."""
        parsed = self._to_json()
        parsed["groups"] = [group.to_json() for group in self.tree()]
        return parsed

    def to_json_text(self, more: Mapping[str, object] = MappingProxyType({})) -> str:
        """Return what json.dumps() makes of `to_json()`, and `more`."""
        if isinstance(self.groups, Groups):
            groups = self.groups.to_json_text()
        else:
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
            "native": self.native,
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
