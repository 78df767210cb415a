"""What the view shows: which groups, in which order, and how full each is.

Guarantees: a refresh takes time in proportion to the number of groups, sorted; a row is made when
it is asked for, so what a screen shows of many groups costs a screen.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from objcg.region import GroupInfo
    from objcg.views.watch import Sample

NEAR = 0.8
"""The share of its limit from which a group is near it."""
FULL = 0.995
"""From which it is at it: what is shown as 100 %. A group that is stopped is some bytes below."""


class Level(enum.IntEnum):
    """How close a group is to its limit."""

    FINE = 0
    NEAR = 1
    FULL = 2


class Sort(enum.Enum):
    """What rows are sorted by: the largest first, names from A on."""

    CURRENT = "current"
    PEAK = "peak"
    RATE = "rate"
    SHARE = "share"
    EVENTS = "events"
    NAME = "name"


class Row(NamedTuple):
    """A group as it is shown."""

    group: GroupInfo
    depth: int
    """How far it is indented; 0 where the view is flat."""
    has_children: bool
    is_collapsed: bool
    is_match: bool
    """False: it is shown only since something below it matches the filter."""
    rate: float
    """Bytes per second."""
    since: int
    """Events since the view began."""
    total: int
    """Events since the group began."""


class _Place(NamedTuple):
    group: GroupInfo
    depth: int
    has_children: bool
    is_match: bool


class Tally(NamedTuple):
    """How many groups there are, and how many of them are in trouble."""

    groups: int
    near: int
    full: int


def limit(group: GroupInfo) -> tuple[int, str] | None:
    """Return the lower of `max` and `high`, the one that acts first, and its name."""
    if group.max is not None and (group.high is None or group.max <= group.high):
        return group.max, "max"
    return None if group.high is None else (group.high, "high")


def share(group: GroupInfo) -> float | None:
    """Return what part of its limit a group has charged; None: it has no limit."""
    found = limit(group)
    if found is None:
        return None
    # a limit of 0 is reached by whatever there is, and by nothing as well
    return group.current / found[0] if found[0] else math.inf if group.current else 1.0


def level(group: GroupInfo) -> Level:
    """Return how close a group is to its limit."""
    part = share(group)
    if part is None or part < NEAR:
        return Level.FINE
    return Level.FULL if part >= FULL else Level.NEAR


class Model:
    """The rows, by the sample taken last and what the user asked for."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        # by uid, as it is for all that is kept: ids are used again; None: the group is newer
        self._first: dict[int, GroupInfo | None] = {
            group.uid: group for group in sample.region.groups
        }
        self._collapsed: set[int] = set()
        self._sort = Sort.CURRENT
        self._is_reversed = False
        self._is_flat = False
        self._wanted = ""
        self._places: list[_Place] = []
        self._at: dict[int, int] = {}
        self.tally = Tally(0, 0, 0)
        self.matches = 0
        self._count()
        self._arrange()

    @property
    def sample(self) -> Sample:
        """What is shown."""
        return self._sample

    def update(self, sample: Sample) -> None:
        """Show another sample of the same process."""
        self._sample = sample
        groups = sample.region.groups
        self._first = {uid: self._first.get(uid) for uid in (group.uid for group in groups)}
        self._collapsed.intersection_update(self._first)
        self._count()
        self._arrange()

    # --- what the user asks for

    @property
    def sort(self) -> Sort:
        """What rows are sorted by, among siblings or, in a flat view, among all."""
        return self._sort

    @sort.setter
    def sort(self, sort: Sort) -> None:
        self._sort = sort
        self._arrange()

    @property
    def is_reversed(self) -> bool:
        """Whether the smallest comes first."""
        return self._is_reversed

    @is_reversed.setter
    def is_reversed(self, is_reversed: bool) -> None:
        self._is_reversed = is_reversed
        self._arrange()

    @property
    def is_flat(self) -> bool:
        """Whether groups are listed by their path, and not as a tree."""
        return self._is_flat

    @is_flat.setter
    def is_flat(self, is_flat: bool) -> None:
        self._is_flat = is_flat
        self._arrange()

    @property
    def wanted(self) -> str:
        """What paths have to contain, in upper or lower case; empty shows all.

        In the tree the ancestors of what matches are shown, too, collapsed or not.
        """
        return self._wanted

    @wanted.setter
    def wanted(self, text: str) -> None:
        self._wanted = text
        self._arrange()

    def collapse(self, uid: int, *, collapsed: bool) -> None:
        """Hide what is below a group, or show it again."""
        (self._collapsed.add if collapsed else self._collapsed.discard)(uid)
        self._arrange()

    def collapse_all(self, *, collapsed: bool) -> None:
        """Show root and what is right below it, or all."""
        self._collapsed.clear()
        if collapsed:
            groups = self._sample.region.groups
            self._collapsed.update(group.uid for group in groups if group.path != "/")
        self._arrange()

    # --- what is shown

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def row(self, index: int) -> Row:
        """Return a row."""
        group, depth, has_children, is_match = self._places[index]
        since, total = self._events_key(group)
        return Row(
            group=group,
            depth=depth,
            has_children=has_children,
            is_collapsed=has_children and not self._wanted and group.uid in self._collapsed,
            is_match=is_match,
            rate=self._sample.change(group).rate,
            since=since,
            total=total,
        )

    def events_since(self, group: GroupInfo) -> dict[str, int]:
        """Return how often each thing has happened in a group since the view began."""
        first = self._first[group.uid]
        before = {} if first is None else first.events
        return {event: count - before.get(event, 0) for event, count in group.events.items()}

    def index(self, uid: int) -> int | None:
        """Return where a group is shown; None: it is not."""
        return self._at.get(uid)

    def parent(self, index: int) -> int | None:
        """Return the row that a row of the tree is below; None: it is below none."""
        depth = self._places[index].depth
        for above in range(index - 1, -1, -1):
            if self._places[above].depth < depth:
                return above
        return None

    # --- how it is found

    def _count(self) -> None:
        near = full = 0
        for group in self._sample.region.groups:
            if group.max is None and group.high is None:
                continue
            found = level(group)
            near += found is Level.NEAR
            full += found is Level.FULL
        self.tally = Tally(len(self._sample.region.groups), near, full)

    def _arrange(self) -> None:
        groups = self._sample.region.groups
        matches = None
        if self._wanted:
            folded = self._wanted.casefold()
            matches = {group.uid for group in groups if folded in group.path.casefold()}
        self.matches = len(groups) if matches is None else len(matches)
        if self._is_flat:
            shown = [group for group in groups if matches is None or group.uid in matches]
            self._places = [
                _Place(group, 0, has_children=False, is_match=True) for group in self._sorted(shown)
            ]
        else:
            self._places = list(self._tree(groups, matches))
        self._at = {place.group.uid: i for i, place in enumerate(self._places)}

    def _tree(self, groups: Sequence[GroupInfo], matches: set[int] | None) -> Iterator[_Place]:
        if matches is not None:
            groups = _with_ancestors(groups, matches)
        below: dict[str, list[GroupInfo]] = {}
        for group in groups:
            if group.path != "/":
                below.setdefault(group.path.rpartition("/")[0] or "/", []).append(group)
        stack = [(group, 0) for group in groups if group.path == "/"]
        while stack:
            group, depth = stack.pop()
            # taken out: two records of one path, in a damaged file, must not double what is below
            children = below.pop(group.path, None)
            is_match = matches is None or group.uid in matches
            yield _Place(group, depth, children is not None, is_match)
            # what a filter finds is shown wherever it is
            if children is not None and (self._wanted or group.uid not in self._collapsed):
                stack.extend((child, depth + 1) for child in reversed(self._sorted(children)))

    def _sorted(self, groups: Sequence[GroupInfo]) -> list[GroupInfo]:
        ordered = list(groups)
        if len(ordered) > 1:
            # twice: what is equal stays in the order of names, since sort() is stable either way
            ordered.sort(key=_path)
            descending = (self._sort is not Sort.NAME) != self._is_reversed
            ordered.sort(key=self._key(), reverse=descending)
        return ordered

    def _key(self) -> Callable[[GroupInfo], Any]:
        return {
            Sort.CURRENT: lambda group: group.current,
            Sort.PEAK: lambda group: group.peak,
            Sort.RATE: lambda group: self._sample.change(group).rate,
            Sort.SHARE: lambda group: -1.0 if (part := share(group)) is None else part,
            Sort.EVENTS: self._events_key,
            Sort.NAME: _path,
        }[self._sort]

    def _events_key(self, group: GroupInfo) -> tuple[int, int]:
        total = sum(group.events.values())
        first = self._first[group.uid]
        return total - (0 if first is None else sum(first.events.values())), total


def _path(group: GroupInfo) -> str:
    return group.path


def _with_ancestors(groups: Sequence[GroupInfo], matches: set[int]) -> list[GroupInfo]:
    kept = {"/"} if matches else set()
    for group in groups:
        if group.uid not in matches:
            continue
        path = group.path
        while path not in kept:
            kept.add(path)
            path = path.rpartition("/")[0] or "/"
    return [group for group in groups if group.path in kept]
