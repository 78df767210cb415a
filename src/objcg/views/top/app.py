"""The program on the terminal: which process is watched, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, ClassVar

from textual.app import App
from textual.binding import Binding

from objcg import region
from objcg.cli.table import printable
from objcg.region import RegionError
from objcg.views.watch import Watch

from . import columns
from .dialogs import Choice, Choose
from .screen import ProcessScreen

if TYPE_CHECKING:
    from textual.binding import BindingType


class TopApp(App[None]):
    """``objcg top``."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "objcg top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    def __init__(self, watch: Watch | None, interval: float) -> None:
        """Watch one process, or None: first ask which."""
        super().__init__()
        self._watch = watch
        self._interval = interval

    def on_mount(self) -> None:
        """Show the process, or ask for one."""
        loop = asyncio.get_running_loop()
        # else it would leave the terminal as it is while the screen is on it
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        if self._watch is None:
            self.action_choose_process()
        else:
            self.push_screen(ProcessScreen(self._watch, self._interval))

    def action_choose_process(self) -> None:
        """Ask for a process, and watch it."""
        self.run_worker(self._choose_process(), exit_on_error=True)

    async def _choose_process(self) -> None:
        found = await asyncio.to_thread(live)
        choices = [Choice(_described(each), each.path or "") for each in found]
        path = await self.push_screen_wait(Choose("Which process?", choices))
        shown = isinstance(self.screen, ProcessScreen)
        if path is None:
            if not shown:
                self.exit()
            return
        try:
            watch = await asyncio.to_thread(Watch, path)
        except RegionError as error:
            # it has ended meanwhile
            self.notify(printable(str(error)), severity="error", markup=False)
            if not shown:
                self.action_choose_process()
            return
        screen = ProcessScreen(watch, self._interval)
        if shown:
            self.switch_screen(screen)
        else:
            self.push_screen(screen)


def live() -> list[region.Region]:
    """Return this user's live processes; one that ends while it is read is left out."""
    found = []
    for path in region.find_live():
        try:
            found.append(region.read(path))
        except RegionError:  # noqa: PERF203  # a process may end at any time
            continue
    return found


def _described(found: region.Region) -> str:
    return f"{found.pid:>7}  {columns.size(found.charged):>8}  {found.command}"
