from __future__ import annotations

import pytest
from unit.cgroup_trees import MIB

from objcg._budget import budget, lowest, margin
from objcg._container import Limit
from objcg.memory import check

GIB = 1 << 30


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (0, 0),
        (64 * MIB, 8 * MIB),  # an eighth at most
        (128 * MIB, 16 * MIB),
        (512 * MIB, 16 * MIB),
        (100 * GIB, 2 * GIB),  # 2 %
    ],
)
def test_what_is_left_free(limit, left):
    assert margin(limit) == left


def of(limit, used, charged, beyond_startup):
    return budget(Limit(limit, used, "memory.max"), charged=charged, beyond_startup=beyond_startup)


def ceiling(limit):
    """Return how far a task may come that is not stopped before (src/core/page_counter.h)."""
    return limit + limit // 8 + 4 * MIB


def nine_tenths(mebibytes):
    # but for the bytes that whole numbers lose
    return pytest.approx(0.9 * mebibytes * MIB, abs=64)


def test_of_what_is_free_nine_tenths_may_be_charged_beyond_half_the_margin():
    # 516 MiB free, of which 16 are to be left
    assert ceiling(of(716 * MIB, 200 * MIB, 0, 0)) == nine_tenths(516 - 8)


def test_where_little_is_free_tasks_are_stopped_before_the_margin():
    assert of(716 * MIB, 698 * MIB, 0, 0) == nine_tenths(18 - 16)


def test_what_is_charged_and_in_memory_is_part_of_what_is_used():
    limit = of(716 * MIB, 200 * MIB, 300 * MIB, 320 * MIB)
    assert ceiling(limit) - 300 * MIB == nine_tenths(516 - 8)


def test_what_is_charged_and_was_never_touched_is_not():
    # 300 MiB charged, of which 280 will be taken from what is free once they are written to
    limit = of(716 * MIB, 200 * MIB, 300 * MIB, 20 * MIB)
    assert ceiling(limit) - 20 * MIB == nine_tenths(516 - 8)
    # a forked child maps none of its parent's files yet, and may have less than was at start-up
    assert ceiling(of(716 * MIB, 200 * MIB, 300 * MIB, -MIB)) == nine_tenths(516 - 8)


def test_with_less_free_than_half_the_margin_the_ceiling_is_below_what_is_charged():
    # 4 MiB free of 20 that shall be
    limit = of(1000 * MIB, 996 * MIB, 900 * MIB, 950 * MIB)
    assert ceiling(limit) == pytest.approx(900 * MIB - 6 * MIB, abs=64)
    assert of(1000 * MIB, 1200 * MIB, 0, 0) == 0


def test_as_it_is_used_up_the_ceiling_comes_to_the_limit_less_half_the_margin():
    limit, unseen = 1000 * MIB, 90 * MIB
    charged = 0
    for _ in range(60):
        # a task that is stopped nowhere below the ceiling
        charged = ceiling(of(limit, charged + unseen, charged, charged + unseen))
    assert charged == pytest.approx(limit - unseen - 10 * MIB, abs=MIB)


def test_sharers_each_get_their_part_of_what_is_free():
    limit = Limit(716 * MIB, 200 * MIB, "memory.max")
    for charged in (0, 10 * MIB, 100 * MIB):
        part = budget(limit, charged=charged, beyond_startup=charged, sharers=3)
        assert ceiling(part) - charged == nine_tenths((516 - 8) / 3)
    # nobody gets a part of what is missing
    limit = Limit(500 * MIB, 500 * MIB, "memory.max")
    part = budget(limit, charged=100 * MIB, beyond_startup=100 * MIB, sharers=3)
    assert ceiling(part) == pytest.approx(100 * MIB - 8 * MIB, abs=64)


@pytest.mark.parametrize("charged", [0, MIB, 10 * MIB, GIB, 100 * GIB])
def test_the_lowest_max_leaves_room_below_its_ceiling(charged):
    least = lowest(charged)
    assert least + least // 8 + 4 * MIB >= charged + 2 * MIB - 1
    assert least < charged or not charged


def test_auto_is_for_roots_max_only():
    assert check({"max": "auto"}, "/") == {"max": "auto"}
    assert check({"max": " auto\n"}, "/") == {"max": "auto"}
    with pytest.raises(ValueError, match=r"memory\.max: 'auto' .* root group only.* not for /a;"):
        check({"max": "auto"}, "/a")
    for knob in ("high", "low"):
        with pytest.raises(ValueError, match=rf"memory\.{knob}: 'auto' is not a size; accepted"):
            check({knob: "auto"}, "/")
    with pytest.raises(ValueError, match="'Auto' is not a size"):
        check({"max": "Auto"}, "/")
