"""Contexts share what they hold until one of them changes: none sees another's changes."""

from __future__ import annotations

import contextvars
import gc
import random
from typing import NamedTuple

import pytest

import objcg

# Up to 16 variables CPython keeps a context in one node, above that in a tree.
VARIABLES = [contextvars.ContextVar(f"v{number}") for number in range(70)]


class Modelled(NamedTuple):
    """A context, and which groups it should be in: the one it began with, then those entered."""

    context: contextvars.Context
    groups: list[objcg.Group]

    def check(self) -> None:
        assert self.context.run(objcg.current_group) is self.groups[-1]

    def enter(self, group: objcg.Group) -> None:
        self.context.run(group.__enter__)
        self.groups.append(group)

    def leave(self) -> None:
        if len(self.groups) > 1:
            self.context.run(self.groups.pop().__exit__, None, None, None)

    def copy(self) -> Modelled:
        return Modelled(self.context.copy(), self.groups[-1:])


def copy_values(source: contextvars.Context, target: contextvars.Context) -> None:
    """Set each variable in `target`, our own too, as asgiref's sync_to_async does."""
    for variable, value in source.items():
        target.run(variable.set, value)


@pytest.mark.parametrize("variables", [0, 1, 8, 15, 16, 17, 70])
def test_every_context_is_in_the_groups_it_entered(
    fresh_group: objcg.Group, variables: int
) -> None:
    groups = [objcg.group(f"{fresh_group.path}/{number}") for number in range(4)]
    draw = random.Random(variables)
    all_of_them = [Modelled(contextvars.Context(), [objcg.root])]
    held: list[object] = []
    for _ in range(2000):
        one = draw.choice(all_of_them)
        match draw.randrange(8):
            case 0 | 1:
                one.enter(draw.choice(groups))
            case 2 | 3:
                one.leave()
            case 4 if len(all_of_them) < 30:
                all_of_them.append(one.copy())
            case 4:
                all_of_them.remove(one)
                all_of_them = all_of_them or [Modelled(contextvars.Context(), [objcg.root])]
            case 5 if variables:
                one.context.run(draw.choice(VARIABLES[:variables]).set, object())
            case 6:  # whoever has the value may give it to another context at any time
                held = list(one.context.values()) if draw.random() < 0.5 else []
            case 7:
                other = draw.choice(all_of_them)
                if len(other.groups) == 1:
                    copy_values(one.context, other.context)
                    other.groups[:] = one.groups[-1:] if len(one.context) else other.groups
        for each in all_of_them:
            each.check()
    del held, one, other, each
    all_of_them.clear()
    gc.collect()
    assert [group.tasks for group in groups] == [0, 0, 0, 0]


def test_a_copy_stays_in_the_group_that_the_original_leaves(fresh_group: objcg.Group) -> None:
    inside = None
    for _ in range(3):  # from the second time on the context has what leaving put there
        with fresh_group:
            inside = contextvars.copy_context()
        assert inside.run(objcg.current_group) is fresh_group
        assert objcg.current_group() is objcg.root
        assert fresh_group.tasks == 1
    del inside
    assert fresh_group.tasks == 0


def test_what_a_copy_enters_the_original_does_not(fresh_group: objcg.Group) -> None:
    other = objcg.group(f"{fresh_group.path}/other")

    def enter() -> objcg.Group:
        other.__enter__()
        return objcg.current_group()

    with fresh_group:
        assert contextvars.copy_context().run(enter) is other
        assert objcg.current_group() is fresh_group
    assert other.tasks == 0
