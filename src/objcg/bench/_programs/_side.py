"""The process that a program runs in: ``_side.py SIDE REPORT PATH PROGRAM [ARGUMENT...]``.

SIDE "objcg" runs the program in a child group, any other without importing objcg. PATH is what
sys.path shall be, in lines. What the process was like goes to the file REPORT.
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys


def main() -> None:
    """Run the program as if it had been started by itself."""
    side, report, path = sys.argv[1:4]
    del sys.argv[:4]
    sys.path[:] = path.splitlines()
    if side == "objcg":
        import objcg

        objcg.enable()
        with objcg.group("/bench"):
            try:
                run()
            finally:
                # what frees in the very end is the program's, too
                group = objcg.current_group()
                tell(report, group.path, group.memory.peak)
    else:
        try:
            run()
        finally:
            tell(report, "objcg was imported" if "objcg" in sys.modules else "", 0)


def run() -> None:
    """Run the program as __main__, in which __builtins__ is the module and not its dict."""
    runpy.run_path(sys.argv[0], {"__builtins__": builtins}, "__main__")


def tell(report: str, group: str, peak: int) -> None:
    """Write the group, its peak, the interpreter's allocator and a library loaded before all."""
    library = os.environ.get("LD_PRELOAD", "")
    if library:
        with open("/proc/self/maps", encoding="utf-8") as file:
            if library not in file.read():
                library = ""
    with open(report, "w", encoding="utf-8") as file:
        file.write(f"{group}\n{peak}\n{os.environ.get('PYTHONMALLOC', '')}\n{library}\n")


if __name__ == "__main__":
    main()
