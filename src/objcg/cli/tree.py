"""``objcg tree``: the groups of a process, from its region file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from objcg import region

from .parser import CliError
from .table import heading, table

if TYPE_CHECKING:
    import argparse

_LARGEST_PID = 2**22


def run(options: argparse.Namespace) -> int:
    """Print the tree that was asked for; return the exit status."""
    regions = _all_live() if options.process is None else [_one(options.process)]
    for i, found in enumerate(regions):
        if options.json:
            print(json.dumps(found.to_json()))
        else:
            print("\n" * (i > 0) + "\n".join([heading(found), *table(found)]))
    return 0


def _one(process: str) -> region.Region:
    path: str | None = process
    if process.isascii() and process.isdigit() and not os.path.exists(process):
        path = region.find(int(process)) if int(process) <= _LARGEST_PID else None
        if path is None:
            msg = f"no region of process {process}: it does not run, or not with objcg on"
            raise CliError(msg)
    assert path is not None  # noqa: S101
    try:
        return region.read(path)
    except region.RegionError as error:
        raise CliError(str(error)) from error


def _all_live() -> list[region.Region]:
    regions = []
    for path in region.find_live():
        try:
            regions.append(region.read(path))
        except region.RegionError as error:  # noqa: PERF203  # a process may end at any time
            # no file: the process ended meanwhile, and took it with it
            if os.path.exists(path):
                raise CliError(str(error)) from error
    if not regions:
        msg = "no process of this user runs with objcg on"
        raise CliError(msg)
    return regions
