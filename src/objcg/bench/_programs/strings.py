"""Many short strings and a few long ones: formatted, joined, split, put into a set."""

from __future__ import annotations

import sys


def main(scale: float) -> int:
    """Work on three texts; return how many different words there were."""
    different = 0
    count = int(200_000 * scale)
    for turn in range(3):
        words = []
        for i in range(count):
            text = f"item {i} of {turn}"
            words.append(text.upper() + "-" + text[::-1])
        different += len({word.lower() for word in " ".join(words).split(" ")})
    return different


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
