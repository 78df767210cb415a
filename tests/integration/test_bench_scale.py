from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import scale

from .programs import run


@pytest.fixture(scope="module")
def rows():
    options = ["--quick", "--rounds", "1", "--most-groups", "100", "--json"]
    result = run([sys.executable, "-m", "objcg", "bench", "scale", *options])
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    return {(row["kind"], row["n"]): row for row in report["rows"]}


def test_each_case_has_its_figures(rows):
    counts = {
        "groups": (1, 10, 100),
        "groups-one": (1, 10, 100),
        "depth": scale.DEPTHS,
        "depth-batch": scale.DEPTHS,
        "threads": scale.THREADS,
        "threads-shared": scale.THREADS,
    }
    assert list(rows) == [(kind, n) for kind, ns in counts.items() for n in ns]
    for (kind, n), row in rows.items():
        assert row["ns_per_op"] > 0
        assert row["stock_ns"] > 0
        assert row["stock_ratio"] == pytest.approx(row["ns_per_op"] / row["stock_ns"])
        if n == 1:
            assert row["ratio"] is row["baseline"] is None
        else:
            least = rows[kind, 1]["ns_per_op"]
            assert row["baseline"] == f"{kind}, n = 1"
            assert row["ratio"] == pytest.approx(row["ns_per_op"] / least)
            if kind == "depth-batch":
                assert row["ns_per_level"] == pytest.approx((row["ns_per_op"] - least) / (n - 1))


def test_each_side_was_what_it_says(rows):
    for (kind, n), row in rows.items():
        stock, ours = row["measured"]["stock"], row["measured"]["objcg"]
        assert (stock["enabled"], stock["groups_made"], stock["groups_used"]) == (False, 0, 0)
        assert ours["enabled"]
        assert ours["groups_made"] == (n if kind.startswith("groups") else 1)
        # 1000 visits, with --quick, miss one of 100 groups once in 200 runs
        used = {"groups": n, "threads": n}.get(kind, 1)
        assert 0.9 * used <= ours["groups_used"] <= used
        if kind.startswith("depth"):
            assert ours["group"].count("/") == n


def test_a_straight_line_is_found():
    assert scale.fit([1, 2, 4], [13.0, 16.0, 22.0]) == pytest.approx((3, 10, 1))
