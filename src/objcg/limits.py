"""What happens when a group goes over ``memory.max`` or ``memory.high``.

The core finds it out inside an allocation, where no Python may run. It calls in here later:
`over()` in the main thread, between two bytecodes of the very task that is over its limit, and
`service()` on the reclaimer thread, which takes care of all other threads.

A group may be removed at any moment, by another thread or by a callback: the core then raises
ENODEV, and there is nothing left to do for that group.
"""

from __future__ import annotations

import errno
import sys
import time

from . import _core, _registry
from .errors import MemoryLimitExceeded, removed
from .reclaim import Handle, active, forget_other_threads, reclaim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .group import Group
    from .task import Task

EVENTS = ("high", "max", "ceiling", "raised", "empty")

# A cgroup is "populated" or not by itself; everything else is counted up the tree, too.
_LOCAL_EVENTS = frozenset({"empty"})

# The reserve a task gets, once, to handle MemoryLimitExceeded in (bytes).
_RESERVE_LEAST = 64 << 10
_RESERVE_MOST = 1 << 20

# How often reclaim is tried while it frees something (mm/memcontrol.c: MAX_RECLAIM_RETRIES).
_RECLAIM_RETRIES = 16

# How long threads are looked at again and again to stop one, and how long they run in between
# (seconds). An event loop runs one of the program's own steps in a hundred microseconds or so.
_STALK_MOST = 0.02
_STALK_PAUSE = 20e-6

# Of a group that was stalked in vain: for how long it is not stalked again (seconds), unless it has
# grown by this part of its limit.
_LEAST_TRUCE = 0.02
_MOST_TRUCE = 1.28
_TRUCE_GROWTH = 16

# The switch interval meanwhile (seconds; CPython keeps whole microseconds), and the program's. It
# has a value of its own: a program that reads it just then, and sets it again later, is found out
# at the next occasion.
SHORT_INTERVAL = 3e-6
_usual_interval: float | None = None

# Delays in throttle() (seconds). The sum has the kernel's bound, MEMCG_MAX_HIGH_DELAY_JIFFIES.
_FIRST_DELAY = 0.001
_MOST_DELAY = 2.0


class Callback:
    """A callback of a group: what `Group.on()` registered."""

    def __init__(self, event: str, fn: Callable[[Group, str], object]) -> None:
        self.event = event
        self.fn = fn

    def __call__(self, group: Group) -> None:
        """Call it for what happened in `group`. Raises nothing."""
        try:
            _core.unforced(self.fn, group, self.event)
        except BaseException as error:  # noqa: BLE001  # must not stop the reclaimer thread
            _core.write_unraisable(error, self.fn)


# What happened on other threads, for callbacks only: the reclaimer thread calls them, and of one
# kind once, however often it happened meanwhile.
_notices: dict[tuple[Group, str], None] = {}
_started = False

# While root's max is "auto": measures it anew (_budget.py, which most programs do not load).
measure: Callable[[], None] | None = None


def start() -> None:
    """Have the reclaimer thread run; nothing needs it before there is a limit or a callback."""
    global _started  # noqa: PLW0603
    _core.start_reclaimer()
    _started = True


def restart_in_child() -> None:
    """Start it again in a forked child, where threads are gone."""
    _restore_switches()
    _notices.clear()
    forget_other_threads()
    if _started:
        _core.start_reclaimer()
        # what was flagged in the parent is flagged here, too, and wakes nobody again
        _core.wake_reclaimer()


def on(group: Group, event: str, fn: Callable[[Group, str], object]) -> Handle:
    """Register a callback: `Group.on()`."""
    if event not in EVENTS:
        msg = f"unknown event {event!r}; accepted are {', '.join(EVENTS)}"
        raise ValueError(msg)
    given: object = fn
    if not callable(given):
        msg = f"a callback must be callable as callback(group, event), which {fn!r} is not"
        raise TypeError(msg)
    if not group.online:
        raise removed(group)
    callback = Callback(event, fn)
    group._callbacks.append(callback)
    if event == "empty":
        _core.watch_empty(True)  # noqa: FBT003  # positional only
    start()

    def remove() -> None:
        if callback in group._callbacks:
            group._callbacks.remove(callback)

    return Handle(remove)


def _callbacks(group: Group, event: str) -> Iterator[Callback]:
    """Yield the callbacks for an event of `group`: its own, then those of the groups above it."""
    at: Group | None = group
    while at is not None:
        for callback in list(at._callbacks):
            if callback.event == event:
                yield callback
        at = None if event in _LOCAL_EVENTS else at.parent


def _notify(group: Group, event: str) -> None:
    for callback in _callbacks(group, event):
        callback(group)


def _notify_later(group: Group, event: str) -> None:
    if any(True for _ in _callbacks(group, event)):
        _notices[group, event] = None
        _core.wake_reclaimer()


def reserve(limit: int) -> int:
    """Return how far above its present usage (bytes) a task may go to handle its error."""
    return min(max(limit // 16, _RESERVE_LEAST), _RESERVE_MOST)


def over(gid: int, uid: int, limit: int) -> BaseException | None:
    """Return the exception for the current task, which this group's max stops; None: go on.

    For the core only, on the main thread; `limit` is in bytes.
    """
    group = _registry.get_same(gid, uid)
    if group is None or active():
        return None
    task: Task = _core.current_task()  # type: ignore[assignment]  # see set_task_type()
    return _core.at_root(_over)(group, task, limit)


def _over(group: Group, task: Task, limit: int) -> BaseException | None:
    try:
        if measure is not None and group.parent is None:
            measure()
            measured = group._read()
            if measured["max"] is None:
                return None
            limit = measured["max"]
        _reclaim_to(group, limit)
        reading = group._read()
        now, new_limit = reading["current"], reading["max"]
        _notify_later(group, "max")
        if new_limit is None or now <= new_limit:
            return None
        _core.exempt(group.id, reserve(new_limit))
        _core.count_event(group.id, "raised")
        _notify_later(group, "raised")
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    return MemoryLimitExceeded(group=group, task=task, limit=new_limit, usage=now)


def service() -> None:
    """Do what was flagged since the last call. For the core only, on the reclaimer thread."""
    try:
        _restore_switches()
        _core.take_back_exceptions()
        if measure is not None:
            measure()
        handled = set()
        running: list[Group] = []
        for gid, uid, event in _core.take_flagged():
            group = _registry.get_same(gid, uid)
            if group is not None:
                handled.add((group, event))
                _serve(group, event, running)
        # what is added from now on has woken us again: at the program's end none is waited for
        for notice in list(_notices):
            _notices.pop(notice, None)
            if notice not in handled:
                _notify(*notice)
        _stalk(running)
    except BaseException as error:  # noqa: BLE001  # the core has nobody to give it to
        _core.write_unraisable(error, service)


def _serve(group: Group, event: str, running: list[Group]) -> None:
    """Do what an event asks for. To `running` goes a group over its max that goes on growing."""
    try:
        if event == "high":
            _reclaim_to(group, group._read()["high"])
            _notify(group, event)
        elif event == "max":
            _reclaim_to(group, group._read()["max"])
            _notify(group, event)
            if not _stop_if_over(group):
                running.append(group)
        elif event == "refused":
            _make_room(group)
            _notify(group, "max")
        else:
            _notify(group, event)
    except OSError as error:
        if error.errno != errno.ENODEV:
            _core.write_unraisable(error, service)


def _reclaim_to(group: Group, limit: int | None) -> None:
    """Reclaim what `group` has above `limit` (bytes), and again while that helps.

    What is reclaimed for goes on meanwhile, if only by the frames of who asks for it: then what was
    wanted was freed, and the group is over still.
    """
    if limit is None:
        return
    for _ in range(_RECLAIM_RETRIES):
        above = group._current() - limit
        if above <= 0 or reclaim(group, above, limit) == 0:
            return


def _make_room(group: Group) -> None:
    """A large allocation was refused: see to it that it would fit if it were tried again."""
    wanted = _core.take_wanted(group.id)
    limit = group._read()["max"]
    if limit is not None and 0 < wanted <= limit:
        _reclaim_to(group, limit - wanted)


def _stop_if_over(group: Group) -> bool:
    """Stop one thread of a group that is over its max; return False where none could be.

    That is: no thread runs a task of that group at this moment, or only where it must not be
    interrupted. Its next allocation flags the group again.
    """
    reading = group._read()
    limit = reading["max"]
    stopped = (
        limit is None
        or reading["current"] <= limit
        or _core.raise_in_group(group.id, MemoryLimitExceeded, reserve(limit)) != 0
    )
    if stopped:
        _truces.end(group)
    return stopped


def _stalk(groups: list[Group]) -> None:
    """Stop a thread of each, where none could be stopped at the first look, as soon as it can be.

    A thread is seen where it gives up the GIL. With some event loops that is nearly always inside
    of the event loop, where nothing may be raised, and it gives it up once in five milliseconds.
    So for a moment all threads take turns as often as they can.
    """
    groups = [group for group in groups if _truces.allow(group)]
    if not groups:
        return
    until = time.monotonic() + _STALK_MOST
    _shorten_switches()
    try:
        while groups and time.monotonic() < until:
            time.sleep(_STALK_PAUSE)
            groups = [group for group in groups if not _is_stopped(group)]
    finally:
        _restore_switches()
    for group in groups:
        _truces.make(group)


class _Truces:
    """When a group that was stalked in vain may be stalked again.

    It may have nobody to stop: a group is full of what is held, and only an event loop runs in it.
    Each time in vain the truce is twice as long; it ends early for a group that goes on growing.
    """

    def __init__(self) -> None:
        # uid of the group -> (usage then in bytes, how long in seconds, until when)
        self._made: dict[int, tuple[int, float, float]] = {}

    def allow(self, group: Group) -> bool:
        if group.uid not in self._made:
            return True
        usage_then, _, until = self._made[group.uid]
        reading = _reading(group)
        if reading is None:
            return False
        growth = (reading["max"] or 0) // _TRUCE_GROWTH
        return reading["current"] >= usage_then + growth or time.monotonic() >= until

    def make(self, group: Group) -> None:
        now = time.monotonic()
        _, before, _ = self._made.pop(group.uid, (0, 0.0, 0.0))
        # groups come and go by the thousand; what has expired long ago says nothing any more
        self._made = {uid: made for uid, made in self._made.items() if made[2] + _MOST_TRUCE > now}
        length = min(max(before * 2, _LEAST_TRUCE), _MOST_TRUCE)
        reading = _reading(group)
        if reading is not None:
            self._made[group.uid] = reading["current"], length, now + length

    def end(self, group: Group) -> None:
        self._made.pop(group.uid, None)


_truces = _Truces()


def _shorten_switches() -> None:
    """Have threads give up the GIL as often as they can, until `_restore_switches()`."""
    global _usual_interval  # noqa: PLW0603
    now = sys.getswitchinterval()
    if now != SHORT_INTERVAL:
        _usual_interval = now
        sys.setswitchinterval(SHORT_INTERVAL)


def _restore_switches() -> None:
    """Give the program its interval back, unless it has set another one itself meanwhile."""
    if _usual_interval is not None and sys.getswitchinterval() == SHORT_INTERVAL:
        sys.setswitchinterval(_usual_interval)


def _is_stopped(group: Group) -> bool:
    try:
        return _stop_if_over(group)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return True


async def throttle(group: Group) -> float:
    """Sleep while `group` or one above it is over high: `Group.throttle()`."""
    slept = 0.0
    delay = _FIRST_DELAY
    while slept < _MOST_DELAY and _is_high(group):
        sleep = _event_loop_sleep()
        if not slept:
            _core.wake_reclaimer()
        delay = min(delay, _MOST_DELAY - slept)
        await sleep(delay)
        slept += delay
        delay *= 2
    return slept


def _is_high(group: Group | None) -> bool:
    while group is not None:
        reading = _reading(group)
        if reading is not None:
            high = reading["high"]
            if high is not None and reading["current"] > high:
                return True
        group = group.parent
    return False


def _reading(group: Group) -> _core._Reading | None:
    """Return what the group's knobs and counters are; None where it was removed."""
    try:
        return group._read()
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def _event_loop_sleep() -> Callable[[float], Awaitable[object]]:
    """Return the sleep() of the library that runs this coroutine; none is imported for it."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            return trio.sleep  # type: ignore[no-any-return]
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            return asyncio.sleep  # type: ignore[no-any-return]
    msg = "Group.throttle() must be awaited in a task of a running asyncio or trio event loop"
    raise RuntimeError(msg)
