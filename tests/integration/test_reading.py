"""A region is read while its process works, hangs, is stopped, or was killed at any instant.

OBJCG_TEST_ROUNDS: a process is killed 1 time for 100 of it, 20 times by default, 1,000 times in a
long run of 100000.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from objcg import _layout, region

from .programs import TIMEOUT, run, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = int(os.environ.get("OBJCG_TEST_ROUNDS", "2000")) // 100
SECONDS = 3.0

# of churn_groups.py
THREADS = 3
BASE = 1 << 20
CHURNED = 64 << 10

# of src/core/stock.h; a cpu for those with the GIL and one for those without
STOCK_MAX = 32 << 10
CPUS = 2

# What a thread was doing when all ended: one batch, or one block that is larger, charged to some
# levels only; and a slot of each cpu that was being given back.
UNFINISHED = (THREADS + CPUS) * STOCK_MAX


@contextmanager
def running(folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    with started(sys.executable, *command, folder=folder) as child:
        yield child


def file_of(child: subprocess.Popen[str], folder: Path) -> str:
    (file,) = folder.glob(f"{child.pid}-*.region")
    return str(file)


def assert_sane(found: region.Region, bound: int) -> None:
    """Check that the tree is one, and no group has less than those below it, but for `bound`."""
    groups = {group.path: group for group in found.groups}
    assert len(groups) == len(found.groups)
    below = dict.fromkeys(groups, 0)
    for path, group in groups.items():
        if path == "/":
            continue
        # in the name of each is whose child it is
        match = re.fullmatch(r"/t\d(/base-of-t\d|/p\d(/c\d-of-(p\d))?)?", path)
        assert match, path
        assert match[3] is None or f"/{match[3]}/" in path, path
        # raises, if it is not there
        below[path.rpartition("/")[0] or "/"] += group.current
        assert group.peak >= group.current
        assert group.uid > groups[path.rpartition("/")[0] or "/"].uid
    for path, group in groups.items():
        assert group.current >= below[path] - bound, path
    for number in range(THREADS):
        assert groups[f"/t{number}/base-of-t{number}"].current >= BASE - STOCK_MAX
    assert found.tree()[0].path == "/"


def test_every_snapshot_of_a_process_at_work_is_sane(folder: Path) -> None:
    with running(folder, "churn_groups.py") as child:
        file = file_of(child, folder)
        deadline = time.monotonic() + SECONDS
        shapes = set()
        readings = 0
        while time.monotonic() < deadline:
            found = region.read(file, tasks=True)
            # A parent is read before its children, their stocks after both: meanwhile all may come
            # that ever comes and goes, and what each group has in stock may be filled or emptied.
            assert_sane(found, THREADS * CHURNED + len(found.groups) * 2 * STOCK_MAX)
            shapes.add(tuple(sorted(group.path for group in found.groups)))
            readings += 1
        assert child.poll() is None
    assert readings > 20
    # it did change
    assert len(shapes) > 5


HANGS = """
import ctypes, sys, objcg
objcg.enable()
with objcg.group("/hangs"):
    held = [bytes(1000) for _ in range(1000)]
    print("ready", flush=True)
    # PyDLL: the GIL is not released
    ctypes.PyDLL(None).sleep(1000)
"""
STOPS = """
import os, signal, objcg
objcg.enable()
with objcg.group("/hangs"):
    held = [bytes(1000) for _ in range(1000)]
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize("code", [HANGS, STOPS], ids=["GIL held in C", "stopped"])
def test_a_process_that_does_not_answer_is_read_and_steered(code: str, folder: Path) -> None:
    def objcg(*arguments: object) -> str:
        command = [sys.executable, "-m", "objcg", *map(str, arguments)]
        result = run(command, env={"OBJCG_DIR": str(folder)})
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    with running(folder, "-c", code) as child:
        objcg("set", child.pid, "/hangs", "max=64M")
        (listed,) = json.loads(objcg("ps", "--json"))["processes"]
        assert (listed["pid"], listed["state"]) == (child.pid, "running")
        tree = json.loads(objcg("tree", "--json", child.pid))
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT)
        dead = json.loads(objcg("autopsy", "--json", child.pid))
    assert tree["alive"] is True
    assert dead["state"] == "killed"
    for parsed in (tree, dead):
        (group,) = (each for each in parsed["groups"] if each["path"] == "/hangs")
        assert 1_000_000 < group["current"] < 1_200_000
        assert group["max"] == 64 << 20
        assert group["tasks"] == 1


def assert_conserved(file: str) -> None:
    """Check that each group is charged what the objcgs of its subtree have, as the core's audit.

    From the bytes of a dead process's file, and not by the reader.
    """
    with open(file, "rb") as opened:
        header = opened.read(4096)
        sections = []
        for i in range(2):
            place = 96 + 24 * i
            offset, size, _, used = (
                int.from_bytes(header[place + at : place + at + n], "little")
                for at, n in ((0, 8), (8, 4), (12, 4), (16, 4))
            )
            opened.seek(offset)
            data = opened.read(size * used)
            sections.append([data[at : at + size] for at in range(0, len(data), size)])
    groups, objcgs = sections
    have = dict.fromkeys(range(len(groups)), 0)
    for objcg in objcgs[1:]:
        gid = int.from_bytes(objcg[4:8], "little")
        while gid:
            have[gid] += int.from_bytes(objcg[8:16], "little", signed=True)
            gid = int.from_bytes(groups[gid][8:12], "little")
    for gid, group in enumerate(groups):
        if gid and int.from_bytes(group[:4], "little") == _layout.STATE_ONLINE:
            usage = int.from_bytes(group[64:72], "little", signed=True)
            assert abs(usage - have[gid]) <= UNFINISHED, gid


@pytest.mark.timeout(max(300, 5 * KILLS))
def test_the_state_is_whole_after_a_kill_at_any_instant(folder: Path) -> None:
    rng = random.Random(KILLS)
    for _ in range(max(1, KILLS)):
        with running(folder, "churn_groups.py") as child:
            time.sleep(rng.random() * 0.1)
            child.send_signal(signal.SIGKILL)
            child.wait(TIMEOUT)
            file = file_of(child, folder)
        found = region.read(file, tasks=True)
        assert found.state == "killed"
        assert 0 <= time.time_ns() - found.updated_ns < TIMEOUT * 10**9
        assert_sane(found, UNFINISHED)
        assert_conserved(file)
        assert [region.read_header(path).pid for path in region_files(folder)] == [child.pid]
        os.unlink(file)


def region_files(folder: Path) -> list[str]:
    return [str(path) for path in folder.iterdir()]
