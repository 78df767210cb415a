"""Steps of asyncio's loop: a task that awaits asyncio.sleep(0)."""

from __future__ import annotations

import asyncio
from itertools import repeat


async def steps(count: int) -> None:
    """Await that often."""
    for _ in repeat(None, count):
        await asyncio.sleep(0)


def main(scale: float) -> int:
    """Run a loop; return how many steps it took."""
    count = int(40_000 * scale)
    asyncio.run(steps(count))
    return count
