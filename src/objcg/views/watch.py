"""A region that is read again and again: what all views have in common.

Assumes nothing of the process: it may hang, be stopped, end or be killed between two samples.
"""

from __future__ import annotations

import enum
import os
import time
import weakref
from typing import TYPE_CHECKING, NamedTuple

from objcg import _layout, _location, _region_groups, region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from objcg.region import GroupInfo, Region


class State(enum.Enum):
    """What has become of the process."""

    RUNNING = "running"
    # its file is gone: it took it along when it ended
    EXITED = "exited"
    # it has left its file: killed, or ended without cleaning up
    KILLED = "killed"
    # it called exec(), and is another program by now, which may have groups of its own
    REPLACED = "replaced"


UNSEEN = frozenset({State.EXITED, State.REPLACED})
"""Ends of which a sample has nothing new: its region is that of the sample before."""


class Change(NamedTuple):
    """What is different in a group since the sample before."""

    rate: float
    """Bytes per second by which `current` has risen; below 0 it fell."""
    events: dict[str, int]
    """How often each thing happened meanwhile: only what did."""


NONE = Change(0.0, {})


class Sample(NamedTuple):
    """The state of a process at one moment."""

    at: float
    """Seconds since the epoch."""
    state: State
    region: Region
    """Of a process that has ended: what was read last."""
    changes: dict[int, Change]
    """By a group's `uid`; a group that is new, or is as it was, is not in it."""
    clock: float
    """Seconds since boot, of a clock that nobody sets: how long ago a sample was, this one says."""

    def change(self, group: GroupInfo) -> Change:
        """Return what is different in a group of this sample."""
        return self.changes.get(group.uid, NONE)


class Watch:
    """The process of a region file, watched."""

    def __init__(self, path: str, *, tasks: bool = False) -> None:
        """Read it for the first time. Raises RegionError: it is not there, or no region."""
        self.path = path
        self._tasks = tasks
        self._last = region.read(path, tasks=tasks)
        # the file itself: what it says counts when it has no name any more
        self._fd = region.open_file(path)
        weakref.finalize(self, os.close, self._fd)
        self._at = time.monotonic()
        self._sample = self._sampled(_state(self._last), self._last, {})

    @property
    def latest(self) -> Sample:
        """The sample that was taken last."""
        return self._sample

    def sample(self) -> Sample:
        """Take a sample. Raises RegionError: what is there now is no region, or nothing is."""
        if self._sample.state is not State.RUNNING:
            return self._sample
        try:
            found = region.read(self.path, tasks=self._tasks, since=self._last)
        except region.RegionError:
            if os.path.exists(self.path):
                raise
            if not self._has_ended():
                msg = f"{self.path}: it was removed, but process {self._last.pid} has not ended"
                raise region.RegionError(msg) from None
            self._sample = self._sampled(State.EXITED, self._last, {})
            return self._sample
        state = _state(found)
        if state is State.REPLACED or found.created_ns != self._last.created_ns:
            # By its name a file is of a process, not of a program: the next one's groups have the
            # numbers of those that were watched, and nothing to do with them.
            self._sample = self._sampled(State.REPLACED, self._last, {})
            return self._sample
        now = time.monotonic()
        changes = _changes(self._last.groups, found.groups, max(now - self._at, 1e-6))
        self._last, self._at = found, now
        self._sample = self._sampled(state, found, changes)
        return self._sample

    def _has_ended(self) -> bool:
        """Return whether the process has, or says so: it does before it removes its file."""
        flags = os.pread(self._fd, 4, _layout.HEADER.fields["flags"][0])
        if int.from_bytes(flags, "little") & _layout.FLAG_EXITED:
            return True
        last = self._last
        file = _location.RegionFile(self.path, last.pid, last.start_time)
        return not _location.is_running(file)

    @staticmethod
    def _sampled(state: State, found: Region, changes: dict[int, Change]) -> Sample:
        clock = time.clock_gettime(time.CLOCK_BOOTTIME)
        return Sample(time.time(), state, found, changes, clock)


def _state(found: Region) -> State:
    # what has a resident set was seen to run just now
    return State.RUNNING if found.rss is not None else State(found.state)


def _changes(
    before: Sequence[GroupInfo], after: Sequence[GroupInfo], seconds: float
) -> dict[int, Change]:
    # by what the records have at hand, and not by properties: there may be very many groups,
    # and nearly all of them are at rest
    uid, events = _region_groups.UID, _region_groups.EVENTS
    known = {group.record[uid]: group for group in before}
    changes = {}
    for group in after:
        old = known.get(group.record[uid])
        if old is None or old.record == group.record:
            continue
        same = group.record[events] == old.record[events]
        rate = (group.current - old.current) / seconds
        if rate or not same:
            changes[group.uid] = Change(rate, {} if same else _events(old, group))
    return changes


def _events(old: GroupInfo, group: GroupInfo) -> dict[str, int]:
    before = old.events
    return {
        event: count - before[event]
        for event, count in group.events.items()
        # counters only rise; should the record be another's by now, it is no event
        if count > before[event]
    }
