from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from objcg import bench
from objcg.bench import _lab, _lab_instructions, _lab_process, _seed_cases, seed
from objcg.bench.runner import BenchmarkError, Options

from .programs import run

VARIANTS = sorted((set(_seed_cases.VARIANTS) | {"called"}) - set(_lab_process.CALLED))

try:
    _lab._path("objcg")
    built = True
except BenchmarkError:
    built = False
needs_lab = pytest.mark.skipif(not built, reason="the lab's variants are not built")


def objcg(*arguments):
    return run([sys.executable, "-m", "objcg", *arguments])


def self_test(*names):
    """Run self-tests in a process of their own: a variant that breaks memory breaks no more."""
    code = """
import sys
from objcg.bench._lab import Module, callees
for name in sys.argv[1:]:
    module = Module(name)
    if name == "called":
        module.set_callee(*callees()["glibc"])
    print(name, module.self_test())
"""
    result = run([sys.executable, "-c", code, *names])
    assert result.returncode == 0, result.stderr
    return dict(line.split(" ", 1) for line in result.stdout.splitlines())


@needs_lab
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_passes_its_self_test(name):
    assert self_test(name) == {name: "None"}


@needs_lab
def test_all_variants_live_in_one_process():
    assert self_test(*VARIANTS) == dict.fromkeys(VARIANTS, "None")


@needs_lab
def test_the_variant_without_migration_refuses_to_be_moved():
    module = _lab.Module("no-migration")
    with pytest.raises(BenchmarkError, match=r"'no-migration' cannot measure .*not permitted"):
        module.run(_lab.Request("move", 10, allocations=1))


@needs_lab
def test_a_request_that_makes_no_sense_is_refused():
    module = _lab.Module("objcg")
    for request in (
        _lab.Request("alloc", 0),
        _lab.Request("alloc", 1, threads=0),
        _lab.Request("alloc", 1, threads=1000),
        _lab.Request("alloc", 1, depth=1000),
        _lab.Request("alloc", 1, size=513),
        _lab.Request("batches", 1, allocations=0),
    ):
        with pytest.raises(BenchmarkError, match="Invalid argument"):
            module.run(request)


@needs_lab
@pytest.mark.parametrize("operation", _lab.SCENARIOS)
def test_an_operation_takes_time(operation):
    module = _lab.Module("objcg")
    threads = 2 if operation == "moved" else 1
    assert module.run(_lab.Request(operation, 2000, threads=threads, allocations=3)) > 0


@needs_lab
def test_bench_seed_prints_what_the_interface_says():
    result = objcg("bench", "seed", "--quick", "--rounds", "1", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "seed"
    assert "Linux" in report["machine"]
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in report["python"]
    rows = report["rows"]
    assert {row["scenario"] for row in rows} == {
        scenario.name for scenario in _seed_cases.SCENARIOS
    }
    assert {row["variant"] for row in rows} == set(_seed_cases.VARIANTS)
    for row in rows:
        assert row["ns_per_op"] > 0
        assert row["ns_per_op_quartiles"][0] <= row["ns_per_op"] <= row["ns_per_op_quartiles"][1]
        assert row["threads"] in {1, 2}
        assert row["depth"] in {None, 0, 1, 2, 4, 8}
        # a ratio says to what, and without one there is nothing to name
        assert (row["ratio"] is None) == (row["baseline"] is None)
        assert (row["step_ratio"] is None) == (row["step_baseline"] is None)
    compared = [row for row in rows if row["variant"] == "objcg" and row["scenario"] != "batch"]
    assert {row["baseline"] for row in compared} == {"unaccounted"}


@needs_lab
def test_a_ratio_is_to_the_baseline_of_the_same_round(monkeypatch):
    # every variant takes ten times its baseline's time of the round, whatever that is
    def measure(cases, *, rounds, seed):
        samples = [
            [(1 if case.variant == "unaccounted" else 10) * (seed + i) for i in range(rounds)]
            for case in cases
        ]
        return samples, "cc"

    monkeypatch.setattr(_lab_process, "measure", measure)
    rows = seed.run(Options(rounds=7, seed=3))
    for row in rows:
        assert row["ratio"] in {None, 10}
        assert (row["rounds"], row["processes"], row["compiler"]) == (7, 3, "cc")
        # 3 processes, their seeds one apart, of 3, 3 and 1 rounds
        of_round = sorted([3, 4, 5, 4, 5, 6, 5])[3]
        assert row["ns_per_op"] == of_round * (1 if row["variant"] == "unaccounted" else 10)


@needs_lab
def test_the_tables_are_ready_for_a_document(tmp_path):
    result = objcg("bench", "seed", "--quick", "--rounds", "1", "--markdown")
    assert (result.returncode, result.stderr) == (0, "")
    names = [
        line.removeprefix("<!-- table: ").removesuffix(" -->")
        for line in result.stdout.splitlines()
        if line.startswith("<!-- table: ")
    ]
    assert names == ["variants", "kernel", "steps", *(s.name for s in _seed_cases.SCENARIOS)]
    assert result.stdout.splitlines().count("<!-- end -->") == len(names)
    assert "| user cgroup | original | 84 548 | 2.84x | original |" in result.stdout


@needs_lab
def test_the_documents_figures_come_from_a_measurement(tmp_path):
    script = Path(__file__).resolve().parents[2] / "lab" / "thread_tables.py"
    figures, document = tmp_path / "seed.json", tmp_path / "thread.md"
    measured = objcg("bench", "seed", "--quick", "--rounds", "1", "--json")
    figures.write_text(measured.stdout)
    markers = "# T\n<!-- table: {} -->\nold\n<!-- end -->\n<!-- table: machine -->\n<!-- end -->\n"
    document.write_text(markers.format("fork"))
    assert run([sys.executable, script, figures, document]).returncode == 0
    text = document.read_text()
    assert "| fork-reference-locked |" in text
    assert json.loads(measured.stdout)["machine"] in text
    assert "old" not in text
    document.write_text(markers.format("forks"))
    failed = run([sys.executable, script, figures, document])
    assert failed.returncode == 1
    assert "no table 'forks'" in failed.stderr
    assert document.read_text() == markers.format("forks")


def test_bench_alone_lists_the_benchmarks():
    result = objcg("bench")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(bench.NAMES)
    assert seed.DESCRIPTION in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nope"], "'nope' is not a benchmark; there are seed, programs"),
        (["seed", "--nope"], "--nope"),
        (["seed", "--rounds", "0"], "argument --rounds: 0 is not a number from 1 on"),
        (["seed", "--rounds", "many"], "argument --rounds: invalid"),
        (["seed", "--json", "--markdown"], "not allowed with argument"),
        (["--json"], "--json"),
        (["alloc", "--sizes", "0"], "argument --sizes: '0' is not a number from 1 to 1048576"),
        (["alloc", "--sizes", "64,"], "argument --sizes: '' is not a number"),
        (["alloc", "--counts", "many"], "argument --counts: 'many' is not a number"),
        (["alloc", "--patterns", "fifo,nope"], "'nope' is not a pattern; there are fifo"),
        (["memory", "--only", "nope"], "invalid choice: 'nope'"),
        (["memory", "--scale", "0"], "0 is not above 0"),
        (["memory", "--settle", "long"], "long is not from 0 to 600 seconds"),
        (["programs", "--only", "nope"], "invalid choice: 'nope'"),
        (["programs", "--scale", "0"], "0 is not above 0"),
        (["programs", "--scale", "much"], "argument --scale: much is not above 0"),
        (["instructions", "--only", "nope"], "invalid choice: 'nope'"),
        (["instructions", "--jobs", "0"], "argument --jobs: 0 is not a number from 1 to 1024"),
        (["limits", "--only", "nope"], "invalid choice: 'nope'"),
        (["native", "--only", "nope"], "invalid choice: 'nope'"),
        (["native", "--scale", "0"], "0 is not above 0"),
        (["native", "--from", "x.json", "--only", "programs"], "--only is for measuring"),
        (["limits", "--rounds", "0"], "argument --rounds: 0 is not a number from 1 on"),
        (["start", "--only", "run"], "--only"),
        (
            ["programs", "--from", "x.json", "--rounds", "3"],
            "--rounds is for measuring, and --from",
        ),
        (["programs", "--from", "x.json", "--no-preload"], "--no-preload is for measuring"),
        (["programs", "--plot", "picture.pdf"], "'picture.pdf' does not end with .svg or .png"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, told):
    result = objcg("bench", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("objcg: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


def test_the_help_of_a_benchmark_has_its_options():
    result = objcg("bench", "seed", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "--rounds" in result.stdout


def test_without_the_lab_the_error_says_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_lab.importlib.resources, "files", lambda _: tmp_path)
    with pytest.raises(BenchmarkError, match=r"not built.* pip install .* -Csetup-args=-Dlab=true"):
        _lab.Module("objcg")


@needs_lab
def test_what_goes_wrong_in_a_measuring_process_is_one_line():
    case = _lab_process.Case("no-migration", _lab.Request("move", 10, allocations=1))
    with pytest.raises(BenchmarkError, match="not permitted") as caught:
        _lab_process.measure([case], rounds=1, seed=1)
    assert "\n" not in str(caught.value)


@needs_lab
def test_without_valgrind_the_error_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BenchmarkError, match="--instructions needs valgrind"):
        _lab_instructions.count(["objcg"], _lab.Request("pair", 1))


@needs_lab
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_a_variant_that_does_more_runs_more_instructions():
    counted = _lab_instructions.count(["unaccounted", "original"], _lab.Request("pair", 20_000))
    # each allocation and free takes some, and not thousands
    assert 10 < counted["unaccounted"] < counted["original"] < 1000
