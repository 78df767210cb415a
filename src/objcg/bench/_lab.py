"""The modules of the lab: the core with one step of it done in another way, loaded by ctypes.

lab/lab.h has the same structs. Each module is a core of its own, with its own region and slabs, so
all of them live in one process. None of them is what `objcg.enable()` installs.
"""

from __future__ import annotations

import ctypes
import importlib.resources
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from .runner import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = 1

# enum lab_scenario
SCENARIOS = ("alloc", "pair", "batches", "fork", "move", "moved", "charge")

# enum lab_flag
CHARGES, COUNTS, MIGRATES, TASKS, ROOT_FREE = 1, 2, 4, 8, 16


class Request(NamedTuple):
    """What is to be measured: struct lab_request, whose comments say what each field is."""

    operation: str
    operations: int
    threads: int = 1
    depth: int = 1
    size: int = 64
    allocations: int = 0
    resident: bool = False


class _Request(ctypes.Structure):
    _fields_ = (
        ("scenario", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("allocations", ctypes.c_uint32),
        ("resident", ctypes.c_uint32),
        ("count", ctypes.c_uint64),
    )


class _Result(ctypes.Structure):
    _fields_ = (("ns", ctypes.c_double),)
    ns: float


class _Ops(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("compiler", ctypes.c_char_p),
        ("init", ctypes.CFUNCTYPE(ctypes.c_int)),
        # called with the GIL or without: see Module.run
        ("run", ctypes.c_void_p),
        ("self_test", ctypes.CFUNCTYPE(ctypes.c_char_p)),
        ("call_begin", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32)),
        ("call_end", ctypes.CFUNCTYPE(None)),
        ("call_malloc", ctypes.c_void_p),
        ("call_free", ctypes.c_void_p),
        ("set_callee", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)),
    )
    version: int
    flags: int
    name: bytes
    compiler: bytes
    init: Callable[[], int]
    run: int
    self_test: Callable[[], bytes | None]
    call_begin: Callable[[int], int]
    call_end: Callable[[], None]
    call_malloc: int
    call_free: int
    set_callee: Callable[[int, int], None]


_RUN = (ctypes.c_int, ctypes.POINTER(_Request), ctypes.POINTER(_Result))
_run_without_gil = ctypes.CFUNCTYPE(*_RUN)
_run_with_gil = ctypes.PYFUNCTYPE(*_RUN)

_files = ExitStack()


class Module:
    """One variant, loaded and started."""

    def __init__(self, name: str) -> None:
        path = _path(name)
        try:
            library = ctypes.CDLL(path)
            self._ops = _Ops.in_dll(library, "lab_ops")
        except (OSError, ValueError) as error:
            raise BenchmarkError(f"cannot load the lab's variant {name!r}: {error}") from error
        if self._ops.version != _VERSION:
            raise BenchmarkError(
                f"{path} is of version {self._ops.version} of the lab, not {_VERSION}; build again"
            )
        self.name = self._ops.name.decode()
        self.compiler = self._ops.compiler.decode()
        self._check("start", self._ops.init())

    def has(self, flag: int) -> bool:
        """Say whether the variant does what the flag says."""
        return bool(self._ops.flags & flag)

    def run(self, request: Request, *, gil: bool = False) -> float:
        """Measure; return the nanoseconds of one operation.

        With `gil` the calling thread keeps it, as CPython's own allocator requires.
        """
        function: Any = (_run_with_gil if gil else _run_without_gil)(self._ops.run)
        result = _Result()
        asked = _Request(
            scenario=SCENARIOS.index(request.operation),
            threads=request.threads,
            depth=request.depth,
            size=request.size,
            allocations=request.allocations,
            resident=request.resident,
            count=request.operations,
        )
        self._check(f"measure {request}", function(ctypes.byref(asked), ctypes.byref(result)))
        return result.ns

    def self_test(self) -> str | None:
        """Run the variant's self-test; return what is wrong, or None."""
        message = self._ops.self_test()
        return None if message is None else message.decode()

    def call_begin(self, depth: int) -> tuple[int, int]:
        """Return addresses of this variant's malloc and free, for a new task at that depth."""
        self._check("begin", self._ops.call_begin(depth))
        return self._ops.call_malloc, self._ops.call_free

    def call_end(self) -> None:
        """End that task."""
        self._ops.call_end()

    def set_callee(self, malloc: int, free: int) -> None:
        """Of the variant "called": what it shall call, by address."""
        self._ops.set_callee(malloc, free)

    def _check(self, what: str, status: int) -> None:
        if status < 0:
            raise BenchmarkError(
                f"the lab's variant {self.name!r} cannot {what}: {os.strerror(-status)}"
            )


def callees() -> dict[str, tuple[int, int]]:
    """Return addresses of malloc and free of others: CPython's for objects, the C library's."""
    python, c = ctypes.pythonapi, ctypes.CDLL(None)
    return {
        "stock": (_address(python.PyObject_Malloc), _address(python.PyObject_Free)),
        "glibc": (_address(c.malloc), _address(c.free)),
    }


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None  # noqa: S101
    return address


def _path(name: str) -> str:
    """Return the file of a variant's module, wherever the package was installed or built."""
    resource = importlib.resources.files("objcg") / "_lab" / f"{name}.so"
    if not resource.is_file():
        raise BenchmarkError(
            "the variants of the lab are not built into this installation of objcg; "
            "in its source folder, run: pip install . -Csetup-args=-Dlab=true"
        )
    # where the package lies in a zip file, a copy that is removed at exit
    return os.fspath(_files.enter_context(importlib.resources.as_file(resource)))
