"""docs/benchmarks.py over made-up results in a folder of the test."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from unit import bench_results as made_up

from objcg.bench import document

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def goals():
    yield load("goals")
    del sys.modules["goals"]


@pytest.fixture(scope="module")
def benchmarks(goals):
    path = list(sys.path)
    yield load("benchmarks")
    sys.path[:] = path
    del sys.modules["benchmarks"]


@pytest.fixture(scope="module")
def measure():
    yield load("measure")
    del sys.modules["measure"]


@pytest.fixture
def written(tmp_path, benchmarks):
    """A document of the project, with results of some benchmarks on one version."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    results = made_up.all_results()
    for name in ("programs", "suite"):
        result = results[name]
        (folder / f"{name}-3.13.json").write_text(json.dumps(result))
    path = tmp_path / "benchmarks.md"
    path.write_text((DOCS / "benchmarks.md").read_text())
    assert benchmarks.make(path, folder, check=False) == []
    return path


def lines(goals, **rows):
    """Return the summary's lines as cells, by their goal."""
    text = goals.summary({"3.13": rows, "3.11": {}})
    cells = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {goal: (measured, verdict) for goal, _, measured, _, verdict in cells}


def test_a_goal_is_met_or_missed_by_what_was_measured(goals):
    met = lines(
        goals,
        suite=made_up.suite_rows(),
        programs=made_up.programs_rows(),
        scale=made_up.scale_rows(),
        switch=made_up.switch_rows(),
    )
    assert met["`suite`: time, geometric mean"] == ("0.990x", "3.13: met; 3.11: not measured")
    assert met["`suite`: time, the worst"][0] == "1.040x"
    assert met["`suite`: benchmarks that fail on one side only"][0] == "0"
    assert met["`programs`: time, geometric mean"][0] == "0.870x"
    beside = "`programs`: time beside mimalloc, preloaded: quotient of the geometric means"
    assert met[beside][0] == f"{0.87 / 0.82:.3f}x"
    assert met["`switch`: with group: (from root)"][0] == "240 ns (239 to 241)"
    assert met["`scale`: 1,000,000 groups beside one, blocks in all"][0].startswith("1.020x")
    assert not any("MISSED" in verdict for _, verdict in met.values())

    scale = "`scale`: 1,000,000 groups beside one, blocks in one of them"
    missed = lines(
        goals,
        suite=made_up.suite_rows(mean=1.0001, worst=1.06, failed=True),
        programs=made_up.programs_rows(objcg=0.89),
        scale=made_up.scale_rows(1.06),
        switch=made_up.switch_rows(250.4),
    )
    for goal, text in {
        # what is printed as the goal may be above it
        "`suite`: time, geometric mean": "**1.000x**",
        "`suite`: time, the worst": "**1.060x**",
        "`suite`: benchmarks that fail on one side only": "**1, broken**",
        beside: f"**{0.89 / 0.82:.3f}x**",
        "`switch`: with group: (from root)": "**250 ns (249 to 251)**",
        scale: "**1.060x (1.060 to 1.060)**",
    }.items():
        assert missed[goal] == (text, "3.13: **MISSED**; 3.11: not measured")
    assert missed["`programs`: time, geometric mean"][0] == "0.890x"


def test_what_a_result_does_not_have_is_not_measured(goals):
    rows = made_up.programs_rows()[:-1]
    found = lines(goals, programs=rows)
    beside = "`programs`: time beside mimalloc, preloaded: quotient of the geometric means"
    assert found[beside] == (
        "not measured (no row with program geometric mean, side mimalloc)",
        "not measured",
    )
    assert found["`suite`: time, geometric mean"] == ("not measured", "not measured")
    some = [row | {"scripts": 1} for row in made_up.suite_rows(failed=True)]
    suite = {goal: text for goal, (text, _) in lines(goals, suite=some).items() if "suite" in goal}
    assert set(suite.values()) == {"not measured (1 of 9 scripts only)"}
    part = lines(goals, programs=[made_up.mean_row("objcg", 0.5, programs=2)])
    assert part["`programs`: time, geometric mean"][0] == "not measured (2 of 8 programs only)"


def test_the_worst_pattern_counts(goals):
    goal = "`alloc`: 1,000,000 blocks of 64 bytes, the worst pattern"
    # another phase, side and size are worse, and have no goal
    assert lines(goals, alloc=made_up.alloc_rows())[goal][0] == "0.900x (0.890 to 0.910), pair"
    missed = lines(goals, alloc=made_up.alloc_rows(worst=1.001))[goal]
    assert missed[0] == "**1.001x (0.991 to 1.011), pair**"
    some = [row for row in made_up.alloc_rows() if row["pattern"] != "pair"]
    assert lines(goals, alloc=some)[goal][0] == "not measured (6 of 7 patterns only)"


def test_the_worst_round_at_the_limit_counts(goals):
    above = "`limits`: above memory.max of 16 MiB, the worst of all"
    errors = "`limits`: errors in a task of another group"
    met = lines(goals, limits=made_up.limits_rows())
    assert met[above][0] == "6,291,456 bytes, call"
    assert met[errors][0] == "0"
    missed = lines(goals, limits=made_up.limits_rows(worst=6_291_457, errors=1))
    assert missed[above][0] == "**6,291,457 bytes, call**"
    assert missed[errors][0] == "**7**"
    some = lines(goals, limits=made_up.limits_rows()[1:])
    assert some[above][0] == "not measured (6 of 7 ways only)"


def test_charged_and_preloaded_have_a_goal_each_and_all_programs_have_to_be_there(goals):
    said = lines(goals, native=made_up.native_rows())
    case = "`native`: 10,000 blocks replaced at random, and written"
    assert said[f"{case}: preloaded"] == (
        "1.020x (1.010 to 1.030)",
        "3.13: met; 3.11: not measured",
    )
    assert said[f"{case}: charged"][0] == "**1.200x (1.190 to 1.210)**"
    mean = "`native`: programs with the library loaded, geometric mean"
    assert said[mean][0] == "0.990x"
    missed = lines(goals, native=made_up.native_rows(program=1.001))
    assert missed[mean] == ("**1.001x**", "3.13: **MISSED**; 3.11: not measured")
    some = [row | {"programs": 1} for row in made_up.native_rows()]
    assert lines(goals, native=some)[mean][0] == "not measured (1 of 8 programs only)"
    calls = lines(goals, native=made_up.native_rows()[:-3])
    assert calls[mean][0].startswith("not measured (no row with program geometric mean")


def test_what_is_read_has_a_goal_in_milliseconds_and_a_watcher_costs_nothing(goals):
    region, tree, watched = (goal for goal in lines(goals) if goal.startswith("`read`: "))
    met = lines(goals, read=made_up.read_rows())
    assert met[region] == ("9.9 ms (9.0 to 300.0)", "3.13: met; 3.11: not measured")
    assert met[tree][0] == "149.0 ms (100.0 to 200.0)"
    assert met[watched][0] == "0.990x, median 1.010x"
    missed = lines(goals, read=made_up.read_rows(0.0101, 0.1501, 1.001))
    assert missed[region][0] == "**10.1 ms (9.0 to 300.0)**"
    assert missed[tree][0] == "**150.1 ms (100.0 to 200.0)**"
    assert missed[watched] == (
        "**1.001x, median 1.010x**",
        "3.13: **MISSED**; 3.11: not measured",
    )
    others = [row | {"asked": 9_999} for row in made_up.read_rows()]
    assert lines(goals, read=others)[region][1] == "not measured"


def test_both_versions_have_to_meet_a_goal(goals):
    text = goals.summary({m: {"suite": made_up.suite_rows()} for m in ("3.13", "3.11")})
    assert "| 0.990x | 0.990x | met |" in text


def test_the_document_shows_what_the_results_say(written):
    text = written.read_text()
    assert made_up.MACHINE in text
    assert "![programs: " in text
    assert "(benchmarks/programs-3.13.svg)" in text
    assert "| geometric mean |  | 0.87x" in text
    assert (written.parent / "benchmarks" / "programs-3.13.svg").exists()
    assert "<!-- table: programs 3.11 -->\nNot measured.\n<!-- end -->" in text


def test_what_is_written_by_hand_stays(written, benchmarks):
    remark = "\nThe load came from a neighbour.\n\n### programs, CPython 3.11"
    written.write_text(written.read_text().replace("\n### programs, CPython 3.11", remark))
    assert benchmarks.make(written, written.parent / "benchmarks", check=False) == []
    assert remark in written.read_text()
    assert benchmarks.make(written, written.parent / "benchmarks", check=True) == []


def test_the_check_finds_what_differs(written, benchmarks):
    folder = written.parent / "benchmarks"
    text = written.read_text()
    assert benchmarks.make(written, folder, check=True) == []

    written.write_text(text.replace("0.87x", "0.78x", 1))
    assert benchmarks.make(written, folder, check=True) == [f"{written} is not what {folder} makes"]
    assert "0.78x" in written.read_text()
    written.write_text(text)

    picture = folder / "suite-3.13.svg"
    picture.rename(folder / "suite-3.11.svg")
    assert benchmarks.make(written, folder, check=True) == [
        f"{picture} is not there",
        f"{folder / 'suite-3.11.svg'} has no result",
    ]
    assert benchmarks.make(written, folder, check=False) == []
    assert not (folder / "suite-3.11.svg").exists()

    other = made_up.result("suite", made_up.suite_rows(worst=1.03))
    (folder / "suite-3.13.json").write_text(json.dumps(other))
    wrong = benchmarks.make(written, folder, check=True)
    assert wrong[1:] == [f"{picture} was not made from suite-3.13.json"]


def test_the_check_of_the_command_line_is_its_exit_status(written, benchmarks, monkeypatch, capsys):
    folder = written.parent / "benchmarks"
    monkeypatch.setattr(sys, "argv", ["benchmarks.py", "--results", str(folder), "--check"])
    assert benchmarks.main() == 0
    written.write_text(written.read_text().replace("0.87x", "0.78x", 1))
    assert benchmarks.main() == 1
    assert f"{written} is not what {folder} makes" in capsys.readouterr().err


def test_a_result_that_is_not_what_its_name_says_is_an_error(written, benchmarks):
    folder = written.parent / "benchmarks"
    stored = folder / "suite-3.13.json"
    for name, told in {
        "suite-3.9.json": "not named after a benchmark",
        "suites-3.13.json": "not named after a benchmark",
        "suite-3.11.json": "was measured on CPython 3.13.99",
        "switch-3.11.json": "is of the benchmark 'suite', not of 'switch'",
    }.items():
        stored.rename(folder / name)
        with pytest.raises(benchmarks.DocumentError, match=told):
            benchmarks.make(written, folder, check=True)
        (folder / name).rename(stored)


def test_a_benchmark_that_the_document_leaves_out_is_an_error(written, benchmarks):
    text = written.read_text()
    without = text.replace("<!-- table: suite 3.11 -->\nNot measured.\n<!-- end -->", "")
    assert without != text
    written.write_text(without)
    with pytest.raises(benchmarks.DocumentError, match=r"suite 3\.11 --> is there 0 times"):
        benchmarks.make(written, written.parent / "benchmarks", check=True)


def test_the_documents_tables_are_found_by_name(benchmarks):
    names = document.names((DOCS / "benchmarks.md").read_text())
    assert names[0] == "summary"
    assert {"programs 3.13", "programs 3.11", "peers 3.13"} <= set(names)


def test_a_stored_result_has_a_line_for_each_row(measure):
    result = made_up.all_results()["suite"]
    text = measure.as_text(result)
    assert json.loads(text) == result
    assert len([line for line in text.splitlines() if "benchmark" in line]) == len(result["rows"])


def test_the_projects_document_is_what_its_results_make(benchmarks):
    # if this fails: make documents
    readme = DOCS.parent / "README.md"
    made = benchmarks.make(
        DOCS / "benchmarks.md", DOCS / "benchmarks", check=True, excerpts=[readme]
    )
    assert made == []


def test_options_of_the_benchmark_are_passed_on(measure, tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$@" > "$SAID"; exit 3\n')
    fake.chmod(0o755)
    said = tmp_path / "said"
    monkeypatch.setenv("SAID", str(said))
    where = ["--python", str(fake), "--results", str(tmp_path / "results")]
    command = ["measure.py", *where, "suite", "--rounds", "3", "--", "--only", "json_loads"]
    monkeypatch.setattr(sys, "argv", command)
    assert measure.main() == 1
    assert said.read_text() == "-m objcg bench suite --json --only json_loads --rounds 3\n"
    monkeypatch.setattr(sys, "argv", ["measure.py", "suite", "--", "--quick"])
    with pytest.raises(SystemExit):
        measure.main()


def test_what_cannot_be_measured_is_reported_and_stores_nothing(
    measure, tmp_path, monkeypatch, capsys
):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho '{}'; exit $STATUS\n")
    fake.chmod(0o755)
    folder = tmp_path / "results"
    command = ["measure.py", "--python", str(fake), "--results", str(folder), "switch", "scale"]
    monkeypatch.setattr(sys, "argv", command)
    for status, told in (("3", "ended with status 3"), ("0", "it has no 'name'")):
        monkeypatch.setenv("STATUS", status)
        assert measure.main() == 1
        errors = capsys.readouterr().err
        assert told in errors
        assert "failed: switch, scale" in errors
        assert list(folder.iterdir()) == []


def test_a_result_is_stored_by_benchmark_and_version(measure, tmp_path, monkeypatch):
    result = made_up.all_results("3.11")["switch"]
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(result)}\nEND\n")
    fake.chmod(0o755)
    assert measure.measure(str(fake), "switch", [], tmp_path) == tmp_path / "switch-3.11.json"
    assert json.loads((tmp_path / "switch-3.11.json").read_text()) == result
    monkeypatch.setattr(measure, "MOST_BYTES", 100)
    with pytest.raises(measure.BenchmarkError, match="more than 100: not stored"):
        measure.measure(str(fake), "switch", [], tmp_path)
