from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import limits

from .programs import run

STOCKS = 2 * (32 << 10)
"""What a group's peak may be above what its tasks have: of each of two cpus."""
RESERVE = limits.LIMIT // 16
"""What the making of the error may take."""


def objcg(*arguments):
    return run([sys.executable, "-m", "objcg", "bench", "limits", *arguments])


@pytest.fixture(scope="module")
def rows():
    result = objcg("--quick", "--rounds", "1", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "limits"
    return report["rows"]


def test_each_way_ended_in_one_memory_error_below_the_ceiling(rows):
    assert [row["case"] for row in rows] == [way for way, _ in limits.CASES]
    for row in rows:
        (error,) = row["errors"]
        assert error in {"MemoryError", "MemoryLimitExceeded"}
        assert row["errors"][error] == row["rounds"] == 1
        assert row["groups"] == ["/bench"]
        assert row["neighbour_errors"] == 0
        assert row["ratio"] is row["baseline"] is None
        assert row["bound"] == row["limit"] // 8 + (4 << 20)
        assert 0 <= row["overshoot_worst"] <= row["bound"]
        assert row["bound_held"] is True
        assert 0 < row["ns"] <= row["ns_worst"]
        first, third = row["ns_quartiles"]
        assert first <= row["ns"] <= third


def test_what_was_refused_at_once_is_not_above_the_limit(rows):
    (row,) = (row for row in rows if row["case"] == "large")
    assert row["errors"] == {"MemoryError": 1}
    assert row["overshoot_worst"] == 0


def test_the_crossing_follows_from_the_sizes_of_the_blocks(rows):
    # wrong by a tenth, the sizes would be off by a tenth of 16 MiB
    assert STOCKS + RESERVE < limits.LIMIT / 10
    for row in rows:
        assert row["unexplained_worst"] <= STOCKS + RESERVE
        if row["case"] != "large":
            # the resolution of the clock: the time of one block
            assert row["step_ns"] > 0


def sample(**changes):
    found = {
        "ns": 1000,
        "step_ns": 100,
        "overshoot": 0,
        "blocks": 1,
        "block": 144,
        "unexplained": 0,
        "error": "MemoryError",
        "group": "/bench",
        "neighbour_errors": [],
    }
    return {**found, **changes}


def test_what_is_not_as_promised_is_shown():
    good, none = sample(), sample(ns=None, error="", neighbour_errors=["MemoryError"])
    over = sample(overshoot=limits.BOUND + 1, ns=3000)
    row = limits._row("main", [good, none, over])
    assert row["bound_held"] is False
    assert row["errors"] == {"": 1, "MemoryError": 2}
    assert (row["ns"], row["ns_worst"], row["neighbour_errors"]) == (2000, 3000, 1)
    text = limits.table([{**row, "rounds": 3, "processes": 1}])
    assert "EXCEEDED" in text
    assert "NONE (1)" in text
    assert "neighbour in another group got: 1" in text
    row = limits._row("main", [good])
    assert row["bound_held"] is True
    assert list(limits.markdown([row])) == ["limits"]
