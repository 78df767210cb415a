from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import read
from objcg.bench.runner import BenchmarkError, Options

from .programs import run

CASES = ["region", "python", "tree", "alone", "watched"]


def bench(*arguments):
    return run([sys.executable, "-m", "objcg", "bench", "read", *arguments])


def test_bench_read_prints_what_the_interface_says():
    result = bench("--quick", "--rounds", "1", "--groups", "250", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    rows = {row["case"]: row for row in report["rows"]}
    assert list(rows) == CASES
    for row in rows.values():
        # root, /bench, three with a hundred each, and these
        assert (row["asked"], row["groups"]) == (250, 250 + 5)
        assert row["readings"] > 0
        assert row["cpu_seconds"] > 0
        # they are for another number of groups
        assert row["goal"] is row["goal_met"] is None
    for name, baseline in (("tree", "python"), ("watched", "alone")):
        base = rows[baseline]
        assert rows[name]["baseline"] == base["operation"]
        assert rows[name]["ratio"] == pytest.approx(rows[name]["cpu_seconds"] / base["cpu_seconds"])
        assert rows[name]["beyond_seconds"] == pytest.approx(
            rows[name]["cpu_seconds"] - base["cpu_seconds"]
        )
    for name in ("region", "python", "alone"):
        assert rows[name]["ratio"] is rows[name]["beyond_seconds"] is rows[name]["baseline"] is None


@pytest.mark.parametrize("groups", ["0", "-1", "1000001", "x", "1.5"])
def test_a_number_of_groups_that_there_cannot_be_is_wrong_use(groups):
    result = bench(f"--groups={groups}")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{groups!r} is not a number from 1 to 1,000,000" in result.stderr
    assert result.stderr.count("\n") == 1


class Process:
    """A process that is read, made up."""

    pid = 1
    path = "none"
    groups = 7
    seconds = {"region": 0.009, "python": 0.02, "tree": 0.16, "alone": 2.0, "watched": 2.2}  # noqa: RUF012

    def __init__(self, *_):
        self.readings = []

    def measure(self, case):
        if case == "watched":
            self.readings.append(20)
        return self.seconds[case]

    def check(self):
        pass


class NoWorker:
    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def made_up(monkeypatch, groups=read.GROUPS, **seconds):
    monkeypatch.setattr(read, "Worker", NoWorker)
    monkeypatch.setattr(read, "_Target", Process)
    monkeypatch.setattr(Process, "seconds", {**Process.seconds, **seconds})
    return read.run(Options(rounds=3, extra={"groups": groups}))


def verdicts(rows):
    return {row["case"]: row["goal_met"] for row in rows if row["goal"] is not None}


def test_goals_are_of_the_reader_and_of_the_command_beyond_pythons_start(monkeypatch):
    rows = made_up(monkeypatch)
    assert verdicts(rows) == {"region": True, "tree": True}
    assert verdicts(made_up(monkeypatch, tree=0.1701)) == {"region": True, "tree": False}
    assert verdicts(made_up(monkeypatch, region=0.0101)) == {"region": False, "tree": False}
    assert verdicts(made_up(monkeypatch, groups=9_999)) == {}
    # not what was read while it warmed up
    assert {row["readings"] for row in rows} == {60}


def test_a_watcher_that_costs_something_is_marked(monkeypatch):
    rows = made_up(monkeypatch)
    for text in (read.table(rows), read.markdown(rows)["read"]):
        assert "1.10x (1.10-1.10) slower" in text
        assert "<= 10 ms: met" in text
    assert "<= 150 ms: MISSED" in read.table(made_up(monkeypatch, tree=0.2))
    assert "slower" not in read.table(made_up(monkeypatch, watched=2.0))
    shown = read.figure(rows)
    assert [(value.label, value.goal) for value in shown.panels[0].values] == [
        ("reading the region", 10),
        ("objcg tree --json PID", 150),
    ]
    assert [value.value for value in shown.panels[1].values] == [pytest.approx(1.1)]


class Answers:
    """A worker that answers what it is told to."""

    def __init__(self, **facts):
        self.facts = {"pid": 1, "groups": 7, "drift": 0, **facts}

    def ask(self, _):
        return self.facts


def test_what_cannot_be_read_or_was_not_read_is_an_error(monkeypatch):
    with pytest.raises(BenchmarkError, match="no region file"):
        read._Target(Answers(), 1)
    monkeypatch.setattr(read.region, "find", lambda _: "none")
    worker = Answers()
    target = read._Target(worker, 1)
    target.readings = [3, 0]
    with pytest.raises(BenchmarkError, match="did not look"):
        target.check()
    target.readings = [3]
    target.check()
    worker.facts["drift"] = 8
    with pytest.raises(BenchmarkError, match="not as it was"):
        target.check()
    with pytest.raises(BenchmarkError, match="8 groups were read of a process that has 7"):
        target._see(8)
