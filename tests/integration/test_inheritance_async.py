"""What is started inside a group belongs to it: tasks of asyncio, anyio and trio.

The amounts and the bounds are those of test_inheritance.py.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

import objcg

from .charges import payload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import ThreadPoolExecutor

Held = list[bytes]


def run_coroutine(function: Callable[[], Any], backend: str) -> Any:
    """Run a coroutine function to its end on asyncio or trio."""
    if backend == "asyncio":
        return asyncio.run(function())
    return pytest.importorskip("trio").run(function)


def test_asyncio_task(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    async def child() -> Held:
        await asyncio.sleep(0)
        return payload()

    async def main() -> None:
        with fresh_group:
            task = asyncio.create_task(child())
        charged_once.append(await task)
        assert objcg.current_group() == objcg.root

    asyncio.run(main())


def test_asyncio_to_thread(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    async def main() -> None:
        with fresh_group:
            charged_once.append(await asyncio.to_thread(payload))

    asyncio.run(main())


def test_run_in_executor(
    fresh_group: objcg.Group, pool: ThreadPoolExecutor, charged_once: list[Held]
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with fresh_group:
            own = loop.run_in_executor(None, payload)
            given = loop.run_in_executor(pool, functools.partial(payload))
        charged_once.extend([await own, await given])

    asyncio.run(main())


def test_call_soon_and_call_later(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with fresh_group:
            loop.call_soon(lambda: charged_once.append(payload()))
            loop.call_later(0.001, lambda: charged_once.append(payload()))
            loop.call_later(0.002, done.set_result, None)
        await done

    asyncio.run(main())


def test_async_generator_charges_who_iterates_it(
    fresh_group: objcg.Group, charged_once: list[Held]
) -> None:
    async def generate() -> AsyncIterator[Held]:
        for _ in range(3):
            yield payload()
            await asyncio.sleep(0)

    async def main() -> None:
        generator = generate()
        with fresh_group:
            async for held in generator:
                charged_once.append(held)

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_task(backend: str, fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    anyio = pytest.importorskip("anyio")

    async def child() -> None:
        await anyio.sleep(0)
        charged_once.append(payload())

    async def main() -> None:
        async with anyio.create_task_group() as tasks:  # anyio imports what it needs for one.
            tasks.start_soon(anyio.sleep, 0)
        async with anyio.create_task_group() as tasks:
            with fresh_group:
                tasks.start_soon(child)

    run_coroutine(main, backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_to_thread(backend: str, fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    to_thread = pytest.importorskip("anyio.to_thread")

    async def main() -> None:
        await to_thread.run_sync(int)  # anyio imports what it needs for it.
        with fresh_group:
            charged_once.append(await to_thread.run_sync(payload))

    run_coroutine(main, backend)


def test_trio_task(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    trio = pytest.importorskip("trio")

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        charged_once.append(payload())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with fresh_group:
                nursery.start_soon(child)

    trio.run(main)


def test_trio_to_thread(fresh_group: objcg.Group, charged_once: list[Held]) -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        with fresh_group:
            charged_once.append(await trio.to_thread.run_sync(payload))

    trio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_idle_worker_threads_of_an_event_loop_do_not_keep_a_group_busy(
    backend: str, fresh_group: objcg.Group
) -> None:
    pytest.importorskip("anyio")
    to_thread = pytest.importorskip("anyio.to_thread")

    async def main() -> None:
        with fresh_group:
            await to_thread.run_sync(payload)
        # Another job, so that the worker drops the one before; then it idles.
        assert await to_thread.run_sync(objcg.current_group) == objcg.root
        fresh_group.remove()

    run_coroutine(main, backend)
