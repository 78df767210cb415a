from __future__ import annotations

import json
import shutil
import sys

import pytest

from objcg.bench import instructions
from objcg.bench.instructions import Count
from objcg.bench.runner import BenchmarkError

from .programs import run

needs_valgrind = pytest.mark.skipif(
    shutil.which("valgrind") is None, reason="needs valgrind (apt-get install valgrind)"
)


def objcg(*arguments, **env):
    return run([sys.executable, "-m", "objcg", "bench", "instructions", *arguments], env=env)


@pytest.fixture(scope="module")
def rows():
    result = objcg("--quick", "--json", "--only", "pair", "--only", "dicts")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "instructions"
    return {row["program"]: row for row in report["rows"]}


@needs_valgrind
def test_each_program_has_the_counts_of_both_sides(rows):
    assert list(rows) == ["pair", "dicts"]
    for row in rows.values():
        for side in instructions.SIDES:
            assert row[f"{side}_instructions"] == sum(row[f"{side}_by_object"].values()) > 0
        assert row["ratio"] == row["objcg_instructions"] / row["stock_instructions"]
        assert row["baseline"] == "stock"
        # what was counted are the sides: of objcg only the loop of pair is on both
        assert row["stock_by_object"].get("_core", 0) < row["objcg_by_object"]["_core"] / 3
        assert row["stock_by_object"]["python"] > 0
        assert row["rounds"] == 2


@needs_valgrind
def test_a_count_is_the_same_again(rows):
    for row in rows.values():
        assert row["stock_spread"] < instructions.SPREAD
        assert row["objcg_spread"] < instructions.SPREAD


@needs_valgrind
def test_what_lies_outside_the_marks_is_not_counted(rows):
    # as many allocations as asked for, and a few of the call; a start has ten thousand more
    pair = rows["pair"]
    assert pair["operations"] == 50_000
    assert pair["operations"] <= pair["allocations"] < pair["operations"] + 100
    # the start alone, of 50 to 100 millions, would be 1000 and more for each
    for side in instructions.SIDES:
        assert 20 < pair[f"{side}_instructions"] / pair["operations"] < 500
    assert rows["dicts"]["operations"] is None


@needs_valgrind
def test_the_cost_of_an_allocation_follows_from_the_counts(rows):
    for row in rows.values():
        more = row["objcg_instructions"] - row["stock_instructions"]
        assert row["extra_per_allocation"] == more / row["allocations"]
        assert 20 < row["core_per_allocation"] < 1000


def count(instructions_of_core, output="7", allocations=None):
    return Count({"python": 1000, "_core": instructions_of_core}, allocations, output)


def test_a_loss_is_marked_and_counts_that_differ_are_an_error_in_the_table():
    same = instructions._row("pair", [count(0)] * 2, [count(500, allocations=10)] * 2)
    differs = instructions._row("dicts", [count(0), count(2)], [count(-100)] * 2)
    for row in (same, differs):
        row["rounds"] = 2
    assert (same["ratio"], same["extra_per_allocation"], same["core_per_allocation"]) == (
        1.5,
        50,
        50,
    )
    assert "! 1.500x" in instructions.table([same])
    assert "ERROR" not in instructions.table([same])
    text = instructions.table([same, differs])
    assert "ERROR: Counts of the same differed by at most 0.2000% (dicts, stock)" in text
    assert "! 0.9" not in text
    assert list(instructions.markdown([same])) == ["instructions", "files", "operations"]


def test_one_count_alone_does_not_say_that_it_is_the_same_again():
    row = instructions._row("dicts", [count(0)], [count(1)])
    assert row["stock_spread"] is None
    assert "whether a count is the same again is not known" in instructions.table(
        [{**row, "rounds": 1}]
    )


def test_sides_that_do_not_do_the_same_are_an_error():
    with pytest.raises(BenchmarkError, match=r"sides of dicts did not do the same: \['7', '8'\]"):
        instructions._row("dicts", [count(0)], [count(0, output="8")])


def test_marks_that_were_not_seen_are_an_error(tmp_path):
    result = tmp_path / "out"
    result.write_text("ob=/x/libpython3.13.so\nfn=f\n1 5\n")
    (tmp_path / "out.1").write_text("")
    with pytest.raises(BenchmarkError, match="saw 1 marks of dicts, stock, and not 2"):
        instructions._read(str(result), "dicts", "stock", "")
    (tmp_path / "out.2").write_text("ob=/x/libpython3.13.so\nfn=f\n1 7\nob=/x/ld-2.so\n1 8\n")
    found = instructions._read(str(result), "dicts", "stock", "")
    assert (found.by_object, found.allocations) == ({"ld.so": 8, "python": 7}, None)
    (tmp_path / "out.2").write_text("")
    with pytest.raises(BenchmarkError, match="counted nothing of dicts, stock"):
        instructions._read(str(result), "dicts", "stock", "")


def test_without_valgrind_the_error_names_the_command():
    result = objcg("--quick", PATH="/nonexistent")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "objcg: objcg bench instructions needs valgrind, which is not in PATH; install it "
        "(apt-get install valgrind)\n"
    )
