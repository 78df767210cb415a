"""The grammar of the command line."""

from __future__ import annotations

import argparse
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from _typeshed import SupportsWrite

    _Verbs = argparse._SubParsersAction[Any]

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


class _Formatter(argparse.HelpFormatter):
    """One that knows its width: argparse makes one for each argument, and imports much for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width())


def _width() -> int:
    """Return how wide a help text may be, as argparse has it."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return int(columns) - 2
    try:
        return (os.get_terminal_size(sys.__stdout__.fileno()).columns or 80) - 2  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        # no standard output, or not a terminal
        return 78


class Parser(argparse.ArgumentParser):
    """One that prints and fails as all of the command line does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print how it is used. Raises CliError when standard output cannot be written."""
        from .output import say

        if file is None:
            say(self.format_help().removesuffix("\n"))
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Raise WrongUse."""
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


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; the program of "objcg run" has to be cut off before.

    It knows all verbs, or if `verb` is one, that one only: to make them all takes a sixth of the
    time that Python takes to start.
    """
    parser = Parser(
        prog="objcg",
        description="Memory control groups for the threads and asyncio tasks of a Python process.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    # prog: else it is found out by formatting a usage message, for which more is imported
    verbs = parser.add_subparsers(
        prog="objcg", dest="verb", metavar="VERB", required=True, parser_class=Parser
    )
    for name in [verb] if verb in _VERBS else _VERBS:
        _VERBS[name](verbs)
    return parser


def _add_run(verbs: _Verbs) -> None:
    run = verbs.add_parser(
        "run",
        usage="objcg run [options] (SCRIPT | -m MODULE | -c CODE) [ARG ...]",
        help="run an unchanged Python program with objcg on",
        description="Run an unchanged Python program with objcg on: as python would, but its "
        "memory belongs to a group, and the tree of groups is printed to stderr at the end. "
        + _SIZES,
        epilog="All that follows SCRIPT, MODULE or CODE belongs to the program. The exit status is "
        "the program's; 2 when it could not be started, 1 when objcg could not be enabled.",
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
        help="do not charge what C libraries allocate by malloc and mmap",
    )
    run.add_argument(
        "--json", action="store_true", help="print the tree as JSON, to stderr as well"
    )
    run.add_argument("--report", metavar="FILE", help="write the tree, as JSON, to FILE, too")


def _add_tree(verbs: _Verbs) -> None:
    tree = verbs.add_parser(
        "tree",
        help="show the groups of a running process, largest first",
        description="Show the groups of a process, largest first. Without PID or FILE: of every "
        "running process of this user that has objcg on, and groups of the same path added up, as "
        "those of a server's worker processes.",
        epilog="--json prints the object of one process; without PID or FILE an object with "
        '"processes", a list of such, and "sum", the groups of the same path added up.',
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
    tree.add_argument("--json", action="store_true", help="print JSON, in one line")


def _add_ps(verbs: _Verbs) -> None:
    ps = verbs.add_parser(
        "ps",
        help="list the processes that have objcg on",
        description="List this user's processes that have objcg on: what is resident, what is "
        "charged, how many groups and tasks there are, and what happened at limits.",
        allow_abbrev=False,
    )
    ps.add_argument(
        "-a", "--all", action="store_true", help="those that were killed and left their file, too"
    )
    ps.add_argument("--json", action="store_true", help="print JSON, in one line")


def _add_top(verbs: _Verbs) -> None:
    top = verbs.add_parser(
        "top",
        help="watch the groups of a running process, full screen, and steer them",
        description="Watch the groups of a process on the whole terminal, set their limits and "
        "move tasks; '?' shows the keys. Without PID or FILE: the running process of this user "
        "that has objcg on; of several, one can be chosen. Needs Textual: "
        'pip install "objcg[top]"',
        allow_abbrev=False,
    )
    top.add_argument(
        "process", metavar="PID | FILE", nargs="?", help="a process, or the region file of one"
    )
    top.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="how often it is looked at, from 0.1 to 60 (default: 1)",
    )


def _add_move(verbs: _Verbs) -> None:
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


def _add_set(verbs: _Verbs) -> None:
    set_ = verbs.add_parser(
        "set",
        help="set limits of a group of a running process",
        description="Set memory.max, memory.high or memory.low of a group of a running process, "
        "from outside; several at once. The process is not asked: what it charges next meets the "
        "new limit, and a task over memory.max gets its error, as if the program had set it. "
        + _SIZES,
        epilog='For example: objcg set 4711 /tenants/acme max=512M high=400M. "max=max" removes a '
        'limit, "low=0" the protection. Nothing is set unless all can be.',
        allow_abbrev=False,
    )
    set_.add_argument("process", metavar="PID", help="a process of this user")
    set_.add_argument("path", metavar="PATH", help="the group, which must exist")
    set_.add_argument(
        "knobs", metavar="KNOB=SIZE", nargs="+", help="max=SIZE, high=SIZE or low=SIZE"
    )
    set_.add_argument("--json", action="store_true", help="print what was set as JSON")


def _add_autopsy(verbs: _Verbs) -> None:
    autopsy = verbs.add_parser(
        "autopsy",
        help="show the last state of a process that was killed",
        description="Show the last state of a process that was killed: what each group held, which "
        "of them were over a limit, and when anything was charged last. Without PID or FILE: of "
        "that dead process of this user that charged last.",
        epilog="A process that exits by itself leaves nothing. Of those that were killed, the last "
        "32 are kept.",
        allow_abbrev=False,
    )
    autopsy.add_argument(
        "process", metavar="PID | FILE", nargs="?", help="a dead process, or the file that it left"
    )
    autopsy.add_argument(
        "--stat",
        action="store_true",
        help="show what the memory of each group was made of, too: bytes by allocation domain",
    )
    autopsy.add_argument("--json", action="store_true", help="print JSON, in one line")


def _add_record(verbs: _Verbs) -> None:
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


def _add_report(verbs: _Verbs) -> None:
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


def _add_web(verbs: _Verbs) -> None:
    web = verbs.add_parser(
        "web",
        help="watch the groups of a running process in a browser on this machine, and steer them",
        description="Serve a page that shows the groups of a process live and can set their "
        "limits, to browsers on this machine, until interrupted. The address is printed; the token "
        "in it lets in whoever has it. Without PID or FILE: the running process of this user that "
        'has objcg on. Needs an extra: pip install "objcg[web]"',
        allow_abbrev=False,
    )
    web.add_argument(
        "process", metavar="PID | FILE", nargs="?", help="a process, or the region file of one"
    )
    web.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=0,
        help="on 127.0.0.1 (default: one that is free)",
    )


def _add_bench(verbs: _Verbs) -> None:
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


# In the order in which they are listed.
_VERBS = {
    "run": _add_run,
    "tree": _add_tree,
    "ps": _add_ps,
    "top": _add_top,
    "move": _add_move,
    "set": _add_set,
    "autopsy": _add_autopsy,
    "record": _add_record,
    "report": _add_report,
    "web": _add_web,
    "bench": _add_bench,
}


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 60:
        msg = f"{text!r} is not a number of seconds from 0.1 to 60"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else -1
    if not 0 <= port <= 65_535:
        msg = f"{text!r} is not a port, a number from 0 to 65535; 0 is one that is free"
        raise argparse.ArgumentTypeError(msg)
    return port


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # slow

        from .output import say

        say(f"objcg {version('objcg')}")
        parser.exit()
