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
from objcg.bench.document import rewrite


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return all tables of a result, by name."""
    rows = result["rows"]
    rounds = f"{rows[0]['rounds']} rounds in {rows[0]['processes']} processes"
    machine = f"{result['machine']}; {rows[0]['compiler']}; {result['python']}; {rounds}."
    return {"machine": machine, **bench.load(result["name"]).markdown(rows)}


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
