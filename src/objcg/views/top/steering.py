"""What the view changes in the process, checked as the command line does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objcg import _layout, _sizes, outside
from objcg.region import RegionError

if TYPE_CHECKING:
    from objcg.outside import Outcome
    from objcg.region import GroupInfo, Region, TaskInfo

KNOBS = ("max", "high", "low")


def parse(knob: str, text: str) -> int | None:
    """Return the bytes that `text` stands for; None: no limit. Raises ValueError."""
    what = f"memory.{knob}"
    try:
        if knob == "low":
            return _sizes.parse_bytes(text, what)
        return _sizes.parse_limit(text, what)
    except ValueError as error:
        # what programs may pass besides cannot be typed
        wrong, _, accepted = str(error).partition("; ")
        raise ValueError(f"{wrong}; {accepted.replace(' or None', '')}") from None


def set_limit(found: Region, group: GroupInfo, knob: str, value: int | None) -> bool:
    """Set a knob of a group; False: the group has ended.

    Raises RegionError: the process has ended, or is not ours.
    """
    return outside.set_knobs(found, group, {knob: value})


def check_moves(found: Region) -> None:
    """Raise RegionError where tasks cannot be moved."""
    if not found.flags & _layout.FLAG_MIGRATION:
        raise RegionError(
            f"the tasks of process {found.pid} cannot be moved: it has called "
            "objcg.enable(migration=False)"
        )


def move(found: Region, task: TaskInfo, group: GroupInfo) -> Outcome:
    """Move a task. Raises RegionError: the process has ended, or is not ours."""
    return outside.move(found, task, group)
