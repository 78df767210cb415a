"""What a recording shows: usage over time, the tree at some moments, the worst groups.

A long recording has more samples than a page can show. It is cut into `BUCKETS` of the same length,
and of each those samples are shown in which the sum of all, what is resident, or any group that has
a curve is at its highest, and the one in which the sum is at its lowest. So all that is shown was
measured at one moment, and no peak of any curve is lost.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import compress, pairwise
from typing import TYPE_CHECKING, NamedTuple

from objcg.views import pictures

from .frames import COLUMNS, CURRENT, PEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .reader import Event, Group, Moment, Recording, Time

BUCKETS = 240
ALL_SHOWN = 1000
"""A recording with so few samples is shown whole."""

MOST_HAPPENINGS = 500
MARKS = 60
"""Places along the axis at which there may be a mark."""
_NAMED = 5
_MAX = COLUMNS.index("max")
_JUMP = 10**9


class Happening(NamedTuple):
    """What happened in a group itself, not below it, before the sample at `time`."""

    time: float
    path: str
    events: dict[str, int]


class History(NamedTuple):
    """All that a page shows of a recording. Times are seconds since the epoch."""

    usage: pictures.Usage
    shown: int
    """Of how many samples `usage` is."""
    tree: pictures.Forest
    tree_times: list[float]
    summaries: list[pictures.Summary]
    happenings: list[Happening]
    """The latest `MOST_HAPPENINGS`, in order."""
    happened: int
    """How many there are."""
    jumps: list[tuple[float, float]]
    """When the system's clock was set, and by how many seconds."""


def read(recording: Recording) -> History:
    """Read all of a recording that has samples. Raises RecordingError."""
    times = recording.times()
    survey = _Survey(recording.groups)
    for moment in recording.moments():
        survey.add(moment)
    survey.end()
    shown = survey.largest(pictures.MOST_CURVES)
    thinning = _Thinning(recording, shown, times)
    for moment in recording.moments():
        thinning.add(moment)
    thinning.end()
    # the clock that nobody sets; the other one says only when it began
    began = times[0].at - times[0].clock

    def seconds(clock: int) -> float:
        return (began + clock) / 1e9

    events = _own_events(recording)
    clocks = {time.id: time.clock for time in times}
    happened: dict[tuple[int, int], dict[str, int]] = {}
    for sample, group, event, count in events:
        happened.setdefault((sample, group), {})[event] = count
    happenings = [
        Happening(seconds(clocks[sample]), recording.groups[group].path, counts)
        for (sample, group), counts in list(happened.items())[-MOST_HAPPENINGS:]
    ]
    how_many = len({group.path for group in recording.groups.values()} - set(shown))
    return History(
        usage=_usage(thinning.instants, shown, how_many, seconds, _met(recording, events)),
        shown=len(thinning.instants),
        tree=pictures.forest([tree.nodes for tree in thinning.trees], pictures.colours(shown)),
        tree_times=[seconds(tree.clock) for tree in thinning.trees],
        summaries=survey.summaries(events),
        happenings=happenings,
        happened=len(happened),
        jumps=_jumps(times),
    )


class _Own:
    """What is charged to each group of a moment itself: its usage less its children's."""

    def __init__(self, groups: Mapping[int, Group]) -> None:
        self._groups = groups
        self._ids: list[int] | None = None
        self._inner: list[tuple[int, list[int]]] = []

    def __call__(self, moment: Moment) -> list[int]:
        if moment.ids is not self._ids:
            self._ids = moment.ids
            place = {number: i for i, number in enumerate(moment.ids)}
            children: dict[int, list[int]] = {}
            for i, number in enumerate(moment.ids):
                parent = self._groups[number].parent
                if parent in place:
                    children.setdefault(place[parent], []).append(i)
            self._inner = list(children.items())
        current = moment.columns[CURRENT]
        own = list(current)
        for i, below in self._inner:
            # a child that was read a moment later may have more
            own[i] = max(0, current[i] - sum(map(current.__getitem__, below)))
        return own


class _Life:
    """What is known of a group: sizes in bytes, clocks in ns."""

    __slots__ = ("clock", "current", "first", "first_clock", "gone", "limit", "peak", "share")

    def __init__(self, clock: int, current: int) -> None:
        self.first_clock = self.clock = clock
        self.first = self.current = current
        self.peak = 0
        self.limit: int | None = None
        self.share: float | None = None
        self.gone = False


class _Survey:
    """The first reading: how large each group was, and which are the largest.

    Lists have a number for each group of the moment that was added last.
    """

    def __init__(self, groups: Mapping[int, Group]) -> None:
        self._groups = groups
        self._own = _Own(groups)
        self._lives: dict[int, _Life] = {}
        self._path_peaks: dict[str, int] = {}
        self._ids: list[int] = []
        self._current: list[int] = []
        self._clock = 0
        self._peaks: list[int] = []
        self._own_peaks: list[int] = []
        self._peak_column: list[int] = []
        self._limits: list[int] = []
        # the highest usage under these limits
        self._highest: list[int] = []

    def add(self, moment: Moment) -> None:
        current, limits = moment.columns[CURRENT], moment.columns[_MAX]
        if limits is not self._limits:
            self._end_limits()
        if moment.born or moment.died:
            self._change_groups(moment, current)
        own = self._own(moment)
        self._own_peaks = list(map(max, self._own_peaks, own))
        if moment.columns[PEAK] is not self._peak_column:
            self._peak_column = moment.columns[PEAK]
            self._peaks = list(map(max, self._peaks, self._peak_column))
        if limits is not self._limits:
            self._limits, self._highest = limits, current
        elif current is not self._current:
            self._highest = list(map(max, self._highest, current))
        self._ids, self._current, self._clock = moment.ids, current, moment.clock

    def _change_groups(self, moment: Moment, current: list[int]) -> None:
        for place in moment.died:
            self._end_group(place, gone=True)
        gone = set(moment.died)
        kept = [place not in gone for place in range(len(self._ids))]
        new = [0] * moment.born
        self._peaks = [*compress(self._peaks, kept), *new]
        self._own_peaks = [*compress(self._own_peaks, kept), *new]
        self._peak_column = []
        first = len(moment.ids) - moment.born
        for number, usage in zip(moment.ids[first:], current[first:], strict=True):
            self._lives[number] = _Life(moment.clock, usage)

    def _end_limits(self) -> None:
        for place, limit in enumerate(self._limits):
            if limit > 0:
                life = self._lives[self._ids[place]]
                life.limit = limit
                life.share = max(life.share or 0.0, self._highest[place] / limit)

    def _end_group(self, place: int, *, gone: bool) -> None:
        number = self._ids[place]
        life = self._lives[number]
        life.current, life.clock, life.gone = self._current[place], self._clock, gone
        life.peak = self._peaks[place]
        path = self._groups[number].path
        self._path_peaks[path] = max(self._path_peaks.get(path, 0), self._own_peaks[place])

    def end(self) -> None:
        self._end_limits()
        for place in range(len(self._ids)):
            self._end_group(place, gone=False)

    def largest(self, most: int) -> list[str]:
        """Return the paths with the highest peaks, the highest first, of what is charged there."""
        peaks = self._path_peaks
        ranked = sorted(peaks, key=lambda path: (-peaks[path], path))
        return [path for path in ranked[:most] if peaks[path]]

    def summaries(self, events: Sequence[Event]) -> list[pictures.Summary]:
        counts: dict[int, dict[str, int]] = {}
        for _, group, event, count in events:
            counted = counts.setdefault(group, {})
            counted[event] = counted.get(event, 0) + count
        return [
            pictures.Summary(
                path=self._groups[number].path,
                current=life.current,
                peak=life.peak,
                limit=life.limit,
                share=life.share,
                events=counts.get(number, {}),
                growth=life.current - life.first,
                seconds=(life.clock - life.first_clock) / 1e9,
                gone=life.gone,
            )
            for number, life in self._lives.items()
        ]


class _Instant(NamedTuple):
    """A sample that is shown: what the groups with curves have, all others, and the process."""

    sample: int
    session: int
    clock: int
    curves: list[int]
    others: int
    resident: int | None


class _Tree(NamedTuple):
    sample: int
    clock: int
    nodes: list[pictures.Node]


class _Thinning:
    """The second reading: which samples are shown."""

    def __init__(self, recording: Recording, shown: list[str], times: Sequence[Time]) -> None:
        self._groups = recording.groups
        self._startup = recording.process.startup
        self._own = _Own(recording.groups)
        self._place = {path: i for i, path in enumerate(shown)}
        self._first, self._last = times[0], times[-1]
        self._all = len(times) <= ALL_SHOWN
        self._bucket = -1
        self._ids: list[int] = []
        self._curve_places: list[list[int]] = []
        # of this bucket, the instants with the most or, in the first place, the least
        self._extremes: list[tuple[int, _Instant]] = []
        self._highest: tuple[int, Moment] | None = None
        self.instants: list[_Instant] = []
        self.trees: list[_Tree] = []

    def add(self, moment: Moment) -> None:
        span = self._last.clock - self._first.clock + 1
        bucket = (moment.clock - self._first.clock) * BUCKETS // span
        if bucket != self._bucket:
            self._end_bucket()
            self._bucket = bucket
        instant = self._instant(moment)
        total = sum(instant.curves) + instant.others
        if moment.id in (self._first.id, self._last.id) or self._all:
            self.instants.append(instant)
        if moment.id in (self._first.id, self._last.id):
            self._add_tree(moment)
        if self._highest is None or total > self._highest[0]:
            self._highest = total, moment
        if self._all:
            return
        values = [-total, total, instant.resident or 0, instant.others, *instant.curves]
        if not self._extremes:
            self._extremes = [(value, instant) for value in values]
            return
        for i, value in enumerate(values):
            if value > self._extremes[i][0]:
                self._extremes[i] = value, instant

    def _instant(self, moment: Moment) -> _Instant:
        if moment.ids is not self._ids:
            self._ids = moment.ids
            self._curve_places = [[] for _ in self._place]
            for i, number in enumerate(moment.ids):
                place = self._place.get(self._groups[number].path)
                if place is not None:
                    self._curve_places[place].append(i)
        own = self._own(moment)
        curves = [sum(map(own.__getitem__, places)) for places in self._curve_places]
        resident = None if moment.rss is None else max(0, moment.rss - self._startup)
        others = sum(own) - sum(curves)
        return _Instant(moment.id, moment.session, moment.clock, curves, others, resident)

    def _end_bucket(self) -> None:
        self.instants.extend(instant for _, instant in self._extremes)
        if self._highest is not None:
            self._add_tree(self._highest[1])
        self._extremes, self._highest = [], None

    def _add_tree(self, moment: Moment) -> None:
        nodes = [
            pictures.Node(self._groups[number].path, current)
            for number, current in zip(moment.ids, moment.columns[CURRENT], strict=True)
        ]
        self.trees.append(_Tree(moment.id, moment.clock, nodes))

    def end(self) -> None:
        """See that all instants and trees are there, each once, in order."""
        self._end_bucket()
        instants = {instant.sample: instant for instant in self.instants}
        self.instants = [instants[sample] for sample in sorted(instants)]
        trees = {tree.sample: tree for tree in self.trees}
        self.trees = [trees[sample] for sample in sorted(trees)]


def _usage(
    instants: Sequence[_Instant],
    shown: Sequence[str],
    how_many: int,
    seconds: Callable[[int], float],
    met: Sequence[tuple[int, str]],
) -> pictures.Usage:
    """Return the usage at these instants, with holes where nothing was recorded."""
    times: list[float] = []
    rows: list[_Instant | None] = []
    for i, instant in enumerate(instants):
        if i and instant.session != instants[i - 1].session:
            times += (seconds(instants[i - 1].clock) + 1e-3, seconds(instant.clock) - 1e-3)
            rows += (None, None)
        times.append(seconds(instant.clock))
        rows.append(instant)
    # what happened is marked at the sample that is shown next, and near ones together
    samples = [row.sample for row in instants]
    place = {row.sample: i for i, row in enumerate(rows) if row is not None}
    span = times[-1] - times[0] or 1.0
    marks: dict[int, tuple[int, dict[str, None]]] = {}
    for sample, path in met:
        after = place[samples[min(bisect_left(samples, sample), len(samples) - 1)]]
        near = int((times[after] - times[0]) * MARKS / span)
        marks.setdefault(near, (after, {}))[1][path] = None
    return pictures.Usage(
        times=times,
        curves={
            path: [None if row is None else row.curves[i] for row in rows]
            for i, path in enumerate(shown)
        },
        others=[None if row is None else row.others for row in rows] if how_many else None,
        how_many=how_many,
        resident=[None if row is None else row.resident for row in rows],
        marks=[(i, _some(paths)) for i, paths in marks.values()],
    )


def _some(paths: Collection[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(list(paths)[:_NAMED]) + more


def _own_events(recording: Recording) -> list[Event]:
    """Return what happened in groups themselves: counts of a group have those below it."""
    events = recording.events()
    below: dict[tuple[int, int, str], int] = {}
    for sample, group, event, count in events:
        parent = recording.groups[group].parent
        if parent is not None:
            key = (sample, parent, event)
            below[key] = below.get(key, 0) + count
    own = [
        event._replace(times=event.times - below.get((event.sample, event.group, event.event), 0))
        for event in events
    ]
    return [event for event in own if event.times > 0]


def _met(recording: Recording, events: Sequence[Event]) -> list[tuple[int, str]]:
    """Return the samples before which a limit was met, and by whom."""
    return [
        (event.sample, recording.groups[event.group].path)
        for event in events
        if event.event in pictures.EVENTS_SHOWN
    ]


def _jumps(times: Sequence[Time]) -> list[tuple[float, float]]:
    jumps = []
    for before, after in pairwise(times):
        by = (after.at - after.clock) - (before.at - before.clock)
        if abs(by) > _JUMP:
            jumps.append((after.at / 1e9, by / 1e9))
    return jumps
