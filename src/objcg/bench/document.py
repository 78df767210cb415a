"""Documents whose tables are made from results: what is typed by hand stays, what is measured not.

A table stands between the lines `TABLE_BEGIN`, with its name, and `TABLE_END`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .runner import TABLE_BEGIN, TABLE_END

if TYPE_CHECKING:
    from collections.abc import Mapping

_BEFORE, _AFTER = TABLE_BEGIN.split("{}")


def _name(line: str) -> str | None:
    """Return the name of the table that begins here, if one does."""
    if line.startswith(_BEFORE) and line.endswith(_AFTER):
        return line[len(_BEFORE) : -len(_AFTER)]
    return None


def names(document: str) -> list[str]:
    """Return the names of the tables of a document, in its order."""
    return [name for line in document.splitlines() if (name := _name(line)) is not None]


def rewrite(document: str, by_name: Mapping[str, str]) -> str:
    """Return the document with its tables replaced.

    Raises:
        ValueError: a marker names no table, or has no end; or there is no marker at all.
    """
    lines: list[str] = []
    open_table: str | None = None
    found = 0
    for line in document.splitlines():
        name = _name(line)
        if name is not None:
            if open_table is not None:
                break
            open_table = name
            if name not in by_name:
                raise ValueError(f"no table {name!r}; there are {', '.join(by_name)}")
            lines += [line, by_name[name], TABLE_END]
            found += 1
        elif open_table is None:
            lines.append(line)
        elif line == TABLE_END:
            open_table = None
    if open_table is not None:
        raise ValueError(f"table {open_table!r} has no {TABLE_END}")
    if not found:
        raise ValueError(f"it has no line {TABLE_BEGIN.format('NAME')}")
    return "\n".join(lines) + "\n"
