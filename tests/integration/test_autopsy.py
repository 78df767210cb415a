"""``objcg autopsy`` shows what a process had when it was killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from objcg import region

from .programs import TIMEOUT, objcg, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 4 << 20
PROGRAM = f"""
import os, sys, objcg
objcg.enable()
full, other = objcg.group("/tenants/full"), objcg.group("/tenants/other", high="64M")
full.memory.max = {LIMIT}
held = []
with other:
    held.append(bytes(6 << 20))
with full:
    try:
        while True:
            held.append(bytes(1000))
    except objcg.MemoryLimitExceeded:
        print("ready", flush=True)
    if sys.stdin.readline() == "exec\\n":
                os.execvp("sh", ["sh", "-c", "echo another; cat"])
"""


@contextmanager
def full(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program that has gone over a limit, and waits in that group."""
    with started(sys.executable, "-c", PROGRAM, folder=folder) as child:
        yield child


def killed(folder: Path) -> int:
    with full(folder) as child:
        child.kill()
        child.wait(TIMEOUT)
    return child.pid


def autopsy(*arguments: object, folder: Path) -> dict[str, Any]:
    result = objcg("autopsy", "--json", *arguments, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("objcg: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_who_was_over_its_limit(folder: Path) -> None:
    pid = killed(folder)
    report = autopsy(pid, folder=folder)
    assert (report["pid"], report["state"], report["alive"]) == (pid, "killed", False)
    (over,) = report["over"]
    assert (over["path"], over["knob"], over["limit"]) == ("/tenants/full", "max", LIMIT)
    assert LIMIT - LIMIT // 64 < over["current"] < LIMIT + LIMIT // 8
    assert over["events"]["raised"] == 1
    assert report["largest"][0]["path"] == "/tenants/other"
    assert 6 << 20 <= report["largest"][0]["own"] < 7 << 20
    groups = {group["path"]: group for group in report["groups"]}
    assert groups["/tenants"]["current"] == sum(
        groups[path]["current"] for path in ("/tenants/full", "/tenants/other")
    )
    assert groups["/tenants/full"]["peak"] >= over["current"]
    # its main task was in there
    assert groups["/tenants/full"]["tasks"] == 1
    assert {"id", "name", "group"} == set(report["tasks"][0])
    assert 0 <= report["age"] < TIMEOUT
    assert report["created"] <= report["updated"]


def test_text_names_the_offender(folder: Path) -> None:
    pid = killed(folder)
    result = objcg("autopsy", pid, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"pid {pid}  ")
    assert lines[1].startswith("killed; last charge ")
    assert lines[2].startswith("over memory.max: /tenants/full, 4.")
    assert re.search(r" of 4\.0 MiB \(max \d+, raised 1\)$", lines[2])
    assert lines[3].startswith("largest: /tenants/other, 6.")
    assert "numpy" not in result.stdout
    assert "numpy" in objcg("autopsy", "--stat", pid, folder=folder).stdout


def test_without_a_pid_it_is_the_one_that_charged_last(folder: Path) -> None:
    with full(folder) as early:
        # made and killed meanwhile
        late = killed(folder)
        assert autopsy(folder=folder)["pid"] == late
        # "early" allocates once more, and is killed: 256 KiB are more than any stock
        assert early.stdin is not None
        early.stdin.write("x" * (256 << 10))
        early.stdin.flush()
        while autopsy_time(early.pid, folder) < autopsy(late, folder=folder)["updated"]:
            pass
        early.kill()
        early.wait(TIMEOUT)
    assert autopsy(folder=folder)["pid"] == early.pid
    assert autopsy(late, folder=folder)["pid"] == late


def autopsy_time(pid: int, folder: Path) -> float:
    """Return when a living process has charged last, in seconds."""
    (file,) = folder.glob(f"{pid}-*.region")
    return region.read_header(str(file)).updated_ns / 1e9


def test_a_file_can_be_named(folder: Path, tmp_path: Path) -> None:
    pid = killed(folder)
    (file,) = folder.iterdir()
    copy = tmp_path / "copy"
    shutil.copy(file, copy)
    assert autopsy(copy, folder=folder)["pid"] == pid


def test_a_process_that_runs_is_refused(folder: Path) -> None:
    with full(folder) as child:
        (file,) = folder.iterdir()
        for named in (child.pid, file):
            result = objcg("autopsy", named, folder=folder)
            assert_refused(result, "still running", f"objcg tree {child.pid}")
        assert_refused(objcg("autopsy", folder=folder), "no dead process")


def test_a_process_that_became_another_program_was_not_killed(folder: Path) -> None:
    with full(folder) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("exec\n")
        child.stdin.flush()
        assert child.stdout.readline() == "another\n"
        assert autopsy(child.pid, folder=folder)["state"] == "replaced"


def test_one_that_nobody_has_waited_for_was_killed(folder: Path) -> None:
    """A zombie has no memory, and so no mapping of its file, as after exec()."""
    with full(folder) as child:
        child.kill()
        # it has ended, and stays a zombie
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        report = autopsy(child.pid, folder=folder)
        assert (report["state"], report["alive"]) == ("killed", False)
        result = objcg("ps", folder=folder)
        assert str(child.pid) not in result.stdout


def test_a_clean_exit_leaves_nothing(folder: Path) -> None:
    with full(folder) as child:
        child.communicate("", timeout=TIMEOUT)
    assert child.returncode == 0
    assert list(folder.iterdir()) == []
    assert_refused(objcg("autopsy", child.pid, folder=folder), str(child.pid), "killed")


def test_a_copy_of_one_that_exited_says_so(folder: Path) -> None:
    killed(folder)
    (file,) = folder.iterdir()
    with file.open("r+b") as opened:
        opened.seek(88)
        flags = opened.read(1)[0]
        opened.seek(88)
        opened.write(bytes([flags | 4]))
    assert autopsy(file, folder=folder)["state"] == "exited"
    assert "exited by itself" in objcg("autopsy", file, folder=folder).stdout


@pytest.mark.parametrize("process", [1, 2**31, 10**30, "no/such/file", ""])
def test_what_is_no_dead_process_is_an_error(folder: Path, process: object) -> None:
    assert_refused(objcg("autopsy", process, folder=folder))
