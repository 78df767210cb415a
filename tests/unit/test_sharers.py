from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest
from unit.region_file import RegionFile, start_time

from objcg import _sharers

AUTO, EXITED = 8, 4


def membership(pid):
    with open(f"/proc/{pid}/cgroup") as file:
        return file.read()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("OBJCG_DIR", str(path))
    return path


@pytest.fixture
def others():
    """Return three processes that live."""
    processes = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in range(3)]
    yield [process.pid for process in processes]
    for process in processes:
        process.communicate()


def region_of(folder, pid, *, flags=AUTO, started=None):
    started = start_time(pid) if started is None else started
    file = RegionFile()
    file.process(pid, started)
    file.put(88, "I", flags)
    return file.write(folder, f"{pid}-{started}.region")


@contextmanager
def descriptors(free):
    """Leave this process so many descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 8, before[1]))
    taken = [first]
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken:
            os.close(fd)


def test_alone_it_is_one(folder):
    assert _sharers.count(membership("self")) == 1
    region_of(folder, os.getpid())
    assert _sharers.count(membership("self")) == 1


def test_those_that_follow_the_same_limit_are_counted(folder, others):
    for pid in others:
        region_of(folder, pid)
    assert _sharers.count(membership("self")) == 4


def test_those_that_follow_none_have_said_good_bye_or_are_dead_are_not(folder, others):
    region_of(folder, others[0], flags=0)
    region_of(folder, others[1], flags=AUTO | EXITED)
    region_of(folder, others[2], started=1)
    assert _sharers.count(membership("self")) == 1


def test_as_many_as_before_when_no_file_can_be_opened(folder, others):
    for pid in others:
        region_of(folder, pid)
    of_this = membership("self")
    assert _sharers.count(of_this) == 4
    region_of(folder, others[0], flags=0)
    for free in 0, 1:  # none for the folder, none for the list of what is in it
        with descriptors(free):
            assert _sharers.count(of_this) == 4
    assert _sharers.count(of_this) == 3


def test_those_in_another_cgroup_are_not(folder, others):
    region_of(folder, others[0])
    assert _sharers.count("0::/elsewhere\n") == 1


def test_files_that_are_no_regions_do_no_harm(folder, others):
    for number, pid in enumerate(others):
        path = region_of(folder, pid)
        path.unlink()
        (path.mkdir, lambda path=path: os.mkfifo(path), path.touch)[number]()
    assert _sharers.count(membership("self")) == 1
