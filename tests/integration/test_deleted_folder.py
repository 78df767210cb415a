"""Commands in a folder that has been deleted, where python itself runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .programs import OBJCG, PYTHON, TIMEOUT, environment, is_tree, started

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOW = "import sys; print(sys.argv, sys.path, __file__ if '__file__' in globals() else '')"


def run_there(
    command: Sequence[object], tmp_path: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder that is deleted before it starts."""
    gone = tmp_path / "gone"
    gone.mkdir()
    return subprocess.run(
        ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', gone, *map(str, command)],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SHOW, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["script", "code", "module", "isolated", "folder"])
def test_a_program_runs_as_under_python(kind: str, script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "__main__.py").write_text(SHOW, encoding="utf-8")
    words: dict[str, list[object]] = {
        "script": [script, "x"],
        "code": ["-c", SHOW, "x"],
        "module": ["-m", "script", "x"],
        "isolated": [script],
        "folder": [folder],
    }
    flag = ["-I"] if kind == "isolated" else []
    extra = {"PYTHONPATH": str(tmp_path)}
    plain = run_there([sys.executable, *flag, *words[kind]], tmp_path, **extra)
    assert (plain.returncode, plain.stderr) == (0, "")
    for own in (
        [sys.executable, *flag, *OBJCG[1:]],
        [sys.executable, *flag, os.path.join(os.path.dirname(sys.executable), "objcg"), "run"],
    ):
        result = run_there([*own, *words[kind]], tmp_path, **extra)
        assert (result.returncode, result.stdout) == (0, plain.stdout)
        assert is_tree(result.stderr)


@pytest.mark.parametrize("target", ["script.py", ".", "./"])
def test_a_program_that_was_in_it_is_not_found(target: str, tmp_path: Path) -> None:
    assert run_there([*PYTHON, target], tmp_path).returncode != 0
    result = run_there([*OBJCG, target], tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"objcg: can't open {'file ' * (target == 'script.py')}'")
    assert result.stderr.count("\n") == 1


def test_a_report_into_it_is_refused(tmp_path: Path) -> None:
    result = run_there([*OBJCG, "--report", "x.json", "-c", "print(1)"], tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "objcg: argument --report: cannot write 'x.json': the current folder has been deleted\n"
    )
    report = tmp_path / "report.json"
    result = run_there([*OBJCG, "--report", report, "-c", "print(1)"], tmp_path)
    assert (result.returncode, result.stdout) == (0, "1\n")
    assert report.exists()


def test_a_folder_for_regions_that_was_in_it(tmp_path: Path, folder: Path) -> None:
    env = {"OBJCG_DIR": "regions"}
    result = run_there([*OBJCG, "-c", "print(1)"], tmp_path, **env)
    assert (result.returncode, result.stdout) == (0, "1\n")
    assert "objcg has no region file (regions: No such file or directory)" in result.stderr
    command = [sys.executable, "-m", "objcg"]
    for arguments, told in (
        (["tree"], "no process of this user runs"),
        (["tree", os.getppid()], "no region of process"),
        (["autopsy"], "no dead process"),
        (["record", "1", "-o", "x.db"], "no region of process 1"),
        (["report", "x.db", "-o", "x.html"], "x.db: No such file"),
    ):
        result = run_there([*command, *arguments], tmp_path, **env)
        assert (result.returncode, result.stdout) == (1, "")
        assert told in result.stderr
        assert result.stderr.count("\n") == 1
    with started(sys.executable, "serve.py", folder=folder) as child:
        for arguments in (["tree", child.pid], ["ps"]):
            result = run_there([*command, *arguments], tmp_path, OBJCG_DIR=str(folder))
            assert (result.returncode, result.stderr) == (0, "")
        arguments = ["record", child.pid, "-o", "x.db"]
        result = run_there([*command, *arguments], tmp_path, OBJCG_DIR=str(folder))
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)
