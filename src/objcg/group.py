"""Groups: the nodes of the tree that memory is charged to."""

from __future__ import annotations

import errno

from . import _core, _paths, _registry, limits
from .errors import GroupBusy, MigrationForbidden, removed, translated
from .memory import Memory, check, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, NoReturn, TypedDict, TypeVar

    from typing_extensions import Unpack

    from ._sizes import Size
    from .reclaim import Handle

    class _Knobs(TypedDict, total=False):
        max: Size
        high: Size
        low: Size

    Event = Literal["high", "max", "ceiling", "raised", "empty"]
    _Decorated = TypeVar("_Decorated", bound="Callable[..., Any]")


class Group(_core.GroupBase):
    """A memory control group, made by `objcg.group(path)`.

    ``with group:`` makes this context, and everything started from it (threads, asyncio tasks,
    jobs of a ThreadPoolExecutor), a member of the group, and its allocations are charged there.
    ``@group`` does so for each call of a function or coroutine function.

    Attributes:
        id: the number of the group's record, used again after the group is removed.
        uid: a number no other group of this process ever has.
        online: False once the group was removed.
    """

    def __reduce__(self) -> NoReturn:
        """Refuse: a group belongs to its process."""
        msg = f"{self!r} cannot be pickled or copied: pass its path, and use objcg.group(path)"
        raise TypeError(msg)

    @property
    def name(self) -> str:
        """The last part of the path; root's is empty."""
        return self._name

    @property
    def path(self) -> str:
        """The path from root, for example ``"/tenants/acme"``."""
        return self._path

    @property
    def parent(self) -> Group | None:
        """The group this one is in (also after it was removed); None for root."""
        return self._parent

    @property
    def children(self) -> tuple[Group, ...]:
        """The groups in this one now, oldest first."""
        return tuple(self._children.values())

    @property
    def tasks(self) -> int:
        """How many tasks belong to the group itself. Raises GroupRemoved."""
        with translated(self):
            return self._read()["tasks"]

    @property
    def memory(self) -> Memory:
        """What the group uses and may use."""
        return Memory(self)

    def on(self, event: Event, callback: Callable[[Group, str], object]) -> Handle:
        """Have ``callback(group, event)`` called after something happened in the group.

        Events: "high" and "max": it went over that limit; "ceiling": a small allocation failed at
        the hard ceiling; "raised": a task got `MemoryLimitExceeded`; "empty": its last task ended.
        All but "empty" are hierarchical: the callback is called for the group's descendants too,
        with the descendant as `group`.

        Callbacks run on the reclaimer thread, one after the other; several events of one kind may
        be reported as one. An exception of a callback goes to `sys.unraisablehook`.

        Returns a handle: its ``remove()``, or leaving ``with`` on it, ends the calls.

        Raises ValueError for an unknown event, TypeError when `callback` cannot be called, and
        GroupRemoved.
        """
        return limits.on(self, event, callback)

    def remove(self, *, force: bool = False) -> None:
        """Remove the group; what is still charged to it is its parent's from now on.

        `force` moves its tasks to the parent first.

        Raises GroupBusy while it has children, or tasks (unless `force`); MigrationForbidden when
        `force` would have to move tasks after ``objcg.enable(migration=False)``; GroupRemoved when
        it is gone already; and PermissionError for root.
        """
        try:
            self._remove(force)
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> OSError:
        """Return what `remove` raises for an error of the core."""
        if self._parent is None:
            return PermissionError(errno.EPERM, "the root group cannot be removed")
        if error.errno not in {errno.EBUSY, errno.EPERM, errno.ENODEV}:
            return error
        try:
            reading = self._read()
        except OSError:
            # already, or meanwhile by another thread
            return removed(self)
        if error.errno == errno.EPERM:
            msg = (
                f"group {self._path} has tasks ({reading['tasks']}), which cannot be moved to its "
                "parent: tasks are fixed since objcg.enable(migration=False); let them end first"
            )
            return MigrationForbidden(errno.EPERM, msg)
        msg = (
            f"group {self._path} is busy (children: {reading['children']}, tasks: "
            f"{reading['tasks']}); remove its children first, and let its tasks end or pass "
            "force=True to move them to its parent"
        )
        return GroupBusy(errno.EBUSY, msg)

    async def throttle(self) -> float:
        """Slow down while the group or one above it is over ``memory.high``.

        To be awaited, between two pieces of work, by a coroutine that can wait: this is the
        back-pressure that the kernel gives by mem_cgroup_handle_over_high(). It returns at once
        below the limit, and after 2 seconds in any case.

        Returns the seconds it slept. Works under asyncio and trio; RuntimeError elsewhere.
        """
        return await limits.throttle(self)

    def __call__(self, fn: _Decorated, /) -> _Decorated:
        """Decorate a function or coroutine function: each call is a task of this group.

        The task has the function's qualified name. Raises TypeError for what this cannot work
        for: generators, context managers, classes, and the objects made by staticmethod and
        classmethod.
        """
        # large, and a program that decorates nothing needs none
        import functools
        import inspect

        runs = _what_runs(fn)
        self._check_decorated(fn, runs)
        name = getattr(fn, "__qualname__", None) or type(fn).__qualname__

        if any(map(inspect.iscoroutinefunction, runs)):

            @functools.wraps(fn)
            async def call(*args: Any, **kwargs: Any) -> Any:
                with self:
                    _core.current_task().name = name
                    return await fn(*args, **kwargs)

        else:

            @functools.wraps(fn)
            def call(*args: Any, **kwargs: Any) -> Any:
                return self._run_named(name, fn, args, kwargs)

        return call  # type: ignore[return-value]  # it has the signature of fn

    def _check_decorated(self, fn: object, runs: tuple[object, ...]) -> None:
        import inspect

        if isinstance(fn, (staticmethod, classmethod)):
            msg = f"a group cannot decorate {fn!r}: put the group's decorator below it"
            raise TypeError(msg)
        if not callable(fn):
            msg = f"a group decorates functions and coroutine functions, not {fn!r}"
            raise TypeError(msg)
        if isinstance(fn, type):
            msg = f"a group cannot decorate the class {fn.__qualname__}: decorate its methods"
            raise TypeError(msg)
        if any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in runs):
            msg = (
                f"a group cannot decorate the generator function {fn!r}: its body runs "
                "piece by piece in the context of whoever iterates over it, after the call has "
                "returned; decorate the function that iterates, or use 'with group:' around the "
                "parts of the body between two yields"
            )
            raise TypeError(msg)
        if any(map(_makes_context_manager, runs)):
            msg = (
                f"a group cannot decorate the context manager {fn!r}: its body runs where it is "
                "entered and left, after the call has returned; use 'with group:' there"
            )
            raise TypeError(msg)

    def __repr__(self) -> str:
        return f"<Group {self._path}>" if self.online else f"<Group {self._path} (removed)>"


def _what_runs(fn: object) -> tuple[object, ...]:
    """Return what says of which kind a call is: `fn`, what it is part of, an object's method."""
    import functools

    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    return fn, inner, getattr(inner, "__call__", None)  # noqa: B004  # the method may be a coroutine


def _makes_context_manager(fn: object) -> bool:
    """Return whether `fn` is a context manager that contextlib makes, or a function that makes one.

    It is a function of contextlib's, as is what a context manager makes of any function that it
    decorates: that one runs all of it, and may be decorated.
    """
    import inspect

    wrapped = fn
    while getattr(wrapped, "__globals__", {}).get("__name__") == "contextlib":
        wrapped = getattr(wrapped, "__wrapped__", None)
    return wrapped is not fn and (
        inspect.isgeneratorfunction(wrapped)
        or inspect.isasyncgenfunction(wrapped)
        or getattr(fn, "__name__", None) == "__call__"
    )


def group(path: str, **memory: Unpack[_Knobs]) -> Group:
    """Return the group at `path`; it, and its parents, are made when they do not exist.

    `memory` sets knobs of the group: ``max``, ``high``, ``low``, each any size (`Memory`).

    Raises TypeError or ValueError for a bad path, knob or size, before anything is made;
    EnableError before enable(); and OSError (ENOSPC, ENOMEM) when there is no room for a group.
    """
    values = None
    if memory:
        _paths.split(path)
        values = check(memory, path)  # type: ignore[arg-type]  # a TypedDict is a dict
    found = _core.group_at(path)
    if found is None:
        _paths.split(path)
        _registry.root()
        raise AssertionError(path)  # one of the two has said what is wrong
    if values:
        write(found, values)
    return found


def current_group() -> Group:
    """Return the group that the running context charges to. Raises EnableError before enable()."""
    root = _registry.root()
    return _registry.member_of(_core.current_gid) or root
