"""Make the tables of docs/reliability.md from results in docs/reliability/*.json.

    python docs/reliability.py            # rewrites the document
    python docs/reliability.py --check    # exits with 1 if it is not up to date

`make downstream` writes SUITE-VERSION.json, `make soak ARGS="--json ..."` soak.json.
What stands outside of the lines ``<!-- table: ... -->`` and ``<!-- end -->`` is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from objcg.bench import document

FOLDER = Path(__file__).resolve().parent / "reliability"
DOCUMENT = FOLDER.with_suffix(".md")
MIB = 1 << 20


def downstream(folder: Path) -> list[str]:
    """Return the table of other people's suites."""
    lines = [
        "| suite | CPython | units | tests | alike | explained | differ | audits | drift |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for file in sorted(folder.glob("*-3.*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        units = result["units"].values()
        tests = sum(unit.get("tests", 0) for unit in units)
        differing = [one for unit in units for one in unit.get("differing", ())]
        unstable = sum(len(unit.get("unstable", ())) for unit in units)
        explained = sum(one["reason"] is not None for one in differing)
        audits = [unit["drift"] for unit in units if "drift" in unit]
        same = f"{tests - len(differing) - unstable:,}"
        lines.append(
            f"| {result['suite']} | {result['python']} | {len(units)} | {tests:,} "
            f"| {same}{f' ({unstable} unstable)' if unstable else ''} | {explained} "
            f"| {len(differing) - explained} | {len(audits)} | {sum(audits)} |"
        )
    return lines


def differences(folder: Path) -> list[str]:
    """Return a list of what differs, and why."""
    reasons: dict[str, Counter[str]] = {}
    for file in sorted(folder.glob("*-3.*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        for unit in result["units"].values():
            for one in unit.get("differing", ()):
                reason = one["reason"] or "not explained"
                reasons.setdefault(reason, Counter())[f"`{one['test']}`"] += 1
    return [f"- {', '.join(tests)}: {reason}" for reason, tests in reasons.items()] or ["None."]


def soak(folder: Path) -> list[str]:
    """Return the table of the long run; one line where it was not run."""
    try:
        result: dict[str, Any] = json.loads((folder / "soak.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ["Not run yet."]
    rows = {
        "seconds": result["seconds"],
        "CPython": result["python"],
        "requests, of which failed": f"{result['requests']:,}, {result['failures']}",
        **{name: f"{count:,}" for name, count in result["counted"].items()},
        "median RSS, second quarter": f"{result['rss_second_quarter'] / MIB:.1f} MiB",
        "median RSS, last quarter": f"{result['rss_last_quarter'] / MIB:.1f} MiB",
        "most dying objcgs at once": result["most_dying"],
        "what must not be": "; ".join(result["wrong"]) or "nothing",
    }
    return ["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows.items())]


TABLES = {"downstream": downstream, "differences": differences, "soak": soak}


def main(arguments: list[str]) -> int:
    """Write the document, or check it; return the exit status."""
    before = DOCUMENT.read_text(encoding="utf-8")
    tables = {name: "\n".join(table(FOLDER)) for name, table in TABLES.items()}
    after = document.rewrite(before, tables)
    if arguments == ["--check"]:
        if after != before:
            print(f"{DOCUMENT} is not up to date: python docs/reliability.py", file=sys.stderr)
        return int(after != before)
    DOCUMENT.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
