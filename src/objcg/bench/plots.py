"""Drawing what `figures` describes, with matplotlib, which is no dependency of objcg.

The same result gives the same file, byte for byte, with the same version of matplotlib. A file
knows which result it was made from (`digest_of`), so that one that is out of date can be told.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import textwrap
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from . import figures
from .figures import OURS, Bars, Curves
from .runner import BenchmarkError, imported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .figures import Curve, Figure, Value

FORMATS = (".svg", ".png")

GAIN, LOSS, GREY = "#1b7f79", "#c8372d", "#555555"
OTHERS = ("#5b7fb5", "#c9a227", "#8a6bb1", "#9a9a9a", "#7aa661", "#a9745b", "#444444")
"""Of the series that stand beside ours: none is near the colour of a loss."""

_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib has it with it
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "objcg",
    # text remains text: smaller, and it can be searched for
    "svg.fonttype": "none",
}

_WIDTH = 9.5
_LEGEND_COLUMNS = 8
_LEAST_SPAN = 4.0
"""Of a logarithmic axis of curves: the quotient of its ends, at least."""
_LINE = 0.155
"""Of a picture, inches: its width; the height of a line of text or of a bar."""

_DIGEST = "made from the result with SHA-256 "


def check(path: str) -> None:
    """See that a picture can be drawn, and would be, before anything is measured for it.

    Raises:
        BenchmarkError: matplotlib is not installed, or there is no folder of that name.
        ValueError: the name ends with no format.
    """
    if os.path.splitext(path)[1] not in FORMATS:
        raise ValueError(f"{path!r} does not end with {' or '.join(FORMATS)}")
    folder = os.path.dirname(path) or "."
    if not os.access(folder, os.W_OK):
        raise BenchmarkError(f"cannot write into the folder {folder!r}")
    _matplotlib("figure")


def _matplotlib(module: str) -> Any:
    name = f"matplotlib.{module}".rstrip(".")
    return imported(name, "pictures are drawn by matplotlib", "matplotlib")


def digest(result: dict[str, Any]) -> str:
    """Return the digest of a result of ``--json``."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def digest_of(path: str) -> str | None:
    """Return the digest of the result that an SVG file was made from; None: it has none.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8") as file:
        found = re.search(f"{_DIGEST}([0-9a-f]{{64}})", file.read())
    return found[1] if found else None


def draw(benchmark: Any, result: dict[str, Any], path: str) -> None:
    """Write the picture of a result.

    Raises:
        BenchmarkError: see `check`; or nothing in the result can be drawn.
        OSError: the file cannot be written.
        ValueError: see `check`.
    """
    check(path)
    described = figures.of(benchmark, result["rows"])
    with _matplotlib("").rc_context(_SETTINGS):
        figure = _figure(described, _heading(benchmark, result))
        origin = {
            "Description": _DIGEST + digest(result),
            "Creator": f"objcg bench {result['name']}",
        }
        picture = io.BytesIO()
        if path.endswith(".svg"):
            figure.savefig(picture, format="svg", metadata={**origin, "Date": None})
            content = _smaller(picture.getvalue().decode()).encode()
        else:
            figure.savefig(picture, format="png", dpi=130, metadata=origin | {"Software": None})
            content = picture.getvalue()
    with open(path, "wb") as file:
        file.write(content)


_FONT = "font-family: 'DejaVu Sans', sans-serif"


def _smaller(svg: str) -> str:
    """Return an SVG of half the bytes: tenths of a pixel are not seen, and one font is enough."""
    svg = re.sub(r' transform="rotate\(-0[^"]*"', "", svg)
    svg = svg.replace(f"{_FONT}; ", "").replace("<svg ", f'<svg style="{_FONT}" ', 1)
    svg = re.sub(r"(?<![\w.>])\d+\.\d{2,}(?=[ \"\n,)])", _tenths, svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return re.sub(r"\n\s+", "\n", svg)


def _tenths(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}"


class _Heading(NamedTuple):
    title: str
    lines: list[str]


def _heading(benchmark: Any, result: dict[str, Any]) -> _Heading:
    head = result["rows"][0]
    rounds = f", rounds: {head['rounds']}" if "rounds" in head else ""
    where = [result["machine"], f"{result['python']}{rounds}"]
    return _Heading(
        f"{result['name']}: {benchmark.DESCRIPTION}",
        [line for text in where for line in textwrap.wrap(text, 125)],
    )


def _figure(described: Figure, heading: _Heading) -> Any:
    columns = min(described.columns, len(described.panels))
    lines = math.ceil(len(described.panels) / columns)
    heights = [_height(panel) for panel in described.panels]
    of_line = [max(heights[i * columns : (i + 1) * columns]) for i in range(lines)]
    title = textwrap.wrap(heading.title, 95)
    bars = [panel for panel in described.panels if isinstance(panel, Bars)]
    legend = _handles(bars)
    curves = [panel for panel in described.panels if isinstance(panel, Curves)]
    if curves:
        patch = _matplotlib("patches").Patch
        legend += [patch(color=c, label=label) for label, c in _curve_colours(curves[0]).items()]
        if any(_is_lost(panel, curve, y) for panel in curves for curve, y in _ends(panel)):
            legend.append(patch(color=LOSS, label=f"{OURS}, worse"))
    legend_lines = math.ceil(len(legend) / _LEGEND_COLUMNS)
    top = _LINE * (1.5 * len(title) + len(heading.lines) + 1.3 * legend_lines + 1)
    notes = [line for text in described.notes for line in textwrap.wrap(text, 135)]
    bottom = _LINE * (len(notes) + 1)
    height = top + bottom + sum(of_line)

    figure = _matplotlib("figure").Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(
        rect=(0, bottom / height, 1, 1 - (top + bottom) / height), hspace=0.04, wspace=0.04
    )
    axes = figure.subplots(lines, columns, squeeze=False, height_ratios=of_line).flatten()
    for panel, at in zip(described.panels, axes, strict=False):
        if isinstance(panel, Bars):
            _draw_bars(at, panel)
        else:
            _draw_curves(at, panel)
    for at in axes[len(described.panels) :]:
        at.set_axis_off()
    y = height - _LINE
    for size, weight, texts in ((10.5, "bold", title), (7.5, "normal", heading.lines)):
        for text in texts:
            figure.text(0.1 / _WIDTH, y / height, text, size=size, weight=weight, va="center")
            y -= _LINE * (1.5 if weight == "bold" else 1)
    if legend:
        figure.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(0.0, (y + 0.6 * _LINE) / height),
            ncols=min(len(legend), _LEGEND_COLUMNS),
            fontsize=7.5,
            frameon=False,
            handlelength=1.2,
        )
    for i, text in enumerate(reversed(notes)):
        y = _LINE * (i + 0.8)
        figure.text(0.1 / _WIDTH, y / height, text, size=7, color=GREY, va="center")
    return figure


def _handles(panels: Sequence[Bars]) -> list[Any]:
    """Return what the legend of a picture shows."""
    patch = _matplotlib("patches").Patch
    handles = [patch(color=colour, label=text) for text, colour in _legend(panels)]
    if any(value.goal is not None for panel in panels for value in panel.values):
        line = _matplotlib("lines").Line2D
        handles.append(line([], [], color="black", linewidth=2, label="goal: at most"))
    return handles


def _height(panel: Bars | Curves) -> float:
    if isinstance(panel, Curves):
        return 2.6
    _, lines = _places(panel.values)
    return _LINE * (lines + 5)


def _series(values: Sequence[Value]) -> list[str]:
    return list(dict.fromkeys(value.series for value in values))


def _places(values: Sequence[Value]) -> tuple[list[float], float]:
    """Return where each value stands, in lines from the top, and how many lines there are.

    Those of one label stand together, with half a line between labels.
    """
    labels = dict.fromkeys(value.label for value in values)
    gap = 0.5 if len(labels) < len(values) else 0.0
    at: dict[str, float] = {}
    line = 0.0
    for label in labels:
        at[label] = line
        line += sum(value.label == label for value in values) + gap
    places = []
    for value in values:
        places.append(at[value.label])
        at[value.label] += 1
    return places, line - gap


# ---- Bars and dots -------------------------------------------------------------------------------


def _draw_bars(axes: Any, panel: Bars) -> None:
    values = panel.values
    places, lines = _places(values)
    colours = _colours(panel)
    logarithmic = panel.logarithmic
    if logarithmic is None:
        numbers = [value.value for value in values] + [panel.reference or values[0].value]
        logarithmic = max(numbers) > 4 * min(numbers)
    if logarithmic:
        axes.set_xscale("log")
    start = panel.reference if panel.reference is not None else _start(values, logarithmic)
    numbers = [value.value for value in values]
    if panel.dots:
        axes.scatter(numbers, places, s=9, c=colours, zorder=3, linewidths=0)
    else:
        axes.barh(places, [n - start for n in numbers], 0.78, left=start, color=colours, zorder=2)
    spread = [(p, v.quartiles, c) for p, v, c in zip(places, values, colours, strict=True)]
    lines_at = [(place, quartiles, colour) for place, quartiles, colour in spread if quartiles]
    axes.hlines(
        [place for place, _, _ in lines_at],
        [quartiles[0] for _, quartiles, _ in lines_at],
        [quartiles[1] for _, quartiles, _ in lines_at],
        colors=[colour for _, _, colour in lines_at] if panel.dots else "black",
        linewidth=1,
        zorder=4,
    )
    _name_lines(axes, values, places)
    _limit_and_label(axes, panel, places, start, logarithmic=logarithmic)
    if panel.reference is not None:
        axes.axvline(panel.reference, color="black", linewidth=0.9, zorder=5)
    for place, value in zip(places, values, strict=True):
        if value.goal is not None:
            axes.vlines(value.goal, place - 0.5, place + 0.5, colors="black", linewidth=2, zorder=6)
    axes.set_ylim(lines - 0.4, -0.6)
    axes.set_title(panel.title, loc="left")
    axes.set_xlabel(panel.axis)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _short(number: float) -> str:
    return f"{number:,.3g}" if number < 1000 else f"{number:,.0f}"


def _start(values: Sequence[Value], logarithmic: bool) -> float:  # noqa: FBT001
    """Return where bars begin: at 0, or below the smallest where there is no 0."""
    least = min(min([v.value, *([v.goal] if v.goal else [])]) for v in values)
    return float(10 ** math.floor(math.log10(least / 1.5))) if logarithmic else 0.0


def is_loss(value: Value, panel: Bars) -> bool:
    """Say whether it is to have the colour of a loss: above its goal, or above the reference."""
    if panel.reference is not None:
        return round(value.value, 2) > panel.reference
    return value.goal is not None and value.value > value.goal


def _colours(panel: Bars) -> list[str]:
    others = [series for series in _series(panel.values) if series != OURS]
    of_other = dict(zip(others, cycle(OTHERS), strict=False))
    return [
        of_other.get(value.series, LOSS if is_loss(value, panel) else GAIN)
        for value in panel.values
    ]


def _name_lines(axes: Any, values: Sequence[Value], places: Sequence[float]) -> None:
    by_label: dict[str, list[float]] = {}
    for value, place in zip(values, places, strict=True):
        by_label.setdefault(value.label, []).append(place)
    middles = [sum(at) / len(at) for at in by_label.values()]
    axes.set_yticks(middles, [textwrap.shorten(label, 72) for label in by_label])
    axes.tick_params(axis="y", length=0)


def _limit_and_label(
    axes: Any, panel: Bars, places: Sequence[float], start: float, *, logarithmic: bool
) -> None:
    """Write the numbers beside the bars, and make room for them."""
    reach = [start] + [
        number
        for value in panel.values
        for number in (value.value, *(value.quartiles or ()), *([value.goal] if value.goal else ()))
    ]
    low, high = min(reach), max(reach)
    ratios = panel.reference is not None
    if logarithmic:
        room = (high / low) ** 0.13
        axes.set_xlim(low / room if ratios else low, high * room)
        axes.xaxis.set_major_formatter(lambda x, _: _short(x))
        # narrow panels have room for few numbers
        steps = (1, 2, 5) if high / low < 15 else (1, 3) if high / low < 150 else (1,)
        axes.xaxis.set_major_locator(_matplotlib("ticker").LogLocator(subs=steps))
        axes.minorticks_off()
    else:
        room = (high - low or 1.0) * 0.13
        axes.set_xlim(low - room if ratios else low, high + room)
    for place, value in zip(places, panel.values, strict=True):
        below = ratios and value.value < start
        ends = [value.value, *(value.quartiles or ())]
        axes.annotate(
            f"{value.value:.2f}" if ratios else _short(value.value),
            (min(ends) if below else max(ends), place),
            xytext=(-3 if below else 3, 0),
            textcoords="offset points",
            ha="right" if below else "left",
            va="center",
            fontsize=6,
        )


def _legend(panels: Sequence[Bars]) -> list[tuple[str, str]]:
    """Return the texts and colours of all series in some panels; of a single one, nothing."""
    drawn = [
        (value.series, colour, panel.reference is not None)
        for panel in panels
        for value, colour in zip(panel.values, _colours(panel), strict=True)
    ]
    ours = {(colour, is_ratio) for series, colour, is_ratio in drawn if series == OURS}
    entries = [(OURS, GAIN)] if any(colour == GAIN for colour, _ in ours) else []
    losses = {"worse": (LOSS, True) in ours, "above its goal": (LOSS, False) in ours}
    if any(losses.values()):
        which = " or ".join(text for text, is_there in losses.items() if is_there)
        entries.append((f"{OURS}, {which}", LOSS))
    entries += dict.fromkeys((series, colour) for series, colour, _ in drawn if series != OURS)
    return entries if len(entries) > 1 or LOSS in dict(entries).values() else []


# ---- Curves --------------------------------------------------------------------------------------


def _curve_colours(panel: Curves) -> dict[str, str]:
    others = cycle(OTHERS)
    labels = [curve.label for curve in panel.curves]
    return {label: GAIN if label == OURS else next(others) for label in labels}


def _ends(panel: Curves) -> list[tuple[Curve, float]]:
    return [(curve, point[1]) for curve in panel.curves for point in curve.points]


def _is_lost(panel: Curves, curve: Curve, y: float) -> bool:
    """Say whether a point is to have the colour of a loss."""
    return panel.reference is not None and curve.label == OURS and round(y, 2) > panel.reference


def _draw_curves(axes: Any, panel: Curves) -> None:
    colours = _curve_colours(panel)
    for curve in panel.curves:
        colour = colours[curve.label]
        x = [point[0] for point in curve.points]
        y = [point[1] for point in curve.points]
        axes.plot(x, y, marker="o", markersize=3, linewidth=1.2, color=colour, label=curve.label)
        spread = [(at, quartiles) for at, _, quartiles in curve.points if quartiles]
        axes.vlines(
            [at for at, _ in spread],
            [quartiles[0] for _, quartiles in spread],
            [quartiles[1] for _, quartiles in spread],
            colors=colour,
            linewidth=1,
        )
        lost = [point[:2] for point in curve.points if _is_lost(panel, curve, point[1])]
        if lost:
            axes.scatter(*zip(*lost, strict=True), s=16, c=LOSS, zorder=3, linewidths=0)
    if panel.reference is not None:
        axes.axhline(panel.reference, color="black", linewidth=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({point[0] for curve in panel.curves for point in curve.points}))
    ends = [end for curve in panel.curves for _, y, q in curve.points for end in (y, *(q or ()))]
    ends += [panel.reference] if panel.reference is not None else []
    low, high = min(ends), max(ends)
    # what differs little shall look so
    room = max(1.1, math.sqrt(_LEAST_SPAN * low / high))
    axes.set_ylim(low / room, high * room)
    steps = (1, 1.5, 2, 3, 5, 7) if high / low < 10 else (1, 2, 5) if high / low < 100 else (1,)
    axes.yaxis.set_major_locator(_matplotlib("ticker").LogLocator(subs=steps))
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda x, _: _short(x))
    axes.set_title(textwrap.fill(panel.title, 62), loc="left", fontsize=8)
    axes.set_xlabel(panel.x_axis)
    axes.set_ylabel(panel.y_axis)
    axes.grid(color="#dddddd", linewidth=0.6)
