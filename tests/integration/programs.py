"""Running Python programs in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PYTHON = (sys.executable,)
OBJCG = (sys.executable, "-m", "objcg", "run")
PROGRAMS = Path(__file__).resolve().parent.parent / "programs"
TIMEOUT = 120
"""Seconds after which a program is taken to hang. None needs a tenth of it."""


def environment(**extra: str) -> dict[str, str]:
    """Return the environment for a program: ours, without what would change its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept["PYTHONHASHSEED"] = "0"
    if "PYTHONPATH" in os.environ:
        kept["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return {**kept, **extra}


def run(
    command: Sequence[str | Path],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path = PROGRAMS,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it printed and its exit status."""
    return subprocess.run(
        [str(part) for part in command],
        input=stdin,
        env=environment(**(env or {})),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@contextmanager
def started(*command: str | Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command, with its region file in `folder`, from when it prints "ready" to its end."""
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=PROGRAMS,
        env=environment(OBJCG_DIR=str(folder)),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()
            child.wait(TIMEOUT)


def objcg(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an objcg command for the region files in a folder."""
    command = [sys.executable, "-m", "objcg", *map(str, arguments)]
    return run(command, env={"OBJCG_DIR": str(folder)})


def run_python(
    code: str, *options: str, python: str = sys.executable, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run code, dedented, with options for the interpreter and extra environment variables."""
    return run([python, *options, "-c", textwrap.dedent(code)], env=env)


def run_checked(code: str, *options: str, python: str = sys.executable, **env: str) -> list[str]:
    """Run code that must succeed and be silent on stderr; return the words that it printed."""
    result = run_python(code, *options, python=python, **env)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout.split()


_RESIDENT = r"RSS .+: .+ at start-up, .+ charged, .+ unaccounted \(-?\d+ %, .+ of it shared\)"


def is_tree(text: str) -> bool:
    """Say whether text is what ``objcg tree`` prints for one process, and no more."""
    pid, rss, heading, root, *below = text.splitlines() if text.count("\n") > 3 else [""] * 4
    return (
        re.match(r"pid \d+  ", pid) is not None
        and re.fullmatch(_RESIDENT, rss) is not None
        and heading.startswith("group ")
        and root.startswith("/ ")
        and all(line.startswith("  ") for line in below)
    )


def interpreters() -> list[str]:
    """Find the CPython interpreters from 3.10 on which objcg can be imported, this one first.

    OBJCG_TEST_PYTHONS, paths separated by colons, replaces the search of PATH.
    """
    given = os.environ.get("OBJCG_TEST_PYTHONS")
    if given is not None:
        candidates = [Path(path) for path in given.split(":") if path]
    else:
        folders = os.environ.get("PATH", "").split(":")
        candidates = [Path(f, f"python3.{minor}") for f in folders for minor in range(10, 14)]
    found = {os.path.realpath(sys.executable): sys.executable}
    for candidate in candidates:
        if not os.access(candidate, os.X_OK) or os.path.realpath(candidate) in found:
            continue
        if run([candidate, "-c", "import objcg"]).returncode == 0:
            found[os.path.realpath(candidate)] = str(candidate)
    return list(found.values())
