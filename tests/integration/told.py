"""A program that is told what to do, a command at a time."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from objcg import region

from .programs import environment

if TYPE_CHECKING:
    from typing_extensions import Self

# Reads commands: "+" and a size, "over", "new" and "gone" with a name, "again"
# to start anew, "leave" to be another program.
PROGRAM = """
import os, sys, objcg
objcg.enable()
group = objcg.group("/job", max="8M")
held = []
print("ready", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "+":
        with group:
            held.append(bytearray(int(rest[0])))
    elif word == "over":
        try:
            with group:
                bytearray(16 << 20)
        except MemoryError:
            pass
    elif word == "new":
        objcg.group(rest[0])
    elif word == "gone":
        objcg.group(rest[0]).remove()
    elif word == "again":
        os.execv(sys.executable, sys.orig_argv)
    elif word == "leave":
        print("done", flush=True)
        os.execvp("sleep", ["sleep", "60"])
    print("done", flush=True)
"""


class Told:
    """A process that has started, and is killed at the end if it has not ended before."""

    def __init__(self, code: str = PROGRAM) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._answer() == "ready\n"
        self.pid = str(self.process.pid)
        path = region.find(self.process.pid)
        assert path is not None
        self.path = path

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def __call__(self, command: str) -> None:
        print(command, file=self.process.stdin, flush=True)
        assert self._answer() == "done\n"

    def again(self) -> None:
        """Have the process become the same program once more, by exec()."""
        print("again", file=self.process.stdin, flush=True)
        assert self._answer() == "ready\n"

    def __enter__(self) -> Self:
        self.process.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.__exit__(None, None, None)
