"""Running one side of a comparison in a process of its own, and what it took."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from objcg.bench.runner import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOCK, OBJCG = "stock", "objcg"

_HERE = os.path.dirname(__file__)

# The kernel lets the peak of a process begin with that of its parent, where this has lent it its
# memory until exec (and every Python does so). Hence a parent between that has as little as any.
_LAUNCH = """
import posix, sys, time
count = int(sys.argv[1])
environment = dict(posix.environ)
environment.update(v.encode().split(b"=", 1) for v in sys.argv[2 : 2 + count])
command = sys.argv[2 + count :]
start = time.perf_counter()
child = posix.posix_spawn(command[0], command, environment)
_, status, usage = posix.wait4(child, 0)
seconds = time.perf_counter() - start
print(f"\\n{status} {seconds} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss * 1024}")
"""

# They would change the allocator or what it costs.
_UNWANTED = frozenset(
    {"LD_PRELOAD", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONMALLOCSTATS", "PYTHONTRACEMALLOC"}
)


class Usage(NamedTuple):
    """What a process took."""

    wall_seconds: float
    """From before its start until it had ended."""
    cpu_seconds: float
    peak_bytes: int
    output: str


class Result(NamedTuple):
    """What a process took, and what it was."""

    cpu_seconds: float
    peak_bytes: int
    output: str
    group: str
    """The path of the group that it was in; empty without objcg."""
    group_peak: int
    allocator: str
    """PYTHONMALLOC."""
    preloaded: str
    """What was loaded by LD_PRELOAD."""
    tracers: tuple[str, ...] = ()
    """The memory profilers that were in the process; see `_side.TRACERS`."""
    native: bool = False
    """Whether what C libraries allocate was charged."""


class ProcessFailed(BenchmarkError):
    """It did not exit with status 0, or took too long; the text says the last it said."""


def run(
    side: str,
    command: Sequence[str],
    *,
    hash_seed: int,
    library: str | None = None,
    for_python: bool = True,
    timeout: float | None = None,
    is_script: bool = False,
    under: Sequence[str] = (),
    options: Sequence[str] = (),
    tracer: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Result:
    """Run a program of Python, by its path, as that side.

    A script finds modules in its folder. With a library, which is loaded before all and replaces
    malloc, the interpreter uses malloc for everything, unless it is not for Python; the side that
    enables objcg with a library has to charge what C libraries allocate. `under` is the command, of
    another tool, that runs the interpreter; `options` are the interpreter's, such as ``-m`` with a
    module that runs the program. A tracer is a memory profiler that has to be found in the process.
    What of the environment would change the allocator is left out.

    Raises:
        ProcessFailed: see there.
        BenchmarkError: the process was not what the side is.
    """
    with tempfile.TemporaryDirectory(prefix="objcg-bench-") as folder:
        report = os.path.join(folder, "report")
        child = os.path.join(_HERE, "_side.py")
        folders = [os.path.dirname(command[0])] if is_script else []
        path = "\n".join([*folders, *(os.path.abspath(entry) for entry in sys.path)])
        used = launch(
            [*under, sys.executable, *options, child, side, report, path, *command],
            hash_seed=hash_seed,
            library=library,
            for_python=for_python,
            timeout=timeout,
            environ=environ,
        )
        try:
            with open(report, encoding="utf-8") as file:
                group, group_peak, allocator, loaded, tracers, native = file.read().splitlines()
        except (OSError, ValueError):
            raise ProcessFailed("it left no report") from None
    result = Result(
        cpu_seconds=used.cpu_seconds,
        peak_bytes=used.peak_bytes,
        output=used.output,
        group=group,
        group_peak=int(group_peak),
        allocator=allocator,
        preloaded=loaded,
        tracers=tuple(tracers.split()),
        native=native == "native",
    )
    if under and os.path.basename(result.preloaded).startswith("vgpreload_"):
        result = result._replace(preloaded="")  # valgrind's own, which replaces nothing
    _check(side, result, library, tracer)
    return result


def launch(
    command: Sequence[str],
    *,
    hash_seed: int,
    library: str | None = None,
    for_python: bool = True,
    timeout: float | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Usage:
    """Run a command as it is, by the path of its program; see `run`.

    Raises:
        ProcessFailed: see there.
    """
    variables = {"PYTHONHASHSEED": str(hash_seed % 2**32)}
    if library is not None:
        variables |= preload(library, for_python=for_python)
    extra = [f"{name}={text}" for name, text in variables.items()]
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(len(extra)), *extra]
    output, errors = _communicate([*launcher, *command], environment(environ), timeout)
    rest, _, last = output.rstrip("\n").rpartition("\n")
    numbers = last.split()
    if len(numbers) != 4 or numbers[0] != "0":
        # of what is written in Rust the error stands above this
        errors = errors.partition("\nStack backtrace:")[0]
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        raise ProcessFailed(lines[-1] if lines else f"it ended with status {last or '?'}")
    return Usage(float(numbers[1]), float(numbers[2]), int(numbers[3]), rest.strip())


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables, those of this process, without what would change the allocator."""
    return {name: text for name, text in environ.items() if name not in _UNWANTED}


def preload(library: str, *, for_python: bool = True) -> dict[str, str]:
    """Return the variables that load a library before all, and have CPython use its malloc."""
    return {"LD_PRELOAD": library, **({"PYTHONMALLOC": "malloc"} if for_python else {})}


def _check(side: str, result: Result, library: str | None, tracer: str | None) -> None:
    if side == OBJCG:
        right = result.group not in {"", "/"} and result.group_peak > 0
        right &= result.native == (library is not None)
    else:
        right = result.group == ""
    if tracer is None:
        right &= result.preloaded == (library or "") and not result.tracers
    else:
        # it may have loaded a library of its own
        right &= tracer in result.tracers
    if not right:
        raise BenchmarkError(f"the process of the side {side!r} was something else: {result}")


def _communicate(
    command: list[str], variables: Mapping[str, str], timeout: float | None
) -> tuple[str, str]:
    """Run to the end, in a session of its own so that all of it can be ended."""
    with subprocess.Popen(  # noqa: S603  # this interpreter, and code from here
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"it took more than {timeout:.0f} seconds") from None
        finally:
            # a benchmark may leave processes of its own behind, too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def find_library(name: str) -> str | None:
    """Return the path of a shared library, as the dynamic linker finds it; None if it does not."""
    show = "print(open('/proc/self/maps').read())"
    maps = subprocess.run(  # noqa: S603  # this interpreter, and code from here
        [sys.executable, "-I", "-S", "-c", show],
        env={**environment(), "LD_PRELOAD": name},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    stem = name.partition(".so")[0]
    for line in maps.splitlines():
        path = line.partition("/")[1] + line.partition("/")[2]
        if os.path.basename(path).startswith(f"{stem}.so"):
            return path
    return None
