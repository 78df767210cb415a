"""Reclaim: take memory back from a group, by shrinkers and the garbage collector.

The order is the kernel's (mm/vmscan.c): first what nobody promised to spare, garbage included;
only then what ``memory.low`` protects.

A collection costs time in proportion to all objects of the process, whoever they belong to. A
group that sits at its limit could have one made for every few kilobytes it allocates; the JVM
calls that "GC overhead limit exceeded". So after a collection that was of no use to a group, the
next one has to wait, see `_Backoff`.
"""

from __future__ import annotations

import gc
import os
import time
from _thread import get_ident

from . import _core, _registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from .group import Group

    Shrink = Callable[[Group, int], object]


class Handle:
    """Ends what it was returned for: a shrinker or a callback.

    By `remove()`, any number of times, or at the end of a ``with`` block.
    """

    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove = remove

    def remove(self) -> None:
        """Unregister. A call that is under way on another thread still ends."""
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


class _Shrinker:
    def __init__(self, fn: Shrink, group: Group) -> None:
        self.fn = fn
        self.group = group

    def living_group(self) -> Group:
        """Return the group whose memory this can free: what a removed group had is its parent's."""
        group = self.group
        while not group.online and group.parent is not None:
            group = group.parent
        return group

    def __call__(self, group: Group, nbytes: int) -> None:
        try:
            _core.unforced(self.fn, group, nbytes)
        except Exception as error:  # noqa: BLE001  # another's mistake must not stop reclaim
            _core.write_unraisable(error, self.fn)
        except BaseException as error:
            # a signal's handler has run in there, and means to end the program; none runs on the
            # reclaimer thread, where nobody catches anything
            if not _core.is_reclaimer():
                raise
            _core.write_unraisable(error, self.fn)


_shrinkers: list[_Shrinker] = []


def register_shrinker(fn: Callable[[Group, int], object], group: Group | None = None) -> Handle:
    """Have ``fn(group, nbytes)`` called when memory is to be freed; it returns the bytes it freed.

    A shrinker belongs to `group` (None: to root), whose memory it can free: it is called when that
    group, one above it or one below it has to shrink, and is told that group and how many bytes
    are still wanted. A group below the one that has to shrink is spared while its usage is not
    above its ``memory.low`` and others can give enough.

    It runs as a task of root, on the main thread or the reclaimer thread, between any two
    bytecodes of what runs there: it must not wait for a lock that the program may hold, nor let
    other greenlets run (as gevent's sleep() does). How much it freed is measured, too, so the
    number it returns is not relied on. An exception goes to `sys.unraisablehook`.

    Returns a handle: its ``remove()``, or leaving ``with`` on it, unregisters `fn`.

    Raises TypeError when `fn` cannot be called or `group` is not a Group, EnableError before
    enable(), and GroupRemoved.
    """
    from .errors import removed  # errors is above this module
    from .group import Group

    given: object = fn
    if not callable(given):
        msg = f"a shrinker must be callable as fn(group, nbytes), which {fn!r} is not"
        raise TypeError(msg)
    owner: object = _registry.root() if group is None else group
    if not isinstance(owner, Group):
        msg = f"a shrinker belongs to a Group or None (root), not to {owner!r}"
        raise TypeError(msg)
    if not owner.online:
        raise removed(owner)
    shrinker = _Shrinker(fn, owner)
    _shrinkers.append(shrinker)

    def remove() -> None:
        if shrinker in _shrinkers:
            _shrinkers.remove(shrinker)

    return Handle(remove)


class _Backoff:
    """When the garbage collector may run again for a group.

    A collection is of use when it frees 1/64 of the limit, and leaves the group under it. After
    one that was not, the next has to wait until the usage has grown by 1/16 of the limit, or 20
    times as long as the useless one took: at most 1/21 of the time goes into useless ones.
    """

    USEFUL = 64
    GROWTH = 16
    PATIENCE = 20

    def __init__(self) -> None:
        # uid of the group -> (usage after the useless collection in bytes, time to wait for)
        self._useless: dict[int, tuple[int, float]] = {}

    def allows(self, group: Group, usage: int, limit: int) -> bool:
        useless = self._useless.get(group.uid)
        if useless is None:
            return True
        usage_then, until = useless
        return usage >= usage_then + limit // self.GROWTH or time.monotonic() >= until

    def collected(self, group: Group, before: int, after: int, limit: int, seconds: float) -> None:
        if before - after >= limit // self.USEFUL and after <= limit:
            self._useless.pop(group.uid, None)
            return
        now = time.monotonic()
        # groups come and go by the thousand; what has expired says nothing any more
        for uid in [uid for uid, (_, until) in self._useless.items() if until < now]:
            self._useless.pop(uid, None)
        self._useless[group.uid] = (after, now + self.PATIENCE * seconds)


_backoff = _Backoff()

# The thread that collects garbage here, and those that fork. A forked child does not know that the
# thread which was in the middle of a collection is gone, and CPython never collects there again. A
# program of one thread has no such other but for us: so who forks waits for it (seconds at most:
# a finalizer may wait for who forks), and none begins meanwhile.
_collector: int | None = None
_forking: set[int] = set()
_FORK_PATIENCE = 5.0

# Threads inside reclaim. A shrinker that goes over a limit itself must not start another one.
_reclaiming: set[int] = set()


def active() -> bool:
    """Return whether this thread is reclaiming already."""
    return get_ident() in _reclaiming


def forget_other_threads() -> None:
    """In a forked child: others, one of which may get the same ident, are gone."""
    _reclaiming.intersection_update({get_ident()})


def _before_fork() -> None:
    own = get_ident()
    _forking.add(own)
    deadline = time.monotonic() + _FORK_PATIENCE
    while _collector not in {None, own} and time.monotonic() < deadline:
        time.sleep(0.001)


def _after_fork_parent() -> None:
    _forking.discard(get_ident())


def _after_fork_child() -> None:
    global _collector  # noqa: PLW0603
    _forking.clear()
    if _collector != get_ident():
        _collector = None


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_parent,
    after_in_child=_after_fork_child,
)


def reclaim(group: Group, nbytes: int, limit: int | None = None) -> int:
    """Try to free `nbytes` bytes of what is charged to `group`.

    `limit` (bytes) is the limit for which it is done, None when the program asked; for a limit,
    garbage collections that have turned out useless are not repeated at once.

    Returns the bytes by which the usage fell, 0 when it did not. Nested calls do nothing.
    Raises OSError (ENODEV) when the group was removed.
    """
    ident = get_ident()
    if ident in _reclaiming:
        return 0
    try:
        _reclaiming.add(ident)
        # at root: what a shrinker allocates is not the tenant's, and no limit can interrupt it
        return _core.at_root(_reclaim)(group, nbytes, limit)
    finally:
        _reclaiming.discard(ident)


def _reclaim(group: Group, nbytes: int, limit: int | None) -> int:
    before = group._current()
    target = max(0, before - nbytes)
    spared: list[tuple[_Shrinker, Group]] = []
    for shrinker, owner in list(_related(group)):
        if owner is not group and _is_protected(owner, group):
            spared.append((shrinker, owner))
        elif _shrink(shrinker, group, target):
            break
    else:
        if not _collect(group, target, limit):
            _shrink_spared(group, spared, target)
    return max(0, before - group._current())


def _related(group: Group) -> Iterator[tuple[_Shrinker, Group]]:
    """Yield the shrinkers of the group's subtree, then its ancestors', with their groups."""
    below: list[tuple[_Shrinker, Group]] = []
    above: list[tuple[_Shrinker, Group]] = []
    for shrinker in tuple(_shrinkers):
        owner = shrinker.living_group()
        if _is_within(owner, group):
            below.append((shrinker, owner))
        elif _is_within(group, owner):
            above.append((shrinker, owner))
    yield from below
    yield from above


def _is_within(group: Group | None, ancestor: Group) -> bool:
    while group is not None:
        if group is ancestor:
            return True
        group = group.parent
    return False


def _is_protected(owner: Group, reclaimed: Group) -> bool:
    """Return whether ``memory.low`` of `owner` holds against reclaim from `reclaimed`.

    As in the kernel, it does only against pressure from outside: from a group above it.
    """
    if not _is_within(owner, reclaimed):
        return False
    try:
        reading = owner._read()
    except OSError:
        return False
    low = reading["low"]
    return low is not None and reading["current"] <= low


def _shrink(shrinker: _Shrinker, group: Group, target: int) -> bool:
    """Call a shrinker if `group` is still above `target` bytes; return whether it no longer is."""
    wanted = group._current() - target
    if wanted <= 0:
        return True
    shrinker(group, wanted)
    return group._current() <= target


def _collect(group: Group, target: int, limit: int | None) -> bool:
    """Run the garbage collector if it may help; return whether `group` is at `target` bytes."""
    global _collector  # noqa: PLW0603
    before = group._current()
    if before <= target:
        return True
    if limit is not None and not _backoff.allows(group, before, limit):
        return False
    # where another thread is at it CPython does nothing either
    if _collector is not None or _forking:
        return False
    start = time.monotonic()
    try:
        _collector = get_ident()
        _core.unforced(gc.collect)
    finally:
        _collector = None
    after = group._current()
    if limit is not None:
        _backoff.collected(group, before, after, limit, time.monotonic() - start)
    return after <= target


def _shrink_spared(group: Group, spared: list[tuple[_Shrinker, Group]], target: int) -> None:
    counted: set[int] = set()
    for shrinker, owner in spared:
        if group._current() <= target:
            return
        if owner.uid not in counted and owner.online:
            counted.add(owner.uid)
            _core.count_event(owner.id, "low")
        _shrink(shrinker, group, target)
