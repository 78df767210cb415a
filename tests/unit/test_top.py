"""What ``objcg top`` shows, and in which order; nothing is drawn."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from objcg.region import GroupInfo, Region
from objcg.views.top import columns, steering
from objcg.views.top.columns import COLUMNS, bar, fitting, fitting_end, layout, percent, rate, size
from objcg.views.top.model import Level, Model, Sort, level, share
from objcg.views.watch import Change, Sample, State

M = 1 << 20


def group(path, current=0, *, uid=None, peak=0, limit=None, high=None, events=(0, 0, 0, 0, 0)):
    return GroupInfo(
        path=path,
        id=1,
        uid=hash(path) if uid is None else uid,
        online=True,
        tasks=0,
        current=current,
        peak=max(peak, current),
        max=limit,
        high=high,
        low=None,
        event_counts=events,
        stat_values=(0,) * 8,
    )


def sample(*groups, rates=None):
    changes = {hash(path): Change(value, {}) for path, value in (rates or {}).items()}
    return Sample(0.0, State.RUNNING, Region(1, "", list(groups)), changes, 0.0)


TREE = (
    group("/", 10 * M),
    group("/a", 2 * M, peak=9 * M, events=(0, 0, 2, 0, 0)),
    group("/a/x", M, limit=M),
    group("/a/y", M, limit=4 * M),
    group("/b", 8 * M, limit=10 * M),
    group("/b/only", 1, events=(0, 7, 0, 0, 0)),
    group("/c", 0),
)


def paths(model):
    return [model.row(i).group.path for i in range(len(model))]


def flat(model):
    model.is_flat = True
    return paths(model)


@pytest.fixture
def model():
    return Model(sample(*TREE, rates={"/c": 5.0, "/b/only": 9.0, "/a": -3.0}))


# --- order


def test_siblings_are_sorted_and_each_group_is_above_those_below_it(model):
    assert paths(model) == ["/", "/b", "/b/only", "/a", "/a/x", "/a/y", "/c"]
    assert [model.row(i).depth for i in range(len(model))] == [0, 1, 2, 1, 2, 2, 1]
    assert [model.row(i).has_children for i in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (Sort.CURRENT, ["/", "/b", "/a", "/a/x", "/a/y", "/b/only", "/c"]),
        (Sort.PEAK, ["/", "/a", "/b", "/a/x", "/a/y", "/b/only", "/c"]),
        (Sort.RATE, ["/b/only", "/c", "/", "/a/x", "/a/y", "/b", "/a"]),
        (Sort.SHARE, ["/a/x", "/b", "/a/y", "/", "/a", "/b/only", "/c"]),
        (Sort.EVENTS, ["/b/only", "/a", "/", "/a/x", "/a/y", "/b", "/c"]),
        (Sort.NAME, ["/", "/a", "/a/x", "/a/y", "/b", "/b/only", "/c"]),
    ],
)
def test_a_flat_view_is_sorted_over_all_and_ties_are_by_name(model, sort, expected):
    model.sort = sort
    assert flat(model) == expected


def test_the_order_can_be_inverted(model):
    model.sort = Sort.NAME
    model.is_reversed = True
    assert paths(model) == ["/", "/c", "/b", "/b/only", "/a", "/a/y", "/a/x"]
    model.sort = Sort.PEAK
    assert paths(model) == ["/", "/c", "/b", "/b/only", "/a", "/a/x", "/a/y"]


def test_events_since_the_view_began_come_before_those_of_before(model):
    changed = [each for each in TREE if each.path != "/c"]
    model.sort = Sort.EVENTS
    model.update(sample(*changed, group("/c", events=(0, 0, 1, 0, 0))))
    assert flat(model)[:2] == ["/c", "/b/only"]


# --- collapsing


def test_what_is_below_a_collapsed_group_is_hidden(model):
    model.collapse(hash("/b"), collapsed=True)
    assert paths(model) == ["/", "/b", "/a", "/a/x", "/a/y", "/c"]
    assert model.row(1).is_collapsed
    model.update(sample(*TREE))
    assert paths(model)[:3] == ["/", "/b", "/a"]
    model.collapse(hash("/b"), collapsed=False)
    assert len(model) == len(TREE)


def test_all_can_be_collapsed_and_expanded(model):
    model.collapse_all(collapsed=True)
    assert paths(model) == ["/", "/b", "/a", "/c"]
    assert not model.row(3).is_collapsed  # it has none below
    model.collapse_all(collapsed=False)
    assert len(model) == len(TREE)


def test_a_new_group_in_the_place_of_a_collapsed_one_is_not_collapsed(model):
    model.collapse(hash("/b"), collapsed=True)
    without = [each for each in TREE if not each.path.startswith("/b")]
    model.update(sample(*without))
    model.update(sample(*TREE))
    assert "/b/only" in paths(model)


def test_the_row_above_is_found(model):
    assert [model.parent(i) for i in range(len(model))] == [None, 0, 1, 0, 3, 3, 0]


# --- the filter


def test_a_filter_keeps_what_is_above_a_match(model):
    model.wanted = "ONLY"
    assert paths(model) == ["/", "/b", "/b/only"]
    assert [model.row(i).is_match for i in range(3)] == [False, False, True]
    assert model.matches == 1
    assert flat(model) == ["/b/only"]


def test_a_filter_finds_what_is_collapsed(model):
    model.collapse_all(collapsed=True)
    model.wanted = "/x"
    assert paths(model) == ["/", "/a", "/a/x"]
    model.wanted = ""
    assert paths(model) == ["/", "/b", "/a", "/c"]


def test_a_filter_that_nothing_matches_shows_nothing(model):
    model.wanted = "nothing"
    assert (len(model), model.matches) == (0, 0)
    assert model.index(hash("/")) is None


# --- how full, and what happened


@pytest.mark.parametrize(
    ("current", "limit", "high", "expected"),
    [
        (799, 1000, None, Level.FINE),
        (800, 1000, None, Level.NEAR),
        (994, 1000, None, Level.NEAR),
        (995, 1000, None, Level.FULL),
        (2000, 1000, None, Level.FULL),
        (900, None, None, Level.FINE),
        (900, 10_000, 1000, Level.NEAR),
        (900, 1000, 10_000, Level.NEAR),
        (0, 0, None, Level.FULL),
        (1, 0, None, Level.FULL),
        (-5, 1000, None, Level.FINE),
    ],
)
def test_the_level_is_of_the_lower_limit(current, limit, high, expected):
    assert level(group("/a", current, limit=limit, high=high)) is expected


def test_the_groups_in_trouble_are_counted(model):
    assert model.tally == (7, 1, 1)


def test_the_share_of_a_limit_of_0_is_shown():
    assert percent(share(group("/a", 1, limit=0))) == ">999%"
    assert percent(share(group("/a", 0, limit=0))) == "100%"
    assert percent(share(group("/a", 1))) == ""


def test_events_are_counted_since_the_view_began_and_in_all(model):
    later = group("/a", events=(0, 0, 5, 0, 1))
    after = [later if each.path == "/a" else each for each in TREE]
    model.update(sample(*after, group("/new", events=(0, 1, 0, 0, 0))))
    row = model.row(model.index(hash("/a")))
    assert (row.since, row.total) == (4, 6)
    expected = {"low": 0, "high": 0, "max": 3, "ceiling": 0, "raised": 1}
    assert model.events_since(row.group) == expected
    # all that a new group has had, it has had since
    row = model.row(model.index(hash("/new")))
    assert (row.since, row.total) == (1, 1)


def test_a_group_in_the_record_of_another_begins_anew(model):
    again = group("/a", uid=4711, events=(0, 0, 9, 0, 0))
    model.update(sample(*(again if each.path == "/a" else each for each in TREE)))
    row = model.row(model.index(4711))
    assert (row.since, row.rate) == (9, 0.0)


# --- a damaged file


def test_two_records_of_one_path_do_not_multiply_what_is_below():
    groups = [group("/", uid=0)]
    path = ""
    for depth in range(40):
        path += "/x"
        groups += [group(path, uid=2 * depth + 1), group(path, uid=2 * depth + 2)]
    model = Model(sample(*groups))
    assert len(model) == len(groups)


# --- as text

NAMES = [
    "plain",
    "[red]not red",
    "\x1b[31mescape\x1b[0m",
    "new\nline\ttab\rreturn",
    "\u202egnp.exe",
    "数据库连接池" * 10,
    "e\u0301" * 30,
    "x" * 255,
    "👩‍👩‍👧‍👦 family",
    "$primary {x} \\[",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0, 1, 2, 3, 20, 57])
def test_a_name_takes_the_cells_it_is_given_whatever_it_is(name, width):
    model = Model(sample(group("/"), group(f"/{name}")))
    shown = [fitting(name, width), fitting_end(name, width)]
    shown += [columns.name(model.row(1), width, flat=is_flat) for is_flat in (False, True)]
    for text in shown:
        assert cell_len(text) == width
        assert text.isprintable()


def test_of_a_name_that_is_too_long_the_beginning_is_kept_and_of_a_path_the_end():
    assert fitting("abcdefgh", 5) == "abcd…"
    assert fitting_end("/abc/defgh", 6) == "…defgh"
    # a wide character that does not fit leaves a cell
    assert fitting("数据库", 4) == "数 …"
    assert fitting_end("数据库", 4) == "…库 "


def test_markup_in_a_name_is_text():
    assert fitting("[red]x[/]", 12) == "[red]x[/]   "
    assert fitting("\x1b[31m", 12) == r"\x1b[31m    "


def test_a_very_deep_group_still_has_a_name():
    deep = [group("/")] + [group("/d" * depth) for depth in range(1, 129)]
    model = Model(sample(*deep))
    for i in range(len(model)):
        text = columns.name(model.row(i), 30, flat=False)
        assert cell_len(text) == 30
        assert text.rstrip().endswith(("d", "/"))
    assert "128" in columns.name(model.row(128), 30, flat=False)


@pytest.mark.parametrize("width", [*range(130), 300])
def test_the_columns_fit_at_any_width(width):
    found = layout(width)
    taken = found.name + sum(column.width + 1 for column in found.columns)
    assert taken <= max(width, found.name)
    model = Model(sample(*TREE))
    for column in found.columns:
        for i in range(len(model)):
            assert cell_len(columns.cell(column, model.row(i))) == column.width
        heading = columns.heading(column, Sort.CURRENT, is_reversed=False)
        assert cell_len(heading) == column.width


def test_what_matters_most_stays_longest():
    def names(width):
        return [column.name for column in layout(width).columns]

    assert names(120) == [column.name for column in COLUMNS]
    assert "tasks" not in names(98)
    assert "peak" in names(98)
    assert "current" in names(40)
    assert "share" in names(40)


def test_numbers_that_no_column_has_room_for_are_cut():
    huge = group("/", 2**63 - 1, events=(2**63,) * 5)
    model = Model(sample(huge))
    for column in COLUMNS:
        assert len(columns.cell(column, model.row(0))) == column.width


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (0.0, "    "),
        (0.5, "██  "),
        (0.53125, "██▏ "),
        (1.0, "████"),
        (7.0, "████"),
        (math.inf, "████"),
        (-1.0, "    "),
    ],
)
def test_a_bar_is_as_full_as_the_group(part, expected):
    assert bar(part, 4) == expected


def test_sizes_are_written_as_limits_are_typed():
    assert [size(value) for value in (0, 512, 1536, 64 * M)] == ["0B", "512B", "1.5K", "64.0M"]
    assert [rate(value) for value in (0.2, 2048.0, -3.0 * M)] == ["", "+2.0K/s", "-3.0M/s"]


# --- limits


def test_a_limit_is_read_as_everywhere():
    assert steering.parse("max", "1.5G") == 3 << 29
    assert steering.parse("high", "max") is None
    assert steering.parse("low", "12K") == 12 << 10


@pytest.mark.parametrize(
    ("knob", "text"),
    [("max", ""), ("max", "12x"), ("high", "-1"), ("low", "max"), ("max", "9" * 30)],
)
def test_what_is_no_limit_is_named(knob, text):
    with pytest.raises(ValueError, match=f"memory.{knob}: ") as caught:
        steering.parse(knob, text)
    assert repr(text) in str(caught.value)
    assert "accepted" in str(caught.value)
    assert "None" not in str(caught.value)
