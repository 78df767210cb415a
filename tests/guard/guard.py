#!/usr/bin/env python3
"""Compares the instructions that objcg costs with those recorded, and fails where they grew.

`objcg bench instructions` counts programs with objcg and without, by this interpreter, in this run;
the ratio of the two is compared with the one in recorded.json.  Ratios of different builds of
CPython differ by up to a tenth, so a record is of one build for each minor version; where there is
none, or another build runs here, that is said, and nothing fails.

    guard.py            compare
    guard.py --record   count twice, and write recorded.json for this minor version

Exit status: 0 if no ratio grew or there was nothing to compare with, 1 if one did, 2 if nothing
could be counted, or the records not read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from objcg import _core
from objcg.bench import instructions, runner

RECORDS = Path(__file__).resolve().parent / "recorded.json"

TOLERANCE = 0.02
"""Of a ratio.  Counts of the same differ by less than a thousandth.  Of "pair", which is little
more than the allocator, this is two or three instructions; of a program, some ten for a block."""

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
RECORD = f"make guard-record-{MINOR}"

Record = dict[str, dict[str, object]]


class GuardError(Exception):
    """It cannot be compared; the text says why and what to do."""


# --- what is compared ---------------------------------------------------------------------------


def compare(counted: dict[str, float], recorded: dict[str, float]) -> tuple[list[str], list[str]]:
    """What is wrong, and what should be known, a line for each."""
    wrong, known = [], []
    for name, ratio in counted.items():
        if name not in recorded:
            wrong.append(f"{name}: counted {ratio:.4f}, but never recorded; {RECORD}")
            continue
        change = ratio / recorded[name] - 1
        line = f"{name}: recorded {recorded[name]:.4f}, counted {ratio:.4f} ({change:+.1%})"
        if change > TOLERANCE:
            wrong.append(f"{line}: more than {TOLERANCE:.0%} above")
        elif change < -TOLERANCE:
            known.append(f"{line}: more than {TOLERANCE:.0%} below; {RECORD}")
    wrong += [
        f"{name}: recorded, but not counted any more; {RECORD}"
        for name in recorded
        if name not in counted
    ]
    return wrong, known


def build() -> dict[str, str]:
    """What the ratios depend on, besides the sources."""
    flags = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
    flags += shlex.split(sysconfig.get_config_var("PY_CORE_CFLAGS") or "")
    # neither folders nor warnings
    kept = dict.fromkeys(flag for flag in flags if "/" not in flag and not flag.startswith("-W"))
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "its compiler": platform.python_compiler(),
        "its flags": " ".join(flag for flag in kept if not flag.startswith(("-I", "CC="))),
        "objcg's compiler": compiler_of(Path(_core.__file__)),
    }


def compiler_of(file: Path) -> str:
    """The compiler that a shared library says it was made by."""
    found = re.search(rb"(GCC: \([^)]*\) [\d.]+|clang version [\d.]+)", file.read_bytes())
    return found[1].decode() if found else "unknown"


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """How this build is not the recorded one, a line for each."""
    return [
        f"{name}: recorded with {there.get(name)!r}, this is {here.get(name)!r}"
        for name in {**there, **here}
        if here.get(name) != there.get(name)
    ]


# --- the records --------------------------------------------------------------------------------


def read_records(path: Path) -> dict[str, Record]:
    """All records, by minor version; none if the file is not there."""
    if not path.exists():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        for record in records.values():
            dict(record["build"])
            if not all(float(ratio) > 0 for ratio in record["ratios"].values()):
                raise ValueError("a ratio is not above 0")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise GuardError(f"{path} cannot be read: {error}; write it anew: {RECORD}") from error
    return records


def write_record(path: Path, minor: str, record: Record) -> None:
    """Replace one record; the others stay."""
    records = {**read_records(path), minor: record}
    newest_first = sorted(records, key=lambda name: -int(name.partition(".")[2]))
    ordered = {name: records[name] for name in newest_first}
    path.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")


# --- counting -----------------------------------------------------------------------------------


def has_valgrind() -> bool:
    """Look for valgrind; install it where that can be done."""
    if not shutil.which("valgrind") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("valgrind is not installed: apt-get install valgrind", file=sys.stderr)
        for command in (["update"], ["install", "-y", "--no-install-recommends", "valgrind"]):
            subprocess.run(["apt-get", *command], check=False, stdout=sys.stderr)
    return shutil.which("valgrind") is not None


def count(rounds: int) -> list[runner.Row]:
    """All programs, on both sides; if more than once, they have to be counted the same."""
    rows = instructions.run(runner.Options(rounds=rounds, seed=1, progress=runner.Progress()))
    for row in rows:
        for side in instructions.SIDES:
            spread = row[f"{side}_spread"]
            if spread is not None and spread >= instructions.SPREAD:
                raise GuardError(
                    f"{row['program']}, {side}: counts of the same differ by {spread:.3%}, which "
                    f"has to be below {instructions.SPREAD:.1%}"
                )
    return rows


def show(rows: list[runner.Row], recorded: dict[str, float]) -> None:
    """Print what was counted."""
    lines = [
        [
            row["program"],
            f"{row['stock_instructions'] / 1e6:,.1f}",
            f"{row['objcg_instructions'] / 1e6:,.1f}",
            f"{row['ratio']:.4f}",
            f"{recorded[row['program']]:.4f}" if row["program"] in recorded else "",
        ]
        for row in rows
    ]
    headings = ["millions of instructions", "stock", "objcg", "ratio", "recorded"]
    print(runner.text_table(headings, lines), flush=True)


# --- the command line ---------------------------------------------------------------------------


def record() -> int:
    """Count, and write."""
    rows = count(rounds=2)
    ratios = {row["program"]: round(row["ratio"], 5) for row in rows}
    write_record(RECORDS, MINOR, {"build": dict(build()), "ratios": dict(ratios)})
    show(rows, ratios)
    print(f"guard: recorded for Python {MINOR} in {RECORDS}")
    return 0


def guard() -> int:
    """Count, and compare; return the exit status."""
    found = read_records(RECORDS).get(MINOR)
    rows = count(rounds=1)
    counted = {row["program"]: row["ratio"] for row in rows}
    recorded = {} if found is None else dict(found["ratios"])
    show(rows, recorded)
    if found is None:
        print(f"guard: NOT COMPARED: nothing is recorded for Python {MINOR}; {RECORD}")
        return 0
    wrong, known = compare(counted, recorded)
    if other := differences(build(), found["build"]):
        print("guard: NOT COMPARED: the record is of another build, and ratios differ between them")
        print("\n".join(other + wrong + known))
        return 0
    for line in known:
        print(f"guard: {line}")
    for line in wrong:
        print(f"guard: FAILED: {line}")
    if not wrong:
        print(f"guard: Python {MINOR}: no ratio is more than {TOLERANCE:.0%} above the recorded")
    return 1 if wrong else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compares instruction counts with those recorded.")
    parser.add_argument("--record", action="store_true", help="write recorded.json anew")
    args = parser.parse_args()
    if not has_valgrind():
        why = "valgrind is not installed (Debian: apt-get install valgrind)"
        if args.record:
            print(f"guard: nothing was recorded: {why}", file=sys.stderr)
            return 2
        print(f"guard: SKIPPED: {why}")
        return 0
    try:
        return record() if args.record else guard()
    except (GuardError, runner.BenchmarkError) as error:
        print(f"guard: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
