"""A process that measures cases of the lab: told which on stdin, answers on stdout, in JSON.

Where code and records lie in memory is drawn anew for each process, and on some processors two
addresses that collide make a variant up to twice as slow. So a comparison takes several processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import NamedTuple

from ._lab import Module, Request, callees
from .runner import BenchmarkError, interleave

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from objcg.bench import _lab_process; _lab_process.main()"
)

CALLED = {"stock": None, "glibc": None, "objcg-called": "objcg"}
"""What is measured through function pointers; the variant that is called, if it is one of ours."""


class Case(NamedTuple):
    """One variant in one situation."""

    variant: str
    request: Request


def measure(cases: list[Case], *, rounds: int, seed: int) -> tuple[list[list[float]], str]:
    """Measure in a new process; return the nanoseconds of each case and round, and the compiler.

    Raises:
        BenchmarkError: the process failed.
    """
    task = {"cases": cases, "rounds": rounds, "seed": seed}
    # the interpreter's allocator as it is by default
    env = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    child = subprocess.run(  # noqa: S603  # this interpreter, and code from here
        [sys.executable, "-c", _START, json.dumps(sys.path)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        raise BenchmarkError(lines[-1])
    answer = json.loads(child.stdout)
    return answer["samples"], answer["compiler"]


def main() -> None:
    """Be that process."""
    task = json.load(sys.stdin)
    cases = [Case(variant, Request(*request)) for variant, request in task["cases"]]
    try:
        samples = interleave(cases, _measure_one, rounds=task["rounds"], seed=task["seed"])
        compiler = _module("objcg").compiler
    except BenchmarkError as error:
        sys.exit(str(error))
    json.dump({"samples": samples, "compiler": compiler}, sys.stdout)


@cache
def _module(name: str) -> Module:
    return Module(name)


def _measure_one(case: Case) -> float:
    if case.variant not in CALLED:
        return _module(case.variant).run(case.request)
    called = _module("called")
    ours = CALLED[case.variant]
    if ours is None:
        called.set_callee(*callees()[case.variant])
        return called.run(case.request, gil=True)
    variant = _module(ours)
    called.set_callee(*variant.call_begin(case.request.depth))
    try:
        return called.run(case.request)
    finally:
        variant.call_end()
