from __future__ import annotations

import json
import mmap
import os
import random
import subprocess
import sys
import time

import pytest
from unit.region_file import CAPACITY, CPUS, GROUPS, RegionFile, start_time

from objcg import _core, _layout, region


def by_path(parsed):
    return {group.path: group for group in parsed.groups}


def sample():
    file = RegionFile()
    file.group(1, 0, "", usage=1000, peak=900)
    file.group(
        2,
        1,
        "tenants",
        usage=800,
        peak=2000,
        limit=4096,
        high=2048,
        low=64,
        tasks=3,
        dying=2,
        blocks=7,
        stat=(1, 2, 3, 4, 5),
        events=(1, 2, 3, 4, 5),
    )
    file.group(3, 2, "acme", usage=300)
    file.group(5, 2, "zeta", usage=500)
    file.group(6, 2, "gone", state=2, usage=500)
    return file


def test_every_field_is_where_the_layout_says():
    parsed = region.parse(sample().data)
    assert (parsed.pid, parsed.command, parsed.python) == (os.getpid(), "python app.py", "3.12.1")
    assert parsed.created_ns == 1_700_000_000_000_000_000
    assert by_path(parsed)["/tenants"].to_json() == {
        "path": "/tenants",
        "id": 2,
        "uid": 1002,
        "online": True,
        "tasks": 3,
        "current": 800,
        "peak": 2000,
        "max": 4096,
        "high": 2048,
        "low": 64,
        "events": {"low": 1, "high": 2, "max": 3, "ceiling": 4, "raised": 5},
        "stat": {
            "object": 785,
            "mem": 1,
            "raw": 2,
            "numpy": 3,
            "native": 4,
            "mmap": 5,
            "blocks": 7,
            "dying_descendants": 2,
        },
    }


def test_unset_limits_are_none_and_removed_groups_are_left_out():
    groups = by_path(region.parse(sample().data))
    root = groups["/"]
    assert (root.max, root.high, root.low) == (None, None, None)
    assert root.peak == 1000
    assert set(groups) == {"/", "/tenants", "/tenants/acme", "/tenants/zeta"}


def test_the_tree_has_parents_first_and_the_largest_first_of_siblings():
    paths = [group.path for group in region.parse(sample().data).tree()]
    assert paths == ["/", "/tenants", "/tenants/zeta", "/tenants/acme"]


def test_stocks_are_taken_off_the_group_and_all_above_it():
    file = sample()
    file.objcg(4, 3)
    file.objcg(5, 2)
    file.stock(0, 0, 4, 100, blocks=2, stat=(10, 0, 0, 0, 0))
    file.stock(1, 63, 4, 50, blocks=-1)
    file.stock(1, 7, 5, 30)
    file.stock(2, 0, 5, 9999, state=0)
    groups = by_path(region.parse(file.data))
    assert groups["/tenants/acme"].current == 300 - 150
    assert groups["/tenants/acme"].stat["mem"] == 10
    assert groups["/tenants/acme"].stat["blocks"] == 1
    assert groups["/tenants"].current == 800 - 180
    assert groups["/tenants"].stat["mem"] == 11
    assert groups["/tenants"].stat["blocks"] == 8
    assert groups["/"].current == 1000 - 180
    assert groups["/tenants/zeta"].current == 500


def test_the_stock_of_a_removed_group_is_of_the_group_that_inherited_it():
    file = sample()
    file.objcg(9, 2, state=2)
    file.stock(0, 0, 9, 100)
    assert by_path(region.parse(file.data))["/tenants"].current == 700


def test_a_file_and_a_mapping_of_it_read_alike(tmp_path):
    path = sample().write(tmp_path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        mapped = region.parse(mapping)
    assert region.read(str(path)).to_json()["groups"] == mapped.to_json()["groups"]


def test_reading_ten_thousand_groups_takes_hundredths_of_a_second(tmp_path):
    file = RegionFile(capacities=(10_100, CAPACITY, CAPACITY, 4))
    for gid in range(2, 10_002):
        file.group(gid, 1, f"group-{gid}", usage=gid)
    path = str(file.write(tmp_path))
    times = []
    for _ in range(5):
        start = time.process_time()
        assert len(region.read(path).groups) == 10_001
        times.append(time.process_time() - start)
    # 0.04 on a slow machine; the best of five, as other work can only make it slower
    assert min(times) < 0.1


class _Changing:
    """A source whose bytes change after each read, as those of a process at work do."""

    def __init__(self, versions):
        self.versions = [bytes(version) for version in versions]
        self.size = len(self.versions[0])

    def read(self, offset, size):
        version = self.versions[0]
        if offset and len(self.versions) > 1:
            self.versions.pop(0)
        return version[offset : offset + size]


def named(name, seq):
    file = RegionFile()
    file.group(2, 1, name, seq=seq)
    return file.data


@pytest.mark.parametrize(
    "versions",
    [
        [("new-old", 3), ("new-old", 3), ("new-old", 3), ("new-new", 4)],
        [("new-old", 2), ("new-new", 4)],
        [("new-old", 2), ("new-new", 4), ("new-old", 4), ("new-new", 6), ("new-new", 6)],
    ],
    ids=["odd", "changed meanwhile", "changed again"],
)
def test_a_record_that_changes_while_it_is_read_is_read_again(versions):
    source = _Changing([named(name, seq) for name, seq in versions])
    assert "/new-new" in by_path(region._parse(source))


def test_a_record_whose_writer_was_killed_half_way_is_taken_as_it_is():
    assert "/half" in by_path(region.parse(named("half", 7)))


def test_a_tree_that_changes_while_it_is_read_is_read_again():
    torn = RegionFile()
    torn.group(2, 9, "child")
    whole = RegionFile()
    whole.group(2, 1, "child")
    assert "/child" in by_path(region._parse(_Changing([torn.data] * 3 + [whole.data])))


def damaged(**changes):
    file = sample()
    for name, arguments in changes.items():
        getattr(file, name)(*arguments)
    return file.data


def cycle():
    file = sample()
    file.group(2, 3, "tenants")
    return file.data


def deep():
    file = RegionFile(capacities=(200, CAPACITY, CAPACITY, 4))
    for gid in range(2, 150):
        file.group(gid, gid - 1, "x")
    return file.data


def section(index, **fields):
    file = sample()
    file.section(index, **fields)
    return file.data


def with_group(*arguments, **fields):
    file = sample()
    file.group(*arguments, **fields)
    return file.data


def with_stock_of(objcg):
    file = sample()
    file.stock(0, 0, objcg, 100)
    return file.data


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not a region file"),
        (b"OBJCGRG", "not a region file"),
        (b"x" * 8192, "not a region file"),
        (sample().data[:4095], "4095 bytes"),
        (sample().data[:-1], "should have"),
        (damaged(put=(8, "I", 2)), "layout version 2"),
        (damaged(put=(12, "I", 128)), "header of 128 bytes"),
        (damaged(put=(16, "Q", 2**64 - 1)), "should have"),
        (damaged(put=(320, "I", 3073)), "3073 bytes"),
        (section(GROUPS, record_size=256), "256 bytes"),
        (section(GROUPS, record_size=0), "0 bytes"),
        (section(GROUPS, used=CAPACITY + 1), "room for"),
        (section(GROUPS, capacity=2**32 - 1, used=2**32 - 1), "room for"),
        (section(GROUPS, offset=0), "outside"),
        (section(GROUPS, offset=2**64 - 1), "outside"),
        (section(CPUS, offset=1 << 20, used=1), "outside"),
        (section(GROUPS, used=0), "no root"),
        (with_group(1, 0, "", state=0), "no root"),
        (with_group(1, 2, ""), "no root"),
        (with_group(1, 1, ""), "no root"),
        (with_group(3, 2, "a", state=3), "state 3"),
        (with_group(3, 2, "a", name_len=256), "256 bytes"),
        (with_group(3, 2, ""), "has the name ''"),
        (with_group(3, 2, "a/b"), "has the name 'a/b'"),
        (with_group(3, 3, "own parent"), "its own parent"),
        (with_group(3, 0, "second root"), "which is not in use"),
        (with_group(3, 2**32 - 1, "lost"), "which is not in use"),
        (cycle(), "its own parent"),
        (deep(), "deeper than"),
        (with_stock_of(CAPACITY), "objcg 64"),
        (with_stock_of(2**31 - 1), "objcg 2147483647"),
    ],
)
def test_damage_is_a_region_error_that_says_what_is_wrong(data, fault):
    with pytest.raises(region.RegionError, match=fault):
        region.parse(bytes(data))


def test_random_damage_gives_a_region_or_a_region_error():
    rng = random.Random(1)
    file = sample()
    file.objcg(4, 3)
    file.stock(0, 0, 4, 100)
    places = [*range(400), *range(4096 + 512, 4096 + 7 * 512)]
    errors = 0
    for _ in range(400):
        data = bytearray(file.data)
        for _ in range(rng.randrange(1, 6)):
            data[rng.choice(places)] = rng.randrange(256)
        try:
            json.dumps(region.parse(data).to_json())
        except region.RegionError:
            errors += 1
    assert 0 < errors < 400


def test_names_that_are_not_utf8_are_shown_all_the_same():
    assert "/�x" in by_path(region.parse(with_group(3, 1, b"\xffx")))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path, make):
    path = str(tmp_path / "odd")
    make(path)
    with pytest.raises(region.RegionError, match="odd: "):
        region.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(region.RegionError, match=r"none\.region: No such file"):
        region.read(str(tmp_path / "none.region"))


def mapping_process(path):
    """Start a process that maps `path`, and return it."""
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'r+b'); "
        "m = mmap.mmap(file.fileno(), 4096); print('mapped', flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("OBJCG_DIR", str(path))
    return path


def test_a_process_is_alive_while_it_has_its_file_mapped(folder):
    file = sample()
    scratch = file.write(folder, "scratch")
    with mapping_process(scratch) as process:
        started = start_time(process.pid)
        file.process(process.pid, started)
        path = folder / f"{process.pid}-{started}.region"
        with scratch.open("r+b") as opened:
            opened.write(file.data)
        assert process.stdout.readline() == b"mapped\n"
        # the name of what a process has mapped follows
        scratch.rename(path)
        assert region.read(str(path)).alive
        assert region.find(process.pid) == str(path)
        assert region.find_live() == [str(path)]
        process.stdin.close()
    assert not region.read(str(path)).alive
    assert region.find_live() == []
    # for an autopsy
    assert region.find(process.pid) == str(path)


def test_a_process_that_became_another_program_is_not_alive(folder):
    # such a one runs, but has the file of its earlier life not mapped
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        started = start_time(process.pid)
        file = sample()
        file.process(process.pid, started)
        path = file.write(folder, f"{process.pid}-{started}.region")
        assert not region.read(str(path)).alive
        assert region.find_live() == []
        process.stdin.close()


def test_a_pid_that_is_used_again_is_another_process(folder):
    file = sample()
    file.process(os.getpid(), 1)
    path = file.write(folder, f"{os.getpid()}-1.region")
    assert not region.read(str(path)).alive


def test_a_process_that_said_it_exits_is_not_alive():
    file = sample()
    assert region.parse(file.data).alive
    file.put(88, "I", 4)
    assert region.parse(file.data).exited
    assert not region.parse(file.data).alive


def test_a_process_of_an_earlier_boot_is_not_alive():
    file = sample()
    file.data[40:44] = b"0000"
    assert not region.parse(file.data).alive


def test_nothing_is_found_for_a_process_without_a_file(folder):
    assert region.find(2**22 + 1) is None


def test_the_layout_is_the_cores():
    ours = {
        "header": _layout.HEADER,
        "group": _layout.GROUP,
        "objcg": _layout.OBJCG,
        "task": _layout.TASK,
        "cpu": _layout.CPU,
        "stock": _layout.STOCK,
    }
    layout = {
        f"{kind}.{name}": offset
        for kind, record in ours.items()
        for name, (offset, _) in record.fields.items()
    }
    layout |= {f"{kind}.size": record.size for kind, record in ours.items()}
    layout |= {"stock.count": _layout.STOCKS, "cpu.stocks": _layout.STOCKS_OFFSET}
    layout |= {"group.gen": _layout.GROUP_GEN, "task.gen": _layout.TASK_GEN}
    layout |= {"task.request": _layout.TASK_REQUEST}
    assert layout == {name: _core.LAYOUT.get(name) for name in layout}


def test_unaccounted_is_what_is_resident_less_start_up_and_what_is_charged():
    file = sample()
    file.put(208, "QQ", 300, 200)
    parsed = region.parse(file.data)
    assert (parsed.startup, parsed.charged) == (300, 1000)
    assert (parsed.rss, parsed.unaccounted) == (None, None)
    parsed = parsed._replace(rss=1500, rss_shared=250)
    assert (parsed.unaccounted, parsed.shared) == (200, 50)
    json_of_it = parsed.to_json()
    keys = ("rss", "startup", "charged", "unaccounted", "shared")
    assert [json_of_it[key] for key in keys] == [1500, 300, 1000, 200, 50]
    # charged, but never touched
    assert parsed._replace(rss=1000).unaccounted == -300


def test_the_resident_set_is_read_of_a_living_process_only(folder):
    file = sample()
    with mapping_process(file.write(folder, "scratch")) as process:
        started = start_time(process.pid)
        file.process(process.pid, started)
        path = folder / f"{process.pid}-{started}.region"
        assert process.stdout.readline() == b"mapped\n"
        (folder / "scratch").rename(path)
        with path.open("r+b") as opened:
            opened.write(file.data)
        rss = region.read(str(path)).rss
        with open(f"/proc/{process.pid}/status") as status:
            shown = 1024 * int(status.read().partition("VmRSS:")[2].split()[0])
        # it waits; the kernel may count some pages of a CPU late
        assert abs(rss - shown) <= 1 << 20
        assert 0 < region.read(str(path)).rss_shared < rss
        process.stdin.close()
    assert region.read(str(path)).rss is None


def test_a_number_that_another_process_has_now_has_no_resident_set(folder):
    file = sample()
    file.process(os.getpid(), 1)
    assert region.read(str(file.write(folder, f"{os.getpid()}-1.region"))).rss is None


def test_tasks_are_read_when_they_are_asked_for():
    file = sample()
    file.task(1, 1, 1, "root")
    file.task(2, 3, 17, "wörker")
    file.task(3, 3, 18, "")
    file.task(4, 6, 19, "on its way out")
    file.task(5, 3, 20, "ended", state=0)
    assert region.parse(file.data).tasks is None
    assert region.parse(file.data, tasks=True).tasks == [
        region.TaskInfo(1, "root", "/", 1, 1),
        region.TaskInfo(17, "wörker", "/tenants/acme", 2, 3),
        region.TaskInfo(18, "task-18", "/tenants/acme", 3, 3),
    ]


@pytest.mark.parametrize(("state", "name_len"), [(2, 4), (1, 64), (1, 2**32 - 1)])
def test_a_task_that_cannot_be_is_an_error(state, name_len):
    file = sample()
    file.task(1, 1, 1, "root", state=state, name_len=name_len)
    with pytest.raises(region.RegionError, match="task record 1 has state"):
        region.parse(file.data, tasks=True)
