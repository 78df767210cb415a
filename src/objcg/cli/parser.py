"""The grammar of the command line."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_SIZES = 'SIZE is a number of bytes or text such as "512M", "1.5GiB" or "max"'

# Options of "run" that take the next argument; the others stand for themselves.
_RUN_VALUES = ("--max", "--high", "--group", "--report")


class CliError(Exception):
    """What the user is told, in one line; `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


class WrongUse(CliError):
    """A command line that cannot be understood."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=2)


class Program:
    """What "objcg run" shall run: `kind` is "file", "module" or "command".

    `words` is all of it as it was written, for `sys.orig_argv`.
    """

    def __init__(self, kind: str, target: str, arguments: list[str], words: list[str]) -> None:
        self.kind = kind
        self.target = target
        self.arguments = arguments
        self.words = words


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        msg = f"{message} (see '{self.prog} --help')"
        raise WrongUse(msg)


def split_program(arguments: Sequence[str]) -> tuple[list[str], Program | None]:
    """Cut what belongs to the program off the arguments of "objcg run", as python does itself.

    All from the script, or from what follows ``-m`` or ``-c``, is the program's, whatever it looks
    like; argparse knows no such rule. Other verbs have no program.
    """
    if not arguments or arguments[0] != "run":
        return list(arguments), None
    at = 1
    while at < len(arguments):
        argument = arguments[at]
        rest = list(arguments[at + 1 :])
        options = list(arguments[:at])
        for flag, kind in (("-m", "module"), ("-c", "command")):
            if argument == flag:
                if not rest:
                    msg = f"argument {flag}: expected one argument (see 'objcg run --help')"
                    raise WrongUse(msg)
                return options, Program(kind, rest[0], rest[1:], [flag, *rest])
            if argument.startswith(flag):
                return options, Program(kind, argument[len(flag) :], rest, [argument, *rest])
        if argument == "--":
            return options, Program("file", rest[0], rest[1:], rest) if rest else None
        if argument == "-" or not argument.startswith("-"):
            return options, Program("file", argument, rest, [argument, *rest])
        at += 2 if argument in _RUN_VALUES else 1
    return list(arguments), None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the program of "objcg run" has to be cut off before."""
    parser = _Parser(
        prog="objcg",
        description="Memory control groups for the threads and asyncio tasks of a Python process.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    # prog: else it is found out by formatting a usage message, for which more is imported
    verbs = parser.add_subparsers(
        prog="objcg", dest="verb", metavar="VERB", required=True, parser_class=_Parser
    )

    run = verbs.add_parser(
        "run",
        usage="objcg run [options] (SCRIPT | -m MODULE | -c CODE) [ARG ...]",
        help="run an unchanged Python program with objcg on",
        description="Run an unchanged Python program with objcg on: as python would, but its "
        "memory belongs to a group, and the tree of groups is printed to stderr at the end. "
        + _SIZES,
        epilog="All that follows SCRIPT, MODULE or CODE belongs to the program. The exit status is "
        "the program's; 2 when it could not be started.",
        allow_abbrev=False,
    )
    run.add_argument(
        "--max",
        metavar="SIZE",
        help="the memory.max of the program's group; 'auto': the whole process, root, may use what "
        "the container's limit leaves",
    )
    run.add_argument("--high", metavar="SIZE", help="the memory.high of the program's group")
    run.add_argument(
        "--group",
        metavar="PATH",
        default="/main",
        help="the program's group (default: %(default)s)",
    )
    run.add_argument(
        "--no-native",
        action="store_true",
        help="do not look into the native allocations of extensions; "
        "has no effect in this version, which never does",
    )
    run.add_argument(
        "--json", action="store_true", help="print the tree as JSON, to stderr as well"
    )
    run.add_argument("--report", metavar="FILE", help="write the tree, as JSON, to FILE, too")

    tree = verbs.add_parser(
        "tree",
        help="show the groups of a running process, largest first",
        description="Show the groups of a process, largest first. Without PID or FILE: of every "
        "running process of this user that has objcg on.",
        allow_abbrev=False,
    )
    tree.add_argument(
        "process", metavar="PID | FILE", nargs="?", help="a process, or the region file of one"
    )
    tree.add_argument(
        "--stat",
        action="store_true",
        help="show what the memory of each group is made of, too: bytes by allocation domain",
    )
    tree.add_argument("--tasks", action="store_true", help="show the tasks, too")
    tree.add_argument("--json", action="store_true", help="print JSON, one line for each process")

    move = verbs.add_parser(
        "move",
        help="move a task of a running process to another group",
        description="Move a task of a running process to another of its groups, from outside. What "
        "it allocates from then on is charged there. A task that allocates nothing at the moment "
        "moves when it does.",
        allow_abbrev=False,
    )
    move.add_argument("process", metavar="PID", help="a process of this user")
    move.add_argument(
        "task", metavar="TASK", help="the task's number or name, as 'objcg tree --tasks' shows it"
    )
    move.add_argument("path", metavar="PATH", help="the group, which must exist")
    move.add_argument("--json", action="store_true", help="print what was done as JSON")

    record = verbs.add_parser(
        "record",
        help="record the groups of a running process into an SQLite file",
        description="Record the groups of a process until it ends, or until interrupted. A "
        "recording of the same process is continued. 'objcg report' makes a page of it.",
        allow_abbrev=False,
    )
    record.add_argument(
        "process", metavar="PID | FILE", help="a process, or the region file of one"
    )
    record.add_argument("-o", "--output", metavar="FILE", required=True, help="the recording")
    record.add_argument(
        "--interval",
        metavar="SECONDS",
        default="1",
        help="between two samples, 0.01 to 3600 (default: %(default)s)",
    )
    record.add_argument("--duration", metavar="SECONDS", help="end after so long")

    report = verbs.add_parser(
        "report",
        help="make a page of plots from a recording",
        description="Make an HTML page from a recording of 'objcg record', which may still be "
        "going on: usage over time, the tree at any moment, what happened, and the worst groups. "
        "The page is one file and loads nothing.",
        allow_abbrev=False,
    )
    report.add_argument("recording", metavar="FILE", help="the recording")
    report.add_argument("-o", "--output", metavar="FILE", help="the page, or with --csv the text")
    report.add_argument(
        "--csv",
        action="store_true",
        help="write all samples as comma-separated values instead, a line for each group; "
        "without -o to standard output",
    )

    bench = verbs.add_parser(
        "bench",
        usage="objcg bench [NAME [options]]",
        help="measure what accounting costs on this machine",
        description="Run a benchmark. Without NAME: list them. "
        "'objcg bench NAME --help' shows the options of one.",
        allow_abbrev=False,
    )
    bench.add_argument("name", metavar="NAME", nargs="?")
    bench.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # slow

        print(f"objcg {version('objcg')}")
        parser.exit()
