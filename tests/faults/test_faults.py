"""A slice of the sweep over all allocations (`make faults`): every 31st, of the first 400."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).with_name("sweep.py")
# Of each kind some; none of those in which CPython loses a wake-up, and which hang for seconds.
SLICE = [
    "json_",
    "regular_expressions",
    "pickles",
    "generators",
    "contexts",
    "tracebacks",
    "entering",
    "steering",
]


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SWEEP), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_programs_survive_that_an_allocation_fails() -> None:
    result = sweep("--every", "31", "--most", "400", *SLICE)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line for line in result.stdout.splitlines() if " refused in " in line]
    assert len(lines) == 2 * len(SLICE)
    assert all(int(line.split(": ")[1].split()[0]) > 0 for line in lines), result.stdout


def test_what_is_wrong_is_seen() -> None:
    """The sweep itself: of a program that keeps what it is given, leaves a group, or crashes."""
    result = sweep("--every", "2", "--most", "20", "--selftest")
    assert result.returncode != 0
    for outcome in ("leak", "the current group is /", "SIGSEGV", "raised KeyError"):
        assert f"NEW: {outcome}" in result.stdout, result.stdout + result.stderr
