"""Tasks: one per entry into a group, shared by what inherits it, and movable from any thread."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

import objcg

from .charges import charge_of_payload, payload, within
from .programs import run_python


@dataclass
class Worker:
    """A thread inside a group that allocates a payload each time it is told to."""

    group: objcg.Group
    held: list[list[bytes]] = field(default_factory=list)
    task: objcg.Task | None = None
    current: objcg.Group | None = None
    step: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))
    going: bool = True

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        self.step.wait(20)

    def run(self) -> None:
        """Do what the barrier says, until told to stop."""
        with self.group:
            self.task = objcg.current_task()
            self.step.wait(20)
            while True:
                self.step.wait(20)
                if not self.going:
                    return
                self.held.append(payload())
                self.current = objcg.current_group()
                self.step.wait(20)

    def allocate(self) -> None:
        """Let the thread allocate a payload; return when it has."""
        self.step.wait(20)
        self.step.wait(20)

    def stop(self) -> None:
        """End the thread."""
        self.going = False
        self.step.wait(20)
        self.thread.join(20)


def test_a_task_moved_from_another_thread_charges_its_new_group(fresh_group: objcg.Group) -> None:
    a, b = objcg.group(f"{fresh_group.path}/a"), objcg.group(f"{fresh_group.path}/b")
    worker = Worker(a)
    task = worker.task
    assert task is not None
    try:
        worker.allocate()
        assert worker.current == a
        task.move(b)
        assert task.group == b
        assert (a.tasks, b.tasks) == (0, 1)
        worker.allocate()
        assert worker.current == b
    finally:
        worker.stop()
    assert within(0.02, a.memory.current, charge_of_payload())
    assert within(0.02, b.memory.current, charge_of_payload())


def test_a_task_can_be_moved_there_and_back_many_times(fresh_group: objcg.Group) -> None:
    a, b = objcg.group(f"{fresh_group.path}/a"), objcg.group(f"{fresh_group.path}/b")
    worker = Worker(a)
    assert worker.task is not None
    try:
        for turn in range(20):
            worker.task.move(a if turn % 2 else b)
            worker.allocate()
            assert worker.current == (a if turn % 2 else b)
    finally:
        worker.stop()
    assert within(0.02, a.memory.current, 10 * charge_of_payload())
    assert within(0.02, b.memory.current, 10 * charge_of_payload())


def test_moving_the_own_task_moves_all_that_inherited_it(fresh_group: objcg.Group) -> None:
    a, b = objcg.group(f"{fresh_group.path}/a"), objcg.group(f"{fresh_group.path}/b")

    async def child(moved: asyncio.Event) -> objcg.Group:
        assert objcg.current_group() == a
        await moved.wait()
        return objcg.current_group()

    async def main() -> None:
        moved = asyncio.Event()
        with a:
            children = [asyncio.create_task(child(moved)) for _ in range(3)]
            await asyncio.sleep(0)
            objcg.current_task().move(b)
            assert objcg.current_group() == b
            moved.set()
            assert await asyncio.gather(*children) == [b, b, b]
        assert objcg.current_group() == objcg.root

    asyncio.run(main())


def test_a_task_that_was_moved_still_leaves_to_where_it_came_from(
    fresh_group: objcg.Group,
) -> None:
    inner = objcg.group(f"{fresh_group.path}/inner")
    other = objcg.group(f"{fresh_group.path}/other")
    with fresh_group:
        with inner:
            objcg.current_task().move(other)
        assert objcg.current_group() == fresh_group


def test_a_task_that_has_ended_cannot_be_moved(fresh_group: objcg.Group) -> None:
    with fresh_group:
        task = objcg.current_task()
        assert task.online
    assert not task.online
    with pytest.raises(objcg.GroupRemoved):
        task.move(objcg.root)
    with pytest.raises(objcg.GroupRemoved):
        task.group  # noqa: B018 - it raises


def test_a_task_cannot_be_moved_to_a_removed_group(fresh_group: objcg.Group) -> None:
    gone = objcg.group(f"{fresh_group.path}/gone")
    gone.remove()
    with fresh_group:
        with pytest.raises(objcg.GroupRemoved):
            objcg.current_task().move(gone)
        assert objcg.current_group() == fresh_group


def test_a_task_can_only_be_moved_to_a_group(fresh_group: objcg.Group) -> None:
    with fresh_group, pytest.raises(TypeError, match="/elsewhere"):
        objcg.current_task().move("/elsewhere")  # type: ignore[arg-type]


def test_each_entry_is_a_task_of_its_own(fresh_group: objcg.Group) -> None:
    with fresh_group:
        first = objcg.current_task()
        assert objcg.current_task() == first
        assert fresh_group.tasks == 1
        with fresh_group:
            second = objcg.current_task()
            assert fresh_group.tasks == 2
        assert objcg.current_task() == first
    assert second != first
    assert second.id != first.id
    assert {first, second, first} == {first, second}
    assert fresh_group.tasks == 0


def test_a_task_lives_as_long_as_a_context_carries_it(fresh_group: objcg.Group) -> None:
    worker = Worker(fresh_group)
    task = worker.task
    assert task is not None
    assert task.online
    assert task.group == fresh_group
    worker.stop()
    assert not task.online
    assert fresh_group.tasks == 0


def test_a_task_has_a_name(fresh_group: objcg.Group) -> None:
    with fresh_group:
        task = objcg.current_task()
        task.name = "import of orders"
        assert objcg.current_task().name == "import of orders"
        task.name = "ü" * 40
        assert task.name == "ü" * 31, "cut at 63 bytes, between characters"
        with pytest.raises(TypeError):
            task.name = 3  # type: ignore[assignment]


def test_a_decorated_function_names_its_task(fresh_group: objcg.Group) -> None:
    @fresh_group
    def work() -> str:
        return objcg.current_task().name

    assert work().endswith("work")


def test_without_migration_no_task_can_be_moved() -> None:
    result = run_python("""
        import objcg
        objcg.enable(migration=False)
        a, b = objcg.group("/a"), objcg.group("/b")
        with a:
            try:
                objcg.current_task().move(b)
            except PermissionError as error:
                print(type(error).__name__, isinstance(error, objcg.MigrationForbidden))
            print(objcg.current_group().path)
            held = bytes(1_000_000)
        print(a.memory.current > 1_000_000, b.memory.current)
    """)
    assert result.stdout.split() == ["MigrationForbidden", "True", "/a", "True", "0"]
    assert result.returncode == 0
