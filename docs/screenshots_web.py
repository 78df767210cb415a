"""Make docs/pictures/web.png: what ``objcg web`` shows of examples/tenants.py.

    python docs/screenshots_web.py [--dark] [-o FILE]

objcg has to be installed with the extra "web", and playwright (see screenshots_page.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import screenshots_page


def main() -> int:
    """Make the picture; return the exit status."""
    options = screenshots_page.options(
        __doc__, output="web.png", seconds=25, what="the page is open"
    )
    # an hour: it is ended as soon as the picture is there
    with screenshots_page.example(3600) as program:
        command = [sys.executable, "-m", "objcg", "web", str(program.pid)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = server.stdout.readline().strip()
                return screenshots_page.screenshot(
                    address, options.output, options.seconds, dark=options.dark
                )
            finally:
                server.terminate()


if __name__ == "__main__":
    sys.exit(main())
