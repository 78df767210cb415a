"""``objcg move`` moves a task of a running process, from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .programs import PROGRAMS, TIMEOUT, environment, objcg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

THREADS = 3


class Served:
    """The program, and the ids of its tasks by the names of their threads."""

    def __init__(self, child: subprocess.Popen[str], folder: Path) -> None:
        self.child = child
        self.folder = folder
        self.ids = dict(zip(("worker", "other", "twin"), self.answers(THREADS), strict=True))

    def answers(self, count: int) -> list[str]:
        assert self.child.stdout is not None
        return [self.child.stdout.readline().strip() for _ in range(count)]

    def ask(self, order: str, what: str = "-") -> str:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{order} {what}\n")
        self.child.stdin.flush()
        return self.answers(1)[0]

    def move(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return objcg("move", self.child.pid, *arguments, folder=self.folder)

    def groups_of_tasks(self) -> dict[str, str]:
        result = objcg("tree", "--tasks", "--json", self.child.pid, folder=self.folder)
        assert (result.returncode, result.stderr) == (0, "")
        return {str(task["id"]): task["group"] for task in json.loads(result.stdout)["tasks"]}


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    with subprocess.Popen(
        [sys.executable, "tenants_on_command.py", *options],
        cwd=PROGRAMS,
        env=environment(OBJCG_DIR=str(folder)),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        try:
            yield Served(child, folder)
        finally:
            child.kill()
            child.wait(TIMEOUT)


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as program:
        yield program
        assert program.ask("drift") == "0"


def assert_refused(result: subprocess.CompletedProcess[str], *words: str, status: int = 1) -> None:
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("objcg: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_the_next_allocation_is_charged_to_the_new_group(served: Served) -> None:
    assert served.ask("allocate", "other") == "/a"
    result = served.move("other", "/b/c")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"task {served.ids['other']} (other) " in result.stdout
    assert "/b/c" in result.stdout
    assert served.ask("allocate", "other") == "/b/c"
    assert served.ask("allocate", "worker") == "/a"
    expected = {served.ids["other"]: "/b/c", served.ids["worker"]: "/a", served.ids["twin"]: "/a"}
    assert served.groups_of_tasks() | expected == served.groups_of_tasks()


def test_a_task_that_allocates_nothing_is_moved_when_anybody_asks(served: Served) -> None:
    result = served.move("--json", served.ids["other"], "/b/c")
    assert json.loads(result.stdout) == {
        "pid": served.child.pid,
        "task": int(served.ids["other"]),
        "name": "other",
        "from": "/a",
        "to": "/b/c",
        "moved": False,
    }
    assert served.ask("where", "other") == "/b/c"
    assert served.groups_of_tasks()[served.ids["other"]] == "/b/c"


def test_a_group_is_empty_once_its_tasks_were_asked_to_leave(served: Served) -> None:
    for name in served.ids.values():
        assert served.move(name, "/b").returncode == 0
    assert served.ask("remove", "/a") == "/b"
    for name in served.ids:
        assert served.ask("allocate", name) == "/b"


def test_back_and_forth(served: Served) -> None:
    for path in ["/b", "/b/c", "/", "/a"] * 3:
        assert served.move("other", path).returncode == 0
        assert served.ask("allocate", "other") == path


def test_a_stopped_process_moves_its_task_when_it_goes_on(served: Served) -> None:
    served.child.send_signal(signal.SIGSTOP)
    result = served.move("other", "/b")
    assert (result.returncode, result.stderr) == (0, "")
    assert "when it allocates next" in result.stdout
    served.child.send_signal(signal.SIGCONT)
    assert served.ask("allocate", "other") == "/b"


def test_a_name_of_two_tasks_is_refused(served: Served) -> None:
    ids = served.ids["worker"], served.ids["twin"]
    assert_refused(served.move("worker", "/b"), "'worker'", *ids)


def test_an_unknown_task_is_named(served: Served) -> None:
    assert_refused(served.move("nobody", "/b"), "'nobody'", "--tasks")
    assert_refused(served.move("4711", "/b"), "'4711'")


def test_an_unknown_group_is_named(served: Served) -> None:
    assert_refused(served.move("other", "/b/x"), "/b/x")


def test_a_wrong_path_is_wrong_use(served: Served) -> None:
    assert_refused(served.move("other", "b"), "'b'", status=2)
    assert_refused(served.move("other", "/b/../c"), "'..'", status=2)


def test_moves_are_refused_where_they_are_forbidden(folder: Path) -> None:
    with serving(folder, "--fixed") as program:
        assert_refused(program.move("other", "/b"), "migration=False")
        assert program.ask("allocate", "other") == "/a"


def test_a_dead_process_has_nothing_to_move(folder: Path) -> None:
    with serving(folder) as program:
        program.child.kill()
        program.child.wait(TIMEOUT)
        assert_refused(program.move("other", "/b"), str(program.child.pid), "ended")
