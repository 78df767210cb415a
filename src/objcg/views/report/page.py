"""The page that shows a recording: HTML with the data, the style and the scripts in it.

What happened and the worst groups are plain HTML; the pictures need JavaScript. The page may run
the scripts that it has when it is made and no others, nor load anything (its content security
policy): so whatever a group is called, nothing comes of it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib
import time
from importlib import resources
from typing import TYPE_CHECKING, Any

from objcg._sizes import format_size
from objcg.cli.table import printable
from objcg.views import pictures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from objcg.views.recording.history import History
    from objcg.views.recording.reader import Recording


class MissingPlotly(Exception):
    """plotly is not installed."""


_ENDINGS = {
    "exited": "the process exited",
    "killed": "the process was killed",
    "replaced": "the process became another program (exec)",
    "stopped": "stopped",
    "duration": "the time was up",
    None: "not ended: it goes on, or its recorder was killed",
}
_MEASURES = {"peak": 2, "share": 4, "events": 5, "growth": 6}
_HEADINGS = ("group", "current", "peak", "max", "most of max", "limit events", "growth", "seen for")


def plotly_script() -> str:
    """Return plotly's script. Raises MissingPlotly."""
    try:
        offline: Any = importlib.import_module("plotly.offline")
    except ImportError as error:
        raise MissingPlotly from error
    return _script(offline.get_plotlyjs())


def page(recording: Recording, history: History, plotly: str) -> str:
    """Return the page; `plotly` is its script."""
    process = recording.process
    title = f"objcg report: pid {process.pid}"
    own = _script(_resource("page.js"))
    scripts = [plotly, own]
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src "
        + " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>
{_resource("page.css")}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
<p class="command"><code>{_text(process.command)}</code></p>
{_facts(recording, history)}
</header>
<main>
<section aria-labelledby="usage-title">
<h2 id="usage-title">Usage over time</h2>
<p>{_usage_note(recording, history)}</p>
<noscript><p class="note">The pictures need JavaScript. The tables below do not.</p></noscript>
<div id="usage" class="picture" role="img" aria-label="Stacked usage of groups over time"></div>
</section>
<section aria-labelledby="tree-title">
<h2 id="tree-title">The tree at one moment</h2>
<p>Each group beside its parent; what is left empty there is charged to the parent itself.</p>
<p class="moment"><label for="moment">Moment</label>
<input id="moment" type="range" min="0" max="{len(history.tree_times) - 1}" value="0" step="1">
<output id="moment-time" for="moment"></output></p>
<div id="tree" class="picture" role="img" aria-label="Icicle of the tree of groups"></div>
</section>
<section aria-labelledby="worst-title">
<h2 id="worst-title">The worst groups</h2>
{_worst(history)}
</section>
<section aria-labelledby="events-title">
<h2 id="events-title">Events</h2>
{_events(history)}
</section>
</main>
<script type="application/json" id="data">{_data(history)}</script>
<script>{plotly}</script>
<script>{own}</script>
</body>
</html>
"""


def _data(history: History) -> str:
    figure = pictures.stacked(history.usage)
    times = []
    for trace in figure["data"]:
        # the same for all that are stacked: once is enough
        if trace["mode"] == "lines":
            times = trace.pop("x")
    tree = history.tree
    first = pictures.icicle(tree, _largest(history))
    trace = first["data"][0]
    for varying in ("ids", "labels", "parents", "values", "customdata", "marker", "textfont"):
        del trace[varying]
    data: dict[str, Any] = {
        "usage": figure,
        "times": times,
        "icicle": first,
        "tree": tree._asdict(),
        "moments": [round(time * 1000) for time in history.tree_times],
        "start": _largest(history),
    }
    return pictures.to_json(data)


def _largest(history: History) -> int:
    totals = [values[0] or 0 for values in history.tree.values]
    return totals.index(max(totals))


# ---- text ----------------------------------------------------------------------------------------


def _facts(recording: Recording, history: History) -> str:
    process, sessions = recording.process, recording.sessions
    times = history.usage.times
    facts = {
        "Recorded": f"{_time(times[0])} to {_time(times[-1])} UTC ({_span(times[-1] - times[0])})",
        "Samples": f"{recording.samples:,}, one each {sessions[-1].interval / 1e9:g} s"
        if sessions
        else f"{recording.samples:,}",
        "Groups": f"{len(recording.groups):,}",
        "Ended": "; ".join(_ENDINGS.get(session.ending, "?") for session in sessions[-1:]),
        "Resident at start-up": format_size(process.startup),
        "Python": process.python,
    }
    if len(sessions) > 1:
        facts["Sessions"] = str(len(sessions))
    rows = "\n".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items()
    )
    notes = "".join(
        f'\n<p class="note">The clock of the system was set at {_time(at)} UTC, by {by:+.0f} s. '
        "Times here are counted from the first sample.</p>"
        for at, by in history.jumps[:5]
    )
    return f'<dl class="facts">\n{rows}\n</dl>{notes}'


def _usage_note(recording: Recording, history: History) -> str:
    note = (
        "What is charged to each group itself, without the groups below it. Dotted: what the "
        "process has resident beyond what it had at start-up; what is above the stack is charged "
        "to no group. A click shows the tree of that moment."
    )
    if history.shown < recording.samples:
        note += (
            f" Of {recording.samples:,} samples these are {history.shown:,}: no peak of the sum, "
            "of what is resident or of a group with a colour is left out."
        )
    return note


def _worst(history: History) -> str:
    rows = pictures.worst(history.summaries)
    if not rows:
        return "<p>There is no group besides root.</p>"
    cells = []
    for summary, worst_by in rows:
        events = _counts({e: n for e, n in summary.events.items() if e in pictures.EVENTS_SHOWN})
        values: list[tuple[str, float | None]] = [
            (summary.path + (" (removed)" if summary.gone else ""), None),
            (format_size(summary.current), summary.current),
            (format_size(summary.peak), summary.peak),
            ("" if summary.limit is None else format_size(summary.limit), summary.limit or -1),
            ("" if summary.share is None else f"{summary.share:.0%}", summary.share or -1),
            (events, sum(summary.events.get(event, 0) for event in pictures.EVENTS_SHOWN)),
            (("+" if summary.growth > 0 else "") + format_size(summary.growth), summary.growth),
            (_span(summary.seconds), summary.seconds),
        ]
        strong = {_MEASURES[measure] for measure in worst_by}
        cells.append(
            [
                (f"<strong>{_text(text)}</strong>" if i in strong else _text(text), key)
                for i, (text, key) in enumerate(values)
            ]
        )
    return (
        "<p>The ten worst by each of peak, part of the limit, limit events and growth, and the "
        "three worst in <strong>bold</strong>. A group's sizes include the groups below it, its "
        "events do not. Its peak is since the process began. Growth is from the first sample of "
        "it to the last.</p>\n" + _table("worst", _HEADINGS, cells)
    )


def _events(history: History) -> str:
    if not history.happenings:
        return "<p>No group met a limit while this was recorded.</p>"
    note = ""
    if history.happened > len(history.happenings):
        note = (
            f"<p>The latest {len(history.happenings)} of {history.happened:,}; "
            "<code>objcg report --csv</code> has all.</p>\n"
        )
    cells = [
        [
            (_time(happening.time, 3), happening.time),
            (_text(happening.path), None),
            (_counts(happening.events), None),
        ]
        for happening in reversed(history.happenings)
    ]
    return note + _table("events", ("time (UTC)", "group", "events"), cells)


def _table(
    name: str, headings: Sequence[str], rows: Iterable[Sequence[tuple[str, float | None]]]
) -> str:
    """Return a table of cells: HTML, and by what a column is sorted, if not by its text."""
    head = "".join(f'<th scope="col">{_text(heading)}</th>' for heading in headings)
    body = "\n".join(
        "<tr>" + "".join(_cell(cell, key) for cell, key in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table id="{name}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cell(cell: str, key: float | None) -> str:
    return f"<td>{cell}</td>" if key is None else f'<td class="number" data-key="{key}">{cell}</td>'


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _text(text: str) -> str:
    return html.escape(printable(text))


def _time(seconds: float, digits: int = 0) -> str:
    fraction = f"{seconds % 1:.{digits}f}"[1:] if digits else ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + fraction


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


# ---- scripts -------------------------------------------------------------------------------------


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _script(text: str) -> str:
    """Return a script that does not end the element it stands in."""
    # the only place where these letters mean something to a script is in a string or an expression
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
