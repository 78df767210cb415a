"""``objcg set``: set limits of a group of a running process, from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from objcg import _paths, _sizes, outside
from objcg.region import RegionError

from .output import say
from .parser import CliError, WrongUse
from .process import find_group, read_process
from .table import printable

if TYPE_CHECKING:
    import argparse

    from objcg.region import GroupInfo

_KNOBS = ("max", "high", "low")
_ACCEPTED = "accepted are max=SIZE, high=SIZE and low=SIZE, also written memory.max=SIZE and so on"


def run(options: argparse.Namespace) -> int:
    """Set what was given; return the exit status."""
    try:
        path = "/" + "/".join(_paths.split(options.path))
        knobs = _parse(options.knobs)
    except ValueError as error:
        raise WrongUse(str(error)) from error
    found = read_process(options.process)
    group = find_group(found, path)
    try:
        done = outside.set_knobs(found, group, knobs)
    except RegionError as error:
        raise CliError(str(error)) from error
    if not done:
        msg = f"nothing was set: group {path} of process {found.pid} has ended meanwhile"
        raise CliError(msg)
    before = {knob: getattr(group, knob) for knob in _KNOBS}
    if options.json:
        after = {**before, **knobs, "low": knobs.get("low", before["low"]) or None}
        report = {"pid": found.pid, "path": path, "current": group.current}
        say(json.dumps({**report, **after, "before": before}))
    else:
        say(_text(found.pid, group, before, knobs))
    return 0


def _parse(words: list[str]) -> dict[str, int | None]:
    """Return the knobs in KNOB=SIZE words, in bytes, None for unset. Raises ValueError."""
    knobs: dict[str, int | None] = {}
    for word in words:
        name, equals, size = word.partition("=")
        knob = name.removeprefix("memory.")
        if not equals or knob not in _KNOBS:
            msg = f"{word!r} sets no knob of a group; {_ACCEPTED}"
            raise ValueError(msg)
        if knob in knobs:
            msg = f"{word!r}: memory.{knob} is given twice"
            raise ValueError(msg)
        what = f"memory.{knob}"
        # "max" would be full protection, which there is no way to keep; 0 is none
        parse = _sizes.parse_bytes if knob == "low" else _sizes.parse_limit
        knobs[knob] = parse(size, what)
    return knobs


def _text(
    pid: int, group: GroupInfo, before: dict[str, int | None], knobs: dict[str, int | None]
) -> str:
    changes = ", ".join(
        f"memory.{knob} {_size(value)} (was {_size(before[knob])})" for knob, value in knobs.items()
    )
    text = f"{printable(group.path)} of process {pid}: {changes}"
    limit = knobs.get("max")
    if limit is not None and group.current > limit:
        text += f"; {_size(group.current)} are charged: what is allocated next meets the limit"
    return text


def _size(size: int | None) -> str:
    return "unset" if size is None else _sizes.format_size(size)
