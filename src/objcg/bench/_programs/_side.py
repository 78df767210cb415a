"""The process that a program runs in: ``_side.py SIDE REPORT PATH PROGRAM [ARGUMENT...]``.

SIDE "objcg" runs the program in a child group, any other without importing objcg. PATH is what
sys.path shall be, in lines. What the process was like goes to the file REPORT.
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys

TRACERS = ("filprofiler", "memray", "scalene")
"""Memory profilers that are a module of the process that they look into."""


def main() -> None:
    """Run the program as if it had been started by itself."""
    side, report, path = sys.argv[1:4]
    del sys.argv[:4]
    sys.path[:] = path.splitlines()
    if side == "objcg":
        import objcg
        from objcg import _core

        objcg.enable()
        with objcg.group("/bench"):
            try:
                run()
            finally:
                # what frees in the very end is the program's, too
                group = objcg.current_group()
                native = _core.native_state() is None
                tell(report, group.path, group.memory.peak, native=native)
    else:
        try:
            run()
        finally:
            tell(report, "objcg was imported" if "objcg" in sys.modules else "", 0, native=False)


def run() -> None:
    """Run the program as __main__, in which __builtins__ is the module and not its dict."""
    runpy.run_path(sys.argv[0], {"__builtins__": builtins}, "__main__")


def tell(report: str, group: str, peak: int, *, native: bool) -> None:
    """Write group, its peak, the interpreter's allocator, a library loaded before all, tracers.

    The last line is whether native memory is charged.
    """
    library = os.environ.get("LD_PRELOAD", "")
    if library:
        with open("/proc/self/maps", encoding="utf-8") as file:
            if library not in file.read():
                library = ""
    with open(report, "w", encoding="utf-8") as file:
        file.write(f"{group}\n{peak}\n{os.environ.get('PYTHONMALLOC', '')}\n{library}\n")
        file.write(f"{' '.join(tracers())}\n{'native' if native else ''}\n")


def tracers() -> list[str]:
    """Return the memory profilers that are in this process."""
    import _tracemalloc  # not before the program has run

    found = [name for name in TRACERS if name in sys.modules]
    return [*found, "tracemalloc"] if _tracemalloc.is_tracing() else found


if __name__ == "__main__":
    main()
