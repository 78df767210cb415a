"""What all tests share: objcg on for the whole session, and groups that do not outlive a test."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

import objcg

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def enabled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Switch objcg on, with the region files of this session in a folder of their own."""
    os.environ["OBJCG_DIR"] = str(tmp_path_factory.mktemp("regions"))
    objcg.enable()


@pytest.fixture(scope="session", autouse=True)
def signals_are_not_ignored() -> None:
    """Have programs started by tests take the signals that nohup and shells' jobs ignore.

    What is ignored stays so in a program that is executed; what has a handler does not.
    """
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def remove_subtree(group: objcg.Group) -> None:
    """Remove a group and all below it, tasks or not. One that is gone already is fine."""
    for child in list(group.children):
        remove_subtree(child)
    with contextlib.suppress(objcg.GroupRemoved):
        group.remove(force=True)


@pytest.fixture
def fresh_group(request: pytest.FixtureRequest) -> Iterator[objcg.Group]:
    """Make a group no other test has used; it is removed with everything below it."""
    name = re.sub(r"\W+", "-", request.node.name)[:80]
    group = objcg.group(f"/{name}-{next(_numbers)}")
    try:
        yield group
    finally:
        if group.online:
            remove_subtree(group)
