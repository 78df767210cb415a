"""Make docs/pictures/report.png: what ``objcg report`` shows of a run of examples/tenants.py.

    python docs/screenshots_report.py [--dark] [-o FILE]

objcg has to be installed with the extra "report", and playwright (see screenshots_page.py).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import screenshots_page


def objcg(*arguments: str) -> None:
    """Run a verb of objcg that has to succeed."""
    subprocess.run([sys.executable, "-m", "objcg", *arguments], check=True)


def main() -> int:
    """Make the picture; return the exit status."""
    options = screenshots_page.options(
        __doc__, output="report.png", seconds=20, what="the example runs"
    )
    with tempfile.TemporaryDirectory() as folder:
        recording, page = Path(folder, "tenants.db"), Path(folder, "report.html")
        with screenshots_page.example(options.seconds) as program:
            # from its start to its end
            objcg("record", str(program.pid), "-o", str(recording), "--interval", "0.1")
        objcg("report", str(recording), "-o", str(page))
        address = page.as_uri()
        return screenshots_page.screenshot(address, options.output, 0.5, dark=options.dark)


if __name__ == "__main__":
    sys.exit(main())
