"""The suite, over a made-up pyperformance: what is measured are processes all the same."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from objcg.bench import suite
from objcg.bench.runner import BenchmarkError, Options

from .programs import run

MANIFEST = """
import json, os
HERE = os.path.dirname(__file__)

class Versions:
    def __init__(self, text):
        self.text = text
    def __contains__(self, version):
        return self.text == ""
    def __str__(self):
        return self.text

class Entry:
    def __init__(self, name, versions="", extra_opts=()):
        self.name, self.extra_opts, self.python = name, extra_opts, Versions(versions)
        self.runscript = os.path.join(HERE, f"bm_{name}.py")

class Manifest:
    benchmarks = [
        Entry("good"), Entry("two", extra_opts=("--two",)), Entry("old", "<3"), Entry("command"),
        Entry("broken"), Entry("ours"), Entry("late"), Entry("alone"), Entry("enables"),
    ]

def load_manifest(name):
    assert name is None
    return Manifest
"""

PYPERF = """
import json

class Run:
    def __init__(self, loops):
        self.warmups = ((1, 0.5), (loops, 0.5))

class Benchmark:
    def __init__(self, name, loops, values):
        self.get_name = lambda: name
        self.get_runs = lambda: [Run(loops)]
        self.get_values = lambda: values

class BenchmarkSuite:
    @staticmethod
    def load(path):
        with open(path) as file:
            made = [Benchmark(*json.loads(line)) for line in file]
        suite = BenchmarkSuite()
        suite.get_benchmarks = lambda: made
        return suite
"""

# A script with one benchmark, or two; objcg's side takes 3 s of 8 loops, stock's 2 s.
SCRIPT = """
import json, sys
import neighbour
names = ["first", "second"] if "--two" in sys.argv else ["only"]
if "--worker-task" in sys.argv:
    names = [names[int(sys.argv[sys.argv.index("--worker-task") + 1])]]
    assert sys.argv[sys.argv.index("--loops") + 1] == "8"
else:
    assert "--calibrate-loops" in sys.argv
assert "--worker" in sys.argv and __name__ == "__main__"
# some replace open()
__builtins__.open = open
value = 3.0 if "objcg" in sys.modules else 2.0
with open(sys.argv[sys.argv.index("--append") + 1], "a") as file:
    for name in names:
        file.write(json.dumps([name, 8, [value, value, 100.0]]) + "\\n")
sys.exit(0)
"""

SCRIPTS = {
    "good": SCRIPT,
    "two": SCRIPT,
    "old": "raise SystemError",
    "command": "runner.bench_command('x', [])",
    "broken": "import nothing_of_that_name",
    "ours": "import sys\nassert 'objcg' not in sys.modules, 'not with objcg'\n" + SCRIPT,
    "alone": SCRIPT.replace("names = [names[", "names = ['other', names["),
    "enables": "import objcg; objcg.enable()\n" + SCRIPT,
    "late": "import sys\nassert '--loops' not in sys.argv or 'objcg' in sys.modules, 'late'\n"
    + SCRIPT,
}


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    package = tmp_path / "pyperformance"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '0.1'\n")
    (package / "_manifest.py").write_text(MANIFEST)
    (package / "neighbour.py").write_text("")
    (tmp_path / "pyperf.py").write_text(PYPERF)
    for name, text in SCRIPTS.items():
        (package / f"bm_{name}.py").write_text(text)
    for name in ("pyperformance", "pyperformance._manifest", "pyperf"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("pyperformance", "pyperformance._manifest", "pyperf"):
        sys.modules.pop(name, None)


def test_the_suite_is_measured_with_what_failed_and_why(made_up):
    rows = suite.run(Options(rounds=2))
    assert [(row["benchmark"], row["status"]) for row in rows] == [
        ("only", "measured"),
        ("first", "measured"),
        ("second", "measured"),
        ("old", "not runnable"),
        ("command", "not runnable"),
        ("broken", "not runnable"),
        ("ours", "failed"),
        ("only", "failed"),
        ("only", "not runnable"),
        ("enables", "failed"),
        ("geometric mean", "summary"),
        ("worst", "summary"),
    ]
    for row in rows[:3]:
        # the median of each process; the sides are what they say
        assert (row["seconds"], row["baseline_seconds"], row["ratio"]) == (3, 2, 1.5)
        assert (row["side"], row["baseline"], row["loops"]) == ("objcg", "stock", 8)
        # above the goal: it was looked at again, for longer
        assert (row["again"], row["again_ratio"]) == (5, 1.5)
        assert row["group"] == "/bench"
        assert row["memory_ratio"] > 0
    assert [row["script"] for row in rows[:3]] == ["good", "two", "two"]
    for row in rows[3:10]:
        assert row["ratio"] is row["baseline"] is None
    assert rows[3]["reason"] == "it is for Python <3"
    assert "other processes" in rows[4]["reason"]
    assert rows[5]["reason"] == "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert rows[6]["reason"] == "on the side objcg only: AssertionError: not with objcg"
    assert rows[7]["reason"] == "on the side stock only: AssertionError: late"
    assert rows[8]["reason"] == "as its part 0 it did not measure only alone"
    assert "the process of the side 'stock' was something else" in rows[9]["reason"]
    assert rows[10]["ratio"] == pytest.approx(1.5)
    assert (rows[11]["ratio"], rows[11]["reason"]) == (1.5, "only")
    assert {row["rounds"] for row in rows} == {2}

    text = suite.table(rows)
    assert "ERROR: 3 failed on one side only" in text
    assert "! 1.50x (1.50-1.50)" in text
    assert list(suite.markdown(rows)) == ["suite", "failed", "not-runnable"]


def test_the_worst_is_judged_by_its_second_look_and_the_mean_by_the_first(made_up, monkeypatch):
    looks = []
    look = suite._look

    def lucky_the_second_time(script, part, plan):
        looks.append((part.name, plan.rounds))
        row = look(script, part, plan)
        return {**row, "ratio": {1: 2.0, 3: 0.5}[plan.rounds]} if part.name == "first" else row

    monkeypatch.setattr(suite, "_look", lucky_the_second_time)
    rows = suite.run(Options(rounds=1, extra={"only": ["two"]}))
    assert looks == [("first", 1), ("first", 3), ("second", 1), ("second", 3)]
    assert (rows[0]["ratio"], rows[0]["again_ratio"]) == (2.0, 0.5)
    assert rows[2]["ratio"] == pytest.approx((2.0 * 1.5) ** 0.5)
    assert (rows[3]["ratio"], rows[3]["reason"]) == (1.5, "second")
    # the worst first
    assert suite.table(rows).index("second ") < suite.table(rows).index("first ")

    monkeypatch.setattr(suite, "AGAIN_ABOVE", 2.0)
    looks.clear()
    suite.run(Options(rounds=1, extra={"only": ["two"]}))
    assert looks == [("first", 1), ("second", 1)]


def test_only_some_are_measured(made_up):
    rows = suite.run(Options(rounds=1, extra={"only": ["two"]}))
    # a document can tell that this is not all of it
    assert {(row["scripts"], row["scripts_known"]) for row in rows} == {(1, len(suite.scripts()))}
    assert len(suite.scripts()) > 1
    assert [row["benchmark"] for row in rows] == ["first", "second", "geometric mean", "worst"]
    assert "None failed on one side only" in suite.table(rows)
    with pytest.raises(BenchmarkError, match=r"no benchmark 'three'; it has alone, .*two"):
        suite.run(Options(rounds=1, extra={"only": ["three"]}))


def test_quick_is_a_part_and_ends_in_time(made_up, monkeypatch):
    rows = suite.run(Options(rounds=1, quick=True))
    assert [row["script"] for row in rows if "script" in row] == ["good", "late"]
    monkeypatch.setattr(suite, "_QUICK_SECONDS", -1.0)
    rows = suite.run(Options(rounds=1, quick=True))
    assert [row["status"] for row in rows] == ["left out", "left out"]
    assert "of --quick were over" in suite.table(rows)


def test_without_pyperformance_the_error_names_the_command(tmp_path):
    # a module of that name that cannot be imported, whatever is installed
    (tmp_path / "pyperformance.py").write_text("raise ImportError('not here')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['bench', 'suite'];"
        "from objcg.cli import main; sys.exit(main())"
    )
    result = run([sys.executable, "-c", code])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("objcg: the suite is pyperformance's")
    assert result.stderr.count("\n") == 1
    assert f"{sys.executable} -m pip install pyperformance" in result.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("pyperformance") is None, reason="pyperformance is not installed"
)
def test_a_real_benchmark_is_measured():
    command = ["bench", "suite", "--quick", "--rounds", "1", "--only", "json_loads", "--json"]
    result = run([sys.executable, "-m", "objcg", *command])
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["name"] == "suite"
    row = report["rows"][0]
    assert (row["benchmark"], row["status"], row["group"]) == ("json_loads", "measured", "/bench")
    assert row["ratio"] > 0
