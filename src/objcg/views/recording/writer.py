"""Writing a recording, so that whatever interrupts it, what was written before can be read.

Guarantees: a sample is in the file with all that belongs to it, or not at all, and what `commit()`
has written is there when this process is killed at any moment. `add()` commits by itself once a
second. A second writer of the same file is refused.

That is SQLite's doing, with a write-ahead log (docs/recording.md says why). The file is created
with a rollback journal, so that from its first moment on it is an empty file or a recording.
"""

from __future__ import annotations

import contextlib
import fcntl
import operator
import os
import sqlite3
import time
from itertools import chain, compress
from typing import TYPE_CHECKING, Any, NamedTuple

from objcg import region

from . import frames, schema
from .frames import COLUMNS, CURRENT, EVENTS, MOST, PEAK, STAT, UNSET
from .reader import Recording
from .schema import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from objcg.region import GroupInfo, Region
    from objcg.views.watch import Sample

KEY_SECONDS = 60
KEY_SAMPLES = 600
"""A sample is a key frame if the last one is that old: to show one moment reads at most that."""

_COMMIT_SECONDS = 1.0
_BUSY_SECONDS = 5.0
_LARGEST = 2**63 - 1
_PAGE = 16384

# The fields of a group that are one column each, in the order of COLUMNS.
_SINGLE = COLUMNS[:EVENTS]
_LIMITS = ("max", "high", "low")


# The columns of a sample by the name of the field.
Fields = dict[str, tuple[Any, ...]]
# Of a process: rss, and what of it is shared; None of one that is dead.
Resident = tuple["int | None", "int | None"]


class Totals(NamedTuple):
    """What a session has written, and how large the file is."""

    samples: int
    groups: int
    size: int


def clock() -> int:
    """Return nanoseconds since boot, suspended or not: nobody can set this clock."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def columns(groups: Sequence[GroupInfo]) -> Fields:
    """Return what is written of each sample of these groups: one tuple for each field."""
    names = ("uid", "path", *_SINGLE)
    fields = {name: tuple(map(operator.attrgetter(name), groups)) for name in names}
    fields["events"] = tuple([tuple(group.events.values()) for group in groups])
    return fields


def stats(groups: Sequence[GroupInfo]) -> list[tuple[int, ...]]:
    """Return what is written of these groups in key frames only."""
    return [tuple(group.stat.values()) for group in groups]


class Writer:
    """A recording that is written to; one session of it. Close it, or use it in a ``with``."""

    def __init__(self, path: str, process: Region, interval: float, version: str) -> None:
        """Create the file at `path`, or continue it.

        `process` is the first sample's region, `interval` seconds, `version` that of objcg.

        Raises:
            RecordingError: the file is something else, of another process, or being written.
        """
        self.path = path
        self._lock = _locked(path)
        try:
            self._db = _connect(path)
            try:
                with _told(path):
                    _prepare(self._db, path, process)
                    self._begin_session(interval, version)
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _begin_columns(self) -> None:
        self._uids: tuple[int, ...] = ()
        self._raw: Fields = {}
        self._ids: list[int] = []
        self._numbers: dict[int, int] = {}
        self._last: list[list[int]] = [[] for _ in COLUMNS[:STAT]]
        self._permuted: Callable[[Sequence[Any]], Sequence[Any]] = tuple
        self._key_id: int | None = None
        self._key_clock = 0

    def _begin_session(self, interval: float, version: str) -> None:
        # by this connection: see _locked()
        before = Recording(self.path, db=self._db)
        self._groups = max(before.groups, default=0)
        self._sample = before.last_sample
        self._first = self._sample == 0
        self._begin_columns()
        if not self._first:
            # what happened since then is told, too
            moment = before.moment(self._sample)
            self._ids, self._last = moment.ids, moment.columns[:STAT]
            self._numbers = {before.groups[number].uid: number for number in self._ids}
        self._db.execute("BEGIN IMMEDIATE")
        cursor = self._db.execute(
            "INSERT INTO sessions (began, interval, objcg) VALUES (?, ?, ?)",
            (time.time_ns(), round(interval * 1e9), version),
        )
        self._session = cursor.lastrowid
        self._db.execute("COMMIT")
        self._committed = time.monotonic()
        self._samples_before, self._groups_before = self._sample, self._groups

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def totals(self) -> Totals:
        """What this session has written so far."""
        size = 0
        for name in (self.path, f"{self.path}-wal"):
            try:
                size += os.stat(name).st_size
            except OSError:  # noqa: PERF203  # of two
                pass
        return Totals(self._sample - self._samples_before, self._groups - self._groups_before, size)

    def add(self, sample: Sample, at_clock: int) -> None:
        """Write a sample that was taken at `at_clock`; see `clock()`.

        Raises:
            RecordingError: the file cannot be written: no room is left, most likely.
            RegionError: the groups make no sense.
        """
        found = sample.region
        self.add_groups(
            found.groups, (found.rss, found.rss_shared), round(sample.at * 1e9), at_clock
        )

    def add_groups(
        self, groups: Sequence[GroupInfo], rss: Resident, at: int, at_clock: int
    ) -> None:
        """Write a sample: the groups of a process, its resident set, and when it was taken (ns)."""
        self.add_columns(columns(groups), lambda: stats(groups), rss, at, at_clock)

    def add_columns(
        self,
        fields: Fields,
        stats: Callable[[], Sequence[tuple[int, ...]]],
        rss: Resident,
        at: int,
        at_clock: int,
    ) -> None:
        """Write a sample of which the `columns()` are `fields`; `stats` are asked for if needed."""
        if fields["uid"] != self._uids:
            _check_unique(fields["uid"])
        with _told(self.path):
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            self._sample += 1
            if fields["uid"] != self._uids:
                self._change_groups(fields["uid"], fields["path"])
            new_key = (
                self._key_id is None
                or at_clock - self._key_clock >= KEY_SECONDS * 10**9
                or self._sample - self._key_id >= KEY_SAMPLES
            )
            frame = self._frame(fields, stats() if new_key else None)
            if new_key:
                self._key_id, self._key_clock = self._sample, at_clock
            self._db.execute(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self._sample, self._session, at, at_clock, *rss, self._key_id, frame),
            )
            self._first = False
            if time.monotonic() - self._committed >= _COMMIT_SECONDS:
                self.commit()

    def commit(self) -> None:
        """Have all samples in the file. Raises RecordingError."""
        with _told(self.path):
            if self._db.in_transaction:
                self._db.execute("COMMIT")
            self._committed = time.monotonic()

    def end(self, ending: str) -> None:
        """Write how the session ended, and make the recording one file. Raises RecordingError."""
        with _told(self.path):
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE sessions SET ended = ?, ending = ? WHERE id = ?",
                (time.time_ns(), ending, self._session),
            )
        self.commit()
        try:
            self._db.execute("PRAGMA busy_timeout = 100")
            self._db.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:
            # somebody is reading: the log stays, and whoever reads last takes it away
            pass

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        self._db.close()
        os.close(self._lock)

    # ---- the groups -----------------------------------------------------------------------------

    def _change_groups(self, uids: tuple[int, ...], paths: tuple[str, ...]) -> None:
        """Have as `_ids` the groups of this sample, and let the last values be those of them."""
        now = dict(zip(uids, range(len(uids)), strict=True))
        gone = [uid for uid in self._numbers if uid not in now]
        self._db.executemany(
            "UPDATE groups SET last = ? WHERE id = ?",
            [(self._sample - 1, self._numbers.pop(uid)) for uid in gone],
        )
        self._insert_groups([i for uid, i in now.items() if uid not in self._numbers], uids, paths)
        numbers = [self._numbers[uid] for uid in uids]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        ids = [numbers[place] for place in order]
        living = set(ids)
        kept = [number in living for number in self._ids]
        # those have the largest numbers, and so are the last
        new = [0] * (len(ids) - sum(kept))
        self._last = [[*compress(column, kept), *new] for column in self._last]
        self._ids = ids
        self._uids = uids
        self._raw = {}
        self._permuted = operator.itemgetter(*order) if order != list(range(len(order))) else tuple

    def _insert_groups(self, new: list[int], uids: tuple[int, ...], paths: tuple[str, ...]) -> None:
        if not new:
            return
        by_path = dict(zip(paths, uids, strict=True))
        # parents first: root, then by depth
        new.sort(key=lambda place: (paths[place] != "/", paths[place].count("/")))
        rows = []
        for place in new:
            uid, path = uids[place], paths[place]
            above, _, name = path.rpartition("/")
            # in a sample that was taken while groups came and went a parent may be missing
            parent = None if path == "/" else self._numbers.get(by_path.get(above or "/", 0))
            self._groups += 1
            self._numbers[uid] = self._groups
            rows.append((self._groups, min(uid, _LARGEST), parent, name, self._sample))
        self._db.executemany("INSERT INTO groups VALUES (?, ?, ?, ?, ?, NULL)", rows)

    # ---- the counters ---------------------------------------------------------------------------

    def _frame(self, fields: Fields, stat_values: Sequence[tuple[int, ...]] | None) -> bytes:
        before = self._last
        changed = self._changed(fields)
        self._last = [changed.get(i, column) for i, column in enumerate(before)]
        events = [i for i in changed if EVENTS <= i < STAT]
        if events and not self._first:
            self._note_events(events, before)
        self._raw = fields
        if stat_values is not None:
            told = zip(*self._permuted(stat_values), strict=True)
            whole = dict(enumerate([*self._last, *map(list, told)]))
            for i in range(STAT, len(COLUMNS)):
                whole[i] = [_within(value) for value in whole[i]]
            zeros = [0] * len(self._ids)
            whole[PEAK] = _less(whole[PEAK], frames.expected_peak(zeros, whole[CURRENT]))
            whole[STAT] = _less(whole[STAT], frames.expected_object(whole))
            return frames.encode(whole)
        less = {i: _less(now, before[i]) for i, now in changed.items()}
        if CURRENT in changed or PEAK in changed:
            expected = frames.expected_peak(before[PEAK], self._last[CURRENT])
            less[PEAK] = _less(self._last[PEAK], expected)
        return frames.encode(less)

    def _changed(self, fields: Fields) -> dict[int, list[int]]:
        """Return the columns that may have changed, as they are now, but for the stat."""
        changed: dict[int, list[int]] = {}
        for i, name in enumerate(_SINGLE):
            if fields[name] != self._raw.get(name):
                values = self._permuted(fields[name])
                if name in _LIMITS:
                    values = [UNSET if value is None else value for value in values]
                changed[i] = list(values)
        if fields["events"] != self._raw.get("events"):
            counts = zip(*self._permuted(fields["events"]), strict=True)
            changed.update((i, list(column)) for i, column in enumerate(counts, EVENTS))
        for i, column in changed.items():
            # only a region that is damaged has such numbers
            if max(column) > MOST or min(column) < -MOST:
                changed[i] = [_within(value) for value in column]
        return changed

    def _note_events(self, columns: Iterable[int], before: list[list[int]]) -> None:
        """Write what happened since the sample before, or in a group since it was made."""
        names = {i: COLUMNS[i].removeprefix("events.") for i in columns}
        rows = chain.from_iterable(
            (
                (self._sample, number, name, now - then)
                for number, now, then in zip(self._ids, self._last[i], before[i], strict=True)
                if now > then
            )
            for i, name in names.items()
            if self._last[i] != before[i]
        )
        self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)


def _check_unique(uids: tuple[int, ...]) -> None:
    """Raise RegionError where two groups have one number: only a damaged region has such."""
    if len(set(uids)) < len(uids):
        twice = next(uid for place, uid in enumerate(uids) if uid in uids[:place])
        raise region.RegionError(f"it has two groups with the unique number {twice}")


def _less(values: Sequence[int], expected: Sequence[int]) -> list[int]:
    return list(map(operator.sub, values, expected))


def _within(value: int) -> int:
    return max(-MOST, min(value, MOST))


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Make a RecordingError of what SQLite says."""
    try:
        yield
    except sqlite3.Error as error:
        raise RecordingError(
            f"{path}: {error}; what was written up to a second before can be read"
        ) from error


def _locked(path: str) -> int:
    """Open the file, create it if need be, and be its only writer; return the descriptor.

    It stays open as long as SQLite uses the file: to close any descriptor of a file gives up all
    locks that fcntl(2) has on it in this process, and SQLite's are such.
    """
    try:
        # readable by its owner only, as the region is
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    try:
        schema.is_recording(path, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise RecordingError(f"{path}: another 'objcg record' is writing to it") from error
    except OSError as error:
        os.close(fd)
        raise RecordingError(f"{path}: it cannot be locked: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _connect(path: str) -> sqlite3.Connection:
    try:
        # absolute: a name such as ":memory:" means something else to SQLite
        return sqlite3.connect(os.path.abspath(path), timeout=_BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise RecordingError(f"{path}: {error}") from error


def _prepare(db: sqlite3.Connection, path: str, process: Region) -> None:
    """Make the tables, or see that they are of this process; write ahead from now on."""
    identity = (min(process.pid, _LARGEST), min(process.start_time, _LARGEST), process.boot_id)
    tables = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'process'").fetchone()
    if tables == (0,):
        # some samples of a thousand groups fit a page, of which the last row's rest is lost
        db.execute(f"PRAGMA page_size = {_PAGE}")
        db.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {schema.APPLICATION_ID};"
            f"PRAGMA user_version = {schema.VERSION}; {schema.TABLES}"
        )
        db.execute(
            "INSERT INTO process VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *identity,
                process.uid,
                min(process.created_ns, _LARGEST),
                min(process.startup, _LARGEST),
                min(process.startup_shared, _LARGEST),
                process.python,
                process.command,
            ),
        )
        db.execute("COMMIT")
    else:
        found = db.execute(
            "SELECT pid, start_time, boot_id, created, command FROM process"
        ).fetchone()
        created = min(process.created_ns, _LARGEST)
        if found is None or found[:4] != (*identity, created):
            pid, command = (found[0], found[4]) if found else ("?", "?")
            # what exec() began has the number and the start time of what called it
            other = "program" if found and found[:3] == identity else "process"
            raise RecordingError(
                f"{path}: it is a recording of another {other}, pid {pid} ({command}); "
                f"record process {process.pid} into a file of its own"
            )
    db.execute("PRAGMA journal_mode = WAL")
    # a commit is in the system's hands, and on the disk at the next checkpoint
    db.execute("PRAGMA synchronous = NORMAL")
