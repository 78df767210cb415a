"""Has hooks of its own, and fails in an atexit callback and in a thread."""

import atexit
import sys
import threading


def fail() -> None:
    """Fail."""
    raise ZeroDivisionError


def hook(kind: type, value: BaseException, _traceback: object) -> None:
    """Report in its own way."""
    print("hook:", kind.__name__, value, file=sys.stderr)


atexit.register(fail)
thread = threading.Thread(target=fail, name="failing")
thread.start()
thread.join()
sys.excepthook = hook
raise ValueError("for the hook")
