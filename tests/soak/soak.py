#!/usr/bin/env python3
"""The tenants service for as long as asked, while everything that can change does.

    soak.py [--seconds 60] [--seed N] [--json FILE]

Beside the service of examples/tenants.py, whose neighbours must not notice anything, tasks and
threads work in groups of their own, whose limits are set at random, also below what is used; tasks
are moved, groups removed under them and made again, charges refused; children are forked, work in
groups, and audit themselves.  Each second the process is audited, and what CPython's MemoryError of
last resort has gathered is taken away (last_resort.py).

At the end memory is flat: the median RSS of the last quarter is not above that of the second by
more than a twentieth and 4 MiB.  Drift was 0 at each audit, in children too, and nobody but
offenders was refused.  Exit status: 0 if so, 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import statistics
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import tenants  # noqa: E402
from last_resort import last_resort  # noqa: E402

import objcg  # noqa: E402
from objcg import _core  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
GUESTS = 24
THREADS = 3
# Of RSS: what the allocator keeps, and what is in flight, differ from one moment to the next.
GROWTH_SHARE = 0.05
GROWTH = 4 * MIB


class Soak:
    """What is going on, and what was counted."""

    def __init__(self, seconds: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.until = time.monotonic() + seconds
        self.counted: Counter[str] = Counter()
        self.samples: list[dict[str, float]] = []
        self.wrong: list[str] = []
        self.tasks: dict[int, objcg.Task] = {}

    def over(self) -> bool:
        return time.monotonic() >= self.until

    def group(self, number: int) -> objcg.Group:
        return objcg.group(f"/guests/{number % 4}/{number}")

    # --- those who work -------------------------------------------------------------------------

    def work(self, rng: random.Random, held: list[object], kinds: int = 5) -> None:
        """Allocate in all sizes and kinds, keep some of it and drop some."""
        kind = rng.randrange(kinds)
        if kind == 0:
            held.append([bytes(rng.randrange(2000)) for _ in range(200)])
        elif kind == 1:
            held.append({str(n): [n] for n in range(rng.randrange(500))})
        elif kind == 2:
            held.append(bytearray(rng.randrange(300_000)))
        elif kind == 3:
            cycle: list[object] = []
            cycle.append(cycle)
            held.append(cycle)
        else:
            held.append(json.loads(json.dumps({"k": list(range(rng.randrange(400)))})))
        if len(held) > 30:
            del held[: rng.randrange(30)]

    @contextlib.contextmanager
    def turn(self, who: str, held: list[object]) -> Iterator[None]:
        """Count how a turn of these ends; who was refused memory drops what it has."""
        try:
            yield
            self.counted[f"{who}' turns"] += 1
        except MemoryError as error:
            held.clear()
            self.counted[f"{who}' {type(error).__name__}"] += 1
        except objcg.GroupRemoved:
            self.counted["entered while removed"] += 1

    async def guest(self, number: int) -> None:
        """Work in a group until somebody removes it or it is full; then begin anew."""
        rng = random.Random(number)
        held: list[object] = []
        while not self.over():
            with self.turn("guests", held), self.group(number):
                self.tasks[number] = objcg.current_task()
                for _ in range(rng.randrange(1, 60)):
                    self.work(rng, held)
                    await asyncio.sleep(0.005 * rng.random())
            await asyncio.sleep(0.002)

    def thread(self, number: int) -> None:
        """The same on a thread, which takes no heed of the event loop.

        Not json, since charges of threads are refused: its encoder makes a function, and CPython
        releases the code of one that could not be made once too often (tests/faults/known.json).
        """
        rng = random.Random(1000 + number)
        held: list[object] = []
        while not self.over():
            with self.turn("threads", held), self.group(GUESTS + number):
                self.tasks[GUESTS + number] = objcg.current_task()
                for _ in range(rng.randrange(1, 60)):
                    self.work(rng, held, kinds=4)
                    time.sleep(0.003 * rng.random())

    # --- what changes ---------------------------------------------------------------------------

    async def changes(self) -> None:
        while not self.over():
            change = self.random.choices(
                (self.limit, self.move, self.remove, self.reclaim, self.refuse, self.fork),
                weights=(40, 30, 10, 8, 8, 1),
            )[0]
            number = self.random.randrange(GUESTS + THREADS)
            try:
                change(number)
            except (objcg.GroupRemoved, objcg.GroupBusy):
                self.counted["came too late"] += 1
            await asyncio.sleep(0.01)

    def limit(self, number: int) -> None:
        memory = self.group(number).memory
        knob = self.random.choice(("max", "max", "high", "low"))
        value = self.random.choice((None, 0, 100_000, 1 * MIB, 4 * MIB, memory.current // 2))
        setattr(memory, knob, value)
        self.counted[f"{knob} set"] += 1

    def move(self, number: int) -> None:
        task = self.tasks.get(number)
        if task is not None and task.online:
            task.move(self.group(self.random.randrange(GUESTS)))
            self.counted["moves"] += 1

    def remove(self, number: int) -> None:
        self.group(number).remove(force=True)
        self.counted["removals"] += 1

    def reclaim(self, number: int) -> None:
        self.group(number).memory.reclaim(self.random.randrange(MIB))
        self.counted["reclaims"] += 1

    def refuse(self, number: int) -> None:
        """Have a thread's charges refused for a moment: one of them, or all from one on.

        Not a guest's: asyncio forgets a task if there is no memory to wake it.
        """
        group = self.group(GUESTS + number % THREADS)
        _core.fail_charges(group.id, self.random.randrange(1, 200), self.random.random() < 0.3)
        asyncio.get_running_loop().call_later(0.02, self.refuse_no_more)

    def refuse_no_more(self) -> None:
        _, refused = _core.fail_charges(0, 0, False)
        self.counted["charges refused"] += refused

    def fork(self, number: int) -> None:
        """A child works in the group it was forked in, audits itself, and ends."""
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: since 3.12
            child = os.fork()
        if child == 0:
            status = 3
            try:
                held: list[object] = []
                with contextlib.suppress(MemoryError), objcg.group(f"/child/{number}"):
                    for _ in range(50):
                        self.work(self.random, held)
                held.clear()
                status = 0 if objcg.audit().drift == 0 else 4
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        self.counted["forks"] += 1
        if status:
            self.wrong.append(f"a child ended with status {status} (4 << 8: drift)")

    # --- what is looked at ----------------------------------------------------------------------

    async def look(self) -> None:
        started = time.monotonic()
        kept = last_resort()
        while not self.over():
            await asyncio.sleep(1)
            if kept is not None:
                kept.__traceback__ = None
            drift = objcg.audit().drift
            self.counted["audits"] += 1
            if drift:
                self.wrong.append(f"drift {drift} after {time.monotonic() - started:.0f} s")
            stat = objcg.root.memory.stat
            self.samples.append(
                {
                    "at": time.monotonic() - started,
                    "rss": tenants.resident_bytes("VmRSS"),
                    "current": objcg.root.memory.current,
                    "dying": stat["dying_descendants"],
                }
            )

    async def all(self, options: argparse.Namespace) -> dict[str, object]:
        opened = tenants.open_tenants()
        threads = [threading.Thread(target=self.thread, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        load, *_ = await asyncio.gather(
            tenants.serve(opened, options),
            self.changes(),
            self.look(),
            *(self.guest(number) for number in range(GUESTS)),
        )
        for thread in threads:
            thread.join()
        # how often the leak comes to its limit depends on how busy the machine is
        unmet = tenants.unmet_expectations(opened, load)
        self.wrong += [reason for reason in unmet if not reason.startswith("leaky ")]
        return load


def flat(samples: list[dict[str, float]]) -> tuple[float, float]:
    """Return the median RSS of the second quarter, and of the last."""
    quarter = max(1, len(samples) // 4)
    parts = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    before, after = (statistics.median(one["rss"] for one in part) for part in parts)
    return before, after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was counted there")
    options = parser.parse_args()
    options.port, options.quiet = 0, True
    print(f"soak: {options.seconds:.0f} s, seed {options.seed}", flush=True)
    objcg.enable()
    soak = Soak(options.seconds, options.seed)
    started = time.monotonic()
    load = asyncio.run(soak.all(options))
    if len(soak.samples) >= 40:
        before, after = flat(soak.samples)
        if after > before * (1 + GROWTH_SHARE) + GROWTH:
            soak.wrong.append(f"RSS grew: median {before / MIB:.1f}, then {after / MIB:.1f} MiB")
    else:
        before = after = soak.samples[-1]["rss"]
    result = {
        "seconds": round(time.monotonic() - started),
        "seed": options.seed,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "requests": load.get("requests"),
        "failures": load.get("failures"),
        "counted": dict(sorted(soak.counted.items())),
        "rss_second_quarter": before,
        "rss_last_quarter": after,
        "most_dying": max(sample["dying"] for sample in soak.samples),
        "wrong": soak.wrong,
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(bool(soak.wrong))


if __name__ == "__main__":
    sys.exit(main())
