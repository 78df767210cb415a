"""A process that is watched, and told what to do: tests/programs/watched.py."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from objcg import region

from .programs import PROGRAMS, environment

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watched:
    """A process that does what it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "watched.py"],
            cwd=PROGRAMS,
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.answer() == "ready"
        self.pid = self.process.pid
        path = region.find(self.pid)
        assert path is not None
        self.path = path

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, order: str) -> str:
        print(order, file=self.process.stdin, flush=True)
        return self.answer()


@contextmanager
def watching() -> Iterator[Watched]:
    """Run it; when it is still there at the end, nothing in it may be lost."""
    program = Watched()
    try:
        yield program
        if program.process.poll() is None:
            assert program("drift") == "0"
    finally:
        program.process.kill()
        program.process.wait()
        for stream in (program.process.stdin, program.process.stdout):
            assert stream is not None
            # an order that nobody read any more
            with suppress(BrokenPipeError):
                stream.close()
