"""How many instructions a variant of the lab runs for one operation, counted by valgrind.

No clock is involved, so other programs and the layout of memory do not matter; neither do cache
misses, nor that an instruction waits for the one before it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

from ._lab import Module, Request
from .runner import BenchmarkError

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from objcg.bench import _instructions; _instructions.main()"
)

_AT_ONCE = 4
"""How many variants fit into the address space that valgrind has."""


def count(variants: list[str], request: Request) -> dict[str, float]:
    """Return the instructions of one operation, by variant; the loop around it is in them.

    Raises:
        BenchmarkError: there is no valgrind, or it failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise BenchmarkError("--instructions needs valgrind, which is not in PATH; install it")
    totals: dict[str, int] = {}
    for at in range(0, len(variants), _AT_ONCE):
        totals |= by_object(_callgrind(valgrind, variants[at : at + _AT_ONCE], request))
    return {variant: totals[f"{variant}.so"] / request.operations for variant in variants}


def _callgrind(valgrind: str, variants: list[str], request: Request) -> str:
    """Run the timed loops of these variants, in one process; return what callgrind wrote."""
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "callgrind.out")
        child = subprocess.run(  # noqa: S603  # this interpreter, and code from here
            [
                valgrind,
                "--quiet",
                "--tool=callgrind",
                "--collect-atstart=no",
                "--toggle-collect=lab_time",
                "--compress-strings=no",
                "--compress-pos=no",
                f"--callgrind-out-file={result}",
                sys.executable,
                "-c",
                _START,
                json.dumps(sys.path),
            ],
            input=json.dumps([variants, request]),
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            lines = [line for line in child.stderr.splitlines() if not line.startswith("==")]
            raise BenchmarkError(f"valgrind failed: {lines[-1] if lines else child.returncode}")
        with open(result, encoding="utf-8") as file:
            return file.read()


def by_object(text: str) -> dict[str, int]:
    """Return the instructions run in each file, by its name: calls to other files not included.

    The format: https://valgrind.org/docs/manual/cl-format.html
    """
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


def main() -> None:
    """Be the process that is counted."""
    variants, request = json.load(sys.stdin)
    try:
        for variant in variants:
            Module(variant).run(Request(*request))
    except BenchmarkError as error:
        sys.exit(str(error))
