"""How many instructions a variant of the lab runs for one operation, counted by valgrind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from . import _callgrind
from ._lab import Module, Request
from .runner import BenchmarkError

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from objcg.bench import _lab_instructions; _lab_instructions.main()"
)

_AT_ONCE = 4
"""How many variants fit into the address space that valgrind has."""


def count(variants: list[str], request: Request) -> dict[str, float]:
    """Return the instructions of one operation, by variant; the loop around it is in them.

    Raises:
        BenchmarkError: there is no valgrind, or it failed.
    """
    valgrind = _callgrind.find("--instructions")
    totals: dict[str, int] = {}
    for at in range(0, len(variants), _AT_ONCE):
        text = _run(valgrind, variants[at : at + _AT_ONCE], request)
        totals |= _callgrind.by_object(text)
    return {variant: totals[f"{variant}.so"] / request.operations for variant in variants}


def _run(valgrind: str, variants: list[str], request: Request) -> str:
    """Run the timed loops of these variants, in one process; return what callgrind wrote."""
    options = ["--collect-atstart=no", "--toggle-collect=lab_time"]
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "callgrind.out")
        child = subprocess.run(  # noqa: S603  # this interpreter, and code from here
            [
                *_callgrind.command(valgrind, result, *options),
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


def main() -> None:
    """Be the process that is counted."""
    variants, request = json.load(sys.stdin)
    try:
        for variant in variants:
            Module(variant).run(Request(*request))
    except BenchmarkError as error:
        sys.exit(str(error))
