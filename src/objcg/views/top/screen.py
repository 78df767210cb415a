"""The screen of one process: it is sampled, shown, and steered."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer, Input

from objcg import region
from objcg.cli.table import printable
from objcg.outside import Outcome
from objcg.region import RegionError
from objcg.views.watch import State

from . import columns, steering
from .dialogs import AskLimit, Choice, Choose, Help
from .model import Model, Sort
from .panels import Banner, Details, Process
from .table import Groups, Headings

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from objcg.region import GroupInfo, Region, TaskInfo
    from objcg.views.watch import Watch

    from .dialogs import Limit

_IDLE_PER_WORK = 3
"""How much longer than its work a refresh waits, at least: a view must not load the machine."""

_SORTS = list(Sort)


class ProcessScreen(Screen[None]):
    """The groups of one process."""

    CSS = """
    #filter, #filter:focus { height: 1; border: none; padding: 0 1; background: $primary-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "Quit"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort by the column before", show=False),
        *(
            Binding(str(i), f"sort_by('{sort.value}')", f"Sort by {sort.value}", show=False)
            for i, sort in enumerate(Sort, 1)
        ),
        Binding("i", "invert", "Invert the order", show=False),
        Binding("t", "flat", "Tree/flat"),
        Binding("minus", "collapse_all(True)", "Collapse all", show=False, key_display="-"),
        Binding("plus", "collapse_all(False)", "Expand all", show=False, key_display="+"),
        Binding("space", "pause", "Pause"),
        Binding("r", "refresh_now", "Refresh at once, also while paused", show=False),
        Binding("l", "limit", "Limit"),
        Binding("m", "move", "Move task"),
        Binding("p", "app.choose_process", "Process"),
        Binding("escape", "clear_filter", "Clear the filter", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
    ]

    def __init__(self, watch: Watch, interval: float) -> None:
        super().__init__()
        self._watch = watch
        self.interval = interval
        self.model = Model(watch.latest)
        self.paused = False
        self._error: str | None = None
        self._at_once = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        yield Process()
        yield Banner()
        yield Headings(self.model)
        yield Groups(self.model)
        yield Details()
        yield Input(id="filter", placeholder="a part of the path; Enter keeps it, Escape clears it")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to sample."""
        self.query_one("#filter").display = False
        self.query_one(Groups).focus()
        self.call_after_refresh(self.show)
        self.run_worker(self._sample_for_ever(), exit_on_error=True)

    def on_resize(self) -> None:
        """Fit the lines around the rows to another width."""
        self.call_after_refresh(self.show)

    # --- sampling

    async def _sample_for_ever(self) -> None:
        cost = 0.0
        while True:
            try:
                pause = max(self.interval - cost, _IDLE_PER_WORK * cost)
                await asyncio.wait_for(self._at_once.wait(), pause)
            except asyncio.TimeoutError:  # another class before 3.11
                if self.paused:
                    continue
            self._at_once.clear()
            started = time.monotonic()
            await self.sample()
            cost = time.monotonic() - started

    async def sample(self) -> None:
        """Take a sample and show it. What cannot be read is shown as it was, and why."""
        error = None
        try:
            # a thread: the screen stays quick, however many groups are read
            sample = await asyncio.to_thread(self._watch.sample)
        except RegionError as caught:
            error = str(caught)
        else:
            if sample is self.model.sample and self._error is None:
                return
            self.model.update(sample)
        self._error = error
        self.show()

    def show(self) -> None:
        """Draw all anew."""
        # a sample may come while the screen is being closed, and its widgets are gone
        if not self.query(Details):
            return
        groups = self.query_one(Groups)
        groups.refresh_rows()
        self.query_one(Process).show(self.model, self.interval, paused=self.paused)
        self.query_one(Banner).show(self.model.sample, self._error)
        self.query_one(Headings).refresh()
        self.query_one(Details).show(self.model, groups.selected)

    def on_groups_selected(self) -> None:
        """Show what is known of the group that is selected now."""
        self.query_one(Details).show(self.model, self.query_one(Groups).selected)

    # --- what is shown

    def action_pause(self) -> None:
        """Stop to sample, or go on."""
        self.paused = not self.paused
        if not self.paused:
            self._at_once.set()
        self.show()

    def action_refresh_now(self) -> None:
        """Take a sample."""
        self._at_once.set()

    def action_sort(self, by: int) -> None:
        """Sort by the next column."""
        at = (_SORTS.index(self.model.sort) + by) % len(_SORTS)
        self.action_sort_by(_SORTS[at].value)

    def action_sort_by(self, name: str) -> None:
        """Sort by a column."""
        self.model.sort = Sort(name)
        self.show()
        self.query_one(Groups).show_cursor()

    def on_headings_sorted(self, event: Headings.Sorted) -> None:
        """Sort by the column that was clicked, or in the other order."""
        if event.sort is self.model.sort:
            self.action_invert()
        else:
            self.action_sort_by(event.sort.value)

    def action_invert(self) -> None:
        """Sort the other way round."""
        self.model.is_reversed = not self.model.is_reversed
        self.show()

    def action_flat(self) -> None:
        """List groups by their paths, or as a tree again."""
        self.model.is_flat = not self.model.is_flat
        self.show()
        self.query_one(Groups).show_cursor()

    def action_collapse_all(self, collapsed: bool) -> None:  # noqa: FBT001
        """Show what is right below root, or all."""
        self.model.collapse_all(collapsed=collapsed)
        self.show()
        self.query_one(Groups).show_cursor()

    def action_filter(self) -> None:
        """Ask for what paths have to contain."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_clear_filter(self) -> None:
        """Show all groups."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self.query_one(Groups).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self.model.wanted = event.value
        self.show()

    def on_input_submitted(self) -> None:
        """Back to the rows; the filter stays."""
        self.query_one("#filter").display = bool(self.model.wanted)
        self.query_one(Groups).focus()

    def action_help(self) -> None:
        """Show the keys."""
        bindings = [*self.BINDINGS, *Groups.BINDINGS]
        keys = [
            (" or ".join(_key_name(key) for key in binding.key.split(",")), binding.description)
            for binding in bindings
            if isinstance(binding, Binding)
        ]
        self.app.push_screen(Help("\n".join(f"{key:<18} {what}" for key, what in keys) + _LEGEND))

    # --- what is changed in the process

    def action_limit(self) -> None:
        """Ask for a limit of the selected group, and set it."""
        self.run_worker(self._limit(), exit_on_error=True)

    async def _limit(self) -> None:
        group = self.query_one(Groups).selected
        if group is None or not self._can_steer():
            return
        limit = await self.app.push_screen_wait(AskLimit(group))
        if limit is not None:
            await self._set_limit(group, limit)

    async def _set_limit(self, group: GroupInfo, limit: Limit) -> None:
        found = self._watch.latest.region
        try:
            done = await asyncio.to_thread(
                steering.set_limit, found, group, limit.knob, limit.value
            )
        except RegionError as error:
            self._tell(str(error), failed=True)
            return
        value = "max" if limit.value is None else columns.size(limit.value)
        what = f"memory.{limit.knob} of {group.path}"
        if not done:
            self._tell(f"{what} was not set: the group has ended", failed=True)
        else:
            self._tell(f"{what} is {value}")
        self._at_once.set()

    def action_move(self) -> None:
        """Ask for a task and a group, and move the one to the other."""
        self.run_worker(self._move(), exit_on_error=True)

    async def _move(self) -> None:
        if not self._can_steer():
            return
        try:
            found = await asyncio.to_thread(region.read, self._watch.path, tasks=True)
            steering.check_moves(found)
        except RegionError as error:
            self._tell(str(error), failed=True)
            return
        selected = self.query_one(Groups).selected
        first = "" if selected is None else selected.path
        task = await self.app.push_screen_wait(Choose("Move which task?", _tasks(found, first)))
        if task is None:
            return
        groups = [Choice(group.path, group) for group in found.tree()]
        title = f"Move task {task.id} ({task.name}) from {task.group} to which group?"
        group = await self.app.push_screen_wait(Choose(title, groups))
        if group is None:
            return
        what = f"task {task.id} ({task.name})"
        try:
            outcome = await asyncio.to_thread(steering.move, found, task, group)
        except RegionError as error:
            self._tell(str(error), failed=True)
            return
        if outcome is Outcome.DONE:
            self._tell(f"{what} moved from {task.group} to {group.path}")
        elif outcome is Outcome.PENDING:
            self._tell(f"{what} will be in {group.path} when it allocates next")
        else:
            self._tell(f"{what} was not moved: it or {group.path} has ended", failed=True)
        self._at_once.set()

    def _can_steer(self) -> bool:
        running = self.model.sample.state is State.RUNNING
        if not running:
            pid = self.model.sample.region.pid
            self._tell(f"process {pid} has ended: nothing in it can be changed", failed=True)
        return running

    def _tell(self, text: str, *, failed: bool = False) -> None:
        self.app.notify(
            printable(text),
            severity="error" if failed else "information",
            timeout=10,
            markup=False,
        )


def _tasks(found: Region, first: str) -> list[Choice[TaskInfo]]:
    """Return the tasks; those of the group that was selected come first."""
    tasks = sorted(found.tasks or [], key=lambda task: (task.group != first, task.group, task.id))
    return [Choice(f"{task.id}  {task.name}  in {task.group}", task) for task in tasks]


def _key_name(key: str) -> str:
    names = {"slash": "/", "minus": "-", "plus": "+", "question_mark": "?"}
    return names.get(key, key if len(key) == 1 else key.capitalize())


_LEGEND = """

The share is that of the limit, which is memory.max or, where it is lower, memory.high.
!   80 % of the limit or more        !!   at the limit or above it
Events are those since the view began, then all: +3/120.
A filter keeps what is above a group that matches; paths match in upper and lower case.
"""
