"""Inheritance where contexts are not copied: threads, and the jobs of thread pools.

A new thread begins with an empty context, and a pool's thread keeps the one it began with. So the
functions that start threads, and the pool's work items, are wrapped where the standard library
keeps them. What a program sees stays as it was: only the callable that is handed on is replaced,
by one in C that adds no frame to tracebacks.

Pool threads themselves belong to root. They outlive the job they were started for, and an idle
one would keep that job's group from ever being empty. So do the threads by which multiprocessing
hands on what any task sends and receives: an error in one of them, for the limit of the task that
came first, would lose what others sent, and nobody would learn of it.

Forked worker processes of a pool belong to whoever made the pool. CPython forks some at the first
job, in the context of who submitted it, and others on a thread of the pool's own, when they replace
one that has ended: left to themselves the former would run everybody's jobs under the limit of one
submitter, and the latter under none.
"""

from __future__ import annotations

import sys

from . import _core, _imports, _registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from typing import Any

    from .group import Group

_POOL = "concurrent.futures.thread"
_OLDER_POOL = "multiprocessing.pool"
_PROCESS_POOL = "concurrent.futures.process"

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
_POOL_THREADS = frozenset({"anyio._backends._asyncio", "anyio._backends._trio", _PROCESS_POOL})
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
    _imports.when_imported((_PROCESS_POOL,), _patch_process_pool)


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
    """Have the jobs of a ThreadPool run as those of a ThreadPoolExecutor do; and Pool's workers."""
    import functools  # which the pool's module has imported

    _patch_workers(module, module.Pool, "_setup_queues", "_inqueue", "worker")
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


def _patch_process_pool(module: types.ModuleType) -> None:
    executor = module.ProcessPoolExecutor
    _patch_workers(module, executor, "__init__", "_call_queue", "_process_worker")


def _patch_workers(
    module: types.ModuleType, pool: type, making: str, queue: str, worker: str
) -> None:
    """Have the forked workers of a pool begin in the group of whoever made it.

    It is noted on the queue that the method `making` makes, and that a worker gets as its first
    argument: a forked one gets that very object, others a copy without the note.
    """
    import functools

    original_making = getattr(pool, making)
    original_worker = getattr(module, worker)

    @functools.wraps(original_making)
    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        original_making(self, *args, **kwargs)
        getattr(self, queue)._objcg_maker = _registry.member_of(_core.current_gid)

    @functools.wraps(original_worker)
    def work(queue: Any, *args: Any, **kwargs: Any) -> Any:
        group: Group | None = getattr(queue, "_objcg_maker", None)
        if group is None:
            return original_worker(queue, *args, **kwargs)
        # what is charged to a removed one is its parent's
        while not group.online and group.parent is not None:
            group = group.parent
        if group.parent is None:
            return _core.at_root(original_worker)(queue, *args, **kwargs)
        return group._run_named(worker, original_worker, (queue, *args), kwargs)

    setattr(pool, making, make)
    setattr(module, worker, work)
