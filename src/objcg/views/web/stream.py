"""What the page shows, made of one sample after the other, as text in JSON.

Each text is all that is shown, and not what is new in it: who was away, or reads too slowly, misses
nothing that matters, and nothing has to be kept for them.

Bounds, however many groups there are: of a sample the `KEPT` largest are remembered, for `SAMPLES`
samples; a text has at most `MOST_ROWS` groups and the nodes and curves of `pictures`.

What is remembered has the time of a clock that nobody sets. What is shown is counted by it, back
from the latest sample: when the system's clock is set, all moves, and nothing is in another order.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from objcg._sizes import format_size
from objcg.cli.table import counts, printable
from objcg.views import pictures
from objcg.views.top.model import Level, level, limit, share
from objcg.views.watch import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from objcg.region import GroupInfo, Region
    from objcg.views.watch import Sample

SAMPLES = 300
"""Five minutes, at one a second."""
KEPT = 60
MOST_ROWS = 200
MOST_EPISODES = 50
MOST_NAMED = 12
"""Offenders above the pictures."""
RED_SECONDS = 10.0
"""How long a group is an offender after it has met a limit."""
_PAUSE = 5.0
"""Seconds without an event that end an episode."""


class _Point(NamedTuple):
    """A sample as it is remembered. Sizes are bytes."""

    clock: float
    total: int
    own: dict[str, int]
    """What is charged to the `KEPT` largest groups themselves."""
    resident: int | None
    """Beyond what was resident at start-up; None: not known."""


class _Episode:
    """A group that met limits again and again, without a pause; `first` and `last` are clocks."""

    __slots__ = ("events", "first", "last", "path")

    def __init__(self, path: str, clock: float) -> None:
        self.path = path
        self.first = self.last = clock
        self.events: dict[str, int] = {}


class Stream:
    """The process as it was in the last minutes."""

    def __init__(self) -> None:
        self._points: deque[_Point] = deque(maxlen=SAMPLES)
        # by uid: the id of a group is used again
        self._known: set[int] | None = None
        self._open: dict[int, _Episode] = {}
        # as they began
        self._episodes: deque[_Episode] = deque(maxlen=MOST_EPISODES)
        # a group keeps its colour for as long as it has a curve
        self._colours: dict[str, str] = {}

    def add(self, sample: Sample, problem: str | None = None) -> str:
        """Return the text of what is to be shown now; `problem`: why the sample is an old one."""
        found = sample.region
        # of a process that has ended the last sample may be what there was already
        if problem is None and not (self._points and sample.state in UNSEEN):
            own = _own(found.groups)
            self._note_events(sample)
            self._note(found, own, sample.clock)
        offenders = self._offenders(found.groups, sample.clock)
        # since the epoch, when the clock was 0
        epoch = sample.at - sample.clock
        shown = {
            "state": sample.state.value,
            "problem": problem,
            "at": round(sample.at * 1000),
            "pid": found.pid,
            "command": printable(found.command),
            "facts": _facts(found),
            "groups": len(found.groups),
            "offenders": _worst(found.groups, offenders),
            "more": max(0, len(offenders) - MOST_NAMED),
            "usage": self._usage(found.groups, offenders, epoch),
            "tree": self._tree(found.groups, offenders),
            "rows": self._rows(sample, offenders),
            "events": [
                {
                    "first": round((epoch + episode.first) * 1000),
                    "last": round((epoch + episode.last) * 1000),
                    "path": printable(episode.path),
                    "events": counts(episode.events),
                }
                for episode in sorted(self._episodes, key=_last, reverse=True)
            ],
        }
        return pictures.to_json(shown)

    # ---- what is remembered

    def _note(self, found: Region, own: dict[str, int], clock: float) -> None:
        largest = sorted(own.items(), key=itemgetter(1), reverse=True)[:KEPT]
        resident = None if found.rss is None else max(0, found.rss - found.startup)
        self._points.append(_Point(clock, found.charged, dict(largest), resident))
        peaks: dict[str, int] = {}
        for point in self._points:
            for path, size in point.own.items():
                if size > peaks.get(path, 0):
                    peaks[path] = size
        ranked = sorted(peaks, key=lambda path: (-peaks[path], path))[: pictures.MOST_CURVES]
        kept = {path: colour for path, colour in self._colours.items() if path in ranked}
        free = [colour for colour in pictures.PALETTE if colour not in kept.values()]
        new = [path for path in ranked if path not in kept]
        self._colours = kept | dict(zip(new, free, strict=False))

    def _note_events(self, sample: Sample) -> None:
        """Note which groups themselves met a limit since the sample before."""
        known = self._known
        self._known = {group.uid for group in sample.region.groups}
        if known is None:
            # what happened before anybody looked
            return
        own: dict[str, dict[str, int]] = {}
        uids = {group.path: group.uid for group in sample.region.groups}
        for group in sample.region.groups:
            # one that was made since the sample before: all that it has
            new = sample.change(group).events if group.uid in known else group.events
            met = {event: new[event] for event in pictures.EVENTS_SHOWN if new.get(event)}
            if met:
                own[group.path] = met
        # a group's counters have those of the groups below it
        below = [(_parent(path), dict(met)) for path, met in own.items() if path != "/"]
        for parent, met in below:
            for event, count in met.items():
                if event in own.get(parent, ()):
                    own[parent][event] -= count
        for path, met in own.items():
            # counters are read one after the other: a group may be a moment older than its child
            happened = {event: count for event, count in met.items() if count > 0}
            if happened:
                self._happened(uids[path], path, happened, sample.clock)

    def _happened(self, uid: int, path: str, events: dict[str, int], clock: float) -> None:
        episode = self._open.get(uid)
        if episode is None or clock - episode.last > _PAUSE:
            episode = self._open[uid] = _Episode(path, clock)
            self._episodes.append(episode)
        episode.last = clock
        for event, count in events.items():
            episode.events[event] = episode.events.get(event, 0) + count

    def _offenders(self, groups: Sequence[GroupInfo], clock: float) -> set[int]:
        """Return the groups that are at their limit or have met one a moment ago."""
        self._open = {
            uid: episode
            for uid, episode in self._open.items()
            if clock - episode.last <= RED_SECONDS
        }
        offenders = set(self._open).intersection(group.uid for group in groups)
        return offenders.union(group.uid for group in groups if level(group) is Level.FULL)

    # ---- what is shown

    def _usage(
        self, groups: Sequence[GroupInfo], offenders: set[int], epoch: float
    ) -> pictures.Figure:
        points = list(self._points)
        clocks = [point.clock for point in points]
        curves = {path: [point.own.get(path) for point in points] for path in self._colours}
        # so that all of them stacked are what is charged in all
        others = [
            max(0, point.total - sum(point.own.get(path, 0) for path in self._colours))
            for point in points
        ]
        red = {group.path for group in groups if group.uid in offenders}
        marks: dict[int, list[str]] = {}
        for episode in self._episodes:
            if clocks and episode.first >= clocks[0]:
                place = min(range(len(clocks)), key=lambda i: abs(clocks[i] - episode.first))
                marks.setdefault(place, []).append(f"{episode.path}: {counts(episode.events)}")
        figure = pictures.stacked(
            pictures.Usage(
                times=[epoch + clock for clock in clocks],
                curves=curves,
                others=others,
                how_many=len({group.path for group in groups}.difference(self._colours)),
                resident=[point.resident for point in points],
                marks=[(place, "; ".join(texts)) for place, texts in sorted(marks.items())],
            ),
            self._colours | dict.fromkeys(red, pictures.RED),
        )
        figure["layout"]["uirevision"] = "live"
        return figure

    def _tree(self, groups: Sequence[GroupInfo], offenders: set[int]) -> pictures.Figure:
        red = {group.path for group in groups if group.uid in offenders}
        nodes = [pictures.Node(group.path, group.current) for group in groups]
        figure = pictures.icicle(pictures.forest([nodes], self._colours, offenders=red))
        trace = figure["data"][0]
        # A place is another group's in the next sample. By these names the page knows what was
        # clicked at; long ones may be cut to the same.
        names = {"": ""}
        taken = set()
        for place, (path, _) in zip(trace["ids"], trace["customdata"], strict=True):
            names[place] = path if path not in taken else f"{path} {place}"
            taken.add(path)
        trace["ids"] = [names[place] for place in trace["ids"]]
        trace["parents"] = [names[place] for place in trace["parents"]]
        figure["layout"]["uirevision"] = "live"
        return figure

    def _rows(self, sample: Sample, offenders: set[int]) -> list[dict[str, Any]]:
        groups = sorted(
            sample.region.groups,
            key=lambda group: (group.uid not in offenders, -group.current, group.path),
        )
        total = sample.region.charged
        # in an order that stays: who points at a row finds it there
        return [
            self._row(sample, group, total, offends=group.uid in offenders)
            for group in sorted(groups[:MOST_ROWS], key=lambda group: group.path.split("/"))
        ]

    def _row(
        self, sample: Sample, group: GroupInfo, total: int, *, offends: bool
    ) -> dict[str, Any]:
        bound = limit(group)
        part = share(group) if bound else group.current / total if total else 0.0
        part = min(part or 0.0, 99.99)
        rate = round(sample.change(group).rate)
        return {
            # as text: a number of JavaScript has 53 bits
            "uid": str(group.uid),
            "path": printable(group.path),
            "colour": pictures.RED if offends else self._colours.get(group.path),
            "offends": offends,
            "level": level(group).name.lower() if bound else "none",
            "part": round(part, 4),
            "of": bound[1] if bound else "all",
            "current": format_size(group.current),
            "rate": f"{format_size(rate)}/s" if rate else "",
            "peak": format_size(group.peak),
            **{knob: _size(getattr(group, knob)) for knob in ("max", "high", "low")},
            "tasks": group.tasks,
            "events": counts(group.events),
        }


def _own(groups: Sequence[GroupInfo]) -> dict[str, int]:
    """Return what is charged to each group itself: its usage less its children's."""
    own = {group.path: group.current for group in groups}
    for group in groups:
        if group.path != "/" and (parent := _parent(group.path)) in own:
            own[parent] -= group.current
    # a child that was read a moment later may have more
    return {path: size for path, size in own.items() if size > 0}


def _facts(found: Region) -> list[tuple[str, str]]:
    facts = [("charged", format_size(found.charged))]
    if found.rss is not None:
        facts.append(("resident", format_size(found.rss)))
        facts.append(("resident at start-up", format_size(found.startup)))
        facts.append(("unaccounted", format_size(found.unaccounted or 0)))
    facts.append(("groups", f"{len(found.groups):,}"))
    facts.append(("native memory", "charged" if found.native else "not charged"))
    return facts


def _worst(groups: Sequence[GroupInfo], offenders: set[int]) -> list[dict[str, str]]:
    worst = sorted(
        (group for group in groups if group.uid in offenders),
        key=lambda group: (-group.current, group.path),
    )
    return [{"path": printable(group.path), "why": _why(group)} for group in worst[:MOST_NAMED]]


def _why(group: GroupInfo) -> str:
    bound = limit(group)
    if bound is None:
        return "met its limit a moment ago"
    size = f"{format_size(group.current)} of memory.{bound[1]} {format_size(bound[0])}"
    return size if level(group) is Level.FULL else f"{size}, met it a moment ago"


def _size(size: int | None) -> str:
    return "" if size is None else format_size(size)


def _last(episode: _Episode) -> float:
    return episode.last


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
