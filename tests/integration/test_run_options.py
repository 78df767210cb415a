"""The options of ``objcg run``, what it says about wrong use, and what it reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .programs import OBJCG, PROGRAMS, PYTHON, TIMEOUT, environment, interpreters, is_tree, run

HOLD = "held = [bytes(1000) for _ in range(1000)]"


def groups_of(tree: str) -> dict[str, dict[str, object]]:
    """Parse the JSON of a tree into its groups by path."""
    parsed = json.loads(tree)
    assert {"pid", "command", "alive", "groups"} <= set(parsed)
    for group in parsed["groups"]:
        assert {"path", "id", "online", "tasks", "current", "peak", "max", "high", "low"} <= set(
            group
        )
        assert set(group["events"]) >= {"low", "high", "max", "ceiling", "raised"}
        assert set(group["stat"]) >= {"object", "mem", "raw", "numpy", "native", "mmap"}
    return {group["path"]: group for group in parsed["groups"]}


def number(value: object) -> int:
    """Narrow a number of JSON."""
    assert isinstance(value, int)
    return value


def test_json_prints_the_tree_as_json_to_stderr() -> None:
    result = run([*OBJCG, "--json", "--group", "/jobs/one", "-c", HOLD])
    assert (result.returncode, result.stdout) == (0, "")
    groups = groups_of(result.stderr)
    assert set(groups) == {"/", "/jobs", "/jobs/one"}
    assert number(groups["/jobs/one"]["peak"]) > 1_000_000
    assert groups["/jobs/one"]["max"] is None


def test_report_writes_the_tree_to_a_file(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = run([*OBJCG, "--report", report, "--max", "64M", "--high", "32M", "-c", HOLD])
    assert result.returncode == 0
    groups = groups_of(report.read_text(encoding="utf-8"))
    limited = [group for group in groups.values() if group["max"] == 64 << 20]
    assert limited
    assert all(group["high"] == 32 << 20 for group in limited)


def test_a_report_to_what_is_no_file_leaves_it_what_it_is(tmp_path: Path) -> None:
    # as root, a rename onto /dev/stdout or /dev/null would put a file in its place
    link, target, stale = tmp_path / "link", tmp_path / "target", tmp_path / "stale"
    link.symlink_to("/dev/stdout")
    with target.open("w") as out:
        command = [*OBJCG, "--report", link, "-c", "pass"]
        subprocess.run(command, stdout=out, env=environment(), check=True)
    assert link.is_symlink()
    assert "/" in groups_of(target.read_text(encoding="utf-8"))

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
        assert run([*OBJCG, "--report", fifo, "-c", "pass"]).returncode == 0
        assert "/" in groups_of(reader.communicate()[0])
    assert fifo.is_fifo()

    stale.write_text("of a run before", encoding="utf-8")
    stale.chmod(0o640)
    assert run([*OBJCG, "--report", stale, "-c", "pass"]).returncode == 0
    assert "/" in groups_of(stale.read_text(encoding="utf-8"))
    assert stale.stat().st_mode & 0o777 == 0o640
    assert {file.name for file in tmp_path.iterdir()} == {"link", "target", "stale", "fifo"}


def test_max_limits_the_program() -> None:
    large = run([*OBJCG, "--max", "64M", "-c", "bytes(100 << 20)"])
    assert large.returncode == 1
    assert "MemoryError" in large.stderr
    many = run([*OBJCG, "--max", "64M", "-c", "held = []\nwhile True: held.append(bytes(1000))"])
    assert many.returncode == 1
    assert "MemoryLimitExceeded" in many.stderr


def test_the_report_of_a_program_that_failed_is_written_too(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = run([*OBJCG, "--report", report, "-c", "raise SystemExit(3)"])
    assert result.returncode == 3
    assert "/" in groups_of(report.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--no-such-option", "exits.py"],
        ["run", "no_such_file.py"],
        ["run", "--max", "12 potatoes", "exits.py"],
        ["run", "--max", "-5", "exits.py"],
        ["run", "--group", "no/slash", "exits.py"],
        ["run", "--group", "/a/../b", "exits.py"],
        ["run", "-m"],
        ["run", "-c"],
        ["no-such-command"],
        ["tree", "--no-such-option"],
        ["tree", "1", "2"],
    ],
)
def test_wrong_use_ends_with_2_and_one_line(arguments: list[str]) -> None:
    result = run([sys.executable, "-m", "objcg", *arguments])
    assert result.returncode == 2
    assert result.stdout == ""
    *usage, message = result.stderr.splitlines()
    assert message.startswith("objcg: ")
    assert all(line.startswith(("usage:", " ")) for line in usage)


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    result = run([*OBJCG, "--report", tmp_path / "no" / "such" / "folder", "-c", "print('ran')"])
    assert result.returncode != 0
    assert "objcg: " in result.stderr
    assert "Traceback" not in result.stderr


def test_every_interpreter_that_has_objcg_runs_a_program() -> None:
    for python in interpreters():
        result = run([python, "-m", "objcg", "run", "--json", "--group", "/g", "-c", HOLD])
        assert result.returncode == 0, python
        assert number(groups_of(result.stderr)["/g"]["peak"]) > 1_000_000, python


def test_the_console_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("objcg")
    if not script.exists():
        pytest.skip("objcg is imported from a folder here, not installed with its script")
    plain, under = run([*PYTHON, "stack.py"]), run([script, "run", "stack.py"])
    assert under.stdout == plain.stdout
    assert under.stderr.startswith(plain.stderr)


def test_a_long_running_program_can_be_read_by_its_pid_while_it_runs(tmp_path: Path) -> None:
    env = environment(OBJCG_DIR=str(tmp_path))
    tmp_path.chmod(0o700)
    command = [*OBJCG, "--group", "/job", "serve.py"]
    with subprocess.Popen(
        command,
        cwd=PROGRAMS,
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        tree = [sys.executable, "-m", "objcg", "tree", "--json", str(child.pid)]
        result = run(tree, env={"OBJCG_DIR": str(tmp_path)})
        _, errors = child.communicate("", timeout=TIMEOUT)
    groups = groups_of(result.stdout)
    assert {"/", "/job", "/tenants/small", "/tenants/large"} <= set(groups)
    assert child.returncode == 0
    assert is_tree(errors)


# Takes all descriptors that there are.
TAKES_ALL = """
import os
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    print(len(held), flush=True)
"""


@pytest.mark.parametrize("limit", ["ulimit -n 16", "ulimit -n 1000", "true"])
@pytest.mark.parametrize("options", [[], ["--json"], ["--max", "auto"]], ids=" ".join)
def test_a_program_that_leaves_no_descriptor(
    limit: str, options: list[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    command = [*OBJCG, *options, "--report", str(report), "-c", TAKES_ALL]
    result = run(["sh", "-c", f'{limit}; exec "$@"', "sh", *command])
    plain = run(["sh", "-c", f'{limit}; exec "$@"', "sh", *PYTHON, "-c", TAKES_ALL])
    assert result.returncode == plain.returncode == 0
    # one is kept for the end
    assert int(result.stdout) == int(plain.stdout) - 1
    assert "/main" in groups_of(report.read_text(encoding="utf-8"))
    assert "Traceback" not in result.stderr
    if options == ["--json"]:
        assert "/main" in groups_of(result.stderr)
    else:
        assert "RSS " in result.stderr


def test_a_tree_that_cannot_be_shown_is_one_line() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))"
    result = run([*OBJCG, "-c", code])
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.startswith("objcg: the tree cannot be shown: OSError: [Errno 24] ")
    assert result.stderr.count("\n") == 1


def test_a_program_that_takes_the_spare_descriptors_number_keeps_it(tmp_path: Path) -> None:
    code = """
import os, sys
os.closerange(3, 400)
files = [open(os.path.join(sys.argv[1], str(i)), "w") for i in range(300)]
for file in files:
    file.write("kept")  # in the buffer, until it is closed at the very end
"""
    result = run([*OBJCG, "-c", code, tmp_path])
    assert result.returncode == 0
    assert is_tree(result.stderr)
    assert {file.read_text() for file in tmp_path.iterdir()} == {"kept"}


def test_a_child_with_no_descriptor_is_warned_of_and_goes_on() -> None:
    code = (
        TAKES_ALL
        + """
if os.fork() == 0:
    print(objcg.audit().drift, flush=True)
    os._exit(0)
print(os.wait()[1], flush=True)
"""
    )
    result = run([*PYTHON, "-c", "import objcg, objcg._audit; objcg.enable()" + code])
    assert (result.returncode, result.stdout.split()[1:]) == (0, ["0", "0"])
    # with the line before it where Python has loaded the warnings module by itself
    assert "RuntimeWarning: objcg has no region file (" in result.stderr
    assert "Too many open files)" in result.stderr
    assert result.stderr.count("\n") == 1
