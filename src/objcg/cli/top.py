"""``objcg top``: a process on the whole terminal, live."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from objcg import region
from objcg.views.watch import Watch

from .parser import CliError
from .process import find_process

if TYPE_CHECKING:
    import argparse
    from typing import TextIO


def run(options: argparse.Namespace) -> int:
    """Watch the process that was named, until the user has seen enough; return the exit status."""
    try:
        from objcg.views.top.app import TopApp
    except ImportError as error:
        raise CliError(
            f'objcg top needs Textual: pip install "objcg[top]" ({type(error).__name__}: {error})'
        ) from error
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stdout)):
        which = "output" if _is_terminal(sys.stdin) else "input"
        raise CliError(
            f"objcg top needs a terminal, and standard {which} is none; "
            "'objcg tree' prints the groups once"
        )
    if os.environ.get("TERM", "dumb") == "dumb":
        raise CliError(
            f"objcg top cannot draw on this terminal (TERM={os.environ.get('TERM', '')!r}); "
            "'objcg tree' prints the groups once"
        )
    app = TopApp(_watch(options.process), options.interval)
    app.run()
    return app.return_code or 0


def _is_terminal(stream: TextIO | None) -> bool:
    # python has None for what it found closed
    return stream is not None and stream.isatty()


def _watch(process: str | None) -> Watch | None:
    """Return what is watched; None: there are several, and the user has to say which."""
    if process is None:
        live = region.find_live()
        if not live:
            raise CliError("no process of this user runs with objcg on")
        if len(live) > 1:
            return None
        path = live[0]
    else:
        path = find_process(process)
    try:
        return Watch(path)
    except region.RegionError as error:
        raise CliError(str(error)) from error
