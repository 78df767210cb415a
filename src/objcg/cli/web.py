"""``objcg web``: a process in a browser on this machine, live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objcg import region
from objcg.views.watch import Watch

from .output import say, tell
from .parser import CliError
from .process import find_process, read_all_live
from .table import printable

if TYPE_CHECKING:
    import argparse

# How many processes an error message names.
_NAMED = 5
_MISSING = 'objcg web needs starlette, uvicorn and plotly: pip install "objcg[web]"'


def run(options: argparse.Namespace) -> int:
    """Serve the page until a signal; return the exit status."""
    try:
        from objcg.views.report.page import MissingPlotly
        from objcg.views.web import serve
    except ImportError as error:
        raise CliError(f"{_MISSING} ({type(error).__name__}: {error})") from error
    watch = _watch(options.process)
    try:
        listening = serve.listen(options.port)
    except OSError as error:
        raise CliError(
            f"cannot listen on port {options.port} of {serve.ADDRESS}: {error.strerror}"
        ) from error
    with listening:
        try:
            serve.serve(watch, listening, _announce)
        except MissingPlotly as error:
            raise CliError(f"{_MISSING} (plotly is not installed)") from error
    return 0


def _announce(address: str) -> None:
    # alone in its line, for whoever reads it by a program
    say(address)
    tell("who has this address can set limits; Ctrl-C ends")


def _watch(process: str | None) -> Watch:
    path = _only_process() if process is None else find_process(process)
    try:
        return Watch(path)
    except region.RegionError as error:
        raise CliError(str(error)) from error


def _only_process() -> str:
    live = region.find_live()
    if not live:
        raise CliError("no process of this user runs with objcg on")
    if len(live) == 1:
        return live[0]
    found, _ = read_all_live()
    some = ", ".join(f"{one.pid} ({printable(one.command)[:60]})" for one in found[:_NAMED])
    rest = len(live) - min(len(found), _NAMED)
    more = f" and {rest} more" if rest > 0 else ""
    raise CliError(f"{len(live)} processes run with objcg on; name one by its PID: {some}{more}")
