"""A process is watched while it runs, and when it ends in one way or another."""

from __future__ import annotations

import os
import signal
import time

import pytest

from objcg import region
from objcg.views.watch import NONE, State, Watch

from .told import Told


@pytest.fixture
def program():
    with Told() as started:
        yield started


def group(sample, path):
    (found,) = [group for group in sample.region.groups if group.path == path]
    return found


def test_what_changed_is_known_by_the_second(program):
    watch = Watch(program.path)
    first = watch.latest
    assert first.state is State.RUNNING
    assert first.change(group(first, "/job")) == NONE
    program("+ 1000000")
    program("over")
    program("new /new")
    before = time.time()
    sample = watch.sample()
    assert before <= sample.at <= time.time()
    change = sample.change(group(sample, "/job"))
    grown = group(sample, "/job").current - group(first, "/job").current
    assert grown >= 1_000_000
    assert change.rate == pytest.approx(grown / (sample.at - first.at), rel=0.2)
    assert change.events == {"max": 1}
    assert sample.change(group(sample, "/new")) == NONE
    sample = watch.sample()
    assert sample.change(group(sample, "/job")).events == {}
    assert watch.latest is sample


def test_a_stopped_process_is_watched_like_any_other(program):
    watch = Watch(program.path)
    program("+ 1000000")
    os.kill(program.process.pid, signal.SIGSTOP)
    try:
        sample = watch.sample()
        assert sample.state is State.RUNNING
        assert group(sample, "/job").current >= 1_000_000
    finally:
        os.kill(program.process.pid, signal.SIGCONT)


def test_of_a_process_that_ended_the_last_sample_stays(program):
    watch = Watch(program.path)
    program("+ 1000000")
    seen = watch.sample()
    program.process.stdin.close()
    assert program.process.wait() == 0
    sample = watch.sample()
    assert sample.state is State.EXITED
    assert sample.region.groups == seen.region.groups
    assert watch.sample() is sample


def test_of_a_process_that_was_killed_the_state_at_its_death_is_read(program):
    watch = Watch(program.path)
    program("+ 1000000")
    program.process.kill()
    program.process.wait()
    sample = watch.sample()
    assert sample.state is State.KILLED
    assert group(sample, "/job").current >= 1_000_000
    assert watch.sample() is sample


def test_what_is_no_region_is_an_error(program, tmp_path):
    with pytest.raises(region.RegionError, match="No such file"):
        Watch(str(tmp_path / "none"))
    watch = Watch(program.path)
    with open(program.path, "r+b") as file:
        file.write(bytes(8))
    with pytest.raises(region.RegionError, match="not a region file"):
        watch.sample()
