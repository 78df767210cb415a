"""``enable(migration=False)``: no task can be moved; groups are entered, or inherited."""

from __future__ import annotations

import errno
import sys

from .programs import run


def lines_of(part: str) -> list[str]:
    """Run a part of the program; return what it printed."""
    result = run([sys.executable, "no_migration.py", part])
    assert (result.returncode, result.stderr) == (0, ""), result
    *lines, drift = result.stdout.splitlines()
    assert drift == "drift 0"
    return lines


def test_without_migration_everything_is_inherited_as_ever() -> None:
    # Of each group: a thread, one started by it, a job, a copied context; and to_thread() in /a.
    in_groups = ["/a"] * 5 + ["/b"] * 4
    # The event loop and the pool at root; the children that began in /a and were in /b meanwhile.
    assert lines_of("inherits") == sorted(["/", "/", *in_groups, *["/a /b /a"] * 3])


def test_without_migration_no_task_is_moved_from_anywhere() -> None:
    *attempts, own, others = lines_of("moves")
    # The own task is the thread's too: it has inherited it.
    assert attempts == [f"{errno.EPERM} /a 1 0"] * 6
    assert (own, others) == ("/a", "/a")


def test_without_migration_a_group_with_tasks_cannot_be_removed_by_force_either() -> None:
    """It would move them to the parent. Once they have ended it can."""
    assert lines_of("removes") == [
        "GroupBusy True 1 1 /a/inner",
        "MigrationForbidden True 1 1 /a/inner",
        "removed False /a",
        "still there True 1",
        "removed False False",
    ]
