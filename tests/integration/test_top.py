"""``objcg top``, driven by its keys, beside a process that it watches."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from textual.widgets import Input, OptionList

from objcg import region
from objcg.views.top.app import TopApp
from objcg.views.top.dialogs import AskLimit, Choose, Help
from objcg.views.top.model import Sort
from objcg.views.top.screen import ProcessScreen
from objcg.views.top.table import Groups
from objcg.views.watch import Watch

from .programs import environment, run, run_python
from .watched import Watched, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from textual.pilot import Pilot

INTERVAL = 0.25
PATIENCE = 60
"""Seconds after which what was expected on the screen is taken not to come."""


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watching() as program:
        yield program


class Screen:
    """What is on the terminal."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self.pilot = pilot
        self.press = pilot.press
        self.app = pilot.app

    @property
    def lines(self) -> list[str]:
        return [strip.text for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line(self, word: str) -> str:
        return next(line for line in self.lines if word in line)

    @property
    def names(self) -> list[str]:
        """The first word of each row of the table, without the tree's marks."""
        groups = self.app.screen.query_one(Groups)
        model = groups.model
        return [model.row(i).group.path for i in range(len(model))]

    @property
    def messages(self) -> list[str]:
        return [message.message for message in self.app._notifications]

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(PATIENCE * 20):
            if condition():
                return
            await self.pilot.pause(0.05)
        raise AssertionError(f"not within {PATIENCE} s; on the screen is:\n{self.text}")

    async def shows(self, *words: str) -> None:
        await self.until(lambda: all(word in self.text for word in words))

    async def says(self, word: str) -> None:
        await self.until(lambda: any(word in message for message in self.messages))

    async def select(self, path: str) -> None:
        at = self.names.index(path)
        await self.press("home", *["down"] * at)


@asynccontextmanager
async def top(watch: Watch | None, *, size: tuple[int, int] = (100, 30)) -> AsyncIterator[Screen]:
    app = TopApp(watch, INTERVAL)
    async with app.run_test(size=size) as pilot:
        yield Screen(pilot)


def on_top(
    watched: Watched, steps: Callable[[Screen], object], *, size: tuple[int, int] = (100, 30)
) -> None:
    """Run steps with a view of a process."""

    async def main() -> None:
        async with top(Watch(watched.path), size=size) as screen:
            await screen.until(lambda: isinstance(screen.app.screen, ProcessScreen))
            await screen.shows("limited")
            await steps(screen)

    asyncio.run(main())


def test_the_process_and_its_groups_are_shown(watched: Watched) -> None:
    watched("grow /a/limited 2000000")
    watched("grow /a/other 1000000")

    async def steps(screen: Screen) -> None:
        await screen.shows(f"pid {watched.pid}", "running", "watched.py", "unaccounted", "5 groups")
        assert screen.names == ["/", "/a", "/a/limited", "/a/other", "/b"]
        row = screen.line("limited").split()
        assert row[:6] == ["limited", "1.9M", "1.9M", "8.0M", "max", "█▉"]
        assert "64.0M high" in screen.line("other")
        await screen.select("/a/limited")
        await screen.shows("max 8.0M  high -  low -")

    on_top(watched, steps)


def test_what_changes_is_seen_and_what_is_near_its_limit_is_marked(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        assert watched("grow /a/limited 7000000") == "held"
        await screen.until(lambda: "83% !" in screen.line("limited"))
        await screen.shows("1 near it")
        assert watched("grow /a/limited 7000000") == "full"
        await screen.until(lambda: "+1/1" in screen.line("limited"))
        await screen.select("/a/limited")
        await screen.shows("max 1 (+1)")

    on_top(watched, steps)


def test_the_rate_is_shown_while_it_grows(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        seen = []

        def grown() -> bool:
            watched("grow /b 100000")
            seen.append(screen.line(" b "))
            return "+" in seen[-1] and "/s" in seen[-1]

        await screen.until(grown)

    on_top(watched, steps)


def test_the_order_is_asked_for_by_key_or_click(watched: Watched) -> None:
    watched("grow /b 1000000")

    async def steps(screen: Screen) -> None:
        await screen.until(lambda: screen.names == ["/", "/b", "/a", "/a/limited", "/a/other"])
        await screen.press("6")
        assert screen.names == ["/", "/a", "/a/limited", "/a/other", "/b"]
        await screen.shows("group▲", "sorted by name")
        await screen.press("i")
        assert screen.names == ["/", "/b", "/a", "/a/other", "/a/limited"]
        await screen.press("i", "S")
        assert screen.app.screen.query_one(Groups).model.sort is Sort.EVENTS
        x = screen.line("  rate").index("peak")
        await screen.pilot.click("Headings", offset=(x, 0))
        await screen.shows("▼peak", "sorted by peak")

    on_top(watched, steps)


def test_groups_collapse_and_the_cursor_stays_with_its_group(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        groups = screen.app.screen.query_one(Groups)
        await screen.press("6")
        await screen.select("/b")
        watched("group 'aa'")
        await screen.until(lambda: "/aa" in screen.names)
        assert groups.selected is not None
        assert groups.selected.path == "/b"
        await screen.select("/a/other")
        await screen.press("left")
        assert groups.selected.path == "/a"
        await screen.press("left")
        assert screen.names == ["/", "/a", "/aa", "/b"]
        assert "▸ a" in screen.text
        await screen.press("right", "right")
        assert groups.selected.path == "/a/limited"
        await screen.press("-")
        assert screen.names == ["/", "/a", "/aa", "/b"]
        # what was selected is not shown any more
        assert groups.selected.path in screen.names
        await screen.press("+")
        assert "/a/other" in screen.names
        await screen.press("t")
        await screen.shows("/a/limited", "flat")

    on_top(watched, steps)


def test_a_filter_keeps_the_ancestors(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        await screen.press("slash", *"LIM")
        assert screen.names == ["/", "/a", "/a/limited"]
        await screen.shows("filter 'LIM': 1 match")
        # keys of the screen are letters here
        await screen.press("q")
        assert screen.names == []
        await screen.shows("no group matches")
        # none of these has a group to act on
        await screen.press("enter", "left", "right", "up", "pagedown", "end", "l")
        await screen.press("escape")
        assert len(screen.names) == 5

    on_top(watched, steps)


def test_while_paused_nothing_moves(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        await screen.press("space")
        await screen.shows("PAUSED")
        watched("group 'later'")
        await screen.pilot.pause(5 * INTERVAL)
        assert "/later" not in screen.names
        await screen.press("r")
        await screen.until(lambda: "/later" in screen.names)
        watched("group 'last'")
        await screen.pilot.pause(5 * INTERVAL)
        assert "/last" not in screen.names
        await screen.press("space")
        await screen.until(lambda: "/last" in screen.names)
        assert "PAUSED" not in screen.text

    on_top(watched, steps)


def test_a_limit_is_set_and_the_process_obeys(watched: Watched) -> None:
    assert watched("grow /b 3000000") == "held"

    async def steps(screen: Screen) -> None:
        await screen.select("/b")
        await screen.press("l")
        await screen.until(lambda: isinstance(screen.app.screen, AskLimit))
        await screen.press(*"4x", "enter")
        await screen.shows("memory.max: '4x' is not a size")
        await screen.press("backspace", "M", "enter")
        await screen.says("memory.max of /b is 4.0M")
        await screen.until(lambda: "4.0M max" in screen.line(" b "))
        assert watched("grow /b 3000000") == "full"
        await screen.press("l")
        await screen.until(lambda: isinstance(screen.app.screen, AskLimit))
        await screen.press(*"max", "enter")
        await screen.says("memory.max of /b is max")
        assert watched("grow /b 3000000") == "held"

    on_top(watched, steps)


@pytest.mark.parametrize(("downs", "knob"), [(1, "high"), (2, "low"), (3, "max")])
def test_the_knob_is_chosen_by_key(watched: Watched, downs: int, knob: str) -> None:
    async def steps(screen: Screen) -> None:
        await screen.select("/b")
        await screen.press("l")
        await screen.until(lambda: isinstance(screen.app.screen, AskLimit))
        await screen.press(*["down"] * downs, *"12M", "enter")
        await screen.says(f"memory.{knob} of /b is 12.0M")
        await screen.shows(f"{knob} 12.0M")

    on_top(watched, steps)


def test_a_task_is_moved(watched: Watched) -> None:
    assert watched("work") == "/a"

    async def steps(screen: Screen) -> None:
        await screen.press("m")
        await screen.until(lambda: isinstance(screen.app.screen, Choose))
        await screen.press(*"worker", "enter")
        await screen.shows("(worker) from /a to which group?")
        await screen.press(*"/b", "enter")
        # its thread waits, and allocates nothing until it is told to
        await screen.says("(worker) will be in /b when it allocates next")
        assert watched("work") == "/b"
        await screen.press("m")
        await screen.until(lambda: isinstance(screen.app.screen, Choose))
        await screen.press("escape")
        assert isinstance(screen.app.screen, ProcessScreen)

    on_top(watched, steps)


@pytest.mark.parametrize(("number", "banner"), [(signal.SIGKILL, "KILLED: "), (None, "EXITED: ")])
def test_of_a_process_that_ended_the_last_state_stays(
    watched: Watched, number: int | None, banner: str
) -> None:
    watched("grow /a/limited 2000000")

    async def steps(screen: Screen) -> None:
        await screen.until(lambda: "1.9M" in screen.line("limited"))
        if number is None:
            watched.process.stdin.close()
        else:
            watched.process.send_signal(number)
        watched.process.wait(PATIENCE)
        await screen.shows(banner)
        assert "1.9M" in screen.line("limited")
        assert "RSS" in screen.text
        await screen.press("l")
        await screen.says(f"process {watched.pid} has ended: nothing in it can be changed")
        await screen.press("6", "t", "m")
        assert isinstance(screen.app.screen, ProcessScreen)

    on_top(watched, steps)


def test_a_damaged_file_is_said_and_the_last_state_stays(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        with open(watched.path, "r+b") as file:
            magic = file.read(8)
            file.seek(0)
            file.write(bytes(8))
            file.flush()
            await screen.shows("CANNOT BE READ: ", "not a region", "limited")
            file.seek(0)
            file.write(magic)
        await screen.until(lambda: "CANNOT" not in screen.text)

    on_top(watched, steps)


HOSTILE = [
    "[red]bold[b]",
    "\x1b[2J\x1b[31mgone",
    "a\nb\tc",
    "库" * 80,
    "[@click=app.quit]q",
    "x" * 255,
]


def test_names_are_text_whatever_they_are(watched: Watched) -> None:
    for name in HOSTILE:
        watched(f"group {name!a}")

    async def steps(screen: Screen) -> None:
        await screen.until(lambda: len(screen.names) == 5 + len(HOSTILE))
        await screen.shows(
            "[red]bold[b]", r"\x1b[2J\x1b[31mgone", r"a\nb\tc", "库库", "[@click=app"
        )
        for name in HOSTILE:
            await screen.select(f"/{name}")
            assert "\x1b" not in screen.text
            await screen.press("l")
            await screen.until(lambda: isinstance(screen.app.screen, AskLimit))
            assert "\x1b" not in screen.text
            await screen.press("escape", "slash", *"[red]", "enter", "escape", "t", "t")
        await screen.press("m")
        await screen.until(lambda: isinstance(screen.app.screen, Choose))
        await screen.press("enter")
        await screen.shows("[red]bold[b]", r"\x1b[2J\x1b[31mgone")
        assert "\x1b" not in screen.text

    on_top(watched, steps)


def test_it_is_laid_out_anew_for_another_size(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        for width, height in [(200, 60), (80, 24), (40, 12), (20, 6), (5, 2), (1, 1), (100, 30)]:
            await screen.pilot.resize_terminal(width, height)
            await screen.pilot.pause()
            assert all(len(line) <= width for line in screen.lines)
        await screen.shows("limited", "peak")

    on_top(watched, steps)


def test_help_has_all_keys(watched: Watched) -> None:
    async def steps(screen: Screen) -> None:
        await screen.press("question_mark")
        await screen.until(lambda: isinstance(screen.app.screen, Help))
        await screen.shows("Filter", "Pause", "Sort by share")
        await screen.press("escape")
        assert isinstance(screen.app.screen, ProcessScreen)

    on_top(watched, steps)


def test_of_several_processes_one_is_chosen(watched: Watched) -> None:
    async def main() -> None:
        async with top(None) as screen:
            await screen.until(lambda: isinstance(screen.app.screen, Choose))
            # this process has objcg on, too
            await screen.shows("watched.py", str(os.getpid()))
            assert screen.app.screen.query_one(OptionList).option_count >= 2
            await screen.press(*str(watched.pid), "enter")
            await screen.shows(f"pid {watched.pid}", "limited")
            await screen.press("p")
            await screen.until(lambda: isinstance(screen.app.screen, Choose))
            await screen.press(*str(os.getpid()), "enter")
            await screen.shows(f"pid {os.getpid()}", "running")

    asyncio.run(main())


def test_who_chooses_no_process_leaves(watched: Watched) -> None:
    async def main() -> None:
        async with top(None) as screen:
            await screen.until(lambda: isinstance(screen.app.screen, Choose))
            await screen.press(*"no such process", "enter")
            await screen.shows("none matches")
            assert screen.app.screen.query_one(Input).value
            await screen.press("escape")
            await screen.until(lambda: not screen.app.is_running)

    asyncio.run(main())


def test_ten_thousand_groups_stay_quick() -> None:
    """Only what is seen is drawn: a key costs no more than with few groups."""
    program = """
        import sys, objcg
        objcg.enable()
        for i in range(10_000):
            objcg.group(f"/tenants/t{i % 100}/job-{i}")
        print("ready", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == "ready\n"

        async def main() -> None:
            async with top(Watch(region.find(process.pid))) as screen:
                await screen.shows("10,102 groups")
                groups = screen.app.screen.query_one(Groups)
                rows = []
                row = groups.model.row
                groups.model.row = lambda index: rows.append(index) or row(index)
                await screen.press("space", "end", "pageup", "down", "home")
                # 5 draw the screen of at most 30 rows, some more than once; never all
                assert 30 <= len(rows) < 1000
                assert groups.virtual_size.height == 10_102

        try:
            asyncio.run(main())
        finally:
            process.kill()


# --- the command


def objcg_top(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "objcg", "top", *map(str, arguments)], env=env)


def test_without_a_terminal_it_says_what_prints_instead(watched: Watched) -> None:
    result = objcg_top(watched.pid)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "terminal" in result.stderr
    assert "objcg tree" in result.stderr


@pytest.mark.parametrize("interval", ["0", "0.05", "61", "nan", "-1", "fast"])
def test_a_wrong_interval_is_named(interval: str) -> None:
    result = objcg_top(f"--interval={interval}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert repr(interval) in result.stderr
    assert "0.1 to 60" in result.stderr


def test_without_textual_it_says_how_to_install_it() -> None:
    result = run_python("""
        import sys
        sys.modules["textual"] = None
        from objcg.cli import main
        sys.exit(main(["top"]))
    """)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert 'pip install "objcg[top]"' in result.stderr


def test_the_other_verbs_import_nothing_of_it() -> None:
    result = run_python("""
        import sys
        import objcg, objcg.outside, objcg.views.watch
        from objcg.cli import main
        main(["tree"])
        assert not {"textual", "rich"} & set(sys.modules)
    """)
    assert "AssertionError" not in result.stderr
    assert result.returncode == 0
