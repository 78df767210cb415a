from __future__ import annotations

import gc
import json
import sys

import pytest

import objcg as library
from objcg import _core
from objcg.bench import native, programs
from objcg.bench._programs import _process
from objcg.bench.runner import BenchmarkError, Options
from objcg.cli import preload

from .programs import run

CALLS = {"only": tuple(native.CASES)}


def objcg(*arguments):
    return run([sys.executable, "-m", "objcg", "bench", "native", *arguments])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """What was printed, in a file, and the picture that was drawn of it."""
    path = tmp_path_factory.mktemp("native") / "native.json"
    picture = path.with_suffix(".svg")
    result = objcg("--quick", "--rounds", "1", "--scale", "0.01", "--json", "--plot", picture)
    assert (result.returncode, result.stderr) == (0, "")
    path.write_text(result.stdout)
    return path


@pytest.fixture(scope="module")
def rows(stored):
    report = json.loads(stored.read_text())
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "native"
    return report["rows"]


def test_each_side_of_each_case_is_a_row_beside_plain(rows):
    calls = [row for row in rows if row["kind"] == "malloc"]
    assert [(row["case"], row["side"]) for row in calls] == [
        (case, side) for case in native.CASES for side in ("plain", "preloaded", "charged")
    ]
    plain = {row["case"]: row for row in calls if row["side"] == "plain"}
    for row in calls:
        assert (row["rounds"], row["turns"], row["clock"]) == (1, 1, "processor time")
        assert row["ns"] > 0
        if row["side"] == "plain":
            assert row["ratio"] is row["baseline"] is row["goal"] is row["goal_met"] is None
            continue
        assert row["baseline"] == "plain"
        # one turn: the ratio is that of the two figures
        assert row["ratio"] == pytest.approx(row["ns"] / plain[row["case"]]["ns"])
        if row["case"] == "working-set":
            assert row["goal"] == {"of": "ratio", "most": 1.10}
            assert row["goal_met"] is (row["ratio"] <= 1.10)
        else:
            assert row["goal"] is row["goal_met"] is None


def test_each_side_was_what_it_says(rows):
    for row in rows:
        if row["kind"] != "malloc":
            continue
        facts = row["measured"]
        charged = row["side"] == "charged"
        assert facts["loaded"] is (row["side"] != "plain")
        assert facts["enabled"] is facts["charging"] is charged
        if not charged:
            assert facts["group"] is facts["native"] is facts["drift"] is None
            continue
        assert (facts["group"], facts["drift"]) == ("/bench", 0)
        # half of the blocks have 16 bytes and more, a quarter 32 and more: 12 for each doubling,
        # and 24 for the last, are 108 on average
        assert facts["held"] == pytest.approx(108 * native.BLOCKS, rel=0.1)
        # Two words for each block and, for half of it, glibc's steps of 16 bytes; and the table of
        # the blocks, 16 bytes for each.
        extra = facts["native"] - facts["held"]
        assert 16 * native.BLOCKS < extra < (16 + 16 + 16) * native.BLOCKS


def test_programs_are_measured_with_the_library_and_without_both_enabled(rows):
    *of_programs, mean = [row for row in rows if row["kind"] == "programs"]
    assert [(row["program"], row["side"]) for row in of_programs] == [
        (name, side) for name in programs.PROGRAMS for side in ("objcg", "loaded")
    ]
    for row in of_programs:
        assert (row["group"], row["scale"]) == ("/bench", 0.01)
        # Python has its own allocator on both
        assert row["allocator"] is None
        assert row["native"] is (row["side"] == "loaded")
        assert row["baseline"] == ("objcg" if row["side"] == "loaded" else None)
        assert (row["ratio"] is None) == (row["side"] == "objcg")
    assert (mean["program"], mean["side"], mean["programs"]) == (programs.MEAN, "loaded", 8)
    ratios = [row["ratio"] for row in of_programs if row["side"] == "loaded"]
    assert mean["ratio"] == pytest.approx(programs.geometric_mean(ratios))


def test_what_was_measured_can_be_shown_again(stored, rows):
    shown = objcg("--from", stored)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "10,000 blocks replaced at random, and written  charged" in shown.stdout
    assert ["program", "objcg", "loaded"] in [line.split() for line in shown.stdout.splitlines()]
    tables = objcg("--from", stored, "--markdown").stdout
    for name in ("malloc", "programs, time", "programs, memory"):
        assert f"<!-- table: {name} -->\n" in tables
    picture = stored.with_suffix(".svg").read_text()
    assert json.loads(stored.read_text())["machine"] in picture
    assert native.CASES["pair-1024"].text in picture


def test_only_what_is_asked_for_is_measured():
    result = objcg("--quick", "--rounds", "1", "--only", "pair-64", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads(result.stdout)["rows"]
    assert [(row["case"], row["side"]) for row in rows] == [
        ("pair-64", side) for side in native.SIDES
    ]
    assert list(native.markdown(rows)) == ["malloc"]


def fake(monkeypatch, factors, **facts):
    """Have sides take that many times plain's time, on a machine that gets slower all the time."""

    def ask(self, question):
        side = json.loads(self._command[-1])
        ask.turn += 1
        charged = side == "charged"
        found = {
            "loaded": "LD_PRELOAD" in self._environment,
            "enabled": charged,
            "charging": charged,
            "group": "/bench" if charged else None,
            "native": 120 if charged else None,
            "held": 100,
            "drift": 0 if charged else None,
        }
        if charged:
            found.update(facts)
        assert "PYTHONMALLOC" not in self._environment
        done = facts.get("sum", 1) if charged else 1
        return {"ns": ask.turn * factors[side], "sum": done, "held": 100, "measured": found}

    ask.turn = 1000
    monkeypatch.setattr(native.Worker, "__enter__", lambda self: self)
    monkeypatch.setattr(native.Worker, "__exit__", lambda *_: None)
    monkeypatch.setattr(native.Worker, "ask", ask)


@pytest.mark.parametrize(("factor", "met"), [(0.5, True), (2, False)])
def test_a_missed_goal_and_a_loss_are_marked(monkeypatch, factor, met):
    fake(monkeypatch, {"plain": 1, "preloaded": 0.5, "charged": factor})
    rows = native.run(Options(rounds=3, seed=3, extra=CALLS))
    charged = [row for row in rows if row["side"] == "charged"]
    assert [row["goal_met"] for row in charged] == [met, None, None]
    for row in charged:
        assert row["ratio"] == pytest.approx(factor, rel=0.01)
    text = native.table(rows)
    assert ("<= 1.10x: MISSED" in text) is not met
    assert text.count(" slower") == (0 if met else 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"loaded": False},
        {"enabled": False},
        {"charging": False},
        {"group": "/"},
        {"drift": -8},
        {"native": 99},  # less than what is there
        {"native": 1000},  # what else could that be?
    ],
)
def test_a_side_that_is_something_else_is_an_error(monkeypatch, wrong):
    fake(monkeypatch, dict.fromkeys(native.SIDES, 1), **wrong)
    with pytest.raises(BenchmarkError, match="'charged' was something else"):
        native.run(Options(rounds=1, extra=CALLS))


def test_sides_that_do_not_do_the_same_are_an_error(monkeypatch):
    fake(monkeypatch, dict.fromkeys(native.SIDES, 1), sum=2)
    with pytest.raises(BenchmarkError, match="sides of working-set did not do the same"):
        native.run(Options(rounds=1, extra=CALLS))


def test_a_program_whose_native_memory_is_not_charged_is_not_the_loaded_side(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text("print(1)\n")
    command = [str(program)]
    path = preload.path()
    result = _process.run("objcg", command, hash_seed=1, library=path, for_python=False)
    assert (result.native, result.allocator) == (True, "")
    assert _process.run("objcg", command, hash_seed=1).native is False
    with pytest.raises(BenchmarkError, match="'objcg' was something else"):
        _process.run("objcg", command, hash_seed=1, library="libm.so.6", for_python=False)


def test_without_the_library_the_error_says_so(monkeypatch):
    monkeypatch.setattr(preload, "path", lambda: None)
    with pytest.raises(
        BenchmarkError, match=r"libobjcg_preload\.so is not installed beside .*_core"
    ):
        native.run(Options(rounds=1))


# ---- The loops in C ------------------------------------------------------------------------------


def test_a_working_set_keeps_its_blocks_and_reads_what_it_has_written():
    first, second = _core.new_working_set(100), _core.new_working_set(100)
    seen = [_core.time_working_set(first, 500) for _ in range(2)]
    again = [_core.time_working_set(second, 500) for _ in range(2)]
    assert [answer[1:] for answer in seen] == [answer[1:] for answer in again]
    # bytes up to 255, of which 500 each time
    assert 0 < seen[0][1] < seen[1][1] < 1000 * 256
    assert 100 * 16 <= seen[0][2] <= 100 * 4095
    assert seen[0][0] > 0
    assert _core.time_native_pair(100, 64) > 0
    del first, second
    gc.collect()
    if library.enabled():
        assert library.audit().drift == 0


def test_what_cannot_be_timed_is_refused():
    for call in (
        lambda: _core.new_working_set(0),
        lambda: _core.new_working_set(-1),
        lambda: _core.time_working_set(_core.new_working_set(1), 0),
        lambda: _core.time_working_set(_core.new_batch(1), 1),
        lambda: _core.time_native_pair(0, 1),
        lambda: _core.time_native_pair(1, 0),
    ):
        with pytest.raises(ValueError, match=r"must be positive|incorrect name"):
            call()
    with pytest.raises(OverflowError):
        _core.new_working_set(1 << 64)
