"""What is written into a recording is what is read from it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import zlib
from functools import partial
from operator import add
from pathlib import Path

import pytest
from unit.recorded import AT, CLOCK, MIB, SECOND, Tree, group, process

from objcg import region
from objcg.views.recording import frames, writer
from objcg.views.recording.frames import COLUMNS, STAT, UNSET
from objcg.views.recording.reader import Recording
from objcg.views.recording.schema import RecordingError
from objcg.views.recording.writer import Writer

EXTREMES = [0, 1, -1, 127, 128, -128, -129, 2**15, -(2**31), 2**32, 2**63 - 1, -(2**63)]


def new(path, **more):
    return Writer(str(path), process(**more), 1.0, "0.1.0")


def write(recorder, samples, first=0):
    for i, groups in enumerate(samples, first):
        recorder.add_groups(groups, (50 * MIB + i, i), AT + i * SECOND, CLOCK + i * SECOND)
    recorder.commit()


def columns_of(infos):
    """Return the columns of groups as a moment has them, computed one by one."""
    rows = []
    for info in infos:
        limits = [UNSET if value is None else value for value in (info.max, info.high, info.low)]
        rows.append(
            [
                info.current,
                info.peak,
                *limits,
                info.tasks,
                *info.events.values(),
                *info.stat.values(),
            ]
        )
    return [list(column) for column in zip(*rows, strict=True)]


def assert_same(recording, moment, infos):
    by_uid = {info.uid: info for info in infos}
    groups = [recording.groups[number] for number in moment.ids]
    assert sorted(group.uid for group in groups) == sorted(by_uid)
    assert [group.path for group in groups] == [by_uid[group.uid].path for group in groups]
    expected = columns_of([by_uid[group.uid] for group in groups])
    assert moment.columns[:STAT] == expected[:STAT]
    assert moment.columns[STAT:] == (expected[STAT:] if moment.key else [[]] * len(COLUMNS[STAT:]))


@pytest.mark.parametrize("groups", [1, 2, 7, 300])
def test_a_frame_is_read_as_it_was_written(groups):
    chance = random.Random(groups)
    for _ in range(50):
        columns = {
            column: [
                chance.choice([0, chance.choice(EXTREMES), chance.randrange(-9, 9)])
                for _ in range(groups)
            ]
            for column in chance.sample(range(len(COLUMNS)), chance.randrange(len(COLUMNS)))
        }
        found = frames.decode(frames.encode(columns), groups)
        assert found == {column: values for column, values in columns.items() if any(values)}


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (b"", "cut off"),
        (b"no zlib", "decompressed"),
        (frames.encode({0: [1, 2, 3]})[:-1], "cut off"),
        (frames.encode({0: [1, 2, 3]}) + b"x", "cut off"),
        (frames.encode({0: [1, 2, 3, 4]}), "8 bytes|7 bytes"),
        (frames.encode({0: [1] * 1_000_000}), "cut off, or longer"),
        (zlib.compress(bytes([1, 0, 0])), "column 0 of 0 bytes"),
        (zlib.compress(bytes([1, 0, 9]) + bytes(27)), "column 0 of 9 bytes"),
        (zlib.compress(bytes([1, len(COLUMNS), 1, 0, 0, 0])), "column 19"),
        (zlib.compress(bytes([2, 0, 1, 0, 1]) + bytes(6)), "column 0"),
        (zlib.compress(bytes([200, 0])), "not what 3 groups have"),
    ],
)
def test_what_is_no_frame_is_an_error(frame, told):
    with pytest.raises(frames.FrameError, match=told):
        frames.decode(frame, 3)


@pytest.mark.parametrize("seed", range(12))
def test_groups_that_come_and_go_are_read_as_they_were(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "KEY_SECONDS", 13)
    tree, samples = Tree(seed), []
    for _ in range(90):
        tree.step()
        samples.append(tree.infos())
    path = str(tmp_path / "r.db")
    with new(path) as recorder:
        write(recorder, samples)
        recorder.end("stopped")
    with Recording(path) as recording:
        moments = list(recording.moments())
        assert len(moments) == recording.samples == len(samples)
        assert [moment.key for moment in moments] == [i % 13 == 0 for i in range(90)]
        for moment, infos in zip(moments, samples, strict=True):
            assert_same(recording, moment, infos)
            assert (moment.rss, moment.rss_shared) == (50 * MIB + moment.id - 1, moment.id - 1)
        # the same again, found by itself
        for moment in random.Random(seed).sample(moments, 10):
            assert recording.moment(moment.id).columns == moment.columns
        # who is new and who is gone leads from each moment to the next
        ids = []
        for moment in moments:
            left = [number for place, number in enumerate(ids) if place not in moment.died]
            assert moment.ids[: len(left)] == left
            assert len(moment.ids) == len(left) + moment.born
            ids = moment.ids
        with pytest.raises(KeyError):
            recording.moment(91)


def test_a_group_whose_id_is_used_again_is_another_group(tmp_path):
    root = group("/", 1, 5000)
    samples = [
        [root, group("/job", 2, 1000, id=2)],
        [root],
        [root, group("/job", 3, 7, id=2)],
        [root, group("/other", 4, 8, id=2), group("/job", 5, 9, id=9)],
    ]
    with new(tmp_path / "r.db") as recorder:
        write(recorder, samples)
    with Recording(str(tmp_path / "r.db")) as recording:
        lives = [(g.path, g.uid, g.first, g.last) for g in recording.groups.values()]
        assert lives == [
            ("/", 1, 1, None),
            ("/job", 2, 1, 1),
            ("/job", 3, 3, 3),
            ("/other", 4, 4, None),
            ("/job", 5, 4, None),
        ]
        for moment, infos in zip(recording.moments(), samples, strict=True):
            assert_same(recording, moment, infos)


@pytest.mark.parametrize("seed", range(4))
def test_a_recording_that_is_continued_is_read_as_one(seed, tmp_path):
    tree, samples = Tree(seed), []
    for _ in range(40):
        tree.step()
        samples.append(tree.infos())
    path = str(tmp_path / "r.db")
    for first in (0, 10, 20, 30):
        with new(path) as recorder:
            write(recorder, samples[first : first + 10], first)
            if first == 10:
                recorder.end("stopped")
    with Recording(path) as recording:
        assert [session.ending for session in recording.sessions] == [None, "stopped", None, None]
        for moment, infos in zip(recording.moments(), samples, strict=True):
            assert_same(recording, moment, infos)
            assert moment.session == (moment.id + 9) // 10


def test_events_are_those_that_happened_while_it_was_recorded(tmp_path):
    def sample(*counts):
        infos = [group("/", 1, 0, event_counts=(0, 0, sum(counts), 0, 0))]
        for uid, count in enumerate(counts, 2):
            infos.append(group(f"/{uid}", uid, 0, event_counts=(0, 0, count, 0, 0)))
        return infos

    path = str(tmp_path / "r.db")
    with new(path) as recorder:
        # 5 were before; 3 of a group that is new were not
        write(recorder, [sample(5), sample(5), sample(6, 3)])
    with new(path) as recorder:
        # nobody looked when these happened, but they did
        write(recorder, [sample(8, 3), sample(8, 3)], 3)
    with Recording(path) as recording:
        found = [
            (e.sample, recording.groups[e.group].path, e.event, e.times) for e in recording.events()
        ]
    assert found == [
        (3, "/", "max", 4),
        (3, "/2", "max", 1),
        (3, "/3", "max", 3),
        (4, "/", "max", 2),
        (4, "/2", "max", 2),
    ]


def test_the_views_can_be_read_without_objcg(tmp_path):
    path = tmp_path / "r.db"
    infos = [
        [
            group(name, uid, 9, event_counts=(0, 0, count, 0, 0))
            for uid, name in enumerate(("/", "/a", "/a/b"), 1)
        ]
        for count in (0, 1)
    ]
    with new(path) as recorder:
        write(recorder, infos)
        recorder.end("stopped")
    with sqlite3.connect(path) as db:
        paths = db.execute("SELECT path FROM paths ORDER BY id").fetchall()
        assert paths == [("/",), ("/a",), ("/a/b",)]
        happened = db.execute("SELECT * FROM happened WHERE path = '/a/b'").fetchall()
        assert happened == [("2023-11-14 22:13:21.000", "/a/b", "max", 1)]
    db.close()
    # one file, that needs no other to be read
    assert os.listdir(tmp_path) == ["r.db"]


def decoder():
    """Return the program of docs/recording.md."""
    document = Path(__file__).parents[2] / "docs" / "recording.md"
    code = document.read_text("utf-8").split("```python\n")[1].split("```")[0]
    names = {"__name__": "decoder"}
    exec(code, names)
    return names["counters"]


@pytest.mark.parametrize("seed", range(3))
def test_the_decoder_of_the_document_reads_the_same(seed, tmp_path):
    tree, samples = Tree(seed), []
    for _ in range(70):
        tree.step()
        samples.append(tree.infos())
    path = str(tmp_path / "r.db")
    with new(path) as recorder:
        write(recorder, samples)
        recorder.end("stopped")
    counters = decoder()
    db = sqlite3.connect(path)
    for sample in (1, 2, 30, 60, 61, 70):
        found = counters(db, sample)
        expected = {info.path: columns_of([info]) for info in samples[sample - 1]}
        known = len(COLUMNS) if sample in (1, 61) else STAT
        assert {path: row[:known] for path, row in found.items()} == {
            path: [value for (value,) in columns[:known]] for path, columns in expected.items()
        }
    db.close()


def test_numbers_that_no_process_has_are_held_back_and_not_an_error(tmp_path):
    samples = [
        [group("/", 1, 2**80, stat_values=(-(2**90),) * 8, event_counts=(2**64 - 1,) * 5)],
        [group("/", 1, 0)],
        [group("/", 1, 2**63, peak=-(2**63))],
    ]
    with new(tmp_path / "r.db") as recorder:
        write(recorder, samples)
    with Recording(str(tmp_path / "r.db")) as recording:
        currents = [moment.columns[0] for moment in recording.moments()]
    assert currents == [[frames.MOST], [0], [frames.MOST]]


def test_two_groups_with_one_number_are_no_sample(tmp_path):
    with new(tmp_path / "r.db") as recorder:
        with pytest.raises(region.RegionError, match="unique number 2"):
            write(recorder, [[group("/", 1, 0), group("/a", 2, 0), group("/b", 2, 0)]])
        write(recorder, [[group("/", 1, 0)]])
    with Recording(str(tmp_path / "r.db")) as recording:
        assert recording.samples == 1


def test_what_is_written_is_in_the_file_within_a_second(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(writer.time, "monotonic", lambda: now)
    path = str(tmp_path / "r.db")
    with new(path) as recorder:
        seen = []
        for i in range(21):
            now = 100.0 + i / 10
            recorder.add_groups([group("/", 1, i)], (None, None), AT, CLOCK + i)
            with Recording(path) as recording:
                seen.append(recording.samples)
    assert seen == [0] * 10 + [11] * 10 + [21]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from unit.recorded import AT, CLOCK, group, process
from objcg.views.recording import writer
writer._COMMIT_SECONDS = 1000
recorder = writer.Writer(sys.argv[1], process(), 1.0, "0.1.0")
groups = [group("/", 1, 5), *(group(f"/first-{i}", i, i) for i in range(2, 500))]
recorder.add_groups(groups, (None, None), AT, CLOCK)
recorder.commit()
# far more than SQLite keeps in memory: it is on its way into the file
groups = [group("/", 1, 6), *(group(f"/{i}" + "x" * 240, i, i) for i in range(1000, 120_000))]
recorder.add_groups(groups, (None, None), AT, CLOCK + 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_of_a_sample_in_the_midst_of_which_the_recorder_is_killed_nothing_is_there(tmp_path):
    path = str(tmp_path / "r.db")
    tests = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KILLED, path, tests], check=False)
    assert done.returncode == -signal.SIGKILL
    # some of it is: or this tests nothing
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 2_000_000
    for _ in range(2):
        with Recording(path) as recording:
            assert recording.samples == 1
            assert len(recording.groups) == 499
            assert recording.moment(1).columns[0][:3] == [5, 2, 3]
        # and again, after it was continued
        new(path).close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_another_process_cannot_be_recorded_into_the_same_file(tmp_path):
    path = tmp_path / "r.db"
    new(path).close()
    for other in ({"pid": 4243}, {"start_time": 78}, {"boot_id": "other"}):
        with pytest.raises(RecordingError, match=r"of another process, pid 4242 \(python app.py\)"):
            new(path, **other)
    new(path).close()


def test_a_file_has_one_writer(tmp_path):
    with (
        new(tmp_path / "r.db"),
        pytest.raises(RecordingError, match="another 'objcg record' is writing to it"),
    ):
        new(tmp_path / "r.db")


@pytest.mark.parametrize("content", [b"x", b"text\n" * 100, b"SQLite format 3\0" + bytes(100)])
def test_what_is_not_a_recording_is_left_as_it_is(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    for use in (new, lambda path: Recording(str(path))):
        with pytest.raises(RecordingError, match="not a recording of objcg"):
            use(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_a_database_of_another_program_is_left_as_it_is(tmp_path):
    path = tmp_path / "file"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE process (pid)")
    db.close()
    content = path.read_bytes()
    with pytest.raises(RecordingError, match="an SQLite database, but not a recording"):
        new(path)
    assert path.read_bytes() == content


def test_a_recording_of_another_version_is_refused(tmp_path):
    path = tmp_path / "r.db"
    new(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(RecordingError, match="version 2; this objcg knows version 1"):
        new(path)


def test_folders_and_pipes_are_no_recordings(tmp_path):
    with pytest.raises(RecordingError, match="Is a directory"):
        new(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordingError, match="not a regular file"):
        new(tmp_path / "pipe")
    with pytest.raises(RecordingError, match="No such file"):
        new(tmp_path / "none" / "r.db")
    with pytest.raises(RecordingError, match="No such file"):
        Recording(str(tmp_path / "none"))


def test_an_empty_file_becomes_a_recording_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / "r.db"
    path.touch()
    with pytest.raises(RecordingError, match="it is empty"):
        Recording(str(path))
    with new(path) as recorder:
        write(recorder, [[group("/", 1, 5)]])
    with Recording(str(path)) as recording:
        assert recording.samples == 1
    new(tmp_path / "other.db").close()
    assert (tmp_path / "other.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["frame = x'00'", "frame = 5", "clock = 'x', frame = NULL"])
def test_a_damaged_sample_is_an_error_that_names_it(damage, tmp_path):
    path = tmp_path / "r.db"
    with new(path) as recorder:
        write(recorder, [[group("/", 1, 5)], [group("/", 1, 6)]])
        recorder.end("stopped")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA ignore_check_constraints = 1")
        try:
            db.execute(f"UPDATE samples SET {damage} WHERE id = 2")
        except sqlite3.IntegrityError:
            db.execute("UPDATE samples SET frame = 'text' WHERE id = 2")
    db.close()
    with (
        Recording(str(path)) as recording,
        pytest.raises(RecordingError, match="damaged: the frame of sample 2"),
    ):
        list(recording.moments())


def test_a_recording_that_is_read_stays_as_it_was_when_it_was_opened(tmp_path):
    path = str(tmp_path / "r.db")
    with new(path) as recorder:
        write(recorder, [[group("/", 1, 5)]])
        with Recording(path) as recording:
            write(recorder, [[group("/", 1, 6), group("/a", 2, 1)]], 1)
            assert [moment.columns[0] for moment in recording.moments()] == [[5]]
            with Recording(path) as later:
                assert [moment.columns[0] for moment in later.moments()] == [[5], [6, 1]]
        recorder.end("stopped")


GROUPS = 1000


def stats_of(total, current):
    below = [(c - c // 64 * 16, c // 64 * 16, 0, 0, 0, 0, c // 90, 0) for c in current]
    return [(total, 0, 0, 0, 0, 0, 1, 0), *below]


HOUR = 3600


def test_a_day_of_a_thousand_groups_that_all_change_each_second_is_below_200_mb(tmp_path):
    # docs/recording.md has the arithmetic. Each group gains or loses, each second, what is spread
    # normally with a deviation of 64 KiB; an hour of that is written 24 times
    chance = random.Random(1)
    changes = [[16 * int(chance.gauss(0, 4096)) for _ in range(GROUPS)] for _ in range(97)]
    path = tmp_path / "r.db"
    fixed = writer.columns([group("/", 1, 0), *(group(f"/{i}", i + 2, 0) for i in range(GROUPS))])
    current = peak = (50 * MIB,) * GROUPS
    with new(path) as recorder:
        for second in range(HOUR):
            current = tuple(map(abs, map(add, current, chance.choice(changes))))
            peak = tuple(map(max, peak, current))
            total = sum(current)
            fields = {**fixed, "current": (total, *current), "peak": (2**40, *peak)}
            stats = partial(stats_of, total, current)
            at, clock = AT + second * SECOND, CLOCK + second * SECOND
            recorder.add_columns(fields, stats, (10**9, 10**7), at, clock)
        recorder.end("stopped")
    with sqlite3.connect(path) as db:
        for hour in range(1, 24):
            db.execute(
                "INSERT INTO samples SELECT id + :n, session, at + :n * 1000000000,"
                " clock + :n * 1000000000, rss, rss_shared, key + :n, frame FROM samples"
                " WHERE id <= 3600",
                {"n": hour * HOUR},
            )
    db.close()
    size = path.stat().st_size
    print(f"{size / 1e6:.1f} MB")
    assert 100_000_000 < size < 200_000_000
    with Recording(str(path)) as recording:
        assert recording.samples == 24 * HOUR
        assert recording.moment(24 * HOUR).columns[0] == [sum(current), *current]
