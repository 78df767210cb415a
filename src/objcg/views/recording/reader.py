"""Reading a recording, also one that is still being written.

A `Recording` is what was in the file when it was opened, however much is written meanwhile. Nothing
in the file is trusted: a frame that does not fit its groups is a RecordingError.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sqlite3
import urllib.parse
from collections import deque
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from . import frames, schema
from .frames import COLUMNS, CURRENT, PEAK, STAT
from .schema import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

_NEVER = 2**63 - 1


class Process(NamedTuple):
    """The process that was recorded; as in a `Region`, times in ns."""

    pid: int
    start_time: int
    boot_id: str
    user: int
    created: int
    startup: int
    startup_shared: int
    python: str
    command: str


class Session(NamedTuple):
    """One run of the recorder; `ended` and `ending` are None if it was killed, or goes on."""

    id: int
    began: int
    interval: int
    objcg: str
    ended: int | None
    ending: str | None


class Group(NamedTuple):
    """A group and its life; `first` and `last` are samples, `last` None if it was there to the end.

    `parent` is None of root, and of a group that was read while its parent was being removed.
    """

    id: int
    uid: int
    parent: int | None
    path: str
    first: int
    last: int | None


class Event(NamedTuple):
    """What happened in a group, or below it, since the sample before."""

    sample: int
    group: int
    event: str
    times: int


class Time(NamedTuple):
    """When a sample was taken, in ns: `at` since the epoch, `clock` since boot."""

    id: int
    session: int
    at: int
    clock: int


class Moment(NamedTuple):
    """A sample. Times are in ns: `at` since the epoch, `clock` since boot.

    `columns` has a list for each of COLUMNS, with a number for each of `ids`; those of "stat" are
    empty but in key frames. A list is never changed: where nothing changed it is the one of before.
    """

    id: int
    session: int
    at: int
    clock: int
    rss: int | None
    rss_shared: int | None
    key: bool
    ids: list[int]
    columns: list[list[int]]
    born: int
    """How many groups are new: the last of `ids`."""
    died: list[int]
    """Where in the `ids` of the moment before the groups were that are gone; rising."""


class Recording:
    """A recording, as it is when it is opened. Close it, or use it in a ``with``."""

    def __init__(self, path: str, *, db: sqlite3.Connection | None = None) -> None:
        """Open the file at `path`; `db` is a connection to it, for who has one.

        Raises:
            RecordingError: it is no recording, or cannot be read.
        """
        self.path = path
        self._db = db if db is not None else _connect(path)
        try:
            with self._told():
                if db is None:
                    # all that is read later is of this moment
                    self._db.execute("BEGIN")
                self._read_tables()
        except BaseException:
            if db is None:
                self._db.close()
            raise

    def _read_tables(self) -> None:
        process = self._db.execute("SELECT * FROM process").fetchone()
        if process is None:
            raise self._damaged("it does not say which process it is of")
        self.process = Process(*process)
        sessions = self._db.execute("SELECT * FROM sessions ORDER BY id")
        self.sessions = [Session(*row) for row in sessions]
        counted = self._db.execute("SELECT count(*), ifnull(max(id), 0) FROM samples").fetchone()
        self.samples: int = counted[0]
        self.last_sample: int = counted[1]
        self.groups: dict[int, Group] = {}
        for number, uid, parent, name, first, last in self._db.execute(
            "SELECT id, uid, parent, name, first, last FROM groups ORDER BY id"
        ):
            above = "" if parent is None else self._path(number, parent)
            path = f"{above.rstrip('/')}/{name}"
            self.groups[number] = Group(number, uid, parent, path, first, last)

    def _path(self, number: int, parent: int) -> str:
        if parent not in self.groups:
            raise self._damaged(f"group {number} comes before its parent {parent}")
        return self.groups[parent].path

    def _damaged(self, what: str) -> RecordingError:
        return RecordingError(f"{self.path}: it is damaged: {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Make a RecordingError of what SQLite says."""
        try:
            yield
        except sqlite3.Error as error:
            raise RecordingError(f"{self.path}: {error}") from error

    def events(self) -> list[Event]:
        """Return what happened, in the order of samples and groups. Raises RecordingError."""
        with self._told():
            rows = self._db.execute('SELECT * FROM events ORDER BY sample, "group"').fetchall()
        return [Event(*row) for row in rows if row[1] in self.groups]

    def times(self) -> list[Time]:
        """Return when each sample was taken. Raises RecordingError."""
        with self._told():
            rows = self._db.execute("SELECT id, session, at, clock FROM samples ORDER BY id")
            return [Time(*row) for row in rows]

    def moments(self) -> Iterator[Moment]:
        """Yield all samples, in order. Raises RecordingError."""
        return self._moments(0, _NEVER)

    def moment(self, sample: int) -> Moment:
        """Return one sample, from the key frame before it on. Raises RecordingError, KeyError."""
        with self._told():
            row = self._db.execute("SELECT key FROM samples WHERE id = ?", (sample,)).fetchone()
        if row is None:
            raise KeyError(sample)
        (last,) = deque(self._moments(row[0], sample), 1) or (None,)
        if last is None or last.id != sample:
            raise self._damaged(f"sample {sample} follows on {row[0]}")
        return last

    def _moments(self, first: int, last: int) -> Iterator[Moment]:
        births = sorted(self.groups.values(), key=operator.attrgetter("first", "id"))
        next_birth = 0
        ids: list[int] = []
        columns: list[list[int]] = [[] for _ in COLUMNS]
        # the last sample of each of `ids`
        ends: list[int] = []
        earliest_end = _NEVER
        with self._told():
            rows = self._db.execute(
                "SELECT id, session, at, clock, rss, rss_shared, key, frame FROM samples"
                " WHERE id BETWEEN ? AND ? ORDER BY id",
                (first, last),
            )
            for number, session, at, clock, rss, shared, key, frame in rows:
                died: list[int] = []
                born: list[Group] = []
                while next_birth < len(births) and births[next_birth].first <= number:
                    if _end(births[next_birth]) >= number:
                        born.append(births[next_birth])
                    next_birth += 1
                if born or earliest_end < number:
                    died = [place for place, end in enumerate(ends) if end < number]
                    kept = [end >= number for end in ends]
                    new = [0] * len(born)
                    columns = [[*compress(column, kept), *new] for column in columns]
                    ids = [*compress(ids, kept), *(group.id for group in born)]
                    ends = [*compress(ends, kept), *map(_end, born)]
                    earliest_end = min(ends, default=_NEVER)
                whole = number == key
                columns = self._applied(number, frame, columns, len(ids), whole=whole)
                times = (number, session, at, clock)
                yield Moment(*times, rss, shared, whole, ids, columns, len(born), died)

    def _applied(
        self, number: int, frame: bytes, before: list[list[int]], groups: int, *, whole: bool
    ) -> list[list[int]]:
        try:
            changes = frames.decode(frame, groups)
        except (frames.FrameError, TypeError) as error:
            raise self._damaged(f"the frame of sample {number}: {error}") from error
        if whole:
            before = [[0] * groups for _ in COLUMNS]
        after = list(before)
        for i, change in changes.items():
            after[i] = list(map(operator.add, before[i], change))
        if not whole:
            after[STAT:] = [[] for _ in COLUMNS[STAT:]]
        # two are not told against what was before, but against the others
        peak_change = changes.get(PEAK)
        if peak_change or after[CURRENT] is not before[CURRENT]:
            peaks = frames.expected_peak(before[PEAK], after[CURRENT])
            after[PEAK] = peaks
            if peak_change:
                after[PEAK] = list(map(operator.add, peaks, peak_change))
        if whole:
            objects = frames.expected_object(dict(enumerate(after)))
            after[STAT] = list(map(operator.add, objects, after[STAT]))
        return after


def _end(group: Group) -> int:
    return _NEVER if group.last is None else group.last


def _connect(path: str) -> sqlite3.Connection:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    try:
        if not schema.is_recording(path, fd):
            raise RecordingError(f"{path}: it is empty: nothing was recorded yet")
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)
    quoted = urllib.parse.quote(os.fsencode(os.path.abspath(path)))
    try:
        return sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise RecordingError(f"{path}: {error}") from error
