"""What there is to ask for: the page, what it is made of, its events; and setting a limit.

Nothing in here asks who it is: see `guard.py`.
"""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from objcg._sizes import format_size
from objcg.cli.table import printable
from objcg.region import RegionError
from objcg.views.report.page import plotly_script
from objcg.views.top import steering

from .guard import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from objcg.region import GroupInfo, Region

    from .feed import Feed

LARGEST_ORDER = 4096
"""Bytes of a request for a limit."""
_BEAT = 15.0
"""Seconds without news after which a stream has a comment: so one that nobody reads is noticed."""


class Order(NamedTuple):
    """A limit that shall be set: of the group `uid`, the knob, and its bytes; None: none."""

    uid: int
    knob: str
    value: int | None


class _Refused(Exception):
    """An order that is not carried out, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def make_app(feed: Feed, token: str, port: int) -> ASGIApp:
    """Return the application. Raises MissingPlotly."""
    files = {
        "": ("text/html", _resource("objcg.views.web", "page.html")),
        "page.js": ("text/javascript", _resource("objcg.views.web", "page.js")),
        "page.css": ("text/css", _resource("objcg.views.web", "page.css")),
        "report.css": ("text/css", _resource("objcg.views.report", "page.css")),
        "plotly.js": ("text/javascript", plotly_script().encode()),
    }

    def file(name: str) -> Route:
        media_type, content = files[name]

        async def answer(_: Request) -> Response:
            return Response(content, media_type=media_type)

        return Route(f"/{name}", answer, methods=["GET"])

    async def events(_: Request) -> Response:
        return StreamingResponse(_events(feed), media_type="text/event-stream")

    async def set_limit(request: Request) -> Response:
        try:
            done = await _carry_out(feed, parse(await _body(request)))
        except _Refused as error:
            return JSONResponse({"error": str(error)}, status_code=error.status)
        except ClientDisconnect:
            # in the middle of its request: there is nobody to answer, and nothing was asked for
            return Response(status_code=400)
        return JSONResponse({"done": done})

    app = Starlette(
        routes=[
            *map(file, files),
            Route("/events", events, methods=["GET"]),
            Route("/set", set_limit, methods=["POST"]),
        ]
    )
    # a redirect would leave the token out
    app.router.redirect_slashes = False
    return Guard(app, token, port)


async def _events(feed: Feed) -> AsyncIterator[str]:
    """Yield what the page shows, the latest whenever there is something new."""
    number = 0
    while not feed.closed:
        try:
            number, text = await asyncio.wait_for(feed.after(number), _BEAT)
        except asyncio.TimeoutError:
            yield ": still here\n\n"
            continue
        if text is not None:
            # JSON in one line: it has no newline
            yield f"data: {text}\n\n"


# ---- setting a limit -----------------------------------------------------------------------------


async def _body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _Refused(415, f"{media_type!r} is not accepted; the content has to be JSON")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_ORDER:
            raise _Refused(413, f"the content has more than {LARGEST_ORDER} bytes")
    return body


def parse(body: bytes) -> Order:
    """Return what a request asks for. Raises _Refused."""
    try:
        order: Any = json.loads(body)
    # deeply nested
    except (ValueError, RecursionError) as error:
        raise _Refused(400, "the content is no JSON") from error
    if not isinstance(order, dict) or set(order) != {"uid", "knob", "value"}:
        raise _Refused(400, 'accepted is an object with "uid", "knob" and "value"')
    uid, knob, value = order["uid"], order["knob"], order["value"]
    if not all(isinstance(text, str) for text in order.values()):
        raise _Refused(400, '"uid", "knob" and "value" have to be text')
    if not (uid.isascii() and uid.isdigit() and len(uid) <= 20):
        raise _Refused(400, f"{uid[:40]!r} is the number of no group")
    if knob not in steering.KNOBS:
        raise _Refused(400, f"{knob[:40]!r} is no knob; accepted are {', '.join(steering.KNOBS)}")
    try:
        return Order(int(uid), knob, steering.parse(knob, value))
    except ValueError as error:
        raise _Refused(400, str(error)) from error


async def _carry_out(feed: Feed, order: Order) -> str:
    """Set a limit; return what was done, for people. Raises _Refused."""
    found = feed.latest.region
    group = next((group for group in found.groups if group.uid == order.uid), None)
    if group is None:
        raise _Refused(409, "the group has ended: nothing was set")
    try:
        # it may wait for a moment
        done = await asyncio.to_thread(_set, found, group, order)
    except RegionError as error:
        raise _Refused(409, str(error)) from error
    if not done:
        raise _Refused(409, f"{printable(group.path)} has ended: nothing was set")
    feed.hurry()
    value = "unset" if order.value is None else format_size(order.value)
    return f"memory.{order.knob} of {printable(group.path)} is {value}"


def _set(found: Region, group: GroupInfo, order: Order) -> bool:
    return steering.set_limit(found, group, order.knob, order.value)


def _resource(package: str, name: str) -> bytes:
    return resources.files(package).joinpath(name).read_bytes()
