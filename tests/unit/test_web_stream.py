"""What the page of ``objcg web`` is sent, made of samples that are made up."""

from __future__ import annotations

import json

import pytest
from unit.recorded import MIB, group, process

from objcg.views import pictures
from objcg.views.watch import Change, Sample, State
from objcg.views.web import stream
from objcg.views.web.stream import Stream

HOSTILE = [
    "</script><script>alert(1)</script>".replace("/", "\u2215"),
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "a\x1b[2J\u202eb",
    "x" * 255,
]


class Process:
    """A process whose groups are what a test says, a second after the other."""

    def __init__(self):
        self.stream = Stream()
        self.at = 1_700_000_000.0
        self.clock = 5_000.0
        self.before = {}

    def show(self, *groups, state=State.RUNNING, problem=None, rss=None):
        self.at += 1
        self.clock += 1
        changes = {}
        for one in groups:
            old = self.before.get(one.uid)
            if old is not None:
                events = {
                    event: count - old.events[event]
                    for event, count in one.events.items()
                    if count > old.events[event]
                }
                changes[one.uid] = Change(one.current - old.current, events)
        self.before = {one.uid: one for one in groups}
        region = process(rss=rss)._replace(groups=list(groups))
        sample = Sample(self.at, state, region, changes, self.clock)
        return json.loads(self.stream.add(sample, problem))


@pytest.fixture
def watched():
    return Process()


def curves(shown):
    return {
        trace["name"]: trace["y"] for trace in shown["usage"]["data"] if trace["mode"] == "lines"
    }


def red(shown):
    return [row["path"] for row in shown["rows"] if row["offends"]]


def colours(shown):
    trace = shown["tree"]["data"][0]
    return dict(zip(trace["labels"], trace["marker"]["colors"], strict=True))


def test_curves_are_what_groups_have_themselves_and_stacked_they_are_all(watched):
    watched.show(group("/", 1, 10 * MIB), group("/a", 2, 7 * MIB), group("/a/x", 3, 5 * MIB))
    shown = watched.show(group("/", 1, 12 * MIB), group("/a", 2, 7 * MIB), rss=40 * MIB)
    assert curves(shown) == {
        "/": [3, 5],
        "/a": [2, 7],
        # it has ended: no point, but a curve for as long as it is in the picture
        "/a/x": [5, None],
        "resident since start-up": [None, 30],
    }


def test_a_group_that_came_late_was_among_the_others_before(watched):
    many = [group(f"/g{i}", 10 + i, (100 + i) * MIB) for i in range(stream.KEPT)]
    total = sum(one.current for one in many)
    watched.show(group("/", 1, total + MIB), group("/late", 5, MIB), *many)
    shown = watched.show(group("/", 1, total + 900 * MIB), group("/late", 5, 900 * MIB), *many)
    found = curves(shown)
    assert found["/late"] == [None, 900]
    (others,) = [values for name, values in found.items() if name.endswith("others")]
    sums = [
        sum(values[i] or 0 for name, values in found.items() if not name.startswith("resident"))
        for i in range(2)
    ]
    assert sums == [total / MIB + 1, total / MIB + 900]
    # largest of the ones without a curve, at both moments
    assert others[0] > others[1]


def test_a_group_keeps_its_colour_while_others_come_and_go(watched):
    def colour(shown, path):
        return next(row["colour"] for row in shown["rows"] if row["path"] == path)

    first = watched.show(group("/", 1, 9 * MIB), group("/a", 2, 4 * MIB), group("/b", 3, 5 * MIB))
    mine = colour(first, "/a")
    assert mine != colour(first, "/b")
    larger = [group(f"/c{i}", 10 + i, (20 + i) * MIB) for i in range(9)]
    shown = watched.show(group("/", 1, 900 * MIB), group("/a", 2, 4 * MIB), *larger)
    assert colour(shown, "/a") == mine
    painted = [row["colour"] for row in shown["rows"] if row["colour"]]
    assert len(set(painted)) == len(painted) == 11


def test_an_offender_is_red_in_all_that_is_shown_and_not_for_ever(watched):
    def groups(current, met, limit=8 * MIB):
        return (
            group("/", 1, current + MIB, event_counts=(0, 0, met, 0, 0)),
            group("/a", 2, current, max=limit, event_counts=(0, 0, met, 0, 0)),
            group("/b", 3, MIB, max=8 * MIB),
        )

    # what was before anybody looked is no event
    shown = watched.show(*groups(2 * MIB, 5))
    assert (red(shown), shown["offenders"], shown["events"]) == ([], [], [])
    # at its limit, without an event
    shown = watched.show(*groups(8 * MIB, 5))
    assert red(shown) == ["/a"]
    assert shown["offenders"] == [{"path": "/a", "why": "8.0 MiB of memory.max 8.0 MiB"}]
    assert shown["events"] == []
    assert colours(shown)["a"] == pictures.RED != colours(shown)["b"]
    (curve,) = [trace for trace in shown["usage"]["data"] if trace["name"] == "/a"]
    assert curve["fillcolor"] == pictures.RED
    # an event, without being at it; root has it only because the group below has
    shown = watched.show(*groups(MIB, 8))
    assert red(shown) == ["/a"]
    assert [(event["path"], event["events"]) for event in shown["events"]] == [("/a", "max 3")]
    assert any(trace["name"] == "limit met" for trace in shown["usage"]["data"])
    for _ in range(int(stream.RED_SECONDS)):
        shown = watched.show(*groups(MIB, 8))
        assert red(shown) == ["/a"]
    shown = watched.show(*groups(MIB, 8))
    assert (red(shown), shown["offenders"]) == ([], [])
    assert len(shown["events"]) == 1


def test_events_without_a_pause_are_one_episode(watched):
    def met(count):
        return watched.show(
            group("/", 1, MIB), group("/a", 2, MIB, event_counts=(0, 0, count, 0, count // 2))
        )

    met(0)
    for count in (2, 4, 6):
        shown = met(count)
    (event,) = shown["events"]
    assert (event["events"], event["last"] - event["first"]) == ("max 6, raised 3", 2000)
    for _ in range(6):
        met(6)
    shown = met(7)
    assert [event["events"] for event in shown["events"]] == ["max 1", "max 6, raised 3"]


def test_a_new_group_that_has_met_its_limit_at_once_is_an_offender(watched):
    watched.show(group("/", 1, MIB))
    counts = (0, 0, 4, 0, 1)
    shown = watched.show(
        group("/", 1, MIB, event_counts=counts), group("/new", 2, 0, event_counts=counts)
    )
    assert red(shown) == ["/new"]
    assert [(event["path"], event["events"]) for event in shown["events"]] == [
        ("/new", "max 4, raised 1")
    ]


def test_names_are_harmless_in_every_part(watched):
    groups = [
        group(f"/{name}", 10 + i, MIB, max=MIB, event_counts=(0, 0, 0, 0, 0))
        for i, name in enumerate(HOSTILE)
    ]
    watched.show(group("/", 1, 9 * MIB), *groups)
    met = [
        group(f"/{name}", 10 + i, MIB, max=MIB, event_counts=(0, 0, 1, 0, 0))
        for i, name in enumerate(HOSTILE)
    ]
    shown = watched.show(group("/", 1, 9 * MIB), *met)
    text = json.dumps(shown, ensure_ascii=False)
    assert text.isprintable()
    # what plotly draws has no markup; the rest becomes text nodes, and is as it is
    figures = json.dumps([shown["usage"], shown["tree"]]).replace("<br>", "")
    assert "<" not in figures.replace("<extra></extra>", "")
    assert {row["path"] for row in shown["rows"]} >= {"/&lt;b&gt;", "/a\\x1b[2J\\u202eb"}
    assert len(shown["events"]) == len(HOSTILE)
    ids = shown["tree"]["data"][0]["ids"]
    assert len(set(ids)) == len(ids) == len(HOSTILE) + 1
    assert set(shown["tree"]["data"][0]["parents"]) == {"", "/"}


def test_long_paths_that_are_cut_to_the_same_are_two_nodes(watched):
    same = "/" + "x" * 250
    shown = watched.show(
        group("/", 1, 3 * MIB),
        *(group(f"/{name}", 10 + i, MIB) for i, name in enumerate("ab")),
        *(group(f"/{name}{same}", 20 + i, MIB) for i, name in enumerate("ab")),
    )
    trace = shown["tree"]["data"][0]
    assert len(set(trace["ids"])) == len(trace["ids"]) == 5
    assert sorted(trace["parents"]) == ["", "/", "/", "/a", "/b"]


def test_many_groups_are_bounded_and_offenders_never_left_out(watched):
    groups = [group(f"/g{i}", 10 + i, (i + 1) * 1000) for i in range(3000)]
    bad = [group(f"/bad{i}", 9000 + i, 1, max=1) for i in range(20)]
    for _ in range(3):
        shown = watched.show(group("/", 1, 9 << 30), *groups, *bad)
    assert len(shown["rows"]) == stream.MOST_ROWS
    assert len(red(shown)) == 20
    assert (len(shown["offenders"]), shown["more"]) == (stream.MOST_NAMED, 8)
    assert shown["groups"] == 3021
    assert len(json.dumps(shown)) < 200_000


def test_history_has_an_end(watched):
    for i in range(stream.SAMPLES + 20):
        shown = watched.show(group("/", 1, i * MIB))
    assert curves(shown)["/"] == [i / 1 for i in range(20, stream.SAMPLES + 20)]


@pytest.mark.parametrize("by", [-3600.0, 3600.0])
def test_a_clock_that_is_set_changes_the_order_of_nothing(watched, by):
    def show(met):
        counts = (0, 0, met, 0, met)
        return watched.show(
            group("/", 1, MIB, event_counts=counts),
            group("/a", 2, MIB, max=2 * MIB, event_counts=counts),
        )

    show(0)
    assert red(show(1)) == ["/a"]
    watched.at += by
    shown = show(1)
    assert red(shown) == ["/a"]
    (event,) = shown["events"]
    assert (event["first"], event["last"]) == (1000 * (watched.at - 1),) * 2
    times = next(trace["x"] for trace in shown["usage"]["data"] if trace["mode"] == "lines")
    assert times == [1000 * (watched.at - ago) for ago in (2, 1, 0)]
    for _ in range(int(stream.RED_SECONDS)):
        shown = show(1)
    assert red(shown) == []
    # another one, and not more of that before
    assert [event["events"] for event in show(2)["events"]] == ["max 1, raised 1"] * 2


def test_of_an_ended_process_the_last_state_stays(watched):
    last = (group("/", 1, 3 * MIB), group("/a", 2, 2 * MIB, max=2 * MIB))
    watched.show(*last)
    shown = watched.show(*last, state=State.EXITED)
    assert shown["state"] == "exited"
    assert red(shown) == ["/a"]
    # no moment of its own: nothing was there to be seen
    assert len(curves(shown)["/"]) == 1
    shown = watched.show(*last, state=State.KILLED)
    assert (shown["state"], len(curves(shown)["/"])) == ("killed", 2)


def test_a_sample_that_could_not_be_read_is_told_and_adds_nothing(watched):
    watched.show(group("/", 1, MIB))
    shown = watched.show(group("/", 1, MIB), problem="it is damaged")
    assert (shown["problem"], shown["state"]) == ("it is damaged", "running")
    assert len(curves(shown)["/"]) == 1
