"""A document of 2000 records, turned into JSON and back."""

from __future__ import annotations

import json
import sys


def main(scale: float) -> int:
    """Turn it again and again; return how long the texts were."""
    document = [
        {
            "id": i,
            "name": "n" * (i % 20),
            "numbers": list(range(i % 30)),
            "part": {"a": i / 3, "b": None},
        }
        for i in range(2000)
    ]
    characters = 0
    for _ in range(int(90 * scale)):
        text = json.dumps(document)
        characters += len(text)
        document = json.loads(text)
    return characters


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
