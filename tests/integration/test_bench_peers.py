from __future__ import annotations

import json
import sys

import pytest

from objcg.bench import peers, programs
from objcg.bench._programs import _process
from objcg.bench.runner import BenchmarkError, Options

from .programs import run

RUN = "sys.exit(subprocess.run(sys.argv[2:]).returncode)"
TINY = {"only": ["lists"], "scale": 0.01}


def write(folder, text):
    path = folder / "program.py"
    path.write_text(text)
    return [str(path)]


def a_peer(folder, text, **fields):
    """Return a peer that is a program of Python, which runs the interpreter."""
    path = folder / "tool.py"
    path.write_text(f"import os, subprocess, sys\n{text}\n")
    return peers.Peer("nothing", under=(sys.executable, str(path), "{folder}"), **fields)


def test_bench_peers_prints_what_the_interface_says():
    options = ("--rounds", "1", "--scale", "0.01", "--only", "lists", "--peer", "tracemalloc")
    result = run([sys.executable, "-m", "objcg", "bench", "peers", *options, "--json"])
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert list(report) == ["name", "machine", "python", "rows"]
    assert report["name"] == "peers"
    assert [(row["program"], row["side"]) for row in report["rows"]] == [
        ("lists", "stock"),
        ("lists", "objcg"),
        ("lists", "tracemalloc"),
        (programs.MEAN, "objcg"),
        (programs.MEAN, "tracemalloc"),
    ]
    for row in report["rows"]:
        compared = row["side"] != "stock"
        assert (row["ratio"] is not None) == (row["baseline"] == "stock") == compared
        assert row["version"] is None
    traced = report["rows"][2]
    assert traced["cpu_seconds"] > 0
    # it keeps a record of each block
    assert traced["memory_ratio"] > 1


def test_a_peer_that_is_not_installed_is_skipped_with_the_command_that_installs_it(monkeypatch):
    gone = {
        "module": peers.Peer("", package="objcg-gone", module="objcg_gone"),
        "command": peers.Peer("", package="objcg-gone", under=("objcg-gone", "record")),
    }
    monkeypatch.setattr(peers, "PEERS", gone)
    rows = peers.run(Options(rounds=1, extra=TINY))
    assert {row["side"] for row in rows if "skipped" not in row} == {"stock", "objcg"}
    skipped = {row["side"]: row["skipped"] for row in rows if "skipped" in row}
    assert skipped == dict.fromkeys(gone, "not installed; python -m pip install objcg-gone")
    text = "module skipped: not installed; python -m pip install objcg-gone"
    assert text in peers.table(rows)
    assert text in peers.markdown(rows)["left out"]
    assert "Skipped: module, command." in peers.figure(rows).notes


def test_a_peer_that_fails_on_a_program_is_listed_with_the_reason(monkeypatch, tmp_path):
    fails = a_peer(tmp_path, "if '/lists.py' in str(sys.argv): sys.exit('no lists')\n" + RUN)
    monkeypatch.setattr(peers, "PEERS", {"fails": fails})
    rows = peers.run(Options(rounds=1, extra={"only": ["lists", "dicts"], "scale": 0.01}))
    by_cell = {(row["program"], row["side"]): row for row in rows}
    assert by_cell["lists", "fails"]["failed"] == "round 1 of 1: no lists"
    assert by_cell["lists", "fails"]["ratio"] is None
    assert by_cell["dicts", "fails"]["ratio"] > 0
    mean = by_cell[programs.MEAN, "fails"]
    assert mean["ratio"] == by_cell["dicts", "fails"]["ratio"]
    assert (mean["programs"], mean["programs_asked"]) == (1, 2)
    text = peers.table(rows)
    assert "fails FAILED, lists: round 1 of 1: no lists" in text
    assert "(1 of 2)" in text
    assert "Failed: fails (lists)." in peers.figure(rows).notes


def test_what_a_peer_says_itself_is_not_taken_for_the_programs_output(tmp_path):
    text = "print('Sampling!', flush=True)\n"
    talks = a_peer(tmp_path, text + RUN.replace("sys.exit", "print"))
    # after the program it says "0", as a number of its own
    with pytest.raises(BenchmarkError, match="printed one number"):
        peers._run_under("talks", talks, write(tmp_path, "print(17)"), hash_seed=1)
    talks = a_peer(tmp_path, text + RUN)
    result = peers._run_under("talks", talks, write(tmp_path, "print(17)"), hash_seed=1)
    assert result.output == "17"


def test_a_peer_that_was_not_there_is_an_error(tmp_path):
    program = write(tmp_path, "print(1)")
    with pytest.raises(BenchmarkError, match="was something else"):
        peers._run_under("tracemalloc", peers.Peer("", module="tracemalloc"), program, hash_seed=1)
    nothing = a_peer(tmp_path, RUN, leaves="file")
    with pytest.raises(BenchmarkError, match="nothing left nothing in file"):
        peers._run_under("nothing", nothing, program, hash_seed=1)
    leaves = a_peer(
        tmp_path, "open(os.path.join(sys.argv[1], 'file'), 'w').write('x')\n" + RUN, leaves="file"
    )
    assert peers._run_under("leaves", leaves, program, hash_seed=1).output == "1"


def test_a_profiler_on_stocks_side_is_an_error(tmp_path):
    program = write(tmp_path, "import tracemalloc; tracemalloc.start(); print(1)")
    with pytest.raises(BenchmarkError, match="'stock' was something else"):
        _process.run("stock", program, hash_seed=1)


def test_the_children_of_a_process_count(tmp_path):
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    twice = a_peer(tmp_path, f"{burn}\n{RUN}")
    both = peers._run_under("twice", twice, write(tmp_path, f"{burn}\nprint(1)"), hash_seed=1)
    # of processor time: neither ends before it has used its part
    assert both.cpu_seconds >= 0.6


@pytest.mark.parametrize("name", [name for name, peer in peers.PEERS.items() if peer.package])
def test_an_installed_peer_runs_a_program(name, tmp_path):
    peer = peers.PEERS[name]
    reason = peers._missing(peer)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    # long enough for a sampling profiler to see it
    program = "import time\nwhile time.process_time() < 0.3: pass\nprint(len([bytes(10)] * 10))"
    result = peers._run_under(name, peer, write(tmp_path, program), hash_seed=1)
    assert result.output == "10"
    assert result.group == ""
