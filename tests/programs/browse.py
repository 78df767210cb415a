"""Opens a page in headless Chromium, uses it, and prints what came of it as JSON.

    python browse.py PAGE [SCREENSHOT]

Ends with 3, and says why, where there is no browser.
"""

import json
import os
import sys

from browser import TIMEOUT, opened, text_of


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
    with opened() as (browser, page, noted):
        page.goto(f"file://{os.path.abspath(path)}")
        noted["used"] = used(page)
        # both schemes, and a narrow window
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 500, "height": 900})
        page.wait_for_timeout(500)
        if screenshot:
            page.screenshot(path=screenshot, full_page=True)
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.set_default_timeout(TIMEOUT)
        plain.goto(f"file://{os.path.abspath(path)}")
        noted["plain"] = plain.inner_text("body")
    print(json.dumps(noted))


main(*sys.argv[1:])
