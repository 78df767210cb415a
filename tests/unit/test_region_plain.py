"""Groups that are read at once, and one by one: both give the same, of damage as well."""

from __future__ import annotations

import json
import random

import pytest
from unit.region_file import RegionFile

from objcg import _region_parse, region
from objcg._region_groups import Groups

OFFLINE = 2
NAMES = (
    *(b"a", b"b", b"same", b"\xc3\xa4", b'quo"ted', b"x" * 100),
    # no UTF-8: a sequence that is cut off, a byte that begins none, a surrogate, one too long
    *(b"\xf0\x9f\x92", b"\x92", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x82", b"a\xf0"),
)
HOSTILE = (b"", b"/", b"a/b", b"a\0b", b"\0")
NUMBERS = (0, 1, 2, 3, 5, 63, 64, 2**31, 2**32 - 1)


def outcome(data):
    """Return what a tool would see of it, and whether the groups were read at once."""
    try:
        found = region.parse(bytes(data), tasks=True)
    except region.RegionError as error:
        return str(error), False
    groups = [group.to_json() for group in found.groups]
    text = found.to_json_text()
    assert json.loads(text) == found.to_json()
    assert found.charged == groups[0]["current"]
    assert len(found.groups) == len(groups)
    return (groups, found.tasks, text), isinstance(found.groups, Groups)


def slowly(data, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(_region_parse, "_plain_paths", lambda _: None)
        result, at_once = outcome(data)
    assert not at_once
    return result


def tree(rng):
    """Make a tree of some depth, with stocks, tasks, limits and removed groups."""
    file = RegionFile()
    for gid in range(2, rng.randrange(3, 40)):
        file.group(
            gid,
            rng.randrange(max(1, gid - 5), gid),
            rng.choice(NAMES) + b"%d" % gid if rng.random() < 0.98 else rng.choice(NAMES),
            state=1 if rng.random() < 0.95 else OFFLINE,
            usage=rng.randrange(5) * 1000,
            peak=rng.randrange(3000),
            limit=rng.choice([4096, 2**63 - 1]),
            low=rng.choice([0, 64]),
            stat=[rng.randrange(500) for _ in range(5)],
            events=[rng.randrange(2) for _ in range(5)],
        )
        file.objcg(gid, gid)
        if rng.random() < 0.01:
            # its writer was killed in the middle of it
            file.put(file.offsets[0] + 512 * gid + 208, "I", 7)
        if rng.random() < 0.3:
            file.stock(rng.randrange(3), gid, gid, rng.randrange(1000), blocks=-1)
        if rng.random() < 0.3:
            file.task(gid, gid, gid, "worker")
    return file


def damage(rng, file):
    """Change one thing as no process would, or would in the middle of it."""
    gid = rng.randrange(1, 40)
    at = file.offsets[0] + 512 * gid
    kind = rng.randrange(8)
    if kind == 0:
        file.put(at, "I", rng.choice(NUMBERS))
    elif kind == 1:
        file.put(at + 8, "I", rng.choice([*NUMBERS, *range(40)]))
    elif kind == 2:
        file.put(at + 40, "Q", rng.choice([0, 1, 1000 + rng.randrange(40), 2**64 - 1]))
    elif kind == 3:
        file.put(at + 212, "I", rng.choice([*NUMBERS, 255, 256]))
    elif kind == 4:
        name = rng.choice([*HOSTILE, *NAMES])
        file.put(at + 212, "I", len(name))
        file.data[at + 256 : at + 256 + len(name)] = name
    elif kind == 5:
        file.put(at + 208, "I", rng.randrange(4))
    elif kind == 6:
        other = file.offsets[0] + 512 * rng.randrange(40)
        file.data[at : at + 512] = file.data[other : other + 512]
    else:
        file.section(0, used=rng.randrange(41))


def test_both_ways_give_the_same_tree_or_the_same_error(monkeypatch):
    rng = random.Random(1)
    seen = {"at once": 0, "one by one": 0, "error": 0}
    for _ in range(600):
        file = tree(rng)
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            damage(rng, file)
        result, at_once = outcome(file.data)
        assert result == slowly(file.data, monkeypatch)
        how = "error" if isinstance(result, str) else "at once" if at_once else "one by one"
        seen[how] += 1
    # none of them is rare
    assert min(seen.values()) > 30, seen
    assert seen["at once"] > 200, seen


def test_a_name_too_long_of_a_removed_group_is_seen_by_both(monkeypatch):
    file = RegionFile()
    file.group(2, 1, "a", state=OFFLINE, name_len=256)
    result, _ = outcome(file.data)
    assert "256 bytes" in result
    assert result == slowly(file.data, monkeypatch)


@pytest.mark.parametrize(("depth", "at_once"), [(128, True), (129, False)])
def test_the_deepest_group_is_the_same_for_both(monkeypatch, depth, at_once):
    file = RegionFile(capacities=(200, 64, 64, 4))
    for gid in range(2, depth + 2):
        file.group(gid, gid - 1, "x")
    result, how = outcome(file.data)
    assert how is at_once
    assert ("deeper than 128" in result) is not at_once
    assert result == slowly(file.data, monkeypatch)


@pytest.mark.parametrize("count", [1, 2, 239, 240, 241, 1000])
def test_groups_in_several_pieces(monkeypatch, count):
    file = RegionFile(capacities=(1100, 64, 64, 4))
    for gid in range(2, count + 1):
        file.group(gid, max(1, gid // 3), f"g{gid}", usage=gid)
    result, at_once = outcome(file.data)
    assert at_once
    assert len(result[0]) == count
    assert result == slowly(file.data, monkeypatch)


def test_a_whole_region_at_work_is_read_at_once():
    # the counters of every group change between the two readings, and of some the seq is not 0
    file = RegionFile()
    for gid in range(2, 60):
        file.group(gid, 1, f"g{gid}", usage=gid, seq=2)

    class Counting:
        size = len(file.data)
        reads = 0

        def extents(self, start, end):
            yield start, end

        def read(self, offset, size):
            Counting.reads += 1
            for gid in range(2, 60):
                file.put(file.offsets[0] + 512 * gid + 64, "q", Counting.reads)
            return bytes(file.data[offset : offset + size])

    found = _region_parse.parse_source(Counting())
    assert isinstance(found.groups, Groups)
    # the header, all groups twice, their parents' uids; no cpu has a stock
    assert Counting.reads == 4
    assert {group.current for group in found.groups} == {0, 3}


def test_groups_are_a_sequence():
    file = RegionFile()
    file.group(2, 1, "a", usage=5)
    found = region.parse(bytes(file.data)).groups
    assert isinstance(found, Groups)
    assert found.root().path == "/"
    assert (len(found), found[1].path, found[-1].current) == (2, "/a", 5)
    assert [group.id for group in found[:1]] == [1]
    assert found == list(found)
    assert found == region.parse(bytes(file.data)).groups
    assert found != region.parse(bytes(RegionFile().data)).groups
    with pytest.raises(IndexError):
        found[2]
