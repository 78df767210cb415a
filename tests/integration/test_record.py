"""`objcg record` beside a real process, interrupted in all ways."""

from __future__ import annotations

import itertools
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

import objcg
from objcg import region
from objcg.cli import main
from objcg.views.recording.frames import COLUMNS
from objcg.views.recording.reader import Recording

from .programs import environment
from .told import Told

# Changes its groups as fast as it can.
RESTLESS = """
import objcg, itertools
objcg.enable()
print("ready", flush=True)
groups = []
for i in itertools.count():
    groups.append(objcg.group(f"/{i}"))
    with groups[-1]:
        held = [bytes(1000) for _ in range(i % 100)]
    if len(groups) > 50:
        groups.pop(0).remove()
"""


@pytest.fixture
def program():
    with Told() as started:
        yield started


class Recorder:
    """`objcg record`, in a process of its own."""

    def __init__(self, pid, path, *options, **more):
        command = [sys.executable, "-m", "objcg", "record", pid, "-o", str(path), *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment(), **more
        )
        self.begun = self.process.stderr.readline()

    def ended(self):
        """Wait for its end; return its status and what it said after its first line."""
        _, told = self.process.communicate(timeout=60)
        return self.process.returncode, told

    def wait_for_samples(self, path, count):
        for _ in range(600):
            time.sleep(0.05)
            with Recording(str(path)) as recording:
                if recording.samples >= count:
                    return
        pytest.fail(f"no {count} samples in 30 s")


@pytest.fixture
def record(tmp_path):
    recorders = []

    def begin(pid, *options, path=tmp_path / "r.db", **more):
        recorders.append(Recorder(pid, path, *options, **more))
        return recorders[-1]

    yield begin
    for recorder in recorders:
        recorder.process.kill()
        recorder.process.communicate()


def usage(recording, path):
    """Return the usage of a group in each sample in which it is."""
    numbers = {group.id for group in recording.groups.values() if group.path == path}
    return [
        current
        for moment in recording.moments()
        for number, current in zip(moment.ids, moment.columns[0], strict=True)
        if number in numbers
    ]


def test_what_a_process_does_is_recorded_until_it_ends(program, record, tmp_path):
    recorder = record(program.pid, "--interval", "0.02")
    assert recorder.begun.startswith(f"objcg: recording process {program.pid} (")
    recorder.wait_for_samples(tmp_path / "r.db", 2)
    program("+ 3000000")
    program("over")
    program("new /late")
    time.sleep(0.2)
    program("gone /late")
    time.sleep(0.2)
    program.process.stdin.close()
    began = time.monotonic()
    status, told = recorder.ended()
    assert time.monotonic() - began < 10
    assert status == 0
    size = os.stat(tmp_path / "r.db").st_size / 1024
    found = re.fullmatch(
        r"objcg: the process has exited: (\d+) samples and 3 groups written; \S+ has (.*) KiB\n",
        told,
    )
    assert found
    assert float(found[2]) == pytest.approx(size, abs=0.06)
    # nothing but the recording is left
    assert [name for name in os.listdir(tmp_path) if name.startswith("r.db")] == ["r.db"]
    with Recording(str(tmp_path / "r.db")) as recording:
        assert recording.samples == int(found[1]) > 10
        (session,) = recording.sessions
        assert session.ending == "exited"
        assert session.ended > session.began
        assert recording.process.pid == program.process.pid
        assert recording.process.startup > 1 << 20
        jobs = usage(recording, "/job")
        assert jobs[0] < 100_000
        assert jobs[-1] >= 3_000_000
        limits = {moment.columns[COLUMNS.index("max")][1] for moment in recording.moments()}
        assert limits == {8 << 20}
        events = [(recording.groups[e.group].path, e.event, e.times) for e in recording.events()]
        assert events == [("/", "max", 1), ("/job", "max", 1)]
        (late,) = [group for group in recording.groups.values() if group.path == "/late"]
        assert late.last is not None
        rss = [moment.rss for moment in recording.moments()]
        assert rss[-1] - rss[0] > -(4 << 20)
        assert all(rss)


def test_the_state_at_its_death_is_the_last_of_one_that_was_killed(program, record, tmp_path):
    recorder = record(program.pid, "--interval", "3600")
    recorder.wait_for_samples(tmp_path / "r.db", 1)
    # nobody looks again before it is dead
    program("+ 5000000")
    program.process.kill()
    program.process.wait()
    status, told = recorder.ended()
    assert (status, told.startswith("objcg: the process was killed: 2 samples and 2 groups")) == (
        0,
        True,
    )
    with Recording(str(tmp_path / "r.db")) as recording:
        assert recording.sessions[0].ending == "killed"
        assert usage(recording, "/job")[-1] >= 5_000_000
        # it has no memory any more
        assert [moment.rss is None for moment in recording.moments()] == [False, True]


def test_what_exec_began_is_not_recorded_as_what_was_before(program, record, tmp_path):
    program("new /first")
    recorder = record(program.pid, "--interval", "1")
    recorder.wait_for_samples(tmp_path / "r.db", 1)
    # soon enough for the recorder to see both programs, and nothing in between
    program.again()
    program("+ 5000000")
    program("new /second")
    status, told = recorder.ended()
    assert (status, "the process has become another program (exec): " in told) == (0, True)
    with Recording(str(tmp_path / "r.db")) as recording:
        assert recording.sessions[0].ending == "replaced"
        assert max(usage(recording, "/job")) < 5_000_000
    again = record(program.pid)
    status, told = again.ended()
    assert (status, "another program, pid " in again.begun) == (1, True)


@pytest.fixture
def spoil(program):
    """Have the region of the program be no region any more."""

    def spoiled():
        with open(program.path, "r+b") as file:
            file.write(bytes(8))

    return spoiled


def test_what_was_read_before_a_region_was_damaged_is_kept(program, record, spoil, tmp_path):
    # far less than a second, after which samples are written anyway
    recorder = record(program.pid, "--interval", "0.01")
    program("+ 3000000")
    time.sleep(0.2)
    spoil()
    status, told = recorder.ended()
    assert status == 1
    assert told.count("a sample is missing: ") == 9
    assert told.endswith("it is not a region file of objcg\n")
    with Recording(str(tmp_path / "r.db")) as recording:
        assert usage(recording, "/job")[-1] >= 3_000_000


@pytest.mark.parametrize("ending", ["stopped", "duration"])
def test_a_last_sample_that_cannot_be_read_fails_nothing(ending, program, record, spoil, tmp_path):
    options = ["--duration", "5"] if ending == "duration" else []
    recorder = record(program.pid, "--interval", "3600", *options)
    spoil()
    if ending == "stopped":
        recorder.process.send_signal(signal.SIGINT)
    status, told = recorder.ended()
    assert (status, told.count("a sample is missing: ")) == (0, 1)
    with Recording(str(tmp_path / "r.db")) as recording:
        assert (recording.samples, recording.sessions[0].ending) == (1, ending)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_recording_with_a_last_sample(number, program, record, tmp_path):
    recorder = record(program.pid, "--interval", "3600")
    recorder.wait_for_samples(tmp_path / "r.db", 1)
    time.sleep(0.2)
    program("+ 5000000")
    recorder.process.send_signal(number)
    status, told = recorder.ended()
    assert status == 0
    assert told.startswith("objcg: stopped: 2 samples and 2 groups written")
    with Recording(str(tmp_path / "r.db")) as recording:
        assert recording.sessions[0].ending == "stopped"
        assert usage(recording, "/job")[-1] >= 5_000_000


def test_a_signal_that_was_ignored_stays_so(program, record, tmp_path):
    recorder = record(
        program.pid,
        *("--interval", "0.02", "--duration", "1"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    recorder.wait_for_samples(tmp_path / "r.db", 1)
    recorder.process.send_signal(signal.SIGHUP)
    status, told = recorder.ended()
    assert (status, told.startswith("objcg: the time is up: ")) == (0, True)


def test_the_duration_and_the_interval_are_kept(program, capsys, tmp_path):
    path = str(tmp_path / "r.db")
    began = time.monotonic()
    options = ["--interval", "0.1", "--duration", "0.55"]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)]
    assert main(["record", program.pid, "-o", path, *options]) == 0
    assert 0.55 <= time.monotonic() - began < 10
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)] == handlers
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 2
    with Recording(path) as recording:
        clocks = [moment.clock for moment in recording.moments()]
        # at 0, 0.1, ... 0.5 and 0.55, unless the machine was late
        assert 2 <= len(clocks) <= 7
        assert 0.5e9 < clocks[-1] - clocks[0] < 10e9


@pytest.mark.parametrize("seed", range(6))
def test_a_recorder_that_is_killed_leaves_all_but_its_last_second(seed, record, tmp_path):
    path = tmp_path / "r.db"
    with Told(RESTLESS) as program:
        recorder = record(program.pid, "--interval", "0.01")
        time.sleep(random.Random(seed).uniform(0, 5))
        alive = recorder.process.poll() is None
        killed = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        recorder.process.kill()
        recorder.process.wait()
        assert alive, recorder.process.stderr.read()
        with Recording(str(path)) as recording:
            moments = list(recording.moments())
            # the first is there since before the first line was told
            assert moments
            assert recording.sessions[0].ending is None
            # one second between two commits, one for what the last of them took, and as long as
            # this machine has let the recorder wait
            clocks = [moment.clock for moment in moments]
            waited = max((b - a for a, b in itertools.pairwise(clocks)), default=0)
            assert killed - clocks[-1] < 2 * 10**9 + 2 * waited
            for moment in moments:
                assert {recording.groups[number].path for number in moment.ids} >= {"/"}
        # and it can be continued
        assert main(["record", program.pid, "-o", str(path), "--duration", "0.05"]) == 0
    with Recording(str(path)) as recording:
        assert [session.ending for session in recording.sessions] == [None, "duration"]
        assert len(list(recording.moments())) == recording.samples >= len(moments) + 2


def test_what_is_read_is_what_the_region_has(program, tmp_path, capsys):
    program("+ 3000000")
    program("new /a/b/c")
    # so that both read the same; a stopped process is recorded like any other
    program.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, program.process.pid, os.WSTOPPED)
    path = str(tmp_path / "r.db")
    assert main(["record", program.pid, "-o", path, "--duration", "0.01"]) == 0
    expected = region.read(region.find(program.process.pid))
    with Recording(path) as recording:
        moment = recording.moment(1)
        assert moment.key
        rows = dict(
            zip(
                (recording.groups[number].path for number in moment.ids),
                zip(*moment.columns, strict=True),
                strict=True,
            )
        )
    assert sorted(rows) == sorted(group.path for group in expected.groups)
    for group in expected.groups:
        limits = [-1 if value is None else value for value in (group.max, group.high, group.low)]
        counters = (*group.events.values(), *group.stat.values())
        row = (group.current, group.peak, *limits, group.tasks, *counters)
        assert rows[group.path] == row


def error_of(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("objcg: ")
    return status, captured.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "required: -o/--output"),
        (["-o", "x", "--interval", "0.001"], "--interval '0.001': accepted are 0.01 to 3600"),
        (["-o", "x", "--interval", "3601"], "accepted are 0.01 to 3600 seconds"),
        (["-o", "x", "--interval", "nan"], "--interval 'nan'"),
        (["-o", "x", "--interval", "1s"], "--interval '1s'"),
        (["-o", "x", "--duration", "0"], "--duration '0': accepted are more than 0 seconds"),
        (["-o", "x", "--duration", "inf"], "--duration 'inf'"),
        (["-o", "x", "--duration", "-1"], "--duration"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(options, told, capsys):
    status, error = error_of(capsys, "record", str(os.getpid()), *options)
    assert status == 2
    assert told in error


def test_a_dead_process_is_not_recorded(program, capsys, tmp_path):
    program.process.kill()
    program.process.wait()
    status, error = error_of(capsys, "record", program.pid, "-o", str(tmp_path / "r.db"))
    assert status == 1
    assert f"process {program.pid} does not run any more; 'objcg tree " in error
    assert not (tmp_path / "r.db").exists()


def test_what_cannot_be_written_to_is_one_line_and_status_1(program, capsys, tmp_path):
    (tmp_path / "text").write_text("mine\n")
    for name, told in (("text", "not a recording"), ("none/r.db", "No such file"), ("", "Is a")):
        status, error = error_of(capsys, "record", program.pid, "-o", f"{tmp_path}/{name}")
        assert status == 1
        assert told in error
    assert (tmp_path / "text").read_text() == "mine\n"


def test_another_process_and_a_second_recorder_are_refused(program, record, capsys, tmp_path):
    path = tmp_path / "r.db"
    recorder = record(program.pid)
    status, error = error_of(capsys, "record", program.pid, "-o", str(path))
    assert (status, "another 'objcg record' is writing to it" in error) == (1, True)
    recorder.process.send_signal(signal.SIGINT)
    recorder.ended()
    status, error = error_of(capsys, "record", str(os.getpid()), "-o", str(path))
    assert (status, f"of another process, pid {program.pid} (" in error) == (1, True)


def test_a_full_disk_is_one_line_and_what_was_written_can_be_read(record, tmp_path):
    # a file that may not grow: SQLite is told of a disk error where a full disk says it is full
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    path = tmp_path / "r.db"
    with Told(RESTLESS) as program:
        recorder = record(program.pid, "--interval", "0.01", preexec_fn=limited)
        status, told = recorder.ended()
    assert status == 1
    assert told.startswith(f"objcg: {path}: ")
    assert told.endswith("; what was written up to a second before can be read\n")
    assert told.count("\n") == 1
    with Recording(str(path)) as recording:
        assert len(list(recording.moments())) == recording.samples >= 1


def test_a_full_file_system_is_one_line_and_what_was_written_can_be_read(record, tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "objcg-test", str(mounted)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted: {done.stderr.strip()}")
    try:
        path = mounted / "r.db"
        with Told(RESTLESS) as program:
            recorder = record(program.pid, "--interval", "0.01", path=path)
            status, told = recorder.ended()
        assert (status, "database or disk is full" in told) == (1, True)
        with Recording(str(path)) as recording:
            assert len(list(recording.moments())) == recording.samples >= 1
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_this_process_can_be_recorded_by_another(fresh_group, record, tmp_path):
    with fresh_group:
        held = [bytes(1000) for _ in range(1000)]
    recorder = record(str(os.getpid()), "--duration", "0.01")
    assert recorder.ended()[0] == 0
    with Recording(str(tmp_path / "r.db")) as recording:
        assert usage(recording, fresh_group.path)[-1] >= 1_000_000
    assert objcg.audit().drift == 0
