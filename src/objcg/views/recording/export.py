"""A recording as comma-separated values: a line for each group of each sample."""

from __future__ import annotations

import csv
import time
from itertools import repeat
from typing import TYPE_CHECKING, TextIO

from objcg.cli.table import printable

from .frames import COLUMNS, STAT, UNSET

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .reader import Recording

HEADINGS = ("sample", "session", "time", "clock", "rss", "rss_shared", "path", "uid", *COLUMNS)
"""`time` is in UTC, `clock` in seconds since boot, all sizes in bytes.

A limit that is not set is empty, and so is the stat but in key frames.
"""

_LIMITS = tuple(COLUMNS.index(name) for name in ("max", "high", "low"))


def write(recording: Recording, file: TextIO) -> None:
    """Write all samples; on a terminal, names escaped. Raises RecordingError, OSError."""
    writer = csv.writer(file, lineterminator="\n")
    # whoever made the recording has chosen them, and a terminal does what they say
    named = printable if file.isatty() else str
    writer.writerow(HEADINGS)
    for moment in recording.moments():
        whole, rest = divmod(moment.at, 10**9)
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{rest:09d}Z"
        when = (
            moment.id,
            moment.session,
            at,
            f"{moment.clock / 1e9:.9f}",
            moment.rss,
            moment.rss_shared,
        )
        groups = [recording.groups[number] for number in moment.ids]
        columns: list[Iterable[object]] = list(moment.columns)
        for i in _LIMITS:
            columns[i] = ["" if value == UNSET else value for value in moment.columns[i]]
        if not moment.key:
            columns[STAT:] = [repeat("") for _ in COLUMNS[STAT:]]
        writer.writerows(
            (*when, named(group.path), group.uid, *values)
            for group, *values in zip(groups, *columns, strict=False)
        )
