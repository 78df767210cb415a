"""Where the system gives less: objcg works with that, warns once, or refuses to start."""

from __future__ import annotations

import platform
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .programs import run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

# Allocates in groups, forks, and says what holds.
WORK = """
import os, sys, warnings
import objcg
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    objcg.enable()
groups = []
refused = 0
for number in range({count}):
    try:
        groups.append(objcg.group(f"/g/{{number}}"))
    except OSError as error:
        refused = error.errno
        assert "no room for another group: the file system of /" in error.strerror
        break
held = []
for group in groups[:200]:
    with group:
        held += [bytes(1000), bytes(100_000)]
assert sum(group.memory.current for group in groups[:200]) >= 101_000 * len(groups[:200])
assert objcg.audit().drift == 0
print(len(caught), *[str(one.message)[:26] for one in caught], sep="|")
print(len(groups), refused)
"""
NO_FILE = "1|objcg has no region file ("


def work(count: int = 50, before: str = "", **env: str) -> tuple[str, int, int]:
    """Run it; return what it warned of, how many groups there were, and why there are no more."""
    result = run_python(before + WORK.format(count=count), **env)
    assert (result.returncode, result.stderr) == (0, ""), result
    warned, numbers = result.stdout.splitlines()
    groups, refused = map(int, numbers.split())
    return warned, groups, refused


@contextmanager
def file_system(folder: Path, size: str, *options: str) -> Iterator[Path]:
    """Mount a file system of this size in memory."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size},mode=700", *options))]
    try:
        done = subprocess.run(
            [*mount, "objcg-test", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_at_the_start(tmp_path: Path) -> None:
    """Not one page of the file can be had: it goes on without."""
    with file_system(tmp_path / "full", "4k") as folder:
        (folder / "else").write_bytes(bytes(4096))
        assert work(OBJCG_DIR=str(folder)) == (NO_FILE, 50, 0)
        assert [file.name for file in folder.iterdir()] == ["else"]


def test_a_disk_that_fills_up_while_running(tmp_path: Path) -> None:
    """A new group is refused where its record cannot be kept; nobody gets a SIGBUS."""
    with file_system(tmp_path / "small", "256k") as folder:
        warned, groups, refused = work(count=5000, OBJCG_DIR=str(folder))
        # 512 bytes for a group and 64 for its objcg, of what the file system has
        assert (warned, refused) == ("0", 28)  # ENOSPC
        assert 100 < groups < 256 * 1024 // 576


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with file_system(tmp_path / "fixed", "1m", "ro") as folder:
        assert work(OBJCG_DIR=str(folder)) == (NO_FILE, 50, 0)


def test_a_file_that_is_deleted_while_the_process_runs(folder: Path) -> None:
    """Its memory stays as long as it is mapped. A forked child makes a file of its own."""
    before = """
import os
import objcg
objcg.enable()
os.unlink(objcg._core.region_path())
pid = os.fork()
if pid == 0:
    path = objcg._core.region_path()
    os._exit(not (path is not None and os.path.exists(path)))
assert os.waitpid(pid, 0)[1] == 0
"""
    assert work(count=3000, before=before, OBJCG_DIR=str(folder)) == ("0", 3000, 0)


@pytest.mark.parametrize(
    ("megabytes", "starts"), [(100_000, True), (4096, True), (1024, True), (200, False)]
)
def test_little_address_space(megabytes: int, starts: bool) -> None:
    """`ulimit -v`: the regions become smaller; where nothing is left it is said."""
    before = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({megabytes} << 20, {megabytes} << 20))
"""
    if starts:
        warned, groups, refused = work(before=before)
        assert (warned, groups, refused) == ("0", 50, 0)
        return
    result = run_python(before + WORK.format(count=1))
    assert result.returncode == 1
    assert "EnableError: objcg cannot be enabled: " in result.stderr.splitlines()[-1]


def test_no_descriptor_is_left() -> None:
    """RLIMIT_NOFILE: the file is not made, and nothing of it is kept."""
    before = """
import resource, warnings
import objcg._audit, objcg.errors  # what is imported when it is needed
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
"""
    warned, groups, refused = work(before=before)
    assert (warned, groups, refused) == (NO_FILE, 50, 0)


def test_no_room_for_the_file(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the file would be too large, though nearly all of it is a hole."""
    before = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
"""
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    assert work(before=before, OBJCG_DIR=str(folder)) == (NO_FILE, 50, 0)
    assert list(folder.iterdir()) == []


# A filter of the kernel's (seccomp): `call` fails with `error`, if argument 3 has all of `flags`.
FILTER = """
import ctypes, struct
def refuse(call, error, flags):
    instructions = [
        (0x20, 0, 0, 0), (0x15, 0, 4, call),      # nr of the call
        (0x20, 0, 0, 16 + 8 * 3), (0x54, 0, 0, flags), (0x15, 0, 1, flags),  # argument 3
        (0x06, 0, 0, 0x50000 | error),            # fails
        (0x06, 0, 0, 0x7FFF0000),                 # is done
    ]
    code = b"".join(struct.pack("HBBI", *one) for one in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        raise SystemExit(77)
"""
MMAP, ENOMEM, MAP_SHARED, MAP_NORESERVE = 9, 12, 1, 0x4000


def need_filter() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the filter is written for x86-64")
    if run_python(FILTER + f"refuse({MMAP}, {ENOMEM}, 0x7FFFFFFF)").returncode == 77:
        pytest.skip("the kernel takes no filter (seccomp)")


def test_a_file_that_cannot_be_mapped(tmp_path: Path) -> None:
    need_filter()
    folder = tmp_path / "regions"
    folder.mkdir(mode=0o700)
    before = FILTER + f"refuse({MMAP}, {ENOMEM}, {MAP_SHARED})\n"
    assert work(before=before, OBJCG_DIR=str(folder)) == (NO_FILE, 50, 0)
    assert list(folder.iterdir()) == []


def test_no_mapping_at_all() -> None:
    """Neither file nor memory for the region: it says so, and the program can go on."""
    need_filter()
    before = FILTER + f"refuse({MMAP}, {ENOMEM}, {MAP_NORESERVE})\n"
    code = """
import objcg
try:
    objcg.enable()
except objcg.EnableError as error:
    print(error)
print(objcg.enabled(), len(bytes(1_000_000)))
"""
    result = run_python(before + code)
    assert (result.returncode, result.stderr) == (0, ""), result
    said, rest = result.stdout.splitlines()
    assert said == "objcg cannot be enabled: [Errno 12] Cannot allocate memory"
    assert rest == "False 1000000"


def test_memory_is_not_overcommitted() -> None:
    """With vm.overcommit_memory = 2 what is reserved and not used must not count."""
    setting = Path("/proc/sys/vm/overcommit_memory")
    before = setting.read_text()
    try:
        setting.write_text("2")
    except OSError as error:
        pytest.skip(f"vm.overcommit_memory cannot be set: {error.strerror}")
    try:
        assert work() == ("0", 50, 0)
    finally:
        setting.write_text(before)


USES_UP = """
import resource, sys
megabytes = MEGABYTES
if megabytes:
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
import objcg
objcg.enable()
made = 0
try:
    while True:
        objcg.group(f"/g{made}")
        made += 1
except OSError as error:
    print(error.errno, error.strerror, sep="|")
print(made)
for number in range(10):
    objcg.group(f"/g{number}").remove()
for number in range(10):
    objcg.group(f"/again{number}")
for number in range(10, made):
    objcg.group(f"/g{number}").remove()
print(objcg.audit().drift)
"""


@pytest.mark.parametrize(
    ("megabytes", "least"),
    [
        pytest.param(1024, 4000, id="little address space"),
        # root, and the one that no group has
        pytest.param(None, (1 << 20) - 2, id="a million"),
    ],
)
def test_numbers_of_groups_are_used_up(megabytes: int | None, least: int) -> None:
    """A small region, by a small address space, has room for fewer; those removed count again."""
    result = run_python(USES_UP.replace("MEGABYTES", str(megabytes)))
    assert (result.returncode, result.stderr) == (0, ""), result
    error, made, drift = result.stdout.splitlines()
    assert error.startswith("28|no room for another group: there can be ")  # ENOSPC
    assert f"there can be {int(made) + 1} at a time" in error  # with root
    assert int(made) >= least
    assert drift == "0"
