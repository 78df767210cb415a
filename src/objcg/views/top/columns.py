"""A row as text: which columns there is room for, and what is in them.

Names of groups are of whoever made them: what could move the cursor is escaped, and a width is
counted in cells of the terminal, of which a CJK character takes two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, set_cell_size

from objcg._sizes import format_size
from objcg.cli.table import printable

from .model import Level, Sort, level, limit, share

if TYPE_CHECKING:
    from collections.abc import Callable

    from .model import Row

_NAME_MIN = 22
_NAME_MAX = 60
_BAR = "bar"
_BAR_MAX = 30

_MARKS = {Level.FINE: "  ", Level.NEAR: "! ", Level.FULL: "!!"}
"""Not everybody sees colours, and not every terminal shows them."""


class Column(NamedTuple):
    """A column: the lower its `rank`, the sooner it makes room."""

    name: str
    width: int
    rank: int
    sort: Sort | None
    text: Callable[[Row], str]


def size(value: int) -> str:
    """Return a size in the notation that a limit is set in: "64.0M"."""
    return format_size(value).replace("iB", "").replace(" ", "")


def rate(value: float) -> str:
    """Return bytes per second, with their sign; nothing where nothing changes."""
    rounded = round(value)
    return f"{'+' if rounded > 0 else ''}{size(rounded)}/s" if rounded else ""


def percent(part: float | None) -> str:
    """Return a share of a limit."""
    if part is None:
        return ""
    return f"{100 * part:.0f}%" if part < 9.995 else ">999%"


def bar(part: float, width: int) -> str:
    """Return a bar of `width` cells, as full as `part`, to an eighth of a cell."""
    eighths = round(8 * width * min(max(part, 0.0), 1.0))
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)


def fitting(text: str, width: int) -> str:
    """Return `text`, escaped, in exactly `width` cells."""
    text = printable(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + "…" if width else ""


def fitting_end(text: str, width: int) -> str:
    """Return `text`, escaped, in exactly `width` cells: of one that is too long, its end."""
    text = printable(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    # each character takes a cell at least, but for some that take none
    kept = text[-width:]
    while kept and cell_len(kept) > width - 1:
        kept = kept[1:]
    return set_cell_size(f"…{kept}", width)


def _limit(row: Row) -> str:
    found = limit(row.group)
    return f"{size(found[0])} {found[1]:4}" if found else "-     "


def _share(row: Row) -> str:
    return f"{percent(share(row.group)):>5} {_MARKS[level(row.group)]}"


def _events(row: Row) -> str:
    if not row.total:
        return ""
    return f"+{row.since}/{row.total}" if row.since else f"{row.total}"


COLUMNS = (
    Column("current", 8, 9, Sort.CURRENT, lambda row: size(row.group.current)),
    Column("peak", 8, 2, Sort.PEAK, lambda row: size(row.group.peak)),
    Column("limit", 12, 5, None, _limit),
    Column(_BAR, 8, 3, None, lambda _row: ""),
    Column("share", 8, 8, Sort.SHARE, _share),
    Column("rate", 10, 7, Sort.RATE, lambda row: rate(row.rate)),
    Column("events", 9, 6, Sort.EVENTS, _events),
    Column("tasks", 6, 1, None, lambda row: str(row.group.tasks) if row.group.tasks else ""),
)


class Layout(NamedTuple):
    """The columns that there is room for, and the width of the names before them."""

    name: int
    columns: tuple[Column, ...]


def layout(width: int) -> Layout:
    """Return what fits into `width` cells; what is spare goes to names and then to the bars."""
    columns = list(COLUMNS)
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        if width - _taken(columns) >= _NAME_MIN:
            break
        columns.remove(column)
    spare = width - _taken(columns)
    more = min(max(0, spare - _NAME_MAX), _BAR_MAX - 8)
    columns = [
        column._replace(width=column.width + more) if column.name == _BAR else column
        for column in columns
    ]
    return Layout(max(0, width - _taken(columns)), tuple(columns))


def _taken(columns: list[Column]) -> int:
    return sum(column.width + 1 for column in columns)


def name(row: Row, width: int, *, flat: bool) -> str:
    """Return what is in the first column: the tree, or of a flat view the path."""
    if flat:
        return fitting_end(row.group.path, width)
    marker = ("▸ " if row.is_collapsed else "▾ ") if row.has_children else "  "
    # deep below, the depth itself says more than spaces that leave no room for a name
    indent = min(2 * row.depth, width // 2)
    lead = " " * indent if indent == 2 * row.depth else f"{row.depth:>{max(2, indent - 1)}} "
    own = row.group.path if row.group.path == "/" else row.group.path.rpartition("/")[2]
    lead = (lead + marker)[:width]
    return lead + fitting(own, width - len(lead))


def cell(column: Column, row: Row) -> str:
    """Return what is in a column, in exactly its width."""
    if column.name == _BAR:
        part = share(row.group)
        return " " * column.width if part is None else bar(part, column.width)
    text = column.text(row)
    # numbers of a hostile file may be of any length
    return text.rjust(column.width) if len(text) <= column.width else text[: column.width - 1] + "…"


def is_bar(column: Column) -> bool:
    """Whether a column is the bar, which has colours of its own."""
    return column.name == _BAR


def heading(column: Column, sort: Sort, *, is_reversed: bool) -> str:
    """Return what is above a column; the one that rows are sorted by has an arrow."""
    if column.name == _BAR:
        return " " * column.width
    arrow = ""
    if column.sort is sort:
        arrow = "▲" if is_reversed else "▼"
    text = f"{arrow}{column.name}"
    # under a heading to the right are the numbers, not what follows them
    pad = {"limit": 5, "share": 3}.get(column.name, 0)
    return (text + " " * min(pad, column.width - len(text))).rjust(column.width)


def name_heading(width: int, sort: Sort, *, is_reversed: bool) -> str:
    """Return what is above the names."""
    arrow = ("▼" if is_reversed else "▲") if sort is Sort.NAME else ""
    return fitting(f"group{arrow}", width)
