"""Opens the live view in headless Chromium, uses it, and prints what came of it as JSON.

    python browse_web.py URL

It is told what to do by lines on standard input, each answered by one in JSON: "open"; "wait TEXT",
until TEXT is in the page; "shown", what there is to see; "set [PATH, KNOB, SIZE]", as a user does;
"scheme dark", in a narrow window; "end", what was asked for and what went wrong. Ends with 3, and
says why, where there is no browser.
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


def shown(page):
    """Return what there is to see."""
    return {
        "state": page.locator("#state").get_attribute("data-state"),
        "title": page.title(),
        "command": page.locator("#command").inner_text(),
        "groups": text_of(page, "#groups tbody td:first-child"),
        "current": text_of(page, "#groups tbody td:nth-child(3)"),
        "max": text_of(page, "#groups tbody td:nth-child(6)"),
        "offenders": text_of(page, "#groups tr.offender td:first-child"),
        "colours": page.eval_on_selector_all(
            "#groups tr.offender td:first-child", "all => all.map(e => getComputedStyle(e).color)"
        ),
        "told": text_of(page, "#offenders li"),
        "events": text_of(page, "#events tbody td:nth-child(3)"),
        "legend": text_of(page, "#usage .legendtext"),
        "tree": text_of(page, "#tree .slicetext"),
        "red": page.evaluate(
            "document.getElementById('tree').data[0].labels.filter((_, i) =>"
            " document.getElementById('tree').data[0].marker.colors[i] === '#d62728')"
        ),
        "points": page.evaluate("document.getElementById('usage').data[0].x.length"),
        "scripts": page.locator("script").count(),
        "foreign": page.locator("main img, main a, main iframe").count(),
        "alerted": page.evaluate("window.alerted === true"),
    }


def set_limit(page, path, knob, size):
    """Set a limit as a user does; return what the page says of it."""
    page.get_by_role("button", name=f"memory.{knob} of {path}:").click()
    page.locator("#size").fill(size)
    with page.expect_response("**/set"):
        page.locator("#size").press("Enter")
    page.wait_for_function(
        "() => document.getElementById('refused').textContent"
        " || !document.getElementById('limit').open"
    )
    refused = page.locator("#refused").text_content()
    if refused:
        page.get_by_role("button", name="Cancel").click()
    return refused or page.locator("#done").text_content()


def main(url):
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
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            order, _, rest = line.rstrip("\n").partition(" ")
            answer = "done"
            if order == "open":
                page.goto(url)
                page.wait_for_selector("html[data-drawn=yes]")
            elif order == "wait":
                # functions, not expressions: those need eval(), which the page does not allow
                page.wait_for_function(
                    "text => document.body.innerText.includes(text)", arg=json.loads(rest)
                )
            elif order == "shown":
                answer = shown(page)
            elif order == "set":
                answer = set_limit(page, *json.loads(rest))
            elif order == "scheme":
                page.emulate_media(color_scheme=rest)
                page.set_viewport_size({"width": 500, "height": 900})
                page.wait_for_timeout(300)
            elif order == "end":
                answer = noted
            print(json.dumps(answer), flush=True)
        browser.close()


main(*sys.argv[1:])
