from __future__ import annotations

import asyncio
import itertools
import pickle
import sys
import time

import pytest
from unit.fake_core import FakeGroup

from objcg import EnableError, MemoryLimitExceeded, _registry, limits, reclaim

MIB = 1 << 20
LIMIT = 32 * MIB


@pytest.fixture
def offender(tree, collector):
    group = tree["/a"]
    group.usage, group.limit = LIMIT + MIB, LIMIT
    return group


def shrink(group, nbytes):
    def fn(_group, _wanted):
        group.usage -= nbytes

    reclaim._shrinkers.append(reclaim._Shrinker(fn, group))


def record(group, event):
    seen = []
    limits.on(group, event, lambda *arguments: seen.append(arguments))
    return seen


def test_the_main_thread_gets_an_exception_that_says_whose_limit_it_is(offender, core):
    error = limits.over(offender.id, offender.uid, LIMIT)
    assert isinstance(error, MemoryLimitExceeded)
    assert str(error) == "group /a is over memory.max: 33.0 MiB charged, limit 32.0 MiB"
    assert (error.group, error.task) == (offender, core.task)
    assert (error.limit, error.usage) == (LIMIT, LIMIT + MIB)
    assert core.counted == [(offender.id, "raised")]
    assert core.exempted == [(offender.id, MIB)]


def test_no_exception_when_reclaim_was_enough(offender, core):
    shrink(offender, MIB)
    assert limits.over(offender.id, offender.uid, LIMIT) is None
    assert core.counted == []
    assert core.exempted == []


def test_no_exception_when_the_limit_was_raised_meanwhile(offender, core):
    offender.limit = 2 * LIMIT
    assert limits.over(offender.id, offender.uid, LIMIT) is None
    offender.limit = None
    assert limits.over(offender.id, offender.uid, LIMIT) is None


def test_no_exception_for_a_group_that_is_gone(offender, core):
    gid = offender.id
    offender.remove()
    assert limits.over(gid, offender.uid, LIMIT) is None


def test_a_group_that_has_the_id_of_one_that_is_gone_is_left_alone(offender, core):
    gid, uid, usage = offender.id, offender.uid, offender.usage
    offender.remove()
    FakeGroup(core, gid, "/b", usage=usage, limit=LIMIT)
    core.flagged = [(gid, uid, "max")]
    core.report = (gid, uid, core.task.id, LIMIT, usage, MIB)
    limits.service()
    assert core.raised == []
    assert limits.over(gid, uid, LIMIT) is None
    assert MemoryLimitExceeded().group is None


def test_no_exception_for_a_group_that_a_shrinker_removes(offender, core):
    reclaim._shrinkers.append(reclaim._Shrinker(lambda group, _: group.remove(), offender))
    assert limits.over(offender.id, offender.uid, LIMIT) is None
    assert core.counted == []


def test_no_exception_inside_a_shrinker(offender, core):
    inner = []

    def fn(group, _nbytes):
        inner.append(limits.over(group.id, group.uid, LIMIT))

    reclaim._shrinkers.append(reclaim._Shrinker(fn, offender))
    limits.over(offender.id, offender.uid, LIMIT)
    assert inner == [None]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, 64 << 10), (MIB, 64 << 10), (8 * MIB, MIB // 2), (16 * MIB, MIB), (1 << 40, MIB)],
)
def test_the_reserve_is_a_sixteenth_within_bounds(limit, expected):
    assert limits.reserve(limit) == expected


def test_another_thread_is_raised_in_when_reclaim_was_not_enough(offender, core):
    seen = record(offender, "raised")
    core.flagged = [(offender.id, offender.uid, "max")]
    limits.service()
    assert core.raised == [(offender.id, MemoryLimitExceeded, MIB)]
    # neither before the thread has got it, which the core tells
    assert core.exempted == core.counted == seen == []
    core.flagged = [(offender.id, offender.uid, "raised")]
    limits.service()
    assert seen == [(offender, "raised")]


def test_another_thread_goes_on_when_reclaim_was_enough(offender, core):
    shrink(offender, MIB)
    core.flagged = [(offender.id, offender.uid, "max")]
    limits.service()
    assert core.raised == []


def test_a_callback_for_max_can_make_the_exception_unnecessary(offender, core):
    def free(group, _event):
        group.usage = 0

    limits.on(offender, "max", free)
    core.flagged = [(offender.id, offender.uid, "max")]
    limits.service()
    assert core.raised == []


def test_a_thread_that_cannot_be_interrupted_yet_is_looked_at_again(offender, core):
    looks, intervals = [], []

    def look(gid, exc, reserve):
        looks.append((gid, exc, reserve))
        intervals.append(sys.getswitchinterval())
        return 7 if len(looks) == 4 else 0

    before = sys.getswitchinterval()
    core.raise_in_group = look
    core.flagged = [(offender.id, offender.uid, "max")]
    limits.service()
    assert looks == [(offender.id, MemoryLimitExceeded, MIB)] * 4
    assert intervals == [before, *[limits.SHORT_INTERVAL] * 3]
    assert sys.getswitchinterval() == before
    assert core.counted == core.exempted == []


def test_a_thread_that_cannot_be_interrupted_is_looked_at_for_a_while_only(offender, core):
    core.thread = 0
    core.flagged = [(offender.id, offender.uid, "max")]
    before = sys.getswitchinterval()
    limits.service()
    assert len(core.raised) > 1
    assert sys.getswitchinterval() == before


def test_what_the_call_itself_takes_is_reclaimed_too(offender, core, monkeypatch):
    """Reclaim was asked for what was above the limit before; something else has freed that."""
    offender.usage = LIMIT + 32
    related = reclaim._related

    def free_a_little(group):
        group.usage -= 64
        return related(group)

    def at_root(fn):
        def call(*args):
            if fn is reclaim._reclaim:
                offender.usage += 272
            return fn(*args)

        return call

    monkeypatch.setattr(core, "at_root", at_root)
    monkeypatch.setattr(reclaim, "_related", free_a_little)
    shrink(offender, MIB)
    assert limits.over(offender.id, offender.uid, LIMIT) is None
    assert offender.usage < LIMIT


def test_reclaim_is_not_tried_again_where_it_frees_nothing(offender, core):
    calls = []
    reclaim._shrinkers.append(reclaim._Shrinker(lambda _, n: calls.append(n), offender))
    assert limits.over(offender.id, offender.uid, LIMIT) is not None
    assert calls == [MIB]


def looks_of_services(core, group, count):
    """How often threads of the group are looked at in each of so many services."""
    looks = []
    for _ in range(count):
        core.raised = []
        core.flagged = [(group.id, group.uid, "max")]
        limits.service()
        looks.append(len(core.raised))
    return looks


@pytest.fixture
def now(monkeypatch):
    """The time, in a list; it passes where one sleeps, and by a whole stalk."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + limits._STALK_MOST))
    return now


def test_a_group_that_was_stalked_in_vain_is_left_alone_for_longer_each_time(offender, core, now):
    core.thread = 0
    stalked = []
    while len(stalked) < 10:
        at = now[0]
        if looks_of_services(core, offender, 1) == [2]:
            stalked.append(at)
        now[0] += 0.001
    waits = [round(b - a - limits._STALK_MOST, 2) for a, b in itertools.pairwise(stalked)]
    assert waits == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 1.28, 1.28]


@pytest.mark.usefixtures("now")
def test_a_group_that_goes_on_growing_or_was_stopped_is_stalked_again_at_once(offender, core):
    core.thread = 0
    assert looks_of_services(core, offender, 2) == [2, 1]
    offender.usage += LIMIT // 16
    assert looks_of_services(core, offender, 2) == [2, 1]
    core.thread = 7
    assert looks_of_services(core, offender, 1) == [1]
    core.thread = 0
    assert looks_of_services(core, offender, 2) == [2, 1]


@pytest.mark.parametrize("change", [lambda group: setattr(group, "usage", 0), FakeGroup.remove])
def test_a_thread_is_not_looked_at_any_more_when_there_is_room_or_no_group(
    change, offender, core, monkeypatch
):
    def look(*_):
        core.raised.append(1)
        if len(core.raised) == 3:
            change(offender)
        return 0

    monkeypatch.setattr(limits, "_STALK_MOST", 1000)  # or it is no test
    core.raise_in_group = look
    core.flagged = [(offender.id, offender.uid, "max")]
    limits.service()
    assert len(core.raised) == 3
    assert core.unraisable == []


def test_an_interval_that_the_program_sets_meanwhile_stays(offender, core):
    def look(*_):
        core.raised.append(1)
        if len(core.raised) == 3:
            sys.setswitchinterval(0.25)
        return len(core.raised) == 3

    before = sys.getswitchinterval()
    core.raise_in_group = look
    core.flagged = [(offender.id, offender.uid, "max")]
    try:
        limits.service()
        assert sys.getswitchinterval() == 0.25
    finally:
        sys.setswitchinterval(before)


def test_an_interval_that_the_program_has_read_meanwhile_does_not_stay(offender, core):
    core.thread = 0
    core.flagged = [(offender.id, offender.uid, "max")]
    before = sys.getswitchinterval()
    limits.service()
    sys.setswitchinterval(limits.SHORT_INTERVAL)
    limits.service()
    assert sys.getswitchinterval() == before


def test_high_reclaims_down_to_it_and_never_raises(offender, core):
    offender.high = 30 * MIB
    wanted = []
    reclaim._shrinkers.append(reclaim._Shrinker(lambda _, n: wanted.append(n), offender))
    seen = record(offender, "high")
    core.flagged = [(offender.id, offender.uid, "high")]
    limits.service()
    assert wanted == [3 * MIB]
    assert seen == [(offender, "high")]
    assert core.raised == []


def test_callbacks_of_the_groups_above_are_called_with_the_group_it_happened_in(tree, core):
    seen = record(tree["/"], "ceiling")
    core.flagged = [(tree["/a/x"].id, tree["/a/x"].uid, "ceiling")]
    limits.service()
    assert seen == [(tree["/a/x"], "ceiling")]


def test_a_group_that_becomes_empty_concerns_its_own_callbacks_only(tree, core):
    above = record(tree["/"], "empty")
    own = record(tree["/a/x"], "empty")
    core.flagged = [(tree["/a/x"].id, tree["/a/x"].uid, "empty")]
    limits.service()
    assert above == []
    assert own == [(tree["/a/x"], "empty")]


def test_callbacks_for_other_events_and_other_groups_are_not_called(tree, core):
    seen = [record(tree["/a"], "max"), record(tree["/b"], "high"), record(tree["/a/x"], "high")]
    core.flagged = [(tree["/a"].id, tree["/a"].uid, "high")]
    limits.service()
    assert seen == [[], [], []]


def test_what_the_main_thread_went_through_is_told_to_callbacks_on_the_reclaimer(offender, core):
    seen = [record(offender, "max"), record(offender, "raised")]
    limits.over(offender.id, offender.uid, LIMIT)
    assert seen == [[], []]
    assert core.wakes
    limits.service()
    assert seen == [[(offender, "max")], [(offender, "raised")]]


def test_nobody_is_woken_for_callbacks_that_do_not_exist(offender, core):
    limits.over(offender.id, offender.uid, LIMIT)
    assert core.wakes == 0


def test_an_event_flagged_by_both_sides_is_told_once(offender, core):
    seen = record(offender, "raised")
    limits.over(offender.id, offender.uid, LIMIT)
    core.flagged = [(offender.id, offender.uid, "raised")]
    limits.service()
    assert seen == [(offender, "raised")]


def test_a_callback_that_raises_is_reported_and_the_next_one_called(tree, core):
    def broken(_group, _event):
        raise SystemExit

    limits.on(tree["/a"], "high", broken)
    seen = record(tree["/a"], "high")
    core.flagged = [(tree["/a"].id, tree["/a"].uid, "high")]
    limits.service()
    assert [source for _, source in core.unraisable] == [broken]
    assert seen


def test_a_callback_may_remove_the_group(offender, core):
    limits.on(offender, "max", lambda group, _: group.remove())
    core.flagged = [
        (offender.id, offender.uid, "max"),
        (offender.id, offender.uid, "high"),
        (offender.id, offender.uid, "empty"),
    ]
    limits.service()
    assert core.raised == []
    assert core.unraisable == []


def test_service_raises_nothing_even_when_the_core_does(core):
    def broken():
        raise OSError("no")

    core.take_flagged = broken
    limits.service()
    assert len(core.unraisable) == 1


def test_a_handle_ends_the_calls_and_may_be_used_twice(tree, core):
    seen = []
    with limits.on(tree["/a"], "high", lambda *_: seen.append(1)) as handle:
        core.flagged = [(tree["/a"].id, tree["/a"].uid, "high")]
        limits.service()
    core.flagged = [(tree["/a"].id, tree["/a"].uid, "high")]
    limits.service()
    handle.remove()
    assert seen == [1]


def test_a_callback_starts_the_reclaimer(tree, core):
    limits.on(tree["/a"], "high", print)
    assert core.started == 1


def test_an_unknown_event_is_named_with_those_there_are(tree):
    with pytest.raises(ValueError, match="'oom'; accepted are high, max, ceiling, raised, empty"):
        limits.on(tree["/a"], "oom", print)


def test_a_callback_must_be_callable(tree):
    with pytest.raises(TypeError, match="3 is not"):
        limits.on(tree["/a"], "max", 3)


def test_an_exception_made_by_the_interpreter_finds_out_what_it_is_about(offender, core):
    core.report = (offender.id, offender.uid, core.task.id, LIMIT, LIMIT + 5, MIB)
    error = MemoryLimitExceeded()
    assert (error.group, error.task, error.limit, error.usage) == (
        offender,
        core.task,
        LIMIT,
        LIMIT + 5,
    )
    assert "group /a is over memory.max" in str(error)


def test_an_exception_about_a_group_or_task_that_is_gone_still_has_the_numbers(core, tree):
    core.report = (99, 1, 1234, 10, 20, MIB)
    error = MemoryLimitExceeded()
    assert (error.group, error.task, error.limit, error.usage) == (None, None, 10, 20)


def test_an_exception_can_be_sent_to_another_process(offender, core):
    error = limits.over(offender.id, offender.uid, LIMIT)
    error.__notes__ = ["in the second batch"]  # as add_note() of 3.11 does
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is MemoryLimitExceeded
    assert copy.__notes__ == error.__notes__
    assert str(copy) == str(error)
    assert (copy.group, copy.task) == (None, None)
    assert (copy.limit, copy.usage) == (error.limit, error.usage)


def test_throttle_returns_at_once_below_high(tree):
    tree["/a"].high = MIB
    assert asyncio.run(limits.throttle(tree["/a"])) == 0


def test_throttle_waits_with_growing_delays_until_usage_is_below_high(tree, core, monkeypatch):
    delays = []

    async def sleep(delay):
        delays.append(delay)
        if len(delays) == 4:
            tree["/"].usage = 0

    monkeypatch.setattr(asyncio, "sleep", sleep)
    # that of a group above counts as well
    tree["/"].usage, tree["/"].high = 2 * MIB, MIB
    assert asyncio.run(limits.throttle(tree["/a/x"])) == pytest.approx(0.015)
    assert delays == [0.001, 0.002, 0.004, 0.008]
    assert core.wakes == 1


def test_throttle_gives_up_after_two_seconds(tree, monkeypatch):
    delays = []

    async def sleep(delay):
        delays.append(delay)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    tree["/a"].usage, tree["/a"].high = 2 * MIB, MIB
    assert asyncio.run(limits.throttle(tree["/a"])) == pytest.approx(2)
    assert sum(delays) == pytest.approx(2)
    assert len(delays) == 11


def test_throttle_sleeps_by_trio_under_trio(tree):
    trio = pytest.importorskip("trio")

    async def main():
        tree["/a"].usage, tree["/a"].high = 2 * MIB, MIB
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limits.throttle, tree["/a"])
            await trio.sleep(0.01)
            tree["/a"].usage = 0

    trio.run(main)


def test_throttle_outside_of_an_event_loop_says_so(tree):
    tree["/a"].usage, tree["/a"].high = 2 * MIB, MIB
    with pytest.raises(RuntimeError, match="asyncio or trio"):
        limits.throttle(tree["/a"]).send(None)


def test_a_removed_group_does_not_throttle(tree):
    tree["/a"].high = 0
    tree["/a"].usage = 1
    tree["/a"].remove()
    assert asyncio.run(limits.throttle(tree["/a"])) == 0


def test_before_enable_every_use_says_to_call_it(core):
    with pytest.raises(EnableError, match=r"objcg\.enable\(\)"):
        _registry.root()
