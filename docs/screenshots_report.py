"""Make docs/pictures/report.png: what ``objcg report`` shows of a run of examples/tenants.py.

    python docs/screenshots_report.py [--dark] [-o FILE]

objcg has to be installed with the extra "report", and playwright, which drives Chromium: the
system's, or the one that ``playwright install chromium`` has downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from objcg import region

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 300_000
"""Of a picture: it is kept with the sources."""
BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")


def record(recording: Path, seconds: int) -> None:
    """Record a run of the example from its start to its end."""
    # the picture shows the command: not where this machine has it
    python = os.path.relpath(sys.executable, ROOT)
    example = [python, "examples/tenants.py", "--quiet", "--seconds", str(seconds)]
    with subprocess.Popen(example, cwd=ROOT) as program:
        while region.find(program.pid) is None:
            if program.poll() is not None:
                raise SystemExit("examples/tenants.py ended before it was recorded")
            time.sleep(0.01)
        objcg(["record", str(program.pid), "-o", str(recording), "--interval", "0.1"])


def objcg(arguments: list[str]) -> None:
    """Run a verb of objcg that has to succeed."""
    subprocess.run([sys.executable, "-m", "objcg", *arguments], check=True)


def screenshot(page: Path, picture: Path, *, dark: bool) -> None:
    """Write what a browser shows of a page."""
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
        shown.goto(page.as_uri())
        shown.wait_for_selector("html[data-drawn=yes]")
        shown.wait_for_timeout(500)
        shown.screenshot(path=str(picture))
        browser.close()


def main() -> int:
    """Make the picture; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/pictures/report.png")
    parser.add_argument("--dark", action="store_true", help="in the dark scheme")
    parser.add_argument("--seconds", type=int, default=20, help="how long the example runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording, page = Path(folder, "tenants.db"), Path(folder, "report.html")
        record(recording, options.seconds)
        objcg(["report", str(recording), "-o", str(page)])
        options.output.parent.mkdir(exist_ok=True)
        screenshot(page, options.output, dark=options.dark)
    size = options.output.stat().st_size
    if size > MOST_BYTES:
        print(f"{options.output} has {size:,} bytes, more than {MOST_BYTES:,}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
