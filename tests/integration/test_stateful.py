"""Random sequences of all that is done to groups, compared with a tree of integers after each step.

OBJCG_TEST_ROUNDS says how many sequences each machine tries: 6, in a long run 1000.

Nothing of Hypothesis's own may be charged to the groups that are tested. So it runs at root, and
what is entered is entered in contexts of the machine's own, by ``context.run()``; each stands for a
task.
"""

from __future__ import annotations

import contextvars
import gc
import itertools
import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import objcg

from .charges import RESIDUE, charge_of_bytes
from .conftest import subtree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = int(os.environ.get("OBJCG_TEST_ROUNDS", "6"))
SETTINGS = settings(
    max_examples=ROUNDS,
    stateful_step_count=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
STRICT = 32 * 1024
"""From this size on an allocation over max is refused at once."""
ENTRY = 2048
"""The most bytes that an entry leaves in the group that was current before, and in the new one.

A cell, a node and a head of CPython's context, a token, a membership; and the Task object, here.
"""
SPARE = 20
"""So many tasks at a time: the core has room for 32 memberships that are nobody's."""

LENGTHS = st.one_of(
    st.integers(2, 600), st.integers(600, 9000), st.sampled_from([8191, 32_735, 32_736, 300_000])
)
numbers = itertools.count(1)
Picked = TypeVar("Picked")


@dataclass
class Node:
    """What the model knows of a group."""

    group: objcg.Group
    parent: Node | None
    own: int = 0  # bytes of blocks
    noise: int = 0  # what else is charged: entries, measured when they come and go
    maximum: int | None = None
    refusals: int = 0
    children: list[Node] = field(default_factory=list)

    def path(self) -> Iterator[Node]:
        """From this one up."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def total(self) -> int:
        return self.own + self.noise + sum(child.total() for child in self.children)


@dataclass
class Entry:
    """A context that has entered a group, and the group that its task is in by now."""

    context: contextvars.Context
    entered: objcg.Group
    task: objcg.Task
    node: Node
    outer: Entry | None


@dataclass
class Block:
    """Where a bytes object is, and whose it is."""

    slot: list[bytes | None]
    charge: int
    node: Node


def pick(data: st.DataObject, items: list[Picked]) -> Picked:
    """Draw a number: what Hypothesis draws itself it may keep, and so alive."""
    return items[data.draw(st.integers(0, len(items) - 1))]


def fill(slot: list[bytes | None], length: int) -> None:
    slot[0] = bytes(length)


def clear(slot: list[bytes | None]) -> None:
    slot[0] = None


class Tree(RuleBasedStateMachine):
    """Groups, tasks and blocks, on one thread: everything is exact."""

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        # Hypothesis has a callback that notes when the collector runs. It would be charged to
        # whoever made it run; here that is only ever root.
        gc.disable()
        self.top = Node(objcg.group(f"/stateful-{next(numbers)}"), None)
        self.nodes = [self.top]
        self.entries: list[Entry] = []
        self.blocks: list[Block] = []
        # once, outside of what is compared: code that runs for the first time leaves something
        slot: list[bytes | None] = [None]
        contextvars.copy_context().run(fill, slot, 3)
        clear(slot)

    def teardown(self) -> None:
        for entry in reversed(self.entries):
            entry.context.run(entry.entered.__exit__, None, None, None)
        self.entries.clear()
        self.blocks.clear()
        gc.enable()
        gc.collect()
        assert objcg.audit().drift == 0
        left = self.top.group.memory.current
        assert 0 <= left <= RESIDUE
        for group in reversed(list(subtree(self.top.group))):
            group.remove()

    def measure(self, most: int, *, may_fall: bool = False) -> None:
        """Take what an entry left for noise; it is no more than that, and nowhere negative."""
        for node in reversed(self.nodes):  # children come after their parents
            excess = node.group.memory.current - node.total()
            assert (0 if not may_fall else -most) <= excess <= most, (node.group, excess)
            node.noise += excess
            assert node.noise >= 0, node.group

    def is_open(self, entry: Entry) -> bool:
        """Whether nothing was entered on top of it."""
        return all(other.outer is not entry for other in self.entries)

    # ---- the tree ------------------------------------------------------------------------------

    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        parent = pick(data, self.nodes)
        if len(self.nodes) >= 12:
            return
        node = Node(objcg.group(f"{parent.group.path}/g{next(numbers)}"), parent)
        parent.children.append(node)
        self.nodes.append(node)

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(data=st.data(), force=st.booleans())
    def remove(self, data: st.DataObject, force: bool) -> None:
        node = pick(data, self.nodes[1:])
        has_tasks = any(entry.node is node for entry in self.entries)
        parent = node.parent
        assert parent is not None
        if node.children or (has_tasks and not force):
            with pytest.raises(objcg.GroupBusy):
                node.group.remove(force=force)
            return
        node.group.remove(force=force)
        parent.own += node.own
        parent.noise += node.noise
        parent.children.remove(node)
        self.nodes.remove(node)
        for owned in (*self.blocks, *self.entries):
            if owned.node is node:
                owned.node = parent
        with pytest.raises(objcg.GroupRemoved):
            node.group.memory.current  # noqa: B018

    @rule(data=st.data(), room=st.one_of(st.none(), st.integers(1 << 17, 1 << 20)))
    def limit(self, data: st.DataObject, room: int | None) -> None:
        node = pick(data, self.nodes)
        node.maximum = None if room is None else node.total() + room
        node.group.memory.max = node.maximum

    # ---- tasks ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.entries) < SPARE)
    @rule(data=st.data(), again=st.booleans())
    def enter(self, data: st.DataObject, again: bool) -> None:
        node = pick(data, self.nodes)
        outer = None
        if again and self.entries:
            outer = pick(data, self.entries)
            if not self.is_open(outer):
                return
        if not self.fits(node, ENTRY) or (outer and not self.fits(outer.node, ENTRY)):
            return
        context = outer.context if outer else contextvars.copy_context()
        context.run(node.group.__enter__)
        task = context.run(objcg.current_task)
        self.entries.append(Entry(context, node.group, task, node, outer))
        self.measure(ENTRY)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = pick(data, self.entries)
        if not self.is_open(entry) or (entry.outer and not self.fits(entry.outer.node, ENTRY)):
            return
        if not entry.entered.online:
            return  # who leaves a removed group is told so; see test_remove.py
        entry.context.run(entry.entered.__exit__, None, None, None)
        self.entries.remove(entry)
        assert entry.context.run(objcg.current_group) is (
            entry.outer.node.group if entry.outer else objcg.root
        )
        del entry
        self.measure(2 * ENTRY, may_fall=True)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        entry = pick(data, self.entries)
        node = pick(data, self.nodes)
        if self.is_open(entry):
            entry.task.move(node.group)
            entry.node = node
            assert entry.task.group is node.group

    # ---- blocks --------------------------------------------------------------------------------

    def fits(self, node: Node, charge: int) -> bool:
        return all(
            above.maximum is None or above.group.memory.current + charge <= above.maximum
            for above in node.path()
        )

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), length=LENGTHS)
    def allocate(self, data: st.DataObject, length: int) -> None:
        entry = pick(data, self.entries)
        if not self.is_open(entry):
            return
        block = Block([None], charge_of_bytes(length), entry.node)
        full = [
            above
            for above in entry.node.path()
            if above.maximum is not None
            and above.group.memory.current + block.charge > above.maximum
        ]
        if not full:
            entry.context.run(fill, block.slot, length)
            entry.node.own += block.charge
            self.blocks.append(block)
        elif block.charge >= STRICT:
            with pytest.raises(MemoryError):
                entry.context.run(fill, block.slot, length)
            for node in full[0].path():
                node.refusals += 1

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), elsewhere=st.booleans())
    def free(self, data: st.DataObject, elsewhere: bool) -> None:
        """Wherever it is freed, who allocated it gets it back."""
        block = pick(data, self.blocks)
        if elsewhere and self.entries:
            entry = pick(data, self.entries)
            entry.context.run(clear, block.slot)
        else:
            clear(block.slot)
        block.node.own -= block.charge
        self.blocks.remove(block)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def owner(self, data: st.DataObject) -> None:
        block = pick(data, self.blocks)
        assert objcg.owner(block.slot[0]) is block.node.group

    # ---- and the rest --------------------------------------------------------------------------

    @rule()
    def collect(self) -> None:
        gc.collect()

    @rule()
    def fork(self) -> None:
        """The child has the same books, and its own."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.the_model_is_right()
                self.blocks.clear()
                if objcg.audit().drift == 0:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0

    @invariant()
    def the_model_is_right(self) -> None:
        for node in self.nodes:
            memory = node.group.memory
            assert memory.current == node.total(), node.group
            assert memory.peak >= memory.current
            assert memory.events["max"] == node.refusals, node.group
            assert node.group.tasks == sum(entry.node is node for entry in self.entries)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert objcg.audit().drift == 0


class Workers(RuleBasedStateMachine):
    """Threads that work at once, and are looked at when all of them wait."""

    NR = 3

    def __init__(self) -> None:
        super().__init__()
        self.top = objcg.group(f"/stateful-{next(numbers)}")
        self.groups = [objcg.group(f"{self.top.path}/g{number}") for number in range(4)]
        self.store: list[bytes] = []
        self.failed: list[BaseException] = []
        self.tasks: list[objcg.Task | None] = [None] * self.NR
        self.turn: list[Callable[[], None]] = [lambda: None] * self.NR
        self.barrier = threading.Barrier(self.NR + 1)
        self.stopped = False
        self.threads = []
        for number in range(self.NR):
            with self.groups[number]:
                thread = threading.Thread(target=self.work, args=(number,), daemon=True)
                thread.start()
            self.threads.append(thread)

    def work(self, number: int) -> None:
        while True:
            self.barrier.wait(60)
            if self.stopped:
                return
            try:
                self.turn[number]()
            except BaseException as error:
                self.failed.append(error)
            self.barrier.wait(60)

    def teardown(self) -> None:
        self.stopped = True
        self.barrier.wait(60)
        for thread in self.threads:
            thread.join(60)
        self.store.clear()
        self.tasks.clear()
        gc.collect()
        assert objcg.audit().drift == 0
        assert 0 <= self.top.memory.current <= self.NR * RESIDUE
        for group in reversed(list(subtree(self.top))):
            group.remove(force=True)

    def allocate(self, length: int, count: int) -> None:
        for _ in range(count):
            self.store.append(bytes(length))

    def free(self, count: int) -> None:
        for _ in range(count):
            try:
                self.store.pop(0)
            except IndexError:
                return

    def visit(self, group: objcg.Group, length: int, count: int) -> None:
        with group:
            self.allocate(length, count)

    def shift(self, group: objcg.Group, count: int) -> None:
        for number in range(count):
            objcg.current_task().move(self.groups[(number + group.id) % len(self.groups)])
            self.store.append(bytes(500))
        objcg.current_task().move(group)

    def churn(self, count: int) -> None:
        for _ in range(count):
            group = objcg.group(f"{self.top.path}/temporary{next(numbers)}")
            with group:
                self.store.append(bytes(300))
            group.remove(force=True)

    work_items = st.one_of(
        st.tuples(st.just("allocate"), st.integers(2, 40_000), st.integers(1, 100)),
        st.tuples(st.just("free"), st.integers(1, 200)),
        st.tuples(st.just("visit"), st.integers(0, 3), st.integers(2, 9000), st.integers(1, 50)),
        st.tuples(st.just("shift"), st.integers(0, 3), st.integers(1, 20)),
        st.tuples(st.just("churn"), st.integers(1, 10)),
    )

    @rule(items=st.tuples(work_items, work_items, work_items), meanwhile=st.booleans())
    def take_turns(self, items: tuple[tuple[str, ...], ...], meanwhile: bool) -> None:
        for number, (name, *arguments) in enumerate(items):
            if name in {"visit", "shift"}:
                arguments[0] = self.groups[int(arguments[0])]  # type: ignore[call-overload]
            self.turn[number] = lambda name=name, arguments=arguments: getattr(self, name)(
                *arguments
            )
        self.barrier.wait(60)
        if meanwhile:
            for group in self.groups:
                group.memory.max = "1G"
                assert group.memory.current >= 0
                group.memory.max = None
            gc.collect()
            objcg.audit()
        self.barrier.wait(60)
        # they are on their way to the next barrier, and hold nothing of the turn
        self.turn[:] = [lambda: None] * self.NR
        assert self.failed == []

    @invariant()
    def everything_is_somebodys(self) -> None:
        """Each block is charged to its owner; what else is, are threads, and not much."""
        assert objcg.audit().drift == 0
        held: Counter[str] = Counter()
        for item in list(self.store):
            group = objcg.owner(item)
            assert group is not None
            for above in ancestors(group):
                held[above.path] += charge_of_bytes(len(item))
        for group in subtree(self.top):
            extra = group.memory.current - held[group.path]
            assert -RESIDUE <= extra <= self.NR * RESIDUE + 8 * len(self.store) * 2, group


def ancestors(group: objcg.Group | None) -> Iterator[objcg.Group]:
    while group is not None:
        yield group
        group = group.parent


TestTree = Tree.TestCase
TestTree.settings = SETTINGS
TestWorkers = Workers.TestCase
TestWorkers.settings = settings(SETTINGS, stateful_step_count=12)
