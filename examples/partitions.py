"""A batch job in one process, whose bad partition is stopped, and the others finish.

Twelve partitions of orders are joined with their customers and summed up by threads, with NumPy and
pandas. In one of them keys were lost: all its orders have key 0, and so have a thousand of its
customers, so that the join has a row for each pair and would take gigabytes. Each partition has a
memory control group with a limit. The bad one runs into it and gets a MemoryError; nobody else
notices anything.

    python examples/partitions.py [--partitions 12] [--threads 4] [--limit 128M] [--quiet]

The program ends with 1, and says why, if a good partition failed or is wrong, the bad one was not
stopped, or a byte is lost.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import objcg

try:
    import numpy as np
    import pandas as pd
except ImportError as missing:
    print(
        f"partitions: {missing.name} is not installed: pip install pandas (NumPy comes with it)",
        file=sys.stderr,
    )
    sys.exit(2)

MIB = 1 << 20
ORDERS, CUSTOMERS, LOST, REGIONS = 200_000, 20_000, 1000, 7


@dataclass
class Outcome:
    """What became of a partition."""

    number: int
    group: objcg.Group
    seconds: float
    revenue: dict[int, int] | None
    error: str = ""


# ---- The job -------------------------------------------------------------------------------------


def read_orders(number: int, *, bad: bool) -> pd.DataFrame:
    """Make the orders of a partition; from a file, it would be as large."""
    random = np.random.default_rng(number)
    keys = np.zeros(ORDERS, np.int64) if bad else random.integers(0, CUSTOMERS, ORDERS)
    return pd.DataFrame({"customer": keys, "cents": random.integers(100, 10_000, ORDERS)})


def read_customers(*, bad: bool) -> pd.DataFrame:
    """Make the customers of a partition, each of which has a region."""
    keys = np.arange(CUSTOMERS)
    kept = keys * (keys >= LOST) if bad else keys
    return pd.DataFrame({"customer": kept, "region": keys % REGIONS})


def revenue_by_region(number: int, *, bad: bool) -> dict[int, int]:
    """Join and sum up. With the lost keys the join has ORDERS times LOST rows."""
    joined = read_orders(number, bad=bad).merge(read_customers(bad=bad), on="customer")
    sums = joined.groupby("region")["cents"].sum()
    return {int(region): int(cents) for region, cents in sums.items()}


def process(number: int, limit: str, *, bad: bool) -> Outcome:
    """Do one partition in a group of its own; say what became of it."""
    group = objcg.group(f"/batch/part-{number:02}", max=limit)
    start = time.monotonic()
    revenue, error = None, ""
    try:
        with group:
            revenue = revenue_by_region(number, bad=bad)
    except MemoryError as refused:  # MemoryLimitExceeded is one, NumPy's own is another.
        # The text and not the exception: its traceback would keep the frames' tables alive.
        error = f"{type(refused).__name__}: {refused}"
    return Outcome(number, group, time.monotonic() - start, revenue, error)


def process_all(options: argparse.Namespace) -> list[Outcome]:
    """Do all partitions by some threads, the bad one in the middle of the others."""
    bad = options.partitions // 2
    with ThreadPoolExecutor(options.threads) as pool:
        return list(
            pool.map(
                lambda number: process(number, options.limit, bad=number == bad),
                range(options.partitions),
            )
        )


# ---- What it must show ---------------------------------------------------------------------------


def expected_revenue(number: int) -> dict[int, int]:
    """Sum up by another way: no join, and no pandas."""
    random = np.random.default_rng(number)
    regions = random.integers(0, CUSTOMERS, ORDERS) % REGIONS
    cents = random.integers(100, 10_000, ORDERS)
    return {region: int(cents[regions == region].sum()) for region in range(REGIONS)}


def print_table(outcomes: list[Outcome]) -> None:
    """Print a line for each partition."""
    print(f"{'partition':10}{'seconds':>8}{'peak':>10}{'max':>8}  result")
    for outcome in outcomes:
        memory = outcome.group.memory
        result = outcome.error.partition("\n")[0]
        if outcome.revenue is not None:
            result = f"{sum(outcome.revenue.values()) / 100:,.2f} in {len(outcome.revenue)} regions"
        print(
            f"{outcome.group.name:10}{outcome.seconds:8.2f}{memory.peak / MIB:9.1f}M"
            f"{(memory.max or 0) / MIB:7.0f}M  {result}"
        )


def unmet_expectations(outcomes: list[Outcome]) -> list[str]:
    """Say what is not as this example claims; nothing when all is."""
    unmet = []
    for outcome in outcomes:
        name, memory = outcome.group.name, outcome.group.memory
        limit = memory.max or 0
        if outcome.number == len(outcomes) // 2:
            if not outcome.error:
                unmet.append(f"{name} has the lost keys, and was not stopped")
        elif outcome.revenue is None:
            unmet.append(f"{name} failed: {outcome.error}")
        elif outcome.revenue != expected_revenue(outcome.number):
            unmet.append(f"{name} has the wrong result {outcome.revenue}")
        if memory.peak > limit + limit // 8 + 4 * MIB:  # There even small allocations fail.
            unmet.append(f"{name} was charged {memory.peak} bytes, over the ceiling of {limit}")
        # What the libraries made once and keep is in there, with whoever came first.
        if memory.current > limit // 4:
            unmet.append(f"{name} is still charged {memory.current} bytes")
    if objcg.audit().drift != 0:
        unmet.append(f"the audit found a drift of {objcg.audit().drift} bytes")
    return unmet


def most_resident_bytes() -> int:
    """Read VmHWM, the most that was ever resident of this process, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> int:
    """Run the job; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--partitions", type=int, default=12, help="how many there are")
    parser.add_argument("--threads", type=int, default=4, help="how many are done at a time")
    parser.add_argument("--limit", default="128M", help="memory.max of each partition")
    parser.add_argument("--quiet", action="store_true", help="print only what went wrong")
    options = parser.parse_args()
    objcg.enable()
    outcomes = process_all(options)
    unmet = unmet_expectations(outcomes)
    if not options.quiet:
        print_table(outcomes)
        column = ORDERS * LOST * 8 / 1024**3
        print(
            f"\none column of the bad join would have {column:.1f} GiB; most resident memory "
            f"{most_resident_bytes() / MIB:.0f} MiB; audit drift {objcg.audit().drift} bytes"
        )
    for reason in unmet:
        print(f"partitions: {reason}", file=sys.stderr)
    return 1 if unmet else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
