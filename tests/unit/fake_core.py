"""A core without allocations: usage is set by hand, and what the policy asks for is recorded."""

from __future__ import annotations

import errno
import itertools
import os

_uids = itertools.count(1)


class FakeGroup:
    """A group whose usage (bytes) and knobs are attributes."""

    def __init__(self, core, gid, path, parent=None, *, usage=0, limit=None, high=None, low=None):
        self._core = core
        self.id = gid
        self.uid = next(_uids)
        self.path = path
        self.parent = parent
        self.online = True
        self.usage = usage
        self.limit = limit
        self.high = high
        self.low = low
        self._callbacks = []
        core.groups[gid] = self

    def __repr__(self):
        return self.path

    def _check(self):
        if not self.online:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def _current(self):
        self._check()
        return self.usage

    def _read(self):
        self._check()
        return {
            "current": self.usage,
            "max": self.limit,
            "high": self.high,
            "low": self.low,
        }

    def remove(self):
        self.online = False
        del self._core.groups[self.id]


class FakeTask:
    id = 77


class FakeCore:
    """What limits.py and reclaim.py use of `objcg._core`."""

    def __init__(self):
        self.groups = {}
        self.flagged = []
        self.exempted = []
        self.counted = []
        self.raised = []
        self.unraisable = []
        self.wakes = 0
        self.started = 0
        self.thread = 1
        self.report = None
        self.task = FakeTask()

    def at_root(self, fn):
        return fn

    def unforced(self, fn, *args):
        return fn(*args)

    def current_task(self):
        return self.task

    def take_flagged(self):
        flagged, self.flagged = self.flagged, []
        return flagged

    def exempt(self, gid, nbytes):
        self.exempted.append((gid, nbytes))

    def count_event(self, gid, event):
        self.counted.append((gid, event))

    def raise_in_group(self, gid, exc, reserve):
        self.raised.append((gid, exc, reserve))
        return self.thread

    def write_unraisable(self, exc, source):
        self.unraisable.append((exc, source))

    def wake_reclaimer(self):
        self.wakes += 1

    def start_reclaimer(self):
        self.started += 1

    def watch_empty(self, watch):
        pass

    def is_reclaimer(self):
        return False

    def take_back_exceptions(self):
        return 0

    def pending_report(self):
        report, self.report = self.report, None
        return report
