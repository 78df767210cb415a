from __future__ import annotations

import json
import random
import re

import pytest

from objcg.views import pictures
from objcg.views.pictures import Node, Summary, Usage

MIB = 1 << 20

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<a href='http://example.org'>x</a>",
    "&lt;b&gt;",
    "a\x1b[2J\x07\u202eb\u2028c",
    "<!--",
    "$E=mc^2$",
    "x" * 250,
]


def area(figure, name):
    (trace,) = [trace for trace in figure["data"] if trace["name"] == name]
    return trace


def test_curves_are_stacked_with_the_largest_at_the_top_and_others_at_the_bottom():
    usage = Usage([1.0, 2.0], {"/a": [5 * MIB, 6 * MIB], "/b": [MIB, None]}, [MIB, 0], 17)
    figure = pictures.stacked(usage)
    assert [trace["name"] for trace in figure["data"]] == ["17 others", "/b", "/a"]
    assert all(trace["stackgroup"] == "usage" for trace in figure["data"])
    assert area(figure, "/a")["y"] == [5, 6]
    assert area(figure, "/b")["y"] == [1, None]
    assert area(figure, "/a")["x"] == [1000, 2000]
    assert figure["layout"]["yaxis"]["title"]["text"] == "MiB"
    assert json.loads(pictures.to_json(figure)) == figure


@pytest.mark.parametrize(
    ("most", "unit", "shown"),
    [(1024, "KiB", 1), (MIB - 16, "KiB", 1023.984), (MIB, "MiB", 1), (10 << 30, "GiB", 10)],
)
def test_the_unit_is_that_of_the_largest(most, unit, shown):
    figure = pictures.stacked(Usage([1.0], {"/a": [most]}))
    assert figure["layout"]["yaxis"]["title"]["text"] == unit
    assert area(figure, "/a")["y"] == [shown]
    assert area(figure, "/a")["hovertemplate"].endswith(unit)


def test_what_is_resident_is_a_line_and_limits_are_marked_on_top_of_the_stack():
    usage = Usage(
        [1.0, 2.0],
        {"/a": [MIB, 2 * MIB]},
        others=[MIB, MIB],
        how_many=1,
        resident=[9 * MIB, None],
        marks=[(1, "/a")],
    )
    figure = pictures.stacked(usage)
    assert [trace["name"] for trace in figure["data"]] == [
        *("1 other", "/a", "resident since start-up", "limit met")
    ]
    line, marks = figure["data"][2:]
    assert "stackgroup" not in line
    assert line["y"] == [9, None]
    assert (marks["x"], marks["y"], marks["text"]) == ([2000], [3], ["/a"])


def test_others_that_have_nothing_are_not_shown():
    figure = pictures.stacked(Usage([1.0], {"/a": [MIB]}, [0], 3))
    assert [trace["name"] for trace in figure["data"]] == ["/a"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are_and_mean_nothing(name):
    tree = pictures.forest([[Node("/", 10), Node(f"/{name}", 5)]])
    figures = [
        pictures.stacked(Usage([1.0], {f"/{name}": [1]}, marks=[(0, f"/{name}")])),
        pictures.icicle(tree),
    ]
    text = pictures.to_json([figures, tree._asdict()])
    assert "<" not in text
    assert ">" not in text
    assert text.isascii()
    assert text.isprintable()
    for string in strings(json.loads(text)):
        # markup that plotly would understand; its own templates have "<br>" and "<extra>"
        if "%{" not in string:
            assert "<" not in string
            assert "$" not in string
            assert "&" not in re.sub("&(lt|gt|amp|#36);", "", string)
            assert string.isprintable()
            assert len(string) < 1000


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from strings(one)


def test_a_long_name_keeps_its_end_which_tells_it_from_others():
    assert pictures.plain("/tenants/" + "a" * 300 + "/x", 10) == "…aaaaaaa/x"
    assert pictures.plain("/short", 10) == "/short"


NODES = [
    Node("/", 100),
    Node("/a", 60),
    Node("/a/x", 50),
    Node("/a/y", 8),
    Node("/b", 30),
    Node("/c", 1),
]


def by_path(tree, moment=0):
    return dict(zip(tree.paths, tree.values[moment], strict=True))


def test_a_tree_has_each_group_after_its_parent():
    tree = pictures.forest([NODES], {"/a/x": "#4477aa"})
    assert tree.paths == ["/", "/a", "/b", "/c", "/a/x", "/a/y"]
    assert tree.parents == [None, 0, 0, 0, 1, 1]
    assert by_path(tree) == dict(NODES)
    assert tree.colours[4] == "#4477aa"
    assert tree.colours[0] == tree.colours[1] == pictures.NEUTRAL


def test_the_smaller_groups_are_one_place_beside_the_larger():
    tree = pictures.forest([NODES], most=3)
    assert tree.paths == ["/", "/a", "/a/x", "other groups in /", "other groups in /a"]
    assert by_path(tree) == {
        "/": 100,
        "/a": 60,
        "/a/x": 50,
        "other groups in /": 31,
        "other groups in /a": 8,
    }


def test_a_group_is_chosen_by_its_highest_peak_and_is_missing_where_it_is_not():
    moments = [[Node("/", 50), Node("/a", 40)], [Node("/", 9), Node("/b", 8)], [Node("/", 1)]]
    tree = pictures.forest(moments, most=2)
    assert [by_path(tree, i) for i in range(3)] == [
        {"/": 50, "/a": 40, "other groups in /": None},
        {"/": 9, "/a": None, "other groups in /": 8},
        {"/": 1, "/a": None, "other groups in /": None},
    ]


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_smaller_than_what_is_below_it(seed):
    # or plotly shows nothing at all; readings of a process at work are such
    chance = random.Random(seed)
    paths = ["/"]
    while len(paths) < 60:
        path = f"{chance.choice(paths).rstrip('/')}/{chance.randrange(40)}"
        if path not in paths:
            paths.append(path)
    moments = [
        [Node(path, chance.randrange(-5, 1000)) for path in paths if chance.random() < 0.8]
        for _ in range(4)
    ]
    tree = pictures.forest(moments, most=20)
    for moment in range(4):
        trace = pictures.icicle(tree, moment)["data"][0]
        values = dict(zip(trace["ids"], trace["values"], strict=True))
        assert trace["parents"].count("") == 1
        below = dict.fromkeys(values, 0)
        for parent, value in zip(trace["parents"], trace["values"], strict=True):
            if parent:
                below[parent] += value
        assert all(values[name] >= total for name, total in below.items())


def summary(path, **more):
    values = {
        "current": 0,
        "peak": 0,
        "limit": None,
        "share": None,
        "events": {},
        "growth": 0,
        "seconds": 1.0,
        "gone": False,
    }
    return Summary(path=path, **{**values, **more})


def test_the_worst_are_those_of_each_measure():
    summaries = [
        summary("/", peak=1000, growth=1000),
        *(summary(f"/{i}", peak=100 + i) for i in range(5)),
        summary("/full", share=0.9, limit=10),
        summary("/hit", events={"raised": 2, "high": 99}),
        summary("/reclaimed", events={"high": 99}),
        summary("/leak", growth=5),
        summary("/shrinks", growth=-5),
    ]
    rows = pictures.worst(summaries, listed=3, marked=1)
    assert [(row.summary.path, set(row.worst_by)) for row in rows] == [
        ("/4", {"peak"}),
        ("/3", set()),
        ("/2", set()),
        ("/full", {"share"}),
        ("/hit", {"events"}),
        ("/leak", {"growth"}),
    ]


def test_there_are_colours_for_as_many_as_are_shown():
    paths = [f"/{i}" for i in range(pictures.MOST_CURVES)]
    assert len(set(pictures.colours(paths).values())) == pictures.MOST_CURVES
