"""Steer another process through its region: what `objcg move` and `objcg set` do.

Assumes: the region was read a moment ago (`region.read`), by a user who may write to it. Between
that reading and now groups and tasks may have ended, and their records may be other ones'.

Guarantees: what is asked for is asked of the task and group that were meant, or of none. The
process serves a request for a move itself; nothing here waits for it longer than it says. A limit
is there at once, for whatever is charged next, also in a process that is stopped.
"""

from __future__ import annotations

import enum
import errno
import mmap
import os
import struct
import time
from typing import TYPE_CHECKING

from . import _core, _layout
from .region import RegionError, open_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .region import GroupInfo, Region, TaskInfo

_PAUSE = 0.002  # seconds between two looks at whether a request was served, or can be made
_ATTEMPTS = 25

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Outcome(enum.Enum):
    """What became of a request."""

    DONE = "done"
    # the task allocates nothing at the moment; it is served when it does, or when anybody asks
    PENDING = "pending"
    # the task or the group has ended
    GONE = "gone"


def move(found: Region, task: TaskInfo, group: GroupInfo, wait: float = 1.0) -> Outcome:
    """Ask for `task` to be moved to `group`; wait up to `wait` seconds for it to happen.

    The task is moved where it charges next, by its own process: this is the kernel's way with
    task_struct->objcg, across processes.

    Raises RegionError when the region is not that of a running process, cannot be written, or was
    changed so that the records are not there.
    """
    with _mapping(found) as data:
        task_at = _record(data, _layout.SECTION_TASK, task.record)
        group_at = _record(data, _layout.SECTION_GROUP, group.id)
        gen = _read(data, _U32, task_at + _layout.TASK_GEN)
        group_gen = _read(data, _U32, group_at + _layout.GROUP_GEN)
        # the generations were read first: with the same ids after them they are of the right ones
        if not _is_still(data, task_at, group_at, task, group):
            return Outcome.GONE
        _core.request_move(data, task_at, gen, group.id, group_gen)
        deadline = time.monotonic() + wait
        while _read(data, _U64, task_at + _layout.TASK_REQUEST):
            if time.monotonic() >= deadline:
                return Outcome.PENDING
            time.sleep(_PAUSE)
        if not _is_still(data, task_at, group_at, task, group):
            return Outcome.GONE
        gid = _read(data, _U32, task_at + _layout.TASK.fields["gid"][0])
        return Outcome.DONE if gid == group.id else Outcome.GONE


def set_knobs(found: Region, group: GroupInfo, knobs: Mapping[str, int | None]) -> bool:
    """Set memory.max, high, low of `group`: `knobs` maps a name to bytes, or None for unset.

    Return whether it was done; not, if the group has ended. Then nothing was changed. Each knob is
    one store: who charges meanwhile may meet some of them new and some old.

    Raises RegionError when the region is not that of a running process, cannot be written, or was
    changed so that the record is not there.
    """
    values: dict[str, int | None] = {"max": None, "high": None, "low": None}
    for knob, value in knobs.items():
        unset = 0 if knob == "low" else _layout.NO_LIMIT
        values[knob] = unset if value is None else value
    with _mapping(found) as data:
        at = _record(data, _layout.SECTION_GROUP, group.id)
        for _ in range(_ATTEMPTS):
            try:
                _core.set_knobs(data, at, group.uid, values["max"], values["high"], values["low"])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return False
            else:
                return True
            time.sleep(_PAUSE)
    # it was stopped, or killed, in the middle of removing it
    return False


def _mapping(found: Region) -> mmap.mmap:
    """Map the region of a running process, to write to it."""
    if found.path is None or not found.alive:
        msg = f"process {found.pid} has ended: nothing in it can be changed"
        raise RegionError(msg)
    fd = open_file(found.path, os.O_RDWR)
    try:
        data = mmap.mmap(fd, 0)
    except (OSError, ValueError) as error:
        msg = f"{found.path}: {error}"
        raise RegionError(msg) from error
    finally:
        os.close(fd)
    # The name may be another file's by now; this is what we shall write to.
    pid, start, created = (
        _layout.HEADER.fields[field][0] for field in ("pid", "start_time", "created_ns")
    )
    # The last, as a program that exec() began has the same process, and other groups.
    if (
        len(data) < _layout.HEADER.size
        or data[: len(_layout.MAGIC)] != _layout.MAGIC
        or (_read(data, _U32, pid), _read(data, _U64, start)) != (found.pid, found.start_time)
        or _read(data, _U64, created) != found.created_ns
    ):
        data.close()
        msg = f"{found.path}: it is not the region of process {found.pid} any more"
        raise RegionError(msg)
    return data


def _record(data: mmap.mmap, section: int, index: int) -> int:
    """Return where a record is, that region.read() has found within the file."""
    at = _layout.HEADER.fields["sections"][0] + section * _layout.SECTION_HEADER.size
    offset, record_size, *_ = _layout.SECTION_HEADER.unpack_from(data, at)
    at = int(offset) + index * int(record_size)
    if record_size != _layout.SECTIONS[section].size or at + record_size > len(data):
        msg = f"record {index} is not in the file any more"
        raise RegionError(msg)
    return at


def _read(data: mmap.mmap, kind: struct.Struct, at: int) -> int:
    (value,) = kind.unpack_from(data, at)
    return int(value)


def _is_still(
    data: mmap.mmap, task_at: int, group_at: int, task: TaskInfo, group: GroupInfo
) -> bool:
    return (
        _read(data, _U64, task_at + _layout.TASK.fields["id"][0]) == task.id
        and _read(data, _U32, task_at + _layout.TASK.fields["state"][0]) == _layout.TASK_LIVE
        and _read(data, _U64, group_at + _layout.GROUP.fields["uid"][0]) == group.uid
        and _read(data, _U32, group_at) == _layout.STATE_ONLINE
    )
