"""``objcg set`` sets limits of a running process, from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from .programs import PROGRAMS, TIMEOUT, environment, objcg, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENOUGH = 30
"""Seconds for a program that allocates all the time to meet a limit: far more than it takes."""
PLACES = ["main", "thread", "asyncio", "asyncio-in-a-thread", "forked"]


@contextmanager
def unlimited(
    where: str, folder: Path, *ballast: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the program that sets no limit; also give the number of the process with the groups."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "unlimited.py", where, *ballast],
        cwd=PROGRAMS,
        env=environment(OBJCG_DIR=str(folder)),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            yield child, int(child.stdout.readline())
        finally:
            # a forked child, too, unless all have ended
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(TIMEOUT)


@pytest.fixture
def idle(folder: Path) -> Iterator[int]:
    """A process that holds 1 and 3 MiB in groups, and allocates nothing."""
    with started(sys.executable, "serve.py", folder=folder) as child:
        yield child.pid


def knobs(pid: int, path: str, folder: Path) -> tuple[int | None, int | None, int | None]:
    result = objcg("tree", "--json", pid, folder=folder)
    (group,) = (g for g in json.loads(result.stdout)["groups"] if g["path"] == path)
    return group["max"], group["high"], group["low"]


def assert_refused(result: subprocess.CompletedProcess[str], *words: str, status: int) -> None:
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("objcg: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("where", PLACES)
def test_the_offender_gets_its_error_in_a_program_that_never_set_a_limit(
    where: str, folder: Path
) -> None:
    with unlimited(where, folder) as (child, pid):
        result = objcg("set", pid, "/a", "max=1M", folder=folder)
        assert (result.returncode, result.stderr) == (0, "")
        stdout, stderr = child.communicate(timeout=ENOUGH)
    assert stderr == ""
    error, drift = stdout.splitlines()
    assert drift == "0"
    # An event loop on another thread gives up the GIL in its selector, where nothing is raised: its
    # tasks may come to the ceiling first.
    if where != "asyncio-in-a-thread" or error != "MemoryError":
        assert error == f"MemoryLimitExceeded /a {1 << 20}"


def test_a_limit_above_all_groups_stops_one_of_them(folder: Path) -> None:
    with unlimited("thread", folder) as (child, pid):
        assert objcg("set", pid, "/", "max=3M", folder=folder).returncode == 0
        stdout, _ = child.communicate(timeout=ENOUGH)
    assert stdout.splitlines()[-2:] == [f"MemoryLimitExceeded / {3 << 20}", "0"]


@pytest.mark.parametrize("path", ["/a", "/"])
@pytest.mark.parametrize("where", ["main", "thread"])
def test_far_below_what_is_charged_allocations_fail_but_the_process_lives(
    where: str, path: str, folder: Path
) -> None:
    # Above the ceiling even the reclaimer, which starts now, could get no memory: CPython ends the
    # process if there is none for a thread state.
    with unlimited(where, folder, "32") as (child, pid):
        assert objcg("set", pid, path, "max=1M", folder=folder).returncode == 0
        stdout, stderr = child.communicate(timeout=ENOUGH)
    assert "Fatal" not in stderr
    assert child.returncode == 0, stderr
    first, *_, drift = stdout.split("\n")[:-1]
    assert first.split()[0] in {"MemoryError", "MemoryLimitExceeded"}
    assert drift == "0"


def test_high_does_not_stop_but_is_counted(folder: Path) -> None:
    with unlimited("thread", folder) as (child, pid):
        assert objcg("set", pid, "/a", "high=1M", folder=folder).returncode == 0
        deadline = time.monotonic() + TIMEOUT
        high = 0
        # twice: the reclaimer, which nothing but this limit has started, has taken the first flag
        while high < 2 and time.monotonic() < deadline:
            groups = json.loads(objcg("tree", "--json", pid, folder=folder).stdout)["groups"]
            high = next(g["events"]["high"] for g in groups if g["path"] == "/a")
        assert high >= 2
        assert child.poll() is None


def test_several_knobs_are_set_at_once_and_removed_again(idle: int, folder: Path) -> None:
    path = "/tenants/small"
    result = objcg("set", idle, path, "max=64M", "memory.high=48M", "low=1.5K", folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    for text in (path, "64.0 MiB (was 8.0 MiB)", "48.0 MiB (was unset)", "1.5 KiB"):
        assert text in result.stdout
    assert knobs(idle, path, folder) == (64 << 20, 48 << 20, 1536)
    assert knobs(idle, "/tenants/large", folder) == (None, 64 << 20, 1024)
    assert objcg("set", idle, path, "high=max", folder=folder).returncode == 0
    assert knobs(idle, path, folder) == (64 << 20, None, 1536)
    assert objcg("set", idle, path, "low=0", "max=max", folder=folder).returncode == 0
    assert knobs(idle, path, folder) == (None, None, None)


def test_json_says_what_is_set_and_what_was(idle: int, folder: Path) -> None:
    result = objcg("set", "--json", idle, "/tenants/small", "high=0", folder=folder)
    report: dict[str, Any] = json.loads(result.stdout)
    assert report.pop("current") > 1 << 20
    assert report == {
        "pid": idle,
        "path": "/tenants/small",
        "max": 8 << 20,
        "high": 0,
        "low": None,
        "before": {"max": 8 << 20, "high": None, "low": None},
    }


def test_a_stopped_process_has_the_limit_when_it_goes_on(folder: Path) -> None:
    with unlimited("main", folder) as (child, pid):
        child.send_signal(signal.SIGSTOP)
        assert objcg("set", pid, "/a", "max=1M", folder=folder).returncode == 0
        child.send_signal(signal.SIGCONT)
        stdout, _ = child.communicate(timeout=ENOUGH)
    assert stdout.splitlines() == [f"MemoryLimitExceeded /a {1 << 20}", "0"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["max=lots"], ["memory.max", "'lots'", "512M"]),
        (["max=-1"], ["'-1'"]),
        (["max="], ["''"]),
        (["high=9999999999999999999"], ["memory.high", "2**63"]),
        (["low=max"], ["memory.low", "'max'", "accepted"]),
        (["maximum=1M"], ["'maximum=1M'", "max=SIZE, high=SIZE and low=SIZE"]),
        (["max"], ["'max'", "accepted"]),
        (["max=1M", "high=64M", "memory.max=2M"], ["'memory.max=2M'", "twice"]),
        (["high=48M", "max=?"], ["'?'"]),
        ([], ["KNOB=SIZE"]),
    ],
)
def test_wrong_values_are_named_and_nothing_is_set(
    words: list[str], named: list[str], idle: int, folder: Path
) -> None:
    result = objcg("set", idle, "/tenants/small", *words, folder=folder)
    assert_refused(result, *named, status=2)
    assert knobs(idle, "/tenants/small", folder) == (8 << 20, None, None)


def test_a_wrong_path_is_wrong_use(idle: int, folder: Path) -> None:
    assert_refused(objcg("set", idle, "tenants", "max=1M", folder=folder), "'tenants'", status=2)


def test_no_such_group_or_process(idle: int, folder: Path) -> None:
    assert_refused(objcg("set", idle, "/nobody", "max=1M", folder=folder), "/nobody", status=1)
    result = objcg("set", 2**22 + 1, "/a", "max=1M", folder=folder)
    assert_refused(result, str(2**22 + 1), status=1)


def test_a_dead_process_is_refused(folder: Path) -> None:
    with unlimited("main", folder) as (child, pid):
        child.kill()
        child.wait(TIMEOUT)
    result = objcg("set", pid, "/a", "max=1M", folder=folder)
    assert_refused(result, str(pid), "has ended", status=1)
