"""``objcg tree``: the groups of a process, from its region file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from objcg import region

from .parser import CliError
from .process import read_process
from .table import heading, stat_table, table, task_table

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print the tree that was asked for; return the exit status."""
    tasks = options.tasks
    if options.process is None:
        regions = _all_live(tasks=tasks)
    else:
        regions = [read_process(options.process, tasks=tasks)]
    for i, found in enumerate(regions):
        if options.json:
            print(json.dumps(found.to_json()))
        else:
            stat = stat_table(found) if options.stat else []
            lines = [heading(found), *table(found), *stat, *task_table(found)]
            print("\n" * (i > 0) + "\n".join(lines))
    return 0


def _all_live(*, tasks: bool) -> list[region.Region]:
    regions = []
    for path in region.find_live():
        try:
            regions.append(region.read(path, tasks=tasks))
        except region.RegionError as error:  # noqa: PERF203  # a process may end at any time
            # no file: the process ended meanwhile, and took it with it
            if os.path.exists(path):
                raise CliError(str(error)) from error
    if not regions:
        msg = "no process of this user runs with objcg on"
        raise CliError(msg)
    return regions
