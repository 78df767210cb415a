"""The core and `_paths.split`, which says what is wrong, agree on what a path is."""

from __future__ import annotations

import random

import pytest

import objcg
from objcg import _core, _paths

EDGES = [
    "/",
    "",
    "//",
    "/" + "a" * 255,
    "/" + "a" * 256,
    "/" + "é" * 127 + "a",
    "/" + "é" * 128,
    "/" + "\U0001f600" * 63 + "abc",
    "/" + "\U0001f600" * 64,
    "/a" * 128,
    "/a" * 129,
    "/...",
    "/.a/a./..a/a..",
    "/.",
    "/..",
]


def drawn(number: int) -> list[str]:
    draw = random.Random(number)
    return [
        "".join(
            draw.choices(
                ["/", ".", "a", "é", "\0", "\udc80", "\u20ac"],
                [9, 6, 6, 2, 1, 1, 2],
                k=draw.randrange(9),
            )
        )
        for _ in range(number)
    ] + [
        "/" + "".join(draw.choices("/.aé", [3, 3, 2, 1], k=draw.randrange(9)))
        for _ in range(number)
    ]


def made_and_removed(path: str) -> str | None:
    """Return the path of the group that the core makes for `path`; it, and those above, go."""
    group = _core.group_at(path)
    made = None if group is None else group.path
    while group is not None and group.parent is not None:
        above = group.parent
        if not group.children:
            group.remove()
        group = above
    return made


@pytest.mark.parametrize("paths", [EDGES, drawn(3000)], ids=["edges", "drawn"])
def test_the_core_takes_the_paths_that_can_be_split(paths: list[str]) -> None:
    for path in paths:
        try:
            _paths.split(path)
        except ValueError:
            assert made_and_removed(path) is None, path
        else:
            assert made_and_removed(path) == path


def test_a_path_of_another_type_is_a_str_like_any_other(fresh_group: objcg.Group) -> None:
    class Path(str):
        __slots__ = ()

    group = objcg.group(Path(f"{fresh_group.path}/below"))
    assert objcg.group(f"{fresh_group.path}/below") is group
    assert type(group.path) is str
    assert type(group.name) is str
