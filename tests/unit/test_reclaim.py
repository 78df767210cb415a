from __future__ import annotations

import pytest

from objcg import reclaim

MIB = 1 << 20


class Cache:
    """A shrinker that has `size` bytes of `charged` to give, at most `step` at a time."""

    def __init__(self, owner, size, *, charged=None, step=None):
        self.size = size
        self.step = step
        self.charged = owner if charged is None else charged
        self.calls = []
        reclaim._shrinkers.append(reclaim._Shrinker(self, owner))

    def __call__(self, group, nbytes):
        self.calls.append((group.path, nbytes))
        freed = min(self.size, nbytes if self.step is None else self.step)
        self.size -= freed
        group = self.charged
        while group is not None:
            group.usage -= freed
            group = group.parent
        return freed


@pytest.fixture
def full(tree):
    for path, usage in {"/": 100, "/a": 60, "/a/x": 20, "/b": 40}.items():
        tree[path].usage = usage * MIB
    return tree


def test_shrinkers_of_the_subtree_come_before_those_above(full, collector):
    above = Cache(full["/"], 10 * MIB, charged=full["/a"])
    below = Cache(full["/a/x"], 5 * MIB)
    own = Cache(full["/a"], 5 * MIB)
    assert reclaim.reclaim(full["/a"], 12 * MIB) == 12 * MIB
    assert below.calls == [("/a", 12 * MIB)]
    assert own.calls == [("/a", 7 * MIB)]
    assert above.calls == [("/a", 2 * MIB)]
    assert collector.runs == 0


def test_a_shrinker_elsewhere_in_the_tree_is_not_called(full, collector):
    other = Cache(full["/b"], 10 * MIB)
    reclaim.reclaim(full["/a"], MIB)
    assert other.calls == []


def test_no_more_shrinkers_are_called_than_needed(full, collector):
    first = Cache(full["/a"], 10 * MIB)
    second = Cache(full["/a"], 10 * MIB)
    assert reclaim.reclaim(full["/a"], 3 * MIB) == 3 * MIB
    assert first.calls
    assert second.calls == []


def test_what_counts_is_the_usage_and_not_what_a_shrinker_says(full, collector):
    reclaim._shrinkers.append(reclaim._Shrinker(lambda _group, _nbytes: 10**9, full["/a"]))
    assert reclaim.reclaim(full["/a"], MIB) == 0
    assert collector.runs == 1


def test_usage_that_grew_meanwhile_is_not_negative_freeing(full, collector):
    def grow(group, _nbytes):
        group.usage += MIB

    reclaim._shrinkers.append(reclaim._Shrinker(grow, full["/a"]))
    assert reclaim.reclaim(full["/a"], MIB) == 0


def test_a_group_under_low_is_spared_while_others_can_give(full, collector):
    spared = Cache(full["/a/x"], 10 * MIB)
    full["/a/x"].low = 20 * MIB
    Cache(full["/a"], 10 * MIB)
    assert reclaim.reclaim(full["/a"], 8 * MIB) == 8 * MIB
    assert spared.calls == []


def test_garbage_goes_before_what_low_protects(full, core, collector):
    spared = Cache(full["/a/x"], 10 * MIB)
    full["/a/x"].low = 20 * MIB
    collector.frees = [(full["/a"], 5 * MIB)]
    assert reclaim.reclaim(full["/a"], 5 * MIB) == 5 * MIB
    assert spared.calls == []
    assert core.counted == []


def test_low_gives_way_when_nothing_else_helps_and_that_is_counted_once(full, core, collector):
    first = Cache(full["/a/x"], 2 * MIB)
    second = Cache(full["/a/x"], 10 * MIB)
    full["/a/x"].low = 20 * MIB
    assert reclaim.reclaim(full["/a"], 8 * MIB) == 8 * MIB
    assert first.calls
    assert second.calls
    assert core.counted == [(full["/a/x"].id, "low")]


def test_low_protects_only_up_to_itself(full, collector):
    cache = Cache(full["/a/x"], 10 * MIB)
    full["/a/x"].low = 19 * MIB
    reclaim.reclaim(full["/a"], MIB)
    assert cache.calls


def test_low_does_not_protect_a_group_from_its_own_limit(full, core, collector):
    cache = Cache(full["/a"], 10 * MIB)
    full["/a"].low = 1000 * MIB
    assert reclaim.reclaim(full["/a"], MIB) == MIB
    assert cache.calls
    assert core.counted == []


def test_a_shrinker_that_raises_is_reported_and_the_next_one_called(full, core, collector):
    def broken(_group, _nbytes):
        raise KeyError("mine")

    reclaim._shrinkers.append(reclaim._Shrinker(broken, full["/a"]))
    Cache(full["/a"], 10 * MIB)
    assert reclaim.reclaim(full["/a"], MIB) == MIB
    [(error, source)] = core.unraisable
    assert isinstance(error, KeyError)
    assert source is broken


def test_a_shrinker_of_a_removed_group_serves_the_parent(full, collector):
    cache = Cache(full["/a/x"], 10 * MIB, charged=full["/a"])
    full["/a/x"].remove()
    assert reclaim.reclaim(full["/a"], MIB) == MIB
    assert cache.calls


def test_a_shrinker_that_removes_the_group_ends_reclaim_with_enodev(full, collector):
    reclaim._shrinkers.append(
        reclaim._Shrinker(lambda group, _nbytes: group.remove(), full["/a/x"])
    )
    with pytest.raises(OSError, match="No such device"):
        reclaim.reclaim(full["/a/x"], MIB)
    assert not reclaim.active()


def test_reclaim_inside_reclaim_does_nothing(full, collector):
    inner = []

    def nested(group, nbytes):
        assert reclaim.active()
        inner.append(reclaim.reclaim(group, nbytes))

    reclaim._shrinkers.append(reclaim._Shrinker(nested, full["/a"]))
    reclaim.reclaim(full["/a"], MIB)
    assert inner == [0]
    assert not reclaim.active()


def test_a_program_that_asks_gets_a_collection_each_time(full, collector):
    for _ in range(3):
        reclaim.reclaim(full["/a"], MIB)
    assert collector.runs == 3


def test_a_useless_collection_for_a_limit_is_not_repeated_at_once(full, collector):
    group = full["/a"]
    for _ in range(100):
        reclaim.reclaim(group, MIB, 59 * MIB)
    assert collector.runs == 1


def test_a_collection_is_repeated_when_usage_has_grown_by_a_sixteenth(full, collector):
    group = full["/a"]
    limit = 32 * MIB
    reclaim.reclaim(group, MIB, limit)
    group.usage += limit // 16 - 1
    reclaim.reclaim(group, MIB, limit)
    assert collector.runs == 1
    group.usage += 1
    reclaim.reclaim(group, MIB, limit)
    assert collector.runs == 2


def test_a_collection_is_repeated_after_twenty_times_its_own_time(full, collector):
    group = full["/a"]
    collector.seconds = 0.5
    reclaim.reclaim(group, MIB, 59 * MIB)
    collector.now += 9.9
    reclaim.reclaim(group, MIB, 59 * MIB)
    assert collector.runs == 1
    collector.now += 0.2
    reclaim.reclaim(group, MIB, 59 * MIB)
    assert collector.runs == 2


def test_a_collection_that_helped_may_be_repeated_at_once(full, collector):
    group = full["/a"]
    limit = 59 * MIB
    collector.frees = [(group, 2 * MIB)]
    for _ in range(5):
        group.usage = 60 * MIB
        reclaim.reclaim(group, MIB, limit)
    assert collector.runs == 5


def test_a_collection_that_freed_next_to_nothing_was_of_no_use(full, collector):
    group = full["/a"]
    limit = 60 * MIB - 100
    collector.frees = [(group, 200)]
    for _ in range(5):
        group.usage = 60 * MIB
        reclaim.reclaim(group, 100, limit)
    assert collector.runs == 1


def test_useless_collections_of_one_group_do_not_hold_up_another(full, collector):
    reclaim.reclaim(full["/a"], MIB, 59 * MIB)
    reclaim.reclaim(full["/b"], MIB, 39 * MIB)
    assert collector.runs == 2


def test_the_history_does_not_grow_with_groups_that_came_and_went(full, collector):
    group = full["/a"]
    for uid in range(1000, 1500):
        group.uid = uid
        collector.now += 10
        reclaim.reclaim(group, MIB, 59 * MIB)
    assert len(reclaim._backoff._useless) <= 2
