"""Inheritance where contexts are not copied: threads, and the jobs of thread pools.

A new thread begins with an empty context, and a pool's thread keeps the one it began with. So the
functions that start threads, and the pool's work items, are wrapped where the standard library
keeps them. What a program sees stays as it was: only the callable that is handed on is replaced,
by one in C that adds no frame to tracebacks.

Pool threads themselves belong to root. They outlive the job they were started for, and an idle
one would keep that job's group from ever being empty. So do the threads by which multiprocessing
hands on what any task sends and receives: an error in one of them, for the limit of the task that
came first, would lose what others sent, and nobody would learn of it.
"""

from __future__ import annotations

import sys

from . import _core, _imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from typing import Any

_POOL = "concurrent.futures.thread"
_OLDER_POOL = "multiprocessing.pool"

# The same function goes by several names, and keeps doing so. The private ones of `threading` are
# what Thread.start() calls: up to Python 3.12 the first, from 3.13 on the second. That module takes
# them from `_thread` when it is imported; if it is not yet, it will find them replaced.
_STARTERS = (
    ("_thread", "start_new_thread"),
    ("_thread", "start_new"),
    ("_thread", "start_joinable_thread"),
    ("threading", "_start_new_thread"),
    ("threading", "_start_joinable_thread"),
)


# Threads that belong to root, by the module of their class: pools that run every job in the context
# of who submitted it, and who hands on the jobs of a ProcessPoolExecutor.
_POOL_THREADS = frozenset(
    {"anyio._backends._asyncio", "anyio._backends._trio", "concurrent.futures.process"}
)
# And by the module of the function that they run.
_POOL_FUNCTIONS = frozenset(
    {
        "multiprocessing.managers",
        _OLDER_POOL,
        "multiprocessing.queues",
        "multiprocessing.resource_sharer",
    }
)


def install() -> None:
    """Make threads and pool jobs inherit. To be called once."""
    wrappers: dict[Any, Any] = {}
    for module_name, name in _STARTERS:
        module = sys.modules.get(module_name)
        original = getattr(module, name, None)
        if original is not None:
            if original not in wrappers:
                wrappers[original] = _Starter(original)
            setattr(module, name, wrappers[original])

    # importing it here would cost every program logging and queue
    _imports.when_imported((_POOL,), _patch_pool)
    _imports.when_imported((_OLDER_POOL,), _patch_older_pool)


class _Starter:
    """Starts a thread as `start` does. An object: a Python function in a class would bind."""

    def __init__(self, start: Callable[..., Any]) -> None:
        self._start = start
        # as functools.update_wrapper() does, for which a program would have to import functools
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            if hasattr(start, name):
                setattr(self, name, getattr(start, name))
        self.__wrapped__ = start

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # anything else is for the original to complain about
        if args and _is_of_pool(args[0]):
            pass
        elif args and callable(args[0]):
            args = (_core.bind_thread(args[0]), *args[1:])
        elif callable(kwargs.get("function")):
            kwargs["function"] = _core.bind_thread(kwargs["function"])
        return self._start(*args, **kwargs)


def _is_of_pool(function: object) -> bool:
    """Return whether this is what a thread of a pool begins with (``Thread._bootstrap``)."""
    thread = getattr(function, "__self__", None)
    if type(thread).__module__ in _POOL_THREADS:
        return True
    # which may be anything
    module = getattr(getattr(thread, "_target", None), "__module__", None)
    return isinstance(module, str) and module in _POOL_FUNCTIONS


def _job(function: Any) -> Any:
    # anything else is for the job itself to complain about
    return _core.bind_job(function) if callable(function) else function


def _patch_pool(module: types.ModuleType) -> None:
    import functools  # which the pool's module has imported

    item = module._WorkItem
    executor = module.ThreadPoolExecutor
    original_init = item.__init__
    adjust_at_root = _core.at_root(executor._adjust_thread_count)

    @functools.wraps(original_init)
    def __init__(  # noqa: N807  # the name shows in tracebacks
        self: Any,
        future: Any,
        fn: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        original_init(self, future, _job(fn), *args, **kwargs)

    @functools.wraps(executor._adjust_thread_count)
    def _adjust_thread_count(self: Any) -> None:
        adjust_at_root(self)

    item.__init__ = __init__
    executor._adjust_thread_count = _adjust_thread_count


def _patch_older_pool(module: types.ModuleType) -> None:
    """Have the jobs of a ThreadPool run as those of a ThreadPoolExecutor do."""
    import functools  # which the pool's module has imported

    pool = module.ThreadPool

    def patch(name: str) -> None:
        original = getattr(pool, name)

        @functools.wraps(original)
        def method(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, _job(func), *args, **kwargs)

        setattr(pool, name, method)

    # the others call these
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        patch(name)
