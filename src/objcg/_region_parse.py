"""From the bytes of a region to its groups and tasks, without a lock and whatever they are.

A writer makes a group's `seq` odd, changes name, parent or state, and makes it even again. Counters
are single words that change at any time. So each piece is read twice: what is identity in a record
is right if it was the same in both, and `seq` even and the same too. (Then no change was complete
between the first `seq` and the second. One that was complete before is seen by all of the second
reading, one that began later by nothing of the first; and they are equal.)

A group's uid is never another's, and higher than those of all that were made before it. Of each
parent the uid is read once more after the child was: if it is lower than the child's, that record
is still the parent's, which had to be there as long as the child was; had it become another group's
meanwhile, the uid would be higher. So no path is made of groups of two moments, and no chain of
parents is endless.

Where nothing is odd in that, which `_region_plain.py` sees of all groups at once, this is all. Else
each record is looked at: what was torn, or has no place in the tree, is read again.
"""

from __future__ import annotations

import operator
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from . import _layout
from ._paths import MAX_DEPTH, MAX_NAME
from ._region_groups import (
    BLOCKS,
    NAME_LEN,
    PARENT,
    STAT,
    STATE,
    UID,
    USAGE,
    Groups,
    group_info,
)
from ._region_plain import Columns, parents_of, paths_of
from ._region_source import MOST_AT_ONCE, RegionError, Section
from ._region_types import Region, TaskInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized

    from ._region_groups import GroupInfo
    from ._region_source import Source

    Record = tuple[Any, ...]
    Records = dict[int, Record]

# How often all is read again.
_ATTEMPTS = 5
_PAUSE = 0.0002  # seconds; a writer is done after far less, unless it is dead or descheduled

# How often one record is, and how many records in one reading: a writer changes one at a time.
_RECORD_ATTEMPTS = 50
_MOST_PAUSES = 20
_MOST_REPAIRS = 10_000

# More text (characters) than the paths of groups can reasonably be.
_MOST_PATH_TEXT = 1 << 23
_MOST_PATH_TEXT_EACH = 128

_SLASH = ord("/")

_SIZE = _layout.GROUP.size
_SEQ = _layout.GROUP.fields["seq"][0]
_UID = _layout.GROUP.fields["uid"][0]
_NAME = _layout.GROUP_NAME
_BLOCK = 16 * _SIZE
# Records are read alone where that many or more are read for one that is wanted.
_ONE_OF = 30
_ODD = int.from_bytes(b"\1" * MOST_AT_ONCE, "little")
# What is identity of a group's record: [from, to) of its bytes.
_IDENTITY = ((0, 16), (40, 48), (_SEQ, _SEQ + 8), (_NAME, _SIZE))


class _Inconsistent(RegionError):
    """The tree makes no sense: damage, or it changed while it was being read."""


def parse_source(source: Source, *, tasks: bool = False) -> Region:
    """Return what is in `source`. Raises RegionError."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _parse_once(source, tasks=tasks)
        except _Inconsistent:  # noqa: PERF203  # five times at most
            time.sleep(_PAUSE)
    return _parse_once(source, tasks=tasks)


def _parse_once(source: Source, *, tasks: bool) -> Region:
    region, (groups, objcgs, task_section, cpus) = parse_header(source)
    reader = _GroupReader(groups)
    paths = _plain_paths(reader)
    found: Sequence[GroupInfo]
    if paths is not None:
        corrected: Records = {}
        found = Groups(paths, reader.chunks, corrected)
        _take_off_stocks(_stocks(cpus, objcgs), found.record, corrected, paths)
    else:
        records = reader.read()
        paths = _repaired_paths(reader, records)
        _take_off_stocks(_stocks(cpus, objcgs), records.__getitem__, records, paths)
        infos = zip(paths.values(), paths, map(records.__getitem__, paths), strict=True)
        found = list(map(group_info, infos))
    region = region._replace(groups=found)
    if tasks:
        region = region._replace(tasks=sorted(_tasks(task_section, paths)))
    return region


def parse_header(source: Source) -> tuple[Region, list[Section]]:
    """Return what the header says, with no groups yet, and the sections. Raises RegionError."""
    data = source.read(0, _layout.HEADER.size)
    if not data.startswith(_layout.MAGIC):
        msg = "it is not a region file of objcg"
        raise RegionError(msg)
    if len(data) < _layout.HEADER.size:
        msg = f"it has {len(data)} bytes, less than a header"
        raise RegionError(msg)
    (_, version, header_size, file_size, pid, uid, start, boot, created, flags, *rest) = (
        _layout.HEADER.unpack(data)
    )
    places, (updated, startup, startup_shared, python, command_len, command) = rest[:20], rest[20:]
    if version != _layout.VERSION or header_size != _layout.HEADER.size:
        msg = (
            f"it has layout version {version} (header of {header_size} bytes); this objcg reads "
            f"version {_layout.VERSION}"
        )
        raise RegionError(msg)
    if file_size > source.size:
        msg = f"it should have {file_size} bytes, but has {source.size}"
        raise RegionError(msg)
    if command_len > len(command):
        msg = f"its command line claims {command_len} bytes"
        raise RegionError(msg)
    kinds = zip(
        ("group", "objcg", "task", "cpu"), _layout.SECTIONS, _layout.CAPACITIES, strict=True
    )
    sections = [
        Section(source, name, record, most, tuple(places[5 * i : 5 * i + 5]))
        for i, (name, record, most) in enumerate(kinds)
    ]
    region = Region(
        pid=pid,
        command=_text(command[:command_len]),
        groups=[],
        uid=uid,
        start_time=start,
        boot_id=_text(boot),
        created_ns=created,
        updated_ns=updated,
        flags=flags,
        python=_text(python),
        startup=startup,
        startup_shared=startup_shared,
    )
    return region, sections


class _GroupReader:
    """Reads the records of groups that exist, each as its process had it at some moment."""

    def __init__(self, groups: Section) -> None:
        """Read all of them, twice."""
        self.chunks: list[tuple[int, int, bytes]] = []  # first record, how many, their bytes
        self.torn: list[int] = []
        self.names: dict[int, bytes] = {}
        self.uids: dict[int, int] = {}  # read last
        self._groups = groups
        self._pauses = _MOST_PAUSES
        self._repairs = _MOST_REPAIRS
        for first, count in groups.chunks():
            once = groups.read(first, count)
            data = groups.read(first, count)
            self.torn.extend(first + index for index in _torn(once, data))
            self.chunks.append((first, count, data))

    def uids_again(self, wanted: Sequence[int]) -> dict[int, int]:
        """Return what the uids are now of those groups that have the same as before.

        `wanted` are their numbers, rising.
        """
        uids: dict[int, int] = {}
        for first, count, data in self.chunks:
            here = wanted[bisect_left(wanted, first) : bisect_left(wanted, first + count)]
            if not here:
                continue
            low, span = here[0], here[-1] - here[0] + 1
            if span > _ONE_OF * len(here):
                # few and far between: each alone
                now = [_uid_at(self._groups.read(gid), 0) for gid in here]
            else:
                again = self._groups.read(low, span)
                now = [_uid_at(again, gid - low) for gid in here]
            before = [_uid_at(data, gid - first) for gid in here]
            uids.update(
                (gid, uid) for gid, uid, was in zip(here, now, before, strict=True) if uid == was
            )
        return uids

    def read(self) -> Records:
        """Return all, by their numbers; those that were torn are read again."""
        records: Records = {}
        for first, count, data in self.chunks:
            numbers = range(first, first + count)
            states, lengths = (_layout.GROUP.column(data, name) for name in ("state", "name_len"))
            records.update(zip(numbers, _layout.GROUP.struct.iter_unpack(data), strict=True))
            ends = zip(range(_NAME, len(data), _SIZE), lengths, strict=True)
            self.names.update(zip(numbers, [data[at : at + n] for at, n in ends], strict=True))
            for gid, state, length in zip(numbers, states, lengths, strict=True):
                if state != _layout.STATE_ONLINE or length > MAX_NAME:
                    _check(gid, records[gid])
                    del records[gid]
        for gid in self.torn:
            self._read_again(gid, records)
        records.pop(0, None)
        for first, count, _ in self.chunks:
            uids = _layout.GROUP.column(self._groups.read(first, count), "uid")
            self.uids.update(zip(range(first, first + count), uids, strict=True))
        return records

    def repair(self, gid: int, records: Records) -> None:
        """Read one that makes no sense beside the others again; a parent after its child.

        Raises RegionError: too many of them.
        """
        while 0 < gid < self._groups.capacity:
            self._repairs -= 1
            if self._repairs < 0:
                msg = f"more than {_MOST_REPAIRS} groups are in no place of a tree"
                raise RegionError(msg)
            before = records.get(gid)
            self._read_again(gid, records)
            after = records.get(gid)
            if after is None or (before is not None and before[UID] == after[UID]):
                return
            # another group: so its parent has to be read after it, too
            gid = after[PARENT]

    def _read_again(self, gid: int, records: Records) -> None:
        records.pop(gid, None)
        data = self._settled(gid)
        if data is not None:
            record = _layout.GROUP.unpack(data)
            _check(gid, record)
            self.uids[gid] = record[UID]
            self.names[gid] = data[_NAME : _NAME + record[NAME_LEN]]
            if record[STATE] == _layout.STATE_ONLINE:
                records[gid] = record

    def _settled(self, gid: int) -> bytes | None:
        seqs = set()
        once = self._groups.read(gid)
        for _ in range(_RECORD_ATTEMPTS):
            data = self._groups.read(gid)
            if not _torn(once, data):
                return data
            seqs.add(once[_SEQ : _SEQ + 4])
            if once[_SEQ] & 1:
                # by far the most are done before we are back
                if self._pauses == 0:
                    break
                self._pauses -= 1
                time.sleep(_PAUSE)
            once = self._groups.read(gid)
        # One that is odd and stays so: its writer was killed in the middle of it, or is stopped.
        # State is the last that it writes, so what is online is whole.
        # One that still changes is of groups that live for microseconds: there is none to show.
        return once if len(seqs) == 1 and once[_SEQ] & 1 else None


def _check(gid: int, record: Record) -> None:
    if record[STATE] > _layout.STATE_OFFLINE or record[NAME_LEN] > MAX_NAME:
        msg = f"group record {gid} has state {record[STATE]} and a name of {record[NAME_LEN]} bytes"
        raise RegionError(msg)


def _uid_at(records: bytes, index: int) -> int:
    at = index * _SIZE + _UID
    return int.from_bytes(records[at : at + 8], "little")


def _torn(once: bytes, again: bytes) -> list[int]:
    """Return the indexes of records whose identity may be mixed of two moments, in `again`."""
    torn = []
    # all low bytes of `seq` at once: most often none of them is odd
    if int.from_bytes(again[_SEQ::_SIZE], "little") & _ODD:
        torn = [index for index, seq in enumerate(_layout.GROUP.column(again, "seq")) if seq & 1]
    if once != again:
        torn.extend(
            at // _SIZE
            for block in range(0, len(again), _BLOCK)
            # few change, and what is compared has to be copied
            if once[block : block + _BLOCK] != again[block : block + _BLOCK]
            for at in range(block, min(block + _BLOCK, len(again)), _SIZE)
            if once[at : at + _SIZE] != again[at : at + _SIZE]
            and any(
                once[at + start : at + end] != again[at + start : at + end]
                for start, end in _IDENTITY
            )
        )
    return torn


def _plain_paths(reader: _GroupReader) -> dict[int, str] | None:
    """Return the path of each group where nothing has to be repaired; else None."""
    columns = Columns()
    if reader.torn or not all(map(columns.add, reader.chunks)):
        return None
    uids = reader.uids_again(parents_of(columns))
    return paths_of(columns, uids, _most_text(columns.gids))


def _most_text(groups: Sized) -> int:
    return _MOST_PATH_TEXT + _MOST_PATH_TEXT_EACH * len(groups)


def _repaired_paths(reader: _GroupReader, records: Records) -> dict[int, str]:
    """Return the path of each group, parents first.

    Groups are made and removed while we read. One whose parent is not there, or younger than it, is
    read again, and the parent too; and so is the older of two with one path, which had to go before
    the other could come. Raises _Inconsistent when that does not help.
    """
    for attempt in range(_ATTEMPTS):
        paths, lost = _paths(records, reader)
        twins = _older_twins(paths, records)
        if not (lost or twins) or attempt == _ATTEMPTS - 1:
            break
        for gid in (*lost, *twins):
            parent = records[gid][PARENT] if gid in records else 0
            reader.repair(gid, records)
            # after it the parent that it has now; of one that has gone, the one that it had
            reader.repair(records[gid][PARENT] if gid in records else parent, records)
    root = records.get(1)
    if root is None or root[PARENT] != 0:
        msg = "it has no root group"
        raise _Inconsistent(msg)
    if lost:
        # the eldest of those that are lost together: its parent is the one that is wrong
        gid, parent = lost[0], records[lost[0]][PARENT]
        what = "is no older: it would be its own parent" if parent in records else "is not in use"
        msg = f"the parent of group record {gid} is {parent}, which {what}"
        raise _Inconsistent(msg)
    if twins:
        msg = f"group record {twins[0]} has the path of another, {paths[twins[0]]!r}"
        raise _Inconsistent(msg)
    return paths


def _older_twins(paths: dict[int, str], records: Records) -> list[int]:
    if len(set(paths.values())) == len(paths):
        return []
    youngest: dict[str, int] = {}
    for gid, path in paths.items():
        other = youngest.get(path)
        if other is None or records[gid][UID] > records[other][UID]:
            youngest[path] = gid
    return [gid for gid, path in paths.items() if youngest[path] != gid]


def _paths(records: Records, reader: _GroupReader) -> tuple[dict[int, str], list[int]]:
    """Return the paths of groups, parents first, and those groups for which there is none."""
    paths, lost = _paths_in_order(records, reader)
    if lost:
        # a record that was used again has a lower number than its parent's may be
        by_age = sorted(records, key=lambda gid: records[gid][UID])
        paths, lost = _paths_in_order({gid: records[gid] for gid in by_age}, reader)
    return paths, lost


def _paths_in_order(records: Records, reader: _GroupReader) -> tuple[dict[int, str], list[int]]:
    names, uids = reader.names, reader.uids
    # root's is "" here, for the paths of its children
    paths = {1: ""} if 1 in records else {}
    lost: list[int] = []
    text = 0
    most_text = _most_text(records)
    for gid, record in records.items():
        parent = record[PARENT]
        if gid == 1:
            continue
        if parent not in paths or not records[parent][UID] == uids[parent] < record[UID]:
            lost.append(gid)
            continue
        name = names[gid]
        if not name or 0 in name or _SLASH in name:
            msg = f"group record {gid} has the name {name.decode(errors='replace')!r}"
            raise _Inconsistent(msg)
        path = f"{paths[parent]}/{name.decode(errors='replace')}"
        size = len(path)
        text += size
        # a path of so many parts has as many slashes and at least as many letters
        if text > most_text or (size > 2 * MAX_DEPTH and path.count("/") > MAX_DEPTH):
            msg = f"group record {gid} is deeper than {MAX_DEPTH} groups, or paths are endless"
            raise _Inconsistent(msg)
        paths[gid] = path
    if 1 in paths:
        paths[1] = "/"
    return paths, lost


def _tasks(tasks: Section, paths: dict[int, str]) -> Iterator[TaskInfo]:
    for first, count in tasks.chunks():
        data = tasks.read(first, count)
        for index, record in enumerate(_layout.TASK.struct.iter_unpack(data), first):
            gid, state, task_id, name_len, name = record
            if index == 0 or state == _layout.TASK_FREE:
                continue
            if state != _layout.TASK_LIVE or name_len >= len(name):
                msg = f"task record {index} has state {state} and a name of {name_len} bytes"
                raise RegionError(msg)
            # one that is on its way out of a removed group is in the next reading
            if gid in paths:
                text = name[:name_len].decode(errors="replace") or f"task-{task_id}"
                yield TaskInfo(task_id, text, paths[gid], index, gid)


def _stocks(cpus: Section, objcgs: Section) -> dict[int, list[int]]:
    """Return what threads have in stock, by group: bytes, blocks, stat."""
    by_objcg: dict[int, list[int]] = {}
    for first, count in cpus.chunks():
        for index in range(first, first + count):
            data = cpus.read(index)
            if data[:4] == b"\0\0\0\0":
                continue
            for key, *amounts in _layout.STOCK.struct.iter_unpack(data[_layout.STOCKS_OFFSET :]):
                if key >> 1:
                    _add(by_objcg.setdefault(key >> 1, [0] * 7), amounts)
    by_group: dict[int, list[int]] = {}
    for objcg, amounts in by_objcg.items():
        if objcg >= objcgs.capacity:
            msg = f"a stock is of objcg {objcg}, but there is room for {objcgs.capacity} only"
            raise RegionError(msg)
        _, gid = _layout.OBJCG.unpack(objcgs.read(objcg))
        _add(by_group.setdefault(gid, [0] * 7), amounts)
    return by_group


def _take_off_stocks(
    stocks: dict[int, list[int]],
    record_of: Callable[[int], Record],
    corrected: Records,
    paths: Mapping[int, str],
) -> None:
    """Correct the groups, and all above them, by what is in stock: it is charged, but not used."""
    affected: Records = {}
    for gid in stocks:
        while gid in paths and gid not in affected:
            affected[gid] = record_of(gid)
            gid = affected[gid][PARENT]  # noqa: PLW2901  # up to root
    # Children before their parents, which are older: each passes on what it and all below it have.
    for gid in sorted(affected, key=lambda gid: affected[gid][UID], reverse=True):
        record = list(affected[gid])
        stock = stocks[gid]
        if record[PARENT]:
            _add(stocks.setdefault(record[PARENT], [0] * 7), stock)
        # in a process at work the stocks are read a moment after the counters
        record[USAGE] = max(0, record[USAGE] - stock[0])
        record[BLOCKS] += stock[1]
        objects, *others = _layout.GROUP_STAT.unpack(record[STAT])
        record[STAT] = (objects, *map(operator.add, others, stock[2:]))
        corrected[gid] = tuple(record)


def _add(total: list[int], amounts: Iterable[int]) -> None:
    for i, amount in enumerate(amounts):
        total[i] += amount


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")
