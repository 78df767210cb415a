"""``objcg bench NAME --from FILE`` and ``--plot FILE``: what was measured before is shown."""

from __future__ import annotations

import json
import sys

import pytest
from unit import bench_results as made_up

from .programs import run

RESULT = made_up.all_results()["programs"]


def objcg(*arguments, **env):
    return run([sys.executable, "-m", "objcg", "bench", *arguments], env=env)


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "programs.json"
    path.write_text(json.dumps(RESULT))
    return path


def test_a_result_is_shown_without_measuring_again(stored):
    shown = objcg("programs", "--from", stored)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    # where it was measured, which is not here
    assert lines[1:3] == [RESULT["machine"], RESULT["python"]]
    assert "0.87x (0.86-0.88)" in shown.stdout
    again = objcg("programs", "--from", stored, "--json")
    assert json.loads(again.stdout) == RESULT
    tables = objcg("programs", "--from", stored, "--markdown").stdout
    assert tables.startswith("<!-- table: time -->\n| program | stock | objcg | mimalloc |\n")


def test_a_result_can_be_drawn_without_measuring_again(stored, tmp_path):
    picture = tmp_path / "picture.svg"
    shown = objcg("programs", "--from", stored, "--plot", picture, "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout) == RESULT
    assert RESULT["machine"] in picture.read_text()


def test_what_is_measured_can_be_drawn_at_once(tmp_path):
    picture = tmp_path / "picture.svg"
    options = ("--rounds", "1", "--scale", "0.01", "--only", "lists", "--no-preload")
    shown = objcg("programs", *options, "--plot", picture, "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["machine"] in picture.read_text()


def wrong(stored, **fields):
    stored.write_text(json.dumps(RESULT | fields))
    return stored


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.with_name("none.json"), "No such file"),
        (lambda path: path.write_text("{") and path, "cannot read"),
        (lambda path: path.write_text("[]") and path, "it has no 'name'"),
        (lambda path: wrong(path, machine=None), "it has no 'machine'"),
        (lambda path: wrong(path, rows=[]), "it has no rows"),
        (lambda path: wrong(path, rows=[1]), "it has no rows"),
        (lambda path: wrong(path, name="suite"), "of the benchmark 'suite', not of 'programs'"),
        (lambda path: wrong(path, rows=[{"a": 1}]), "in this version: KeyError"),
    ],
)
def test_a_file_that_is_no_result_is_one_line_and_status_1(stored, make, told):
    result = objcg("programs", "--from", make(stored))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("objcg: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


def test_a_picture_that_cannot_be_is_refused_before_anything_is_measured(stored, tmp_path):
    result = objcg("seed", "--plot", tmp_path / "none" / "picture.svg")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"objcg: cannot write into the folder '{tmp_path / 'none'}'\n"
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from objcg.cli import main;"
        "sys.exit(main(['bench', 'seed', '--plot', 'picture.svg']))"
    )
    result = run([sys.executable, "-c", code])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("objcg: pictures are drawn by matplotlib, which cannot be")
    assert result.stderr.endswith(f"{sys.executable} -m pip install matplotlib\n")
    assert result.stderr.count("\n") == 1
