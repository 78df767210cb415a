from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import switch
from objcg.bench.runner import BenchmarkError, Options

from .programs import run


@pytest.fixture(scope="module")
def rows():
    result = run(
        [sys.executable, "-m", "objcg", "bench", "switch", "--quick", "--rounds", "1", "--json"]
    )
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "switch"
    return {row["case"]: row for row in report["rows"]}


def test_each_case_has_its_figures(rows):
    assert list(rows) == list(switch.CASES)
    for name, row in rows.items():
        first, third = row["ns_per_op_quartiles"]
        assert 0 < first <= row["ns_per_op"] <= third
        assert (row["ratio"] is None) == (row["baseline"] is None) == (row["stock_ns"] is None)
        assert (row["baseline"] is None) == (switch.CASES[name].stock is None)
        if row["ratio"] is not None:
            # one round: the ratio is that of the two figures
            assert row["ratio"] == pytest.approx(row["ns_per_op"] / row["stock_ns"])
        if row["goal"] is not None:
            assert row["goal_met"] == (row[row["goal"]["of"]] <= row["goal"]["most"])


def test_each_side_was_what_it_says(rows):
    paths = {
        "enter": ["/bench/entered"],
        "enter-nested": ["/bench/entered", "/bench/outer"],
        "step": ["/bench/loop"],
        "step-many": sorted(f"/bench/loop/{i}" for i in range(switch.TASKS)),
        "create-task": ["/bench/loop"],
        "move": ["/bench/here", "/bench/there"],
        "create-remove": ["/bench/made"],
    }
    for name, row in rows.items():
        assert row["measured"]["objcg"] == {"enabled": True, "groups": paths[name]}
        assert ("stock" in row["measured"]) == (row["baseline"] is not None)
        assert row["measured"].get("stock") in (None, {"enabled": False, "groups": []})


def test_a_ratio_is_to_the_same_round_and_a_loss_is_marked(monkeypatch):
    asked = []

    def ask(self, question):
        side = json.loads(self._command[-1])
        asked.append(side)
        turn = len(asked)  # the machine gets slower all the time
        ns = turn * (3 if side == "objcg" else 1)
        return {"ns": ns, "enabled": side == "objcg", "groups": []}

    monkeypatch.setattr(switch.Worker, "__enter__", lambda self: self)
    monkeypatch.setattr(switch.Worker, "__exit__", lambda *_: None)
    monkeypatch.setattr(switch.Worker, "ask", ask)
    rows = switch.run(Options(rounds=7, seed=3))
    assert {(row["rounds"], row["processes"]) for row in rows} == {(7, 3)}
    for row in rows:
        assert row["ratio"] is None or row["ratio"] > 1
    text = switch.table(rows)
    assert text.count(" slower") == sum(row["ratio"] is not None for row in rows)
    assert list(switch.markdown(rows)) == ["switch"]


def test_what_goes_wrong_in_a_process_is_one_line():
    with (
        switch.Worker("switch", "objcg") as worker,
        pytest.raises(BenchmarkError, match="KeyError: 'nope'") as caught,
    ):
        worker.ask(["nope", 1])
    assert "\n" not in str(caught.value)
