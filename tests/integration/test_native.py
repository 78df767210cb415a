"""What C libraries allocate is charged to the group of the task that has them do it.

Each test runs a program of its own, since the preload library has to be there when it starts.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from extensions.build import build_library

from objcg.cli import preload

from .programs import OBJCG, environment, run, run_checked

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = str(preload.path())

START = """
import ctypes, gc, os, signal, subprocess, sys, threading
import objcg
objcg.enable()
from objcg import _core
assert _core.native_state() is None, _core.native_state()

size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
libc = ctypes.CDLL(None, use_errno=True)

def declare(library, name, result, *arguments):
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function

malloc = declare(libc, "malloc", pointer, size_t)
free = declare(libc, "free", None, pointer)
realloc = declare(libc, "realloc", pointer, pointer, size_t)
usable = declare(libc, "malloc_usable_size", size_t, pointer)
gc.disable()

def native(group):
    return group.memory.stat["native"]

def left(group):
    # the C library and ctypes keep some small blocks that they make once
    return native(group) if native(group) > 4096 else 0

def near(actual, expected):
    return abs(actual - expected) <= 0.02 * expected + 65536

def drift():
    return objcg.audit().drift

group, other = objcg.group("/job"), objcg.group("/other")
"""

WITH_LIBRARY = """
lib = ctypes.CDLL(os.environ["TEST_LIBRARY"])
hold = declare(lib, "hold", ctypes.c_long, ctypes.c_long, size_t)
for name in ("thread_holds",):
    declare(lib, name, ctypes.c_int, ctypes.c_long, size_t)
declare(lib, "map", pointer, size_t)
declare(lib, "grow", pointer, pointer, size_t, size_t)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile a C library that allocates."""
    return build_library("native/library.c", tmp_path_factory.mktemp("native"))


def run_native(code: str, *options: str, **env: str) -> list[str]:
    """Run code after ``START`` with the preload library; return the words that it printed."""
    return run_checked(START + code, *options, LD_PRELOAD=LIBRARY, **env)


def run_with(library: Path, code: str, *options: str) -> list[str]:
    """Do so with the C library, too."""
    return run_native(WITH_LIBRARY + code, *options, TEST_LIBRARY=str(library))


# ---- One block -----------------------------------------------------------------------------------
def test_malloc_is_charged_to_the_group_and_free_gives_back_whoever_frees() -> None:
    words = run_native("""
with group:
    blocks = [malloc(1000) for _ in range(5000)]
print(near(native(group), 5_000_000), left(other), drift())
with other:
    for block in blocks[:2500]:
        free(block)
print(near(native(group), 2_500_000), left(other), drift())
thread = threading.Thread(target=lambda: [free(block) for block in blocks[2500:]])
thread.start()
thread.join()
print(left(group), left(other), drift())
""")
    assert words == ["True", "0", "0"] * 2 + ["0", "0", "0"]


def test_every_function_of_the_family() -> None:
    words = run_native("""
import random
N = 1 << 20
def block(name, *arguments):
    kinds = [pointer if argument is None else size_t for argument in arguments]
    return declare(libc, name, pointer, *kinds)(*arguments)

def posix_memalign(alignment, size):
    result = pointer()
    assert libc.posix_memalign(ctypes.byref(result), size_t(alignment), size_t(size)) == 0
    return result.value

with group:
    made = {
        "malloc": malloc(N),
        "calloc": block("calloc", 1024, 1024),
        "realloc": realloc(malloc(10), N),
        "reallocarray": block("reallocarray", None, 4, N // 4),
        "memalign": block("memalign", 512, N),
        "aligned_alloc": block("aligned_alloc", 64, N),
        "posix_memalign": posix_memalign(4096, N),
        "valloc": block("valloc", N),
        "pvalloc": block("pvalloc", N),
    }
alignments = {"memalign": 512, "aligned_alloc": 64, "posix_memalign": 4096}
alignments |= {"valloc": 4096, "pvalloc": 4096}
print(near(native(group), 9 * N), drift())
print(ctypes.string_at(made["calloc"], N) == bytes(N))
for name, p in made.items():
    assert p % alignments.get(name, 16) == 0, name
    assert usable(p) >= N, name
    ctypes.memset(p, 0xA5, usable(p))
    free(p)
print(left(group), drift())
""")
    assert words == ["True", "0", "True", "0", "0"]


def test_realloc_keeps_what_is_in_the_block_and_charges_what_it_is() -> None:
    words = run_native("""
with group:
    p = malloc(100)
    ctypes.memset(p, 7, 100)
    for size in (200, 5000, 130_000, 9_000_000, 300_000, 150):
        p = realloc(p, size)
        assert ctypes.string_at(p, 100) == bytes([7]) * 100
        assert near(native(group), size), (size, native(group))
        assert drift() == 0
    free(p)
print(left(group), drift())
""")
    assert words == ["0", "0"]


def test_what_python_allocates_is_charged_once() -> None:
    words = run_native("""
with group:
    held = [bytes(size) for size in (100, 5000, 200_000, 3_000_000)]
    held.append(bytearray(1_000_000))
print(near(group.memory.current, 4_205_100), left(group), drift())
held.clear()
gc.collect()
print(left(group), drift())
""")
    assert words == ["True", "0", "0", "0", "0"]


def test_blocks_from_before_enable_are_nobodys() -> None:
    words = run_checked(
        """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.realloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
blocks = [libc.malloc(1000) for _ in range(1000)]
text = ["x" * 600 for _ in range(100)]
import objcg
objcg.enable()
group = objcg.group("/job")
with group:
    for block in blocks:
        libc.free(block)
    text.clear()
print(group.memory.stat["native"], objcg.audit().drift)
""",
        LD_PRELOAD=LIBRARY,
    )
    assert words == ["0", "0"]


def test_new_and_delete_are_charged_once(tmp_path: Path) -> None:
    cpp = build_library("native/new.cpp", tmp_path)
    words = run_native(
        """
lib = ctypes.CDLL(os.environ["TEST_LIBRARY"])
hold = declare(lib, "cpp_hold", None, ctypes.c_long, size_t)
wide, wide_free = declare(lib, "cpp_wide", pointer), declare(lib, "cpp_wide_free", None, pointer)
with group:
    hold(2000, 2000)
    p = wide()
print(near(native(group), 4_000_000 + 1024), p % 128, drift())
lib.cpp_let_go()
wide_free(p)
print(left(group), drift())
""",
        TEST_LIBRARY=str(cpp),
    )
    assert words == ["True", "0", "0", "0", "0"]


# ---- Maps ----------------------------------------------------------------------------------------
def test_anonymous_maps_are_charged_by_the_page(library: Path) -> None:
    words = run_with(
        library,
        """
import mmap
def mapped(group):
    return group.memory.stat["mmap"]

with group:
    block = mmap.mmap(-1, 1_000_000)
    print(mapped(group) == 245 * 4096)
    block.close()
    print(mapped(group), drift())
    p = lib.map(1 << 20)
    munmap = declare(libc, "munmap", ctypes.c_int, pointer, size_t)
    munmap(p + 4096, 8192)
    print(mapped(group) == (1 << 20) - 8192)
    q = lib.grow(p + 12288, (1 << 20) - 12288, 2 << 20)
    print(mapped(group) == (2 << 20) + 4096, drift())
with other:
    munmap(q, 2 << 20)
    munmap(p, 4096)
print(mapped(group), mapped(other), drift())
""",
    )
    assert words == ["True", "0", "0", "True", "True", "0", "0", "0", "0"]


# ---- Limits --------------------------------------------------------------------------------------
def test_a_limit_stops_a_c_library(library: Path) -> None:
    words = run_with(
        library,
        """
group.memory.max = "8M"
with group:
    p = malloc(16 << 20)
    print(p, ctypes.get_errno(), lib.map(16 << 20) == ctypes.c_void_p(-1).value)
    try:
        got = hold(100_000, 1000)  # as soon as it returns
    except objcg.MemoryLimitExceeded:
        got = native(group) // 1000
    lib.let_go()
print(8_000 < got < 14_000, group.memory.peak <= (8 << 20) * 9 // 8 + (4 << 20))
print(group.memory.events["max"] > 0, left(group), drift())
""",
    )
    assert words == ["None", "12", "True", "True", "True", "True", "0", "0"]


def test_a_c_library_over_the_limit_is_an_error_in_python() -> None:
    words = run_native("""
import sqlite3
group.memory.max = "8M"
caught = None
with group:
    database = sqlite3.connect(":memory:")
    try:
        database.execute("create table t (x)")
        for _ in range(100_000):
            database.execute("insert into t values (zeroblob(2000))")
    except MemoryError as error:
        caught = type(error).__name__
    finally:
        database.close()
print(caught in ("MemoryError", "MemoryLimitExceeded"), drift())
print(group.memory.peak <= (8 << 20) * 9 // 8 + (4 << 20))
""")
    assert words == ["True", "0", "True"]


# ---- Threads -------------------------------------------------------------------------------------
def test_a_thread_of_c_code_charges_the_group_of_whoever_started_it(library: Path) -> None:
    words = run_with(
        library,
        """
with group:
    lib.thread_holds(1000, 1000)
print(near(native(group), 1_000_000), drift())
lib.thread_goes_on()
print(near(native(group), 2_000_000), drift())
lib.thread_ends()
with other:
    lib.let_go()
print(left(group), left(other), drift())
""",
    )
    assert words == ["True", "0", "True", "0", "0", "0", "0"]


def test_a_group_can_be_removed_while_a_native_thread_of_it_lives(library: Path) -> None:
    words = run_with(
        library,
        """
below = objcg.group("/job/below")
with below:
    lib.thread_holds(1000, 1000)
below.remove()
print(near(native(group), 1_000_000), group.memory.stat["dying_descendants"], drift())
lib.thread_goes_on()
print(near(native(group), 2_000_000), drift())
lib.thread_ends()
lib.let_go()
print(left(group), group.memory.stat["dying_descendants"], drift())
""",
    )
    assert words == ["True", "1", "0", "True", "0", "0", "0", "0"]


def test_thousands_of_short_threads_leave_nothing(library: Path) -> None:
    words = run_with(
        library,
        """
with group:
    lib.many_threads(3000)
print(left(group), group.memory.stat["dying_descendants"], drift())
with group:
    for _ in range(300):
        thread = threading.Thread(target=lambda: free(malloc(1000)))
        thread.start()
        thread.join()
print(left(group), drift())
group.remove()
""",
    )
    assert words == ["0", "0", "0", "0", "0"]


def test_the_audit_is_exact_while_native_threads_allocate(library: Path) -> None:
    words = run_with(
        library,
        """
with group:
    lib.pool_starts()
print({drift() for _ in range(300)})
for number in range(300):
    objcg.group(f"/job/{number}").remove()
lib.pool_ends()
print(left(group), drift())
""",
    )
    assert words == ["{0}", "0", "0"]


def test_python_called_from_a_native_thread_is_roots_and_the_rest_the_groups(
    library: Path,
) -> None:
    words = run_with(
        library,
        """
seen = []
callback = ctypes.CFUNCTYPE(None)(lambda: seen.append(objcg.current_group().path))
with group:
    lib.call_from_thread(callback)
print(seen[0], near(native(group), 1_000_000), drift())
lib.let_go()
""",
    )
    assert words == ["/", "True", "0"]


def test_a_library_that_calls_the_c_library_past_us_may_exchange_blocks(library: Path) -> None:
    """Loaded by RTLD_DEEPBIND it finds the C library's functions before the preloaded ones.

    So what it allocates is not seen, and what it frees stays charged. No block may be such that
    the C library cannot free it.
    """
    words = run_native(
        """
deep = ctypes.CDLL(os.environ["TEST_LIBRARY"], mode=os.RTLD_DEEPBIND | os.RTLD_NOW)
make = declare(deep, "make", pointer, size_t)
resize = declare(deep, "resize", pointer, pointer, size_t)
give_back = declare(deep, "give_back", None, pointer)
sizes = [*range(1, 2000, 7), 5000, 40_000, 200_000]
with group:
    past = [make(size) for size in sizes]
print(left(group))
with other:
    for block in past:
        free(block)
print(left(group), left(other))

with group:
    ours = [malloc(size) for size in sizes]
    before = native(group)
    kept = [resize(block, 2 * size) for block, size in zip(ours, sizes)]
    for block in kept[::2]:
        give_back(block)
    for block in kept[1::2]:
        free(block)
print(0 < native(group) <= before, left(other), drift())

# and over and over, with what either may leave behind in a block
with group:
    for turn in range(20):
        blocks = [(make, malloc)[number % 2](size) for number, size in enumerate(sizes)]
        for number, block in enumerate(blocks):
            (free, give_back)[(number + turn) % 3 == 0](block)
print(native(group) > 0, left(other), drift())
""",
        TEST_LIBRARY=str(library),
    )
    assert words == ["0", "0", "0", "True", "0", "0", "True", "0", "0"]


# ---- Signals, processes --------------------------------------------------------------------------
def test_signals_in_the_middle_of_malloc_do_no_harm(library: Path) -> None:
    words = run_with(
        library,
        """
with group:
    print(lib.ring(200) >= 200)
print(left(group), drift())
""",
    )
    assert words == ["True", "0", "0"]


def test_forked_children_go_on_by_themselves(library: Path) -> None:
    words = run_with(
        library,
        """
with group:
    hold(1000, 1000)
    lib.pool_starts()
for _ in range(20):
    child = os.fork()
    if child == 0:
        good = native(group) > 1_000_000 and drift() == 0
        lib.let_go()
        with group:
            free(malloc(100_000))
        # what the pool had allocated in the moment of the fork stays, and its threads do not
        good = good and native(group) < 3 * 64 * 5100 and drift() == 0
        os._exit(0 if good else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
lib.pool_ends()
print(near(native(group), 1_000_000), drift())
""",
        "-W",
        "ignore::DeprecationWarning",
    )
    assert words == ["True", "0"]


@pytest.mark.parametrize("end", [0, 1])
def test_a_fork_does_not_wait_for_what_its_handlers_wait_for(library: Path, end: int) -> None:
    """Handlers of a library that is loaded before objcg is enabled: a lock, or threads that end."""
    words = run_checked(
        f"""
import ctypes, os
lib = ctypes.CDLL(os.environ["TEST_LIBRARY"])
assert lib.handle_forks({end}) == 0
{START}
signal.alarm(60)
with group:
    lib.workers_start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            os._exit(0 if drift() == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
print(drift(), flush=True)
os._exit(0)
""",
        "-Wignore::DeprecationWarning",
        LD_PRELOAD=LIBRARY,
        TEST_LIBRARY=str(library),
    )
    assert words == ["0"], words


def test_threads_that_a_library_starts_in_a_forked_child_lose_no_charge(library: Path) -> None:
    """They allocate while the child's region gets a file; with many groups that takes a while."""
    words = run_with(
        library,
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
assert lib.handle_forks(1) == 0
groups = [objcg.group(f"/{n}") for n in range(10_000)]
with group:
    lib.workers_start()
    for _ in range(40):
        child = os.fork()
        if child == 0:
            os._exit(0 if drift() == 0 else 1)
        print(os.waitpid(child, 0)[1], flush=True)
os._exit(0)
""",
    )
    assert words == ["0"] * 40


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all interpreters share one GIL and a cpu")
def test_an_interpreter_for_which_no_cpu_is_left() -> None:
    """Threads that allocate natively have taken all 1,024."""
    words = run_native("""
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters
go = threading.Event()
def allocate_and_wait():
    free(malloc(1000))
    go.wait()
threading.stack_size(64 << 10)
threads = [threading.Thread(target=allocate_and_wait) for _ in range(1030)]
for thread in threads:
    thread.start()
inner = interpreters.create()
code = "held = [bytes(n) for n in range(3000)]; grown = []; [grown.append(n) for n in range(9999)]"
interpreters.run_string(inner, code)
print(drift())
interpreters.destroy(inner)
print(drift())
go.set()
for thread in threads:
    thread.join()
print(drift())
""")
    assert words == ["0", "0", "0"]


def test_vfork_and_spawned_children(library: Path) -> None:
    words = run_with(
        library,
        """
with group:
    print(lib.vforks(b"/bin/true"), left(group))
    for _ in range(5):
        subprocess.run(["/bin/true"], check=True)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
    subprocess.run(["/bin/sh", "-c", "true | true"], check=True)
gc.collect()
print(native(group) < 65536, drift())
""",
    )
    assert words == ["0", "0", "True", "0"]


def test_children_that_are_not_python_inherit_the_library_and_do_not_notice(
    tmp_path: Path,
) -> None:
    program = build_library("native/program.c", tmp_path, program=True)
    for command in (["ls", "/"], ["sh", "-c", "echo a; ls / | cat"], [str(program), "20000"]):
        plain = subprocess.run(command, capture_output=True, check=False, env=environment())
        under = subprocess.run(
            command, capture_output=True, check=False, env=environment(LD_PRELOAD=LIBRARY)
        )
        assert (under.returncode, under.stdout, under.stderr) == (0, plain.stdout, b"")


# ---- objcg run -----------------------------------------------------------------------------------
SHOW = (
    "import os; from objcg import _core; "
    "print(_core.native_state(), os.environ.get('LD_PRELOAD'), "
    "[name for name in os.environ if name.startswith('OBJCG_P')])"
)


def test_run_preloads_the_library_and_leaves_the_environment_as_it_was() -> None:
    result = run([*OBJCG, "-c", SHOW])
    assert result.stdout == "None None []\n"
    assert "[native memory: yes]" in result.stderr
    result = run([*OBJCG, "-c", SHOW], env={"LD_PRELOAD": ""})
    assert result.stdout == "None  []\n"
    # the user's own stays, also where it is ours
    result = run([*OBJCG, "-c", SHOW], env={"LD_PRELOAD": LIBRARY})
    assert result.stdout == f"None {LIBRARY} []\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}])"
    assert run([*OBJCG, "-c", child]).stdout == "objcg is not enabled None []\n"


def test_run_without_native_memory() -> None:
    result = run([*OBJCG, "--no-native", "-c", SHOW])
    assert result.stdout == "turned off None []\n"
    assert "[native memory: no]" in result.stderr
    result = run([*OBJCG, "--no-native", "-c", SHOW], env={"LD_PRELOAD": LIBRARY})
    assert result.stdout == f"turned off {LIBRARY} []\n"


def test_run_keeps_options_of_the_interpreter_and_standard_input() -> None:
    code = "import sys; print(sys.flags.isolated, sys.flags.dev_mode, sys.stdin.read())"
    result = run(
        [sys.executable, "-I", "-X", "dev", "-m", "objcg", "run", "-c", code], stdin="text"
    )
    assert result.stdout == "1 True text\n"


def test_run_charges_a_c_library() -> None:
    code = "import sqlite3; d = sqlite3.connect(':memory:'); d.execute('create table t (x)'); "
    code += "[d.execute('insert into t values (zeroblob(3000))') for _ in range(1000)]; "
    code += "import objcg; print(objcg.current_group().memory.stat['native'] > 3_000_000)"
    assert run([*OBJCG, "-c", code]).stdout == "True\n"
    assert run([*OBJCG, "--no-native", "-c", code]).stdout == "False\n"


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="NumPy is not installed")
def test_a_product_of_matrices_at_a_limit_does_not_end_the_process() -> None:
    """OpenBLAS reserves tens of MiB for that, and ends the process if it does not get them."""
    code = """
import numpy, objcg, threading
group = objcg.group("/tenant", max="4M")
def work():
    with group:
        a = numpy.ones((120, 120))
        print((a @ a).sum(), numpy.linalg.inv(numpy.eye(120)).sum(), flush=True)
for thread in [threading.Thread(target=work) for _ in range(2)]:
    thread.start()
    thread.join()
print(group.memory.current < 1_000_000, objcg.audit().drift)
"""
    result = run([*OBJCG, "-c", code])
    assert (result.returncode, result.stdout) == (
        0,
        "1728000.0 120.0\n1728000.0 120.0\nTrue 0\n",
    ), result
