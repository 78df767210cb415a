"""Headless Chromium with a page, for browse.py and browse_web.py."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
TIMEOUT = 90_000
"""Milliseconds: a machine at work takes its time for 5 MB of script."""


def browser_path(playwright):
    """Return the path of a browser: the system's, or the one that playwright has downloaded."""
    paths = [*map(shutil.which, NAMES), playwright.chromium.executable_path]
    found = [path for path in paths if path and os.path.exists(path)]
    if not found:
        print(f"found no browser: none of {', '.join(NAMES)}, nor playwright's own")
        sys.exit(3)
    return found[0]


def text_of(page, selector):
    return page.eval_on_selector_all(selector, "found => found.map(one => one.textContent)")


@contextmanager
def opened():
    """Yield a browser, an empty page in it, and what is noted of that: a dict of lists.

    Ends the program with 3, and says why, where there is no browser.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        print(f"playwright is not installed: {error}")
        sys.exit(3)
    noted = {"console": [], "errors": [], "requests": []}
    with sync_playwright() as playwright:
        # as root, which a container's user is, Chromium has no sandbox
        options = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=browser_path(playwright), args=options)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(TIMEOUT)
        context.add_init_script("window.alert = () => { window.alerted = true; }")
        page = context.new_page()
        page.on("console", lambda message: noted["console"].append(message.text))
        page.on("pageerror", lambda error: noted["errors"].append(str(error)))
        page.on("request", lambda request: noted["requests"].append(request.url))
        yield browser, page, noted
        browser.close()
