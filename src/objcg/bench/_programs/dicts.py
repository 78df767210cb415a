"""Records as dicts of mixed size, a third of which is dropped again while the rest grows."""

from __future__ import annotations

import sys


def main(scale: float) -> int:
    """Build and read; return what was counted."""
    records: list[dict[str, object] | None] = []
    for i in range(int(300_000 * scale)):
        tags = {j: str(j) for j in range(i % 7)}
        records.append({"id": i, "name": f"user-{i}", "tags": tags, "value": i * 1.5})
        if i % 3 == 0:
            records[i // 2] = None
    return sum(len(record) for record in records if record is not None)


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
