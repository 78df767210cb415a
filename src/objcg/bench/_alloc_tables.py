"""The result of `alloc` for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _allocators
from ._programs._process import OBJCG, STOCK
from .figures import Curve, Curves, Figure, left_out
from .runner import markdown_table, ratio_text, text_table, with_quartiles

if TYPE_CHECKING:
    from .runner import Row

_TEXTS = {
    "fifo": "{:,}, freed oldest first",
    "lifo": "{:,}, freed newest first",
    "random": "{:,}, freed random order",
    "pair": "each freed before the next",
    "threads": "freed by another thread",
    "realloc-list": "realloc, as a list grows",
    "realloc-bytearray": "realloc, as a bytearray grows",
}

_Case = tuple[int, int, str]
"""Size, n as asked for, pattern."""


def figure(rows: list[Row]) -> Figure:
    """Return the ratios by size, a panel for each pattern and number of blocks."""
    by_panel: dict[str, dict[str, list[Row]]] = {}
    for row in _measured(rows):
        if _is_whole(row):
            title = _TEXTS[row["pattern"]].format(row["asked"])
            by_panel.setdefault(title, {}).setdefault(row["side"], []).append(row)
    panels = [
        Curves(
            title,
            "bytes of a block",
            f"ratio to {STOCK} (above 1: slower)",
            [
                Curve(side, [(row["size"], row["ratio"], row["ratio_quartiles"]) for row in of])
                for side, of in by_side.items()
            ],
            reference=1.0,
        )
        for title, by_side in by_panel.items()
    ]
    note = "Upright lines: from the first to the third quartile of the rounds."
    return Figure(panels, columns=2, notes=[note, *left_out(rows)])


def table(rows: list[Row]) -> str:
    """Return the rows for a terminal."""
    measured = _measured(rows)
    head = measured[0]
    processes = (
        "one set of processes for all cases"
        if head["worn"]
        else f"{head['processes']} sets of processes for each case"
    )
    pages = "" if head["huge_pages"] else " Without transparent huge pages."
    how = (
        f"{head['rounds']} rounds in {processes}. Nanoseconds of an allocation with its free, or "
        f"of a realloc(); x: ratio to {head['baseline']}, with quartiles.{pages}"
    )
    headings, lines = _lines(measured)
    parts = [how, text_table(headings, lines, left=3), *_allocators.skipped_text(rows)]
    goals = [row for row in measured if row["goal"] is not None]
    if goals:
        missed = [row["pattern"] for row in goals if not row["goal_met"]]
        of = f"{goals[0]['size']} bytes, n = {goals[0]['n']:,}"
        goal = f"goal: at most {goals[0]['goal']['most']:.2f}x at {of}, in every pattern"
        parts.append(f"{goal}: {'MISSED in ' + ', '.join(missed) if missed else 'met'}")
    return "\n\n".join(parts)


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return the same in Markdown, and the ratios alone, a table for each side."""
    measured = _measured(rows)
    headings, lines = _lines(measured)
    tables = {"alloc": markdown_table(headings, lines, left=3)}
    for side in dict.fromkeys(row["side"] for row in measured):
        tables[f"alloc-{side}"] = markdown_table(
            *_ratios([row for row in measured if row["side"] == side and _is_whole(row)])
        )
    return tables


def _measured(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "skipped" not in row]


def _is_whole(row: Row) -> bool:
    return row["phase"] in {"sum", "realloc"}


def _case(row: Row) -> _Case:
    return row["size"], row["asked"], row["pattern"]


def _lines(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a line for each case."""
    others = [side for side in dict.fromkeys(row["side"] for row in rows) if side != OBJCG]
    cells = {(_case(row), row["side"], row["phase"]): row for row in rows}
    whole = [row for row in rows if row["side"] == OBJCG and _is_whole(row)]
    headings = ["size", "n", "pattern", "stock, ns", "objcg, ns", "alloc", "free", "objcg"]
    lines = []
    for row in whole:
        parts = [cells.get((_case(row), OBJCG, phase)) for phase in ("alloc", "free")]
        lines.append(
            [
                str(row["size"]),
                f"{row['n']:,}",
                row["pattern"],
                with_quartiles(row, "stock_ns", 1),
                with_quartiles(row, "ns", 1),
                *("" if part is None else f"{part['ratio']:.2f}x" for part in parts),
                ratio_text(row),
                *(ratio_text(cells[_case(row), side, row["phase"]]) for side in others),
                "" if row["goal"] is None else "met" if row["goal_met"] else "MISSED",
            ]
        )
    return [*headings, *others, "goal"], lines


def _ratios(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a line for each pattern, losses in bold.

    Of large blocks there are fewer than the line says.
    """
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    cells: dict[str, dict[int, str]] = {}
    for row in rows:
        text = f"{row['ratio']:.2f}"
        of_size = cells.setdefault(_TEXTS[row["pattern"]].format(row["asked"]), {})
        of_size[row["size"]] = f"**{text}**" if float(text) > 1 else text
    lines = [[text, *(of_size.get(size, "") for size in sizes)] for text, of_size in cells.items()]
    return ["blocks", *map(str, sizes)], lines
