from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from unit.region_file import RegionFile

import objcg
from objcg.cli import main
from objcg.cli.parser import Program, WrongUse, build_parser, split_program

MIB = 1 << 20


def error_of(capsys, *arguments):
    """Run a command that fails; return its exit status and the one line on stderr."""
    status = main(list(arguments))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("objcg: ")
    return status, captured.err


@pytest.mark.parametrize(
    ("arguments", "options", "program"),
    [
        (["run", "a.py"], ["run"], ("file", "a.py", [], ["a.py"])),
        (
            ["run", "--max", "1G", "a.py", "--max", "2"],
            ["run", "--max", "1G"],
            ("file", "a.py", ["--max", "2"], ["a.py", "--max", "2"]),
        ),
        (
            ["run", "--max=1G", "--json", "a.py", "--json"],
            ["run", "--max=1G", "--json"],
            ("file", "a.py", ["--json"], ["a.py", "--json"]),
        ),
        (
            ["run", "-m", "mod", "-m", "-c"],
            ["run"],
            ("module", "mod", ["-m", "-c"], ["-m", "mod", "-m", "-c"]),
        ),
        (["run", "-mmod", "x"], ["run"], ("module", "mod", ["x"], ["-mmod", "x"])),
        (
            ["run", "--group", "-m", "-c", "pass", "--help"],
            ["run", "--group", "-m"],
            ("command", "pass", ["--help"], ["-c", "pass", "--help"]),
        ),
        (["run", "-cpass"], ["run"], ("command", "pass", [], ["-cpass"])),
        (["run", "--", "-odd.py", "-x"], ["run"], ("file", "-odd.py", ["-x"], ["-odd.py", "-x"])),
        (["run", "-", "x"], ["run"], ("file", "-", ["x"], ["-", "x"])),
    ],
)
def test_all_from_the_program_on_is_the_programs(arguments, options, program):
    left, found = split_program(arguments)
    assert left == options
    assert found is not None
    assert vars(found) == vars(Program(*program))


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--json"], ["run", "--help"], ["run", "--"]]
)
def test_a_run_without_a_program_has_none(arguments):
    assert split_program(arguments)[1] is None


def test_other_verbs_keep_all_their_arguments():
    assert split_program(["tree", "-c", "x"]) == (["tree", "-c", "x"], None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "required: VERB"),
        (["fly"], "'fly'"),
        (["--nope"], "required: VERB"),
        (["run"], "nothing to run"),
        (["run", "--"], "nothing to run"),
        (["run", "-m"], "argument -m: expected one argument"),
        (["run", "-c"], "argument -c: expected one argument"),
        (["run", "-"], "standard input"),
        (["run", "--max"], "argument --max: expected one argument"),
        (["run", "--nope", "a.py"], "--nope"),
        (["run", "--ma", "1G", "-c", ""], "--ma"),
        (["run", "--max", "lots", "-c", ""], "memory.max: 'lots' is not a size; accepted are"),
        (["run", "--high", "-1", "-c", ""], "memory.high: '-1' is not a size"),
        (["run", "--high=-1", "-c", ""], "memory.high: '-1' is not a size"),
        (["run", "--report", "/nonexistent/x", "-c", ""], "cannot write '/nonexistent/x'"),
        (["run", "--report", "/", "-c", ""], "it is a folder"),
        (["tree", "1", "2"], "unrecognized arguments: 2"),
        (["tree", "--nope"], "--nope"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(capsys, arguments, told):
    status, error = error_of(capsys, *arguments)
    assert status == 2
    assert told in error


def test_a_missing_script_is_reported_as_python_does(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, error = error_of(capsys, "run", "none.py")
    assert status == 2
    assert error == (
        f"objcg: can't open file '{tmp_path}/none.py': [Errno 2] No such file or directory\n"
    )


@pytest.mark.parametrize("path", ["main", "/a//b", "/..", ""])
def test_a_bad_group_is_wrong_use(path):
    code = "import sys; from objcg.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", code, "run", "--group", path, "-c", "print('ran')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"objcg: group path {path!r} ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("arguments", "word"), [(["--help"], "tree"), (["run", "-h"], "--group")])
def test_help_goes_to_stdout_with_status_0(capsys, arguments, word):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert not caught.value.code
    assert word in capsys.readouterr().out


def test_the_help_says_what_no_native_is(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "--no-native do not charge what C libraries allocate" in " ".join(
        capsys.readouterr().out.split()
    )
    assert build_parser().parse_args(["run", "--no-native"]).no_native


@pytest.fixture
def region_path(tmp_path):
    file = RegionFile()
    file.process(4_000_000, 1)
    file.group(1, 0, "", usage=40 * MIB)
    file.group(2, 1, "small", usage=MIB, tasks=1)
    file.group(3, 1, "large", usage=30 * MIB, peak=32 * MIB, limit=32 * MIB, high=16 * MIB)
    file.group(4, 3, "inner", usage=10 * MIB, events=(0, 3, 0, 0, 2))
    return str(file.write(tmp_path))


def test_the_tree_is_a_table_with_the_largest_first(capsys, region_path):
    assert main(["tree", region_path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pid 4000000  python app.py  (not running)  [native memory: no]",
        "group       current      peak       max      high  tasks  events",
        "/          40.0 MiB  40.0 MiB         -         -      0",
        "  large    30.0 MiB  32.0 MiB  32.0 MiB  16.0 MiB      0",
        "    inner  10.0 MiB  10.0 MiB         -         -      0  high 3, raised 2",
        "  small     1.0 MiB   1.0 MiB         -         -      1",
    ]


def test_the_tree_as_json_is_one_line(capsys, region_path):
    assert main(["tree", "--json", region_path]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    tree = json.loads(out)
    assert (tree["pid"], tree["command"], tree["alive"]) == (4_000_000, "python app.py", False)
    assert [group["path"] for group in tree["groups"]] == ["/", "/large", "/large/inner", "/small"]
    assert tree["groups"][1]["max"] == 32 * MIB
    assert tree["groups"][0]["max"] is None


def test_names_cannot_play_tricks_on_the_terminal(capsys, tmp_path):
    file = RegionFile()
    file.command("python \x1b[2J")
    file.group(2, 1, "a\x1b[31m\nb\u202e")
    assert main(["tree", str(file.write(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "a\\x1b[31m\\nb\\u202e" in out
    assert "python \\x1b[2J" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("content", [b"", b"junk" * 2000])
def test_a_file_that_is_no_region_is_one_line_and_status_1(capsys, tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    status, error = error_of(capsys, "tree", str(path))
    assert status == 1
    assert error == f"objcg: {path}: it is not a region file of objcg\n"


def test_a_missing_file_is_one_line_and_status_1(capsys):
    status, error = error_of(capsys, "tree", "/nonexistent/file")
    assert (status, error) == (1, "objcg: /nonexistent/file: No such file or directory\n")


@pytest.mark.parametrize("pid", ["1", "4194305", "9" * 30])
def test_a_process_without_objcg_is_one_line_and_status_1(capsys, pid):
    status, error = error_of(capsys, "tree", pid)
    assert status == 1
    assert f"no region of process {pid}" in error


def test_no_process_at_all_is_one_line_and_status_1(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OBJCG_DIR", str(tmp_path / "empty"))
    status, error = error_of(capsys, "tree")
    assert status == 1
    assert "no process" in error


def test_a_reader_that_stops_reading_is_not_an_error_worth_a_traceback(region_path):
    code = "import sys; from objcg.cli import main; sys.exit(main(sys.argv[1:]))"
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-c", code, "tree", region_path],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_importing_objcg_does_not_import_what_programs_may_not_need():
    heavy = ("asyncio", "argparse", "inspect", "dataclasses", "concurrent.futures", "logging")
    code = (
        f"import objcg, sys; print(objcg.__file__); print([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == [objcg.__file__, "[]"]


def test_wrong_use_is_told_in_one_line_whatever_it_quotes():
    assert str(WrongUse("a\nb\t c")) == "a b c"
