"""Chains of instances with a list in each; the oldest chain goes when there are 500."""

from __future__ import annotations

import sys
from collections import deque


class Node:
    """One link."""

    def __init__(self, value: int, previous: Node | None = None) -> None:
        self.value = value
        self.previous = previous
        self.children: list[Node] = []


def main(scale: float) -> int:
    """Build the chains; return what is left of them."""
    chains: deque[Node | None] = deque()
    for _ in range(int(38_000 * scale)):
        node = None
        for i in range(100):
            node = Node(i, node)
            if i % 10 == 0:
                node.children.append(Node(i))
        chains.append(node)
        if len(chains) > 500:
            chains.popleft()
    return len(chains)


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
