"""Moves and removals under fire: no move is lost, no group is left dying, no byte astray.

A mover only flags a task; the task itself looks its group up again, at its next allocation. So
what has to hold is: once ``move()`` has returned, the next block of the task is the new group's.

OBJCG_TEST_ROUNDS says how many threads are moved out of groups that are then removed; one thread
is moved ten times as often. The default is 2,000; in a long run 100,000, and so a million moves.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import itertools
import os
import sys
import threading
import types
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

import objcg
from objcg import _core, _registry

from .charges import RESIDUE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

ROUNDS = int(os.environ.get("OBJCG_TEST_ROUNDS", "2000"))

BYTE = b"x"
"""``BYTE * n`` makes exactly one allocation: the next one after whatever came before it."""

SIZES = (40, 600, 9000)
"""A block of a slab with one owner word, one of those with exact charges, and a large one."""


# ---- What all tests of the protocol use ----------------------------------------------------------
@contextlib.contextmanager
def fast_switching() -> Iterator[None]:
    """Have threads take the GIL from each other after a microsecond: wherever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def dying(group: objcg.Group) -> int:
    """Return how many removed groups below this one have something charged still."""
    return group.memory.stat["dying_descendants"]


def assert_nothing_left(group: objcg.Group) -> None:
    """Check that no removed group below this one is left, and that nothing is charged to it.

    To be called right after a ``gc.collect()``: else this function's own frame, on Python 3.10, may
    come from a free list to which a group's has gone.
    """
    renew_what_is_shared(group)
    # The state of a thread may be freed a little after join() has returned.
    assert eventually(lambda: dying(group) == 0), f"{dying(group)} dying groups"
    assert 0 <= group.memory.current <= RESIDUE
    assert objcg.audit().drift == 0


def renew_what_is_shared(group: objcg.Group) -> None:
    """Have memory that is not a group's, and that a group came to pay for, made anew at root.

    The tables in which `threading` keeps all threads are charged to the group of the thread for
    which they grew. With 64 threads more than there are they have to grow again: one that grew for
    the few threads of a test is smaller.

    The smallest table, of any dict, may come from a free list to which a group's has gone; and what
    it replaces goes there in turn, to be the next one. So the list is kept empty meanwhile.

    What runs in groups must not be a function inside of one that still runs, for Python 3.10.
    """
    assert objcg.current_group() is objcg.root
    gc.collect()
    hoard = [{"": 0} for _ in range(100)]  # the list has room for 80
    barrier = threading.Barrier(64)
    threads = [threading.Thread(target=barrier.wait, args=(60,)) for _ in range(64)]
    for number, thread in enumerate(threads):
        if number < 16:  # three tables
            objcg.group(f"{group.path}/{number}").remove()
        thread.start()
        hoard += [{"": 0} for _ in range(4)]
    for thread in threads:
        thread.join(60)
    del threads, thread, hoard
    if sys.version_info < (3, 11):
        _renew_what_python_3_10_keeps()
    gc.collect()


def _renew_what_python_3_10_keeps() -> None:
    # With each code object the frame it last ran in, and caches: they go with it. First all copies
    # are made, and then nothing runs until all are in place: it would get the frames that go.
    copies = [
        (function, _copy_of(function.__code__))
        for function in gc.get_objects()
        if type(function) is types.FunctionType and _may_have_run_in_a_group(function)
    ]
    for function, code in copies:
        function.__code__ = code
    # 16 blocks of deques, for good: the first here are those, the last go there instead.
    hoard: list[deque[None]] = [deque() for _ in range(32)]
    while hoard:
        hoard.pop()


def _may_have_run_in_a_group(function: types.FunctionType) -> bool:
    """Return whether it is ours or the standard library's."""
    ours = (function.__module__ or "").startswith("objcg")
    return ours or "site-packages" not in function.__code__.co_filename


def _copy_of(code: types.CodeType) -> types.CodeType:
    return code.replace(
        co_consts=tuple(
            _copy_of(item) if isinstance(item, types.CodeType) else item for item in code.co_consts
        )
    )


def run_all(threads: list[threading.Thread]) -> None:
    """Start threads, and wait for their end."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)


@dataclass
class Traffic:
    """Allocations that run throughout, in threads of their own, and are freed by one another."""

    groups: list[objcg.Group]
    going: bool = True
    blocks: deque[bytes] = field(default_factory=deque)
    allocated: int = 0

    def __enter__(self) -> Self:
        self.threads = [threading.Thread(target=self.run, args=(group,)) for group in self.groups]
        for thread in self.threads:
            thread.start()
        return self

    def run(self, group: objcg.Group) -> None:
        """Keep some hundred blocks, of all threads, in a queue; free the oldest."""
        with group:
            while self.going:
                for size in SIZES:
                    self.blocks.append(BYTE * size)
                while len(self.blocks) > 300:
                    with contextlib.suppress(IndexError):  # another thread was faster
                        self.blocks.popleft()
                self.allocated += 1

    def __exit__(self, *exception: object) -> None:
        self.going = False
        for thread in self.threads:
            thread.join(60)
        self.blocks.clear()
        assert self.allocated


# ---- A thread made in A, moved to B, A removed ---------------------------------------------------
@dataclass
class Passenger:
    """What the thread that is moved, and who moves it, know of each other."""

    ready: threading.Lock = field(default_factory=threading.Lock)
    task: objcg.Task | None = None
    moved: bool = False
    before: objcg.Group | None = None
    after: list[objcg.Group | None] = field(default_factory=list)

    def travel(self) -> None:
        """Allocate all the time: in the group of the start, and in that it is moved to."""
        held = [BYTE * size for size in SIZES]
        self.task = objcg.current_task()
        self.before = objcg.owner(held[0])
        self.ready.release()
        while not self.moved:
            held.append(BYTE * 100)
            if len(held) > 50:
                del held[:25]
        after = [BYTE * size for size in SIZES]
        self.after = [objcg.owner(block) for block in after]


@pytest.mark.timeout(3600)
def test_threads_moved_out_of_groups_that_are_removed_leave_nothing(
    fresh_group: objcg.Group,
) -> None:
    a_path = f"{fresh_group.path}/a"
    b = objcg.group(f"{fresh_group.path}/b")
    with fast_switching(), Traffic([b]):
        for _ in range(ROUNDS):
            a = objcg.group(a_path)
            passenger = Passenger()
            passenger.ready.acquire()
            with a:
                thread = threading.Thread(target=passenger.travel)
                thread.start()
            passenger.ready.acquire()
            passenger.task.move(b)
            passenger.moved = True
            a.remove()  # not forced: nobody is in it
            thread.join()
            assert passenger.before is a
            assert passenger.after == [b, b, b]
    assert b.tasks == 0
    del a, passenger, thread
    gc.collect()
    assert_nothing_left(fresh_group)


@pytest.mark.timeout(3600)
def test_threads_whose_group_is_removed_under_them_leave_nothing(
    fresh_group: objcg.Group,
) -> None:
    """As above, but it is the forced removal that moves the thread, to the parent."""
    path = f"{fresh_group.path}/a"
    with fast_switching(), Traffic([fresh_group]):
        for _ in range(ROUNDS // 3):
            a = objcg.group(path)
            passenger = Passenger()
            passenger.ready.acquire()
            with a:
                thread = threading.Thread(target=passenger.travel)
                thread.start()
            passenger.ready.acquire()
            a.remove(force=True)
            passenger.moved = True
            thread.join()
            assert passenger.after == [fresh_group] * 3
    del a, passenger, thread
    gc.collect()
    assert_nothing_left(fresh_group)


# ---- One thread, moved all the time --------------------------------------------------------------
def three_groups(parent: objcg.Group) -> list[objcg.Group]:
    """Make three groups below this one."""
    return [objcg.group(f"{parent.path}/{name}") for name in "abc"]


@pytest.mark.timeout(3600)
def test_each_move_by_the_task_itself_is_seen_by_its_next_allocation(
    fresh_group: objcg.Group,
) -> None:
    places = itertools.cycle(three_groups(fresh_group))
    sizes = itertools.cycle((*SIZES, 40))  # four, and three groups: all pairs
    with fast_switching(), Traffic([fresh_group]), fresh_group:
        task = objcg.current_task()
        for group, size in zip(itertools.islice(places, 10 * ROUNDS), sizes, strict=False):
            task.move(group)
            block = BYTE * size
            assert objcg.owner(block) is group
    del block, task
    gc.collect()
    assert_nothing_left(fresh_group)


@pytest.mark.timeout(3600)
def test_each_move_by_another_thread_is_seen_by_the_next_allocation(
    fresh_group: objcg.Group,
) -> None:
    """In turns: a move, then the first allocation after it."""
    groups = three_groups(fresh_group)
    told, moved, seen = (threading.Lock() for _ in range(3))
    for lock in (told, moved, seen):
        lock.acquire()
    tasks: list[objcg.Task] = []
    owners: list[objcg.Group | None] = [None]
    sizes = itertools.cycle((*SIZES, 40))

    def allocate() -> None:
        with fresh_group:
            tasks.append(objcg.current_task())
            told.release()
            for size in sizes:
                moved.acquire()
                block = BYTE * size
                owners[0] = objcg.owner(block)
                seen.release()
                if not tasks:
                    return

    thread = threading.Thread(target=allocate)
    thread.start()
    told.acquire()
    (task,) = tasks
    missed = 0
    for group in itertools.islice(itertools.cycle(groups), 10 * ROUNDS):
        task.move(group)
        moved.release()
        seen.acquire()
        missed += owners[0] is not group
    tasks.clear()
    moved.release()
    thread.join(60)
    assert missed == 0
    gc.collect()
    assert_nothing_left(fresh_group)


# ---- One task on several threads -----------------------------------------------------------------
@dataclass
class Moves:
    """A task, moved through groups; how often a move has begun, and how often one has ended.

    Under the GIL a reader that finds the same two numbers, before and after an allocation, knows
    that no move was under way, and so whose block it has to be: that of `places[done]`.
    """

    task: objcg.Task
    places: list[objcg.Group]  # those of the moves so far
    begun: int = 0
    done: int = 0
    ended: bool = False
    exact: list[int] = field(default_factory=list)

    def move(self, group: objcg.Group) -> None:
        """Move the task."""
        self.places.append(group)
        self.begun += 1
        self.task.move(group)
        self.done += 1

    def replace(self, group: objcg.Group, parent: objcg.Group) -> None:
        """Remove a group; if the task is in it, this moves it to the parent."""
        inside = self.places[-1] is group
        self.places.append(parent if inside else self.places[-1])
        self.begun += 1
        group.remove(force=inside)
        self.done += 1

    def look(self, size: int) -> bool:
        """Allocate; check the owner exactly if no move was under way, and return whether so."""
        done = self.done
        block = BYTE * size
        owner = objcg.owner(block)
        begun = self.begun
        if done == begun:
            assert owner is self.places[done]
            return True
        # Where it was, where it went, or, as these may be removed by now, what they were in.
        possible = {*self.places[done : begun + 2]}
        assert owner in possible | {group.parent for group in possible}
        return False

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Tell those that look when it is over, however it ends."""
        try:
            yield
        finally:
            self.ended = True

    def allocate(self) -> None:
        """Look, until the moves have ended and once more; note how often it was exact."""
        assert objcg.current_task() == self.task
        held: deque[bytes] = deque(maxlen=20)
        known = 0
        for size in itertools.cycle(SIZES):
            last = self.ended
            known += self.look(size)
            held.append(BYTE * size)  # some are still charged when their group is removed
            if last:
                break
        self.exact.append(known)


def on_many_threads(
    context: contextvars.Context, count: int, function: Callable[[], object]
) -> tuple[list[threading.Thread], list[BaseException]]:
    """Make threads that are members of no group but by copies of this context; and their errors."""
    errors: list[BaseException] = []

    def run(copy: contextvars.Context) -> None:
        try:
            copy.run(function)
        except BaseException as error:
            errors.append(error)

    return [threading.Thread(target=run, args=(context.copy(),)) for _ in range(count)], errors


@pytest.mark.timeout(3600)
def test_one_task_on_several_threads_is_moved_on_all_of_them(fresh_group: objcg.Group) -> None:
    groups = three_groups(fresh_group)
    with fresh_group:
        moves = Moves(objcg.current_task(), [fresh_group])
        context = contextvars.copy_context()
    threads, errors = on_many_threads(context, 4, moves.allocate)
    del context
    with fast_switching(), Traffic([fresh_group]):
        for thread in threads:
            thread.start()
        with moves.ending():
            for group in itertools.islice(itertools.cycle(groups), 3 * ROUNDS):
                moves.move(group)
        for thread in threads:
            thread.join(60)
    assert errors == []
    # The last look of each is after the last move, if not others.
    assert len(moves.exact) == 4
    assert min(moves.exact) >= 1
    assert not moves.task.online
    del threads, thread
    gc.collect()
    assert_nothing_left(fresh_group)


@pytest.mark.timeout(3600)
def test_one_task_on_several_threads_is_never_in_a_removed_group(
    fresh_group: objcg.Group,
) -> None:
    """Moved to new groups, which are removed behind it, or under it."""
    with fresh_group:
        moves = Moves(objcg.current_task(), [fresh_group])
        context = contextvars.copy_context()
    threads, errors = on_many_threads(context, 3, moves.allocate)
    del context
    with fast_switching():
        for thread in threads:
            thread.start()
        with moves.ending():
            behind: objcg.Group | None = None
            for number in range(ROUNDS):
                group = objcg.group(f"{fresh_group.path}/{number}")
                moves.move(group)
                if behind is not None:
                    moves.replace(behind, fresh_group)
                behind = group
                if number % 3 == 0:
                    moves.replace(group, fresh_group)
                    behind = None
            if behind is not None:
                moves.replace(behind, fresh_group)
        for thread in threads:
            thread.join(60)
    assert errors == []
    assert len(moves.exact) == 3
    assert min(moves.exact) >= 1
    assert fresh_group.children == ()
    del threads, thread, group, behind
    moves.places.clear()
    gc.collect()
    assert_nothing_left(fresh_group)


# ---- Ids -----------------------------------------------------------------------------------------
def test_an_id_used_again_while_it_is_looked_up_is_not_taken_for_the_new_group(
    fresh_group: objcg.Group,
) -> None:
    """The step that another thread can take between the two halves of ``objcg.owner()``."""
    first = objcg.group(f"{fresh_group.path}/first")
    with first:
        block = BYTE * 40

    def read_gid() -> int:
        gid = _core.owner(block)
        if first.online:
            first.remove()
            names = itertools.count()
            # Records are used again in the order in which they became free.
            while objcg.group(f"{fresh_group.path}/{next(names)}").id != gid:
                pass
        return gid

    assert _registry.member_of(read_gid) is fresh_group
