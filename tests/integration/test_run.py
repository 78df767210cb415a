"""``objcg run`` runs a program as plain ``python`` does: same output, same exit status."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

import pytest

from .programs import OBJCG, PROGRAMS, PYTHON, is_tree, run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ADDRESS = re.compile(r"0x[0-9a-f]+")


def assert_same(
    arguments: Sequence[str | Path],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path = PROGRAMS,
    ran: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program by python and by ``objcg run``; return what the latter did, without its tree.

    What the program writes to stderr comes first, all of it, and then comes the tree. There may
    be none when a signal has killed the program, or it could not even start (not `ran`).
    """
    plain = run([*PYTHON, *arguments], stdin=stdin, env=env, cwd=cwd)
    under = run([*OBJCG, *arguments], stdin=stdin, env=env, cwd=cwd)
    assert ADDRESS.sub("0x", under.stdout) == ADDRESS.sub("0x", plain.stdout)
    assert under.returncode == plain.returncode, (plain, under)
    expected, actual = ADDRESS.sub("0x", plain.stderr), ADDRESS.sub("0x", under.stderr)
    assert actual[: len(expected)] == expected
    tree = actual[len(expected) :]
    assert is_tree(tree) or (not tree and (plain.returncode < 0 or not ran)), tree
    under.stderr = expected
    return under


# ---- Exit status, exceptions, signals ------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("fall-off", 0),
        ("none", 0),
        ("zero", 0),
        ("seven", 7),
        ("text", 1),
        ("empty-text", 1),
        ("tuple", 1),
        ("negative", 255),
        ("beyond", 3),
        ("true", 1),
        ("float", 1),
        ("by-raise", 0),
        ("subclass", 5),
    ],
)
def test_exit_status(how: str, status: int) -> None:
    assert assert_same(["exits.py", how]).returncode == status


def test_a_program_that_ends_at_once_prints_no_tree() -> None:
    result = run([*OBJCG, "exits.py", "at-once"])
    assert (result.returncode, result.stderr) == (9, "")


@pytest.mark.parametrize("program", ["uncaught.py", "at_exit_fails.py", "warns.py"])
def test_what_python_prints_about_failures(program: str) -> None:
    assert assert_same([program]).stderr != ""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["SIGINT"], -2),
        (["SIGTERM"], -15),
        (["SIGKILL"], -9),
        (["SIGABRT"], -6),
        (["SIGPIPE"], 0),
        (["SIGTERM", "handle"], 3),
        (["SIGINT", "handle"], 3),
        (["SIGTERM", "ignore"], 0),
    ],
)
def test_signals(arguments: list[str], status: int) -> None:
    assert assert_same(["signals.py", *arguments]).returncode == status


@pytest.mark.parametrize("how", ["work", "fail", "interrupt"])
def test_asyncio_program(how: str) -> None:
    assert_same(["event_loop.py", how])


def test_a_closed_standard_output_is_reported_as_by_python() -> None:
    def run_with_closed_reader(command: Sequence[str]) -> tuple[int, str]:
        # The reading end is closed already: the flush at the end of the program fails.
        code = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); print('lost')"
        result = run([*command, "-c", code])
        return result.returncode, result.stderr

    status, errors = run_with_closed_reader(PYTHON)
    under_status, under_errors = run_with_closed_reader(OBJCG)
    assert under_status == status == 120
    assert "BrokenPipeError" in errors
    assert "BrokenPipeError" in under_errors


# ---- What the program finds ----------------------------------------------------------------------
def test_arguments_path_and_flags() -> None:
    assert_same(["arguments.py", "one", "--max", "-h", "", "two words", "--"])


def test_attributes_of_the_main_module() -> None:
    assert_same(["main_attributes.py"])


def test_a_script_elsewhere_finds_its_own_folder(tmp_path: Path) -> None:
    assert_same([PROGRAMS / "arguments.py"], cwd=tmp_path)
    (tmp_path / "link.py").symlink_to(PROGRAMS / "arguments.py")
    assert_same(["link.py"], cwd=tmp_path)


def test_standard_input() -> None:
    assert_same(["stdin.py"], stdin="one\ntwo\nthree")


def test_no_frame_of_objcg_is_seen() -> None:
    result = assert_same(["stack.py"])
    assert "objcg" not in result.stdout + result.stderr


def test_depth_of_recursion() -> None:
    assert_same(["recursion.py"])
    assert_same(["recursion.py", "uncaught"])


def test_pickles() -> None:
    assert_same(["pickles.py"])


@pytest.mark.parametrize("arguments", [[], ["raise"]])
def test_order_of_things_at_the_end(arguments: list[str]) -> None:
    assert_same(["at_exit.py", *arguments])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    assert_same(["processes.py", method])


def test_multiprocessing_that_was_imported_before_the_program(tmp_path: Path) -> None:
    """By a file of site, as coverage and debuggers have: it keeps __main__ by another name, too."""
    (tmp_path / "sitecustomize.py").write_text("import multiprocessing")
    assert_same(["processes.py", "spawn"], env={"PYTHONPATH": str(tmp_path)})


def test_a_program_that_forks() -> None:
    """The child prints nothing that it does not print under python, and no tree."""
    plain, under = run([*PYTHON, "forks.py"]), run([*OBJCG, "forks.py"])
    assert (under.stdout, under.returncode) == (plain.stdout, plain.returncode)
    assert plain.stderr == ""
    assert is_tree(under.stderr)


# ---- -m, -c, folders, zips -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "package"],
        ["-m", "package", "one", "-c", "--json"],
        ["-m", "package", "fail"],
        ["-m", "package.module", "one"],
        ["-m", "main_attributes"],
        ["-m", "stack"],
        ["-m", "json.tool", "--compact"],
    ],
)
def test_module(arguments: list[str]) -> None:
    assert_same(arguments, stdin='{"a": [1, 2]}')


@pytest.mark.parametrize(
    "module", ["no_such_module", "package.no_such_module", "folder.beside.deeper", "arguments."]
)
def test_module_that_is_not_there(module: str) -> None:
    assert_same(["-m", module], ran=False)


@pytest.mark.parametrize(
    "code",
    [
        "import sys; print(sys.argv, repr(sys.path[0]), __name__, sorted(globals()))",
        "raise ValueError('in the code')",
        "def f():\n    raise ValueError('deeper')\nf()",
        "1 +",
        "import sys; sys.exit('text')",
        "import traceback; traceback.print_stack()",
        "import __main__; print(__main__.__spec__, hasattr(__main__, '__file__'))",
        "print('ünïcödé')",
        "",
    ],
)
def test_code(code: str) -> None:
    assert_same(["-c", code, "one", "-m", "--max"], ran=code != "1 +")


@pytest.mark.parametrize("arguments", [[], ["fail"]])
def test_folder(arguments: list[str]) -> None:
    assert_same(["folder", *arguments])


@pytest.mark.parametrize("arguments", [[], ["fail"]])
def test_zip(tmp_path: Path, arguments: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        for file in sorted((PROGRAMS / "folder").glob("*.py")):
            archive.write(file, file.name)
    assert_same([tmp_path / "program.zip", *arguments])


@pytest.mark.parametrize(
    "source",
    [
        b"def f(:\n",
        b"if True:\n        a = 1\n\tb = 2\n",
        b"print('\xff')\n",
        b"# coding: latin-1\nprint(ascii('\xe9'))\n",
        b"# coding: no-such-coding\n",
        b"\xef\xbb\xbfprint('after a mark')\n",
        b"from __future__ import annotations\nx: undefined = 1\nprint(__annotations__)\n",
        b"",
    ],
)
def test_source(tmp_path: Path, source: bytes) -> None:
    """Syntax errors, encodings and future imports are those of the file, as python reads it."""
    (tmp_path / "source.py").write_bytes(source)
    assert_same(["source.py"], cwd=tmp_path, ran=False)


def test_compiled_file(tmp_path: Path) -> None:
    compiled = tmp_path / "compiled.pyc"
    code = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2])"
    assert run([*PYTHON, "-c", code, PROGRAMS / "main_attributes.py", compiled]).returncode == 0
    assert_same([compiled])
