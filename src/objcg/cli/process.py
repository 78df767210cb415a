"""The process that a verb is about, as it is named on the command line."""

from __future__ import annotations

import os

from objcg import region

from .parser import CliError

_LARGEST_PID = 2**22


def find_process(process: str) -> str:
    """Return the region file of `process`, a PID or the path of one. Raises CliError."""
    path: str | None = process
    if process.isascii() and process.isdigit() and not os.path.exists(process):
        path = region.find(int(process)) if int(process) <= _LARGEST_PID else None
        if path is None:
            msg = f"no region of process {process}: it does not run, or not with objcg on"
            raise CliError(msg)
    assert path is not None  # noqa: S101
    return path


def read_process(process: str, *, tasks: bool = False) -> region.Region:
    """Return the region of `process`, a PID or the path of a region file. Raises CliError."""
    path = find_process(process)
    try:
        return region.read(path, tasks=tasks)
    except region.RegionError as error:
        raise CliError(str(error)) from error
