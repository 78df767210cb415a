"""``objcg run``: an unchanged program, with objcg on."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

import objcg
from objcg import _core, limits
from objcg.memory import check, is_auto, write

from . import preload
from .output import why_unwritable, written
from .parser import CliError, Program, WrongUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from objcg.region import Region

_NO_FOLDER = "the current folder has been deleted"


def run(options: argparse.Namespace, program: Program | None) -> int:
    """Run the program as plain python would; return its exit status."""
    if program is None:
        msg = "nothing to run: give a script, -m MODULE or -c CODE (see 'objcg run --help')"
        raise WrongUse(msg)
    knobs = {
        knob: value for knob in ("max", "high") if (value := getattr(options, knob)) is not None
    }
    # the limit of the process, whatever its groups are
    auto = {"max": knobs.pop("max")} if is_auto(options.max) else {}
    try:
        check(knobs)
    except ValueError as error:
        raise WrongUse(str(error)) from error
    report = None if options.report is None else _writable(options.report)
    if program.kind == "file":
        _check_script(program.target)

    _set_argv(program)
    try:
        objcg.enable()
        group = objcg.group(options.group, **knobs)
        write(objcg.root, check(auto, "/"))
    except ValueError as error:
        raise WrongUse(str(error)) from error
    except (objcg.EnableError, OSError) as error:
        raise CliError(str(error)) from error
    # After enable() and before the program: runs after all that the program leaves to do at exit,
    # and before the region goes away.
    atexit.register(_core.at_root(_report), os.getpid(), as_json=options.json, file=report)

    _core.keep_descriptor()
    group.__enter__()
    objcg.current_task().name = program.target if program.kind != "command" else "-c"
    return _core.run_main(*_set_path(program), *program.arguments)


def see_native(*, wanted: bool) -> None:
    """Have the memory of C libraries charged, too: by starting this command again, if need be."""
    if not wanted:
        _core.forbid_native()
        preload.clean_up()
        return
    why_not = preload.ensure()
    if why_not is not None and sys.stderr is not None:
        # past sys.stderr, in which what cannot be written would stay until the program's end
        with contextlib.suppress(OSError):
            os.write(2, f"objcg: the memory of C libraries is not seen: {why_not}\n".encode())


def _writable(path: str) -> str:
    """Return the absolute path of the report: the program may go to another folder."""
    found = _absolute(path)
    if os.path.isabs(found):
        found = os.path.normpath(found)
        why = why_unwritable(found)
    else:
        why = _NO_FOLDER
    if why is not None:
        raise WrongUse(f"argument --report: cannot write {found!r}: {why}")
    return found


def _check_script(path: str) -> None:
    if path == "-":
        msg = "a program on standard input cannot be run: give a script, -m MODULE or -c CODE"
        raise WrongUse(msg)
    if os.path.isdir(path):
        # "." still is one
        if not os.path.isabs(_absolute(path)):
            raise WrongUse(f"can't open {path!r}: {_NO_FOLDER}")
        return
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        msg = f"can't open file {_absolute(path)!r}: [Errno {error.errno}] {error.strerror}"
        raise WrongUse(msg) from error


def _set_argv(program: Program) -> None:
    # what comes before objcg itself: the interpreter and its options
    own = sys.orig_argv[: len(sys.orig_argv) - (len(sys.argv) - 1)]
    python = own[:-2] if own[-2:] == ["-m", "objcg"] else own[:-1]
    sys.orig_argv = [*python, *program.words]
    first = {"file": program.target, "module": "-m", "command": "-c"}[program.kind]
    sys.argv = [first, *program.arguments]


def _set_path(program: Program) -> tuple[str, str]:
    """Make ``sys.path[0]`` the program's; return its kind and target for the core.

    A folder or a zip file with a ``__main__.py`` is of kind "path": it is on the path itself, even
    where python would put nothing there (-I, -P).
    """
    has_own = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    cwd = _current_folder()
    if has_own and (cwd is not None or sys.modules["__main__"].__spec__ is None):
        # python put the folder of objcg's own script there; or the current one, for -m
        del sys.path[0]
    first: str | None
    if program.kind == "file":
        path = _absolute(program.target)
        if _has_importer(path):
            sys.path.insert(0, path)
            return "path", path
        first = os.path.dirname(os.path.realpath(path))
    elif program.kind == "module":
        path, first = program.target, cwd
    else:
        path, first = program.target, ""
    if has_own and first is not None:
        sys.path.insert(0, first)
    return program.kind, path


def _absolute(path: str) -> str:
    """Return `path` as ``__file__`` and tracebacks have it: `_Py_abspath` does not normalise.

    It stays as it is where the current folder has been deleted.
    """
    return os.path.join(_current_folder() or "", path)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _has_importer(path: str) -> bool:
    """Return whether modules can be imported from `path`, as ``PyImport_GetImporter`` finds out."""
    for hook in sys.path_hooks:
        with contextlib.suppress(ImportError):
            sys.path_importer_cache[path] = hook(path)
            return True
    return False


def _report(pid: int, *, as_json: bool, file: str | None) -> None:
    """Print the tree at the end of the program, and write it to `file`."""
    if os.getpid() != pid:
        # a child of fork() that ends by sys.exit() has our atexit handlers
        return
    # what follows imports and reads; the program may have left no other
    _core.release_descriptor()
    try:
        with _budget_at_rest():
            _report_of(_snapshot(), as_json=as_json, file=file)
    except (OSError, ImportError, MemoryError) as error:
        _print_error(f"objcg: the tree cannot be shown: {type(error).__name__}: {error}")


def _budget_at_rest() -> contextlib.AbstractContextManager[object]:
    """Return what keeps root's max where it is, so that the tree and the budget agree."""
    if limits.measure is None:
        return contextlib.nullcontext()
    from objcg import _budget

    return _budget.at_rest()


def _report_of(region: Region, *, as_json: bool, file: str | None) -> None:
    lines = []
    if file is not None:
        # before the file is opened: it imports
        text = _json(region)
        try:
            with written(file) as out:
                out.write(text + "\n")
        except OSError as error:
            lines.append(f"objcg: cannot write {file!r}: {error.strerror}")
    if as_json:
        lines.append(_json(region))
    else:
        from .table import heading, table

        lines += [heading(region), *_budget_lines(), *table(region)]
    _print_error("\n".join(lines))


def _print_error(text: str) -> None:
    # after what Python itself prints at the end, and not to sys.stderr: the program may have left
    # anything there
    _core.write_at_exit(f"{text}\n".encode(errors="replace"))


def _json(region: Region) -> str:
    import json

    parsed = region.to_json()
    if limits.measure is not None:
        from objcg import _budget

        parsed["budget"] = _budget.to_json()
    return json.dumps(parsed)


def _budget_lines() -> list[str]:
    """Return the line that says what root's max follows, if it is "auto"."""
    if limits.measure is None:
        return []
    from objcg import _budget

    return [_budget.describe()]


def _snapshot() -> Region:
    """Return the state of this process, which may have no region file."""
    from objcg import _location
    from objcg._layout import EVENTS, FLAG_NATIVE, STATS
    from objcg.region import GroupInfo, Region

    groups = []
    for group in _walk(objcg.root):
        try:
            reading = group._read()
        except OSError:
            # removed by a thread that still runs
            continue
        events: dict[str, int] = dict(reading["events"])  # type: ignore[arg-type]
        stat: dict[str, int] = dict(reading["stat"])  # type: ignore[arg-type]
        groups.append(
            GroupInfo(
                path=group.path,
                id=group.id,
                uid=group.uid,
                online=group.online,
                tasks=reading["tasks"],
                current=reading["current"],
                peak=reading["peak"],
                max=reading["max"],
                high=reading["high"],
                low=reading["low"],
                event_counts=tuple(events[event] for event in EVENTS),
                stat_values=tuple(stat[name] for name in STATS),
            )
        )
    startup, startup_shared = _core.startup()
    rss, rss_shared = _location.resident(os.getpid()) or (None, None)
    return Region(
        pid=os.getpid(),
        command=" ".join(sys.orig_argv),
        groups=groups,
        uid=os.geteuid(),
        start_time=_core.start_time(),
        flags=FLAG_NATIVE if _core.native_state() is None else 0,
        python=sys.version.split()[0],
        startup=startup,
        startup_shared=startup_shared,
        rss=rss,
        rss_shared=rss_shared,
    )


def _walk(group: objcg.Group) -> Iterator[objcg.Group]:
    yield group
    for child in group.children:
        yield from _walk(child)
