"""Whatever a task can be doing, against whatever can be done to its group at the same time.

One thread acts (charges, moves, enters, ...) and checks each block it allocates; another one
removes the group, removes it by force, or moves the tasks. What that one does, and when, differs
from round to round by a number: it begins after so many steps of the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

import objcg

from .charges import charge_of_bytes
from .test_protocol import BYTE, ROUNDS, SIZES, assert_nothing_left, fast_switching, run_all

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 8
TIMES = max(2 * STEPS, ROUNDS // 50)
"""So each step is the first to be disturbed at least twice."""


@dataclass
class Scene:
    """One round: a group with something going on, another one, and what both threads know."""

    parent: objcg.Group
    number: int
    disturbance: str
    tasks: list[objcg.Task] = field(default_factory=list)  # that may be moved
    moved: dict[int, objcg.Group] = field(default_factory=dict)  # tasks, by id
    begun: int = 0  # how many disturbances
    done: int = 0
    acted: bool = False
    disturbed: threading.Event = field(default_factory=threading.Event)
    start: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    seen: list[bool] = field(default_factory=list)  # steps: whether nothing was going on meanwhile
    errors: list[BaseException] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.group = objcg.group(f"{self.parent.path}/group")
        self.other = objcg.group(f"{self.parent.path}/other")
        self.removed = False
        self.successor: objcg.Group | None = None

    def ready(self) -> None:
        """Wait for the other thread; then both go."""
        self.start.wait(60)

    def expected(self, task: objcg.Task, entered: objcg.Group) -> objcg.Group:
        """Return where a task is that entered this group, after what has been done so far."""
        group = self.moved.get(task.id, entered)
        return self.parent if self.removed and group is self.group else group

    def succeed(self) -> None:
        """Make a group of the removed one's path, and perhaps of its records: it is another one."""
        self.removed = True
        self.done += 1
        self.successor = objcg.group(self.group.path)

    def charge(self, task: objcg.Task, entered: objcg.Group) -> None:
        """Allocate as this task, which is current here, and check who is charged."""
        done = self.done
        expected = self.expected(task, entered)
        block = BYTE * SIZES[len(self.seen) % len(SIZES)]
        owner = objcg.owner(block)
        current = objcg.current_group()
        self.check({owner, current}, expected, done)

    def check(self, found: set[objcg.Group | None], expected: objcg.Group, done: int) -> None:
        """End a step: all were the expected group, if nothing was going on since `done` was read.

        Else they are of the groups that there are.
        """
        calm = self.begun == done
        if calm:
            assert found == {expected}
        else:
            assert found <= {self.group, self.other, self.parent}
        self.seen.append(calm)

    def threads(self, count: int, function: Callable[[], object]) -> list[threading.Thread]:
        """Make threads whose errors are those of the round."""

        def run() -> None:
            try:
                function()
            except BaseException as error:
                self.errors.append(error)

        return [threading.Thread(target=run) for _ in range(count)]


# ---- What is done to the group -------------------------------------------------------------------
def remove(scene: Scene) -> None:
    """Remove it as soon as it lets itself be removed."""
    while not scene.removed:
        last = scene.acted
        scene.begun += 1
        try:
            scene.group.remove()
        except objcg.GroupBusy:
            assert not last, "nobody is left in it"
            time.sleep(0)
            scene.done += 1
        else:
            scene.succeed()


def remove_by_force(scene: Scene) -> None:
    """Remove it, whoever is in it."""
    scene.begun += 1
    scene.group.remove(force=True)
    scene.succeed()


def move(scene: Scene) -> None:
    """Move the tasks out of it, and back."""
    for number in range(STEPS):
        target = scene.group if number % 2 else scene.other
        for task in list(scene.tasks):
            scene.begun += 1
            try:
                task.move(target)
            except objcg.GroupRemoved:
                assert not task.online
            else:
                scene.moved[task.id] = target
            scene.done += 1
        time.sleep(0)


DISTURBANCES = {"remove": remove, "remove_by_force": remove_by_force, "move": move}


# ---- What goes on in it --------------------------------------------------------------------------
def charges(scene: Scene) -> None:
    """One task allocates, all the time."""
    with scene.group:
        task = objcg.current_task()
        scene.tasks.append(task)
        scene.ready()
        for _ in range(2 * STEPS):
            scene.charge(task, scene.group)
        if scene.disturbance != "remove":
            scene.disturbed.wait(60)
            scene.charge(task, scene.group)


def moves(scene: Scene) -> None:
    """It moves itself, and is to see its own moves, if nobody else moves it meanwhile."""
    with scene.group:
        task = objcg.current_task()
        scene.tasks.append(task)
        scene.ready()
        for number in range(2 * STEPS):
            target = scene.group if number % 2 else scene.other
            done = scene.done
            try:
                task.move(target)
            except objcg.GroupRemoved:
                assert target is scene.group
                assert not scene.group.online
                target = task.group
                assert target in (scene.parent, scene.other)
            block = BYTE * SIZES[number % len(SIZES)]
            owner = objcg.owner(block)
            scene.check({owner}, target, done)
        if scene.disturbance != "remove":
            scene.disturbed.wait(60)
            task.move(scene.other)
            block = BYTE * 40
            assert objcg.owner(block) is scene.other


def enters(scene: Scene) -> None:
    """It enters and leaves; a group that is not there any more cannot be entered."""
    outside = objcg.current_task()
    scene.ready()
    for _ in range(2 * STEPS):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(scene.group)
            except objcg.GroupRemoved:
                assert not scene.group.online
                scene.seen.append(False)
                continue
            task = objcg.current_task()
            scene.tasks.append(task)
            scene.charge(task, scene.group)
        assert objcg.current_task() == outside
        assert not task.online


def exits(scene: Scene) -> None:
    """Entries in one another end one by one; what was current before is current again."""
    outside = objcg.current_task()
    entries: list[tuple[objcg.Task, objcg.Group]] = []
    for number in range(2 * STEPS):
        group = scene.group if number % 2 else scene.other
        group.__enter__()
        entries.append((objcg.current_task(), group))
    scene.tasks += [task for task, _ in entries]
    scene.ready()
    while entries:
        task, group = entries.pop()
        assert objcg.current_task() == task
        scene.charge(task, group)
        group.__exit__(None, None, None)
        assert not task.online
    assert objcg.current_task() == outside


def starts_threads(scene: Scene) -> None:
    """Threads are started in it; all of them are the starter's task."""
    with scene.group:
        task = objcg.current_task()
        scene.tasks.append(task)

        def work() -> None:
            assert objcg.current_task() == task
            scene.charge(task, scene.group)

        threads = scene.threads(STEPS, work)
        scene.ready()
        for thread in threads:
            thread.start()
            scene.charge(task, scene.group)
        for thread in threads:
            thread.join(60)


def ends_threads(scene: Scene) -> None:
    """Nothing but threads is in it, and they end."""
    go = threading.Event()

    def work() -> None:
        held = [BYTE * size for size in SIZES]
        go.wait(60)
        scene.charge(task, scene.group)
        held.clear()

    with scene.group:
        task = objcg.current_task()
        scene.tasks.append(task)
        threads = scene.threads(STEPS, work)
        for thread in threads:
            thread.start()
    scene.ready()
    go.set()
    for thread in threads:
        thread.join(60)
    assert not task.online


def spawns_tasks(scene: Scene) -> None:
    """Tasks of an event loop: those that inherit the group, and those that enter the other."""

    async def inherits(task: objcg.Task) -> None:
        for _ in range(2):
            assert objcg.current_task() == task
            scene.charge(task, scene.group)
            await asyncio.sleep(0)

    async def enters_other() -> None:
        with scene.other:
            task = objcg.current_task()
            scene.tasks.append(task)
            scene.charge(task, scene.other)
            await asyncio.sleep(0)
            scene.charge(task, scene.other)

    async def main() -> None:
        with scene.group:
            task = objcg.current_task()
            scene.tasks.append(task)
            scene.ready()
            spawned = []
            for _ in range(STEPS):
                spawned.append(asyncio.create_task(inherits(task)))
                spawned.append(asyncio.create_task(enters_other()))
                await asyncio.sleep(0)
            # Not gather(): asyncio keeps what awaits a future in a free list that is never emptied.
            while not all(each.done() for each in spawned):
                await asyncio.sleep(0)
            for each in spawned:
                each.result()
            scene.charge(task, scene.group)

    asyncio.run(main())


def renew_what_event_loops_share() -> None:
    """Have the tables in which asyncio keeps tasks made anew, for more tasks, at root."""

    async def run() -> None:
        hoard.append({"": 0})  # or a table comes from a free list, where a group's has gone
        await asyncio.sleep(0)
        hoard.append({"": 0})

    async def main() -> None:
        tasks = [asyncio.create_task(run()) for _ in range(16 * STEPS)]
        for task in tasks:
            await task

    hoard: list[dict[str, int]] = []
    asyncio.run(main())


def frees_blocks_of_others(scene: Scene) -> None:
    """Blocks of another thread's are freed outside: the group, or its parent then, has them."""
    context = contextvars.copy_context()

    def allocate() -> None:
        scene.group.__enter__()  # the context stays in it
        scene.tasks.append(objcg.current_task())
        scene.blocks.extend(BYTE * size for size in SIZES * STEPS)

    run_all(scene.threads(1, lambda: context.run(allocate)))
    if scene.disturbance != "move":
        del context  # nobody is left in the group, and something is still charged to it
    charged = sum(charge_of_bytes(len(block)) for block in scene.blocks)
    assert scene.parent.memory.current >= charged
    scene.ready()
    while scene.blocks:
        done = scene.done
        expected = scene.parent if scene.removed else scene.group  # whatever the task does
        owner = objcg.owner(scene.blocks[-1])
        scene.check({owner}, expected, done)
        scene.blocks.pop()


ACTIONS = [
    charges,
    moves,
    enters,
    exits,
    starts_threads,
    ends_threads,
    spawns_tasks,
    frees_blocks_of_others,
]


# ---- Both at once --------------------------------------------------------------------------------
def play(scene: Scene, act: Callable[[Scene], None]) -> None:
    """Let two threads do the one and the other; check that nobody is left in the groups."""

    def action() -> None:
        try:
            act(scene)
        finally:
            scene.acted = True

    def disturbance() -> None:
        scene.ready()
        while len(scene.seen) < scene.number % STEPS and not scene.acted:
            time.sleep(0)
        try:
            DISTURBANCES[scene.disturbance](scene)
        finally:
            scene.disturbed.set()

    run_all(scene.threads(1, action) + scene.threads(1, disturbance))
    if scene.errors:
        raise scene.errors[0]
    assert (scene.disturbance == "move") is scene.group.online
    if scene.successor is not None:
        assert scene.successor.memory.peak == 0
    for group in (scene.group, scene.other, scene.successor):
        if group is not None and group.online:
            group.remove()  # GroupBusy, if a task is still in it
    assert scene.parent.tasks == 0


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("act", ACTIONS)
def test_pair(fresh_group: objcg.Group, act: Callable[[Scene], None], disturbance: str) -> None:
    exact = 0
    with fast_switching():
        for number in range(TIMES):
            scene = Scene(fresh_group, number, disturbance)
            play(scene, act)
            exact += sum(scene.seen)
    # Those before the first disturbance at least, which comes after 0, 1, ... steps in turn.
    assert exact >= TIMES // STEPS * sum(range(STEPS))
    del scene
    if act is spawns_tasks:
        renew_what_event_loops_share()
    gc.collect()
    assert_nothing_left(fresh_group)
