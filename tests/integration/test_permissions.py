"""Nobody but its owner and root looks into a process or steers it; nothing made-up is followed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .programs import objcg, run
from .test_tree import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

# What is imported after setuid() may be in a folder that the other user cannot read.
AS_NOBODY = """
import os, sys
import objcg.cli.autopsy, objcg.cli.ps, objcg.cli.set, objcg.cli.tree
from objcg.cli import main, parser
parser.build_parser().parse_args(["ps"])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder for region files, that others can come by."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        folder = Path(name, "regions")
        folder.mkdir(mode=0o700)
        yield folder


def as_nobody(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY, *map(str, arguments)]
    return run(command, env={"OBJCG_DIR": str(folder)})


def max_of_root(pid: int, folder: Path) -> int | None:
    groups = json.loads(objcg("tree", "--json", pid, folder=folder).stdout)["groups"]
    limit: int | None = groups[0]["max"]
    return limit


@pytest.mark.parametrize("mode", [0o700, 0o755])
@pytest.mark.parametrize("verb", ["tree", "set", "autopsy"])
def test_another_user_is_refused(verb: str, mode: int, open_folder: Path) -> None:
    extra = ["/", "max=1"] if verb == "set" else []
    with serving(open_folder) as child:
        (file,) = open_folder.iterdir()
        # in the second round the file alone has to keep him out, and its mode was changed, too
        open_folder.chmod(mode)
        file.chmod(0o600 if mode == 0o700 else 0o666)
        by_pid = as_nobody(verb, child.pid, *extra, folder=open_folder)
        by_file = as_nobody(verb, file, *extra, folder=open_folder)
        open_folder.chmod(0o700)
        assert max_of_root(child.pid, open_folder) is None
    for result in (by_pid, by_file):
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("objcg: ")
        assert result.stderr.count("\n") == 1
    assert f"process {child.pid} belongs to user 0" in by_pid.stderr
    why = "Permission denied" if mode == 0o700 else "belongs to user 0"
    assert why in by_file.stderr


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_users_processes_are_not_listed(mode: int, open_folder: Path) -> None:
    with serving(open_folder):
        open_folder.chmod(mode)
        result = as_nobody("ps", "--json", folder=open_folder)
    assert (result.returncode, json.loads(result.stdout)) == (0, {"processes": []})


@pytest.mark.parametrize("what", ["link", "fifo", "folder"])
def test_what_somebody_puts_in_the_place_of_a_file_is_not_followed(
    what: str, folder: Path, tmp_path: Path
) -> None:
    with serving(folder) as child:
        (file,) = folder.iterdir()
        aside = tmp_path / file.name
        file.rename(aside)
        if what == "link":
            file.symlink_to(aside)
        elif what == "fifo":
            os.mkfifo(file)
        else:
            file.mkdir()
        for arguments in (["tree", file], ["set", file, "/", "max=1"]):
            result = objcg(*arguments, folder=folder)
            assert (result.returncode, result.stdout) == (1, "")
            assert result.stderr.startswith(f"objcg: {file}: it is ")
        # by its number the process is found all the same: by what it has mapped
        file.rmdir() if what == "folder" else file.unlink()
        assert max_of_root(child.pid, folder) is None


SWAPS = """
import ctypes, os, sys
AT_FDCWD, RENAME_EXCHANGE = -100, 2
folder, link = map(os.fsencode, sys.argv[1:])
swap = ctypes.CDLL(None).renameat2
print("ready", flush=True)
while swap(AT_FDCWD, folder, AT_FDCWD, link, RENAME_EXCHANGE) == 0:
    pass
"""

STARTS_AND_FORKS = """
import os, sys, warnings
warnings.simplefilter("ignore")
import objcg
from objcg import _location
objcg.enable()
for _ in range(20):
    pid = os.fork()
    if not pid:
        os._exit(0 if objcg.audit().drift == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    _location.prune(os.environ["OBJCG_DIR"], kept=0)
"""


def test_a_link_put_in_the_folders_place_at_any_moment_leads_nowhere(tmp_path: Path) -> None:
    """Between what is asked about the folder and what is done in it, somebody swaps it."""
    folder, victim, link = tmp_path / "regions", tmp_path / "victim", tmp_path / "link"
    for path in (folder, victim):
        path.mkdir(mode=0o700)
    link.symlink_to(victim)
    # dead processes' files, by their names: what pruning would remove
    precious = {f"{4_100_000 + number}-1.region": bytes([number]) for number in range(5)}
    for name, content in precious.items():
        (victim / name).write_bytes(content)
    swapping = subprocess.Popen(
        [sys.executable, "-c", SWAPS, str(folder), str(link)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == "ready\n"
        for _ in range(10):
            result = run([sys.executable, "-c", STARTS_AND_FORKS], env={"OBJCG_DIR": str(folder)})
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert swapping.poll() is None
    finally:
        swapping.kill()
        swapping.communicate()
    assert {path.name: path.read_bytes() for path in victim.iterdir()} == precious


def test_a_folder_that_is_a_link_is_not_used(folder: Path, tmp_path: Path) -> None:
    with serving(folder):
        link = tmp_path / "link"
        link.symlink_to(folder)
        result = objcg("ps", "--json", folder=link)
    assert json.loads(result.stdout) == {"processes": []}


DIES = """
import os, sys
import objcg
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
objcg.enable()
with objcg.group("/tenants"):
    held = bytes(5 << 20)
print(os.getpid(), objcg._core.region_path(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def died() -> Iterator[tuple[int, Path]]:
    """A process of another user that was killed, and its file, where they are by default."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    environment = {"OBJCG_DIR": "", "XDG_RUNTIME_DIR": ""}
    result = run([sys.executable, "-c", DIES], env=environment)
    assert result.stderr == ""
    pid, path = result.stdout.split()
    try:
        yield int(pid), Path(path)
    finally:
        Path(path).unlink()
        # others' files may be there
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()


def autopsy_by_root(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "objcg", "autopsy", *map(str, arguments)]
    return run(command, env={"OBJCG_DIR": "", "XDG_RUNTIME_DIR": ""})


def test_root_finds_what_another_users_process_has_left(died: tuple[int, Path]) -> None:
    pid, path = died
    assert path.parent == Path("/dev/shm/objcg-65534")
    result = autopsy_by_root(pid)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"pid {pid}  ")
    assert "largest: /tenants, 5." in result.stdout
    # where it is told where to look, it looks there
    result = objcg("autopsy", pid, folder=path.parent)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"does, in {path.parent}; of what it left elsewhere, name the file" in result.stderr


def test_root_is_not_shown_what_a_user_has_made_up(died: tuple[int, Path]) -> None:
    pid, path = died
    shm = Path("/dev/shm")
    theirs = shm / "objcg-65533"
    data = path.read_bytes()

    def made(folder: Path, owner: int) -> None:
        folder.mkdir(mode=0o700)
        copy = folder / path.name
        copy.write_bytes(data)
        os.chown(copy, owner, owner)
        os.chown(folder, owner, owner)

    try:
        # of a second user: which of the two is true nobody knows
        made(theirs, 65533)
        result = autopsy_by_root(pid)
        assert (result.returncode, result.stdout) == (1, "")
        assert "several users" in result.stderr
        assert str(path) in result.stderr
        assert str(theirs / path.name) in result.stderr
        assert autopsy_by_root(path).returncode == 0

        # a folder with the name of another user's, and one that others can write to
        os.chown(theirs, 65532, 65532)
        assert autopsy_by_root(pid).returncode == 0
        os.chown(theirs, 65533, 65533)
        theirs.chmod(0o777)
        assert autopsy_by_root(pid).returncode == 0
        # a link in the place of the folder
        moved = theirs.rename(shm / "objcg-test-moved")
        moved.chmod(0o700)
        theirs.symlink_to(moved)
        os.chown(theirs, 65533, 65533, follow_symlinks=False)
        assert autopsy_by_root(pid).returncode == 0
    finally:
        if theirs.is_symlink():
            theirs.unlink()
        for folder in (theirs, shm / "objcg-test-moved"):
            shutil.rmtree(folder, ignore_errors=True)


def test_others_are_not_shown_what_another_users_process_has_left(died: tuple[int, Path]) -> None:
    pid, path = died
    code = AS_NOBODY.replace("65534", "65533")
    for process in (pid, path):
        command = [sys.executable, "-c", code, "autopsy", str(process)]
        result = run(command, env={"OBJCG_DIR": "", "XDG_RUNTIME_DIR": ""})
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
