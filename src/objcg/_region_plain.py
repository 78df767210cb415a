"""Paths of groups of a region in which nothing is odd, by columns and not one by one.

Of ten thousand groups nearly all are well: no record was torn, each parent is there and older, no
two have one path. That can be seen of all at once, in a fifth of the time. Whatever is not so, or
is damage, is left to `_region_parse.py`, which looks at each record, reads again what may be of two
moments, and says what is wrong. So nothing here repairs, and nothing here is an error.
`tests/unit/test_region_plain.py` compares the two, of damage as well.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

from . import _layout
from ._paths import MAX_DEPTH, MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A path of so many characters is not too deep: each of its parts has a slash and a letter.
_LONGEST = 2 * MAX_DEPTH

Chunk = tuple[int, int, bytes]
"""Number of the first record, how many, and their bytes."""


class Columns:
    """Of all groups that are online, by rising number."""

    def __init__(self) -> None:
        self.gids: list[int] = []
        self.parents: list[int] = []
        self.uids: list[int] = []
        self.names: list[bytes] = []

    def add(self, chunk: Chunk) -> bool:
        """Add those of a chunk; return whether its records are well, each for itself."""
        first, count, data = chunk
        record = _layout.GROUP
        states = record.column(data, "state")
        lengths = record.column(data, "name_len")
        if max(lengths) > MAX_NAME:
            return False
        gids: Sequence[int] = range(first, first + count)
        parents, uids = record.column(data, "parent"), record.column(data, "uid")
        starts: Sequence[int] = range(_layout.GROUP_NAME, len(data), record.size)
        if states.count(_layout.STATE_ONLINE) != count:
            if max(states) > _layout.STATE_OFFLINE:
                return False
            online = [state == _layout.STATE_ONLINE for state in states]
            gids, parents, uids, starts, lengths = (
                list(compress(column, online)) for column in (gids, parents, uids, starts, lengths)
            )
        self.gids.extend(gids)
        self.parents.extend(parents)
        self.uids.extend(uids)
        ends = zip(starts, lengths, strict=True)
        self.names.extend([data[at : at + size] for at, size in ends])
        return True


def paths_of(
    columns: Columns, parents_uids: Mapping[int, int], most_text: int
) -> dict[int, str] | None:
    """Return the path of each group, parents first; None: something is odd.

    `parents_uids` are those of all parents that are there, as they were read after everything else.
    """
    gids, parents = columns.gids, columns.parents
    if not gids or gids[0] != 1 or parents[0] != 0:
        return None
    paths = {1: ""}
    last = eldest = 0
    above = ""
    try:
        rest = zip(gids[1:], parents[1:], columns.uids[1:], _parts(columns.names[1:]), strict=True)
        for gid, parent, uid, part in rest:
            # of siblings most stand together
            if parent != last:
                last, above, eldest = parent, paths[parent], parents_uids[parent]
                if len(above) > _LONGEST:
                    return None
            if uid <= eldest:
                return None
            paths[gid] = above + part
    except (KeyError, ValueError):
        # the parent is not there, or has a higher number; a name is none
        return None
    sizes = list(map(len, paths.values()))
    if max(sizes) > _LONGEST or sum(sizes) > most_text:
        return None
    paths[1] = "/"
    return paths if len(set(paths.values())) == len(paths) else None


def parents_of(columns: Columns) -> list[int]:
    """Return the groups that have groups below them, by rising number."""
    return sorted(set(columns.parents[1:]))


def _parts(names: list[bytes]) -> list[str]:
    """Return "/" and the name, of each. Raises ValueError: one of them is none."""
    if not names:
        return []
    joined = b"\0/".join(names)
    between = len(names) - 1
    if b"" in names or joined.count(b"\0") != between or joined.count(b"/") != between:
        raise ValueError
    # A sequence of UTF-8 that is cut off is ended by a NUL as by the end: as if each were decoded.
    return f"/{joined.decode(errors='replace')}".split("\0")
