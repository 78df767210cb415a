"""When NumPy's handler is taken over: before, while and after NumPy is imported; and where not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from extensions.build import build

from .programs import run_checked, run_python

if TYPE_CHECKING:
    from pathlib import Path

# An array in a group: 8000 bytes, then none, and no drift.
CHECK = """
def check():
    import numpy as np
    group = objcg.group("/check")
    with group:
        array = np.ones(1000)
    print(group.memory.stat["numpy"], end=" ")
    del array
    print(group.memory.stat["numpy"], objcg.audit().drift)
"""
GOOD = ["8000", "0", "0"]

FINDERS = "[type(finder).__name__ for finder in sys.meta_path]"


def program(code: str) -> str:
    """Return a program that begins with objcg enabled and CHECK defined."""
    return "import sys, objcg\nobjcg.enable()\n" + CHECK + code


def fake(folder: Path, c_module: str) -> str:
    """Make a package numpy whose C module is this Python source; return the folder as text."""
    (folder / "numpy" / "_core").mkdir(parents=True)
    (folder / "numpy" / "__init__.py").write_text("from ._core import _multiarray_umath\n")
    (folder / "numpy" / "_core" / "__init__.py").write_text("")
    (folder / "numpy" / "_core" / "_multiarray_umath.py").write_text(c_module)
    return str(folder)


# ---- When ----------------------------------------------------------------------------------------


def test_numpy_imported_after_enable() -> None:
    words = run_checked(
        program(f"""
print("numpy" in sys.modules)
check()
print("_Finder" in {FINDERS}, "concurrent.futures.thread" in sys.modules)
import concurrent.futures.thread, multiprocessing.pool, multiprocessing.util
import concurrent.futures.process
try:
    import greenlet
except ImportError:
    # and then it is what is waited for
    objcg._imports._imported(type(sys)("greenlet._greenlet"))
print("_Finder" in {FINDERS})
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    for loader in (getattr(module, "__loader__", None), getattr(spec, "loader", None)):
        assert not type(loader).__module__.startswith("objcg"), module
""")
    )
    # the one finder goes when all has come that it waits for
    assert [words[0], *words[1:4]] == ["False", *GOOD]
    assert words[-1] == "False"


def test_numpy_imported_before_enable() -> None:
    words = run_checked("import numpy, sys, objcg\nobjcg.enable()\n" + CHECK + "check()")
    assert words == GOOD


def test_enabling_twice_and_importing_again() -> None:
    """Taken for NumPy's own, our functions would call themselves for an array from before."""
    words = run_checked(
        """
import importlib, sys, warnings
import numpy as np
before = [np.ones(100), np.ones(1000)]
import objcg
objcg.enable()
"""
        + CHECK
        + """
check()
objcg.enable()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # NumPy warns of a reload
    importlib.reload(np)
for name, module in list(sys.modules.items()):
    if name.endswith("core._multiarray_umath"):
        assert objcg._core.install_numpy(module._ARRAY_API, None) is None
before[0].resize(3000, refcheck=False)
before.clear()
check()
"""
    )
    assert words == GOOD * 2


def test_enabled_in_the_middle_of_the_import_of_numpy() -> None:
    """What is waited for is NumPy's C module, which is not there yet."""
    words = run_checked(
        "import sys, objcg\n"
        + CHECK
        + """
class Enabler:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("numpy.") and not objcg.enabled():
            assert not any(part.endswith("_multiarray_umath") for part in sys.modules)
            assert "numpy" in sys.modules
            objcg.enable()
sys.meta_path.insert(0, Enabler())
check()
"""
    )
    assert words == GOOD


def test_looking_for_numpy_is_not_importing_it() -> None:
    words = run_checked(
        program("""
import importlib.util
spec = importlib.util.find_spec("numpy")
print(type(spec.loader).__module__.startswith("objcg"), "numpy" in sys.modules)
check()
""")
    )
    assert words == ["False", "False", *GOOD]


def test_threads_that_import_at_once() -> None:
    words = run_checked(
        program("""
import threading
barrier = threading.Barrier(4)
def load():
    barrier.wait()
    import numpy
    assert numpy.ones(3).sum() == 3
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
check()
""")
    )
    assert words == GOOD


def test_an_import_that_fails_and_succeeds_later() -> None:
    words = run_checked(
        program("""
class Refuser:
    def find_spec(self, name, path=None, target=None):
        if name.endswith("_multiarray_umath"):
            raise ImportError("not yet")
sys.meta_path.insert(1, Refuser())
try:
    import numpy
except ImportError:
    print("failed")
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder) is not Refuser]
for name in [name for name in sys.modules if name.partition(".")[0] == "numpy"]:
    del sys.modules[name]
check()
""")
    )
    assert words == ["failed", *GOOD]


def test_a_lazy_import() -> None:
    words = run_checked(
        program("""
import importlib.util
spec = importlib.util.find_spec("numpy")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = sys.modules["numpy"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print("numpy._core" in sys.modules or "numpy.core" in sys.modules)
check()
""")
    )
    assert words == ["False", *GOOD]


# ---- Arrays from before --------------------------------------------------------------------------


def test_arrays_from_before_are_resized_and_freed_after() -> None:
    words = run_checked("""
        import numpy as np, objcg, threading
        sizes = [0, 1, 16, 100, 1000, 1023, 1024, 10_000, 1_000_000]
        arrays = [np.full(size, 7, dtype=np.uint8) for size in sizes for _ in range(20)]
        objcg.enable()
        group = objcg.group("/g")
        with group:
            kept = arrays[::2]
            del arrays[1::2]
            for array in kept:
                array.resize(2 * array.size + 5, refcheck=False)
        print(all((array[: array.size // 2 - 2] == 7).all() for array in kept))
        print(group.memory.stat["numpy"], objcg.audit().drift)
        del array, kept
        thread = threading.Thread(target=arrays.clear)
        thread.start()
        thread.join()
        with group:
            again = [np.zeros(size, dtype=np.uint8) for size in sizes for _ in range(20)]
        print(any(array.any() for array in again), group.memory.stat["numpy"])
        del again
        print(group.memory.stat["numpy"], objcg.audit().drift)
    """)
    charged = sum(20 * max(16, -(-size // 16) * 16) for size in (0, 1, 16, 100, 1000, 1023, 1024))
    charged += 20 * (10_000 + 1_000_000)
    assert words == ["True", "0", "0", "False", str(charged), "0", "0"]


def test_threads_and_contexts_from_before() -> None:
    words = run_checked("""
        import contextvars, threading
        import numpy as np, objcg
        begin, end = threading.Event(), threading.Event()
        context = contextvars.copy_context()
        context.run(np.ones, 5)
        held = []
        def make(group):
            with group:
                held.append(np.ones(1000))
        def run():
            np.ones(5)
            begin.wait()
            make(objcg.group("/g"))
            end.set()
        threading.Thread(target=run).start()
        objcg.enable()
        begin.set()
        end.wait()
        context.run(make, objcg.group("/g"))
        print(objcg.group("/g").memory.stat["numpy"])
        held.clear()
        print(objcg.group("/g").memory.stat["numpy"], objcg.audit().drift)
    """)
    assert words == ["16000", "0", "0"]


def test_a_handler_that_was_set_before(tmp_path: Path) -> None:
    build("numpy_handlers", tmp_path)
    words = run_checked(
        """
        import sys, threading
        import numpy as np
        try:
            from numpy._core import _multiarray_umath as c_module
        except ImportError:
            from numpy.core import _multiarray_umath as c_module
        import numpy_handlers, objcg
        numpy_handlers.set_own(c_module._ARRAY_API)
        objcg.enable()
        group = objcg.group("/g")
        with group:
            own = np.ones(1000)
            print(c_module.get_handler_name(own), group.memory.stat["numpy"])
            held = []
            thread = threading.Thread(target=lambda: held.append(np.ones(1000)))
            thread.start()
            thread.join()
            print(c_module.get_handler_name(held[0]), group.memory.stat["numpy"])
        del own, held
        print(*numpy_handlers.counts(), group.memory.stat["numpy"], objcg.audit().drift)
        """,
        PYTHONPATH=str(tmp_path),
    )
    assert words == ["own", "0", "default_allocator", "8000", "0", "0", "0", "0"]


def test_exchanged_under_fire(tmp_path: Path) -> None:
    """Threads without the GIL call NumPy's functions while they are exchanged."""
    build("numpy_handlers", tmp_path)
    words = run_checked(
        """
        import threading
        import numpy as np
        try:
            from numpy._core import _multiarray_umath as c_module
        except ImportError:
            from numpy.core import _multiarray_umath as c_module
        import numpy_handlers, objcg
        wrong = []
        started = threading.Barrier(5)
        def churn(native):
            started.wait()
            caller = numpy_handlers.Caller(c_module._ARRAY_API)
            wrong.append(caller.churn(200_000, native, False))
        threads = [threading.Thread(target=churn, args=(number % 2,)) for number in range(4)]
        for thread in threads: thread.start()
        started.wait()
        objcg.enable()
        alive = sum(thread.is_alive() for thread in threads)
        for thread in threads: thread.join()
        print(alive > 0, *wrong, objcg.root.memory.stat["numpy"], objcg.audit().drift)
        """,
        PYTHONPATH=str(tmp_path),
    )
    assert words == ["True", *("0" * 4), "0", "0"]


# ---- Beside other things -------------------------------------------------------------------------


def test_tracemalloc_traces_arrays_as_before() -> None:
    words = run_checked(
        program("""
import tracemalloc
import numpy as np
tracemalloc.start()
arrays = [np.ones(1000) for _ in range(10)]
arrays[0].resize(5000, refcheck=False)
snapshot = tracemalloc.take_snapshot()
own = snapshot.filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
print(sum(trace.size for trace in own.traces))
del arrays
own = tracemalloc.take_snapshot()
own = own.filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
print(sum(trace.size for trace in own.traces))
tracemalloc.stop()
check()
""")
    )
    assert words == [str(9 * 8000 + 40_000), "0", *GOOD]


def test_a_child_made_by_fork_counts_on() -> None:
    words = run_checked(
        program("""
import os
import numpy as np
group = objcg.group("/g")
with group:
    arrays = [np.ones(1000), np.ones(1_000_000)]
child = os.fork()
if child == 0:
    with group:
        arrays.append(np.zeros(500))
    before = group.memory.stat["numpy"]
    del arrays[:2]
    after = group.memory.stat["numpy"]
    arrays.clear()
    good = (before, after, group.memory.stat["numpy"]) == (8_012_000, 4000, 0)
    os._exit(0 if good and objcg.audit().drift == 0 else 1)
print(os.waitpid(child, 0)[1], group.memory.stat["numpy"])
check()
""")
    )
    assert words == ["0", "8008000", *GOOD]


def test_arrays_that_live_until_the_end() -> None:
    words = run_checked(
        program("""
import numpy as np
objcg.group("/late", max="16M").__enter__()
class Late:
    def __del__(self):
        print(len(self.array.copy()) + len(self.make(10)))
late = Late()
late.itself, late.array, late.make = late, np.ones(1000), np.empty
objects = np.array([{}, [], None], dtype=object)
print("end")
""")
    )
    assert words == ["end", "1010"]


def test_the_tree_shows_arrays_to_other_processes() -> None:
    words = run_checked(
        program("""
import json, os, subprocess
import numpy as np
with objcg.group("/g"):
    array = np.ones(1_000_000)
tree = subprocess.run([sys.executable, "-m", "objcg", "tree", "--json", str(os.getpid())],
                      capture_output=True, check=True)
for group in json.loads(tree.stdout)["groups"]:
    if group["path"] == "/g":
        print(group["stat"]["numpy"])
""")
    )
    assert words == ["8000000"]


# ---- Where it cannot be done ---------------------------------------------------------------------

NO_TABLE = "_ARRAY_API = None\n__version__ = '9.9'\n"

# What py_numpy.c looks at, laid out as NumPy has it, but for what a test replaces in it.
C_MODULE = """
import ctypes, mmap
new = ctypes.pythonapi.PyCapsule_New
new.restype = ctypes.py_object
new.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
get_version = ctypes.CFUNCTYPE(ctypes.c_uint)
class Handler(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8),
                ("functions", ctypes.c_void_p * 5)]
abi, features = get_version(lambda: {abi}), get_version(lambda: {features})
page = mmap.mmap(-1, mmap.PAGESIZE)
handler = Handler.from_buffer(page)
handler.name, handler.version = {name}, {version}
handler.functions = (ctypes.c_void_p * 5)(None, 1, 2, 3, {free})
before = bytes(handler)
capsule_name = {capsule}
capsule = new(ctypes.addressof(handler), capsule_name, None)
default = ctypes.py_object(capsule)
if {read_only}:
    mprotect = ctypes.CDLL(None).mprotect
    assert mprotect(ctypes.c_void_p(ctypes.addressof(handler)), mmap.PAGESIZE, mmap.PROT_READ) == 0
table = (ctypes.c_void_p * 400)()
table[0] = ctypes.cast(abi, ctypes.c_void_p)
table[211] = ctypes.cast(features, ctypes.c_void_p)
table[306] = ctypes.addressof(default)
_ARRAY_API = new(ctypes.addressof(table), None, None)
"""
RIGHT = {
    "abi": "0x02000000",
    "features": "0x0f",
    "name": 'b"default_allocator"',
    "version": "1",
    "free": "4",
    "capsule": 'b"mem_handler"',
    "read_only": "False",
}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"abi": "0x03000000"}, "its C interface is neither that of NumPy 1 nor that of NumPy 2"),
        ({"features": "0x0e"}, "it has no data-memory handlers (NEP 49)"),
        ({"capsule": 'b"other"'}, "its default data-memory handler is not where"),
        ({"version": "2"}, "its default data-memory handler is not of version 1"),
        ({"name": 'b"other"'}, "its default data-memory handler is not of version 1"),
        ({"free": "None"}, "its default data-memory handler is not of version 1"),
        ({"read_only": "True"}, "its default data-memory handler cannot be written to"),
    ],
)
def test_a_numpy_that_looks_different_is_left_alone(
    tmp_path: Path, wrong: dict[str, str], why: str
) -> None:
    folder = fake(tmp_path, C_MODULE.format(**{**RIGHT, **wrong}))
    result = run_python(
        "import objcg; objcg.enable(); import numpy; m = numpy._core._multiarray_umath\n"
        "print(bytes(m.handler) == m.before)",
        PYTHONPATH=folder,
    )
    assert result.returncode == 0, result
    assert result.stdout == "True\n"
    assert result.stderr.count("objcg does not charge the arrays of this NumPy") == 1
    assert why in result.stderr


def test_the_same_numpy_is_taken_over_where_nothing_is_wrong(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    folder = fake(tmp_path, C_MODULE.format(**RIGHT))
    words = run_checked(
        "import objcg; objcg.enable(); import numpy; m = numpy._core._multiarray_umath\n"
        "after = bytes(m.handler)\n"
        "print(after[:136] == m.before[:136], after[136:] == m.before[136:])",
        PYTHONPATH=folder,
    )
    assert words == ["True", "False"]


@pytest.mark.parametrize("before", ["import numpy", "pass"])
def test_a_numpy_without_a_table(tmp_path: Path, before: str) -> None:
    folder = fake(tmp_path, NO_TABLE)
    result = run_python(f"{before}; import objcg; objcg.enable(); import numpy", PYTHONPATH=folder)
    assert result.returncode == 0
    assert "this NumPy (9.9): its C interface (_ARRAY_API) is not a capsule" in result.stderr


def test_the_import_of_numpy_does_not_fail_where_warnings_are_errors(tmp_path: Path) -> None:
    folder = fake(tmp_path, NO_TABLE)
    result = run_python(
        "import objcg; objcg.enable(); import numpy; print(numpy.__name__)",
        "-Werror",
        PYTHONPATH=folder,
    )
    assert (result.returncode, result.stdout) == (0, "numpy\n")
    assert "objcg does not charge the arrays" in result.stderr


def test_a_program_without_numpy_loads_nothing_for_it() -> None:
    words = run_checked("""
        import sys, objcg
        objcg.enable()
        print(*[name for name in sys.modules if "numpy" in name])
    """)
    assert words == ["objcg._numpy"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="one GIL for all interpreters before 3.12")
def test_a_subinterpreter_that_may_not_have_numpy() -> None:
    """NumPy refuses to be loaded there; the main interpreter's arrays are charged as before."""
    words = run_checked(
        program("""
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    inner = interpreters.create("isolated")
else:
    import _xxsubinterpreters as interpreters
    inner = interpreters.create(isolated=True)
check()
error = interpreters.run_string(inner, "try:\\n import numpy\\nexcept ImportError:\\n pass")
check()
interpreters.destroy(inner)
check()
""")
    )
    assert words == GOOD * 3
