"""`objcg report`: the page, in a browser and without one, and the export."""

from __future__ import annotations

import contextlib
import csv
import html.parser
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from unit.recorded import AT, CLOCK, MIB, SECOND, group, process

from objcg import region
from objcg.cli import main
from objcg.views.recording.reader import Recording
from objcg.views.recording.writer import Writer

from .programs import PROGRAMS, environment, run, run_python

SCRIPT = "</script><script>alert(1)</script>"
NAMES = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "<a href='http:&#47;&#47;127.0.0.1:9'>link<",
    "&lt;b&gt;",
    "a\x07\u202eb",
    "<!--",
    "%{x}%{customdata}",
    "$\\alert(1)$",
    "x" * 255,
]


def samples(count=50):
    for i in range(count):
        groups = [
            group(
                f"/h/{name}",
                10 + k,
                (k + 1) * MIB + i * 1000,
                max=10 * MIB,
                event_counts=(0, 0, i // 10, 0, 0),
            )
            for k, name in enumerate(NAMES)
            # "/" cannot be in a name
            if "/" not in name
        ]
        groups += [
            group(f"/h/{name.replace('/', chr(0x2215))}", 30 + k, (k + 1) * MIB)
            for k, name in enumerate(NAMES)
            if "/" in name
        ]
        total = sum(one.current for one in groups)
        yield [group("/", 1, total + 5), group("/h", 2, total), *groups]


@pytest.fixture
def recording(tmp_path):
    """A recording with names that would do harm."""
    path = tmp_path / "r.db"
    hostile = process(command=f"python {SCRIPT} \x1b[2J")
    with Writer(str(path), hostile, 1.0, "0.1.0") as recorder:
        for i, groups in enumerate(samples()):
            recorder.add_groups(groups, (90 * MIB, MIB), AT + i * SECOND, CLOCK + i * SECOND)
        recorder.end("stopped")
    return path


@pytest.fixture
def plotly():
    pytest.importorskip("plotly", reason="plotly, of the extra 'report', is not installed")


class Page(html.parser.HTMLParser):
    """What a browser without JavaScript makes of a page: its elements and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open, self.scripts = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open == "script":
            self.scripts[-1] += data
        elif self.open != "style":
            self.words.append(data)


def test_the_page_is_one_file_that_means_what_it_says(plotly, recording, tmp_path):
    out = tmp_path / "out.html"
    assert main(["report", str(recording), "-o", str(out)]) == 0
    text = out.read_text("utf-8")
    assert len(text) < 6_000_000
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    # the data, plotly and ours; what names are did not become elements
    assert tags.count("script") == 3
    assert not {"img", "a", "b", "link", "iframe"} & set(tags)
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert not [a for _, attributes in page.tags for a in attributes if a in {"src", "href"}]
    # the rest of the text is there, and nothing in it moves a cursor
    words = " ".join(page.words)
    assert f"python {SCRIPT} \\x1b[2J" in words
    assert "/h/a\\x07\\u202eb" in words
    assert "/h/&lt;b&gt;" in words
    assert all(char.isprintable() or char == "\n" for char in words)
    data = json.loads(page.scripts[0])
    assert data["usage"]["data"][0]["type"] == "scatter"
    assert len(data["times"]) == 50
    # what happened is in the page without any script
    assert "2023-11-14 22:13:30.000" in words


def browse(page):
    result = subprocess.run(
        [sys.executable, PROGRAMS / "browse.py", page],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=280,
        check=False,
    )
    if result.returncode == 3:
        pytest.skip(result.stdout.strip())
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_the_page_works_in_a_browser_and_loads_nothing(plotly, recording, tmp_path):
    out = tmp_path / "out.html"
    assert main(["report", str(recording), "-o", str(out)]) == 0
    seen = browse(out)
    assert seen["errors"] == []
    assert seen["console"] == []
    assert seen["requests"] == [f"file://{out}"]
    used = seen["used"]
    assert used["alerted"] is None
    assert "resident since start-up" in used["legend"]
    assert "/h/<!--" in used["legend"]
    assert "/h/&lt;b&gt;" in used["legend"]
    assert "/h/%{x}%{customdata}" in used["legend"]
    assert "/h/a\\x07\\u202eb" in used["legend"]
    assert "/h/$\\alert(1)$" in used["legend"]
    assert any(text.startswith("<!--") for text in used["tree"])
    assert any(re.match(r"/\s+\d", text) for text in used["tree"])
    # it begins at the highest sum, the last sample
    assert used["moment"].startswith("2023-11-14 22:14:09 UTC")
    assert used["first moment"].startswith("2023-11-14 22:13:20 UTC")
    assert "22:14:0" in used["clicked moment"]
    assert "/h" in used["worst"]
    growth = [text for text in used["by growth"] if text.startswith("+")]
    assert used["by growth"][: len(growth)] == growth
    assert "The pictures need JavaScript" in seen["plain"]
    assert "/h/<!--" in seen["plain"]


def test_a_process_that_is_still_recorded_can_be_reported(plotly, tmp_path):
    path, out = str(tmp_path / "r.db"), str(tmp_path / "out.html")
    program = subprocess.Popen(
        [sys.executable, PROGRAMS / "serve.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with program:
        assert program.stdout.readline() == "ready\n"
        recorder = subprocess.Popen(
            [
                *(sys.executable, "-m", "objcg", "record", str(program.pid), "-o", path),
                *("--interval", "0.05"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with recorder:
            assert recorder.stderr.readline().startswith("objcg: recording ")
            time.sleep(1)
            assert main(["report", path, "-o", out]) == 0
            assert recorder.poll() is None
            with open(out, encoding="utf-8") as file:
                text = " ".join(Page(file.read()).words)
            assert "not ended: it goes on, or its recorder was killed" in text
            assert "/tenants/large" in text
            # reading has not disturbed the recording
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(30) == 0
        program.stdin.close()
        assert program.wait() == 0
    assert main(["report", path, "-o", out]) == 0
    with open(out, encoding="utf-8") as file:
        assert "stopped" in file.read()
    seen = browse(out)
    assert (seen["errors"], seen["console"]) == ([], [])
    assert "/tenants/large" in seen["used"]["legend"]


def test_the_export_has_every_counter_of_every_sample(recording, capsys, tmp_path):
    assert main(["report", str(recording), "--csv"]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "out.csv"
    assert main(["report", str(recording), "--csv", "-o", str(out)]) == 0
    assert out.read_text("utf-8") == printed
    rows = list(csv.DictReader(io.StringIO(printed)))
    expected = [
        (i, one)
        for i, groups in enumerate(samples(), 1)
        for one in sorted(groups, key=lambda one: one.uid)
    ]
    assert len(rows) == len(expected)
    found = sorted(rows, key=lambda row: (int(row["sample"]), int(row["uid"])))
    for row, (i, one) in zip(found, expected, strict=True):
        assert int(row["sample"]) == i
        assert row["path"] == one.path
        assert int(row["current"]) == one.current
        assert row["max"] == ("" if one.max is None else str(one.max))
        assert int(row["events.max"]) == one.events["max"]
        assert row["stat.object"] == (str(one.current) if i == 1 else "")
        assert int(row["rss"]) == 90 * MIB
    assert rows[0]["time"] == "2023-11-14T22:13:20.000000000Z"
    assert rows[0]["clock"] == "5000.000000000"


def error_of(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("objcg: ")
    return status, captured.err


def test_wrong_use_is_one_line_and_status_2(capsys, recording):
    before = recording.read_bytes()
    for options, told in (
        ([], "required: -o/--output"),
        (["-o", str(recording)], "is the recording itself"),
        (["-o", "x", "--cs"], "unrecognized arguments: --cs"),
    ):
        status, error = error_of(capsys, "report", str(recording), *options)
        assert (status, told in error) == (2, True)
    assert recording.read_bytes() == before


def test_what_cannot_be_read_or_written_is_one_line_and_status_1(capsys, plotly, recording):
    folder = recording.parent
    (folder / "text").write_text("mine\n")
    (folder / "empty").touch()
    new = Writer(str(folder / "new.db"), process(), 1.0, "0.1.0")
    new.end("stopped")
    new.close()
    for path, told in (
        ("text", "it is not a recording"),
        ("none", "No such file"),
        ("empty", "it is empty"),
        ("new.db", "it has no samples yet"),
    ):
        status, error = error_of(capsys, "report", str(folder / path), "-o", str(folder / "out"))
        assert (status, told in error) == (1, True)
    for out, told in ((folder / "none" / "out", "No such file"), (folder, "Is a directory")):
        status, error = error_of(capsys, "report", str(recording), "-o", str(out))
        assert (status, told in error) == (1, True)
    assert sorted(os.listdir(folder)) == ["empty", "new.db", "r.db", "text"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE samples SET frame = x'00' WHERE id = 20",
        "UPDATE samples SET clock = 'late' WHERE id = 20",
        "UPDATE samples SET id = 900 WHERE id = 20",
        "UPDATE groups SET parent = 900 WHERE id = 5",
        "UPDATE groups SET parent = 5 WHERE id = 5",
        "UPDATE groups SET first = 'x' WHERE id = 5",
        "UPDATE events SET sample = sample + 900",
        "UPDATE events SET event = x'00', count = 'many'",
        "DELETE FROM process",
        "DELETE FROM groups",
        "DROP TABLE events",
    ],
)
def test_a_damaged_recording_is_a_page_or_one_line(damage, capsys, plotly, recording):
    with sqlite3.connect(recording) as db:
        db.execute(damage)
    db.close()
    out = recording.parent / "out.html"
    status = main(["report", str(recording), "-o", str(out)])
    error = capsys.readouterr().err
    assert (status, error.count("\n"), out.exists()) in [(0, 0, True), (1, 1, False)]
    if status:
        assert error.startswith(f"objcg: {recording}: ")


def test_without_plotly_the_error_says_what_to_install(recording, tmp_path):
    out = tmp_path / "out.html"
    code = f"""
    import sys
    sys.modules["plotly"] = None
    from objcg.cli import main
    sys.exit(main(["report", {str(recording)!r}, "-o", {str(out)!r}]))
    """
    result = run_python(code)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        'objcg: plotly is not installed; the pictures need it: pip install "objcg[report]"\n'
    )
    assert not out.exists()


def test_a_reader_that_stops_reading_the_export_is_not_an_error(recording):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "objcg", "report", str(recording), "--csv"]
    result = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment(), check=False
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_on_a_terminal_the_export_has_names_escaped(recording):
    """A terminal does what they say; whatever else reads it gets them as they are."""
    ours, terminal = os.openpty()
    command = [sys.executable, "-m", "objcg", "report", str(recording), "--csv"]
    with subprocess.Popen(command, stdout=terminal, env=environment()) as exporting:
        os.close(terminal)
        shown = b""
        # EIO: nobody has the terminal open any more
        with contextlib.suppress(OSError):
            while more := os.read(ours, 65536):
                shown += more
    os.close(ours)
    assert exporting.returncode == 0
    rows = list(csv.DictReader(io.StringIO(shown.decode())))
    assert len(rows) == sum(map(len, samples()))
    assert "/h/a\\x07\\u202eb" in {row["path"] for row in rows}
    assert b"\x07" not in shown


def test_a_link_to_standard_output_is_written_through(recording, tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to("/dev/stdout")
    command = [sys.executable, "-m", "objcg", "report", str(recording), "--csv", "-o", str(link)]
    with target.open("w") as out:
        subprocess.run(command, stdout=out, env=environment(), check=True)
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith("sample,session,time,")


def test_a_recording_of_this_process_is_reported(plotly, fresh_group, tmp_path):
    with fresh_group:
        held = [bytes(1000) for _ in range(1000)]
    path, out = str(tmp_path / "r.db"), str(tmp_path / "out.html")
    command = [sys.executable, "-m", "objcg", "record", str(os.getpid()), "-o", path]
    run([*command, "--duration", "0.01"])
    with Recording(path) as recording:
        assert recording.process.pid == os.getpid()
    assert main(["report", path, "-o", out]) == 0
    with open(out, encoding="utf-8") as file:
        assert fresh_group.path in file.read()
    assert region.find(os.getpid())
