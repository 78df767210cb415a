"""A process of its own that measures what it is asked, for as long as it is asked.

Both sides of a comparison are such processes: stock's never enables objcg.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from ._programs._process import environment, preload
from .runner import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

_START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module('objcg.bench.' + sys.argv[2]).main(json.loads(sys.argv[3]))"
)


class Worker:
    """A process that runs ``main(setup)`` of a module of this package and answers questions.

    With a library, which is loaded before all and replaces malloc, its interpreter uses malloc for
    everything, unless Python is to be left alone; else the allocator is the one by default.
    """

    def __init__(
        self, module: str, setup: Any, *, library: str | None = None, for_python: bool = True
    ) -> None:
        self._environment = environment()
        if library is not None:
            self._environment |= preload(library, for_python=for_python)
        self._command = [sys.executable, "-c", _START, json.dumps(sys.path), module]
        self._command.append(json.dumps(setup))

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(  # noqa: S603  # this interpreter, and code from here
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        return self

    def ask(self, question: Any) -> Any:
        """Return the answer.

        Raises:
            BenchmarkError: the process failed.
        """
        assert self._child.stdin is not None  # noqa: S101  # see Popen
        assert self._child.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # its end is seen below
            print(json.dumps(question), file=self._child.stdin, flush=True)
        line = self._child.stdout.readline()
        if not line:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
            assert self._child.stderr is not None  # noqa: S101
            error = self._child.stderr.read().strip().splitlines()
            status = self._child.wait()
            raise BenchmarkError(error[-1] if error else f"a process ended with status {status}")
        return json.loads(line)

    def __exit__(self, *_: object) -> None:
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._child.wait()


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer each question of the `Worker` that this process is."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
