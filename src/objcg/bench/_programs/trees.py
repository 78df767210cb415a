"""Binary trees of tuples: one that stays, and many of three depths that are made and dropped."""

from __future__ import annotations

import sys
from typing import Any


def make(depth: int) -> tuple[Any, Any]:
    """Return a tree of that depth."""
    return (None, None) if depth == 0 else (make(depth - 1), make(depth - 1))


def count(tree: tuple[Any, Any]) -> int:
    """Return how many nodes it has."""
    return 1 if tree[0] is None else 1 + count(tree[0]) + count(tree[1])


def main(scale: float) -> int:
    """Make the trees; return the nodes of all."""
    stays = make(15)
    nodes = 0
    for depth in (4, 8, 12):
        for _ in range(int((1 << (20 - depth)) * scale)):
            nodes += count(make(depth))
    return nodes + count(stays)


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
