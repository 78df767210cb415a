"""Allocations without the GIL: the raw domain, from native code and from threads that gave it up.

They are truly at the same time as moves, removals and other allocations. They are charged to the
task that the thread was last seen in, or to root if that has ended, or if there never was one.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from extensions.build import build

import objcg

from .charges import RESIDUE, charge, eventually
from .test_protocol import (
    BYTE,
    ROUNDS,
    SIZES,
    Traffic,
    assert_nothing_left,
    fast_switching,
    three_groups,
)

if TYPE_CHECKING:
    import types
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def nogil(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    """Build and import ``tests/extensions/nogil``."""
    return build("nogil", tmp_path_factory.mktemp("nogil"))


@contextlib.contextmanager
def native(nogil: types.ModuleType) -> Iterator[Any]:
    """Have a worker on a thread that Python has never seen."""
    worker = nogil.Worker()
    worker.start()
    try:
        yield worker
    finally:
        worker.close()
    assert worker.corrupt == 0


@contextlib.contextmanager
def released(
    nogil: types.ModuleType, context: contextvars.Context, tasks: list[objcg.Task] | None = None
) -> Iterator[Any]:
    """Have a worker on a Python thread that gives the GIL up, in a copy of this context."""
    worker = nogil.Worker()

    def serve() -> None:
        task = objcg.current_task()
        if tasks is not None:
            tasks.append(task)
        del task
        worker.serve()

    thread = threading.Thread(target=context.copy().run, args=(serve,))
    thread.start()
    try:
        yield worker
    finally:
        worker.close()
        thread.join(60)
    assert worker.corrupt == 0


def context_in(group: objcg.Group) -> contextvars.Context:
    """Return a context in which a task of this group is current."""
    with group:
        return contextvars.copy_context()


def owners(worker: Any, count: int, size: int) -> set[objcg.Group | None]:
    """Return whom blocks are charged to that the worker allocates now; they are freed again."""
    worker.allocate(count, size)
    return {objcg.owner(block) for block in worker.take()}


def owner_of_new(size: int) -> objcg.Group | None:
    """Return whom a block is charged to that is allocated now, with the GIL."""
    block = BYTE * size
    return objcg.owner(block)


# ---- Whom it is charged to -----------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
def test_a_thread_that_python_does_not_know_charges_root(
    nogil: types.ModuleType, fresh_group: objcg.Group, size: int
) -> None:
    with fresh_group, native(nogil) as worker:  # whoever has started it
        assert owners(worker, 10, size) == {objcg.root}


@pytest.mark.parametrize("size", SIZES)
def test_a_thread_that_gave_up_the_gil_charges_the_group_of_its_task(
    nogil: types.ModuleType, fresh_group: objcg.Group, size: int
) -> None:
    """Wherever it is moved, by a call or by removals, and without taking the GIL in between."""
    a = objcg.group(f"{fresh_group.path}/a")
    b = objcg.group(f"{fresh_group.path}/b")
    inner = objcg.group(f"{fresh_group.path}/b/inner")
    tasks: list[objcg.Task] = []
    with released(nogil, context_in(a), tasks) as worker:
        assert owners(worker, 10, size) == {a}
        worker.allocate(10, size)
        tasks[0].move(inner)
        assert owners(worker, 0, size) == {a}, "what it has stays where it is"
        assert owners(worker, 10, size) == {inner}
        worker.allocate(10, size)
        inner.remove(force=True)
        assert owners(worker, 10, size) == {b}
        b.remove(force=True)
        assert owners(worker, 10, size) == {fresh_group}
        tasks[0].move(objcg.root)
        assert owners(worker, 10, size) == {objcg.root}
    gc.collect()
    assert_nothing_left(fresh_group)


def test_what_it_holds_is_charged_to_the_byte(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    """Everything but the blocks is allocated elsewhere: the task is moved here for them only."""
    tasks: list[objcg.Task] = []
    with released(nogil, context_in(objcg.root), tasks) as worker:
        for size in (24, 512, 513, 8192, 8193, 100_000):
            tasks[0].move(fresh_group)
            worker.allocate(50, size)
            tasks[0].move(objcg.root)
            assert fresh_group.memory.current == 50 * charge(size)
            assert fresh_group.memory.stat["raw"] == 50 * charge(size)
            assert fresh_group.memory.stat["blocks"] == 50
            worker.free()
            assert fresh_group.memory.current == 0
            assert fresh_group.memory.stat["raw"] == 0
            assert fresh_group.memory.stat["blocks"] == 0


def test_a_block_that_moves_when_it_grows_is_charged_to_the_group_its_thread_is_in_now(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    a, b, c = three_groups(fresh_group)
    tasks: list[objcg.Task] = []
    with released(nogil, context_in(objcg.root), tasks) as worker:
        tasks[0].move(a)
        worker.allocate(10, 100)
        assert a.memory.current == 10 * charge(100)
        tasks[0].move(b)
        worker.resize(1000)
        assert (a.memory.current, b.memory.current) == (0, 10 * charge(1000))
        tasks[0].move(c)
        worker.resize(1010)  # where it is: it is still who had it that pays
        assert (b.memory.current, c.memory.current) == (10 * charge(1010), 0)
        b.remove()
        worker.resize(100)
        assert {objcg.owner(block) for block in worker.take()} == {c}
        assert fresh_group.memory.current == 0
    gc.collect()
    assert_nothing_left(fresh_group)


# ---- When the task has ended ---------------------------------------------------------------------
def test_a_native_thread_whose_task_has_ended_charges_root(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    """It came into Python for once, entered the group, and went again: so did its context."""
    tasks: list[objcg.Task] = []

    def enter() -> None:
        fresh_group.__enter__()
        tasks.append(objcg.current_task())

    with native(nogil) as worker:
        worker.call(enter)
        assert not tasks[0].online
        assert fresh_group.tasks == 0
        for size in SIZES:
            assert owners(worker, 10, size) == {objcg.root}
        # Whoever has the record now is another task.
        with fresh_group:
            for size in SIZES:
                assert owners(worker, 10, size) == {objcg.root}


def test_a_native_thread_whose_task_lives_on_elsewhere_still_charges_it(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    tasks: list[objcg.Task] = []
    kept: list[contextvars.Context] = []

    def enter() -> None:
        fresh_group.__enter__()
        tasks.append(objcg.current_task())
        kept.append(contextvars.copy_context())

    with native(nogil) as worker:
        worker.call(enter)
        for size in SIZES:
            assert owners(worker, 10, size) == {fresh_group}
        tasks[0].move(objcg.group(f"{fresh_group.path}/other"))
        for size in SIZES:
            assert owners(worker, 10, size) == {tasks[0].group}
        kept.clear()
        assert not tasks[0].online
        for size in SIZES:
            assert owners(worker, 10, size) == {objcg.root}


# ---- Under fire ----------------------------------------------------------------------------------
@pytest.mark.timeout(3600)
def test_one_task_with_and_without_the_gil_is_moved_through_groups_that_are_removed(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    """Two threads without the GIL and one with it are the same task; a fourth is nobody's.

    After each move, and after each removal, the next block of each is the right group's.
    """
    context = context_in(fresh_group)
    tasks: list[objcg.Task] = []

    with (
        fast_switching(),
        Traffic([fresh_group]),
        released(nogil, context, tasks) as first,
        released(nogil, context) as second,
        native(nogil) as foreign,
    ):
        assert eventually(lambda: tasks)
        (task,) = tasks
        for worker in (first, second, foreign):
            worker.churn(True)
        sizes = itertools.cycle(SIZES)
        for number in range(ROUNDS // 20):
            size = next(sizes)
            group = objcg.group(f"{fresh_group.path}/{number}/inner")
            outer = group.parent
            assert outer is not None
            task.move(group)
            assert owners(first, 1, size) == {group}
            assert owners(second, 1, size) == {group}
            if number % 2:
                task.move(fresh_group)
                group.remove()
            else:
                group.remove(force=True)
                assert owners(second, 1, size) == {outer}
            outer.remove(force=True)
            assert owners(first, 1, size) == {fresh_group}
            assert context.copy().run(owner_of_new, size) is fresh_group
            assert owners(foreign, 1, size) == {objcg.root}
            if number % 10 == 0:
                assert objcg.audit().drift == 0
        operations = [worker.operations for worker in (first, second, foreign)]
    assert min(operations) > 0
    tasks.clear()
    del context, task, group, outer, worker, first, second, foreign
    gc.collect()
    assert_nothing_left(fresh_group)


def move_twice(a: objcg.Group, b: objcg.Group) -> None:
    """Move the own task, and move it again; check where it is."""
    move = objcg.current_task().move
    for _ in range(5 * ROUNDS):
        move(a)
        move(b)
        block = BYTE * 40
        assert objcg.owner(block) is b


@pytest.mark.timeout(3600)
def test_of_two_moves_in_a_row_it_is_the_second_that_counts(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    """Threads without the GIL look the group up for the first while the second comes."""
    a, b, _ = three_groups(fresh_group)
    context = context_in(fresh_group)
    with released(nogil, context) as first, released(nogil, context) as second:
        first.churn(True)
        second.churn(True)
        context.run(move_twice, a, b)
        assert (a.tasks, b.tasks) == (0, 1)
    del context
    assert (a.tasks, b.tasks) == (0, 0)
    gc.collect()
    assert_nothing_left(fresh_group)


@pytest.mark.timeout(3600)
def test_threads_without_the_gil_begin_and_end_while_their_group_is_removed(
    nogil: types.ModuleType, fresh_group: objcg.Group
) -> None:
    for number in range(ROUNDS // 20):
        group = objcg.group(f"{fresh_group.path}/group")
        with contextlib.ExitStack() as stack:
            context = context_in(group)
            workers = [
                stack.enter_context(released(nogil, context)),
                stack.enter_context(released(nogil, context)),
                stack.enter_context(native(nogil)),
            ]
            for worker in workers:
                worker.churn(True)
            if number % 2:
                group.remove(force=True)  # they end in the parent
            workers[0].allocate(5, SIZES[number % 3])
        if group.online:
            context = None
            group.remove()
        assert fresh_group.tasks == 0 or number % 2
    del stack, context, worker, workers, group
    gc.collect()
    assert eventually(lambda: 0 <= fresh_group.memory.current <= RESIDUE)
    assert_nothing_left(fresh_group)
