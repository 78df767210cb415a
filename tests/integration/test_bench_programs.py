from __future__ import annotations

import json
import os
import sys
import time

import pytest

from objcg.bench import _allocators, programs
from objcg.bench._programs import _process
from objcg.bench.runner import BenchmarkError, Options

from .programs import run

TINY = ("--rounds", "1", "--scale", "0.01")


def objcg(*arguments):
    return run([sys.executable, "-m", "objcg", "bench", "programs", *arguments])


def write(folder, text):
    path = folder / "program.py"
    path.write_text(text)
    return [str(path)]


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_a_program_does_the_same_on_both_sides_and_more_at_a_larger_scale(name):
    path = os.path.join(os.path.dirname(_process.__file__), f"{name}.py")
    outputs = {
        (side, scale): _process.run(side, [path, scale], hash_seed=1).output
        for side, scale in (("stock", "0.02"), ("objcg", "0.02"), ("stock", "0.08"))
    }
    assert outputs["stock", "0.02"] == outputs["objcg", "0.02"]
    assert int(outputs["stock", "0.02"]) <= int(outputs["stock", "0.08"])
    assert int(outputs["stock", "0.08"]) > 0


def test_bench_programs_prints_what_the_interface_says():
    result = objcg(*TINY, "--json", "--only", "dicts", "--only", "lists", "--no-preload")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "programs"
    *rows, mean = report["rows"]
    assert [(row["program"], row["side"]) for row in rows] == [
        (name, side) for name in ("dicts", "lists") for side in ("stock", "objcg")
    ]
    for row in rows:
        assert row["cpu_seconds"] > 0
        # an interpreter alone has some MiB
        assert row["peak_bytes"] > 4 << 20
        assert (row["scale"], row["rounds"]) == (0.01, 1)
        if row["side"] == "stock":
            assert row["ratio"] is row["memory_ratio"] is row["baseline"] is row["group"] is None
            assert row["group_peak"] == 0
        else:
            assert row["baseline"] == "stock"
            assert row["group"] == "/bench"
            assert row["group_peak"] > 0
            assert row["ratio"] > 0
            assert row["memory_ratio"] > 0
    assert (mean["program"], mean["side"], mean["baseline"]) == (programs.MEAN, "objcg", "stock")
    ratios = [row["ratio"] for row in rows if row["side"] == "objcg"]
    assert mean["ratio"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)


def test_a_library_is_loaded_on_its_side_only_and_one_that_is_not_there_is_named(monkeypatch):
    libraries = {"here": ("libm.so.6", "libc6"), "gone": ("libobjcg-gone.so.1", "nothing")}
    monkeypatch.setattr(_allocators, "LIBRARIES", libraries)
    rows = programs.run(Options(rounds=1, extra={"only": ["lists"], "scale": 0.01}))
    by_side = {row["side"]: row for row in rows if row["program"] != programs.MEAN}
    assert by_side["gone"]["skipped"] == (
        "libobjcg-gone.so.1 is not on this machine (Debian: nothing)"
    )
    assert by_side["here"]["library"].startswith("/")
    assert "libm" in by_side["here"]["library"]
    assert by_side["here"]["allocator"] == "malloc"
    assert by_side["here"]["group"] is None
    assert by_side["here"]["ratio"] > 0
    for side in ("stock", "objcg"):
        assert by_side[side]["library"] is by_side[side]["allocator"] is None
    text = programs.table(rows)
    assert "gone skipped: libobjcg-gone.so.1" in text
    assert ["program", "stock", "objcg", "here"] in [line.split() for line in text.splitlines()]


def test_sides_that_do_not_do_the_same_are_an_error(monkeypatch, tmp_path):
    write(tmp_path, "import sys\nprint('objcg' in sys.modules)\n")
    monkeypatch.setattr(programs, "_FOLDER", str(tmp_path))
    monkeypatch.setattr(programs, "PROGRAMS", ("program",))
    with pytest.raises(BenchmarkError, match="the sides of program did not do the same"):
        programs.run(Options(rounds=1, extra={"no_preload": True}))


def test_a_ratio_is_to_stock_of_the_same_round_and_a_loss_is_marked(monkeypatch):
    def fake(side, command, *, hash_seed, library):
        factor = 1 if side == "stock" else 2
        memory = 1 if side == "stock" else 0.5
        return _process.Result(factor * hash_seed, int(memory * 1000), "", "", 0, "", "")

    monkeypatch.setattr(_process, "run", fake)
    rows = programs.run(Options(rounds=5, seed=3, extra={"no_preload": True}))
    ours = [row for row in rows if row["side"] == "objcg"]
    assert [row["ratio"] for row in ours] == pytest.approx([2] * 9)
    assert [row["memory_ratio"] for row in ours] == pytest.approx([0.5] * 9)
    assert {row.get("cpu_seconds") for row in ours} == {12, None}
    assert "! 2.00x" in programs.table(rows)
    assert "! 0.50x" not in programs.table(rows)
    assert list(programs.markdown(rows)) == ["time", "memory"]


def test_the_peak_of_a_process_is_its_own(tmp_path):
    ours = bytearray(os.urandom(1 << 16)) * 4096
    small = _process.run("stock", write(tmp_path, "pass"), hash_seed=1)
    assert small.peak_bytes < 64 << 20 < len(ours)
    large = _process.run("stock", write(tmp_path, "b'x' * (100 << 20)"), hash_seed=1)
    assert large.peak_bytes > 100 << 20


def test_a_side_that_is_something_else_is_an_error(tmp_path):
    enables = write(tmp_path, "import objcg; objcg.enable()")
    with pytest.raises(BenchmarkError, match="'stock' was something else"):
        _process.run("stock", enables, hash_seed=1)
    assert _process.run("objcg", enables, hash_seed=1).group == "/bench"


def test_what_would_change_the_allocator_does_not_reach_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONMALLOC", "debug")
    monkeypatch.setenv("PYTHONTRACEMALLOC", "1")
    program = write(
        tmp_path,
        "import os, tracemalloc\n"
        "print(os.environ.get('PYTHONMALLOC'), tracemalloc.is_tracing(),"
        " os.environ['PYTHONHASHSEED'])\n",
    )
    assert _process.run("stock", program, hash_seed=7).output == "None False 7"


def test_a_process_that_fails_is_one_line(tmp_path):
    with pytest.raises(_process.ProcessFailed, match=r"^ValueError: no$"):
        _process.run("objcg", write(tmp_path, "raise ValueError('no')"), hash_seed=1)
    with pytest.raises(_process.ProcessFailed, match="ended with status"):
        _process.run("stock", write(tmp_path, "import os; os._exit(3)"), hash_seed=1)
    with pytest.raises(_process.ProcessFailed, match="left no report"):
        _process.run("stock", write(tmp_path, "import os; os._exit(0)"), hash_seed=1)


ENDED = {"gone", "Z", "X"}


def state_of(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path):
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(_process.ProcessFailed, match="more than 2 seconds"):
        _process.run("stock", write(tmp_path, code), hash_seed=1, timeout=2)
    # it was sent SIGKILL, which takes effect when it is scheduled next
    path = f"/proc/{pid.read_text()}/stat"
    for _ in range(1000):
        state = state_of(path)
        if state in ENDED:
            break
        time.sleep(0.01)
    assert state in ENDED
