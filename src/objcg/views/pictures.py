"""Pictures of groups, as figures of plotly: plain dicts, for ``Plotly.react()`` in a page.

What they show may come from a recording or from a process that runs; nothing here knows which.
Names of groups are hostile: plotly takes some HTML in them, so they are escaped (`plain`).

Colours of text and of the background are the page's, which knows whether it is light or dark.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from objcg._sizes import format_size
from objcg.cli.table import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

Figure = dict[str, Any]

PALETTE = (
    *("#4477aa", "#ee7733", "#228833", "#cc3377", "#66aadd", "#ccaa33"),
    *("#775599", "#44aa99", "#994455", "#88aa33", "#335599", "#dd9988"),
)
"""Told apart on white and on black, and neighbours by those who see no red or green as well."""
GREY = "#8a8f98"
NEUTRAL = "#c3c8d0"
"""Of groups that have others below them."""
RED = "#d62728"

MOST_CURVES = len(PALETTE)

MOST_NODES = 120

_MIB = 1 << 20
_LONGEST_NAME = 32
_LONGEST_PATH = 200

EVENTS_SHOWN = ("max", "ceiling", "raised")
"""Events that are marked on a picture: a limit was met. "high" and "low" are what they are for."""


class Usage(NamedTuple):
    """Usage over time: sizes in bytes, times in seconds since the epoch.

    A curve has what is charged to a group itself, and not to one below it, so that all curves and
    `others` stacked are what is charged in all. None is a moment that nobody saw.
    """

    times: Sequence[float]
    curves: Mapping[str, Sequence[int | None]]
    others: Sequence[int | None] | None = None
    """Of all groups that have no curve; `how_many` they are."""
    how_many: int = 0
    resident: Sequence[int | None] | None = None
    """What the process has resident beyond what it had when objcg was enabled."""
    marks: Sequence[tuple[int, str]] = ()
    """Places in `times`, and what happened there."""


class Node(NamedTuple):
    """A group of a tree: its path, and what is charged to it and to those below it."""

    path: str
    current: int


class Summary(NamedTuple):
    """A group over time. Sizes are bytes."""

    path: str
    current: int
    """When it was last seen."""
    peak: int
    limit: int | None
    share: float | None
    """The largest part of its limit that it used; None: it has had none."""
    events: Mapping[str, int]
    growth: int
    """From when it was first seen to when it was last."""
    seconds: float
    """How long it was seen."""
    gone: bool


def plain(text: str, longest: int = _LONGEST_PATH) -> str:
    """Return `text` so that plotly shows it as it is: no markup, no control characters, not long.

    Of one that is too long the end is kept, which tells paths apart.
    """
    text = printable(text)
    if len(text) > longest:
        text = "…" + text[1 - longest :]
    # between two "$" plotly sees TeX
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        text = text.replace(char, entity)
    return text


def colours(paths: Iterable[str]) -> dict[str, str]:
    """Return a colour for each path, in this order; there are `MOST_CURVES`."""
    return dict(zip(paths, PALETTE, strict=False))


def to_json(value: Any) -> str:
    """Return JSON that can stand in a script element, whatever names are in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    # ASCII only; what could end the element or begin a comment is escaped
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---- usage over time -----------------------------------------------------------------------------


def stacked(usage: Usage, colour: Mapping[str, str] | None = None) -> Figure:
    """Return the figure of usage over time, the largest groups stacked.

    `colour` has one for each curve; without it they are those of `colours()`.
    """
    unit, scale = _unit(usage)
    times = [round(time * 1000) for time in usage.times]
    colour = colours(usage.curves) if colour is None else colour
    traces = []
    if usage.others is not None and any(usage.others):
        name = f"{usage.how_many:,} other{'s' * (usage.how_many != 1)}"
        traces.append(_area(name, times, usage.others, GREY, scale))
    # the first of a legend is at its top, the first of a stack at its bottom
    traces += [
        _area(path, times, usage.curves[path], colour[path], scale)
        for path in reversed(list(usage.curves))
    ]
    if usage.resident is not None:
        line = _line("resident since start-up", times, usage.resident, scale)
        traces.append({**line, "line": {"color": GREY, "width": 1.5, "dash": "dot"}})
    if usage.marks:
        traces.append(_marks(usage, times, scale))
    for trace in traces:
        trace["hovertemplate"] = "%{y:,.3~f} " + unit
    if usage.marks:
        traces[-1]["hovertemplate"] = "%{text}"
    layout = {
        "xaxis": {"type": "date", "title": {"text": "time (UTC)"}},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero", "tickformat": ",~r"},
        "hovermode": "x unified",
        "legend": {"traceorder": "reversed", "itemsizing": "constant"},
        "margin": {"l": 70, "r": 10, "t": 10, "b": 50},
    }
    return {"data": traces, "layout": layout}


def _unit(usage: Usage) -> tuple[str, int]:
    curves = [*usage.curves.values(), usage.others or (), usage.resident or ()]
    most = max((value or 0 for curve in curves for value in curve), default=0)
    if most >= 10 << 30:
        return "GiB", 1 << 30
    return ("MiB", _MIB) if most >= _MIB else ("KiB", 1 << 10)


def _line(name: str, times: list[int], values: Sequence[int | None], scale: int) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name, _LONGEST_NAME),
        "x": times,
        # three digits of the smallest: 1 KiB where the unit is MiB
        "y": [None if value is None else round(value / scale, 3) for value in values],
    }


def _area(
    name: str, times: list[int], values: Sequence[int | None], colour: str, scale: int
) -> Figure:
    return {
        **_line(name, times, values, scale),
        "stackgroup": "usage",
        "line": {"width": 0.5, "color": colour},
        "fillcolor": colour,
    }


def _marks(usage: Usage, times: list[int], scale: int) -> Figure:
    curves = [*usage.curves.values(), *([usage.others] if usage.others is not None else [])]
    tops = [sum(curve[place] or 0 for curve in curves) / scale for place, _ in usage.marks]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "limit met",
        "x": [times[place] for place, _ in usage.marks],
        "y": [round(top, 3) for top in tops],
        "text": [plain(text) for _, text in usage.marks],
        # with a rim: what is below it may be red as well
        "marker": {
            "symbol": "triangle-down",
            "size": 10,
            "color": RED,
            "line": {"color": "#ffffff", "width": 1.5},
        },
    }


# ---- the tree at one moment ----------------------------------------------------------------------


class Forest(NamedTuple):
    """The tree at several moments: what does not change, and the values of each moment.

    A place has a label, a path and the place of its parent (None of the first, which is root), and
    comes after it. In `values` None is a group that is not there.
    """

    labels: list[str]
    paths: list[str]
    parents: list[int | None]
    colours: list[str]
    inks: list[str]
    """Of the text on these colours."""
    values: list[list[int | None]]


def forest(
    moments: Sequence[Sequence[Node]],
    colour: Mapping[str, str] | None = None,
    most: int = MOST_NODES,
    offenders: Collection[str] = (),
) -> Forest:
    """Return the tree of groups at several moments: the `most` with the highest peaks.

    `offenders` are red, whatever is below them, if they are among those.

    The rest of a group's children are one place, "others". A group that was read a moment earlier
    than those below it may have less than they have; it is drawn as large as they are.
    """
    peaks: dict[str, int] = {"/": 0}
    for nodes in moments:
        for path, current in nodes:
            peaks[path] = max(peaks.get(path, 0), current)
    ranked = sorted(peaks, key=lambda path: (-peaks[path], path))
    chosen = {"/"}
    for path in ranked[:most]:
        chosen.update(_upward(path))
    # each after its parent, the largest first of siblings
    shown = sorted(chosen, key=lambda path: (path != "/", path.count("/"), -peaks.get(path, 0)))
    place = {path: i for i, path in enumerate(shown)}
    labels = [plain(path.rsplit("/", 1)[1], _LONGEST_NAME) or "/" for path in shown]
    parents: list[int | None] = [place[_parent(path)] if path != "/" else None for path in shown]
    paths = [plain(path) for path in shown]
    inner = {_parent(path) for path in peaks if path != "/"}
    painted = [
        RED if path in offenders else NEUTRAL if path in inner else _painted(path, colour or {})
        for path in shown
    ]
    rest = sorted({_parent(path) for path in peaks if path not in chosen} & chosen)
    others = {path: len(shown) + i for i, path in enumerate(rest)}
    for path in rest:
        labels.append("others")
        paths.append(plain(f"other groups in {path}"))
        parents.append(place[path])
        painted.append(GREY)
    values = [_values(nodes, place, others, parents) for nodes in moments]
    return Forest(labels, paths, parents, painted, [_ink(colour) for colour in painted], values)


def icicle(tree: Forest, moment: int = 0) -> Figure:
    """Return the figure of the tree at one of its moments."""
    values = tree.values[moment]
    there = [i for i, value in enumerate(values) if value is not None]
    parents = [tree.parents[i] for i in there]
    sizes = [format_size(values[i] or 0) for i in there]
    trace = {
        "type": "icicle",
        "ids": [str(i) for i in there],
        "labels": [tree.labels[i] for i in there],
        "parents": ["" if parent is None else str(parent) for parent in parents],
        "values": [values[i] for i in there],
        "customdata": [[tree.paths[i], size] for i, size in zip(there, sizes, strict=True)],
        "marker": {"colors": [tree.colours[i] for i in there], "line": {"width": 0.5}},
        "textfont": {"color": [tree.inks[i] for i in there]},
        "branchvalues": "total",
        "leaf": {"opacity": 1},
        "sort": True,
        "tiling": {"orientation": "h", "pad": 0},
        "texttemplate": "%{label}  %{customdata[1]}",
        "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}, "
        "%{percentParent:.0%} of its parent, %{percentRoot:.0%} of all<extra></extra>",
        "pathbar": {"visible": True},
    }
    return {"data": [trace], "layout": {"margin": {"l": 5, "r": 5, "t": 25, "b": 5}}}


def _values(
    nodes: Sequence[Node],
    place: Mapping[str, int],
    others: Mapping[str, int],
    parents: Sequence[int | None],
) -> list[int | None]:
    values: list[int | None] = [None] * len(parents)
    for path, current in nodes:
        at = place.get(path)
        if at is None:
            # below one that is not shown either: it is part of that one
            at = others.get(_parent(path))
        if at is not None:
            values[at] = (values[at] or 0) + max(0, current)
    # from the leaves up, so that none is smaller than what is in it
    below = [0] * len(parents)
    for at in sorted(range(len(parents)), key=lambda at: _depth(at, parents), reverse=True):
        if below[at] > (values[at] or 0):
            values[at] = below[at]
        above = parents[at]
        if above is not None:
            below[above] += values[at] or 0
    values[0] = values[0] or 0
    return values


def _depth(at: int | None, parents: Sequence[int | None]) -> int:
    depth = 0
    while at is not None and (at := parents[at]) is not None:
        depth += 1
    return depth


def _ink(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#000000" if 299 * red + 587 * green + 114 * blue > 128_000 else "#ffffff"


def _painted(path: str, colour: Mapping[str, str]) -> str:
    return next((colour[above] for above in _upward(path) if above in colour), GREY)


def _upward(path: str) -> Iterable[str]:
    """Yield the path and those of all groups above it."""
    while path != "/":
        yield path
        path = _parent(path)
    yield path


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


# ---- the worst -----------------------------------------------------------------------------------

MEASURES = ("peak", "share", "events", "growth")


class Row(NamedTuple):
    """A group that is among the worst, and the measures by which it is one of the very worst."""

    summary: Summary
    worst_by: frozenset[str]


def worst(summaries: Iterable[Summary], listed: int = 10, marked: int = 3) -> list[Row]:
    """Return the groups that are among the worst `listed` by any of `MEASURES`, by falling peak.

    A measure by which it is among the worst `marked` is named. Root is not among them: it has all
    that any of them has.
    """
    ranked = [summary for summary in summaries if summary.path != "/"]
    by: dict[int, set[str]] = {}
    for measure in MEASURES:
        values = [(_measured(summary, measure), i) for i, summary in enumerate(ranked)]
        values.sort(key=lambda pair: (-pair[0], pair[1]))
        for rank, (value, i) in enumerate(values[:listed]):
            if value > 0:
                by.setdefault(i, set()).update({measure} if rank < marked else ())
    rows = [Row(ranked[i], frozenset(measures)) for i, measures in by.items()]
    return sorted(rows, key=lambda row: (-row.summary.peak, row.summary.path))


def _measured(summary: Summary, measure: str) -> float:
    if measure == "share":
        return summary.share or 0.0
    if measure == "events":
        return sum(summary.events.get(event, 0) for event in EVENTS_SHOWN)
    return summary.peak if measure == "peak" else summary.growth
