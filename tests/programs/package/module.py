"""A module that is imported, or run by -m package.module."""

import sys


def fail() -> None:
    """Fail in an imported module."""
    raise LookupError("in the module")


if __name__ == "__main__":
    print(__name__, __package__, __spec__.name, sys.argv[1:])
    fail()
