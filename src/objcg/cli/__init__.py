"""The command line: ``objcg VERB …``, one module for each verb.

A verb's module is imported when it is asked for, and not before: "objcg run" should start as fast
as Python does, and leave as little behind in the program's process as it can.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

from .parser import CliError, build_parser, split_program

# As a shell has it: 128 + SIGINT.
_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command in `argv` (default: that of the process) and return its exit status.

    0: done; 1: what was asked for failed; 2: wrong use. Errors are one line on stderr.
    "objcg run" returns the status of the program.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        options, program = split_program(arguments)
        parsed = build_parser(options[0] if options else None).parse_args(options)
        if parsed.verb == "run":
            from . import run

            if argv is None:
                # else this command is not what the process was started by
                run.see_native(wanted=not parsed.no_native)
            return run.run(parsed, program)
        # What one-shot commands make has no cycles, and ten thousand groups are much to look at.
        if parsed.verb in {"autopsy", "move", "ps", "set", "tree"}:
            gc.disable()
        # the verbs are modules of this package
        verb = importlib.import_module(f".{parsed.verb}", __package__)
        status: int = verb.run(parsed)
        sys.stdout.flush()
    except CliError as error:
        print(f"objcg: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # "objcg tree | head": nobody reads on. What is in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status
