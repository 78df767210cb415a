"""Opens a page in headless Chromium, uses it, and prints what came of it as JSON.

    python browse.py PAGE [SCREENSHOT]

Ends with 3, and says why, where there is no browser.
"""

import json
import os
import shutil
import sys

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")

try:
    from playwright.sync_api import sync_playwright
except ImportError as error:
    print(f"playwright is not installed: {error}")
    sys.exit(3)


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


def used(page):
    """Use all that can be used of a page, and return what it shows then."""
    page.wait_for_selector("html[data-drawn=yes]")
    found = {
        "legend": text_of(page, "#usage .legendtext"),
        "tree": text_of(page, "#tree .slicetext"),
        "moment": page.locator("#moment-time").inner_text(),
        "worst": text_of(page, "#worst tbody td:first-child"),
    }
    page.locator("#moment").focus()
    page.keyboard.press("Home")
    found["first moment"] = page.locator("#moment-time").inner_text()
    # the legend may be scrolled, the plot is where the grid is
    box = page.locator("#usage .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + box["height"] * 0.5)
    page.mouse.click(box["x"] + box["width"] * 0.95, box["y"] + box["height"] * 0.5)
    page.wait_for_timeout(300)
    found["clicked moment"] = page.locator("#moment-time").inner_text()
    page.get_by_role("button", name="growth").click()
    found["by growth"] = text_of(page, "#worst tbody td:nth-child(7)")
    found["alerted"] = page.evaluate("window.alerted")
    return found


def main(path, screenshot=None):
    noted = {"console": [], "errors": [], "requests": []}
    with sync_playwright() as playwright:
        # as root, which a container's user is, Chromium has no sandbox
        options = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=browser_path(playwright), args=options)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        # a machine at work takes its time for 5 MB of script
        context.set_default_timeout(90_000)
        context.add_init_script("window.alert = () => { window.alerted = true; }")
        page = context.new_page()
        page.on("console", lambda message: noted["console"].append(message.text))
        page.on("pageerror", lambda error: noted["errors"].append(str(error)))
        page.on("request", lambda request: noted["requests"].append(request.url))
        page.goto(f"file://{os.path.abspath(path)}")
        noted["used"] = used(page)
        # both schemes, and a narrow window
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 500, "height": 900})
        page.wait_for_timeout(500)
        if screenshot:
            page.screenshot(path=screenshot, full_page=True)
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.set_default_timeout(90_000)
        plain.goto(f"file://{os.path.abspath(path)}")
        noted["plain"] = plain.inner_text("body")
        browser.close()
    print(json.dumps(noted))


main(*sys.argv[1:])
