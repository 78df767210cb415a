"""A forked child accounts for itself, in a region of its own; its parent is not affected."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from .programs import PROGRAMS, run, run_checked

if TYPE_CHECKING:
    from pathlib import Path

# CPython 3.12 and later warn about any fork in a process with threads: in the tests that have some.
QUIET = ("-W", "ignore::DeprecationWarning")

# The start of each program: a group that holds 1 MB, and a fork whose child reports by a pipe.
START = """
import gc, json, os, sys, threading
import objcg
objcg.enable()
group = objcg.group("/job")
with group:
    held = [bytes(1000) for _ in range(1000)]
gc.disable()

def in_child(function):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = function()
        except BaseException as error:
            result = repr(error)
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    return json.loads(text)

def regions():
    return {int(name.split("-")[0]) for name in os.listdir(os.environ["OBJCG_DIR"])}
"""


def run_forking(code: str, *options: str, **env: str) -> list[str]:
    """Run code after ``START``; return the words that it printed."""
    return run_checked(START + code, *options, **env)


def test_the_child_has_a_region_of_its_own() -> None:
    words = run_forking("""
mine = os.getpid()
child, seen = in_child(lambda: (os.getpid(), sorted(regions())))
print(mine in regions(), mine in seen, child in seen, child != mine)
""")
    assert words == ["True"] * 4


def test_the_counters_of_the_child_are_exact_and_its_own() -> None:
    words = run_forking("""
before = group.memory.current

def child():
    inherited = group.memory.current
    drift = objcg.audit().drift
    with group:
        more = [bytes(1000) for _ in range(2000)]
    grown = group.memory.current
    held.clear()
    del more
    gc.collect()
    return inherited == before, drift, grown - inherited, group.memory.current

same, drift, grown, left = in_child(child)
print(same, drift, objcg.audit().drift)
print(2_096_000 <= grown <= 2_120_000, 0 <= left <= 16384)
print(group.memory.current == before, len(held))
""")
    assert words == ["True", "0", "0", "True", "True", "True", "1000"]


def test_the_child_of_a_task_belongs_to_the_tasks_group() -> None:
    words = run_forking("""
with group:
    print(in_child(lambda: objcg.current_group().path), objcg.current_group().path)
""")
    assert words == ["/job", "/job"]


def test_limits_work_in_the_child_on_its_main_thread_and_on_others() -> None:
    words = run_forking(
        """
group.memory.max = "4M"

def overrun(outcome):
    held = []
    try:
        with group:
            for _ in range(100_000):
                held.append(bytes(1000))
    except MemoryError as error:
        outcome.append(isinstance(error, MemoryError))
    held.clear()

def child():
    outcome = []
    overrun(outcome)
    thread = threading.Thread(target=overrun, args=(outcome,))
    thread.start()
    thread.join()
    return outcome, group.memory.peak <= (4 << 20) * 9 // 8 + (4 << 20), objcg.audit().drift

outcome, bounded, drift = in_child(child)
print(outcome == [True, True], bounded, drift)
print(group.memory.events["max"], objcg.audit().drift)
""",
        *QUIET,
    )
    assert words == ["True", "True", "0", "0", "0"]


def test_children_of_children() -> None:
    words = run_forking("""
def deeper(levels):
    with group:
        more = [bytes(1000) for _ in range(100)]
    below = in_child(lambda: deeper(levels - 1)) if levels else []
    return [(objcg.audit().drift, os.getpid() in regions()), *below]

print(*(value for pair in deeper(3) for value in pair))
""")
    assert words == ["0", "True"] * 4


def test_a_fork_while_other_threads_allocate_leaves_the_child_able_to() -> None:
    """The child has only the forking thread: no lock may be held by one that is gone."""
    words = run_forking(
        """
stop = threading.Event()

def churn(group):
    with group:
        while not stop.is_set():
            objects = [bytes(number) for number in range(0, 3000, 7)]

def child():
    with objcg.group("/child"):
        more = [bytes(number) for number in range(3000)]
    held.clear()
    return objcg.audit().drift

threads = [
    threading.Thread(target=churn, args=(objcg.group(f"/threads/{number}"),))
    for number in range(4)
]
for thread in threads:
    thread.start()
print(*{in_child(child) for _ in range(50)})
stop.set()
for thread in threads:
    thread.join()
print(objcg.audit().drift)
""",
        *QUIET,
    )
    assert words == ["0", "0"]


def test_the_child_of_any_thread_is_stopped_at_its_limit() -> None:
    """CPython 3.13 does not run there what is pending for the main thread."""
    words = run_forking(
        """
import threading
group.memory.max = "8M"
held.clear()

def child():
    seen = []
    for _ in range(2):
        more = []
        try:
            with group:
                while True:
                    more.append(bytes(1000))
        except MemoryError as error:
            more.clear()
            seen.append(type(error).__name__)
    return [*seen, group.memory.events["raised"], objcg.audit().drift]

print(*in_child(child))
def fork_twice():
    print(*in_child(lambda: in_child(child)), *in_child(child))

thread = threading.Thread(target=fork_twice)
thread.start()
thread.join()
""",
        "-Wignore::DeprecationWarning",
    )
    assert words == ["MemoryLimitExceeded", "MemoryLimitExceeded", "2", "0"] * 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="earlier versions do not warn")
def test_limits_do_not_make_fork_warn_about_threads() -> None:
    """The reclaimer is a thread, but none that the program started."""
    words = run_forking(
        """
group.memory.max = "1G"
print(in_child(lambda: 1))
""",
        "-W",
        "error",
    )
    assert words == ["1"]


def test_subprocess_with_preexec_fn() -> None:
    words = run_forking(
        """
import subprocess

def prepare():
    with group:
        more = [bytes(1000) for _ in range(1000)]

before = group.memory.current
for _ in range(10):
    subprocess.run([sys.executable, "-c", "print('ran')"], preexec_fn=prepare, check=True)
print(group.memory.current == before, objcg.audit().drift)
""",
        *QUIET,
    )
    assert words == ["ran"] * 10 + ["True", "0"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    """Forked children have objcg on; spawned ones are new processes, and do not."""
    result = run([sys.executable, *QUIET, "grouped_processes.py", method])
    assert (result.returncode, result.stderr) == (0, "")
    enabled = "False" if method == "spawn" else "True" if method == "fork" else "False"
    assert result.stdout.split() == [enabled, "10", "0", "True", "0"]
    assert (PROGRAMS / "grouped_processes.py").exists()


def test_the_child_makes_the_folder_anew_when_it_has_gone(tmp_path: Path) -> None:
    words = run_forking(
        """
import shutil
shutil.rmtree(os.environ["OBJCG_DIR"])
child, seen = in_child(lambda: (os.getpid(), sorted(regions())))
print(seen == [child])
""",
        OBJCG_DIR=str(tmp_path / "regions"),
    )
    assert words == ["True"]


def test_what_killed_children_leave_behind_does_not_pile_up(tmp_path: Path) -> None:
    # One child of PRUNING prunes, by its number: that none of so many does has a chance of
    # exp(-12), wherever the numbers fall.
    words = run_forking(
        """
from objcg import _location
children = 12 * _location.PRUNING
for _ in range(children):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
print(len(regions()) > _location.KEPT, len(regions()) < children)
""",
        OBJCG_DIR=str(tmp_path / "regions"),
    )
    assert words == ["True", "True"]


def test_what_multiprocessing_is_told_does_not_grow_with_each_generation() -> None:
    words = run_forking("""
from multiprocessing import util
known = len(util._afterfork_registry)
print(known >= 1, in_child(lambda: in_child(lambda: len(util._afterfork_registry))) == known)
""")
    assert words == ["True", "True"]
