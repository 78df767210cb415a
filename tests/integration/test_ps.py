"""``objcg ps`` lists processes, and ``objcg tree`` adds up what several have."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .programs import TIMEOUT, objcg, started
from .test_tree import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKERS = 3
# A server that forks its workers: /requests is one group in each of them.
PREFORKED = f"""
import os, sys, objcg
objcg.enable()
objcg.group("/requests")
go_on, started = os.pipe(), os.pipe()
for number in range({WORKERS}):
    if os.fork() == 0:
        with objcg.group("/requests"):
            held = [bytes(1000) for _ in range(1000 * (number + 1))]
        os.write(started[1], b".")
        os.close(go_on[1])
        os.read(go_on[0], 1)
        os._exit(0)
for _ in range({WORKERS}):
    os.read(started[0], 1)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def preforked(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with started(sys.executable, "-W", "ignore", "-c", PREFORKED, folder=folder) as child:
        # its workers end when the pipe's other end is closed
        yield child


def from_json(*arguments: object, folder: Path) -> dict[str, Any]:
    result = objcg(*arguments, "--json", folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_nobody_has_it_on(folder: Path) -> None:
    assert from_json("ps", folder=folder) == {"processes": []}
    result = objcg("ps", folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [
        *("pid", "state", "RSS", "charged", "groups", "tasks", "events", "command"),
    ]


def test_every_process_is_listed(folder: Path) -> None:
    with serving(folder) as one, serving(folder) as other:
        listed = {each["pid"]: each for each in from_json("ps", folder=folder)["processes"]}
        text = objcg("ps", folder=folder).stdout
        (tree,) = (
            each for each in from_json("tree", folder=folder)["processes"] if each["pid"] == one.pid
        )
    assert set(listed) == {one.pid, other.pid}
    each = listed[one.pid]
    assert each["state"] == "running"
    assert "serve.py" in each["command"]
    assert each["groups"] == 4
    assert each["tasks"] == sum(group["tasks"] for group in tree["groups"])
    assert each["charged"] == tree["charged"] > 4_000_000
    assert each["unaccounted"] == each["rss"] - each["startup"] - each["charged"]
    assert set(each["events"]) == {"low", "high", "max", "ceiling", "raised"}
    rows = [line.split() for line in text.splitlines()[1:]]
    assert {int(row[0]) for row in rows} == {one.pid, other.pid}
    assert all(row[1] == "running" for row in rows)
    assert all("serve.py" in row[-1] for row in rows)


@pytest.mark.parametrize("verb", ["ps", "tree"])
def test_a_process_that_cannot_be_read_does_not_hide_the_others(verb: str, folder: Path) -> None:
    """As one that runs another version of objcg, from another environment."""
    with serving(folder) as one, serving(folder) as other:
        (path,) = folder.glob(f"{other.pid}-*.region")
        with path.open("r+b") as file:
            file.seek(8)
            file.write((2).to_bytes(4, "little"))
        result = objcg(verb, "--json", folder=folder)
        (process,) = json.loads(result.stdout)["processes"]
        assert process["pid"] == one.pid
        said = f"objcg: a process is not shown: {path}: it has layout version 2"
        assert (result.returncode, result.stderr[: len(said)]) == (1, said)
        result = objcg(verb, folder=folder)
        assert "serve.py" in result.stdout
        assert (result.returncode, result.stderr[: len(said)]) == (1, said)
        one.kill()
        one.wait(TIMEOUT)
        result = objcg(verb, folder=folder)
        assert (result.returncode, result.stderr[: len(said)]) == (1, said)


def test_the_killed_are_listed_when_asked_for(folder: Path) -> None:
    with serving(folder) as child:
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT)
    assert from_json("ps", folder=folder) == {"processes": []}
    (dead,) = from_json("ps", "--all", folder=folder)["processes"]
    assert (dead["pid"], dead["state"], dead["rss"]) == (child.pid, "killed", None)


def test_groups_of_workers_are_added_up(folder: Path) -> None:
    with preforked(folder) as child:
        report = from_json("tree", folder=folder)
        text = objcg("tree", folder=folder).stdout
    processes = report["processes"]
    assert len(processes) == WORKERS + 1
    assert child.pid in {each["pid"] for each in processes}
    own = [{group["path"]: group for group in each["groups"]}["/requests"] for each in processes]
    sums = {each["path"]: each for each in report["sum"]}
    assert [each["path"] for each in report["sum"]] == ["/", "/requests"]
    requests = sums["/requests"]
    assert requests["processes"] == WORKERS + 1
    for field in ("tasks", "current", "peak"):
        assert requests[field] == sum(group[field] for group in own)
    for field in ("events", "stat"):
        for name in own[0][field]:
            assert requests[field][name] == sum(group[field][name] for group in own)
    # 1000, 2000 and 3000 blocks of 1000 bytes, and the parent has none
    assert requests["current"] > 6_000_000
    together = text.split(f"all {WORKERS + 1} processes\n")[1].splitlines()
    assert together[0].split() == ["group", "processes", "current", "tasks", "events"]
    assert together[2].split()[:2] == ["requests", str(WORKERS + 1)]


def test_one_process_has_no_sum_in_text(folder: Path) -> None:
    with serving(folder) as child:
        assert "processes" not in objcg("tree", folder=folder).stdout
        report = from_json("tree", folder=folder)
    (process,) = report["processes"]
    assert process["pid"] == child.pid
    assert [each["current"] for each in report["sum"]] == [
        group["current"] for group in process["groups"]
    ]
