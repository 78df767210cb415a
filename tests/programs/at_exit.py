"""Shows in which order things happen at the end."""

import atexit
import sys
import threading
import weakref


class Finalised:
    """Says when it goes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __del__(self) -> None:
        print("del", self.name)


def late(started: threading.Event) -> None:
    """Outlive the main thread."""
    started.wait()
    threading.main_thread().join()
    print("thread ends after the main thread")


kept = Finalised("global")
weakref.finalize(kept, print, "finalize")
atexit.register(print, "registered first")
atexit.register(print, "registered last, to stderr", file=sys.stderr)
event = threading.Event()
threading.Thread(target=late, args=(event,)).start()
threading.Thread(target=threading.Event().wait, daemon=True).start()
event.set()
print("main ends")
if "raise" in sys.argv:
    raise ValueError
