"""Runs the server on a port of this machine, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .app import make_app
from .feed import Feed
from .guard import new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from objcg.views.watch import Watch

ADDRESS = "127.0.0.1"
_PATIENCE = 2
"""Seconds that streams have to end."""
_MOST_CONNECTIONS = 100
"""At once: a page has some, and one stays for as long as it is shown."""
_BACKLOG = 16
"""Connections that are accepted before any of them is looked at."""


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine alone; 0: one that is free.

    Raises OSError.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # connections of a server that has just ended may still be there
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ADDRESS, port))
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


def serve(watch: Watch, listening: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `announce` is told the address. Raises MissingPlotly."""
    asyncio.run(_serve(watch, listening, announce))


async def _serve(watch: Watch, listening: socket.socket, announce: Callable[[str], None]) -> None:
    port = listening.getsockname()[1]
    token = new_token()
    feed = Feed(watch)
    config = uvicorn.Config(
        make_app(feed, token, port),
        lifespan="off",
        ws="none",
        # with the paths it would write the token
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        http=_bounded(most_connections()),
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_PATIENCE,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True
        # else it would wait for them
        feed.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)

    def failed(sampling: asyncio.Task[None]) -> None:
        if not sampling.cancelled() and sampling.exception() is not None:
            stop()

    sampling = asyncio.create_task(feed.run())
    sampling.add_done_callback(failed)
    try:
        announce(f"http://{ADDRESS}:{port}/{token}/")
        await server.serve(sockets=[listening])
    finally:
        feed.close()
        sampling.cancel()
        # what has failed in it comes out here
        with contextlib.suppress(asyncio.CancelledError):
            await sampling


def most_connections() -> int:
    """Return how many connections may be there at once; half of the descriptors are not theirs."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, descriptors // 2)


def _bounded(most: int) -> type[asyncio.Protocol]:
    """Return a protocol that has at most so many connections, and ends those that are too many.

    Every user of the machine may connect, and ask nothing: who does can keep others from being
    answered, but not the process from being read, which needs descriptors.
    """

    class Bounded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()

    return Bounded


class _Server(uvicorn.Server):
    """Leaves signals to us: its own handlers raise them again when it has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
