"""Lists that grow by one item at a time, up to 1200, and the half of each that is picked."""

from __future__ import annotations

import sys


def main(scale: float) -> int:
    """Grow them; return how many items there were."""
    total = 0
    for turn in range(int(15_000 * scale)):
        items = []
        for i in range(200 + turn % 1000):
            items.append(i + 1000)  # noqa: PERF401  # growing is what this is about
        total += len(items) + len([item for item in items if item & 1])
    return total


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
