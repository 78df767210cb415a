"""Verbs whose standard output or error is closed, full or of few characters: one line, if any."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from objcg.views.recording.reader import Recording

from .programs import PROGRAMS, TIMEOUT, environment, objcg, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = "objcg: cannot write standard output: No space left on device\n"
CLOSED = "objcg: cannot write standard output: it is closed\n"
# How the shell does it, and what is told then.
WITHOUT_OUTPUT = [(">/dev/full", FULL), (">&-", CLOSED)]

# Holds a task whose name, and a group whose path, are what a terminal obeys.
NAMED = """
import sys, objcg
objcg.enable()
objcg.group("/to")
with objcg.group("/\\x1b[31mé"):
    objcg.current_task().name = "\\x1b]0;title\\x07"
    print("ready", flush=True)
    sys.stdin.read()
"""


def redirected(
    redirection: str, *arguments: object, folder: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run an objcg command with a redirection of the shell."""
    command = [sys.executable, "-m", "objcg", *map(str, arguments)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        cwd=PROGRAMS,
        env=environment(OBJCG_DIR=str(folder), **env),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def pid(folder: Path) -> Iterator[int]:
    """A process that holds memory in groups."""
    with started(sys.executable, "serve.py", folder=folder) as child:
        yield child.pid


@pytest.mark.parametrize(("redirection", "told"), WITHOUT_OUTPUT)
@pytest.mark.parametrize(
    "arguments",
    [
        ["tree", "PID"],
        ["tree", "PID", "--json"],
        ["tree"],
        ["ps"],
        ["ps", "--json"],
        ["bench"],
        ["bench", "alloc", "--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_printed_is_one_line(
    arguments: list[str], redirection: str, told: str, pid: int, folder: Path
) -> None:
    arguments = [str(pid) if word == "PID" else word for word in arguments]
    for unbuffered in ("", "1"):
        result = redirected(redirection, *arguments, folder=folder, PYTHONUNBUFFERED=unbuffered)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", told)


@pytest.mark.parametrize(("redirection", "told"), WITHOUT_OUTPUT)
def test_an_autopsy_that_cannot_be_printed_is_one_line(
    redirection: str, told: str, folder: Path
) -> None:
    with started(sys.executable, "serve.py", folder=folder) as child:
        child.kill()
        child.wait(TIMEOUT)
    result = redirected(redirection, "autopsy", folder=folder)
    assert (result.returncode, result.stderr) == (1, told)


@pytest.mark.parametrize(("redirection", "told"), WITHOUT_OUTPUT)
def test_what_was_done_and_cannot_be_printed_is_done(
    redirection: str, told: str, pid: int, folder: Path
) -> None:
    result = redirected(redirection, "set", pid, "/tenants/small", "max=3M", folder=folder)
    # of the output alone: it does not say that nothing was set
    assert (result.returncode, result.stderr) == (1, told)
    tree = json.loads(objcg("tree", "--tasks", "--json", pid, folder=folder).stdout)
    assert {group["path"]: group["max"] for group in tree["groups"]}["/tenants/small"] == 3 << 20

    (task, *_) = tree["tasks"]
    result = redirected(redirection, "move", pid, task["id"], "/tenants/large", folder=folder)
    assert (result.returncode, result.stderr) == (1, told)


@pytest.mark.parametrize(("redirection", "told"), WITHOUT_OUTPUT)
def test_the_page_is_not_served_where_its_address_cannot_be_printed(
    redirection: str, told: str, pid: int, folder: Path
) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    pytest.importorskip("plotly")
    result = redirected(redirection, "web", pid, folder=folder)
    assert (result.returncode, result.stderr) == (1, told)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&- >&-", "2>/dev/full >&-"])
def test_wrong_use_that_cannot_be_told_is_status_2(redirection: str, folder: Path) -> None:
    result = redirected(redirection, "frob", folder=folder)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">&-", ">/dev/full", "2>&- >&-"])
def test_a_recording_needs_no_output(
    redirection: str, pid: int, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recording.db"
    options = ["-o", path, "--interval", "0.05", "--duration", "0.2"]
    result = redirected(redirection, "record", pid, *options, folder=folder)
    assert (result.returncode, result.stdout) == (0, "")
    with Recording(str(path)) as recording:
        assert recording.samples >= 3


@pytest.mark.parametrize(("redirection", "told"), WITHOUT_OUTPUT)
def test_a_table_that_cannot_be_printed_is_no_damaged_recording(
    redirection: str, told: str, pid: int, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recording.db"
    assert objcg("record", pid, "-o", path, "--duration", "0.1", folder=folder).returncode == 0
    result = redirected(redirection, "report", path, "--csv", folder=folder)
    assert (result.returncode, result.stderr) == (1, told)


@pytest.mark.parametrize("redirection", [">&-", "<&-", "<&- >&-"])
def test_top_says_what_is_no_terminal(redirection: str, pid: int, folder: Path) -> None:
    pytest.importorskip("textual")
    result = redirected(redirection, "top", pid, folder=folder)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "needs a terminal" in result.stderr


def test_the_programs_own_errors_are_its_own(folder: Path) -> None:
    for redirection in (">/dev/full", ">&- 2>&-"):
        code = "print(1, flush=True)"
        result = redirected(redirection, "run", "-c", code, folder=folder)
        plain = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", code],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == plain.returncode
        assert result.stderr.startswith(plain.stderr)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_that_native_memory_is_not_seen_is_no_reason_not_to_run(
    redirection: str, folder: Path, tmp_path: Path
) -> None:
    # as if the preload library could not be loaded: this process has started itself again for it
    code = (
        "import os, sys\n"
        "os.environ['OBJCG_PRELOADED_BY'] = str(os.getpid())\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'objcg', 'run', '-c', 'print(1)'])"
    )
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", code],
        env=environment(OBJCG_DIR=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "1\n")


@pytest.fixture
def named(folder: Path) -> Iterator[int]:
    """A process whose names are not for every terminal."""
    with started(sys.executable, "-c", NAMED, folder=folder) as child:
        yield child.pid


@pytest.mark.parametrize(
    "few",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_names_that_standard_output_has_no_characters_for(
    few: dict[str, str], named: int, folder: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> str:
        result = redirected("", *arguments, folder=folder, **few)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    assert r"\x1b[31m\xe9" in run("tree", named)
    path = tmp_path / "recording.db"
    assert objcg("record", named, "-o", path, "--duration", "0.1", folder=folder).returncode == 0
    assert r"[31m\xe9" in run("report", path, "--csv")


def test_names_are_never_obeyed_by_a_terminal(named: int, folder: Path) -> None:
    group, task = "/\x1b[31mé", "\x1b]0;title\x07"
    for arguments in (
        ["tree", "--tasks", named],
        ["tree", "--stat", named],
        ["tree"],
        ["ps"],
        ["set", named, group, "max=1G"],
        ["set", named, group, "max=\x1b[31m"],
        ["set", named, "/\x1b[31m", "max=1G"],
        ["move", named, task, "/\x1b[31m"],
        ["move", named, task, "/to"],
        ["move", named, task, group],
        ["move", named, "\x1b[31m", "/to"],
    ):
        result = objcg(*arguments, folder=folder)
        printed = result.stdout + result.stderr
        assert len(printed) > 10
        assert printed.replace("\n", "").isprintable(), arguments


def test_a_number_of_thousands_of_digits_is_nobodys(pid: int, folder: Path) -> None:
    number = "9" * 5000
    for arguments in (["tree", number], ["autopsy", number], ["set", number, "/", "max=1G"]):
        result = objcg(*arguments, folder=folder)
        assert result.returncode == 1
        assert result.stderr.startswith(f"objcg: no region of process {number}: it does not run")
    result = objcg("move", pid, number, "/", folder=folder)
    assert result.returncode == 1
    assert result.stderr.startswith(f"objcg: process {pid} has no task '{number}'")
    # zeros that stand before it are nothing
    assert objcg("tree", "0" * 5000 + str(pid), folder=folder).returncode == 0
