"""An asyncio program that is interrupted, or fails, as its argument says."""

import asyncio
import os
import signal
import sys


async def work(number: int) -> int:
    """Take some turns."""
    for _ in range(number):
        await asyncio.sleep(0)
    if sys.argv[1] == "fail":
        raise LookupError(number)
    if sys.argv[1] == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    return number


async def main() -> None:
    """Run a few tasks; only one that is interrupted, as their order at the end is that of a set."""
    if sys.argv[1] == "interrupt":
        await work(3)
    print(sum(await asyncio.gather(*(work(number) for number in range(10)))))


asyncio.run(main())
