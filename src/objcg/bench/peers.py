"""The programs of `objcg bench programs` under tools that look at a process's memory.

What the tools tell differs much, and so does what they record: none of them has groups or limits.
They stand beside because they are what a Python process's memory is looked at with today. Each runs
as its manual says, with what it writes going to a temporary folder. Its start and its report at the
end are in the figures, as they are in what its user waits for. A profiler that samples the stack
and no memory stands beside for reference.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from . import programs
from ._programs import _process
from ._programs._process import OBJCG, STOCK, ProcessFailed
from .runner import markdown_table, text_table

if TYPE_CHECKING:
    import argparse

    from ._programs._process import Result
    from .figures import Figure
    from .programs import RunSide
    from .runner import Options, Row

NAME = "peers"
DESCRIPTION = "the same programs under memory profilers: processor time and peak memory"
ROUNDS = 5


class Peer(NamedTuple):
    """A tool, and how a program is run with it."""

    records: str
    """What it does while the program runs."""
    options: tuple[str, ...] = ()
    """The interpreter's, before the program; "{folder}" is where the tool writes."""
    under: tuple[str, ...] = ()
    """The command that runs the interpreter, if there is one."""
    package: str | None = None
    """On PyPI; None: it is part of CPython."""
    module: str | None = None
    """By which it is found in the process."""
    leaves: str | None = None
    """A file or folder, in "{folder}", that it has to leave."""


PEERS = {
    "tracemalloc": Peer(
        "where each block was allocated, one frame",
        options=("-X", "tracemalloc=1"),
        module="tracemalloc",
    ),
    "memray": Peer(
        "stacks of malloc() and mmap(): of CPython's small blocks only the arenas",
        options=("-m", "memray", "run", "--quiet", "--output", "{folder}/memray.bin"),
        package="memray",
        module="memray",
        leaves="memray.bin",
    ),
    "memray-python": Peer(
        "stacks of every allocation (--trace-python-allocators)",
        options=(
            *("-m", "memray", "run", "--quiet", "--trace-python-allocators"),
            *("--output", "{folder}/memray.bin"),
        ),
        package="memray",
        module="memray",
        leaves="memray.bin",
    ),
    "scalene": Peer(
        "samples of memory, about one in 1 MiB, and of time, by line",
        options=("-m", "scalene", "run", "--memory", "--outfile", "{folder}/scalene.json"),
        package="scalene",
        module="scalene",
        leaves="scalene.json",
    ),
    "fil": Peer(
        "every allocation, for the stacks at the peak; CPython uses malloc()",
        options=("-m", "filprofiler", "--no-browser", "-o", "{folder}/fil", "run"),
        package="filprofiler",
        module="filprofiler",
        leaves="fil",
    ),
    "py-spy": Peer(
        "samples of the stack, 100 each second, from another process; no memory",
        under=("py-spy", "record", "--output", "{folder}/stacks.svg", "--"),
        package="py-spy",
        leaves="stacks.svg",
    ),
}

_TIMEOUT = 900.0
"""Of one process, in seconds."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """See `objcg.bench.Benchmark`."""
    programs.add_program_options(parser)
    parser.add_argument(
        "--peer",
        metavar="NAME",
        choices=tuple(PEERS),
        action="append",
        help=f"measure this peer only; may be repeated ({', '.join(PEERS)})",
    )


def run(options: Options) -> list[Row]:
    """Measure; see `objcg.bench.Benchmark`."""
    asked = options.extra.get("peer") or PEERS
    versions: dict[str, str | None] = {STOCK: None, OBJCG: None}
    sides: dict[str, RunSide] = {
        side: partial(_process.run, side, timeout=_TIMEOUT) for side in versions
    }
    skipped: list[Row] = []
    for side, peer in PEERS.items():
        if side not in asked:
            continue
        reason = _missing(peer)
        if reason is None:
            versions[side] = _version(peer)
            sides[side] = partial(_run_under, side, peer)
        else:
            skipped.append({"program": None, "side": side, "skipped": reason})
    rows = programs.measure(NAME, sides, options, may_fail=set(sides) - {STOCK, OBJCG})
    return [{**row, "version": versions[row["side"]]} for row in rows] + skipped


def _missing(peer: Peer) -> str | None:
    """Return why it cannot be run, with what to do; None: it can."""
    if peer.package is None:
        return None
    if peer.under:
        found = _path(peer.under[0]) is not None
    else:
        found = importlib.util.find_spec(str(peer.module)) is not None
    # no path: this may get into a document
    return None if found else f"not installed; python -m pip install {peer.package}"


def _path(command: str) -> str | None:
    """Return the path of a command: the one beside this interpreter, or the one of the shell."""
    return shutil.which(command, path=os.path.dirname(sys.executable)) or shutil.which(command)


def _version(peer: Peer) -> str | None:
    if peer.package is not None:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(peer.package)
    return None


def _run_under(side: str, peer: Peer, command: list[str], *, hash_seed: int) -> Result:
    """Run a program under a peer.

    Raises:
        BenchmarkError: it failed, or the peer was not there or left nothing.
    """
    with tempfile.TemporaryDirectory(prefix="objcg-bench-") as folder:
        under = [part.format(folder=folder) for part in peer.under]
        if under:
            under[0] = _path(under[0]) or under[0]
        result = _process.run(
            side,
            command,
            hash_seed=hash_seed,
            under=under,
            options=[part.format(folder=folder) for part in peer.options],
            tracer=peer.module,
            timeout=_TIMEOUT,
        )
        if peer.leaves is not None and not _size(os.path.join(folder, peer.leaves)):
            raise ProcessFailed(f"{side} left nothing in {peer.leaves}")
    return result._replace(output=_of_program(result.output))


def _of_program(output: str) -> str:
    """Return what the program printed, without what some peers say before and after.

    Raises:
        ProcessFailed: it is not there.
    """
    numbers = [line for line in output.splitlines() if line.isdecimal()]
    if len(numbers) != 1:
        raise ProcessFailed(f"the program should have printed one number: {output!r}")
    return numbers[0]


def _size(path: str) -> int:
    """Return the bytes of a file, or of all files of a folder; of nothing, 0."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.exists(path) else 0
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )


# ---- Picture and tables --------------------------------------------------------------------------


def figure(rows: list[Row]) -> Figure:
    """Return the ratios of both, program by program, all sides beside each other."""
    return programs.figure(rows)


def table(rows: list[Row]) -> str:
    """Return all tables for a terminal."""
    head = rows[0]
    how = (
        f"{head['rounds']} rounds, scale {head['scale']:g}. User and system time of all processes "
        f"and peak resident memory of the largest;\nx: ratio to {STOCK}; !: above 1.00, worse. "
        "Quartiles: --markdown, --json."
    )
    parts = [
        how,
        *(
            f"{text}\n{text_table(*lines)}"
            for _, text, lines in programs.tables(rows, quartiles=False)
        ),
        text_table(*_peers(rows), left=3),
    ]
    parts.append("\n".join(programs.left_out(rows)))
    return "\n\n".join(filter(None, parts))


def markdown(rows: list[Row]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    found = {name: markdown_table(*lines) for name, _, lines in programs.tables(rows)}
    found["peers"] = markdown_table(*_peers(rows), left=3)
    lines = programs.left_out(rows)
    if lines:
        found["left out"] = "\n".join(f"- {line}" for line in lines)
    return found


def _peers(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines: what each peer records, and its version."""
    versions = {row["side"]: row["version"] for row in rows if "skipped" not in row}
    lines = [
        [side, version or "CPython's", PEERS[side].records]
        for side, version in versions.items()
        if side in PEERS
    ]
    return ["peer", "version", "records"], lines
