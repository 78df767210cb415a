from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import _allocators, memory
from objcg.bench._programs import _process
from objcg.bench.runner import BenchmarkError, Options

from .programs import run


def objcg(*arguments):
    return run([sys.executable, "-m", "objcg", "bench", "memory", *arguments])


@pytest.fixture(scope="module")
def rows():
    options = ["--rounds", "1", "--scale", "0.05", "--settle", "0", "--no-preload", "--json"]
    result = objcg(*options, "--only", "ints", "--only", "dicts")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "memory"
    return {(row["kind"], row["side"], row["stage"]): row for row in report["rows"]}


def test_each_kind_has_its_stages_on_both_sides(rows):
    assert list(rows) == [
        (kind, side, stage)
        for kind in ("ints", "dicts")
        for side in ("stock", "objcg")
        for stage in memory.STAGES
    ]
    for (kind, side, stage), row in rows.items():
        assert row["n"] == memory.KINDS[kind] // 20
        assert row["bytes"] > 0
        if side == "stock":
            assert row["ratio"] is row["baseline"] is row["group"] is None
        else:
            stock = rows[kind, "stock", stage]["bytes"]
            assert row["ratio"] == pytest.approx(row["bytes"] / stock)
            assert (row["baseline"], row["group"]) == ("stock", "/bench")


def test_objects_take_what_they_are_and_a_part_of_it_is_kept(rows):
    for kind in ("ints", "dicts"):
        for side in ("stock", "objcg"):
            held, peak, few, none = (rows[kind, side, stage] for stage in memory.STAGES)
            least = held["live_bytes_per_object"]
            assert held["bytes_per_object"] == pytest.approx(held["bytes"] / held["n"])
            assert 0.9 * least < held["bytes_per_object"] < 2 * least
            assert peak["bytes"] > held["bytes"]
            # a tenth, within six standard deviations
            (kept,) = few["kept"]
            assert abs(kept - held["n"] / 10) < 6 * (0.09 * held["n"]) ** 0.5
            assert few["over_live"] == pytest.approx(few["bytes"] / (kept * least))
            assert few["over_live"] > 0.9
            assert none["bytes"] < peak["bytes"]
            assert none["returned"] <= 1
            # stock returns an arena of 1 MiB when it is empty
            assert side == "objcg" or none["returned"] > 0.5
    # an int of one digit has 28 bytes, and is aligned to 16
    assert rows["ints", "stock", "held"]["live_bytes_per_object"] == pytest.approx(30, abs=2.1)


def test_a_library_is_a_side_and_one_that_is_not_there_is_named(monkeypatch):
    libraries = {"here": ("libm.so.6", "libc6"), "gone": ("libobjcg-gone.so.1", "nothing")}
    monkeypatch.setattr(_allocators, "LIBRARIES", libraries)
    extra = {"only": ["ints"], "scale": 0.01, "settle": 0}
    *rows, gone = memory.run(Options(rounds=1, extra=extra))
    here = [row for row in rows if row["side"] == "here"]
    assert [row["stage"] for row in here] == list(memory.STAGES)
    assert "libm" in here[0]["library"]
    assert here[0]["group"] is None
    assert gone["side"] == "gone"
    text = memory.table([*rows, gone])
    assert "gone skipped: libobjcg-gone.so.1" in text
    assert ["objects", "stock", "objcg", "here"] in [line.split() for line in text.splitlines()]
    assert list(memory.markdown([*rows, gone])) == [f"memory-{stage}" for stage in memory.STAGES]


def test_a_ratio_is_to_stock_of_the_same_round_and_a_loss_is_marked(monkeypatch):
    def fake(side, command, *, hash_seed, library=None, tracer=None):
        assert tracer == ("tracemalloc" if len(command) <= 3 else None)
        factor = hash_seed * (1 if side == "stock" else 2)
        found = {"before": 0, "held": 100 * factor, "few": 50 * factor, "none": 20 * factor}
        output = json.dumps({**found, "kept": 10}) if len(command) > 3 else "1000"
        return _process.Result(0, 200 * factor, output, "", 0, "", "")

    monkeypatch.setattr(_process, "run", fake)
    rows = memory.run(Options(rounds=5, seed=3, extra={"no_preload": True, "only": ["strs"]}))
    ours = [row for row in rows if row["side"] == "objcg"]
    assert [row["ratio"] for row in ours] == [2, 2, 2, 2]
    assert [row["bytes"] for row in ours] == [1000, 2000, 500, 200]
    assert memory.table(rows).count("! 2.00x") == 4
    assert ours[3]["returned"] == pytest.approx(0.8)


def test_a_program_that_says_something_else_is_an_error(monkeypatch, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, tracemalloc\n"
        "measured = len(sys.argv) > 3\n"
        "measured or tracemalloc.start()\n"
        "print('{}' if measured else 1)\n"
    )
    monkeypatch.setattr(memory, "_PROGRAM", str(program))
    with pytest.raises(BenchmarkError, match=r"the program said something else: '\{\}'"):
        memory.run(Options(rounds=1, extra={"no_preload": True}))
