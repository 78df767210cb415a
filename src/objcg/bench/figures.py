"""What a picture of a benchmark shows, without how it is drawn.

The module of a benchmark may have a function ``figure(rows)`` that returns a `Figure`; `of` makes
one of the ratios in the rows where it has none. Nothing here needs more than the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .runner import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .runner import Row

OURS = "objcg"
"""The series whose losses have a colour of their own."""


@dataclass(frozen=True)
class Value:
    """One bar or dot."""

    label: str
    """Of its line; lines of the same label stand together, one for each series."""

    value: float

    quartiles: Sequence[float] | None = None

    series: str = OURS

    goal: float | None = None
    """The most it should be."""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, or dots, one below the other."""

    title: str

    axis: str
    """What the numbers are, with their unit."""

    values: Sequence[Value]

    reference: float | None = None
    """Of ratios: what is neither gain nor loss. Bars start there; above is a loss."""

    dots: bool = False

    logarithmic: bool | None = None
    """None: where the values differ much."""


@dataclass(frozen=True)
class Curve:
    """Points that belong together."""

    label: str

    points: Sequence[tuple[float, float, Sequence[float] | None]]
    """x, y, and the quartiles of y."""


@dataclass(frozen=True)
class Curves:
    """Something against a number, both axes logarithmic."""

    title: str

    x_axis: str

    y_axis: str

    curves: Sequence[Curve]

    reference: float | None = None
    """Of ratios: what is neither gain nor loss. Above is a loss."""


@dataclass(frozen=True)
class Figure:
    """The panels of a picture."""

    panels: Sequence[Bars | Curves]

    columns: int = 1
    """How many panels stand side by side."""

    notes: Sequence[str] = field(default=())
    """What has to be said below them: how to read it, what is missing and why."""


def of(benchmark: Any, rows: list[Row]) -> Figure:
    """Return what the picture of a benchmark's rows shows.

    Raises:
        BenchmarkError: there is nothing in them that could be drawn.
    """
    figure: Callable[[list[Row]], Figure] = getattr(benchmark, "figure", generic)
    made = figure(rows)
    values = [panel.values if isinstance(panel, Bars) else panel.curves for panel in made.panels]
    if not any(values):
        raise BenchmarkError(f"no row of {benchmark.NAME} has figures that could be drawn")
    return made


_RATIOS = {"ratio": "ratio", "memory_ratio": "ratio of memory"}

_MOST_OF_PANEL = 60
"""Bars."""

# They are the same everywhere, or say how it was measured and not what.
_NO_KEYS = frozenset({"baseline", "clock", "group", "reason", "status", "seed", "rounds"})


def generic(rows: list[Row]) -> Figure:
    """Return the ratios of all rows that have one, named by what tells the rows apart.

    Where they are many, there is a panel for each value of one of their columns.
    """
    panels: list[Bars] = []
    for name, text in _RATIOS.items():
        found = [row for row in rows if row.get(name) is not None]
        keys = _keys(found)
        split = _split(found, keys)
        of_panel: dict[str, list[Row]] = {}
        for row in found:
            title = text if split is None else f"{text}, {_text(split, row.get(split))}"
            of_panel.setdefault(title, []).append(row)
        named = [key for key in keys if key != split]
        panels += [_ratios(title, name, named, of_it) for title, of_it in of_panel.items()]
    columns = min(2, len(panels))
    return Figure(panels, columns, notes=[WHISKERS, *left_out(rows)] if panels else ())


def _split(rows: list[Row], keys: list[str]) -> str | None:
    """Return the column with the fewest values, where one panel would be too high."""
    if len(rows) <= _MOST_OF_PANEL or len(keys) < 2:
        return None
    return min(keys, key=lambda key: len({row.get(key) for row in rows}))


def _ratios(title: str, name: str, keys: list[str], rows: list[Row]) -> Bars:
    baselines = list(dict.fromkeys(str(row.get("baseline")) for row in rows))
    values = [
        Value(
            label=", ".join(_text(key, row[key]) for key in keys if row.get(key) is not None),
            value=row[name],
            quartiles=row.get(f"{name}_quartiles"),
            series=str(row.get("side", OURS)),
        )
        for row in rows
    ]
    axis = f"{_RATIOS[name]} to {' or '.join(baselines)} (above 1: worse)"
    return Bars(title, axis, values, reference=1.0)


WHISKERS = "Lines across a bar or dot: from the first to the third quartile of the rounds."


def left_out(rows: list[Row]) -> list[str]:
    """Return a note for what was skipped, and for what failed: sides, by their rows."""
    notes = []
    for what in ("skipped", "failed"):
        sides = list(dict.fromkeys(str(row.get("side")) for row in rows if what in row))
        if sides:
            where = [str(row.get("program")) for row in rows if what in row]
            text = f" ({', '.join(dict.fromkeys(where))})" if what == "failed" else ""
            notes.append(f"{what.capitalize()}: {', '.join(sides)}{text}.")
    return notes


def _keys(rows: list[Row]) -> list[str]:
    """Return the columns of text and whole numbers in which the rows differ, but for the side."""
    keys = []
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        is_name = all(isinstance(value, str | int | None) for value in values)
        if is_name and key not in _NO_KEYS and key != "side" and len(set(values)) > 1:
            keys.append(key)
    return keys


def _text(key: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{key} {value:,}"
    return str(value)
