"""Whatever a region file has, a reader returns a sane tree or one error.

OBJCG_TEST_ROUNDS says how many damages are tried: 3000, in a long run 100000. OBJCG_SEED, printed
with a failure, repeats one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .programs import PROGRAMS, TIMEOUT, environment, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = int(os.environ.get("OBJCG_TEST_ROUNDS", "3000"))
SEED = os.environ.get("OBJCG_SEED", "1")
# Groups of some depth, some of them removed; tasks; stocks of several groups.
BUSY = """
import sys, threading, objcg
objcg.enable()
held = []
done = threading.Barrier(4)
def work(number):
    with objcg.group(f"/tenants/t{number}/requests", max="64M"):
        held.append([bytes(300) for _ in range(200)])
        done.wait()
        threading.Event().wait()
for i in range(40):
    objcg.group(f"/gone/g{i}").remove()
    with objcg.group(f"/many/m{i}/sub"):
        held.append([bytes(100 + i) for _ in range(20)])
for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
done.wait()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def region_file() -> Iterator[Path]:
    """The region file of a process that was killed, in memory: it is written to all the time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield killed(Path(name))


def killed(folder: Path) -> Path:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY],
        env=environment(OBJCG_DIR=str(folder)),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.kill()
        child.wait(TIMEOUT)
    (file,) = folder.iterdir()
    return file


@pytest.mark.timeout(max(300, ROUNDS // 10))
def test_damage_gives_a_sane_tree_or_one_error(region_file: Path) -> None:
    result = subprocess.run(
        [sys.executable, "mutate_region.py", region_file, str(ROUNDS), SEED],
        cwd=PROGRAMS,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    read, refused = map(int, result.stdout.split())
    # both happen: the damage is neither all harmless nor all plain
    assert read > ROUNDS // 20
    assert refused > ROUNDS // 20


def test_the_command_says_it_in_one_line(region_file: Path) -> None:
    with region_file.open("r+b") as file:
        file.seek(96)
        file.write(b"\xff" * 8)
    for verb in ("tree", "autopsy"):
        result = run([sys.executable, "-m", "objcg", verb, region_file])
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"objcg: {region_file}: ")
        assert result.stderr.count("\n") == 1
