"""``objcg move``: move a task of a running process to another group, from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from objcg import _layout, _paths, outside
from objcg.region import RegionError

from .output import say
from .parser import CliError, WrongUse
from .process import find_group, number, read_process
from .table import printable

if TYPE_CHECKING:
    import argparse

    from objcg.region import Region, TaskInfo

# How many tasks an error message names.
_NAMED = 5


def run(options: argparse.Namespace) -> int:
    """Move the task that was named; return the exit status."""
    try:
        path = "/" + "/".join(_paths.split(options.path))
    except ValueError as error:
        raise WrongUse(str(error)) from error
    found = read_process(options.process, tasks=True)
    if not found.flags & _layout.FLAG_MIGRATION:
        msg = (
            f"the tasks of process {found.pid} cannot be moved: it has called "
            "objcg.enable(migration=False)"
        )
        raise CliError(msg)
    group = find_group(found, path)
    task = _task(found, options.task)
    try:
        outcome = outside.move(found, task, group)
    except RegionError as error:
        raise CliError(str(error)) from error
    if outcome is outside.Outcome.GONE:
        msg = f"task {task.id} was not moved: it, group {path} or the process has ended meanwhile"
        raise CliError(msg)
    done = outcome is outside.Outcome.DONE
    if options.json:
        report = {"pid": found.pid, "task": task.id, "name": task.name, "from": task.group}
        say(json.dumps({**report, "to": path, "moved": done}))
    elif done:
        say(printable(f"task {task.id} ({task.name}) moved from {task.group} to {path}"))
    else:
        say(printable(f"task {task.id} ({task.name}) will be in {path} when it allocates next"))
    return 0


def _task(found: Region, wanted: str) -> TaskInfo:
    """Return the task with the id or else the name `wanted`."""
    tasks = found.tasks or []
    if wanted.isascii() and wanted.isdigit():
        matches = [task for task in tasks if task.id == number(wanted)]
        if matches:
            return matches[0]
    matches = [task for task in tasks if task.name == wanted]
    if not matches:
        msg = f"process {found.pid} has no task {wanted!r} (see 'objcg tree --tasks {found.pid}')"
        raise CliError(msg)
    if len(matches) > 1:
        some = ", ".join(f"{task.id} in {task.group}" for task in matches[:_NAMED])
        more = f" and {len(matches) - _NAMED} more" if len(matches) > _NAMED else ""
        msg = f"{len(matches)} tasks are named {wanted!r}; name one by its number: {some}{more}"
        raise CliError(msg)
    return matches[0]
