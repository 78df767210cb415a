"""Tasks: what belongs to a group. One is made by each entry into a group."""

from __future__ import annotations

import errno

from . import _core, _registry
from .errors import GroupRemoved, MigrationForbidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .group import Group


class Task(_core.TaskBase):
    """A membership: one entry into a group, and everything that inherited it.

    Handles on the same task are equal. It is `online` while any context still carries it.

    Attributes:
        id: a number no other task of this process ever has.
        name: text of up to 63 bytes of UTF-8 (longer text is cut), for people; can be set.
        online: whether any context still carries it.
    """

    @property
    def group(self) -> Group:
        """The group the task belongs to now. Raises GroupRemoved when the task has ended."""
        group = _registry.member_of(lambda: self.gid)
        if group is None:
            msg = f"task {self.id} has ended: it has no group any more"
            raise GroupRemoved(errno.ENODEV, msg)
        return group

    def move(self, group: Group) -> None:
        """Make the task a member of `group`, from any thread.

        What it allocates from now on is charged there; what it has allocated stays where it is.

        Raises TypeError when `group` is not a Group, MigrationForbidden after
        ``objcg.enable(migration=False)``, and GroupRemoved when the group was removed or the task
        has ended.
        """
        try:
            self._move(group)
        except PermissionError as error:
            msg = (
                f"task {self.id} cannot be moved: tasks are fixed since "
                "objcg.enable(migration=False)"
            )
            raise MigrationForbidden(errno.EPERM, msg) from error
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            what = f"task {self.id} has ended" if group.online else f"{group!r} was removed"
            raise GroupRemoved(errno.ENODEV, what) from None

    def __repr__(self) -> str:
        group = _registry.get(self.gid)
        where = f"in {group.path}" if group is not None else "ended"
        return f"<Task {self.id} {self.name!r} {where}>"


def current_task() -> Task:
    """Return the task that the running context belongs to. Raises EnableError before enable()."""
    _registry.root()
    task = _core.current_task()
    assert isinstance(task, Task)  # noqa: S101  # set_task_type() saw to it
    return task
