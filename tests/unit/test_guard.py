from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from objcg.bench import instructions
from objcg.bench.runner import BenchmarkError

PATH = Path(__file__).resolve().parents[1] / "guard" / "guard.py"


@pytest.fixture
def guard(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("guard", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORDS", tmp_path / "recorded.json")
    monkeypatch.setattr(module, "MINOR", "3.13")
    monkeypatch.setattr(module, "RECORD", "make guard-record-3.13")
    monkeypatch.setattr(module, "has_valgrind", lambda: True)
    monkeypatch.setattr("sys.argv", ["guard.py"])
    return module


@pytest.fixture
def counts(guard, monkeypatch):
    """What is counted, in place of valgrind: ratio and spread of each program."""
    counted = {"pair": (1.1, 0.0), "dicts": (1.02, 0.0)}

    def run(options):
        return [
            {
                "program": name,
                "stock_instructions": 1_000_000,
                "objcg_instructions": 1_000_000 * ratio,
                "ratio": ratio,
                "stock_spread": spread if options.rounds > 1 else None,
                "objcg_spread": 0.0 if options.rounds > 1 else None,
            }
            for name, (ratio, spread) in counted.items()
        ]

    monkeypatch.setattr(instructions, "run", run)
    return counted


def record(guard, ratios, build=None):
    text = json.dumps({"3.13": {"build": build or guard.build(), "ratios": ratios}})
    guard.RECORDS.write_text(text)


def test_a_ratio_that_grew_fails_and_is_named_with_both_figures(guard):
    wrong, known = guard.compare({"a": 1.1221, "b": 1.0}, {"a": 1.1, "b": 1.0})
    assert wrong == ["a: recorded 1.1000, counted 1.1221 (+2.0%): more than 2% above"]
    assert known == []


def test_a_ratio_within_the_tolerance_is_silent(guard):
    assert guard.compare({"a": 1.1219, "b": 1.0781}, {"a": 1.1, "b": 1.1}) == ([], [])


def test_a_ratio_that_fell_asks_to_record_anew_and_does_not_fail(guard):
    wrong, known = guard.compare({"a": 1.07}, {"a": 1.1})
    assert wrong == []
    assert known == [
        "a: recorded 1.1000, counted 1.0700 (-2.7%): more than 2% below; make guard-record-3.13"
    ]


def test_programs_and_records_that_do_not_match_fail(guard):
    wrong, _ = guard.compare({"new": 1.0}, {"gone": 1.0})
    assert wrong == [
        "new: counted 1.0000, but never recorded; make guard-record-3.13",
        "gone: recorded, but not counted any more; make guard-record-3.13",
    ]


@pytest.mark.parametrize(
    ("pair", "result"),
    [
        (1.1, (0, "no ratio is more than 2% above")),
        (1.2, (0, "guard: pair: recorded 1.2000, counted 1.1000 (-8.3%): more than 2% below")),
        (1.0, (1, "guard: FAILED: pair: recorded 1.0000, counted 1.1000 (+10.0%)")),
    ],
)
def test_the_exit_status_is_that_of_the_comparison(guard, counts, capsys, pair, result):
    record(guard, {"pair": pair, "dicts": 1.02})
    status, told = result
    assert guard.main() == status
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("others", [{}, {"3.11": {"build": {}, "ratios": {"pair": 1.0}}}])
def test_a_minor_version_without_a_record_is_named_and_passes(guard, counts, capsys, others):
    guard.RECORDS.write_text(json.dumps(others))
    assert guard.main() == 0
    assert (
        "NOT COMPARED: nothing is recorded for Python 3.13; make guard" in capsys.readouterr().out
    )


def test_a_record_of_another_build_is_told_and_does_not_fail(guard, counts, capsys):
    record(guard, {"pair": 1.0, "dicts": 1.02}, {**guard.build(), "python": "3.13.99"})
    assert guard.main() == 0
    out = capsys.readouterr().out
    assert "NOT COMPARED: the record is of another build" in out
    assert "python: recorded with '3.13.99', this is" in out
    assert "pair: recorded 1.0000, counted 1.1000 (+10.0%)" in out


def test_what_is_recorded_is_what_is_compared_with_and_others_stay(guard, counts, monkeypatch):
    other = {"build": {"python": "3.9.1"}, "ratios": {"pair": 1.5}}
    guard.RECORDS.write_text(json.dumps({"3.9": other}))
    monkeypatch.setattr("sys.argv", ["guard.py", "--record"])
    assert guard.main() == 0
    records = json.loads(guard.RECORDS.read_text())
    assert list(records) == ["3.13", "3.9"]
    assert records["3.9"] == other
    assert records["3.13"] == {"build": guard.build(), "ratios": {"pair": 1.1, "dicts": 1.02}}
    monkeypatch.setattr("sys.argv", ["guard.py"])
    assert guard.main() == 0
    counts["dicts"] = (1.05, 0.0)
    assert guard.main() == 1


def test_counts_that_differ_are_not_recorded(guard, counts, capsys, monkeypatch):
    counts["pair"] = (1.1, 0.001)
    monkeypatch.setattr("sys.argv", ["guard.py", "--record"])
    assert guard.main() == 2
    assert "pair, stock: counts of the same differ by 0.100%" in capsys.readouterr().err
    assert not guard.RECORDS.exists()


@pytest.mark.parametrize(
    "text",
    ["no JSON", "[]", '{"3.13": {"ratios": {}}}', '{"3.13": {"build": {}, "ratios": {"a": 0}}}'],
)
def test_a_record_that_cannot_be_read_is_named(guard, counts, capsys, text):
    guard.RECORDS.write_text(text)
    assert guard.main() == 2
    assert "recorded.json cannot be read: " in capsys.readouterr().err


def test_what_goes_wrong_while_counting_is_an_error(guard, monkeypatch, capsys):
    def run(options):
        raise BenchmarkError("valgrind counted nothing of pair, stock")

    monkeypatch.setattr(instructions, "run", run)
    assert guard.main() == 2
    assert capsys.readouterr().err == "guard: valgrind counted nothing of pair, stock\n"


def test_without_valgrind_it_is_skipped_with_the_reason(guard, monkeypatch, capsys):
    monkeypatch.setattr(guard, "has_valgrind", lambda: False)
    assert guard.main() == 0
    assert "SKIPPED: valgrind is not installed" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["guard.py", "--record"])
    assert guard.main() == 2


def test_a_record_knows_the_compiler_of_what_is_counted(guard, tmp_path):
    library = tmp_path / "x.so"
    library.write_bytes(b"\0\1GCC: (Debian 12.2.0-14) 12.2.0\0.text")
    assert guard.compiler_of(library) == "GCC: (Debian 12.2.0-14) 12.2.0"
    assert all(guard.build().values())
    assert guard.build()["objcg's compiler"] != "unknown"


def test_what_is_recorded_in_the_repository_can_be_read(guard):
    records = guard.read_records(PATH.with_name("recorded.json"))
    assert records
    for record in records.values():
        assert list(record["ratios"]) == list(instructions.PROGRAMS)
        assert list(record["build"]) == list(guard.build())
