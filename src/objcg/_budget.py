"""``memory.max = "auto"`` of root: a limit that follows the container's, and stays below it.

The kernel ends a process that goes over its container's limit; a task that goes over root's gets
an error. So root may have what the container still has, and no more:

    max   = min(charged, rss - startup) + 9/10 * (free - margin) / sharers
    bound = min(charged, rss - startup) + 5/6 * (free - margin/4) / sharers

`free` is what all processes of the container together may still take (`_container.Limit`). What is
charged to root and is in memory is added, as the kernel counts it already. What is charged but was
never touched will be counted once it is: it is not added. So everything that no group is charged
for is left out: the interpreter's start-up, memory that objcg does not see, other processes, the
kernel's own (sockets, page tables).

`margin` is 2 % of the limit and at least 16 MiB, but never more than an eighth: for what all that
grows by until it is measured again, and for the little that a task comes above its limit before it
is stopped (`objcg bench limits`). A tenth is for what comes with each byte charged and is not seen:
blocks of 513 bytes to 8 KiB may occupy a ninth more than they are charged, and there are page
tables. It is returned as `free` gets smaller.

`bound` is where small allocations end: a task that is not stopped at max, as no other thread gets
the GIL in time, may come up to root's ceiling, which would be an eighth and 4 MiB above max. What
is charged up to the bound fits into what is free, whatever its sizes: a sixth is for the worst of
them, which occupy 18 % more than they are charged, and a quarter of the margin for what all else
takes until the next measurement. Where much is free it is lower than max would be; max is 4 MiB
below it then, so that a task is stopped by its error first. CPython does not survive that all
small allocations fail, so it is never less; the parts of many workers may add up to more by that.

`sharers` is how many processes follow the same limit (forked workers; `_sharers.py`): each takes
its part of what is free, and as all measure again, again of what is left. For a second after a
fork it counts double, as there may be more.

It is no promise: processes that are not counted may take what was free a moment ago, and what no
group is charged for may grow faster than it is measured. Where there must be certainty, set a
number.

A max below what is charged stops tasks one after the other. It never is so low that the ceiling is
reached already (`lowest`).

What happens between two measurements is known exactly where it is charged: `max` stays where it
is. Only the rest may grow unseen. So the limit is measured again by the reclaimer, each second
while half is free, and up to ten times a second when little is; at each of its wake-ups; and before
a task is stopped by root's limit. All files are read without giving up the GIL
(`_core.read_now()`), or another thread would fill memory between one and the next. Where it leaves
no room the C library is told to give back what it keeps of freed memory, and it is measured once
more.
"""

from __future__ import annotations

import os
import time
from _thread import RLock

from . import _core, _location, _registry, _sharers, limits
from ._container import Cgroups
from ._sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ._container import Limit

_LEAST_MARGIN = 16 << 20
_MARGIN_SHARE = 50
_MOST_MARGIN_SHARE = 8
_UNSEEN_SHARE = 10
# Of what is free, what the bound leaves, and of the rest how much comes unseen at worst: blocks of
# 4609 bytes are charged 4624, and 12 of them fill a slab, with 8 more bytes each for the owner.
_RESERVE_SHARE = 4
_UNSEEN_AT_WORST = 6

# Of the ceiling, and of its bound, the last 1 MiB is given out in pieces.
_ROOM_BELOW_CEILING = 2 << 20
# And from max to the bound: an error, and what handles it, need some of it.
_ROOM_ABOVE_MAX = 4 << 20

# How often a measurement is made anew when much was charged or freed in the middle of it.
_LOOKS = 4

# Seconds between two measurements: without a limit (one may be set while the process runs), with
# more than half of it free, with more than an eighth, and below.
_PERIOD_NONE = 10.0
_PERIOD_HALF = 1.0
_PERIOD_EIGHTH = 0.25
_PERIOD = 0.1
# And for how long after a fork.
_PERIOD_FORKING = 0.05
_FORKING = 1.0

# Groups at their limits may wake the reclaimer thousands of times a second.
_LEAST_PERIOD = 0.01
# Between two times that the C library is asked to give back what it keeps.
_TRIM_PERIOD = 1.0

_cgroups = Cgroups()
# Held from before a measurement until what was set by it is known to the next. By one thread once:
# a signal's handler that runs in the middle of one must not begin another, nor wait for it.
_measuring = RLock()
# What root's max was last set to here, and the bound of its ceiling.
_in_force: int | None = None
_bound: int | None = None
_limit: Limit | None = None
_measured = 0.0
_trimmed = 0.0
_forked = -_FORKING


def margin(limit: int) -> int:
    """Return how many bytes of a container's `limit` are left free."""
    return min(max(limit // _MARGIN_SHARE, _LEAST_MARGIN), limit // _MOST_MARGIN_SHARE)


def budget(limit: Limit, *, charged: int, beyond_startup: int, sharers: int = 1) -> tuple[int, int]:
    """Return root's max, and the bound of its ceiling (bytes).

    `beyond_startup` is the process's RSS less that at start-up.
    """
    seen = max(0, min(charged, beyond_startup))
    kept = margin(limit.limit)
    part = _part(limit.free - kept, _UNSEEN_SHARE, sharers)
    bound = _part(limit.free - kept // _RESERVE_SHARE, _UNSEEN_AT_WORST, sharers)
    # Between the two a task gets its error. If each allocation got its own, CPython could not even
    # handle that; so where the part is too small for it the bound is higher, at the margin's cost.
    value = max(0, seen + min(part, bound - max(0, min(_ROOM_ABOVE_MAX, bound // 8))))
    return value, max(seen + bound, value + _ROOM_ABOVE_MAX)


def _part(room: int, unseen: int, sharers: int) -> int:
    """Return what one process may be charged of `room` (bytes), less the share that is not seen."""
    return (room - room // unseen) // sharers if room > 0 else room


def lowest(charged: int) -> tuple[int, int]:
    """Return the least max and bound (bytes) at which small allocations succeed for a while.

    A max far below what is charged would have its ceiling there, too, and all allocations of the
    process fail at once. CPython does not survive that; what is meant is that tasks are stopped.
    """
    return max(0, charged - _ROOM_BELOW_CEILING) * 8 // 9, charged + _ROOM_ABOVE_MAX


def follow() -> None:
    """Have root's max follow the container's limit from now on, until it is set otherwise.

    Raises OSError where the limit cannot be read now, for want of a descriptor or of memory.
    """
    global _in_force, _bound  # noqa: PLW0603
    follows = limits.measure is not None
    if follows and _measuring._is_owned():  # type: ignore[attr-defined]
        return
    # before the limit is there: whoever goes over it must find the reclaimer
    limits.start()
    with _measuring:
        _in_force = _registry.root()._read()["max"]
        _bound = None
        limits.measure = measure
        _core.set_auto(True)  # positional only
        try:
            _core.forced(_measure)
        except OSError:
            if not follows:
                stop()
            raise
    # it may be asleep for ever
    _core.wake_reclaimer()


def stop() -> None:
    """Leave root's max alone from now on: it was set by hand."""
    limits.measure = None
    _core.set_auto(False)  # positional only
    _core.set_reclaimer_period(0.0)


def measure() -> None:
    """Set root's max by what the container has left; at most 100 times a second.

    Does nothing while another thread does it, or this one (in a pending call, or a finaliser).
    """
    if time.monotonic() - _measured < _LEAST_PERIOD or not _measure_begins():
        return
    try:
        if limits.measure is not None:
            _measure_again()
    finally:
        _measuring.release()


def _measure_begins() -> bool:
    owned = _measuring._is_owned()  # type: ignore[attr-defined]  # threading's own use it, too
    return not owned and _measuring.acquire(blocking=False)


def at_rest() -> AbstractContextManager[object]:
    """Return a context in which no thread of this process measures: `_in_force` is root's max."""
    return _measuring


def _measure() -> None:
    """Measure and set. Where limits refuse nothing: there may be no room left to find that out."""
    global _measured, _trimmed  # noqa: PLW0603
    _measured = time.monotonic()
    room = _set()
    if room is not None and room <= 0 and _measured - _trimmed >= _TRIM_PERIOD:
        _trimmed = _measured
        _core.trim_native()
        _set()


def _measure_again() -> None:
    """Do so; or soon, where there is no descriptor or memory to look with: what is set holds."""
    try:
        _measure()
    except OSError as error:
        if error.errno not in _location.SHORTAGES:
            raise
        _core.set_reclaimer_period(_PERIOD)


def _look() -> tuple[Limit | None, int, int]:
    """Return the limit, what is charged, and the RSS beyond that at start-up, of one moment.

    Another thread may get the GIL in between, or need none, and free all that the kernel has
    counted: then root would be left with nothing. So if much has changed it looks again. And of
    what is charged before and after, it takes the smaller: the rest may be what was free.
    """
    root = _registry.root()
    for _ in range(_LOOKS):
        before = root._current()
        limit = _cgroups.nearest()
        rss, _ = _location.resident(os.getpid(), shortages=True) or (0, 0)
        after = root._current()
        if limit is None or abs(after - before) <= margin(limit.limit) // _RESERVE_SHARE:
            break
    startup, _ = _core.startup()
    return limit, min(before, after), rss - startup


def _set() -> int | None:
    """Measure and set; return how far the usage is from where it gets tight, None: no limit."""
    global _in_force, _bound, _limit  # noqa: PLW0603
    root = _registry.root()
    limit, charged, beyond_startup = _look()
    # This gives up the GIL. What is charged or freed meanwhile is in both sums or in neither.
    sharers = _sharers.count(_cgroups.membership) * (2 if _is_forking() else 1)
    _limit = limit
    if limit is None:
        value = bound = None
    else:
        value, bound = budget(
            limit, charged=charged, beyond_startup=beyond_startup, sharers=sharers
        )
        # Of what is charged by now: below it all allocations would fail. But not above what is in
        # force: what is charged meanwhile must not lift it.
        least, least_bound = lowest(root._current())
        value = max(value, least if _in_force is None else min(least, _in_force))
        bound = max(bound, least_bound if _bound is None else min(least_bound, _bound))
    # In one step: if somebody else has set it since, also from another process, that is meant.
    if not root._replace_max(_in_force, value, bound):
        stop()
        return None
    _in_force, _bound = value, bound
    _core.set_reclaimer_period(_PERIOD_FORKING if _is_forking() else _period(limit))
    if limit is None or value is None:
        return None
    return value - charged - margin(limit.limit)


def _is_forking() -> bool:
    return time.monotonic() - _forked < _FORKING


def _period(limit: Limit | None) -> float:
    if limit is None:
        return _PERIOD_NONE
    if limit.free > limit.limit // 2:
        return _PERIOD_HALF
    return _PERIOD_EIGHTH if limit.free > limit.limit // 8 else _PERIOD


def to_json() -> dict[str, int | str | None]:
    """Return what was measured last, as ``objcg run --max auto --json`` prints it."""
    return {
        "limit": None if _limit is None else _limit.limit,
        "free": None if _limit is None else _limit.free,
        "source": None if _limit is None else _limit.source,
        "max": _in_force,
    }


def describe() -> str:
    """Return the same as a line for people."""
    if _limit is None or _in_force is None:
        return "max auto: this process has no memory limit that can be seen, so it has none here"
    return (
        f"max auto: {format_size(_in_force)}, as {_limit.source} allows "
        f"{format_size(_limit.limit)}, of which {format_size(_limit.free)} are free"
    )


def _after_fork_parent() -> None:
    global _forked  # noqa: PLW0603
    if limits.measure is not None:
        _forked = time.monotonic()
        _core.wake_reclaimer()


def _after_fork_child() -> None:
    """In the child: a thread of the parent may have been in the middle of a measurement."""
    global _measuring, _in_force, _forked  # noqa: PLW0603
    _measuring = RLock()
    if limits.measure is not None:
        _forked = time.monotonic()
        _in_force = _registry.root()._read()["max"]
        with _measuring:
            _core.forced(_measure_again)


# After those of enable(): the child has its own region, in which siblings see it, and a reclaimer.
os.register_at_fork(after_in_parent=_after_fork_parent, after_in_child=_after_fork_child)
