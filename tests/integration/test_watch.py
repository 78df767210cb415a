"""A process is watched while it runs, and when it ends in one way or another."""

from __future__ import annotations

import os
import signal
import time

import pytest

from objcg import _location, outside, region
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


def test_the_mappings_are_read_once_and_not_of_a_process_that_charges(program, monkeypatch):
    read = []
    mapped_files = _location.mapped_files
    monkeypatch.setattr(
        _location, "mapped_files", lambda pid: (read.append(pid), mapped_files(pid))[1]
    )
    watch = Watch(program.path)
    assert len(read) == 1
    # longer than a tick of the clock by which charges are dated
    time.sleep(0.05)
    program("+ 1000000")
    assert watch.sample().state is State.RUNNING
    assert len(read) == 1
    assert watch.sample().state is State.RUNNING
    assert len(read) == 2


def test_a_process_that_charged_and_was_killed_is_dead(program):
    watch = Watch(program.path)
    time.sleep(0.05)
    program("+ 1000000")
    program.process.kill()
    program.process.wait()
    assert watch.sample().state is State.KILLED


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


def test_a_program_that_exec_began_is_another_though_its_file_has_the_same_name(program):
    program("new /first")
    watch = Watch(program.path)
    program("+ 1000000")
    seen = watch.sample()
    program.again()
    program("new /second")
    assert program.path == region.find(program.process.pid)
    sample = watch.sample()
    assert sample.state is State.REPLACED
    # what it had is not mixed with what the other one has
    assert (sample.region, sample.changes) == (seen.region, {})
    assert watch.sample() is sample
    assert [group.path for group in Watch(program.path).latest.region.groups] == [
        "/",
        "/job",
        "/second",
    ]


def test_of_a_program_that_exec_ended_the_last_sample_stays(program):
    watch = Watch(program.path)
    seen = watch.latest
    program("leave")
    for _ in range(1000):
        sample = watch.sample()
        if sample.state is not State.RUNNING:
            break
        seen = sample
        time.sleep(0.01)
    assert sample.state is State.REPLACED
    assert sample.region is seen.region


def test_nothing_is_set_in_a_program_that_exec_began(program):
    program("new /first")
    seen = region.read(program.path, tasks=True)
    (first,) = [group for group in seen.groups if group.path == "/first"]
    program.again()
    program("new /second")
    (second,) = [group for group in region.read(program.path).groups if group.path == "/second"]
    # whoever has looked at a page for a while asks by this number
    assert second.uid == first.uid
    with pytest.raises(region.RegionError, match="not the region of process"):
        outside.set_knobs(seen, first, {"max": 1 << 20})
    with pytest.raises(region.RegionError, match="not the region of process"):
        outside.move(seen, seen.tasks[0], first)
    (second,) = [group for group in region.read(program.path).groups if group.path == "/second"]
    assert second.max is None


def test_a_process_whose_file_somebody_has_removed_has_not_ended(program):
    """As a service manager does when its user logs out."""
    watch = Watch(program.path)
    os.unlink(program.path)
    for _ in range(2):
        with pytest.raises(region.RegionError, match="it was removed, but process"):
            watch.sample()
    assert watch.latest.state is State.RUNNING
    program.process.kill()
    program.process.wait()
    assert watch.sample().state is State.EXITED


def test_a_watch_keeps_no_descriptor(program):
    before = os.listdir("/proc/self/fd")
    watch = Watch(program.path)
    watch.sample()
    del watch
    assert os.listdir("/proc/self/fd") == before


def test_what_is_no_region_is_an_error(program, tmp_path):
    with pytest.raises(region.RegionError, match="No such file"):
        Watch(str(tmp_path / "none"))
    watch = Watch(program.path)
    with open(program.path, "r+b") as file:
        file.write(bytes(8))
    with pytest.raises(region.RegionError, match="not a region file"):
        watch.sample()
