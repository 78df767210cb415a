"""The living groups by id."""

from __future__ import annotations

from . import _core
from ._paths import MAX_DEPTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .group import Group

ROOT_ID = 1
_ATTEMPTS = 2 * MAX_DEPTH

# kept by the core, which makes and removes groups
_groups: dict[int, Group] = {}


def begin(group_type: type[Group]) -> None:
    """Make the root's group. For enable() only."""
    _core.bind_root(group_type, _groups)


def get(gid: int) -> Group | None:
    """Return the living group with this id, or None: it may have been removed meanwhile."""
    return _groups.get(gid)


def get_same(gid: int, uid: int) -> Group | None:
    """Return the living group with this id if it is still the one with that uid, or None."""
    group = _groups.get(gid)
    return group if group is not None and group.uid == uid else None


def member_of(read_gid: Callable[[], int]) -> Group | None:
    """Return the living group whose id `read_gid` reads; None when it reads 0.

    A group may be removed between the reading and the look-up, and its id be another's by then. So
    the id is read again: what belonged to the removed group is in its parent, which is older than
    the new one. A path is not deeper than the attempts.
    """
    gid = read_gid()
    for _ in range(_ATTEMPTS):
        if not gid:
            return None
        group = _groups.get(gid)
        before, gid = gid, read_gid()
        if group is not None and gid == before:
            return group
    return root()


def root() -> Group:
    """Return the root group. Raises EnableError before `objcg.enable()`."""
    group = _groups.get(ROOT_ID)
    if group is None:
        from .errors import EnableError  # errors needs this module

        msg = (
            "objcg is not enabled: call objcg.enable() first, or start the program with 'objcg run'"
        )
        raise EnableError(msg)
    return group
