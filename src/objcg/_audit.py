"""Proof that no byte is lost: count again, block by block, and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import _core, _registry

if TYPE_CHECKING:
    from .group import Group


class Audit(NamedTuple):
    """The result of `objcg.audit()`.

    Attributes:
        groups: by path, the bytes that the counters say and those found in the heap, both with
            the group's descendants.
        drift: the sum of all differences, of living and removed groups, in bytes: 0, or it is a
            bug of objcg.
    """

    groups: dict[str, tuple[int, int]]
    drift: int


# Users know it by this name, and tracebacks should.
Audit.__module__ = "objcg"


def audit() -> Audit:
    """Walk all blocks of the heap and recompute what each group is charged.

    It stops the world for as long as it takes, milliseconds for each 100 MB. Raises EnableError
    before enable().
    """
    _registry.root()
    groups = {}
    drift, rows = _core.audit()
    for gid, counted, found in rows:
        group = _registry.get(gid)
        groups[group.path if group is not None else f"(removed: {gid})"] = (counted, found)
    return Audit(groups, drift)


def owner(obj: object) -> Group | None:
    """Return the group that the memory of `obj` itself is charged to.

    None: it was allocated before enable(), or by an allocator that objcg does not see. Memory
    that `obj` refers to, such as the items of a list, has owners of its own. Raises EnableError
    before enable().
    """
    _registry.root()
    return _registry.member_of(lambda: _core.owner(obj))
