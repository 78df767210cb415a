"""The groups of a region, as their records were read.

Of ten thousand groups a tool looks at few, or wants one line of text of each. So `Groups` keeps the
bytes of the records, and makes a `GroupInfo` of each only when somebody asks for one.
"""

from __future__ import annotations

import functools
import struct
from bisect import bisect_right
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from . import _layout

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping
    from typing import TypeVar

    Record = tuple[Any, ...]
    Key = TypeVar("Key", bound=Hashable)
    What = TypeVar("What")


# Where the fields of a group's record are that _layout.GROUP.struct unpacks.
(
    STATE,
    PARENT,
    TASKS,
    DYING,
    UID,
    USAGE,
    MAX,
    HIGH,
    LOW,
    PEAK,
    BLOCKS,
    STAT,
    EVENTS,
    SEQ,
    NAME_LEN,
) = range(15)


class _Group(NamedTuple):
    path: str
    id: int
    record: tuple[Any, ...]


class GroupInfo(_Group):
    """A group. Sizes are bytes; limits are None where unset.

    A reader makes it of a record as it is, by `_make()`: what a tool does not look at is not
    unpacked, of ten thousand groups.
    """

    __slots__ = ()

    def __new__(  # noqa: PYI034  # nothing is derived from it
        cls,
        path: str,
        id: int,  # noqa: A002  # the field's name
        uid: int,
        *,
        online: bool,
        tasks: int,
        current: int,
        peak: int,
        max: int | None,  # noqa: A002
        high: int | None,
        low: int | None,
        event_counts: tuple[int, ...],
        stat_values: tuple[int, ...],
    ) -> GroupInfo:
        """Make one by hand; the counts are in the order of `_layout.EVENTS` and `STATS`."""
        *domains, blocks, dying = stat_values
        record = (
            _layout.STATE_ONLINE if online else _layout.STATE_OFFLINE,
            0,
            tasks,
            dying,
            uid,
            current,
            _layout.NO_LIMIT if max is None else max,
            _layout.NO_LIMIT if high is None else high,
            low or 0,
            peak,
            blocks,
            tuple(domains),
            _layout.GROUP_EVENTS.pack(*event_counts),
        )
        return cls._make((path, id, record))

    @property
    def uid(self) -> int:
        """The number of the group: no other of its process ever has the same."""
        uid: int = self.record[UID]
        return uid

    @property
    def online(self) -> bool:
        """Whether the group was not removed; such ones are not read."""
        return bool(self.record[STATE] == _layout.STATE_ONLINE)

    @property
    def tasks(self) -> int:
        """How many tasks are in the group itself."""
        tasks: int = self.record[TASKS]
        return tasks

    @property
    def current(self) -> int:
        """Bytes charged to the group and all below it, without what is only in stock."""
        current: int = self.record[USAGE]
        return current

    @property
    def peak(self) -> int:
        """The most bytes charged at once."""
        peak: int = max(self.record[PEAK], self.record[USAGE])
        return peak

    @property
    def max(self) -> int | None:
        """The hard limit."""
        return _limit(self.record[MAX])

    @property
    def high(self) -> int | None:
        """What is reclaimed above."""
        return _limit(self.record[HIGH])

    @property
    def low(self) -> int | None:
        """What is protected from reclaim."""
        return self.record[LOW] or None

    @property
    def events(self) -> dict[str, int]:
        """How often each thing happened in the group or below it."""
        counts = _layout.GROUP_EVENTS.unpack(self.record[EVENTS])
        return dict(zip(_layout.EVENTS, counts, strict=True))

    @property
    def stat(self) -> dict[str, int]:
        """Bytes by allocation domain, "blocks" and "dying_descendants"."""
        record = self.record
        domains = record[STAT]
        # a tuple where what is in stock was added
        if isinstance(domains, bytes):
            domains = _layout.GROUP_STAT.unpack(domains)
        _, mem, raw, numpy, native, mapped = domains
        objects = record[USAGE] - mem - raw - numpy - native - mapped
        return {
            # the domains are read a moment after their sum
            "object": objects if objects > 0 else 0,  # noqa: FURB136  # ten thousand times
            "mem": mem,
            "raw": raw,
            "numpy": numpy,
            "native": native,
            "mmap": mapped,
            "blocks": record[BLOCKS],
            "dying_descendants": record[DYING],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the group as ``objcg tree --json`` prints it."""
        record = self.record
        return {
            "path": self.path,
            "id": self.id,
            "uid": record[UID],
            "online": record[STATE] == _layout.STATE_ONLINE,
            "tasks": record[TASKS],
            "current": record[USAGE],
            "peak": self.peak,
            "max": _limit(record[MAX]),
            "high": _limit(record[HIGH]),
            "low": record[LOW] or None,
            "events": self.events,
            "stat": self.stat,
        }

    def to_json_text(self) -> str:
        """Return what json.dumps() makes of `to_json()`, in a third of the time."""
        record = self.record
        usage, peak = record[USAGE], record[PEAK]
        domains = record[STAT]
        if isinstance(domains, bytes):
            domains = _layout.GROUP_STAT.unpack(domains)
        objects = usage - sum(domains) + domains[0]
        return (
            _GROUP_TEXT
            % (
                _quoted(self.path),
                self.id,
                record[UID],
                "true" if record[STATE] == _layout.STATE_ONLINE else "false",
                record[TASKS],
                usage,
                peak if peak > usage else usage,  # noqa: FURB136  # ten thousand times
                "null" if record[MAX] == _layout.NO_LIMIT else record[MAX],
                "null" if record[HIGH] == _layout.NO_LIMIT else record[HIGH],
                record[LOW] or "null",
                *_layout.GROUP_EVENTS.unpack(record[EVENTS]),
                objects if objects > 0 else 0,  # noqa: FURB136
                *domains[1:],
                record[BLOCKS],
                record[DYING],
            )
        )


# As GroupInfo._make() does, in C.
group_info = functools.partial(tuple.__new__, GroupInfo)


def _text_of(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}": %s' for name in names)


_GROUP_TEXT = "{%s, %s, %s}" % (  # noqa: UP031  # of a text that is such a format itself
    _text_of(["path", "id", "uid", "online", "tasks", "current", "peak", "max", "high", "low"]),
    f'"events": {{{_text_of(_layout.EVENTS)}}}',
    f'"stat": {{{_text_of(_layout.STATS)}}}',
)


# A record's fields as JSON has them. Most groups have the limits and events of many others, so
# these are kept together: their text is made once.
_LIMITS = struct.Struct("<3q")
# All but "object", which is what the others leave of the usage.
_DOMAINS = struct.Struct(f"<{len(_layout.DOMAINS) - 1}q")
_ALONE = ("state", "parent", "tasks", "dying", "uid", "usage", "peak", "blocks", "events")
_ROW = _layout.Record(
    _layout.GROUP.size,
    {
        **{name: _layout.GROUP.fields[name] for name in _ALONE},
        "limits": (_layout.GROUP.fields["max"][0], f"{_LIMITS.size}s"),
        "domains": (_layout.GROUP.fields["stat"][0] + 8, f"{_DOMAINS.size}s"),
    },
).struct


class _LimitTexts(dict[bytes, str]):
    def __missing__(self, raw: bytes) -> str:
        most, high, low = _LIMITS.unpack(raw)
        limits = (_limit(most), _limit(high), low or None)
        text = _text_of(["max", "high", "low"]) % tuple(
            "null" if limit is None else limit for limit in limits
        )
        self[raw] = text
        return text


class _EventTexts(dict[bytes, str]):
    def __missing__(self, raw: bytes) -> str:
        text = _text_of(_layout.EVENTS) % _layout.GROUP_EVENTS.unpack(raw)
        self[raw] = text
        return text


class _DomainTexts(dict[bytes, tuple[int, str]]):
    """With their sum."""

    def __missing__(self, raw: bytes) -> tuple[int, str]:
        domains = _DOMAINS.unpack(raw)
        made = sum(domains), _text_of(_layout.DOMAINS[1:]) % domains
        self[raw] = made
        return made


class Groups(Sequence[GroupInfo]):
    """All groups of a region, parents first."""

    def __init__(
        self,
        paths: Mapping[int, str],
        chunks: Sequence[tuple[int, int, bytes]],
        corrected: Mapping[int, Record],
    ) -> None:
        """Of `paths`, by group; each is `corrected`, or in a chunk: first record, how many, bytes.

        Every record of the chunks that is online has to have a path.
        """
        self._paths = paths
        self._chunks = chunks
        self._firsts = [first for first, _, _ in chunks]
        self._corrected = corrected
        self._made: list[GroupInfo] | None = None

    def __len__(self) -> int:
        """Return how many groups there are."""
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> GroupInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[GroupInfo]: ...
    def __getitem__(self, index: int | slice) -> GroupInfo | list[GroupInfo]:
        """Return one of them, or several."""
        return self._all()[index]

    def __iter__(self) -> Iterator[GroupInfo]:
        """Go through them, parents first."""
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        """Compare them as a list."""
        return isinstance(other, Sequence) and self._all() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def root(self) -> GroupInfo:
        """Return the first of them, alone."""
        gid, path = next(iter(self._paths.items()))
        return GroupInfo._make((path, gid, self._corrected.get(gid) or self.record(gid)))

    def record(self, gid: int) -> Record:
        """Return the record of a group as it was read."""
        first, _, data = self._chunks[bisect_right(self._firsts, gid) - 1]
        return _layout.GROUP.struct.unpack_from(data, (gid - first) * _layout.GROUP.size)

    def _all(self) -> list[GroupInfo]:
        if self._made is None:
            records: dict[int, Record] = {}
            for first, count, data in self._chunks:
                unpacked = _layout.GROUP.struct.iter_unpack(data)
                records.update(zip(range(first, first + count), unpacked, strict=True))
            records.update(self._corrected)
            paths = self._paths
            found = zip(paths.values(), paths, map(records.__getitem__, paths), strict=True)
            self._made = list(map(group_info, found))
        return self._made

    def to_json_text(self) -> str:
        """Return what json.dumps() makes of the groups in the order of a tree, without brackets.

        It is what `GroupInfo.to_json_text()` returns, from the bytes and all at once.
        """
        paths, corrected = self._paths, self._corrected
        limit_texts, event_texts, domain_texts = _LimitTexts(), _EventTexts(), _DomainTexts()
        below: dict[int, list[tuple[int, str, int, str]]] = {}
        for first, _, data in self._chunks:
            for gid, row in enumerate(_ROW.iter_unpack(data), first):
                state, parent, tasks, dying, uid, usage, limits, peak, blocks, domains, events = row
                if state != _layout.STATE_ONLINE:
                    continue
                path = paths[gid]
                if gid in corrected:
                    group = GroupInfo._make((path, gid, corrected[gid]))
                    usage, text = group.current, group.to_json_text()
                else:
                    others, stat = domain_texts[domains]
                    objects = usage - others
                    text = (
                        f'{{"path": {_quoted(path)}, "id": {gid}, "uid": {uid}, "online": true, '
                        f'"tasks": {tasks}, "current": {usage}, '
                        f'"peak": {max(usage, peak)}, {limit_texts[limits]}, '
                        f'"events": {{{event_texts[events]}}}, '
                        f'"stat": {{"object": {max(0, objects)}, {stat}, '
                        f'"blocks": {blocks}, "dying_descendants": {dying}}}}}'
                    )
                below.setdefault(parent, []).append((usage, path, gid, text))
        return ", ".join(in_tree_order(below, 0))


def in_tree_order(below: dict[Key, list[tuple[int, str, Key, What]]], top: Key) -> list[What]:
    """Return what is below `top`, each before what is below it, and the largest first of siblings.

    `below` are, by the group above: usage, path, group, and what is returned. What was is taken
    out of it.
    """
    for siblings in below.values():
        siblings.sort()  # of two with as much the paths differ
    ordered: list[What] = []
    # each list is used up from its end, the largest
    stack = [below.pop(top, [])]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        _, _, group, what = stack[-1].pop()
        ordered.append(what)
        further = below.pop(group, None)
        if further is not None:
            stack.append(further)
    return ordered


def _limit(limit: int) -> int | None:
    return None if limit == _layout.NO_LIMIT else limit
