"""``objcg tree``: the groups of a process, from its region file, or of all of this user's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .output import say
from .parser import CliError
from .process import read_all_live, read_process, tell_unread
from .sums import add_up, sum_table
from .table import heading, stat_table, table, task_table

if TYPE_CHECKING:
    import argparse

    from objcg.region import Region


def run(options: argparse.Namespace) -> int:
    """Print the tree that was asked for; return the exit status."""
    if options.process is not None:
        found = read_process(options.process, tasks=options.tasks)
        say(found.to_json_text() if options.json else _text(found, options))
        return 0
    regions, unread = read_all_live(tasks=options.tasks)
    if not regions and not unread:
        msg = "no process of this user runs with objcg on"
        raise CliError(msg)
    if options.json:
        processes = ", ".join(found.to_json_text() for found in regions)
        sums = json.dumps([each.to_json() for each in add_up(regions)])
        say(f'{{"processes": [{processes}], "sum": {sums}}}')
        return tell_unread(unread)
    texts = [_text(found, options) for found in regions]
    if len(regions) > 1:
        texts.append("\n".join([f"all {len(regions)} processes", *sum_table(add_up(regions))]))
    if texts:
        say("\n\n".join(texts))
    return tell_unread(unread)


def _text(found: Region, options: argparse.Namespace) -> str:
    stat = stat_table(found) if options.stat else []
    return "\n".join([heading(found), *table(found), *stat, *task_table(found)])
