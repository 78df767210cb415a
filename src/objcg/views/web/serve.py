"""Runs the server on a port of this machine, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from .app import make_app
from .feed import Feed
from .guard import new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from objcg.views.watch import Watch

ADDRESS = "127.0.0.1"
_PATIENCE = 2
"""Seconds that streams have to end."""


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


class _Server(uvicorn.Server):
    """Leaves signals to us: its own handlers raise them again when it has ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
