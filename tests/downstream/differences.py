"""Tests that do not come to the same under objcg, each with the reason.

A difference that is not here fails `make downstream`; so does one that is here and is gone (on the
versions it names), unless it is said to come and go.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple


class Difference(NamedTuple):
    """One or more tests of a suite, by a pattern as of fnmatch."""

    suite: str
    tests: str
    reason: str
    versions: tuple[str, ...] = ("3.10", "3.11", "3.12", "3.13")

    def explains(self, suite: str, version: str, test: str) -> bool:
        """Return whether it is about this test."""
        return (
            suite == self.suite
            and version in self.versions
            # brackets are part of the names of parametrised tests
            and fnmatchcase(test, self.tests.replace("[", "[[]"))
        )


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "cpython",
        "test.test_trace.TestCoverage.test_coverage_ignore",
        "trace lists the modules that ran, and objcg's _imports.py is asked at each import as long "
        "as it waits for one (NumPy, concurrent.futures, multiprocessing, greenlet)",
    ),
)


def reason(suite: str, version: str, test: str) -> str | None:
    """Return why a test differs; None: nobody has said."""
    for difference in DIFFERENCES:
        if difference.explains(suite, version, test):
            return difference.reason
    return None
