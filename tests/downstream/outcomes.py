"""What each test came to, by name: read from the files that regrtest and pytest write for JUnit."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Names of parametrised tests may hold an object's repr.
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")

_CHILDREN = {"failure": "failed", "error": "error", "skipped": "skipped"}


def read(path: Path) -> dict[str, str]:
    """Return the outcome of each test: passed, failed, error or skipped. Empty without a file."""
    try:
        root = ET.parse(path).getroot()
    except (FileNotFoundError, ET.ParseError):
        return {}
    seen: Counter[str] = Counter()
    outcomes = {}
    for case in root.iter("testcase"):
        outcome = "passed"
        for child in case:
            outcome = _CHILDREN.get(child.tag, outcome)
        parts = (case.get("classname"), case.get("name"))
        name = _ADDRESS.sub("0x", ".".join(part for part in parts if part))
        seen[name] += 1
        outcomes[name if seen[name] == 1 else f"{name}#{seen[name]}"] = outcome
    return outcomes


def differing(plain: dict[str, str], other: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return, by name, the outcomes of tests that did not come to the same."""
    names = dict.fromkeys([*plain, *other])
    pairs = {name: (plain.get(name, "missing"), other.get(name, "missing")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
