"""Take docs/pictures/top.svg: `objcg top` beside the service of examples/tenants.py.

    python docs/screenshots.py

objcg has to be installed there, with the extra "top". Nothing is on a terminal; the picture is what
Textual would have drawn on one of 100 x 24.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from objcg import region
from objcg.views.top.app import TopApp
from objcg.views.top.model import Level, level
from objcg.views.top.table import Groups
from objcg.views.watch import State, Watch

DOCS = Path(__file__).resolve().parent
SIZE = (100, 24)
MOST_BYTES = 200_000
"""Of a picture: it is kept with the sources."""


async def picture(path: str) -> str:
    """Watch the process until a tenant is at its limit; return what is on the screen, as SVG."""
    app = TopApp(Watch(path), 1.0)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(2)
        groups = app.screen.query_one(Groups)
        while groups.selected is None or groups.selected.path != "/tenants/leaky":
            await pilot.press("down")
        while level(groups.selected) is not Level.FULL or not groups.selected.events["max"]:
            await pilot.pause(0.5)
            if groups.model.sample.state is not State.RUNNING:
                raise RuntimeError("examples/tenants.py has ended before a tenant was at its limit")
        await pilot.pause(1)
        return app.export_screenshot(title="objcg top")


def main() -> int:
    """Take the picture; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OBJCG_DIR"] = folder
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        service = subprocess.Popen(
            # the command as a user types it: it is in the picture, and where this Python is is not
            ["python", "examples/tenants.py", "--quiet", "--seconds=300"],  # noqa: S607
            cwd=DOCS.parent,
            # with the load generator, which is a child of it
            start_new_session=True,
        )
        try:
            while (path := region.find(service.pid)) is None:
                if service.poll() is not None:
                    print("examples/tenants.py has ended before it was watched", file=sys.stderr)
                    return 1
                time.sleep(0.1)
            # its groups are made, and requests come
            time.sleep(3)
            text = asyncio.run(picture(path))
        finally:
            os.killpg(service.pid, signal.SIGKILL)
            service.wait()
    if len(text.encode()) > MOST_BYTES:
        print(f"the picture has {len(text.encode()):,} bytes, more than {MOST_BYTES:,}")
        return 1
    target = DOCS / "pictures" / "top.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
