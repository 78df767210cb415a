"""``objcg report``: a page, or a table, of what ``objcg record`` has written."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from .output import standard_output, written
from .parser import CliError, WrongUse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from objcg.views.recording.reader import Recording


def run(options: argparse.Namespace) -> int:
    """Write what was asked for; return the exit status."""
    if options.output is None and not options.csv:
        raise WrongUse("report: the following arguments are required: -o/--output")
    if options.output is not None and os.path.exists(options.output):
        # also by another name
        with contextlib.suppress(OSError):
            if os.path.samefile(options.output, options.recording):
                raise WrongUse(f"report: -o {options.output!r} is the recording itself")
    try:
        from objcg.views.recording.reader import Recording
        from objcg.views.recording.schema import RecordingError
    except ImportError as error:
        raise CliError(f"this Python cannot read SQLite files: {error}") from error
    try:
        with Recording(options.recording) as recording:
            if not recording.samples:
                raise CliError(f"{options.recording}: it has no samples yet")
            try:
                (_csv if options.csv else _page)(recording, options.output)
            except (LookupError, TypeError, ValueError, ArithmeticError) as error:
                # columns have no types in SQLite: there may be anything in a file that is damaged
                raise CliError(
                    f"{options.recording}: it is damaged: {type(error).__name__}: {error}"
                ) from error
    except RecordingError as error:
        raise CliError(str(error)) from error
    return 0


def _page(recording: Recording, output: str) -> None:
    from objcg.views.recording import history
    from objcg.views.report import page

    try:
        plotly = page.plotly_script()
    except page.MissingPlotly as error:
        raise CliError(
            'plotly is not installed; the pictures need it: pip install "objcg[report]"'
        ) from error
    text = page.page(recording, history.read(recording), plotly)
    with _told(output), written(output) as file:
        file.write(text)


def _csv(recording: Recording, output: str | None) -> None:
    from objcg.views.recording import export

    if output is None:
        with standard_output() as out:
            export.write(recording, out)
        return
    with _told(output), written(output) as file:
        export.write(recording, file)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(f"cannot write {path!r}: {error.strerror}") from error
