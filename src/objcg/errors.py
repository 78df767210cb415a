"""The errors of objcg that a program may want to catch."""

from __future__ import annotations

import errno

from . import _core, _registry
from ._sizes import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from .group import Group
    from .task import Task


class EnableError(RuntimeError):
    """objcg cannot be enabled here, or was used before it was; the text says why and what to do."""


class GroupBusy(OSError):
    """A group cannot be removed while it has children or tasks (`errno` is EBUSY)."""


class GroupRemoved(OSError):
    """An operation on a group that was removed, or on a task that has ended (`errno` is ENODEV)."""


class MigrationForbidden(PermissionError):
    """A task was to be moved after ``objcg.enable(migration=False)`` (`errno` is EPERM)."""


class MemoryLimitExceeded(MemoryError):
    """The running task is in a group whose usage is over ``memory.max``; reclaim did not help.

    While it is handled, the task may use a small reserve above the limit.

    Attributes:
        group: the group whose limit it is: the task's own or one above it. None after the
            exception went through pickle, or when that group was removed in the meantime.
        task: the task that ran over the limit; None where `group` may be.
        limit: ``memory.max`` in bytes.
        usage: the bytes that were charged, after reclaim.
    """

    group: Group | None
    task: Task | None
    limit: int
    usage: int

    def __init__(
        self,
        message: str | None = None,
        *,
        group: Group | None = None,
        task: Task | None = None,
        limit: int = 0,
        usage: int = 0,
    ) -> None:
        if message is None and group is None:
            # PyThreadState_SetAsyncExc raises a class, not an instance: this instance is being
            # made in the thread that is over the limit, for which the core keeps what it is about.
            group, task, limit, usage = _reported()
        super().__init__(message if message is not None else _describe(group, limit, usage))
        self.group = group
        self.task = task
        self.limit = limit
        self.usage = usage

    def __reduce__(self) -> tuple[object, ...]:
        # groups and tasks belong to one process; the text, the numbers and what others have added
        # (the notes of PEP 678) can travel
        own = ("group", "task", "limit", "usage")
        added = {name: value for name, value in self.__dict__.items() if name not in own}
        return _unpickle, (type(self), str(self), self.limit, self.usage), added or None


def _unpickle(
    cls: type[MemoryLimitExceeded], message: str, limit: int, usage: int
) -> MemoryLimitExceeded:
    return cls(message, limit=limit, usage=usage)


def _reported() -> tuple[Group | None, Task | None, int, int]:
    report = _core.pending_report()
    if report is None:
        return None, None, 0, 0
    gid, uid, task_id, limit, usage, *_ = report
    current: Task = _core.current_task()  # type: ignore[assignment]  # of the type given to set_task_type()
    return _registry.get_same(gid, uid), current if current.id == task_id else None, limit, usage


def _describe(group: Group | None, limit: int, usage: int) -> str:
    if group is None:
        return "a group of this task is over memory.max"
    return (
        f"group {group.path} is over memory.max: {format_size(usage)} charged, "
        f"limit {format_size(limit)}"
    )


def removed(group: Group) -> GroupRemoved:
    """Return the error for an operation on `group`, which is gone."""
    return GroupRemoved(errno.ENODEV, f"group {group.path} was removed")


class translated:  # noqa: N801  # used as a function is
    """Give ENODEV, as the core reports it for an operation on `group`, its public type."""

    __slots__ = ("_group",)

    def __init__(self, group: Group) -> None:
        self._group = group

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc_value, OSError) and exc_value.errno == errno.ENODEV:
            raise removed(self._group) from None
