"""What a verb writes: standard output and error, and files where its user asked for them."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from .parser import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


def say(text: str) -> None:
    """Print what was asked for, and a newline. Raises CliError, BrokenPipeError."""
    with standard_output() as out:
        print(text, file=out)


@contextlib.contextmanager
def standard_output() -> Iterator[TextIO]:
    """Give standard output, which is flushed at the end.

    Raises:
        CliError: It is closed or cannot be written, by what is inside or at the end.
        BrokenPipeError: Nobody reads on.
    """
    if sys.stdout is None:
        # python found it closed
        raise CliError("cannot write standard output: it is closed")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        raise CliError(f"cannot write standard output: {error.strerror}") from error


def tell(text: str) -> None:
    """Print a line to standard error, for the user to know; where it cannot be, go on."""
    # print() takes None, which is what is there when it is closed, for standard output
    if sys.stderr is None:
        return
    from .table import printable

    try:
        # there may be names in it that another program has chosen
        print(f"objcg: {printable(text)}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Have what is in the buffer of `stream` and all that follows go nowhere.

    At exit Python would try once more to write it, fail, and end with 120.
    """
    # one that is no file, as a test may put there, has no descriptor: ValueError
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


@contextlib.contextmanager
def written(path: str) -> Iterator[TextIO]:
    """Open a file that is at `path` when all of it is written, and not before.

    What is there and is not a file itself is written to as it is: a device, a pipe, or a link to
    whatever it may be (``/dev/stdout`` is one). A rename would put a file in its place.

    Raises:
        OSError: It cannot be written. A file that was there is as it was.
    """
    mode = _mode_of_file(path)
    if mode is None:
        with open(path, "w", encoding="utf-8") as file:
            yield file
        return
    # not by the tempfile module: what ends a program is not the time for its imports
    partial = os.path.join(os.path.dirname(path), f".objcg-{os.getpid()}.partial")
    with contextlib.suppress(FileNotFoundError):
        # a process that had this id and was killed
        os.unlink(partial)
    with open(partial, "x", encoding="utf-8") as file:
        try:
            if mode:
                os.fchmod(file.fileno(), mode)
            yield file
            file.close()
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


def why_unwritable(path: str) -> str | None:
    """Return why :func:`written` would fail, as far as can be known before, or None."""
    if os.path.isdir(path):
        return "it is a folder"
    try:
        replaced = _mode_of_file(path) is not None
    except OSError as error:
        return str(error.strerror)
    if not replaced:
        # a link to what is not there yet can be written through
        writable = os.access(path, os.W_OK) or not os.path.exists(path)
        return None if writable else "it is not writable"
    folder = os.path.dirname(path) or "."
    return None if os.access(folder, os.W_OK | os.X_OK) else "its folder is not writable"


def _mode_of_file(path: str) -> int | None:
    """Return the permissions of the file at `path`, 0 if there is nothing, None if no file."""
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
    return stat.S_IMODE(found) if stat.S_ISREG(found) else None
