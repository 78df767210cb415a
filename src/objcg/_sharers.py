"""Which processes share a container's budget: those whose root follows the same limit.

Two processes that each may take all that is free can together take twice as much, faster than
anybody measures again. So each gets its part (`_budget.py`), and for that they are counted: by
their region files, where a flag says that root's max is "auto".

Guarantees: this user's processes with a region file in the same folder, in the same cgroup. Others
are not found; what they have taken is seen by the cgroup's own count.
"""

from __future__ import annotations

import os

from . import _core, _location

# enum region_flag in src/core/types.h
_FLAG_EXITED = 4
_FLAG_AUTO = 8


# What was counted last. A forked child begins with its parent's.
_counted = 1


def count(membership: str) -> int:
    """Return how many processes share the limit, this one included; `membership` is its cgroups.

    Where they cannot be counted now, for want of a descriptor, there are as many as there were:
    taken for one, each would get all that is free.
    """
    global _counted  # noqa: PLW0603
    own = os.getpid()
    try:
        _counted = 1 + sum(
            file.pid != own and _shares(file, membership)
            for folder in _location.folders()
            for file in _location.files(folder, shortages=True)
        )
    except OSError as error:
        if error.errno not in _location.SHORTAGES:
            raise
    return _counted


def _shares(file: _location.RegionFile, membership: str) -> bool:
    """Return whether the process of `file` lives, follows a limit, and is in these cgroups.

    One that has become another program by exec() is counted, too: seeing that takes longer than
    all the rest, and to count one too many only makes parts smaller.
    """
    at = _core.LAYOUT["header.flags"]
    try:
        flags = int.from_bytes(_core.read_now(file.path)[at : at + 4], "little")
        if not flags & _FLAG_AUTO or flags & _FLAG_EXITED:
            return False
        if os.fsdecode(_core.read_now(f"/proc/{file.pid}/cgroup")) != membership:
            return False
        return _location.start_time(file.pid) == file.start_time
    except OSError as error:
        if error.errno in _location.SHORTAGES:
            raise
        return False
