"""Nobody but its owner and root looks into a process or steers it; nothing made-up is followed."""

from __future__ import annotations

import json
import os
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
