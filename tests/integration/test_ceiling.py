"""A group that is full to its ceiling: each allocation fails, and the interpreter lives on."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import pytest

import objcg
from objcg import _core

from .charges import MIB, ceiling
from .programs import run_checked

if TYPE_CHECKING:
    from collections.abc import Iterator

# A handler far into a function: 300 instructions, each of a code unit at least. Its place is an
# int that CPython has not ready, and without memory for which it tried again for ever (3.11 on).
HOARD = """
import threading
from collections import deque
import objcg
objcg.enable()
group = objcg.group("/g", max="1M")
code = '''
def hoard(held, manager):
    x = 0
{steps}
    for _ in range(20):
        try:
            with manager:
                held.extend(map(float, range(10_000_000)))
        except MemoryError:
            caught.append(None)
'''
class Manager:
    def __enter__(self): pass
    def __exit__(self, *error): pass
caught = []
exec(code.format(steps="    x = x + 1\\n" * 150))
held = deque()
def work():
    while len(caught) < 20:
        # the error of the limit may come between two statements, too
        try:
            with group:
                hoard(held, Manager())
        except MemoryError:
            caught.append(None)
thread = threading.Thread(target=work)
thread.start()
thread.join()
memory = group.memory
print(len(caught), memory.events["ceiling"], memory.peak, objcg.audit().drift)
"""


def test_who_goes_on_after_each_error_does_not_hang_the_interpreter() -> None:
    caught, at_ceiling, peak, drift = run_checked(HOARD)
    assert int(caught) >= 20
    assert drift == "0"
    # what lets CPython go on, where it needs that: an int for each thousand refusals
    assert int(at_ceiling) > 0
    assert int(peak) <= ceiling(MIB) + 32 * (int(at_ceiling) // 1000)


@pytest.fixture
def full(fresh_group: objcg.Group) -> Iterator[objcg.Group]:
    """A group in which each charge is refused, by the hook for tests."""
    yield fresh_group
    _core.fail_charges(0, 0, False)


@pytest.mark.parametrize("shared", [True, False], ids=["shared cell", "own cell"])
def test_groups_are_entered_and_left_where_the_outer_one_is_full(
    full: objcg.Group, shared: bool
) -> None:
    """With a copy of the context a new value of the variable is needed, and so memory."""
    below = objcg.group(f"{full.path}/below")
    copies: list[contextvars.Context] = [contextvars.copy_context()] * 3
    groups = [None] * 3
    read = _core.current_gid
    with full:
        if shared:
            copies[0] = contextvars.copy_context()
        _core.fail_charges(full.id, 1, True)
        with below:
            groups[0] = read()
        groups[1] = read()
        with below:
            groups[2] = read()
    _, refused = _core.fail_charges(0, 0, False)
    assert groups == [below.id, full.id, below.id]
    assert objcg.current_group() is objcg.root
    # without a copy here there may still be one that somebody else has kept
    assert refused > 0 or not shared


def test_nothing_is_refused_or_counted_outside_the_subtree(full: objcg.Group) -> None:
    beside = objcg.group(f"{full.path}-beside")
    try:
        _core.fail_charges(full.id, 1, True)
        with beside:
            held = [bytes(length) for length in (10, 1000, 100_000)]
        assert _core.fail_charges(0, 0, False) == (0, 0)
        assert beside.memory.current > 101_000
    finally:
        held.clear()
        beside.remove()


def test_the_nth_charge_is_refused_and_no_other(full: objcg.Group) -> None:
    held: list[bytes | None] = [None] * 10
    failed = []
    lengths = (40, 400, 4000, 40_000)
    for length in lengths:
        with full:
            _core.fail_charges(full.id, 4, False)
            for number in range(10):
                try:
                    held[number] = bytes(length)
                except MemoryError:
                    failed.append(number)
            charges, refused = _core.fail_charges(0, 0, False)
        assert refused == 1
        # the blocks, and what the error needs
        assert 10 <= charges <= 20
        held[:] = [None] * 10
    assert len(failed) == len(lengths)
    assert all(number <= 3 for number in failed)


def test_the_hook_for_tests_says_what_it_accepts(full: objcg.Group) -> None:
    with pytest.raises(ValueError, match="-1 is negative; accepted are"):
        _core.fail_charges(full.id, -1, False)
    with pytest.raises(OSError, match="No such device"):
        _core.fail_charges(1 << 19, 1, False)
    with pytest.raises(TypeError):
        _core.fail_charges("1", 1, False)
