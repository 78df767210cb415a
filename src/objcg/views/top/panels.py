"""What is around the rows: the process above them, a banner, the selected group below."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from objcg.cli.table import printable
from objcg.views.watch import State

from . import columns
from .model import Level, level

if TYPE_CHECKING:
    from objcg.region import GroupInfo, Region
    from objcg.views.watch import Sample

    from .model import Model

_GAP = "  "
_LABEL = "dim"

_ENDED = {
    State.EXITED: "EXITED: the process has ended; this is its last state, read at {at}",
    State.KILLED: "KILLED: the process has ended without a good-bye; this is what it left",
    State.REPLACED: "REPLACED: the process is another program now (exec); its state at {at}",
}


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _pairs(pairs: list[tuple[str, str]]) -> Content:
    """Return labels and values; only the labels are grey."""
    parts: list[Content | str | tuple[str, str]] = []
    for label, value in pairs:
        parts += [(label, _LABEL), " ", value, _GAP]
    return Content.assemble(*parts)


class Process(Static):
    """Which process it is, and where its memory is."""

    DEFAULT_CSS = "Process { height: 4; padding: 0 1; }"

    def __init__(self) -> None:
        super().__init__()
        self._memory = Content()

    def show(self, model: Model, interval: float, *, paused: bool) -> None:
        """Show what a sample says of the process, and what the view is set to."""
        sample = model.sample
        region = sample.region
        running = sample.state is State.RUNNING
        first = Content.assemble(
            ("objcg top", "bold"),
            _GAP,
            ("pid ", _LABEL),
            (str(region.pid), "bold"),
            _GAP,
            (sample.state.value, "bold $success" if running else "bold $error"),
            _GAP,
            ("Python ", _LABEL),
            printable(region.python.partition(" ")[0]),
            _GAP,
            _clock(sample.at),
            (f", every {interval:g} s", _LABEL),
        )
        # one that has ended has no RSS: where its memory was before is what the user looks for
        if region.rss is not None or not self._memory:
            self._memory = _memory(region)
        command = Content(printable(region.command))
        lines = [first, command, self._memory, _view(model, paused=paused)]
        # one line each: what is too long is cut off, and moves nothing
        width = max(1, self.size.width)
        self.update(Content("\n").join(line.truncate(width, ellipsis=True) for line in lines))


def _memory(region: Region) -> Content:
    pairs = [("charged", columns.size(region.charged))]
    if region.rss is not None and region.unaccounted is not None:
        part = f" ({100 * region.unaccounted / region.rss:.0f}%)" if region.rss else ""
        pairs = [
            ("RSS", columns.size(region.rss)),
            ("at start-up", columns.size(region.startup)),
            *pairs,
            ("unaccounted", columns.size(region.unaccounted) + part),
        ]
        if region.shared is not None:
            pairs.append(("of it shared", columns.size(region.shared)))
    return _pairs(pairs)


def _view(model: Model, *, paused: bool) -> Content:
    groups, near, full = model.tally
    parts: list[str | tuple[str, str]] = [f"{groups:,} group{'s' * (groups != 1)}"]
    if full:
        parts += [_GAP, (f"{full:,} at the limit", "bold $error")]
    if near:
        parts += [_GAP, (f"{near:,} near it", "bold $warning")]
    parts += [_GAP, ("sorted by ", _LABEL), model.sort.value]
    if model.is_reversed:
        parts += [", inverted"]
    if model.wanted:
        parts += [_GAP, (f"filter {printable(model.wanted)!r}: {model.matches:,} match", "bold")]
    if model.is_flat:
        parts += [_GAP, "flat"]
    if paused:
        parts += [_GAP, ("PAUSED", "bold reverse")]
    return Content.assemble(*parts)


class Banner(Static):
    """What the user must not overlook; no line at all where there is nothing."""

    DEFAULT_CSS = """
    Banner { height: auto; padding: 0 1; background: $error; color: $text; text-style: bold; }
    """

    def show(self, sample: Sample, error: str | None) -> None:
        """Say that the process has ended, or cannot be read."""
        text = ""
        if error is not None:
            text = f"CANNOT BE READ: {error}; this is its state at {_clock(sample.at)}"
        elif sample.state is not State.RUNNING:
            text = _ENDED[sample.state].format(at=_clock(sample.at))
        self.display = bool(text)
        self.update(Content(printable(text)))


class Details(Static):
    """All that is known of the group under the cursor."""

    DEFAULT_CSS = """
    Details { height: 5; padding: 0 1; border-top: solid $panel; background: $surface; }
    """

    def show(self, model: Model, group: GroupInfo | None) -> None:
        """Show a group; None: there is none."""
        if group is None:
            self.update(Content.styled("no group matches the filter", _LABEL))
            return
        width = max(1, self.size.width)
        colour = {Level.FINE: "", Level.NEAR: " $warning", Level.FULL: " $error"}[level(group)]
        path = Content.styled(columns.fitting_end(group.path, width).rstrip(), f"bold{colour}")
        limits = [
            (name, "-" if value is None else columns.size(value))
            for name, value in (("max", group.max), ("high", group.high), ("low", group.low))
        ]
        sizes = [
            ("current", columns.size(group.current)),
            ("peak", columns.size(group.peak)),
            *limits,
            ("tasks", f"{group.tasks:,}"),
        ]
        stat = dict(group.stat)
        blocks, dying = stat.pop("blocks"), stat.pop("dying_descendants")
        made_of = [(name, columns.size(value)) for name, value in stat.items() if value]
        made_of += [("blocks", f"{blocks:,}")] + [("dying", f"{dying:,}")] * bool(dying)
        since = model.events_since(group)
        events = [
            (name, f"{count:,}" + (f" (+{since[name]:,})" if since[name] else ""))
            for name, count in group.events.items()
            if count
        ]
        lines = [path, _pairs(sizes), _pairs(made_of)]
        lines.append(_pairs([("events:", ""), *events] if events else [("no events", "")]))
        self.update(Content("\n").join(line.truncate(width, ellipsis=True) for line in lines))
