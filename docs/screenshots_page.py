"""What the pictures of pages have in common: the example that is shown, Chromium, the file's size.

playwright drives Chromium: the system's, or the one that ``playwright install chromium`` has
downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objcg import region

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 300_000
"""Of a picture: it is kept with the sources."""
BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")


def options(about: str | None, *, output: str, seconds: int, what: str) -> argparse.Namespace:
    """Return what the command line asks for; `what` takes so many seconds where it says nothing."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/pictures" / output)
    parser.add_argument("--dark", action="store_true", help="in the dark scheme")
    parser.add_argument("--seconds", type=int, default=seconds, help=f"how long {what}")
    return parser.parse_args()


@contextmanager
def example(seconds: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run examples/tenants.py for so long, from when it has objcg on; at the end it is killed."""
    # the picture shows the command: not where this machine has it
    python = os.path.relpath(sys.executable, ROOT)
    command = [python, "examples/tenants.py", "--quiet", "--seconds", str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as program:
        try:
            while region.find(program.pid) is None:
                if program.poll() is not None:
                    raise SystemExit("examples/tenants.py ended before it was shown")
                time.sleep(0.01)
            yield program
        finally:
            program.kill()


def screenshot(address: str, picture: Path, seconds: float, *, dark: bool) -> int:
    """Write what a browser shows after so long; return the exit status."""
    picture.parent.mkdir(exist_ok=True)
    playwright: Any = importlib.import_module("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        # as root, which a container's user is, Chromium has no sandbox
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=found, args=arguments)
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": 1200, "height": 1700}, color_scheme=scheme)
        context.set_default_timeout(120_000)
        shown = context.new_page()
        shown.goto(address)
        shown.wait_for_selector("html[data-drawn=yes]")
        shown.wait_for_timeout(1000 * seconds)
        shown.screenshot(path=str(picture))
        browser.close()
    size = picture.stat().st_size
    if size > MOST_BYTES:
        print(f"{picture} has {size:,} bytes, more than {MOST_BYTES:,}", file=sys.stderr)
        return 1
    return 0
