"""What a page shows of a recording: no peak may vanish, however long it is."""

from __future__ import annotations

import random

import pytest
from unit.recorded import AT, CLOCK, MIB, SECOND, Tree, group, process

from objcg.views.recording import history
from objcg.views.recording.reader import Recording
from objcg.views.recording.writer import Writer


def record(path, samples, *, clocks=None, at=lambda i: AT + i * SECOND, rss=50 * MIB):
    with Writer(str(path), process(), 1.0, "0.1.0") as recorder:
        for i, groups in enumerate(samples):
            clock = CLOCK + (clocks[i] if clocks else i) * SECOND
            recorder.add_groups(groups, (rss, MIB), at(i), clock)
        recorder.end("stopped")


def read(path):
    with Recording(str(path)) as recording:
        return history.read(recording)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "r.db"


def own(infos, path):
    """Return what is charged to a group itself, computed in the slow way."""
    (total,) = [info.current for info in infos if info.path == path]
    prefix = path.rstrip("/") + "/"
    return total - sum(
        info.current
        for info in infos
        if info.path.startswith(prefix)
        and info.path != path
        and "/" not in info.path.removeprefix(prefix)
    )


def test_the_stack_is_all_that_is_charged(path):
    tree, samples = Tree(5, size=40), []
    for _ in range(60):
        tree.step()
        samples.append(tree.infos())
    record(path, samples)
    shown = read(path)
    usage = shown.usage
    assert shown.shown == len(usage.times) == 60
    assert usage.times[0] == AT / SECOND
    assert len(usage.curves) == 12
    for i, infos in enumerate(samples):
        there = {info.path for info in infos}
        for name, curve in usage.curves.items():
            assert curve[i] == (own(infos, name) if name in there else 0)
        total = sum(curve[i] for curve in usage.curves.values()) + usage.others[i]
        assert total == infos[0].current
    assert set(usage.resident) == {40 * MIB}
    paths = {info.path for infos in samples for info in infos}
    assert usage.how_many == len(paths) - 12
    # those with the highest peaks
    peaks = {
        name: max(own(s, name) for s in samples if name in {g.path for g in s}) for name in paths
    }
    assert sorted(usage.curves) == sorted(sorted(paths, key=lambda p: (-peaks[p], p))[:12])


def test_no_peak_of_a_long_recording_vanishes(path):
    chance = random.Random(1)
    names = [f"/g{i}" for i in range(5)]
    samples, tops = [], dict.fromkeys(names, (0, 0))
    for i in range(3000):
        currents = {name: chance.randrange(1000) for name in names}
        if chance.random() < 0.01:
            # one sample high, at a moment at which the sum is nothing special
            currents = dict.fromkeys(names, 0) | {chance.choice(names): 1500 + i}
        for name, current in currents.items():
            tops[name] = max(tops[name], (current, i))
        samples.append(
            [
                group("/", 1, sum(currents.values())),
                *(group(name, uid, currents[name]) for uid, name in enumerate(names, 2)),
            ]
        )
    record(path, samples)
    shown = read(path)
    assert 0 < shown.shown < 3000
    assert len(shown.usage.times) == shown.shown
    totals = [infos[0].current for infos in samples]
    for name in names:
        highest, when = tops[name]
        assert max(shown.usage.curves[name]) == highest
        assert (AT + when * SECOND) / SECOND in shown.usage.times
    for i, when in enumerate(shown.usage.times):
        # each was measured: nothing is made up between two samples
        infos = samples[round(when - AT / SECOND)]
        assert [curve[i] for curve in shown.usage.curves.values()] == [
            next(g.current for g in infos if g.path == name) for name in shown.usage.curves
        ]
    sums = [
        sum(curve[i] for curve in shown.usage.curves.values())
        for i in range(len(shown.usage.times))
    ]
    assert (max(sums), min(sums)) == (max(totals), min(totals))
    # the moments of the tree have the highest sum
    assert max(values[0] for values in shown.tree.values) == max(totals)
    assert len(shown.tree_times) == len(shown.tree.values) <= history.BUCKETS + 2
    assert shown.tree_times == sorted(set(shown.tree_times))


def test_a_group_is_the_same_curve_when_it_is_made_anew(path):
    record(
        path,
        [
            [group("/", 1, 10), group("/a", 2, 10)],
            [group("/", 1, 0)],
            [group("/", 1, 7), group("/a", 3, 7)],
        ],
    )
    shown = read(path)
    assert shown.usage.curves == {"/a": [10, 0, 7]}
    assert [(s.path, s.peak, s.gone) for s in shown.summaries[1:]] == [
        ("/a", 10, True),
        ("/a", 7, False),
    ]


def test_between_two_sessions_there_is_a_hole(path):
    groups = [group("/", 1, 10)]
    record(path, [groups] * 2)
    record(path, [groups] * 2, clocks=[100, 101])
    usage = read(path).usage
    start = AT / SECOND
    assert usage.times == pytest.approx(
        [start, start + 1, start + 1.001, start + 99.999, start + 100, start + 101]
    )
    assert usage.curves["/"] == [10, 10, None, None, 10, 10]
    assert usage.resident[2:4] == [None, None]


def test_a_clock_that_is_set_is_told_and_moves_nothing(path):
    groups = [group("/", 1, 10)]
    record(path, [groups] * 4, at=lambda i: AT + i * SECOND - (3600 * SECOND if i > 1 else 0))
    shown = read(path)
    assert shown.usage.times == [AT / SECOND + i for i in range(4)]
    assert shown.jumps == [(AT / SECOND + 2 - 3600, -3600)]


def test_what_is_known_of_a_group(path):
    def sample(current, limit=None, peak=None):
        one = group("/a", 2, current, max=limit, peak=peak or current)
        return [group("/", 1, current), one]

    record(
        path,
        [
            sample(100, 1000),
            sample(900, 1000, peak=950),
            sample(300, None, peak=950),
            sample(400, 500, peak=950),
            [group("/", 1, 0)],
        ],
    )
    (found,) = [summary for summary in read(path).summaries if summary.path == "/a"]
    assert found.current == 400
    assert found.peak == 950
    assert found.limit == 500
    assert found.share == 0.9
    assert found.growth == 300
    assert found.seconds == 3
    assert found.gone


def test_an_event_is_told_of_the_group_that_it_happened_in(path):
    def sample(a, b, root):
        return [
            group("/", 1, 0, event_counts=(0, 0, root, 0, 0)),
            group("/a", 2, 0, event_counts=(0, 0, a, 0, 0)),
            group("/a/b", 3, 0, event_counts=(0, 0, b, 0, 0)),
        ]

    record(path, [sample(0, 0, 0), sample(3, 3, 3), sample(5, 4, 5), sample(5, 4, 6)])
    shown = read(path)
    start = AT / SECOND
    assert shown.happenings == [
        (start + 1, "/a/b", {"max": 3}),
        (start + 2, "/a", {"max": 1}),
        (start + 2, "/a/b", {"max": 1}),
        (start + 3, "/", {"max": 1}),
    ]
    assert shown.happened == 4
    assert [place for place, _ in shown.usage.marks] == [1, 2, 3]
    assert shown.usage.marks[1] == (2, "/a, /a/b")
    assert {s.path: s.events for s in shown.summaries} == {
        "/": {"max": 1},
        "/a": {"max": 1},
        "/a/b": {"max": 4},
    }


def test_of_many_events_the_latest_are_told_and_how_many_there_are(path, monkeypatch):
    monkeypatch.setattr(history, "MOST_HAPPENINGS", 3)
    samples = [[group("/", 1, 0, event_counts=(0, 0, 0, 0, i))] for i in range(10)]
    record(path, samples)
    shown = read(path)
    assert shown.happened == 9
    assert [round(h.time - AT / SECOND) for h in shown.happenings] == [7, 8, 9]


def test_one_sample_is_a_recording(path):
    record(path, [[group("/", 1, 10)]])
    shown = read(path)
    assert shown.usage.curves == {"/": [10]}
    assert shown.tree.values == [[10]]
