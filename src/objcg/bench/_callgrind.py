"""Counting the instructions of a process with valgrind's callgrind, and reading what it wrote.

No clock is involved, so other programs and the layout of memory do not matter; neither do cache
misses, nor that an instruction waits for the one before it, nor what the kernel does.
"""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from .runner import BenchmarkError


class Called(NamedTuple):
    """A function, and the file that it is in, by its name."""

    file: str
    function: str


def find(what: str) -> str:
    """Return the path of valgrind, which `what` needs.

    Raises:
        BenchmarkError: it is not there.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise BenchmarkError(
            f"{what} needs valgrind, which is not in PATH; install it (apt-get install valgrind)"
        )
    return valgrind


def command(valgrind: str, result: str, *options: str) -> list[str]:
    """Return what a command has to begin with to be counted; `result` is the file to be written."""
    return [
        valgrind,
        "--quiet",
        "--tool=callgrind",
        "--compress-strings=no",
        "--compress-pos=no",
        *options,
        f"--callgrind-out-file={result}",
    ]


# The format: https://valgrind.org/docs/manual/cl-format.html


def by_object(text: str) -> dict[str, int]:
    """Return the instructions run in each file, by its name: calls to other files not included."""
    totals: dict[str, int] = {}
    name = ""
    is_call = False
    for line in text.splitlines():
        if line.startswith("ob="):
            name = os.path.basename(line.removeprefix("ob="))
        elif line.startswith("calls="):
            # the next line is what the call cost, which is counted where it was spent
            is_call = True
        elif line[:1].isdigit():
            if not is_call:
                totals[name] = totals.get(name, 0) + int(line.split()[1])
            is_call = False
    return totals


def calls(text: str) -> dict[Called, int]:
    """Return how often each function was called."""
    totals: dict[Called, int] = {}
    file = called_file = function = ""
    for line in text.splitlines():
        if line.startswith("ob="):
            file = called_file = os.path.basename(line.removeprefix("ob="))
        elif line.startswith("cob="):
            called_file = os.path.basename(line.removeprefix("cob="))
        elif line.startswith("cfn="):
            # within itself, callgrind may number a function: name'2
            function = line.removeprefix("cfn=").partition("'")[0]
        elif line.startswith("calls="):
            called = Called(called_file, function)
            totals[called] = totals.get(called, 0) + int(line[6:].split()[0])
            called_file = file
    return totals
