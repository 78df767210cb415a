"""Sends itself the signal its first argument names; the second says who handles it."""

import os
import signal
import sys


def handled(number: int, _frame: object) -> None:
    """Say so and end."""
    print("handled", signal.Signals(number).name)
    sys.exit(3)


def main() -> None:
    """Send it."""
    number = signal.Signals[sys.argv[1]]
    if "handle" in sys.argv:
        signal.signal(number, handled)
    if "ignore" in sys.argv:
        signal.signal(number, signal.SIG_IGN)
    print("sending", number.name, flush=True)
    os.kill(os.getpid(), number)
    print("survived")


main()
