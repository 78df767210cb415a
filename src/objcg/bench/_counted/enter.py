"""Entering and leaving a group by a with statement; on stock's side, contextlib.nullcontext()."""

from __future__ import annotations

import contextlib
import sys
from itertools import repeat


def main(scale: float) -> int:
    """Enter and leave; return how often."""
    count = int(200_000 * scale)
    objcg = sys.modules.get("objcg")
    context = objcg.group("/bench/entered") if objcg else contextlib.nullcontext()
    for _ in repeat(None, count):
        with context:
            pass
    return count
