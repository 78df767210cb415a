"""Fifty asyncio tasks that take numbers from a queue and make records of them."""

from __future__ import annotations

import asyncio
import sys


async def work(queue: asyncio.Queue[int | None], made: list[dict[str, object]]) -> None:
    """Make records until None comes."""
    while (number := await queue.get()) is not None:
        await asyncio.sleep(0)
        made.append({"number": number, "text": str(number) * 3})


async def produce(scale: float) -> int:
    """Feed the tasks; return how many records they made."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(100)
    made: list[dict[str, object]] = []
    workers = [asyncio.create_task(work(queue, made)) for _ in range(50)]
    for number in range(int(250_000 * scale)):
        await queue.put(number)
    for _ in workers:
        await queue.put(None)
    await asyncio.gather(*workers)
    return len(made)


def main(scale: float) -> int:
    """Run the loop; return how many records were made."""
    return asyncio.run(produce(scale))


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
