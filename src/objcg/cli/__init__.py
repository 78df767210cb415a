"""The command line: ``objcg VERB …``, one module for each verb.

A verb's module is imported when it is asked for, and not before: "objcg run" should start as fast
as Python does, and leave as little behind in the program's process as it can.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys

from .output import discard, tell
from .parser import CliError, build_parser, split_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

# As a shell has it: 128 + SIGINT.
_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command in `argv` (default: that of the process) and return its exit status.

    0: done; 1: what was asked for failed; 2: wrong use. Errors are one line on stderr.
    "objcg run" returns the status of the program.
    """
    try:
        return _main(sys.argv[1:] if argv is None else argv, is_command=argv is None)
    except CliError as error:
        tell(str(error))
        return error.status
    except BrokenPipeError:
        # "objcg tree | head": nobody reads on
        discard(sys.stdout)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _main(arguments: list[str], *, is_command: bool) -> int:
    """Run the command; `is_command`: the process was started by it."""
    options, program = split_program(arguments)
    parsed = build_parser(options[0] if options else None).parse_args(options)
    if parsed.verb != "run":
        return _run_verb(parsed)
    from . import run

    if is_command:
        run.see_native(wanted=not parsed.no_native)
    return run.run(parsed, program)


def _run_verb(parsed: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # names may have what its encoding has not
        sys.stdout.reconfigure(errors="backslashreplace")
    # What one-shot commands make has no cycles, and ten thousand groups are much to look at.
    if parsed.verb in {"autopsy", "move", "ps", "set", "tree"}:
        gc.disable()
    # the verbs are modules of this package
    verb = importlib.import_module(f".{parsed.verb}", __package__)
    status: int = verb.run(parsed)
    return status
