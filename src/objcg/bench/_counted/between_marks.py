"""Runs the main() of a program between two marks: ``between_marks.py PROGRAM SCALE``.

Without a program, no mark is made: then the process does nothing but start and end.

A mark is a call of a function of the C library that nothing else calls; callgrind is told to begin
a new count at it.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def mark() -> None:
    """Have a new count begin."""
    os.sched_get_priority_min(os.SCHED_OTHER)


def main_of(path: str) -> Callable[[float], int]:
    """Load the program without running it."""
    spec = spec_from_file_location("program", path)
    assert spec is not None  # noqa: S101  # the path ends in .py
    assert spec.loader is not None  # noqa: S101
    program = module_from_spec(spec)
    spec.loader.exec_module(program)
    main: Callable[[float], int] = program.main
    return main


def main(path: str, scale: float) -> int:
    """Warm up, and do what is counted."""
    run = main_of(path)
    # what is done once: imports, caches of the interpreter, memory from the system
    run(scale / 10)
    gc.collect()
    mark()
    done = run(scale)
    mark()
    return done


if __name__ == "__main__" and len(sys.argv) > 1:
    sys.stdout.write(f"{main(sys.argv[1], float(sys.argv[2]))}\n")
