"""Contexts used in odd ways, and odd users of the allocator: nothing is lost, nothing crashes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest

import objcg

from .charges import RESIDUE, charge_of_payload, payload, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def test_context_variables_of_the_program_keep_their_values(fresh_group: objcg.Group) -> None:
    """Looking up one variable while another is reset can refill a cache that is being cleared."""
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("v", default="default")
    for turn in range(5000):
        with fresh_group:
            token = variable.set([turn])
            assert variable.get() == [turn]
            variable.reset(token)
            assert variable.get() == "default"
        assert variable.get() == "default"
    assert objcg.current_group() == objcg.root


def test_objcg_adds_one_variable_to_a_context(fresh_group: objcg.Group) -> None:
    before = set(contextvars.copy_context())
    with fresh_group:
        inside = set(contextvars.copy_context())
    assert len(inside - before) <= 1


def test_a_generator_that_holds_a_group_open_across_yield(fresh_group: objcg.Group) -> None:
    """Generators share their caller's context: the caller is in the group too, until it ends."""

    def generate() -> Iterator[list[bytes]]:
        with fresh_group:
            yield payload()
            yield payload()

    generator = generate()
    held = [next(generator)]
    assert objcg.current_group() == fresh_group
    held += generator
    assert objcg.current_group() == objcg.root
    assert fresh_group.tasks == 0
    assert within(0.01, fresh_group.memory.current, 2 * charge_of_payload())


def test_a_generator_that_is_dropped_leaves_its_group(fresh_group: objcg.Group) -> None:
    def generate() -> Iterator[None]:
        with fresh_group:
            yield

    generator = generate()
    next(generator)
    del generator
    gc.collect()
    assert objcg.current_group() == objcg.root
    assert fresh_group.tasks == 0


def test_a_task_that_is_dropped_closes_its_coroutine_as_without_groups(
    fresh_group: objcg.Group,
) -> None:
    """It is closed where its last reference goes: an error there would be taken for the job's."""
    failed: list[Exception] = []

    async def work() -> None:
        while len(failed) < 3:
            try:
                with fresh_group:
                    await asyncio.sleep(3600)
            except Exception as error:
                failed.append(error)

    loop = asyncio.new_event_loop()
    task: Any = loop.create_task(work())
    loop.run_until_complete(asyncio.sleep(0))
    assert fresh_group.tasks == 1
    loop.close()
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert failed == []
    assert (fresh_group.tasks, objcg.current_group()) == (0, objcg.root)


def test_groups_left_out_of_order(fresh_group: objcg.Group) -> None:
    """It cannot be exact who pays then, but nothing is lost, and all is left in the end."""
    first = objcg.group(f"{fresh_group.path}/first")
    second = objcg.group(f"{fresh_group.path}/second")

    def enter_and_leave() -> None:
        first.__enter__()
        second.__enter__()
        held = payload()
        for group in (first, second):
            try:
                group.__exit__(None, None, None)
            except RuntimeError as error:
                assert group.path in str(error)
        del held

    contextvars.copy_context().run(enter_and_leave)
    gc.collect()
    assert objcg.current_group() == objcg.root
    assert 0 <= first.memory.current <= RESIDUE
    assert 0 <= second.memory.current <= RESIDUE
    assert (first.tasks, second.tasks) == (0, 0)


def test_a_task_gets_out_of_a_group_that_an_asynchronous_generator_has_left_elsewhere(
    fresh_group: objcg.Group,
) -> None:
    """asyncio ends one that was dropped in a task of its own, with a copy of the context."""
    outer = objcg.group(f"{fresh_group.path}/outer")
    inner = objcg.group(f"{fresh_group.path}/inner")
    most = 0

    async def generate() -> AsyncIterator[int]:
        with inner:
            for number in range(3):
                yield number

    async def drop_one() -> None:
        async for _ in generate():
            break
        # the generator is ended
        for _ in range(3):
            await asyncio.sleep(0)

    async def work() -> None:
        nonlocal most
        with outer:
            await drop_one()
        assert objcg.current_group() == objcg.root
        # also where there is nothing to leave: entries that are over are not kept
        for _ in range(20):
            await drop_one()
            most = max(most, inner.tasks)
        with outer:
            assert objcg.current_group() == outer
        assert objcg.current_group() == objcg.root

    asyncio.run(work())
    gc.collect()
    assert most == 1
    assert (outer.tasks, inner.tasks) == (0, 0)


def test_whoever_inherited_an_entry_that_was_left_in_a_copy_goes_on_in_it(
    fresh_group: objcg.Group,
) -> None:
    inner = objcg.group(f"{fresh_group.path}/inner")
    seen: list[objcg.Group] = []

    def enter_and_leave() -> None:
        with inner:
            pass
        seen.append(objcg.current_group())

    with pytest.raises(RuntimeError, match="has left it already"), fresh_group:
        heir, copy = contextvars.copy_context(), contextvars.copy_context()
        copy.run(fresh_group.__exit__, None, None, None)
        copy.run(enter_and_leave)
        heir.run(enter_and_leave)
    enter_and_leave()
    assert seen == [objcg.root, fresh_group, objcg.root]


def test_leaving_a_group_that_was_not_entered_is_an_error(fresh_group: objcg.Group) -> None:
    with pytest.raises(RuntimeError):
        fresh_group.__exit__(None, None, None)
    assert objcg.current_group() == objcg.root


def test_greenlets_have_groups_of_their_own(fresh_group: objcg.Group) -> None:
    greenlet = pytest.importorskip("greenlet")
    groups = [objcg.group(f"{fresh_group.path}/{number}") for number in range(3)]
    held: list[list[bytes]] = []

    def work(group: objcg.Group) -> None:
        with group:
            for _ in range(2):
                held.append(payload())
                greenlet.getcurrent().parent.switch()
                assert objcg.current_group() == group

    lets = [greenlet.greenlet(work) for _ in groups]
    for let, group in zip(lets, groups, strict=True):
        let.switch(group)
        assert objcg.current_group() == objcg.root
    for _ in range(2):
        for let in lets:
            let.switch()
            assert objcg.current_group() == objcg.root
    assert all(let.dead for let in lets)
    for group in groups:
        assert within(0.01, group.memory.current, 2 * charge_of_payload())


# ---- Odd users of the allocator ------------------------------------------------------------------


def test_finalisers_that_allocate_are_charged_where_they_run(fresh_group: objcg.Group) -> None:
    kept: list[list[bytes]] = []

    class Allocates:
        def __del__(self) -> None:
            kept.append(payload())

    with objcg.group(f"{fresh_group.path}/first"):
        item = Allocates()
    with objcg.group(f"{fresh_group.path}/second"):
        del item
        gc.collect()
    second = objcg.group(f"{fresh_group.path}/second")
    assert within(0.01, second.memory.current, charge_of_payload())


def test_sizes_from_nothing_to_huge(fresh_group: objcg.Group) -> None:
    """Every size class, its edges, resizing up and down, and alignment to 16 bytes."""
    with fresh_group:
        for size in [*range(1100), 4095, 4096, 4097, 32_767, 32_768, 65_536, 1 << 20, 1 << 24]:
            array = bytearray(b"\x5a") * size
            array += b"\xa5" * 17
            assert array.count(b"\x5a") == size
            del array[size // 2 :]
            assert array == b"\x5a" * (size // 2)
        assert id(object()) % 16 == 0
        assert id(bytes(1000)) % 16 == 0
    del array
    assert 0 <= fresh_group.memory.current <= RESIDUE
