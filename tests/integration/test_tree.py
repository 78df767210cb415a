"""``objcg tree`` shows the groups of a process that runs, hangs, or is dead."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .charges import charge_of_bytes, within
from .programs import TIMEOUT, environment, is_tree, objcg, started

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = 1000 * charge_of_bytes(1000)
LARGE = 3 * SMALL


@contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program that holds memory in groups; it ends when its standard input is closed."""
    with started(sys.executable, "serve.py", folder=folder) as child:
        yield child


def tree(*arguments: object, folder: Path) -> dict[str, Any]:
    """Run ``objcg tree --json`` and parse what it prints."""
    result = objcg("tree", "--json", *arguments, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def assert_groups_of_the_server(parsed: dict[str, Any]) -> None:
    """Check the groups that serve.py makes."""
    groups = {group["path"]: group for group in parsed["groups"]}
    assert set(groups) == {"/", "/tenants", "/tenants/small", "/tenants/large"}
    small, large = groups["/tenants/small"], groups["/tenants/large"]
    assert within(0.01, small["current"], SMALL)
    assert within(0.01, large["current"], LARGE)
    assert groups["/tenants"]["current"] == small["current"] + large["current"]
    assert groups["/"]["current"] > groups["/tenants"]["current"]
    assert (small["max"], small["high"], small["low"]) == (8 << 20, None, None)
    assert (large["max"], large["high"], large["low"]) == (None, 64 << 20, 1024)
    for group in groups.values():
        assert group["online"] is True
        assert group["peak"] >= group["current"]
        assert all(count == 0 for count in group["events"].values())
    assert groups["/tenants/small"]["tasks"] == 0
    assert within(0.01, small["stat"]["blocks"], 1000)


def test_json_of_a_running_process(folder: Path) -> None:
    with serving(folder) as child:
        parsed = tree(child.pid, folder=folder)
    assert parsed["pid"] == child.pid
    assert parsed["alive"] is True
    assert "serve.py" in parsed["command"]
    assert_groups_of_the_server(parsed)


def test_the_only_process_need_not_be_named(folder: Path) -> None:
    with serving(folder) as child:
        (process,) = tree(folder=folder)["processes"]
    assert process["pid"] == child.pid


def test_a_folder_called_as_the_process_is_not_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /proc, where each process has one."""
    with serving(folder) as child:
        monkeypatch.setenv("OBJCG_DIR", str(folder))
        monkeypatch.chdir("/proc")
        result = subprocess.run(
            [sys.executable, "-m", "objcg", "tree", "--json", str(child.pid)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["pid"] == child.pid


def test_a_stopped_process_can_be_read(folder: Path) -> None:
    with serving(folder) as child:
        child.send_signal(signal.SIGSTOP)
        assert_groups_of_the_server(tree(child.pid, folder=folder))


def test_text_shows_the_largest_first(folder: Path) -> None:
    with serving(folder) as child:
        result = objcg("tree", child.pid, folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert is_tree(result.stdout)
    assert result.stdout.index("large") < result.stdout.index("small")
    assert "8" in next(line for line in result.stdout.splitlines() if "small" in line)


UNSEEN = 32 << 20
HOLDS = f"""
import mmap, sys, objcg
objcg.enable()
with objcg.group("/seen"):
    held = bytearray(b"x") * (24 << 20)
if sys.argv[1] == "mapped":
    unseen = mmap.mmap(-1, {UNSEEN}, mmap.MAP_PRIVATE)
    for at in range(0, {UNSEEN}, 4096):
        unseen[at] = 1
elif sys.argv[1] == "untouched":
    with objcg.group("/untouched"):
        untouched = bytes({UNSEEN})
print("ready", flush=True)
sys.stdin.read()
"""


def holding(what: str, folder: Path) -> dict[str, Any]:
    """Return the tree of a process that holds something that is unaccounted."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, what],
        env=environment(OBJCG_DIR=str(folder)),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        parsed = tree(child.pid, folder=folder)
        child.communicate("", timeout=TIMEOUT)
    return parsed


def test_unaccounted_is_what_objcg_does_not_see(folder: Path) -> None:
    nothing, mapped, untouched = (
        holding(what, folder) for what in ("nothing", "mapped", "untouched")
    )
    for parsed in (nothing, mapped, untouched):
        (root,) = (group for group in parsed["groups"] if group["path"] == "/")
        assert parsed["charged"] == root["current"]
        assert parsed["unaccounted"] == parsed["rss"] - parsed["startup"] - parsed["charged"]
        # the bare interpreter and objcg
        assert 4 << 20 < parsed["startup"] < 64 << 20
    # What the three have in common: modules imported meanwhile, objcg's own tables. The slack is
    # for pages that the kernel counts late.
    common = nothing["unaccounted"]
    assert abs(common) < 8 << 20
    assert abs(mapped["unaccounted"] - common - UNSEEN) < 1 << 20
    # private memory, all of it
    assert abs(mapped["shared"] - nothing["shared"]) < 1 << 20
    # bytes(n) is a calloc(), and of that size a fresh mapping: charged, but no page of it is there
    assert abs(untouched["unaccounted"] - common + UNSEEN) < 1 << 20


def test_text_shows_what_each_group_is_made_of(folder: Path) -> None:
    with serving(folder) as child:
        result = objcg("tree", "--stat", child.pid, folder=folder)
        stat = {g["path"]: g["stat"] for g in tree(child.pid, folder=folder)["groups"]}
    assert (result.returncode, result.stderr) == (0, "")
    usage, table = result.stdout.split("\n\n")
    assert is_tree(usage + "\n")
    heading, *rows = table.splitlines()
    assert heading.split() == [
        *("group", "object", "mem", "raw", "numpy", "native", "mmap", "blocks", "dying"),
    ]
    assert [row.split()[0] for row in rows] == ["/", "tenants", "large", "small"]
    blocks = stat["/tenants/large"]["blocks"]
    assert rows[2].split()[-2:] == [str(blocks), "0"]
    assert "MiB" in rows[2]


def test_the_file_of_a_killed_process_can_be_read(folder: Path) -> None:
    with serving(folder) as child:
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT)
        (file,) = folder.glob(f"{child.pid}-*.region")
    parsed = tree(file, folder=folder)
    assert parsed["alive"] is False
    assert parsed["pid"] == child.pid
    assert (parsed["rss"], parsed["unaccounted"]) == (None, None)
    assert parsed["startup"] > 0
    assert_groups_of_the_server(parsed)
    text = objcg("tree", file, folder=folder).stdout
    assert "(not running)" in text
    assert "RSS" not in text


def test_no_process_at_all_is_an_error(folder: Path) -> None:
    assert objcg("tree", folder=folder).returncode == 1


def test_no_file_is_left_after_a_clean_exit(folder: Path) -> None:
    with serving(folder) as child:
        assert child.stdin is not None
        assert len(list(folder.iterdir())) == 1
        child.stdin.close()
        assert child.wait(TIMEOUT) == 0
    assert list(folder.iterdir()) == []


def test_the_region_is_private(folder: Path) -> None:
    with serving(folder) as child:
        (file,) = folder.glob(f"{child.pid}-*.region")
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("process", [1, 2**31, 10**30, "no/such/file", ""])
def test_what_is_not_a_process_with_objcg_is_an_error(folder: Path, process: object) -> None:
    result = objcg("tree", process, folder=folder)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("objcg: ")


@pytest.mark.parametrize("content", [b"", b"OBJCGRG1", b"no region at all" * 1000])
def test_a_file_that_is_no_region_is_an_error(folder: Path, content: bytes) -> None:
    file = folder / "1-1.region"
    file.write_bytes(content)
    result = objcg("tree", file, folder=folder)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("objcg: ")


def test_a_truncated_region_is_an_error_or_a_part_never_a_crash(folder: Path) -> None:
    with serving(folder) as child:
        (file,) = folder.glob(f"{child.pid}-*.region")
        with file.open("rb") as region:
            start = region.read(64 * 1024)
    for length in (100, 4095, 4096, 5000, 16_384, 65_536):
        copy = folder / "copy.region"
        copy.write_bytes(start[:length])
        result = objcg("tree", "--json", copy, folder=folder)
        assert result.returncode in (0, 1)
        assert "Traceback" not in result.stderr
