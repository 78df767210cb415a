"""Runs a unit on one side, in a process and a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import outcomes

from objcg import _location

if TYPE_CHECKING:
    from suites import Unit

INSIDE = Path(__file__).resolve().parent / "inside.py"
SIDES = ("plain", "objcg")

# Of a unit; what hangs in a single test is ended before that, by faulthandler.
SECONDS = 1800.0
# And of memory: a test that goes wrong may take all there is.
MOST_RESIDENT = 4 << 30


class Outcome(NamedTuple):
    """What a unit came to on one side."""

    tests: dict[str, str]
    end: str
    """"status N", "killed by SIGX", "timeout" or "too much memory"."""
    drift: int | None
    """None: not audited, on the plain side or because it did not come to its end."""
    seconds: float
    tail: str
    """The last lines that it printed."""


def run(unit: Unit, python: str, side: str, options: tuple[str, ...] = ()) -> Outcome:
    """Run a unit; `options` are those of `objcg run`."""
    with tempfile.TemporaryDirectory(prefix="objcg-downstream-") as folder:
        results = Path(folder) / "results"
        work = Path(folder) / "work"
        work.mkdir()
        kind, *rest = unit.arguments
        command = [str(INSIDE), kind, str(results), *rest]
        if side == "objcg":
            group = f"/{unit.name.replace('/', '.')}"
            command = ["-m", "objcg", "run", "--group", group, *options, *command]
        started = time.monotonic()
        end, tail = _run([python, *command], work)
        seconds = time.monotonic() - started
        try:
            said = json.loads(results.with_suffix(".json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            said = {"audit": None}
        audit = said["audit"]
        return Outcome(
            outcomes.read(results.with_suffix(".xml")),
            end,
            audit["drift"] if audit else None,
            seconds,
            tail,
        )


def _run(command: list[str], folder: Path) -> tuple[str, str]:
    """Return how it ended, and what it printed last."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OBJCG_", "PYTHON", "PYTEST_"))
    }
    output = folder.parent / "output"
    with output.open("wb") as file:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, "TMPDIR": str(folder), "OBJCG_DIR": str(folder.parent / "regions")},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            end = _end_of(child)
        finally:
            # what the tests left behind, too
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
    lines = output.read_bytes()[-20_000:].decode(errors="replace").splitlines()
    return end, "\n".join(lines[-30:])


def _end_of(child: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            status = child.wait(0.5)
        except subprocess.TimeoutExpired:
            resident, _ = _location.resident(child.pid) or (0, 0)
            if resident > MOST_RESIDENT:
                return "too much memory"
        else:
            return f"status {status}" if status >= 0 else f"killed by {_signal(-status)}"
    return "timeout"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
