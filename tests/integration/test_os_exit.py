"""``os._exit()`` takes the region file away, and is what it was in all else."""

from __future__ import annotations

import json
import os
import pickle
import posix
import sys
from typing import TYPE_CHECKING

import pytest

from .programs import objcg, run, run_python

if TYPE_CHECKING:
    from pathlib import Path

START = "import os, signal, sys; import objcg; objcg.enable()\n"


def left(folder: Path) -> list[dict[str, object]]:
    """Return the processes that have left a file, as ``objcg ps`` has them."""
    result = objcg("ps", "--all", "--json", folder=folder)
    processes: list[dict[str, object]] = json.loads(result.stdout)["processes"]
    return processes


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("os._exit(7)", 7),
        ("os._exit(status=7)", 7),
        ("os._exit(True)", 1),
        ("os._exit(-1)", 255),
        ("os._exit(type('I', (), {'__index__': lambda self: 7})())", 7),
        ("import posix; posix._exit(7)", 7),
        ("import threading as t; t.Thread(target=os._exit, args=(7,)).start(); input()", 7),
        ("signal.signal(14, lambda *_: os._exit(7)); os.kill(os.getpid(), 14); input()", 7),
        ("import atexit; atexit.register(os._exit, 7)", 7),
        ("import atexit; objcg; atexit.register(lambda: os._exit(7)); sys.exit(3)", 7),
        ("group = objcg.group('/a')\nwith group: os._exit(7)", 7),
    ],
)
def test_nothing_is_left(code: str, status: int, folder: Path) -> None:
    for command in ([sys.executable], [sys.executable, "-m", "objcg", "run"]):
        result = run([*command, "-c", START + code], env={"OBJCG_DIR": str(folder)})
        assert (result.returncode, result.stdout, result.stderr) == (status, "", "")
        assert list(folder.iterdir()) == []


def test_forked_children_leave_nothing_and_their_parent_keeps_its_file(folder: Path) -> None:
    code = """
for i in range(50):
    child = os.fork()
    if child == 0:
        if i % 2 and os.fork() == 0:
            os._exit(0)
        os._exit(3)
    assert os.waitpid(child, 0)[1] == 3 << 8
while len(os.listdir(os.environ["OBJCG_DIR"])) > 1:
    pass  # children of children end when they do
print(*os.listdir(os.environ["OBJCG_DIR"]), os.getpid(), objcg.audit().drift)
"""
    result = run_python(START + code, OBJCG_DIR=str(folder))
    assert result.stderr == ""
    name, pid, drift = result.stdout.split()
    assert name.startswith(f"{pid}-")
    assert drift == "0"
    assert list(folder.iterdir()) == []


def test_a_child_that_was_forked_behind_pythons_back_does_not_take_its_parents(
    folder: Path,
) -> None:
    # it has the mapping of its parent, and the hooks of os.fork() have not run
    code = """
import ctypes
libc = ctypes.PyDLL(None)
forks = [libc.fork]
if os.uname().machine == "x86_64":
    # past the handlers of pthread_atfork(), too: clone(SIGCHLD), by its number
    forks.append(lambda: libc.syscall(56, 17, 0, 0, 0, 0))
for fork in forks:
    child = fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print(len(os.listdir(os.environ["OBJCG_DIR"])))
from objcg import region
found = region.read(region.find(os.getpid()))
print(found.state)
"""
    result = run_python(START + code, OBJCG_DIR=str(folder))
    assert (result.stdout.split(), result.stderr) == (["1", "running"], "")


def test_no_memory_and_a_limit_do_not_matter(folder: Path) -> None:
    code = """
import resource
group = objcg.group("/full", max="2M")
held = []
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, -1))
with group:
    try:
        while True:
            held.append(bytes(1000))
    except MemoryError:
        os._exit(7)
"""
    result = run_python(START + code, OBJCG_DIR=str(folder))
    assert (result.returncode, result.stdout, result.stderr) == (7, "", "")
    assert list(folder.iterdir()) == []


def test_with_no_descriptor_left_the_file_says_that_it_exited(folder: Path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os._exit(7)
"""
    result = run_python(START + code, OBJCG_DIR=str(folder))
    assert (result.returncode, result.stderr) == (7, "")
    (process,) = left(folder)
    assert process["state"] == "exited"


# Prints all by which a program could tell.
LOOKS = """
import os, inspect
f = os._exit
print([repr(f), f.__name__, f.__qualname__, f.__module__, f.__self__, f.__doc__])
print([f.__text_signature__, inspect.signature(f), type(f), dir(f)])
"""


def test_it_is_the_function_that_it_was() -> None:
    assert run_python("import objcg; objcg.enable()" + LOOKS).stdout == run_python(LOOKS).stdout
    # this process has objcg on
    assert posix._exit is os._exit
    assert pickle.loads(pickle.dumps(os._exit)) is os._exit


@pytest.mark.parametrize(
    "call",
    [
        *("'x'", "", "1, 2", "1.0", "None", "2 ** 31", "-2 ** 31 - 1", "2 ** 80"),
        *("state=1", "1, status=1", "status='x'"),
        "type('I', (), {'__index__': lambda self: 1 // 0})()",
    ],
)
def test_a_wrong_call_is_the_same_error_and_nothing_else(call: str, folder: Path) -> None:
    code = f"""
import os, sys
if "on" in sys.argv:
    import objcg
    objcg.enable()
try:
    os._exit({call})
except Exception as error:
    print(repr(error))
if "on" in sys.argv:
    assert len(os.listdir(os.environ["OBJCG_DIR"])) == 1
    assert objcg.region.read(objcg.region.find(os.getpid())).state == "running"
"""
    code = code.replace("    import objcg\n", "    import objcg, objcg.region\n")
    plain, ours = (
        run([sys.executable, "-c", code, *words], env={"OBJCG_DIR": str(folder)})
        for words in ([], ["on"])
    )
    assert plain.stdout.count("Error") == 1
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, plain.stdout, "")
