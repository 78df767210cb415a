"""What the programs here share: memory of a library is held in a group, measured, and released.

Each program says how to make something that holds memory, and how many bytes the library says that
is. One line of JSON is printed; tests/integration/test_libraries.py judges it.
"""

import ctypes
import gc
import json
import os
import threading

import objcg
from objcg import _core, _layout, _location, region


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def malloc_in_use() -> int:
    """Return the bytes that the C library's malloc() has handed out, by its own books."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def seen() -> tuple[int, int]:
    """Return (RSS less what is known to be nobody's, what is charged) of this process in bytes.

    That is mapped files, since a library's code is mapped as it is first run, and what objcg itself
    and the C library's malloc() keep for the next allocations. How much malloc() does depends on
    what happens to lie at the end of its heap: of pyarrow 6 to 18 MB, by the length of a path.
    """
    ctypes.CDLL(None).malloc_trim(0)
    resident = _location.resident(os.getpid())
    assert resident is not None
    everything, shared = resident
    kept = _core.slab_stat()["kept"]
    return everything - shared - kept, objcg.root.memory.current


def in_thread(fn) -> None:
    """Call `fn` in a thread of Python's that is in no group."""
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


class Holder:
    """One thing that is held; releasing it drops the last reference."""

    def __init__(self, made):
        self.made = made

    def release(self):
        self.made = None
        gc.collect()


def hold(make, expected, *, needs=None, release_natively=None, version=""):
    """Measure and print; to be called once, at the end of a program.

    `make()` returns what holds the memory, `expected(made)` the bytes it should be charged with.
    `needs` says without what it cannot be seen: "native", the allocator of C libraries.
    `release_natively(made)` has a thread that is not Python's free it.
    """
    group, other = objcg.group("/library"), objcg.group("/other")
    # To start up means here: the interpreter, and all that is imported.
    gc.collect()
    rss_before, charged_before = seen()
    # what the library makes once, and keeps
    with objcg.group("/warm-up"):
        made = make()
        del made
        gc.collect()

    def held():
        with group:
            return Holder(make())

    def charged():
        gc.collect()
        return group.memory.current

    baseline = charged()
    in_use = malloc_in_use()
    holder = held()
    result = {
        "malloc": malloc_in_use() - in_use,
        "charged": charged() - baseline,
        "expected": expected(holder.made),
        "stat": group.memory.stat,
        "peak": group.memory.peak,
    }
    rss, charged_now = seen()
    resident = _location.resident(os.getpid())
    assert resident is not None
    result["rss"] = resident[0]
    result["unaccounted"] = (rss - rss_before) - (charged_now - charged_before)
    holder.release()
    released = {"in place": charged() - baseline}

    others = other.memory.current
    holder = held()
    with other:
        holder.release()
    released["from another group"] = charged() - baseline
    result["other"] = other.memory.current - others

    holder = held()
    in_thread(holder.release)
    released["from a thread"] = charged() - baseline

    if release_natively is not None:
        holder = held()
        release_natively(holder.made)
        holder.release()
        released["from a thread that is not Python's"] = charged() - baseline

    path = _core.region_path()
    assert path is not None
    flags = region.read(path).flags
    result |= {
        "version": version,
        "needs": needs,
        "native": bool(flags & _layout.FLAG_NATIVE),
        "released": released,
        "drift": objcg.audit().drift,
    }
    print(json.dumps(result))
