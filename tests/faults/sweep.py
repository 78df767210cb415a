"""Run each program with its 1st, 2nd, 3rd ... allocation failing, until none is left to fail.

SQLite's method for running out of memory: first the nth alone fails, then the nth and all after
it. Each time is a child, forked from a process in which the programs have run before. What must
hold afterwards: it did not crash or hang; the program got a MemoryError or did not notice; the
current group is the one of before; what the group is charged went back; the audit finds no drift.

    python tests/faults/sweep.py                 # all, in a group, by objcg
    python tests/faults/sweep.py --plain         # without objcg, by _testcapi.set_nomemory()
    python tests/faults/sweep.py --every 7 --most 300 json_ threads

What goes wrong in the same way without objcg is CPython's, and is listed in known.json.
"""

from __future__ import annotations

import _thread
import argparse
import collections
import contextlib
import faulthandler
import gc
import json
import linecache
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import tracemalloc  # noqa: F401 - warnings imports it to show one, and a module stays
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
KNOWN = HERE / "known.json"
RESIDUE = 16 * 1024
"""What may stay charged: see tests/integration/charges.py."""
SECONDS = 5
"""After which a child is taken to hang. None needs a tenth of it, but where joins time out."""
QUIET = {"objcg": 3, "plain": 40}
"""So many in a row without a refusal, and the sweep is over: threads vary a little.

Without objcg nobody knows whether one was refused, only that the program did not notice.
"""


class Charges:
    """Charges of a group are refused, by objcg."""

    name = "objcg"

    def __init__(self):
        import objcg

        self.objcg = objcg
        self.fail = objcg._core.fail_charges
        # in memory: each child makes a file
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        os.environ["OBJCG_DIR"] = self.folder
        objcg.enable()
        self.group = objcg.group("/faults/program")

    def run(self, function, nth, for_good):
        """Run it; return what it raised, how many were refused, and what is wrong afterwards."""
        self.fail(self.group.id, nth, for_good)
        try:
            with self.group:
                function()
        except BaseException as error:
            raised = describe(error)
        else:
            raised = ""
        charges, refused = self.fail(0, 0, False)
        return raised, charges, refused

    def check(self):
        """Return what is left charged to the group, and what is wrong."""
        # Threads that nobody has waited for, since that failed. One that threading has lost may
        # still be printing its traceback, which takes 27 kB.
        for _ in range(40):
            if threading.active_count() == 1 and not _thread._count():
                break
            time.sleep(0.05)
        linecache.clearcache()  # who printed a traceback has filled it
        gc.collect()
        wrong = []
        if self.objcg.current_group() is not self.objcg.root:
            wrong.append(f"the current group is {self.objcg.current_group().path}")
        drift = self.objcg.audit().drift
        if drift:
            wrong.append("drift")
        left = self.group.memory.current
        if threading.active_count() > 1:
            return 0, wrong  # the program could not tell them to end: they keep what is theirs
        if left < 0:
            wrong.append(f"{left} bytes charged")
        return left, wrong

    def end(self):
        """Remove the region file: each fork looks which of those left behind it should."""
        path = self.objcg._core.region_path()
        if path:
            os.unlink(path)

    def clean(self):
        shutil.rmtree(self.folder)


class Allocations:
    """All allocations of the process are, by CPython's own means."""

    name = "plain"

    def __init__(self):
        import _testcapi

        self.start = _testcapi.set_nomemory
        self.stop = _testcapi.remove_mem_hooks

    def run(self, function, nth, for_good):
        stop = self.stop
        try:
            if nth:
                self.start(nth - 1, 0 if for_good else nth)
            try:
                function()
            finally:
                stop()
        except BaseException as error:
            raised = describe(error)
        else:
            raised = ""
        return raised, 0, int(raised != "")

    def check(self):
        gc.collect()
        return 0, []

    def end(self):
        pass

    def clean(self):
        pass


def describe(error):
    """Name an exception, and say whether a MemoryError is in it, or was what it came from."""
    name = type(error).__name__
    seen = set()
    rest = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, MemoryError):
            return "MemoryError" if one is error else f"{name} of MemoryError"
        rest += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return name


def in_child(fault, function, nth, for_good, result):
    """Run one, and write what came of it."""
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(SECONDS)
    raised, charges, refused = fault.run(function, nth, for_good)
    left, wrong = fault.check()
    os.write(result, json.dumps([raised, charges, refused, left, wrong]).encode())
    fault.end()
    os._exit(0)


def attempt(fault, function, nth, for_good):
    """Return what came of one: the list of in_child(), or a text for a crash; and its stderr."""
    with tempfile.TemporaryFile() as errors:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                os.dup2(errors.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                in_child(fault, function, nth, for_good, writing)
            finally:
                os._exit(70)
        os.close(writing)
        text = b""
        while piece := os.read(reading, 1 << 16):
            text += piece
        os.close(reading)
        status = os.waitpid(pid, 0)[1]
        errors.seek(0)
        said = errors.read(1 << 20).decode(errors="replace")
    if os.WIFSIGNALED(status):
        return crash(os.WTERMSIG(status), said), said
    if not text:
        return f"ended with {os.WEXITSTATUS(status)}", said
    return json.loads(text), said


def crash(number, said):
    """Name a crash, by its signal, what CPython said, and the function that ran."""
    if number == signal.SIGALRM:
        what = "hang"
    else:
        fatal = re.findall(r"^Fatal Python error: (.*)$", said, re.MULTILINE)
        what = f"{signal.Signals(number).name}: {fatal[0] if fatal else '?'}"
        what = re.sub(r"0x[0-9a-f]+", "0x", what)
    current = re.search(
        r"^Current thread.*?:\n(  Garbage-collecting\n)?(.*\n?)", said, re.MULTILINE
    )
    if current and current[1]:
        what += ", collecting garbage,"
    frame = re.search(r'File ".*?([^/"]*)", line \d+ in (\S+)', current[2]) if current else None
    return f"{what} in {frame[1]}:{frame[2]}" if frame else what


def judge(outcome, baseline):
    """Return what is wrong with an outcome: a list of texts without numbers that vary."""
    if isinstance(outcome, str):
        return [outcome]
    raised, _, refused, left, wrong = outcome
    found = list(wrong)
    if raised and refused and not raised.endswith("MemoryError"):
        found.append(f"raised {raised}")
    if raised and not refused:
        found.append(f"raised {raised} though nothing was refused")
    if left > baseline + RESIDUE:
        found.append("leak")
    return found


def selftest(fault):
    """Return programs that do what none may when an allocation fails."""
    import ctypes

    kept = []

    def fails(then):
        def function():
            try:
                [bytes(100 + number) for number in range(30)]
            except MemoryError:
                then()
                raise

        return function

    def keeps():
        fault.fail(0, 0, False)
        kept.append(bytes(100_000))
        fault.fail(fault.group.id, 1, True)
        with contextlib.suppress(MemoryError):
            bytes(100)

    def lost():
        raise KeyError

    return {
        "leaks": fails(keeps),
        "stays": fails(fault.objcg.group("/faults/stays").__enter__),
        "crashes": fails(lambda: ctypes.string_at(0)),
        "raises": without_memory_error(lost),
    }


def without_memory_error(then):
    """Return a function that raises another error, with no trace of the MemoryError."""

    def function():
        failed = False
        try:
            [bytes(100 + number) for number in range(30)]
        except MemoryError:
            failed = True
        if failed:
            then()

    return function


class Sweep:
    """One program in one mode: which n gave what."""

    def __init__(self, fault, name, function, for_good):
        self.fault = fault
        self.name = name
        self.function = function
        self.for_good = for_good
        self.tried = 0
        self.ended = collections.Counter()
        self.wrong = collections.defaultdict(list)
        self.text = {}

    def run(self, numbers, most):
        outcome, said = attempt(self.fault, self.function, 0, False)
        if isinstance(outcome, str) or outcome[0]:
            sys.exit(f"{self.name} does not even run: {outcome}\n{said}")
        baseline = outcome[3]
        quiet = 0
        for nth in numbers:
            if nth > most:
                break
            outcome, said = attempt(self.fault, self.function, nth, self.for_good)
            if not isinstance(outcome, str) and not outcome[2]:
                quiet += 1
                if quiet == QUIET[self.fault.name]:
                    break
                continue
            quiet = 0
            self.tried += 1
            self.ended["crash" if isinstance(outcome, str) else outcome[0] or "nothing"] += 1
            for fault in judge(outcome, baseline):
                self.wrong[fault].append(nth)
                self.text.setdefault(fault, said)

    @property
    def mode(self):
        return "from then on" if self.for_good else "once"


def known():
    """Return what is known of this CPython: {(program, mode, outcome)}.

    Of all programs ("*") the place of a crash is left out.
    """
    version = "{}.{}".format(*sys.version_info)
    entries = json.loads(KNOWN.read_text())["entries"] if KNOWN.exists() else []
    return {
        (entry["program"], entry["mode"], entry["outcome"])
        for entry in entries
        if version in entry["python"]
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    parser.add_argument("--plain", action="store_true", help="without objcg")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="each Kth n only")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="n from N")
    parser.add_argument("--most", type=int, default=1 << 40, metavar="N", help="n up to N")
    parser.add_argument("--mode", choices=("once", "always"), help="one of the two modes")
    parser.add_argument("--show", action="store_true", help="what faulthandler said of each crash")
    parser.add_argument("--selftest", action="store_true", help="programs that do it wrong")
    parser.add_argument("--json", metavar="FILE", help="write what was wrong to FILE")
    arguments = parser.parse_args()

    # steering sets limits: from then on the process has objcg's reclaimer, a thread in C, and
    # CPython warns at each fork. The child has none of it, until objcg starts one for it.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    # who starts it in the background may have SIGINT ignored, and asyncio does less then
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fault = Allocations() if arguments.plain else Charges()
    sys.path.insert(0, str(HERE))
    import programs as of_the_library

    programs = dict(of_the_library.PROGRAMS)
    if not arguments.plain:
        import objcg_programs

        programs |= objcg_programs.PROGRAMS
    if arguments.selftest:
        programs = selftest(fault)
    names = arguments.programs or list(programs)
    for name in names:
        for _ in range(3):  # caches are full, specialised code is
            programs[name]()
    gc.collect()
    gc.freeze()
    listed = known()
    surprises = 0
    report = []
    totals = collections.Counter()
    for name in names:
        for for_good in (False, True):
            sweep = Sweep(fault, name, programs[name], for_good)
            if arguments.mode and (arguments.mode == "always") != for_good:
                continue
            began = time.monotonic()
            numbers = range(arguments.first, 1 << 40, arguments.every)
            sweep.run(numbers, arguments.most)
            took = time.monotonic() - began
            totals[sweep.mode] += sweep.tried
            ended = ", ".join(f"{count} {what}" for what, count in sweep.ended.most_common())
            print(
                f"{name}, {sweep.mode}: {sweep.tried} refused in {took:.1f} s: {ended}", flush=True
            )
            for outcome, numbers in sweep.wrong.items():
                anywhere = ("*", sweep.mode, outcome.partition(" in ")[0])
                is_known = (name, sweep.mode, outcome) in listed or anywhere in listed
                surprises += not is_known
                report.append(
                    {
                        "program": name,
                        "mode": sweep.mode,
                        "outcome": outcome,
                        "count": len(numbers),
                        "numbers": numbers,
                        "said": sweep.text[outcome][-3000:],
                    }
                )
                print(
                    f"  {'known' if is_known else 'NEW'}: {outcome}: {len(numbers)} times, "
                    f"n = {', '.join(map(str, numbers[:5]))}"
                )
                if arguments.show and not is_known:
                    print(sweep.text[outcome])
    print("all:", ", ".join(f"{count} refused {mode}" for mode, count in totals.items()))
    fault.clean()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=1))
    if not arguments.plain and surprises:
        sys.exit(f"{surprises} outcomes that are not in {KNOWN.name}")


if __name__ == "__main__":
    main()
