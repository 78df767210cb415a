"""What a reader makes of a process whose groups come and go between two of its steps."""

from __future__ import annotations

import pytest
from unit.region_file import RegionFile

from objcg import region
from objcg._region_parse import parse_source

OFFLINE = 2


class Moments:
    """A source that has other bytes after each reading of group records; the last ones stay.

    A reader reads all groups twice, then their uids; after that what makes no sense, twice each.
    """

    def __init__(self, *moments):
        self.moments = [bytes(moment.data) for moment in moments]
        self.size = len(self.moments[0])

    def extents(self, start, end):
        yield start, end

    def read(self, offset, size):
        moment = self.moments[0]
        if offset and len(self.moments) > 1:
            self.moments.pop(0)
        return moment[offset : offset + size]


def moment(*groups):
    """Make a region with groups (gid, parent, name, uid) and perhaps a state."""
    file = RegionFile()
    for gid, parent, name, uid, *state in groups:
        file.group(gid, parent, name, state=state[0] if state else 1)
        file.put(file.at(0, gid) + 40, "Q", uid)
    file.put(file.at(0, 1) + 40, "Q", 1)
    return file


def paths(*moments):
    return sorted(group.path for group in parse_source(Moments(*moments)).groups)


def test_a_parents_record_that_became_another_groups_after_its_child_was_read():
    before = moment((2, 1, "parent", 50), (3, 2, "child", 60))
    after = moment((2, 1, "other", 70), (3, 2, "child", 60, OFFLINE))
    assert paths(before, before, after) == ["/", "/other"]


def test_a_parents_record_that_became_the_parents_before_its_child_was_read():
    # the third reading shows that the first two are of another group
    torn = moment((2, 1, "other", 50), (3, 2, "child", 70))
    after = moment((2, 1, "parent", 60), (3, 2, "child", 70))
    assert paths(torn, torn, after) == ["/", "/parent", "/parent/child"]


def test_a_group_that_was_removed_and_made_again_is_there_once():
    both = moment((2, 1, "same", 50), (3, 1, "same", 60))
    after = moment((2, 1, "same", 50, OFFLINE), (3, 1, "same", 60))
    found = parse_source(Moments(both, both, both, after))
    assert [(group.path, group.id) for group in found.groups] == [("/", 1), ("/same", 3)]


def test_a_parent_that_was_made_after_its_place_was_read():
    before = moment((2, 1, "was", 50, OFFLINE), (3, 2, "child", 70))
    after = moment((2, 1, "parent", 60), (3, 2, "child", 70))
    assert paths(before, before, after) == ["/", "/parent", "/parent/child"]


def test_children_may_have_lower_numbers_than_their_parents():
    file = moment((2, 5, "child", 70), (5, 1, "parent", 60), (3, 2, "grandchild", 80))
    assert paths(file) == ["/", "/parent", "/parent/child", "/parent/child/grandchild"]


def test_twins_that_stay_are_an_error():
    with pytest.raises(region.RegionError, match="group record 2 has the path of another, '/same'"):
        region.parse(moment((2, 1, "same", 50), (3, 1, "same", 60)).data)


def test_a_stock_of_a_group_that_was_made_after_the_header_was_read():
    file = moment((2, 1, "new", 50))
    file.objcg(4, 2)
    file.stock(0, 0, 4, 100)
    file.section(1, used=2)
    assert [group.path for group in region.parse(file.data).groups] == ["/", "/new"]


def test_holes_are_not_read(tmp_path):
    file = RegionFile(capacities=(1 << 20, 64, 64, 4))
    file.group(2, 1, "before", usage=1)
    file.group(900_000, 1, "beyond", usage=2)
    data, size = file.data, len(file.data)
    path = tmp_path / "sparse"
    with path.open("wb") as opened:
        opened.truncate(size)
        for start in (0, 4096, 4096 + 512 * 900_000):
            opened.seek(start)
            opened.write(data[start : start + 4096])
    del data, file.data
    read = []

    class Counting(region.FileSource):
        def read(self, offset, size):
            read.append(size)
            return super().read(offset, size)

    with path.open("rb") as opened:
        found = parse_source(Counting(opened.fileno()))
    assert [group.path for group in found.groups] == ["/", "/before", "/beyond"]
    # 512 MB of records are in use, it says
    assert sum(read) < 1 << 20
