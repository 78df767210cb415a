from __future__ import annotations

import gc
import json
import sys

import pytest

from objcg import _core
from objcg.bench import _allocators, alloc
from objcg.bench.runner import BenchmarkError, Options

from .programs import run


def objcg(*arguments):
    return run([sys.executable, "-m", "objcg", "bench", "alloc", *arguments])


@pytest.fixture(scope="module")
def rows():
    options = ["--quick", "--rounds", "1", "--sizes", "64", "--no-preload", "--json"]
    result = objcg(*options)
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "alloc"
    return {(row["pattern"], row["phase"]): row for row in report["rows"]}


def test_each_pattern_has_its_phases(rows):
    three = ("alloc", "free", "sum")
    phases = {
        "fifo": three,
        "lifo": three,
        "random": three,
        "pair": ("sum",),
        "threads": three,
        "realloc-list": ("realloc",),
        "realloc-bytearray": ("realloc",),
    }
    assert list(rows) == [(name, phase) for name in alloc.PATTERNS for phase in phases[name]]
    for row in rows.values():
        assert (row["size"], row["n"], row["asked"], row["side"]) == (64, 10_000, 10_000, "objcg")
        assert row["baseline"] == alloc.BASELINE
        assert row["ns"] > 0
        # one round: the ratio is that of the two figures
        assert row["ratio"] == pytest.approx(row["ns"] / row["stock_ns"])
        assert row["goal"] is row["goal_met"] is None


def test_each_side_was_what_it_says(rows):
    for row in rows.values():
        stock, ours = row["measured"]["stock"], row["measured"]["objcg"]
        assert (stock["enabled"], stock["groups"], stock["library"]) == (False, [], None)
        assert (ours["enabled"], ours["groups"], ours["library"]) == (True, ["/bench"], None)


def test_only_what_is_selected_is_measured_and_bytes_are_bounded():
    extra = {"sizes": (64, 1 << 20), "patterns": ("pair", "lifo"), "counts": (10, 1_000_000)}
    cases = alloc.cases(Options(rounds=1, extra=extra))
    assert [(case.size, case.n, case.pattern) for case in cases] == [
        (64, 10, "lifo"),
        (64, 1_000_000, "pair"),
        (64, 1_000_000, "lifo"),
        (1 << 20, 10, "lifo"),
        (1 << 20, 1_000_000, "pair"),
        (1 << 20, 512, "lifo"),
    ]
    for case in alloc.cases(Options(rounds=1)):
        assert case.pattern == "pair" or case.size * case.n <= alloc.MOST_BYTES


def fake(monkeypatch, factors):
    """Have sides take that many times stock's time, on a machine that gets slower all the time."""
    started = []

    def enter(self):
        started.append(self)
        return self

    def ask(self, case):
        side = json.loads(self._command[-1])
        ask.turn += 1
        ns = ask.turn * factors[side]
        whole = "realloc" if case.pattern.startswith("realloc") else "sum"
        groups = ["/bench"] if side == "objcg" else []
        library = self._environment.get("LD_PRELOAD")
        facts = {"enabled": side == "objcg", "groups": groups, "library": library}
        return {"ns": {whole: ns}, "measured": facts}

    ask.turn = 1000
    monkeypatch.setattr(alloc.Worker, "__enter__", enter)
    monkeypatch.setattr(alloc.Worker, "__exit__", lambda *_: None)
    monkeypatch.setattr(alloc.Worker, "ask", ask)
    return started


@pytest.mark.parametrize(("factor", "met"), [(0.5, True), (2, False)])
def test_a_missed_goal_and_a_loss_are_marked(monkeypatch, factor, met):
    fake(monkeypatch, {"stock": 1, "objcg": factor})
    rows = alloc.run(Options(rounds=7, seed=3, extra={"no_preload": True}))
    with_goal = [row for row in rows if row["goal"] is not None]
    assert {(row["size"], row["n"]) for row in with_goal} == {(64, 1_000_000)}
    assert [row["pattern"] for row in with_goal] == list(alloc.PATTERNS)
    for row in rows:
        assert row["ratio"] == pytest.approx(factor, rel=0.01)
    assert {row["goal_met"] for row in with_goal} == {met}
    text = alloc.table(rows)
    assert ("in every pattern: met" in text) == met
    assert text.count(" slower") == (0 if met else len(rows))
    tables = alloc.markdown(rows)
    assert list(tables) == ["alloc", "alloc-objcg"]
    assert "| 1,000,000, freed oldest first | " in tables["alloc-objcg"]
    assert tables["alloc-objcg"].count("**") == (0 if met else 2 * len(rows))


def test_each_case_has_fresh_processes_unless_they_are_to_be_worn(monkeypatch):
    started = fake(monkeypatch, {"stock": 1, "objcg": 1})
    extra = {"sizes": (64,), "patterns": ("fifo", "pair"), "counts": (1000,), "no_preload": True}
    rows = alloc.run(Options(rounds=7, extra=extra))
    # two cases, three sets for 3, 3 and 1 rounds, two sides
    assert len(started) == 12
    assert {row["processes"] for row in rows} == {3}
    started.clear()
    rows = alloc.run(Options(rounds=7, extra={**extra, "worn": True}))
    assert len(started) == 2
    assert {(row["processes"], row["rounds"], row["worn"]) for row in rows} == {(1, 7, True)}


def test_a_library_is_a_side_and_one_that_is_not_there_is_named(monkeypatch):
    libraries = {"here": ("libm.so.6", "libc6"), "gone": ("libobjcg-gone.so.1", "nothing")}
    monkeypatch.setattr(_allocators, "LIBRARIES", libraries)
    extra = {"sizes": (64,), "patterns": ("pair",), "counts": (100,)}
    *rows, gone = alloc.run(Options(rounds=1, extra=extra))
    assert [row["side"] for row in rows] == ["objcg", "here"]
    assert "libm" in rows[1]["measured"]["here"]["library"]
    assert rows[1]["measured"]["here"]["enabled"] is False
    assert gone == {
        "side": "gone",
        "skipped": "libobjcg-gone.so.1 is not on this machine (Debian: nothing)",
    }
    text = alloc.table([*rows, gone])
    assert "gone skipped: libobjcg-gone.so.1" in text
    assert list(alloc.markdown([*rows, gone])) == ["alloc", "alloc-objcg", "alloc-here"]


def test_a_side_that_is_something_else_is_an_error(monkeypatch):
    fake(monkeypatch, {"stock": 1, "objcg": 1})
    answer = alloc.Worker.ask
    facts = {"enabled": True, "groups": ["/"], "library": None}
    monkeypatch.setattr(
        alloc.Worker, "ask", lambda self, case: {**answer(self, case), "measured": facts}
    )
    with pytest.raises(BenchmarkError, match="was something else"):
        alloc.run(Options(rounds=1, extra={"no_preload": True}))


def may_have_huge_pages(**extra):
    case = {"sizes": (64,), "patterns": ("pair",), "counts": (100,), "no_preload": True}
    (row,) = alloc.run(Options(rounds=1, extra={**case, **extra}))
    return {facts["huge_pages"] for facts in row["measured"].values()}


@pytest.mark.skipif(alloc._may_have_huge_pages() is not True, reason="no huge pages to forbid")
def test_huge_pages_are_forbidden_for_that_run_only():
    assert may_have_huge_pages(no_huge_pages=True) == {False}
    assert may_have_huge_pages() == {True}


def test_a_batch_of_blocks_is_full_or_empty():
    batch = _core.new_batch(10)
    with pytest.raises(ValueError, match="the batch is empty"):
        _core.time_batch_free(batch)
    assert _core.time_batch_malloc(batch, "stock", 100) >= 0
    with pytest.raises(ValueError, match="must be empty"):
        _core.time_batch_malloc(batch, "stock", 100)
    before = sys.getallocatedblocks()
    assert _core.time_batch_free(batch) >= 0
    assert sys.getallocatedblocks() - before < -5
    _core.time_batch_malloc(batch, "stock", 100)
    before = sys.getallocatedblocks()
    del batch
    gc.collect()
    assert sys.getallocatedblocks() - before < -5


def test_what_cannot_be_timed_is_refused():
    for call in (
        lambda: _core.time_malloc("nope", 1, 1, "fifo"),
        lambda: _core.time_batch_malloc(_core.new_batch(1), "nope", 1),
        lambda: _core.time_batch_malloc(_core.new_batch(1), "stock", -1),
        lambda: _core.new_batch(0),
        lambda: _core.time_realloc("nope", 1, 1, "list"),
        lambda: _core.time_realloc("stock", 1, 1, "nope"),
        lambda: _core.time_realloc("stock", 0, 1, "list"),
        lambda: _core.time_realloc("stock", 1, 0, "list"),
    ):
        with pytest.raises(ValueError, match=r"nope|must"):
            call()
