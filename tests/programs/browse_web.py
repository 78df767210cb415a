"""Opens the live view in headless Chromium, uses it, and prints what came of it as JSON.

    python browse_web.py URL

It is told what to do by lines on standard input, each answered by one in JSON: "open"; "wait TEXT",
until TEXT is in the page; "shown", what there is to see; "set [PATH, KNOB, SIZE]", as a user does;
"scheme dark", in a narrow window; "end", what was asked for and what went wrong. Ends with 3, and
says why, where there is no browser.
"""

import json
import sys

from browser import opened, text_of


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
    with opened() as (_, page, noted):
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


main(*sys.argv[1:])
