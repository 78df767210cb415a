"""``objcg top`` on a real terminal, that of tmux: what it draws, and what it leaves behind."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from .programs import environment
from .watched import watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .watched import Watched

pytestmark = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="tmux, the terminal of these tests, is not installed"
)

PATIENCE = 60
"""Seconds after which what was expected on the screen is taken not to come."""


class Terminal:
    """A shell on a terminal of 100 x 30."""

    def __init__(self, socket: Path) -> None:
        self.socket = str(socket)
        shell = "env PS1=shell-prompt: sh"
        self.tmux("new-session", "-d", "-x", "100", "-y", "30", shell, env=environment())
        self.until(lambda: "shell-prompt:" in self.text)

    def tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        # -f: not what this user has configured
        command = ["tmux", "-f", "/dev/null", "-S", self.socket, *arguments]
        result = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        assert result.returncode == 0, f"{shlex.join(command)}: {result.stderr}"
        return result.stdout

    @property
    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def line(self, word: str) -> str:
        return next((line for line in self.text.splitlines() if word in line), "")

    def state(self) -> str:
        """What a program has to put back: the second screen, the cursor, the reports of a mouse."""
        names = ("alternate_on", "cursor_flag", "mouse_any_flag", "keypad_cursor_flag")
        return self.tmux("display-message", "-p", " ".join(f"#{{{name}}}" for name in names))

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.keys("Enter")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE} s:\n{self.text}"
            time.sleep(0.05)

    def shows(self, *words: str) -> None:
        self.until(lambda: all(word in self.text for word in words))

    def modes(self) -> str:
        """The settings of the terminal's line, as stty prints them."""
        self.type("stty -a; echo the-$((40 + 2))")
        self.shows("the-42")
        text = self.text
        self.type("clear")
        self.until(lambda: "the-42" not in self.text)
        return text[text.index("speed") : text.index("the-42")]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    started = Terminal(tmp_path / "tmux")
    yield started
    started.tmux("kill-server")


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watching() as program:
        yield program


def command(*arguments: object) -> str:
    words = ["env", f"OBJCG_DIR={os.environ['OBJCG_DIR']}", sys.executable, "-m", "objcg", "top"]
    return shlex.join([*words, *map(str, arguments)])


def test_a_limit_is_set_on_a_terminal_which_is_as_before_at_the_end(
    terminal: Terminal, watched: Watched
) -> None:
    assert watched("grow /b 3000000") == "held"
    before = terminal.modes(), terminal.state()
    terminal.type("echo what was here before")
    terminal.type(command(watched.pid, "--interval", "0.2"))
    terminal.shows(f"pid {watched.pid}", "running", "limited", "8.0M max", "unaccounted", "Quit")
    assert terminal.state() != before[1]
    assert "what was here before" not in terminal.text
    # names in order: /, /a, /a/limited, /a/other, /b
    terminal.keys("6", "End")
    terminal.until(lambda: terminal.text.splitlines()[-5].startswith(" /b"))
    terminal.keys("l")
    terminal.shows("Limit of /b", "memory.high")
    terminal.keys("4", "M", "Enter")
    terminal.until(lambda: "4.0M max" in terminal.line(" b "))
    assert watched("grow /b 3000000") == "full"
    terminal.until(lambda: "+1/1" in terminal.line(" b "))
    terminal.keys("q")
    terminal.until(lambda: terminal.state() == before[1])
    terminal.shows("what was here before", "shell-prompt:")
    terminal.type("echo status $?")
    terminal.shows("status 0")
    terminal.type("clear")
    assert terminal.modes() == before[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(
    terminal: Terminal, watched: Watched, number: signal.Signals
) -> None:
    before = terminal.modes(), terminal.state()
    terminal.type(command(watched.pid))
    terminal.shows("limited", "Quit")
    pid = terminal.tmux("display-message", "-p", "#{pane_pid}").strip()
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        (top,) = map(int, file.read().split())
    os.kill(top, number)
    terminal.until(lambda: terminal.state() == before[1])
    terminal.shows("shell-prompt:")
    terminal.type("clear")
    assert terminal.modes() == before[0]


def test_another_size_of_the_terminal_is_noticed(terminal: Terminal, watched: Watched) -> None:
    terminal.type(command(watched.pid))
    terminal.shows("limited", "peak", "Quit")
    terminal.tmux("resize-window", "-x", "60", "-y", "20")
    terminal.until(lambda: "peak" not in (terminal.line("  rate") or "peak"))
    terminal.shows("limited", "Quit")
    terminal.tmux("resize-window", "-x", "140", "-y", "40")
    terminal.shows("limited", "peak", "tasks", "Quit")
    terminal.keys("C-c")
    terminal.shows("shell-prompt:")


def test_it_can_be_stopped_and_goes_on(terminal: Terminal, watched: Watched) -> None:
    before = terminal.state()
    terminal.type(command(watched.pid))
    terminal.shows("limited", "Quit")
    terminal.keys("C-z")
    terminal.shows("shell-prompt:")
    assert terminal.state() == before
    terminal.type("fg")
    terminal.shows("limited", "Quit")
    terminal.keys("q")
    terminal.until(lambda: terminal.state() == before)


def test_a_terminal_that_cannot_be_drawn_on_is_named(terminal: Terminal, watched: Watched) -> None:
    terminal.type(f"TERM=dumb {command(watched.pid)}")
    terminal.shows("objcg top cannot draw on this terminal (TERM='dumb')", "shell-prompt:")


def test_a_process_that_was_killed_is_shown_from_its_file(
    terminal: Terminal, watched: Watched
) -> None:
    assert watched("grow /a/limited 8300000") == "held"
    assert watched("drift") == "0"
    watched.process.kill()
    watched.process.wait()
    terminal.type(command(watched.path))
    terminal.shows("KILLED: ", "99% !", "limited")
    terminal.keys("q")
    terminal.shows("shell-prompt:")
