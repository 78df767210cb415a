"""What libraries hold is charged to the group they took it in, and given back by whoever frees it.

A program for each library is in tests/programs/libraries; each holds some 20 to 50 MB that the
library itself, or the C library's malloc(), can put a number on. The libraries are the extra
"libraries": `make .venv/.libraries`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from typing import Any

import pytest

from .charges import RESIDUE
from .programs import OBJCG, PROGRAMS, run

KIB = 1 << 10

# module whose absence is no failure: the program
LIBRARIES = {
    "numpy": "numpy_arrays",
    "pandas": "pandas_frames",
    "pyarrow": "pyarrow_tables",
    "PIL": "pillow_images",
    "lxml": "lxml_trees",
    "zlib": "zlib_streams",
    "sqlite3": "sqlite3_pages",
    "ssl": "ssl_buffers",
    "orjson": "orjson_documents",
    "ctypes": "ctypes_malloc",
}
IN_THE_STANDARD_LIBRARY = {"zlib", "sqlite3", "ssl", "ctypes"}


@functools.cache
def measured(library: str) -> dict[str, Any]:
    """Run the program of a library once; return what it printed."""
    program = PROGRAMS / "libraries" / f"{LIBRARIES[library]}.py"
    result = run([*OBJCG, program])
    assert result.returncode == 0, result.stderr
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.fixture(params=LIBRARIES)
def holding(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What was measured of one library."""
    library: str = request.param
    if library not in IN_THE_STANDARD_LIBRARY and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: 'make .venv/.libraries' does it")
    found = measured(library)
    if found["needs"] == "native" and not found["native"]:
        pytest.skip(f"{library} uses the C library's malloc(), which objcg does not see here")
    return found


def test_what_a_library_holds_is_charged_to_the_group(holding: dict[str, Any]) -> None:
    # it must be a figure that matters
    assert 20_000_000 < holding["expected"] < 70_000_000
    off = holding["charged"] - holding["expected"]
    assert abs(off) <= holding["expected"] * 0.02 + 64 * KIB, holding


def test_it_is_given_back_wherever_it_is_freed(holding: dict[str, Any]) -> None:
    for where, left in holding["released"].items():
        assert -RESIDUE <= left <= 64 * KIB, (where, left)
    assert abs(holding["other"]) <= 64 * KIB, holding
    assert holding["drift"] == 0


def test_little_of_it_is_unaccounted(holding: dict[str, Any]) -> None:
    """Of all that the process takes after start-up and imports, at most a tenth of its memory.

    What is freed and kept by a library's own allocator is unaccounted, too. Mapped files are not in
    it, which `objcg tree` shows apart, nor what the C library's malloc() keeps.
    """
    assert holding["unaccounted"] <= holding["rss"] // 10, holding
