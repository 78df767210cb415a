"""Regular expressions over a text of 2000 addresses: find, replace by a function, split."""

from __future__ import annotations

import re
import sys


def main(scale: float) -> int:
    """Search again and again; return how much was found."""
    text = " ".join(f"user{i}@example{i % 7}.com tel +{i % 90}-{i * 7919}" for i in range(2000))
    address = re.compile(r"(?P<user>[a-z]+\d+)@(?P<domain>[a-z0-9.]+)")
    telephone = re.compile(r"\+(\d+)-(\d+)")
    found = 0
    for _ in range(int(250 * scale)):
        found += len([match.groupdict() for match in address.finditer(text)])
        found += len(telephone.sub(lambda match: match.group(2) + "x", text))
        found += len(re.split(r"\s+", text))
    return found


if __name__ == "__main__":
    sys.stdout.write(f"{main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)}\n")
