"""``group.run()`` takes what has run when its call returns, and refuses all else."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import types
import unittest.mock
from typing import TYPE_CHECKING, Any

import pytest

import objcg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator


class Later:
    """Whatever is called of it runs later."""

    async def __call__(self) -> None:
        raise AssertionError

    async def method(self) -> None:
        raise AssertionError

    @classmethod
    async def of_class(cls) -> None:
        raise AssertionError


class LaterByPieces:
    def __call__(self) -> Iterator[None]:
        yield


class LaterByAsyncPieces:
    async def __call__(self) -> AsyncIterator[None]:
        yield


async def coroutine(*_: object) -> None:
    raise AssertionError


async def async_generator() -> AsyncIterator[None]:
    yield


def generator(*_: object) -> Iterator[None]:
    yield


@types.coroutine
def by_types() -> Generator[None]:
    yield


LATER: dict[str, Callable[..., object]] = {
    "coroutine": coroutine,
    "method": Later().method,
    "class method": Later.of_class,
    "instance": Later(),
    "method of a method": types.MethodType(types.MethodType(coroutine, 1), 2),
    "partial": functools.partial(coroutine, 1),
    "partial of a partial": functools.partial(functools.partial(coroutine, 1), 2),
    "partial of a method": functools.partial(Later().method),
    "mock": unittest.mock.AsyncMock(),
    "generator": generator,
    "partial generator": functools.partial(generator, 1),
    "async generator": async_generator,
    "types.coroutine": by_types,
    "object of a generator": LaterByPieces(),
    "partial of an object of a generator": functools.partial(LaterByPieces()),
    "object of an async generator": LaterByAsyncPieces(),
    "partial of an object": functools.partial(Later()),
}


@pytest.mark.parametrize("function", LATER.values(), ids=LATER)
def test_what_runs_later_is_refused(
    function: Callable[..., object], fresh_group: objcg.Group
) -> None:
    with pytest.raises(TypeError) as caught:
        fresh_group.run(function)
    told = str(caught.value)
    assert repr(function) in told
    assert "with group:" in told
    # as decorating by the group sees it
    if "generator function" in told:
        with pytest.raises(TypeError, match="generator function"):
            fresh_group(function)
    else:
        assert "@group" in told
        assert inspect.iscoroutinefunction(fresh_group(function))
    assert objcg.current_group() == objcg.root


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect has no marks before 3.12")
def test_what_is_marked_as_a_coroutine_function_is_refused(fresh_group: objcg.Group) -> None:
    def marked() -> object:
        return coroutine()

    # a variable, for type checkers of an older Python
    mark: Any = inspect
    mark.markcoroutinefunction(marked)
    for function in (marked, functools.partial(marked)):
        with pytest.raises(TypeError, match="coroutine function"):
            fresh_group.run(function)


class Hostile:
    """Can be called, and that is all."""

    def __call__(self) -> str:
        return objcg.current_group().path

    def __getattr__(self, name: str) -> object:
        raise ZeroDivisionError


class Endless(functools.partial[str]):
    """One that is around itself."""

    func = property(lambda self: self)  # type: ignore[assignment]


def test_all_that_runs_inside_is_taken(fresh_group: objcg.Group) -> None:
    @functools.wraps(coroutine)
    def wrapper() -> str:
        return objcg.current_group().path

    for function in (Hostile(), functools.partial(Hostile()), Endless(Hostile()), wrapper):
        assert fresh_group.run(function) == fresh_group.path
    assert isinstance(fresh_group.run(Later), Later)
    assert fresh_group.run(unittest.mock.Mock(return_value=3)) == 3
    assert fresh_group.run(unittest.mock.MagicMock(return_value=3)) == 3
    with pytest.raises(TypeError, match="not 'upper'"):
        fresh_group.run("upper")  # type: ignore[arg-type]
    assert fresh_group.run(len, "abc") == 3
    assert fresh_group.run("abc".upper) == "ABC"
    assert fresh_group.run(asyncio.run, asyncio.sleep(0, 3)) == 3


@pytest.mark.parametrize("kind", ["contextmanager", "asynccontextmanager"])
def test_a_context_manager_is_not_decorated(kind: str, fresh_group: objcg.Group) -> None:
    """It would be made in the group, and run nothing there."""
    made = getattr(contextlib, kind)(by_types)
    with pytest.raises(TypeError, match="cannot decorate the context manager"):
        fresh_group(made)
    with pytest.raises(TypeError, match="cannot decorate the context manager"):
        fresh_group(functools.partial(made))


def test_what_a_context_manager_decorates_is_decorated(fresh_group: objcg.Group) -> None:
    """It is a function of contextlib's, too, but runs all of what it decorates."""
    manager = contextlib.contextmanager(generator)
    decorated = fresh_group(manager()(objcg.current_group))
    assert decorated() is fresh_group
    # but a context manager stays one, and a generator one
    for made in (manager(), manager()(manager), manager()(generator)):
        with pytest.raises(TypeError, match="cannot decorate the context manager"):
            fresh_group(made)


def test_what_an_async_context_manager_decorates_is_decorated(fresh_group: objcg.Group) -> None:
    async def current() -> objcg.Group:
        return objcg.current_group()

    manager = contextlib.asynccontextmanager(async_generator)
    assert asyncio.run(fresh_group(manager()(current))()) is fresh_group
