"""``objcg record``: the samples of a process, into an SQLite file."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from objcg import region
from objcg._sizes import format_size
from objcg.views.watch import UNSEEN, State, Watch

from .output import tell
from .parser import CliError, WrongUse
from .process import read_process
from .table import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from typing_extensions import Self

    from objcg.views.recording.writer import Writer

LEAST_INTERVAL, MOST_INTERVAL = 0.01, 3600.0
"""Seconds between two samples."""

# A terminal that is closed ends a recording as an interrupt does.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Samples in a row that could not be read: the region is damaged.
_MOST_UNREAD = 10
# poll() takes milliseconds in 31 bits.
_LONGEST_WAIT = 86_400.0


_ENDINGS = {
    "stopped": "stopped",
    "duration": "the time is up",
    "exited": "the process has exited",
    "killed": "the process was killed",
    "replaced": "the process has become another program (exec)",
}


def run(options: argparse.Namespace) -> int:
    """Record the process until it ends, or whoever asked for it does; return the exit status."""
    interval = _seconds(options.interval, "--interval", LEAST_INTERVAL, MOST_INTERVAL)
    duration = None
    if options.duration is not None:
        duration = _seconds(options.duration, "--duration", 0.0, math.inf)
    try:
        # not part of every Python
        from objcg.views.recording.schema import RecordingError
        from objcg.views.recording.writer import Writer, clock
    except ImportError as error:
        raise CliError(f"this Python cannot write SQLite files: {error}") from error
    from importlib.metadata import version

    found = read_process(options.process)
    if not found.alive:
        raise CliError(
            f"process {found.pid} does not run any more; 'objcg tree {found.path}' shows its end"
        )
    assert found.path is not None  # noqa: S101
    try:
        watch = Watch(found.path)
        first = clock()
        with Writer(options.output, watch.latest.region, interval, version("objcg")) as writer:
            writer.add(watch.latest, first)
            writer.commit()
            return _record(writer, watch, interval, duration)
    except (RecordingError, region.RegionError) as error:
        raise CliError(str(error)) from error


def _record(writer: Writer, watch: Watch, interval: float, duration: float | None) -> int:
    process = watch.latest.region
    name = f"process {process.pid} ({printable(process.command)})"
    with _Waiter(process.pid) as waiter:
        # only now: who reads it may stop the recording
        tell(f"recording {name} into {writer.path}")
        ending = _samples(writer, watch, waiter, interval, duration)
    writer.end(ending)
    samples, groups, size = writer.totals
    tell(
        f"{_ENDINGS[ending]}: {samples} samples and {groups} groups written; "
        f"{writer.path} has {format_size(size)}"
    )
    return 0


def _samples(
    writer: Writer, watch: Watch, waiter: _Waiter, interval: float, duration: float | None
) -> str:
    """Write samples until there are no more; return how it ended."""
    from objcg.views.recording.writer import clock

    began = due = time.monotonic()
    unread = 0
    while True:
        # a sample that is late takes the place of those that are due meanwhile
        due += interval * max(1, math.ceil((time.monotonic() - due) / interval))
        until = due if duration is None else min(due, began + duration)
        stopped = waiter.wait(until)
        state = State.RUNNING
        try:
            sample = watch.sample()
            if sample.state not in UNSEEN:
                # of one that was killed this is the state at its death
                writer.add(sample, clock())
            state, unread = sample.state, 0
        except region.RegionError as error:
            # a process that changes its groups all the time may not be read at once
            unread += 1
            if unread >= _MOST_UNREAD:
                # what was read before is kept
                writer.commit()
                raise
            tell(f"a sample is missing: {error}")
        if state is not State.RUNNING:
            return str(state.value)
        if stopped:
            return "stopped"
        if duration is not None and time.monotonic() >= began + duration:
            return "duration"


class _Waiter:
    """Waits for the next sample, the end of the process or a signal, whichever is first."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopped = False

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._poll = select.poll()
            self._process = _process_fd(self._pid)
            if self._process is not None:
                stack.callback(os.close, self._process)
                self._poll.register(self._process, select.POLLIN)
            stack.enter_context(self._signals())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals noted, and end a wait."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # a signal that is ignored (nohup) stays so
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self._stop)
            self._poll.register(reading, select.POLLIN)
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
            os.close(reading)
            os.close(writing)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def wait(self, until: float) -> bool:
        """Wait until then (monotonic) at most; return whether a signal asked for the end."""
        while not self._stopped:
            left = min(until - time.monotonic(), _LONGEST_WAIT)
            # whole milliseconds, and not one too early
            if left <= 0 or self._poll.poll(math.ceil(left * 1000)):
                break
        return self._stopped


def _process_fd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        # a kernel before 5.3; the next sample notices that the process has ended
        return None


def _seconds(text: str, option: str, least: float, most: float) -> float:
    accepted = f"{least:g} to {most:g}" if math.isfinite(most) else "more than 0"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most or math.isinf(value) or not value:
        raise WrongUse(f"record: {option} {text!r}: accepted are {accepted} seconds")
    return value
