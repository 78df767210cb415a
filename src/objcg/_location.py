"""Where region files are: the folder, their names, and which processes they belong to.

A folder that others could write to would let them show made-up processes, or have a symbolic link
followed; so it has to be a real directory, ours alone, or it is not used. What is made or removed
in it goes by the descriptor that was checked (here and in src/core/place.c), so that another folder
at its path does not get it.
"""

from __future__ import annotations

import errno
import os
import stat

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Files of dead processes that are kept in a folder for "objcg autopsy".
KEPT = 32
# One forked child of so many looks for files that can go: that takes longer than a fork.
PRUNING = 32

_SUFFIX = ".region"
# Of all users: folders in it are checked in _check().
_SHARED = "/dev/shm"  # noqa: S108
# Where XDG_RUNTIME_DIR is, by user.
_RUNTIME = "/run/user"
# Of the region's header: where updated_ns is. (`_layout` needs a module that programs need not.)
_UPDATED = 192
# Field 3 of /proc/PID/stat, of a process that has ended: a zombie, and one just being taken away.
_ENDED = frozenset({b"Z", b"X"})
# The most digits of a PID, and of a start time.
_PID_DIGITS = 10
_TIME_DIGITS = 20


class RegionFile:
    """A file with the name of a region: `start_time` is field 22 of /proc/PID/stat."""

    def __init__(self, path: str, pid: int, start_time: int) -> None:
        self.path = path
        self.pid = pid
        self.start_time = start_time

    @classmethod
    def named(cls, path: str) -> RegionFile | None:
        """Return the file at `path`; None when no region has such a name."""
        pid, dash, started = os.path.basename(path).removesuffix(_SUFFIX).partition("-")
        if (
            not path.endswith(_SUFFIX)
            or not dash
            or not (pid.isascii() and pid.isdigit() and len(pid) <= _PID_DIGITS)
            or not (started.isascii() and started.isdigit() and len(started) <= _TIME_DIGITS)
            or pid.startswith("0")
        ):
            return None
        return cls(path, int(pid), int(started))


# What opening or reading a file fails with though it may be there.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def folders() -> list[str]:
    """Return where region files may be, the preferred folder first. None need exist."""
    chosen = os.environ.get("OBJCG_DIR")
    if chosen:
        try:
            return [os.path.abspath(chosen)]
        except OSError:
            # the current folder has been deleted, and so what was in it
            return [chosen]
    found = []
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        found.append(os.path.join(runtime, "objcg"))
    found.append(f"{_SHARED}/objcg-{os.geteuid()}")
    return found


def folders_of_others() -> list[tuple[str, int]]:
    """Return where files of other users may be, each with the user; none unless we are root.

    None where OBJCG_DIR says where to look: it may be anywhere for a process.
    """
    if os.geteuid() or os.environ.get("OBJCG_DIR"):
        return []
    found = []
    for parent, before, after in ((_RUNTIME, "", "/objcg"), (_SHARED, "objcg-", "")):
        try:
            names = os.listdir(parent)
        except OSError:
            continue
        users = [name.removeprefix(before) for name in names if name.startswith(before)]
        found += [
            (f"{parent}/{before}{user}{after}", int(user))
            for user in users
            if user.isascii() and user.isdigit() and len(user) <= _PID_DIGITS and user != "0"
        ]
    return found


def make_folder() -> str:
    """Return a folder for region files, made if need be. Raises OSError: none can be used."""
    reasons = []
    for folder in folders():
        try:
            if os.environ.get("OBJCG_DIR"):
                os.makedirs(os.path.dirname(folder), exist_ok=True)
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                pass
            with _Place(folder):
                pass
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "it cannot be written to")
        except OSError as error:  # noqa: PERF203  # of two
            reasons.append(f"{folder}: {error.strerror}")
        else:
            return folder
    raise OSError(errno.EACCES, "; ".join(reasons))


class _Place:
    """`folder`, opened (O_PATH) inside a with statement. Raises OSError unless it is ours alone.

    Or that of `owner`, another user.
    """

    def __init__(self, folder: str, owner: int | None = None) -> None:
        self._folder = folder
        self._owner = os.geteuid() if owner is None else owner

    def __enter__(self) -> int:
        self._fd = os.open(self._folder, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check(os.fstat(self._fd), self._owner)
        except OSError:
            os.close(self._fd)
            raise
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _check(info: os.stat_result, owner: int) -> None:
    if not stat.S_ISDIR(info.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory")
    if info.st_uid != owner:
        msg = f"it belongs to user {info.st_uid}, not to {owner}"
        raise PermissionError(errno.EPERM, msg)
    if info.st_mode & 0o077:
        msg = f"others have access to it (mode {stat.S_IMODE(info.st_mode):04o}); chmod it to 0700"
        raise PermissionError(errno.EPERM, msg)


def check_file(fd: int) -> None:
    """Raise OSError unless `fd`, opened by O_PATH, is a file that may be a region.

    Only its owner and root may look into a process, whatever the mode of its file has become.
    """
    info = os.fstat(fd)
    if stat.S_ISLNK(info.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed")
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    user = os.geteuid()
    if user not in {0, info.st_uid}:
        msg = f"it belongs to user {info.st_uid}: only that user and root may look into the process"
        raise PermissionError(errno.EACCES, msg)


def new_file() -> str:
    """Return the path for this process's region file, which does not exist; prune the folder.

    Raises OSError when there is no folder for it.
    """
    folder = make_folder()
    pid = os.getpid()
    started = start_time(pid)
    if started is None:
        raise OSError(errno.ENOENT, "/proc is not mounted, or hides this process")
    prune(folder)
    path = os.path.join(folder, f"{pid}-{started}{_SUFFIX}")
    # One that exists was left by this very process, before it called exec().
    remove(path)
    return path


def remove(path: str) -> None:
    """Remove the region file at `path`, where there is one in a folder that is ours alone."""
    folder, name = os.path.split(path)
    try:
        with _Place(folder) as place:
            os.unlink(name, dir_fd=place)
    except OSError:
        pass


def child_file(folder: str, start_time: int) -> str:
    """Return the path for this forked child's region file in `folder`, its parent's.

    Unlike `new_file()` it looks at nothing there; but one child of `PRUNING` prunes the folder.
    """
    pid = os.getpid()
    if pid % PRUNING == 0:
        prune(folder)
    return os.path.join(folder, f"{pid}-{start_time}{_SUFFIX}")


def files(
    folder: str, *, owner: int | None = None, shortages: bool = False
) -> Iterator[RegionFile]:
    """Yield the region files in `folder`: nothing when it is not there, or not ours alone.

    Or, with `owner`, not that other user's alone.

    Nor when they cannot be listed for want of descriptors or memory, unless `shortages` is true:
    then that raises OSError, with one of SHORTAGES.
    """
    try:
        with _Place(folder, owner) as place:
            found = _files(place, folder)
    except OSError as error:
        if shortages and error.errno in SHORTAGES:
            raise
        return
    yield from found


def _files(place: int, folder: str) -> list[RegionFile]:
    """Return the region files in the folder that was opened as `place`. Raises OSError."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
    try:
        names = os.listdir(readable)
    finally:
        os.close(readable)
    named = (RegionFile.named(os.path.join(folder, name)) for name in names)
    return [file for file in named if file is not None]


def prune(folder: str, kept: int = KEPT) -> None:
    """Remove the files of dead processes, except the `kept` that were written to last."""
    try:
        with _Place(folder) as place:
            found = _files(place, folder)
            if len(found) > kept:
                _remove_dead(place, found, kept)
    except OSError:
        pass


def _remove_dead(place: int, found: list[RegionFile], kept: int) -> None:
    dead = []
    for file in found:
        name = os.path.basename(file.path)
        try:
            if not is_running(file):
                dead.append((_updated(name, place), name))
        except OSError:
            pass
    dead.sort(reverse=True)
    for _, name in dead[kept:]:
        try:
            os.unlink(name, dir_fd=place)
        except OSError:  # noqa: PERF203  # few are
            pass


def _updated(name: str, place: int) -> tuple[int, int]:
    """Return when a process wrote to its region last, and made it (ns). Raises OSError."""
    # the time of the file is that of its making: the kernel does not see who writes to memory
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=place)
    try:
        return int.from_bytes(os.pread(fd, 8, _UPDATED), "little"), os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def is_running(file: RegionFile) -> bool:
    """Return whether the process that made `file` still runs the program that did.

    Raises OSError when that cannot be known now.
    """
    if start_time(file.pid) != file.start_time:
        return False
    mapped = mapped_files(file.pid)
    # After exec() a process has its old pid and start time, but the region is no longer its.
    return mapped is None or os.path.basename(file.path) in map(os.path.basename, mapped)


def start_time(pid: int) -> int | None:
    """Return field 22 of /proc/`pid`/stat, in clock ticks since boot; None: no such process.

    One that has ended is none, though its parent may not have taken note of that yet (a zombie):
    it has no memory any more, so what it left would look like that of another program.

    Raises OSError when that cannot be known now (no descriptor is left): nobody may take a process
    for dead because of it, and remove its file.
    """
    try:
        text = _core.read_now(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # field 2, the command in brackets, may contain anything
    fields = text[text.rfind(b")") + 1 :].split()
    return None if fields[0] in _ENDED else int(fields[19])


def resident(pid: int, *, shortages: bool = False) -> tuple[int, int] | None:
    """Return the resident set of process `pid` in bytes, as ps shows it; None: no such process.

    And what of it is shared: files that are mapped, and shared memory. Where that cannot be read
    for want of descriptors or memory: None, or with `shortages` an OSError, with one of SHORTAGES.

    From statm and not smaps_rollup, which walks all page tables and keeps the process from
    changing its mappings meanwhile. On Linux 6.2 to 6.16 it may be off by 128 KiB and more a CPU.
    """
    try:
        _, pages, shared, *_ = map(int, _core.read_now(f"/proc/{pid}/statm").split())
    except ValueError:
        return None
    except OSError as error:
        if shortages and error.errno in SHORTAGES:
            raise
        return None
    page = os.sysconf("SC_PAGESIZE")
    return pages * page, shared * page


def mapped_files(pid: int) -> list[str] | None:
    """Return the region files that process `pid` has mapped; None when that cannot be seen."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        if b".region" in line:
            path = os.fsdecode(line.split(None, 5)[-1]).removesuffix(" (deleted)")
            if RegionFile.named(path) is not None and path not in found:
                found.append(path)
    return found
