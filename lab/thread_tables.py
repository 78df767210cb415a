"""Put the tables of a measurement into a document: no figure in it is typed by hand.

    objcg bench seed --json > seed.json
    python lab/thread_tables.py seed.json docs/thread.md

Rewrites what stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``. The names are
those that ``objcg bench seed --markdown`` prints, and ``machine``: what was measured, and where.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from objcg import bench
from objcg.bench.runner import TABLE_BEGIN, TABLE_END


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return all tables of a result, by name."""
    rows = result["rows"]
    rounds = f"{rows[0]['rounds']} rounds in {rows[0]['processes']} processes"
    machine = f"{result['machine']}; {rows[0]['compiler']}; {result['python']}; {rounds}."
    return {"machine": machine, **bench.load(result["name"]).markdown(rows)}


def rewrite(document: str, by_name: dict[str, str]) -> str:
    """Return the document with its tables replaced.

    Raises:
        ValueError: a marker names no table, or has no end; or there is no marker at all.
    """
    before, after = TABLE_BEGIN.split("{}")
    lines: list[str] = []
    open_table: str | None = None
    found = 0
    for line in document.splitlines():
        if line.startswith(before) and line.endswith(after):
            if open_table is not None:
                break
            open_table = line[len(before) : -len(after)]
            if open_table not in by_name:
                raise ValueError(f"no table {open_table!r}; there are {', '.join(by_name)}")
            lines += [line, by_name[open_table], TABLE_END]
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


def main() -> int:
    """Rewrite the document that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("result", type=Path, help="what objcg bench seed --json has printed")
    parser.add_argument("document", type=Path, help="is rewritten")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8"))
    try:
        text = rewrite(options.document.read_text(encoding="utf-8"), tables(result))
    except ValueError as error:
        print(f"{options.document}: {error}", file=sys.stderr)
        return 1
    options.document.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
