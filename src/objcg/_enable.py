"""Switching objcg on, what has to be done for it at fork and exit, and the region's file."""

from __future__ import annotations

import atexit
import os
import sys
from _thread import allocate_lock

from . import _core, _imports, _inherit, _location, _numpy, _registry, limits
from .errors import EnableError
from .group import Group
from .task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

_OLDEST = (3, 10)
_NEWEST = (3, 13)

# The room for it in the region's header, in bytes of UTF-8.
_COMMAND_BYTES = 3072

_lock = allocate_lock()
# What enable() was called with; None before.
_migration: bool | None = None
_warned = False
# Where this process's region file is, and those of its children will be; None without one.
_folder: str | None = None


def enabled() -> bool:
    """Return whether objcg is on in this process."""
    return _core.enabled()


def enable(*, migration: bool = True) -> None:
    """Switch objcg on in this process, for good; a second call does nothing.

    From here on every allocation is charged to the group of the task that makes it. What was
    allocated before is in no group.

    `migration=False` forbids `Task.move`: tasks then stay in the group they entered.

    Raises EnableError where it cannot work, and when it is on already with the other `migration`.
    Warns (RuntimeWarning) when the region file cannot be made: then all works, but no other
    process can look.
    """
    global _migration  # noqa: PLW0603
    with _lock:
        if _migration is not None:
            if _migration != bool(migration):
                msg = (
                    f"objcg is already enabled with migration={_migration}; this cannot be changed "
                    f"to {bool(migration)} in the same process"
                )
                raise EnableError(msg)
            return
        _check_platform()
        no_file = _install(migration=bool(migration))
        _migration = bool(migration)
        _registry.begin(Group)
        _inherit.install()
        atexit.register(_core.at_root(_at_exit))
        _leave_with_os_exit()
        os.register_at_fork(after_in_child=_after_fork)
        _imports.when_imported(("multiprocessing.util",), _leave_with_multiprocessing)
        _imports.when_imported(("greenlet._greenlet",), _core.guard_greenlet)
        # last, as no_file below: under -W error it raises
        _numpy.install()
    if no_file is not None:
        _warn(no_file)


def _check_platform() -> None:
    # a variable: type checkers would take the rest for unreachable elsewhere
    platform = sys.platform
    if platform != "linux":
        msg = f"objcg works on Linux only; this is {platform}"
        raise EnableError(msg)
    version = sys.version_info[:2]
    if sys.implementation.name != "cpython" or not _OLDEST <= version <= _NEWEST:
        msg = (
            f"objcg works on CPython 3.10 to 3.13; this is {sys.implementation.name} "
            f"{version[0]}.{version[1]}"
        )
        raise EnableError(msg)
    if "t" in sys.abiflags:
        msg = (
            "objcg does not work on a free-threaded build of Python, whose garbage collector needs "
            "Python's own allocator; use the default build"
        )
        raise EnableError(msg)

    import _tracemalloc  # light, but of no use to anything else here

    if _tracemalloc.is_tracing():
        msg = (
            "tracemalloc is already tracing, and its stop() would remove objcg's hooks: call "
            "tracemalloc.stop() first (or unset PYTHONTRACEMALLOC, -X tracemalloc), and start it "
            "after objcg.enable() if you need it"
        )
        raise EnableError(msg)


def _install(*, migration: bool) -> OSError | None:
    """Install the core; return why there is no region file, or None when there is one."""
    global _folder  # noqa: PLW0603
    try:
        _core.set_task_type(Task)
        _core.set_policy(limits.over, limits.service)
        try:
            path = _location.new_file()
            _core.install(path, migration, _command())
            _folder = os.path.dirname(path)
        except OSError as error:
            _core.install(None, migration, _command())
            return error
    except (RuntimeError, OSError) as error:
        msg = f"objcg cannot be enabled: {error}"
        raise EnableError(msg) from error
    return None


def _command() -> str:
    text = " ".join(sys.orig_argv).encode(errors="replace")
    return text[:_COMMAND_BYTES].decode(errors="ignore")


def _warn(error: OSError) -> None:
    """Say once, for the caller of enable(), why no other process can look."""
    global _warned  # noqa: PLW0603
    if _warned:
        return
    _warned = True
    text = (
        f"objcg has no region file ({error.strerror or error}): limits work, but 'objcg tree' and "
        "the like cannot look into this process; set OBJCG_DIR to a folder of yours with mode 0700"
    )
    try:
        import warnings
    except (OSError, ImportError):
        # a fork with no descriptor left: it can be said all the same
        if sys.stderr is not None:
            try:
                sys.stderr.write(f"RuntimeWarning: {text}\n")
            except (OSError, ValueError):
                # full or closed
                pass
        return
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def _at_exit() -> None:
    """Stop the reclaimer, and take the file away: only those of killed processes are kept."""
    _core.stop_reclaimer()
    _core.mark_exited()
    path = _core.region_path()
    if path is not None:
        _location.remove(path)


def _leave_with_os_exit() -> None:
    """Have the file taken away by ``os._exit()``, too, which is how forked children end."""
    import posix

    original = posix._exit
    exit_now = _core.wrap_exit(original)
    if exit_now is not None:
        # `os` has it from there, unless somebody has put something else in its place
        for module in (posix, os):
            if module._exit is original:
                setattr(module, "_exit", exit_now)  # noqa: B010  # mypy: it is no variable


def _after_fork() -> None:
    no_file = _move_out()
    limits.restart_in_child()
    if no_file is not None:
        # last: under -W error it raises
        _warn(no_file)


def _move_out() -> OSError | None:
    """Give a forked child a region file of its own; return why it has none, or None."""
    global _folder  # noqa: PLW0603
    if _folder is not None and (started := _core.start_time()):
        try:
            _core.after_fork_child(_location.child_file(_folder, started))
        except OSError:
            # the folder has gone, or /proc cannot be read: look anew
            pass
        else:
            return None
    try:
        path = _location.new_file()
        _core.after_fork_child(path)
    except OSError as error:
        _folder = None
        _core.after_fork_child(None)
        return error
    _folder = os.path.dirname(path)
    return None


class _Exit:
    """What multiprocessing hangs the registration of `_at_exit` on."""


_exit = _Exit()


def _leave_with_multiprocessing(util: types.ModuleType) -> None:
    """Have `_at_exit` called at the end of a multiprocessing child, which skips `atexit`.

    Once, when `multiprocessing.util` is loaded: children inherit what is registered there.
    """
    util.register_after_fork(_exit, lambda _: util.Finalize(None, _at_exit, exitpriority=-(2**31)))
