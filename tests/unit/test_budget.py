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


def of(limit, used, charged, beyond_startup, sharers=1):
    return budget(
        Limit(limit, used, "memory.max"),
        charged=charged,
        beyond_startup=beyond_startup,
        sharers=sharers,
    )


def test_a_process_that_has_charged_nothing_gets_nine_tenths_of_what_little_is_free():
    value, bound = of(716 * MIB, 656 * MIB, 0, 0)
    assert value == pytest.approx((60 - 16) * MIB * 9 / 10, abs=1)
    # of all but a quarter of the margin
    assert bound == pytest.approx((60 - 4) * MIB * 5 / 6, abs=1)


def test_where_much_is_free_max_is_a_little_below_the_bound():
    value, bound = of(716 * MIB, 200 * MIB, 0, 0)
    assert bound == pytest.approx((516 - 4) * MIB * 5 / 6, abs=1)
    assert value == bound - 4 * MIB


@pytest.mark.parametrize("charged", [0, 10 * MIB, 300 * MIB])
@pytest.mark.parametrize("free", [*range(1, 100, 7), 1000])
@pytest.mark.parametrize("sharers", [1, 3, 64])
def test_what_is_charged_up_to_the_bound_fits_though_a_fifth_more_comes_with_it(
    charged, free, sharers
):
    limit = 1024 * MIB
    value, bound = of(limit, limit - free * MIB, charged, charged, sharers)
    # but for the room above max that each has in any case
    fits = max(free * MIB / 1.2 / sharers, value - charged + 4 * MIB)
    assert bound - charged <= fits
    assert bound >= value + 4 * MIB
    assert (value - charged) * 1.1 * sharers <= free * MIB


def test_what_is_charged_and_in_memory_is_part_of_what_is_used():
    free = of(716 * MIB, 200 * MIB, 0, 0)
    more = of(716 * MIB, 200 * MIB, 300 * MIB, 320 * MIB)
    assert [b - a for a, b in zip(free, more, strict=True)] == [300 * MIB] * 2


def test_what_is_charged_and_was_never_touched_is_not():
    # 300 MiB charged, of which 280 will be taken from what is free once they are written to
    free = of(716 * MIB, 200 * MIB, 0, 0)
    more = of(716 * MIB, 200 * MIB, 300 * MIB, 20 * MIB)
    assert [b - a for a, b in zip(free, more, strict=True)] == [20 * MIB] * 2
    # a forked child maps none of its parent's files yet, and may have less than was at start-up
    assert of(716 * MIB, 200 * MIB, 300 * MIB, -MIB) == free


def test_beyond_the_margin_max_is_below_what_is_charged():
    # 4 MiB free of 20 that shall be
    assert of(1000 * MIB, 996 * MIB, 900 * MIB, 950 * MIB)[0] == 900 * MIB - 16 * MIB
    assert of(1000 * MIB, 1200 * MIB, 0, 0) == (0, 4 * MIB)


def test_the_budget_converges_to_the_limit_less_the_margin_as_it_is_used_up():
    limit, unseen = 1000 * MIB, 90 * MIB
    charged = 0
    for _ in range(60):
        charged, _ = of(limit, charged + unseen, charged, charged + unseen)
    assert charged == pytest.approx(limit - unseen - 20 * MIB, abs=MIB)


def test_sharers_each_get_their_part_of_what_is_free():
    parts = [of(716 * MIB, 656 * MIB, charged, charged, 3) for charged in (0, 10 * MIB, 100 * MIB)]
    third = (60 - 4) * MIB * 5 // 6 // 3
    assert [bound for _, bound in parts] == pytest.approx(
        [third, 10 * MIB + third, 100 * MIB + third], abs=2 * MIB
    )
    # what leaves room for an error below the bound, or all but the tenth
    assert [value for value, _ in parts] == pytest.approx(
        [13.2 * MIB, 23.2 * MIB, 113.2 * MIB], abs=MIB
    )
    assert [bound - value for value, bound in parts] == [4 * MIB] * 3
    # nobody gets a part of what is missing
    assert of(500 * MIB, 500 * MIB, 100 * MIB, 100 * MIB, 3) == (84 * MIB, 96 * MIB)


@pytest.mark.parametrize("charged", [0, MIB, 10 * MIB, GIB, 100 * GIB])
def test_the_lowest_max_leaves_room_below_its_ceiling(charged):
    least, bound = lowest(charged)
    assert least + least // 8 + 4 * MIB >= charged + 2 * MIB - 1
    assert bound == charged + 4 * MIB
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
