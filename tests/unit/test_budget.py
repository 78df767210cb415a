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


def test_a_process_that_has_charged_nothing_gets_nine_tenths_of_what_is_free():
    assert of(716 * MIB, 200 * MIB, 0, 0) == 450 * MIB


def test_what_is_charged_and_in_memory_is_part_of_what_is_used():
    assert of(716 * MIB, 200 * MIB, 300 * MIB, 320 * MIB) == 300 * MIB + 450 * MIB


def test_what_is_charged_and_was_never_touched_is_not():
    # 300 MiB charged, of which 280 will be taken from what is free once they are written to
    assert of(716 * MIB, 200 * MIB, 300 * MIB, 20 * MIB) == 20 * MIB + 450 * MIB
    # a forked child maps none of its parent's files yet, and may have less than was at start-up
    assert of(716 * MIB, 200 * MIB, 300 * MIB, -MIB) == 450 * MIB


def test_beyond_the_margin_max_is_below_what_is_charged():
    # 4 MiB free of 20 that shall be
    assert of(1000 * MIB, 996 * MIB, 900 * MIB, 950 * MIB) == 900 * MIB - 16 * MIB
    assert of(1000 * MIB, 1200 * MIB, 0, 0) == 0


def test_the_budget_converges_to_the_limit_less_the_margin_as_it_is_used_up():
    limit, unseen = 1000 * MIB, 90 * MIB
    charged = 0
    for _ in range(60):
        charged = of(limit, charged + unseen, charged, charged + unseen)
    assert charged == pytest.approx(limit - unseen - 20 * MIB, abs=MIB)


def test_sharers_each_get_their_part_of_what_is_free():
    limit = Limit(716 * MIB, 200 * MIB, "memory.max")
    parts = [
        budget(limit, charged=charged, beyond_startup=charged, sharers=3)
        for charged in (0, 10 * MIB, 100 * MIB)
    ]
    assert parts == [150 * MIB, 160 * MIB, 250 * MIB]
    # nobody gets a part of what is missing
    limit = Limit(500 * MIB, 500 * MIB, "memory.max")
    assert budget(limit, charged=100 * MIB, beyond_startup=100 * MIB, sharers=3) == 84 * MIB


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
