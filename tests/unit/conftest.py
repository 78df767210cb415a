"""Fixtures of the tests that need no allocation to be charged."""

from __future__ import annotations

import pytest
from unit.fake_core import FakeCore, FakeGroup

from objcg import _registry, errors, limits, reclaim


@pytest.fixture
def core(monkeypatch):
    """Put a fake core under the policy, with no groups, shrinkers or history."""
    core = FakeCore()
    for module in (errors, limits, reclaim):
        monkeypatch.setattr(module, "_core", core)
    monkeypatch.setattr(_registry, "_groups", core.groups)
    monkeypatch.setattr(limits, "_notices", type(limits._notices)())
    monkeypatch.setattr(reclaim, "_shrinkers", [])
    monkeypatch.setattr(reclaim, "_backoff", reclaim._Backoff())
    return core


@pytest.fixture
def tree(core):
    """Make root with two groups, of which the first has a child."""
    root = FakeGroup(core, 1, "/")
    a = FakeGroup(core, 2, "/a", root)
    FakeGroup(core, 3, "/a/x", a)
    FakeGroup(core, 4, "/b", root)
    return {group.path: group for group in core.groups.values()}


class FakeCollector:
    """The garbage collector: frees what it is told to, and takes the time it is told to."""

    def __init__(self):
        self.frees = []
        self.seconds = 0.001
        self.now = 1000.0
        self.runs = 0

    def collect(self):
        self.runs += 1
        self.now += self.seconds
        for group, nbytes in self.frees:
            group.usage -= nbytes

    def monotonic(self):
        return self.now


@pytest.fixture
def collector(monkeypatch):
    collector = FakeCollector()
    monkeypatch.setattr(reclaim, "gc", collector)
    monkeypatch.setattr(reclaim, "time", collector)
    return collector
