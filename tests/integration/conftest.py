"""What holds after every integration test: nothing is lost, and nothing is negative."""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import objcg

from .charges import RESIDUE, charge_of_payload, within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def subtree(group: objcg.Group) -> Iterator[objcg.Group]:
    """Walk a group and all groups below it."""
    yield group
    for child in list(group.children):
        yield from subtree(child)


def negative_counters(group: objcg.Group) -> dict[str, int]:
    """Return those counters of a group that are below 0, which none ever may be."""
    memory = group.memory
    counters = {"current": memory.current, "peak": memory.peak}
    counters |= {f"stat.{name}": value for name, value in memory.stat.items()}
    counters |= {f"events.{name}": value for name, value in memory.events.items()}
    return {name: value for name, value in counters.items() if value < 0}


@pytest.fixture(autouse=True)
def nothing_lost(enabled: None) -> Iterator[None]:
    """Check after each test that the books balance: drift 0, and no counter below 0."""
    yield
    gc.collect()
    assert objcg.audit().drift == 0
    negative = {group.path: negative_counters(group) for group in subtree(objcg.root)}
    assert {path: counters for path, counters in negative.items() if counters} == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the region files of one test."""
    regions = tmp_path / "regions"
    regions.mkdir(mode=0o700)
    return regions


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Take the test suite's own objects out of the collector's sight.

    A test that makes reclaim collect garbage hundreds of times would else spend its time walking
    the objects of pytest.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@pytest.fixture
def caught_unraisable(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Collect what is handed to ``sys.unraisablehook`` while the test runs."""
    caught: list[BaseException] = []

    def note(args: sys.UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            caught.append(args.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", note)
    return caught


@pytest.fixture
def charged_once(fresh_group: objcg.Group) -> Iterator[list[list[bytes]]]:
    """Check at the end that all that the test put into this list is charged to the fresh group."""
    held: list[list[bytes]] = []
    yield held
    assert held, "the test allocated nothing"
    expected = len(held) * charge_of_payload()
    assert within(0.01, fresh_group.memory.current, expected)
    held.clear()
    gc.collect()
    assert 0 <= fresh_group.memory.current <= RESIDUE


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads were all started outside of any group, and are idle."""
    with ThreadPoolExecutor(2) as executor:
        barrier = threading.Barrier(2)
        list(executor.map(lambda _: barrier.wait(10), range(2)))
        yield executor
