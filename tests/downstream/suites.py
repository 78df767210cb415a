"""What is run: CPython's own tests, and those that libraries ship in their wheels."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

LIBRARIES = ("numpy", "scipy", "pandas", "sympy", "networkx")
SUITES = ("cpython", *LIBRARIES)

# Those of `--slice`: minutes, and of each kind something.
SLICE = {
    "cpython": [
        "test_json",
        "test_dict",
        "test_list",
        "test_unicode",
        "test_asyncio.test_tasks",
        "test_asyncio.test_events",
        "test_threading",
        "test_thread",
        "test_context",
        "test_gc",
        "test_weakref",
        "test_generators",
        "test_coroutines",
        "test_memoryview",
        "test_bytes",
        "test_pickle",
        "test_memoryio",
        "test_sqlite3",
        "test_ssl",
        "test_mmap",
        "test_ctypes",
        "test_fork1",
        "test_subprocess",
        "test_queue",
        "test_capi",
    ],
    "numpy": ["numpy/lib/tests"],
    "pandas": ["pandas/tests/frame/indexing"],
}


class Unit(NamedTuple):
    """What one process runs, on each side."""

    name: str
    arguments: tuple[str, ...]
    """Of inside.py, but for RESULTS, which comes second."""


def in_slice(suite: str, unit: Unit) -> bool:
    """Return whether `--slice` has this unit."""
    # a package of CPython's tests is one unit in older versions, and one for each module in newer
    name = unit.name.removeprefix("test.")
    return any(one == name or one.startswith(f"{name}.") for one in SLICE[suite])


def units(suite: str, python: str) -> list[Unit]:
    """Return the units of a suite for an interpreter, as many as are installed."""
    return _cpython(python) if suite == "cpython" else _shipped(suite, python)


def fault(unit: Unit, end: str) -> str:
    """Return why a unit was not run although its process has ended like this; else ""."""
    # of pytest: all passed, some failed, none was to be run
    if unit.arguments[0] == "pytest" and end not in ("status 0", "status 1", "status 5"):
        return f"pytest could not run it: {end}"
    return ""


def _ask(python: str, *arguments: str) -> str:
    result = subprocess.run(
        [python, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    if result.returncode != 0:
        raise SystemExit(f"{python} {' '.join(arguments)}: {result.stderr.strip()[-400:]}")
    return result.stdout


def _cpython(python: str) -> list[Unit]:
    names = [line.strip() for line in _ask(python, "-m", "test", "--list-tests").splitlines()]
    return [Unit(name, ("regrtest", name)) for name in names if name]


def _shipped(package: str, python: str) -> list[Unit]:
    code = (
        "import importlib.util, json, sys; "
        "spec = importlib.util.find_spec(sys.argv[1]); "
        "print(json.dumps(list(spec.submodule_search_locations) if spec else []))"
    )
    folders = json.loads(_ask(python, "-c", code, package))
    if not folders:
        raise SystemExit(f"{package} is not installed for {python}: make .venv/.downstream")
    (folder,) = map(Path, folders)
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        found.setdefault(str(file.parent.relative_to(folder.parent)), []).append(str(file))
    return [
        Unit(name, ("pytest", f"/{name.replace('/tests', '')}", *files))
        for name, files in found.items()
    ]


def version(python: str) -> str:
    """Return "3.X" of an interpreter that has objcg."""
    return _ask(python, "-c", "import objcg, sys; print('%d.%d' % sys.version_info[:2])").strip()
