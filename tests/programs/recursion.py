"""Shows how deep it can go."""

import sys


def depth(number: int = 1) -> int:
    """Recurse until the interpreter stops it."""
    try:
        return depth(number + 1)
    except RecursionError:
        return number


print(sys.getrecursionlimit(), depth())
if "uncaught" in sys.argv:

    def forever() -> None:
        """Never end."""
        forever()

    forever()
