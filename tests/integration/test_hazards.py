"""What could break an allocator inside CPython, one test for each; most need a fresh process."""

from __future__ import annotations

import gc
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

import objcg

from .charges import MIB, RESIDUE, resident
from .programs import OBJCG, run, run_checked, run_python

if TYPE_CHECKING:
    from pathlib import Path

# A program that works in a group and prints: whether the bytes are right, what is left, the drift.
WORK = """
import gc
import objcg
objcg.enable()
group = objcg.group("/job")
with group:
    held = [bytes(1000) for _ in range(1000)] + [bytes(100_000)]
    held.append({number: str(number) for number in range(1000)})
full = group.memory.current
held.clear()
gc.collect()
print(1_148_000 <= full <= 1_700_000, 0 <= group.memory.current <= 32768, objcg.audit().drift)
"""
GOOD = ["True", "True", "0"]


# ---- tracemalloc, and other allocators -----------------------------------------------------------


@pytest.mark.parametrize("options", [("-X", "tracemalloc"), ("-X", "tracemalloc=5")])
def test_tracemalloc_before_enable_is_refused(options: tuple[str, ...]) -> None:
    result = run_python("import objcg; objcg.enable()", *options)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert "EnableError" in message
    assert "tracemalloc" in message


def test_enable_works_once_tracemalloc_was_stopped() -> None:
    words = run_checked("""
        import tracemalloc, objcg
        tracemalloc.start()
        before = [bytes(100) for _ in range(10_000)]
        try:
            objcg.enable()
        except objcg.EnableError:
            print("refused", objcg.enabled())
        tracemalloc.stop()
        objcg.enable()
        del before
        print(objcg.enabled(), objcg.audit().drift)
    """)
    assert words == ["refused", "False", "True", "0"]


def test_tracemalloc_started_after_enable_works_and_stops_without_harm() -> None:
    words = run_checked("""
        import tracemalloc, objcg
        objcg.enable()
        group = objcg.group("/g")
        def hold():
            with group:
                return [bytes(1000) for _ in range(1000)]
        before = hold()
        for _ in range(3):
            tracemalloc.start()
            during = hold()
            traced = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        after = hold()
        print(traced > 1_000_000, 3_100_000 <= group.memory.current <= 3_300_000)
        del before, during, after
        print(0 <= group.memory.current <= 16384, objcg.audit().drift)
    """)
    assert words == ["True", "True", "True", "0"]


@pytest.mark.parametrize("allocator", ["debug", "malloc", "malloc_debug", "pymalloc_debug"])
def test_other_allocators_of_python(allocator: str) -> None:
    assert run_checked(WORK, PYTHONMALLOC=allocator) == GOOD


MODES = [
    *(("-X", option) for option in ("dev", "importtime", "utf8", "faulthandler")),
    *((option,) for option in ("-O", "-OO", "-s", "-B", "-u", "-E", "-I", "-S", "-d")),
]


@pytest.mark.parametrize("options", MODES, ids="".join)
def test_modes_of_the_interpreter(options: tuple[str, ...]) -> None:
    # -S and -I leave out the folders where this package is
    where = f"import sys; sys.path[:0] = {[*filter(None, sys.path)]!r}\n"
    result = run_python(where + textwrap.dedent(WORK), *options)
    assert result.stdout.split() == GOOD
    assert result.returncode == 0
    assert "importtime" in options or result.stderr == ""


@pytest.mark.parametrize("options", [("-X", "dev"), ("-O",), ("-I",), ("-X", "tracemalloc")])
def test_modes_of_the_interpreter_under_run(options: tuple[str, ...]) -> None:
    """It starts the interpreter anew, with the library for native memory, in the same mode."""
    code = "import sys; print(sys.flags.dev_mode, sys.flags.optimize, sys.flags.isolated)"
    result = run([sys.executable, *options, "-m", "objcg", "run", "-c", code])
    if "tracemalloc" in options:
        assert result.returncode == 1
        assert "tracemalloc is already tracing" in result.stderr
    else:
        plain = run([sys.executable, *options, "-c", code])
        assert (result.returncode, result.stdout) == (0, plain.stdout)


@pytest.mark.parametrize("allocator", ["debug", "malloc", "malloc_debug", "pymalloc_debug"])
def test_other_allocators_of_python_under_run(allocator: str) -> None:
    code = WORK.replace("objcg.enable()", "")
    result = run([*OBJCG, "-c", code], env={"PYTHONMALLOC": allocator})
    assert (result.returncode, result.stdout.split()) == (0, GOOD)


def test_a_virtual_environment_is_made_and_works(tmp_path: Path) -> None:
    result = run([*OBJCG, "-m", "venv", "--without-pip", tmp_path / "made"])
    assert result.returncode == 0, result
    words = run([tmp_path / "made" / "bin" / "python", "-c", "import sys; print(sys.prefix)"])
    assert words.stdout.split() == [str(tmp_path / "made")]


def test_an_error_of_objcg_can_be_made_before_enable() -> None:
    """A program's tests do so, for a service that has to stand it: `side_effect=` of a mock."""
    words = run_checked("""
import objcg
try:
    raise objcg.MemoryLimitExceeded
except MemoryError as error:
    print(error.group, error.task, error.limit, error.usage, objcg.enabled())
""")
    assert words == ["None", "None", "0", "0", "False"]


def test_help_and_completion_find_all_public_names() -> None:
    words = run_checked("""
import inspect, objcg
names = {*objcg.__all__, "root"}
print(sorted(names - {*dir(objcg)}))
members = dict(inspect.getmembers(objcg))
print(inspect.isfunction(members["owner"]), inspect.isfunction(members["audit"]))
objcg.enable()
print(sorted(names - {*dir(objcg)}), dict(inspect.getmembers(objcg))["root"].path)
""")
    assert words == ["['root']", "True", "True", "[]", "/"]


def test_blocks_from_before_enable_can_be_freed_and_resized_after() -> None:
    words = run_checked("""
        import gc, objcg
        strings = [str(number) * 20 for number in range(50_000)]
        tables = [{number: number} for number in range(10_000)]
        grown = [bytearray(100) for _ in range(10_000)]
        objcg.enable()
        with objcg.group("/g"):
            for table, array in zip(tables, grown):
                table.update((key, key) for key in range(20))
                array.extend(bytes(500))
        print(objcg.owner(strings[0]), objcg.audit().drift)
        print(all(array == bytes(600) for array in grown), len(tables[7]))
        del strings, tables, grown
        gc.collect()
        print(0 <= objcg.group("/g").memory.current <= 32768, objcg.audit().drift)
    """)
    assert words == ["None", "0", "True", "20", "True", "0"]


def test_enable_while_threads_run() -> None:
    words = run_checked("""
        import threading, objcg
        stop = threading.Event()
        def churn():
            while not stop.is_set():
                [bytes(number) for number in range(0, 2000, 7)]
        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        objcg.enable()
        stop.set()
        for thread in threads:
            thread.join()
        print(objcg.audit().drift)
    """)
    assert words == ["0"]


# ---- Subinterpreters, threads, the end -----------------------------------------------------------


SUBINTERPRETERS = """
import sys
import objcg
objcg.enable()
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    create = lambda: interpreters.create({kind!r})
else:
    import _xxsubinterpreters as interpreters
    create = lambda: interpreters.create(isolated={kind!r} == "isolated")
code = "import json; held = [bytes(n) for n in range(3000)]; d = dict.fromkeys(range(9999))"
with objcg.group("/g"):
    for _ in range(5):
        inner = create()
        interpreters.run_string(inner, code)
        interpreters.destroy(inner)
print(objcg.audit().drift, objcg.group("/g").memory.current >= 0)
"""


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_subinterpreters_do_not_crash(kind: str) -> None:
    assert run_checked(SUBINTERPRETERS.format(kind=kind)) == ["0", "True"]


def test_threads_come_and_go_and_leave_nothing_in_their_stocks(fresh_group: objcg.Group) -> None:
    def work() -> None:
        with fresh_group:
            held = [bytes(number) for number in range(2, 600)]
        del held

    def churn(count: int) -> None:
        for _ in range(count):
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    churn(50)
    gc.collect()
    before = resident()
    churn(500)
    gc.collect()
    assert 0 <= fresh_group.memory.current <= RESIDUE
    assert objcg.audit().drift == 0
    # 2000 threads. A record with stocks has 8256 bytes: not used again, they would come to 16 MB.
    assert resident() - before < 4 * MIB


@pytest.mark.parametrize("limit", ["None", "'64M'"])
def test_daemon_threads_that_allocate_until_the_end(limit: str) -> None:
    code = f"""
        import threading, objcg
        objcg.enable()
        started = threading.Barrier(5)
        def churn(group):
            with group:
                started.wait()
                while True:
                    objects = [bytes(number) for number in range(0, 3000, 7)]
        for number in range(4):
            group = objcg.group(f"/{{number}}", max={limit})
            threading.Thread(target=churn, args=(group,), daemon=True).start()
        started.wait()
        print("main ends")
    """
    for _ in range(5):
        assert run_checked(code) == ["main", "ends"]


def test_objects_in_groups_that_live_until_the_end() -> None:
    """Finalisers run when the interpreter has begun to take its modules apart."""
    words = run_checked("""
        import objcg
        objcg.enable()
        class Late:
            def __init__(self):
                self.group = objcg.group("/late")
                self.held = [bytes(1000) for _ in range(100)]
                self.itself = self
            def __del__(self):
                with self.group:
                    self.more = [bytes(1000) for _ in range(100)]
                print("finalised")
        with objcg.group("/late", max="16M"):
            late = Late()
        print("end")
    """)
    assert words == ["end", "finalised"]


def test_a_program_may_end_inside_a_group() -> None:
    words = run_checked("""
        import sys, objcg
        objcg.enable()
        objcg.group("/never/left", max="64M").__enter__()
        held = [bytes(1000) for _ in range(1000)]
        print("end")
    """)
    assert words == ["end"]


def test_the_interpreters_own_statistics_still_work() -> None:
    result = run_python(WORK + "import sys; sys._debugmallocstats(); sys.getallocatedblocks()")
    assert result.returncode == 0
    assert result.stdout.split() == GOOD


def test_what_is_older_than_objcg_is_charged_from_when_it_grows() -> None:
    words = run_checked(
        """
import ctypes
items, data, short, text = [], bytearray(100), [1] * 1000, bytearray(b"x") * 40_000
import objcg
objcg.enable()
group = objcg.group("/job")
with group:
    for _ in range(200_000):
        items.append(None)
    data.extend(bytes(1_000_000))
    # it shrinks, which must not fail
    del short[10:]
    held = group.memory.current
    resize = ctypes.pythonapi.PyByteArray_Resize
    resize.argtypes = [ctypes.py_object, ctypes.c_ssize_t]
    assert resize(text, 100) == 0
print(8 * 200_000 + 1_000_000 < held < 9 * 200_000 + 1_200_000, objcg.audit().drift)
print(len(items), len(data), short == [1] * 10, text == b"x" * 100)
del items, data, short, text
print(group.memory.current < RESIDUE, objcg.audit().drift)
""".replace("RESIDUE", str(RESIDUE))
    )
    assert words == ["True", "0", "200000", "1000100", "True", "True", "True", "0"]


def test_what_is_older_than_objcg_can_shrink_whatever_the_limit() -> None:
    words = run_checked("""
import ctypes
data = bytearray(b"x") * 1_000_000
resize = ctypes.pythonapi.PyByteArray_Resize
resize.argtypes = [ctypes.py_object, ctypes.c_ssize_t]
import objcg
objcg.enable()
group = objcg.group("/job", max="64K")
with group:
    assert resize(data, 200_000) == 0
print(data == b"x" * 200_000, group.memory.current < 65536, objcg.audit().drift)
""")
    assert words == ["True", "True", "0"]
