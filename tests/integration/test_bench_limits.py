from __future__ import annotations

import json
import sys

from objcg.bench import limits

from .programs import run


def test_each_case_ran_into_its_limit_and_nobody_else_did():
    result = run(
        [sys.executable, "-m", "objcg", "bench", "limits", "--quick", "--rounds", "1", "--json"]
    )
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    rows = {(row["case"], row["block"]): row for row in report["rows"]}
    assert list(rows) == [(case, block) for case in limits.CASES for block in limits.BLOCKS]
    for (case, _), row in rows.items():
        expected = {"MemoryError"} if case == "main-c" else {"MemoryLimitExceeded"}
        if case.startswith("thread"):
            expected |= {"MemoryError"}  # the ceiling, where the reclaimer was slower
        assert set(row["errors"]) <= expected
        assert sum(row["errors"].values()) == 1
        assert row["groups"] == ["/bench"]
        assert row["neighbour_errors"] == 0
        assert row["ratio"] is row["baseline"] is None
        # no more than the ceiling
        assert 0 < row["overshoot"] <= limits.LIMIT // 8 + (4 << 20)
        assert (row["us"] is None) == (case == "main-c")
        assert row["us"] is None or row["us"] > 0
