"""Who is answered: an ASGI application around the one that answers.

What it protects from. Every user of this machine can connect to a port of it, and so can every web
page that the user's browser shows. The page can set limits, so that is not enough to be let in:

* The first part of each path is a token that only who started the server was told. It is compared
  in constant time. It is not a cookie: browsers send those to every port of a host, also to the
  server of another user.
* The host must be called by a name of this machine. A foreign page whose name was made to resolve
  to 127.0.0.1 (DNS rebinding) calls it by that name.
* An Origin, which browsers add where a page of elsewhere asks, must be ours, and there must be one
  with whatever changes something.
* Answers run no script but ours, are shown in no frame, are not kept, and tell nobody the address.

It does not protect from root, or from programs of the same user: those can do what this one can.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")

# Of styles those in attributes are needed: plotly places what it draws by them.
_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_READING: Final = ("GET", "HEAD")


def new_token() -> str:
    """Return a token that nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


class Guard:
    """Hands a request through, without the token in its path, or refuses it by 403."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{host}:{port}" for host in HOSTS}
        if port == 80:
            # browsers leave it out
            self._hosts.update(HOSTS)
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        first, slash, rest = scope["path"].lstrip("/").partition("/")
        # before anything else: without it nobody learns more
        refused: str | None
        if not secrets.compare_digest(first.encode(errors="replace"), self._token):
            refused = "the address has no token, or not that of this server"
        else:
            refused = self._refused(Headers(scope=scope), scope["method"])
        if refused:
            app: ASGIApp = PlainTextResponse(f"objcg web: {refused}\n", status_code=403)
        else:
            app = self._app
            scope = {**scope, "path": slash + rest, "root_path": ""}
        await app(scope, receive, send_with_headers)

    def _refused(self, headers: Headers, method: str) -> str | None:
        """Return why a request that has the token is refused; None: it is not."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return f"this is no name of this server: {', '.join(hosts) or 'none'}"
        if any(origin not in self._origins for origin in origins):
            return f"a page of elsewhere asks: {', '.join(origins)}"
        if method not in _READING and len(origins) != 1:
            return "what changes something needs an Origin"
        return None
