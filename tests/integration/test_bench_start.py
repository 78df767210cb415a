from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import start
from objcg.bench._programs import _process
from objcg.bench.runner import BenchmarkError, Options

from .programs import run

FIGURES = {"wall_seconds": "ratio", "cpu_seconds": "cpu_ratio", "peak_bytes": "memory_ratio"}


def test_bench_start_prints_what_the_interface_says():
    command = ["bench", "start", "--quick", "--rounds", "1", "--json"]
    result = run([sys.executable, "-m", "objcg", *command])
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    rows = report["rows"]
    # what each process said that it is
    assert [(row["case"], row["process"]) for row in rows] == [
        ("python", "False"),
        ("enable", "True /"),
        ("run", "True /main"),
    ]
    for row in rows:
        for figure, ratio in FIGURES.items():
            assert row[figure] > 0
            if row["case"] == "python":
                assert row[ratio] is row["baseline"] is None
            else:
                assert row["baseline"] == "python"
                assert row[ratio] == pytest.approx(row[figure] / rows[0][figure])
        assert row["wall_seconds"] < 60
        # an interpreter alone has some MiB
        assert 4 << 20 < row["peak_bytes"] < 1 << 30


def test_a_ratio_is_to_python_of_the_same_round_and_a_loss_is_marked(monkeypatch):
    def fake(command, *, hash_seed):
        factor = 3 if "run" in command else 1
        return _process.Usage(factor * hash_seed, factor * hash_seed, factor * hash_seed, "")

    monkeypatch.setattr(_process, "launch", fake)
    monkeypatch.setattr(start, "_probe", lambda *_: None)
    rows = start.run(Options(rounds=5, seed=3))
    assert [row["ratio"] for row in rows] == [None, 1, 3]
    assert [row["wall_seconds"] for row in rows] == [5, 5, 15]
    assert start.table(rows).count("! 3.00x") == 3
    assert list(start.markdown(rows)) == ["start"]


def test_a_start_of_something_else_is_an_error(monkeypatch):
    case = start.CASES["run"]._replace(arguments=start.CASES["enable"].arguments)
    monkeypatch.setattr(start, "CASES", {"run": case})
    with pytest.raises(BenchmarkError, match=r"'True /', not 'True /main'"):
        start.run(Options(rounds=1))
