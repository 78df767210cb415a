"""What many small objects take of resident memory, and what of it comes back; beside stock CPython.

A program makes n objects of one kind, frees all but a tenth, drawn at random, and then the rest:

- "held": n objects. What they added to the resident memory of the process.
- "peak": the process at its peak.
- "few": a tenth is left. What is above the start: more than the objects, as they lie scattered.
- "none": the process a moment (``--settle``) after the last object was freed.

Each measurement is a process of its own. What the objects themselves come to is what CPython asks
for, by tracemalloc in another process. Other allocators that are loaded in place of malloc stand
beside where they are found, with their default settings: jemalloc's are to return memory over ten
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from typing import TYPE_CHECKING, NamedTuple

from . import _allocators
from ._programs import _process
from ._programs._process import STOCK
from .figures import WHISKERS, Bars, Figure, Value, left_out
from .programs import marked, parse_scale
from .runner import BenchmarkError, markdown_table, nothing, ratios, summary, text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .runner import Options, Row

NAME = "memory"
DESCRIPTION = "resident memory of many small objects, its fragmentation, and what comes back"
ROUNDS = 5

KINDS = {
    "ints": 5_000_000,
    "tuples": 3_000_000,
    "instances": 2_000_000,
    "dicts": 1_000_000,
    "strs": 3_000_000,
}
"""What is made, and how many of it at scale 1: some 200 MiB."""

STAGES = {
    "held": "n objects: what they added",
    "peak": "the process at its peak",
    "few": "a tenth is left, drawn at random: what is above the start",
    "none": "the process a moment after the last object was freed",
}
"""What a row is of, and of what its bytes and its ratio are."""

_PROGRAM = os.path.join(os.path.dirname(_process.__file__), "_holder.py")
_QUICK_SCALE = 0.05
_SAMPLE = 10_496
"""How many objects the bytes of one are an average of: a multiple of the strings' lengths."""


class Life(NamedTuple):
    """Resident bytes of one process."""

    before: int
    held: int
    few: int
    none: int
    peak: int
    kept: int
    """How many objects were left at `few`."""
    group: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    parser.add_argument(
        "--only",
        metavar="KIND",
        choices=KINDS,
        action="append",
        help=f"measure this one only; may be repeated ({', '.join(KINDS)})",
    )
    parser.add_argument(
        "--scale",
        metavar="X",
        type=parse_scale,
        help=f"how many objects (default: 1, millions, some 200 MiB; {_QUICK_SCALE} with --quick)",
    )
    parser.add_argument(
        "--settle",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="how long to wait for memory to be returned (default: %(default)s)",
    )
    _allocators.add_option(parser)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 600 seconds")
    return number


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    only = options.extra.get("only") or KINDS
    scale = options.extra.get("scale") or (_QUICK_SCALE if options.quick else 1.0)
    settle = options.extra.get("settle", 1.0)
    libraries, skipped = _allocators.sides(options)
    objects = {kind: max(int(n * scale), 1000) for kind, n in KINDS.items() if kind in only}
    lives: dict[tuple[str, str], list[Life]] = {(k, s): [] for k in objects for s in libraries}
    size: dict[str, float] = {}
    order = random.Random(options.seed)  # noqa: S311  # an order, no secret
    for kind in objects:
        answer = _process.run(
            STOCK, [_PROGRAM, kind, str(_SAMPLE)], hash_seed=1, tracer="tracemalloc"
        )
        size[kind] = int(answer.output) / _SAMPLE
    for number in range(options.rounds):
        for kind in order.sample(list(objects), len(objects)):
            for side in order.sample(list(libraries), len(libraries)):
                options.progress(f"memory: {number} of {options.rounds} rounds, {kind}, {side}")
                seed = options.seed + number  # the same objects are kept on all sides of a round
                asked = [kind, str(objects[kind]), str(seed), str(settle)]
                lives[kind, side].append(_live(side, asked, libraries[side], seed))
    options.progress("")
    where = {"scale": scale, "settle": settle, "rounds": options.rounds, "seed": options.seed}
    rows = [
        {
            "kind": kind,
            "n": n,
            "side": side,
            "live_bytes_per_object": size[kind],
            **row,
            "library": path,
            **where,
        }
        for kind, n in objects.items()
        for side, path in libraries.items()
        for row in _rows(
            n, size[kind], lives[kind, side], None if side == STOCK else lives[kind, STOCK]
        )
    ]
    return rows + skipped


def _live(side: str, arguments: list[str], library: str | None, seed: int) -> Life:
    result = _process.run(side, [_PROGRAM, *arguments], hash_seed=seed, library=library)
    try:
        found = json.loads(result.output)
        return Life(**found, peak=result.peak_bytes, group=result.group)
    except (TypeError, ValueError):
        raise BenchmarkError(f"the program said something else: {result.output!r}") from None


def _rows(n: int, size: float, lives: list[Life], stock: list[Life] | None) -> list[Row]:
    """Return a row for each stage, beside stock's."""
    rows = []
    for stage in STAGES:
        values = _bytes(stage, lives)
        compared = nothing("ratio")
        if stock is not None:
            compared = summary("ratio", ratios(values, _bytes(stage, stock)))
        row: Row = {
            "stage": stage,
            **summary("bytes", values),
            **compared,
            "baseline": None if stock is None else STOCK,
            "group": lives[-1].group or None,
        }
        if stage == "held":
            row |= summary("bytes_per_object", [value / n for value in values])
        if stage == "few":
            row["kept"] = [life.kept for life in lives]
            over = [value / (size * life.kept) for value, life in zip(values, lives, strict=True)]
            row |= summary("over_live", over)
        if stage == "none":
            back = [(life.held - life.none) / (life.held - life.before) for life in lives]
            row |= summary("returned", back)
        rows.append(row)
    return rows


def _bytes(stage: str, lives: Sequence[Life]) -> list[float]:
    """Return what `STAGES` says, of each process."""
    if stage in {"held", "few"}:
        return [float(getattr(life, stage) - life.before) for life in lives]
    return [float(getattr(life, stage)) for life in lives]


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios, a panel for each stage."""
    panels = [
        Bars(
            f"{stage}: {text}",
            f"ratio to {STOCK} (above 1: worse)",
            [
                Value(row["kind"], row["ratio"], row["ratio_quartiles"], row["side"])
                for row in rows
                if row.get("stage") == stage and row["ratio"] is not None
            ],
            1.0,
        )
        for stage, text in STAGES.items()
    ]
    panels = [panel for panel in panels if panel.values]
    return Figure(panels, columns=2, notes=[WHISKERS, *left_out(rows)])


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    head = rows[0]
    how = (
        f"{head['rounds']} rounds, scale {head['scale']:g}; each measurement a process of its own. "
        f"Resident memory, {head['settle']:g} s after a free; x: ratio to {STOCK}, with quartiles; "
        "!: above 1.00, worse."
    )
    parts = [how]
    for stage, (headings, lines) in _tables(rows).items():
        parts.append(f"{stage}: {_EXPLAINED[stage]}\n{text_table(headings, lines)}")
    return "\n\n".join([*parts, *_allocators.skipped_text(rows)])


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown."""
    return {f"{NAME}-{stage}": markdown_table(*lines) for stage, lines in _tables(rows).items()}


_EXPLAINED = {
    "held": "bytes that an object adds to the process",
    "peak": "the process at its peak, MiB",
    "few": "a tenth is left, drawn at random: bytes above the start, over the objects' own",
    "none": "the process after the last object was freed, MiB, and what share of what the "
    "objects had added was returned",
}


def _tables(rows: list[Row]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return headings and lines for each stage."""
    rows = [row for row in rows if "skipped" not in row]
    sides = list(dict.fromkeys(row["side"] for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    cells = {(row["kind"], row["stage"], row["side"]): row for row in rows}
    return {
        stage: (
            ["objects", *sides],
            [
                [
                    f"{cells[kind, stage, STOCK]['n']:,} {kind}",
                    *(_cell(cells[kind, stage, side]) for side in sides),
                ]
                for kind in kinds
            ],
        )
        for stage in STAGES
    }


def _cell(row: Row) -> str:
    stage = row["stage"]
    if stage == "held":
        text = f"{row['bytes_per_object']:.1f}"
        if row["side"] == STOCK:
            text += f" (of {row['live_bytes_per_object']:.1f})"
    elif stage == "few":
        text = f"{row['over_live']:.2f}"
    else:
        text = f"{row['bytes'] / 2**20:.1f}"
    if stage == "none":
        text += f", {100 * row['returned']:.1f} %"
    return text if row["ratio"] is None else f"{text}  {marked(row, 'ratio')}"
