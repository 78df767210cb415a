"""A removed group hands what is still charged to its parent, and leaves nothing behind."""

from __future__ import annotations

import errno
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

import objcg

from .charges import (
    MIB,
    RESIDUE,
    blocks,
    charge_of_bytes,
    charge_of_payload,
    eventually,
    payload,
    resident,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def dying(group: objcg.Group) -> int:
    """Return how many removed groups below this one have something charged still."""
    return group.memory.stat["dying_descendants"]


def test_removing_a_group_with_a_million_blocks_leaves_the_parents_counter_as_it_is(
    fresh_group: objcg.Group,
) -> None:
    count, length = 1_000_000, 40
    child = objcg.group(f"{fresh_group.path}/child")
    blocks(length, 1)  # 3.10 keeps a frame of each code that has run: not the child's, then
    with child:
        held = blocks(length, count)
    before = fresh_group.memory.current
    assert before >= count * charge_of_bytes(length)
    assert fresh_group.memory.stat["blocks"] >= count

    child.remove()
    assert fresh_group.memory.current == before
    assert dying(fresh_group) == 1
    assert objcg.audit().drift == 0
    assert objcg.owner(held[0]) == fresh_group

    held.clear()
    gc.collect()
    assert eventually(lambda: dying(fresh_group) == 0)
    assert 0 <= fresh_group.memory.current <= RESIDUE


def test_what_is_freed_after_several_removals_is_uncharged_from_who_has_it_now(
    fresh_group: objcg.Group,
) -> None:
    path = fresh_group.path
    deepest = objcg.group(f"{path}/1/2/3")
    payload()  # as above
    with deepest:
        held = payload()
    for part, parent in (("/1/2/3", "/1/2"), ("/1/2", "/1"), ("/1", "")):
        before = fresh_group.memory.current
        objcg.group(path + part).remove()
        assert fresh_group.memory.current == before
        assert objcg.owner(held[0]) == objcg.group(path + parent)
    assert within(0.01, fresh_group.memory.current, charge_of_payload())
    held.clear()
    gc.collect()
    assert 0 <= fresh_group.memory.current <= RESIDUE
    assert eventually(lambda: dying(fresh_group) == 0)


def test_a_group_with_nothing_charged_leaves_no_dying_descendant(
    fresh_group: objcg.Group,
) -> None:
    objcg.group(f"{fresh_group.path}/empty").remove()
    assert dying(fresh_group) == 0


def test_the_domains_of_the_parent_are_as_before_too(fresh_group: objcg.Group) -> None:
    child = objcg.group(f"{fresh_group.path}/child")
    with child:
        held = payload()
    before = {name: value for name, value in fresh_group.memory.stat.items() if "dying" not in name}
    child.remove()
    after = {name: value for name, value in fresh_group.memory.stat.items() if "dying" not in name}
    assert after == before
    del held


# ---- Busy, and force -----------------------------------------------------------------------------
def test_a_group_with_a_child_is_busy(fresh_group: objcg.Group) -> None:
    child = objcg.group(f"{fresh_group.path}/child")
    with pytest.raises(objcg.GroupBusy) as caught:
        fresh_group.remove()
    assert caught.value.errno == errno.EBUSY
    assert fresh_group.path in str(caught.value)
    assert child.online
    assert fresh_group.children == (child,)


def test_a_group_with_a_task_is_busy_unless_forced(fresh_group: objcg.Group) -> None:
    child = objcg.group(f"{fresh_group.path}/child")
    with child:
        with pytest.raises(objcg.GroupBusy):
            child.remove()
        assert child.online
        child.remove(force=True)
        assert not child.online
        assert objcg.current_group() == fresh_group
        held = payload()
        assert within(0.02, fresh_group.memory.current, charge_of_payload())
    assert objcg.current_group() == objcg.root
    del held


def test_force_moves_the_tasks_of_other_threads(fresh_group: objcg.Group) -> None:
    child = objcg.group(f"{fresh_group.path}/child")
    inside, removed = threading.Event(), threading.Event()
    seen = []
    held: list[bytes] = []

    def work() -> None:
        with child:
            inside.set()
            removed.wait(20)
            held.extend(payload())
            seen.append(objcg.current_group())

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(20)
    child.remove(force=True)
    removed.set()
    thread.join()
    assert seen == [fresh_group]
    assert within(0.02, fresh_group.memory.current, charge_of_payload())


def test_force_does_not_remove_children(fresh_group: objcg.Group) -> None:
    objcg.group(f"{fresh_group.path}/child")
    with pytest.raises(objcg.GroupBusy):
        fresh_group.remove(force=True)


@pytest.mark.parametrize("force", [False, True])
def test_what_another_thread_does_between_a_refusal_and_its_reason(
    force: bool,
    fresh_group: objcg.Group,
) -> None:
    """It is refused for a child, which is removed before one can look; or the group itself is."""
    child = objcg.group(f"{fresh_group.path}/child")
    remove = fresh_group._remove

    def refuse_and(then: Callable[[], object]) -> Callable[[bool], None]:
        def refuse(forced: bool) -> None:
            try:
                remove(forced)
            finally:
                then()

        return refuse

    busy: Any = fresh_group
    busy._remove = refuse_and(child.remove)
    with pytest.raises(objcg.GroupBusy):
        fresh_group.remove(force=force)

    child = objcg.group(f"{fresh_group.path}/child")
    busy._remove = refuse_and(lambda: (child.remove(), remove(True)))
    with pytest.raises(objcg.GroupRemoved, match=fresh_group.path):
        fresh_group.remove(force=force)


def test_the_root_cannot_be_removed() -> None:
    with pytest.raises(PermissionError):
        objcg.root.remove(force=True)


# ---- What a removed group answers ----------------------------------------------------------------
def test_a_removed_group_says_so(fresh_group: objcg.Group) -> None:
    child = objcg.group(f"{fresh_group.path}/child")
    child.remove()
    assert not child.online
    assert child.path == f"{fresh_group.path}/child"
    operations: list[Callable[[], object]] = [
        child.remove,
        child.__enter__,
        lambda: child.memory.current,
        lambda: child.memory.reclaim(1),
        lambda: setattr(child.memory, "max", MIB),
        lambda: child.run(int),
        lambda: child.on("max", print),
    ]
    for operation in operations:
        with pytest.raises(objcg.GroupRemoved) as caught:
            operation()
        assert caught.value.errno == errno.ENODEV
    assert objcg.current_group() == objcg.root


def test_a_path_can_be_used_again(fresh_group: objcg.Group) -> None:
    path = f"{fresh_group.path}/child"
    first = objcg.group(path, max="8M")
    with first:
        held = payload()[:100]
    first.remove()
    second = objcg.group(path)
    assert second != first
    assert second.uid != first.uid
    assert second.memory.current == 0
    assert second.memory.peak == 0
    assert second.memory.max is None
    with second:
        more = payload()
    del held
    gc.collect()
    assert within(0.01, second.memory.current, charge_of_payload())
    del more


def test_a_tree_is_made_and_removed_from_the_leaves(fresh_group: objcg.Group) -> None:
    paths = [f"{fresh_group.path}/{a}/{b}" for a in range(10) for b in range(10)]
    groups = [objcg.group(path) for path in paths]
    assert len(fresh_group.children) == 10
    for group in groups:
        group.remove()
    for group in fresh_group.children:
        group.remove()
    assert fresh_group.children == ()
    fresh_group.remove()


# ---- Nothing grows -------------------------------------------------------------------------------
def test_100_000_groups_come_and_go_and_memory_stays_flat(fresh_group: objcg.Group) -> None:
    """Records, ids and Python objects are all used again.

    The bound is 2 MiB for 90 000 groups: 23 bytes each, when the smallest thing that could be
    left behind for each, a record of an objcg, has 64.
    """

    def churn(first: int, last: int) -> None:
        for number in range(first, last):
            group = objcg.group(f"{fresh_group.path}/{number}")
            with group:
                bytes(100)
            group.remove()

    churn(0, 10_000)
    gc.collect()
    dying_before = dying(objcg.root)
    before = resident()
    churn(10_000, 100_000)
    gc.collect()
    assert resident() - before <= 2 * MIB
    assert dying(fresh_group) == 0
    assert dying(objcg.root) <= dying_before
    assert fresh_group.children == ()


def test_groups_that_die_charged_come_and_go_too(fresh_group: objcg.Group) -> None:
    """An id that is still charged is not used again, and comes back once it is not."""
    held: list[bytes] = []
    for turn in range(20):
        for number in range(500):
            group = objcg.group(f"{fresh_group.path}/{turn}-{number}")
            with group:
                held.append(bytes(100))
            group.remove()
        assert dying(fresh_group) == len(held)
        held.clear()
        gc.collect()
        assert eventually(lambda: dying(fresh_group) == 0)
