"""Make docs/pictures/web.png: what ``objcg web`` shows of examples/tenants.py.

    python docs/screenshots_web.py [--dark] [-o FILE]

objcg has to be installed with the extra "web", and playwright, which drives Chromium: the system's,
or the one that ``playwright install chromium`` has downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from objcg import region

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 300_000
"""Of a picture: it is kept with the sources."""
BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")


def screenshot(address: str, picture: Path, seconds: int, *, dark: bool) -> None:
    """Write what a browser shows when the page has been open for so long."""
    playwright: Any = importlib.import_module("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        # as root, which a container's user is, Chromium has no sandbox
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=found, args=options)
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": 1200, "height": 1700}, color_scheme=scheme)
        context.set_default_timeout(120_000)
        shown = context.new_page()
        shown.goto(address)
        shown.wait_for_selector("html[data-drawn=yes]")
        shown.wait_for_timeout(1000 * seconds)
        shown.screenshot(path=str(picture))
        browser.close()


def main() -> int:
    """Make the picture; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/pictures/web.png")
    parser.add_argument("--dark", action="store_true", help="in the dark scheme")
    parser.add_argument("--seconds", type=int, default=25, help="how long the page is open")
    options = parser.parse_args()
    # the picture shows the command: not where this machine has it
    python = os.path.relpath(sys.executable, ROOT)
    # an hour: it is ended as soon as the picture is there
    example = [python, "examples/tenants.py", "--quiet", "--seconds", "3600"]
    with subprocess.Popen(example, cwd=ROOT, stderr=subprocess.DEVNULL) as program:
        try:
            while region.find(program.pid) is None:
                if program.poll() is not None:
                    raise SystemExit("examples/tenants.py ended before it was shown")
                time.sleep(0.01)
            command = [sys.executable, "-m", "objcg", "web", str(program.pid)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    assert server.stdout is not None
                    address = server.stdout.readline().strip()
                    options.output.parent.mkdir(exist_ok=True)
                    screenshot(address, options.output, options.seconds, dark=options.dark)
                finally:
                    server.terminate()
        finally:
            program.kill()
    size = options.output.stat().st_size
    if size > MOST_BYTES:
        print(f"{options.output} has {size:,} bytes, more than {MOST_BYTES:,}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
